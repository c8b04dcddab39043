//! Which pods a policy has, by group and unit, and what is written on them.

use std::collections::BTreeMap;

use elastic_core::elastic_workload::Bounds;
use elastic_core::names::MATCHED_POLICY_ANNOTATION;
use elastic_core::names::POD_DELETION_COST;
use elastic_core::pod_facts::{has_ended, is_active, is_ready};
use elastic_core::resource_policy::{
    Match, ResourcePolicy, ResourcePolicyStatus, UnitState, is_waiting, leave_alone, matched,
    unit_of_node,
};
use elastic_core::workload_spread::{SpreadPod, deletion_costs};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use super::Context;
use crate::pass::PassError;
use crate::pods;
use crate::policy_view::age;

/// A pod of the policy.
pub(super) struct Member {
    pub(super) pod: Pod,
    pub(super) group: String,
    pub(super) unit: Option<usize>,
    /// Its mark, if it has one.
    pub(super) mark: Option<Match>,
}

impl Member {
    pub(super) fn is_bound(&self) -> bool {
        let spec = self.pod.spec.as_ref();
        spec.is_some_and(|spec| spec.node_name.is_some())
    }

    /// Whether it waits behind the gate for a unit.
    pub(super) fn waits(&self) -> bool {
        self.unit.is_none() && is_waiting(&self.pod) && is_active(&self.pod)
    }

    fn ends(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }
}

/// The policy's pods: those with its mark, and those that run already and no older policy selects.
pub(super) async fn read(
    policy: &ResourcePolicy,
    context: &Context,
) -> Result<Vec<Member>, PassError> {
    let name = policy.name_any();
    let namespace = policy.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let which = ListParams::default().labels(
        &policy
            .spec
            .list_selector(elastic_core::resource_policy::ALL),
    );
    let listed = api.list(&which).await;
    let list = listed
        .map_err(PassError::about("list pods of", &name))?
        .items;
    let stranger = |pod: &Pod| matched(pod.annotations()).is_none();
    let bound = |pod: &Pod| {
        pod.spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.is_some())
    };
    let list: Vec<Pod> = list
        .into_iter()
        .filter(|pod| !has_ended(pod) && !leave_alone(pod))
        .filter(|pod| {
            let mark = matched(pod.annotations());
            mark.map_or_else(
                || bound(pod) && counts_stranger(policy, context, pod),
                |mark| mark.name == name,
            )
        })
        .collect();
    let nodes = if list.iter().any(stranger) {
        pods::nodes(&context.client).await?
    } else {
        BTreeMap::new()
    };
    let keys = policy.spec.keys();
    let members = list
        .into_iter()
        .filter_map(|pod| member(policy, &keys, &nodes, pod));
    Ok(members.collect())
}

/// Whether a pod that nobody gave to a unit counts.
fn counts_stranger(policy: &ResourcePolicy, context: &Context, pod: &Pod) -> bool {
    let created = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        meta.creation_timestamp.as_ref().map(|time| time.0)
    };
    let older = created(&pod.metadata) < created(&policy.metadata);
    let all = context.policies.state();
    let another = all.iter().any(|other| {
        other.namespace() == policy.namespace()
            && age(other.as_ref()) < age(policy)
            && other.spec.selects(pod.labels())
    });
    !(another || older && policy.spec.ignores_previous())
}

pub(super) fn member(
    policy: &ResourcePolicy,
    keys: &[String],
    nodes: &BTreeMap<String, Node>,
    pod: Pod,
) -> Option<Member> {
    let mark = matched(pod.annotations());
    let by_mark = mark
        .as_ref()
        .and_then(|mark| keys.iter().position(|key| *key == mark.unit));
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    let by_node = node
        .filter(|_| mark.is_none())
        .and_then(|node| unit_of_node(&policy.spec, nodes.get(node)?));
    Some(Member {
        group: policy.spec.group(pod.labels()).ok()?,
        unit: by_mark.or(by_node),
        mark,
        pod,
    })
}

/// Groups with their members. Promises to pods of a group that has no pods yet make a group too.
pub(super) fn by_group<'a>(
    members: &'a [Member],
    status: &ResourcePolicyStatus,
    now: Timestamp,
) -> BTreeMap<String, Vec<&'a Member>> {
    let mut groups: BTreeMap<String, Vec<&Member>> = BTreeMap::new();
    for (group, units) in &status.groups {
        let mut promised = units.iter();
        if promised.any(|unit| !status.creating(group, &unit.unit, &[], now).is_empty()) {
            groups.entry(group.clone()).or_default();
        }
    }
    for member in members {
        groups.entry(member.group.clone()).or_default().push(member);
    }
    groups
}

/// Calls that created pods which have their unit.
pub(super) fn seen(members: &[&Member]) -> Vec<String> {
    let marks = members.iter().filter_map(|member| member.mark.as_ref());
    let placed = marks.filter(|mark| !mark.unit.is_empty());
    placed.map(|mark| mark.uid.clone()).collect()
}

/// What is known of the units for one group.
pub(super) fn states(
    policy: &ResourcePolicy,
    status: &ResourcePolicyStatus,
    group: &str,
    members: &[&Member],
    now: Timestamp,
) -> Vec<UnitState> {
    let seen = seen(members);
    let keys = policy.spec.keys();
    let state = |(index, key): (usize, &String)| {
        let here = || {
            members
                .iter()
                .filter(move |member| member.unit == Some(index))
        };
        let ending = here().filter(|member| member.ends()).count();
        let all = here().count();
        let counted = if policy.spec.ignores_terminating() {
            all - ending
        } else {
            all
        };
        let promised = status.creating(group, key, &seen, now).len();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        UnitState {
            pods: number(counted + promised),
            terminating: number(ending),
            short: status.skipped_since(key, now).is_some(),
            allowed: true,
        }
    };
    keys.iter().enumerate().map(state).collect()
}

/// The writes that say of each pod which goes first, and mark those that nobody gave to a unit.
pub(super) fn writes(policy: &ResourcePolicy, members: &[Member]) -> Vec<(String, Value)> {
    let bounds = policy.spec.bounds();
    let keys = policy.spec.keys();
    let mut groups: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
    for member in members.iter().filter(|member| is_active(&member.pod)) {
        groups.entry(&member.group).or_default().push(member);
    }
    let mut writes = Vec::new();
    for members in groups.into_values() {
        let costs = costs(&bounds, &members);
        for (member, cost) in members.into_iter().zip(costs) {
            writes.extend(write(policy, &keys, member, cost));
        }
    }
    writes
}

fn costs(bounds: &[Bounds], members: &[&Member]) -> Vec<i32> {
    let pods: Vec<SpreadPod> = members
        .iter()
        .map(|member| SpreadPod {
            subset: member.unit,
            ready: is_ready(&member.pod),
            bound: member.is_bound(),
            created: created(&member.pod).map_or(0, |time| time.as_second()),
            name: member.pod.name_any(),
        })
        .collect();
    deletion_costs(bounds, &pods)
}

pub(super) fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

fn write(
    policy: &ResourcePolicy,
    keys: &[String],
    member: &Member,
    cost: i32,
) -> Option<(String, Value)> {
    let mut wanted = serde_json::Map::new();
    if let Some(unit) = member.unit.filter(|_| member.mark.is_none()) {
        let found = Match {
            name: policy.name_any(),
            unit: keys[unit].clone(),
            uid: String::new(),
        };
        wanted.insert(
            MATCHED_POLICY_ANNOTATION.to_owned(),
            json!(json!(found).to_string()),
        );
    }
    // Only ReplicaSets honour a cost.
    let mut owners = member.pod.owner_references().iter();
    let honoured = owners.any(|owner| owner.controller == Some(true) && owner.kind == "ReplicaSet");
    let text = cost.to_string();
    if honoured && member.pod.annotations().get(POD_DELETION_COST) != Some(&text) {
        wanted.insert(POD_DELETION_COST.to_owned(), json!(text));
    }
    let patch = json!({"metadata": {"uid": member.pod.uid(), "annotations": wanted}});
    (!wanted.is_empty()).then(|| (member.pod.name_any(), patch))
}
