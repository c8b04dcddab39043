//! One pass over one ResourcePolicy: count, say who goes first, see who has no room, let waiting pods go, report.

use std::collections::BTreeMap;
use std::time::Duration;

use elastic_core::resource_policy::{
    CREATING_SECONDS, Choice, Match, ResourcePolicy, ResourcePolicyStatus, UnitStatus, allows,
    choose, enter, unhonoured, validate,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::Context;
use super::members::{self, Member};
use super::shortage;
use crate::pass::{PassError, Teller, generation, join, replace_status};
use crate::pods;

const COMPONENT: &str = "springtide-resource-policy";
const SOON: Duration = Duration::from_millis(100);

pub(super) async fn reconcile(
    policy: &ResourcePolicy,
    context: &Context,
) -> Result<Action, PassError> {
    let now = Timestamp::now();
    let old = policy.status.clone().unwrap_or_default();
    let mut next = old.clone();
    let mut teller = Teller::new(&old.conditions, policy.meta().generation, now);
    let outcome = keep_books(policy, context, now, &mut next, &mut teller).await;
    if let Err(error) = &outcome
        && let Some((reason, message)) = error.problem()
    {
        teller.fails("Ready", reason, &message);
    }
    next.observed_generation = generation(policy);
    next.conditions = teller.conditions.clone();
    if next != old {
        let mut object = policy.clone();
        object.status = Some(next);
        if !replace_status(&context.client, &object).await? {
            return Ok(Action::requeue(SOON));
        }
    }
    teller
        .post(&context.client, &policy.object_ref(&()), COMPONENT)
        .await;
    let books = outcome?;
    let namespace = policy.namespace().unwrap_or_default();
    // Only after the status says so: places are promised, and units are closed for the pods made instead of these.
    pods::patch_all(&context.client, &namespace, books.let_go).await?;
    for pod in &books.evicted {
        pods::delete_as_seen(&context.client, pod).await?;
    }
    Ok(Action::requeue(books.wait))
}

/// What is left to do after the status is written.
struct Books {
    wait: Duration,
    /// Waiting pods with their place.
    let_go: Vec<(String, Value)>,
    evicted: Vec<Pod>,
}

async fn keep_books(
    policy: &ResourcePolicy,
    context: &Context,
    now: Timestamp,
    status: &mut ResourcePolicyStatus,
    teller: &mut Teller,
) -> Result<Books, PassError> {
    let errors = validate(&policy.spec);
    if !errors.is_empty() {
        let message = format!("{}; pods are given no units", join(&errors));
        teller.fails("Valid", "Invalid", &message);
        teller.fails("Ready", "Invalid", &message);
        return Ok(Books {
            wait: context.config.again,
            let_go: Vec::new(),
            evicted: Vec::new(),
        });
    }
    teller.holds("Valid", "Valid", "spec is valid");
    let left = unhonoured(&policy.spec);
    if left.is_empty() {
        teller.holds("Honoured", "AllFields", "every field is followed");
    } else {
        teller.fails("Honoured", "NotFollowed", &join(&left));
    }
    let members = members::read(policy, context).await?;
    let namespace = policy.namespace().unwrap_or_default();
    let writes = members::writes(policy, &members);
    pods::patch_all(&context.client, &namespace, writes).await?;
    let short = shortage::look(policy, &members, now, status, teller);
    let let_go = let_go(policy, &members, status, now);
    count(policy, &members, status, now);
    tell(policy, status, teller);
    let mut due = short.due;
    due.extend(promises_end(status));
    let until = due
        .into_iter()
        .min()
        .map(|moment| Duration::try_from(moment.duration_since(now)).unwrap_or(Duration::ZERO));
    Ok(Books {
        wait: until
            .unwrap_or(context.config.again)
            .clamp(SOON, context.config.again),
        let_go,
        evicted: short.evicted,
    })
}

/// The writes that let waiting pods go where there is a place now, oldest first; each place is promised in the status.
pub(super) fn let_go(
    policy: &ResourcePolicy,
    members: &[Member],
    status: &mut ResourcePolicyStatus,
    now: Timestamp,
) -> Vec<(String, Value)> {
    let mut waiting: Vec<&Member> = members.iter().filter(|member| member.waits()).collect();
    waiting.sort_by_key(|member| (members::created(&member.pod), member.pod.name_any()));
    let keys = policy.spec.keys();
    let groups = members::by_group(members, status, now);
    let mut writes = Vec::new();
    for member in waiting {
        let peers = groups.get(&member.group).map_or(&[][..], Vec::as_slice);
        // Promises made in this very loop are in the status, so they are counted.
        let mut states = members::states(policy, status, &member.group, peers, now);
        for (state, unit) in states.iter_mut().zip(&policy.spec.units) {
            state.allowed = allows(unit, &member.pod);
        }
        let (Choice::Unit(index), Some(mark)) = (choose(&policy.spec, &states), &member.mark)
        else {
            continue;
        };
        let units = status.groups.entry(member.group.clone()).or_default();
        promise(units, &keys[index], &mark.uid, now);
        let found = Match {
            unit: keys[index].clone(),
            ..mark.clone()
        };
        let before = json!(member.pod);
        let after = enter(&before, &policy.spec.units[index], &found);
        writes.push((member.pod.name_any(), difference(&member.pod, &after)));
    }
    writes
}

fn promise(units: &mut Vec<UnitStatus>, key: &str, uid: &str, now: Timestamp) {
    if !units.iter().any(|unit| unit.unit == key) {
        units.push(UnitStatus {
            unit: key.to_owned(),
            ..UnitStatus::default()
        });
    }
    for unit in units.iter_mut().filter(|unit| unit.unit == key) {
        unit.creating_pods.insert(uid.to_owned(), Time(now));
    }
}

/// What a pod behind a gate may still get, as a merge patch made from this very version.
fn difference(pod: &Pod, after: &Value) -> Value {
    json!({
        "metadata": {
            "uid": pod.uid(), "resourceVersion": pod.resource_version(),
            "labels": after["metadata"]["labels"], "annotations": after["metadata"]["annotations"]
        },
        "spec": {
            "affinity": after["spec"]["affinity"], "tolerations": after["spec"]["tolerations"],
            "schedulingGates": after["spec"]["schedulingGates"]
        }
    })
}

/// Numbers of each unit, by group and all together.
pub(super) fn count(
    policy: &ResourcePolicy,
    members: &[Member],
    status: &mut ResourcePolicyStatus,
    now: Timestamp,
) {
    let keys = policy.spec.keys();
    let mut counted = BTreeMap::new();
    for (group, members) in members::by_group(members, status, now) {
        let seen = members::seen(&members);
        let units: Vec<UnitStatus> = (0..keys.len())
            .map(|index| {
                let mut numbers = numbers(policy, &keys[index], index, members.iter().copied());
                numbers.creating_pods = status.creating(&group, &keys[index], &seen, now);
                numbers
            })
            .collect();
        counted.insert(group, units);
    }
    for (index, known) in status.units.iter_mut().enumerate() {
        *known = UnitStatus {
            conditions: std::mem::take(&mut known.conditions),
            ..numbers(policy, &keys[index], index, members.iter())
        };
    }
    status.groups = counted;
    let waiting = members.iter().filter(|member| member.waits()).count();
    status.waiting_pods = number(waiting);
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn numbers<'a>(
    policy: &ResourcePolicy,
    key: &str,
    index: usize,
    members: impl Iterator<Item = &'a Member>,
) -> UnitStatus {
    let (mut pods, mut bound, mut ending) = (0, 0, 0);
    for member in members.filter(|member| member.unit == Some(index)) {
        if member.pod.metadata.deletion_timestamp.is_some() {
            ending += 1;
        } else {
            pods += 1;
        }
        bound += usize::from(member.is_bound());
    }
    UnitStatus {
        unit: key.to_owned(),
        pods: number(pods),
        bound_pods: number(bound),
        terminating_pods: number(ending),
        max: policy.spec.units[index].max,
        ..UnitStatus::default()
    }
}

fn tell(policy: &ResourcePolicy, status: &mut ResourcePolicyStatus, teller: &mut Teller) {
    let one = |unit: &UnitStatus| {
        let max = unit.max.map(|max| format!("/{max}")).unwrap_or_default();
        format!("{} {}{max}", unit.unit, unit.pods)
    };
    let all: Vec<String> = status.units.iter().map(one).collect();
    status.summary = all.join(", ");
    if status.waiting_pods > 0 && policy.spec.counts() {
        let limits: Vec<String> = policy
            .spec
            .keys()
            .iter()
            .zip(&policy.spec.units)
            .map(|(key, unit)| {
                unit.max
                    .map_or_else(|| key.clone(), |max| format!("{key} {max}"))
            })
            .collect();
        let message = format!(
            "pods wait, every unit they may go to has its maximum ({}); raise one or add a unit",
            limits.join(", ")
        );
        teller.fails("Placed", "AllUnitsFull", &message);
    } else {
        teller.holds("Placed", "Placed", "no pod waits for a unit");
    }
    teller.holds(
        "Ready",
        "Reconciled",
        "pods are counted and their order is said",
    );
}

/// When promises of places end whose pods did not come.
fn promises_end(status: &ResourcePolicyStatus) -> Option<Timestamp> {
    let all = status.groups.values().flatten();
    let since = all.flat_map(|unit| unit.creating_pods.values()).min();
    since.map(|since| since.0 + SignedDuration::from_secs(CREATING_SECONDS))
}
