//! One pass over one WorkloadSpread: count, give costs, see who has no place, report.

use std::collections::BTreeMap;
use std::time::Duration;

use elastic_core::eci_profile::matches;
use elastic_core::elastic_workload::{Bounds, ConditionStatus, FieldError, set_condition};
use elastic_core::events::EventKind;
use elastic_core::names::{MATCHED_SPREAD_ANNOTATION, POD_DELETION_COST};
use elastic_core::patch_containers::strangers;
use elastic_core::pod_facts::{has_ended, is_active, is_ready, without_place_since};
use elastic_core::workload_spread::{
    CREATING_SECONDS, Match, NO_VERSION, RECOVER_SECONDS, SUBSET_UNSCHEDULABLE, SpreadPod,
    SpreadSubsetStatus, TargetReference, WorkloadSpread, WorkloadSpreadStatus, deletion_costs,
    matched, subset_of_node, validate, validate_against,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::Context;
use super::target::{self, Workload};
use crate::pass::{PassError, Teller, generation, join, replace_status};
use crate::pods;
use crate::policy_view::age;

const COMPONENT: &str = "springtide-workload-spread";
/// Set by the Deployment controller on the pods of a revision.
const VERSION_LABEL: &str = "pod-template-hash";
/// Only there when it was ever untrue.
const PATCHES_APPLY: &str = "PatchesApply";
const SOON: Duration = Duration::from_millis(100);

/// A pod of the workload.
struct Member {
    pod: Pod,
    /// Its revision.
    version: String,
    subset: Option<usize>,
    /// Whether its mark says so already.
    marked: bool,
}

pub(super) async fn reconcile(
    spread: &WorkloadSpread,
    context: &Context,
) -> Result<Action, PassError> {
    let now = Timestamp::now();
    let old = spread.status.clone().unwrap_or_default();
    let mut next = old.clone();
    let mut teller = Teller::new(&old.conditions, spread.meta().generation, now);
    let outcome = keep_books(spread, context, now, &mut next, &mut teller).await;
    if let Err(error) = &outcome
        && let Some((reason, message)) = error.problem()
    {
        teller.fails("Ready", reason, &message);
    }
    next.observed_generation = generation(spread);
    next.conditions = teller.conditions.clone();
    if next != old {
        let mut object = spread.clone();
        object.status = Some(next);
        if !replace_status(&context.client, &object).await? {
            return Ok(Action::requeue(SOON));
        }
    }
    teller
        .post(&context.client, &spread.object_ref(&()), COMPONENT)
        .await;
    let Books { wait, evicted } = outcome?;
    // Only after the subset is closed in the status, so that the pods made for these find it closed.
    for pod in &evicted {
        pods::delete_as_seen(&context.client, pod).await?;
    }
    Ok(Action::requeue(wait))
}

/// What is left to do after the status is written.
struct Books {
    wait: Duration,
    evicted: Vec<Pod>,
}

impl Books {
    fn look_again(wait: Duration) -> Self {
        Self {
            wait,
            evicted: Vec::new(),
        }
    }
}

async fn keep_books(
    spread: &WorkloadSpread,
    context: &Context,
    now: Timestamp,
    status: &mut WorkloadSpreadStatus,
    teller: &mut Teller,
) -> Result<Books, PassError> {
    let mut errors = validate(&spread.spec);
    errors.extend(validate_against(
        &spread.spec.target_ref,
        &older(spread, context),
    ));
    if !errors.is_empty() {
        let message = format!("{}; pods are not spread", join(&errors));
        teller.fails("Valid", "Invalid", &message);
        teller.fails("Ready", "Invalid", &message);
        return Ok(Books::look_again(context.config.again));
    }
    teller.holds("Valid", "Valid", "spec is valid");
    let namespace = spread.namespace().unwrap_or_default();
    let target = &spread.spec.target_ref;
    let read = target::read(&context.client, &namespace, &spread.spec).await;
    let Some(workload) = read.map_err(PassError::about("read", &target.name))? else {
        let message = format!(
            "{} {} does not exist in namespace {namespace}; create it, or name another in a new WorkloadSpread",
            target.kind, target.name
        );
        teller.fails("Ready", "TargetMissing", &message);
        return Ok(Books::look_again(context.config.retry));
    };
    let members = members(spread, context, &namespace, &workload).await?;
    tell_strangers(spread, &workload, &members, teller);
    write_pods(spread, context, &workload, &members).await?;
    let (mut due, evicted) = out_of_place(spread, &members, now, status, teller);
    count(spread, &workload, &members, now, status);
    due.extend(promises_end(status));
    teller.holds(
        "Ready",
        "Reconciled",
        "pods are counted and their order is said",
    );
    let until = due
        .into_iter()
        .min()
        .map(|moment| Duration::try_from(moment.duration_since(now)).unwrap_or(Duration::ZERO));
    let wait = until
        .unwrap_or(context.config.again)
        .clamp(SOON, context.config.again);
    Ok(Books { wait, evicted })
}

/// Others in the namespace that were made before this one.
fn older(spread: &WorkloadSpread, context: &Context) -> Vec<(String, TargetReference)> {
    let all = context.spreads.state();
    let before = all.iter().filter(|other| {
        other.namespace() == spread.namespace()
            && other.uid() != spread.uid()
            && age(other.as_ref()) < age(spread)
    });
    before
        .map(|other| (other.name_any(), other.spec.target_ref.clone()))
        .collect()
}

async fn members(
    spread: &WorkloadSpread,
    context: &Context,
    namespace: &str,
    workload: &Workload,
) -> Result<Vec<Member>, PassError> {
    let name = spread.name_any();
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let which = ListParams::default().labels(&workload.selector);
    let listed = api.list(&which).await;
    let list = listed
        .map_err(PassError::about("list pods of", &name))?
        .items;
    let filter = spread.spec.target_filter.as_ref();
    let filter = filter.and_then(|filter| filter.selector.as_ref());
    let owned = |pod: &Pod| {
        let mut owners = pod.owner_references().iter();
        workload.owners.is_empty() || owners.any(|owner| workload.owners.contains(&owner.uid))
    };
    let list: Vec<Pod> = list
        .into_iter()
        .filter(|pod| owned(pod) && !has_ended(pod))
        .filter(|pod| filter.is_none_or(|filter| matches(filter, pod.labels())))
        .collect();
    let unmarked = |pod: &Pod| {
        let bound = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.is_some());
        bound && matched(pod.annotations()).is_none()
    };
    let nodes = if list.iter().any(unmarked) {
        pods::nodes(&context.client).await?
    } else {
        BTreeMap::new()
    };
    let member = |pod: Pod| {
        let found = matched(pod.annotations()).filter(|found| found.name == name);
        let subset = found.as_ref().and_then(|found| {
            let mut subsets = spread.spec.subsets.iter();
            subsets.position(|subset| subset.name == found.subset)
        });
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let by_node = node
            .filter(|_| found.is_none())
            .and_then(|node| subset_of_node(&spread.spec, nodes.get(&node)?));
        Member {
            version: version(&spread.spec.target_ref, &pod),
            subset: subset.or(by_node),
            marked: found.is_some(),
            pod,
        }
    };
    Ok(list.into_iter().map(member).collect())
}

fn version(target: &TargetReference, pod: &Pod) -> String {
    let hash = pod.labels().get(VERSION_LABEL);
    let hash = hash.filter(|_| target.is_deployment()).cloned();
    hash.unwrap_or_else(|| NO_VERSION.to_owned())
}

/// Says which parts of patches are left out, because the pods have no such containers. What another webhook adds to
/// pods counts as theirs.
fn tell_strangers(
    spread: &WorkloadSpread,
    workload: &Workload,
    members: &[Member],
    teller: &mut Teller,
) {
    let target = &spread.spec.target_ref;
    let owner = format!("{} {}", target.kind, target.name);
    let mut errors = Vec::new();
    for (index, subset) in spread.spec.subsets.iter().enumerate() {
        let Some(patch) = &subset.patch else { continue };
        let here = members.iter().filter(|member| member.subset == Some(index));
        let newest = here.max_by_key(|member| member.pod.metadata.creation_timestamp.clone());
        let newest = newest.map(|member| json!(member.pod));
        let seen: Vec<&Value> = workload.template.iter().chain(&newest).collect();
        let Some((first, rest)) = seen.split_first() else {
            continue;
        };
        let mut found = strangers(first, patch);
        for other in rest {
            let known = strangers(other, patch);
            found.retain(|stranger| known.contains(stranger));
        }
        errors.extend(found.into_iter().map(|stranger| FieldError {
            field: format!("spec.subsets[{index}].patch.{}", stranger.path),
            reason: stranger.reason(&owner),
        }));
    }
    let mut conditions = teller.conditions.iter();
    if !errors.is_empty() {
        let message = format!("{}; pods get the rest of the patch", join(&errors));
        teller.fails(PATCHES_APPLY, "ContainerMissing", &message);
    } else if conditions.any(|condition| condition.type_ == PATCHES_APPLY) {
        let message = "every container that patches name is there";
        teller.holds(PATCHES_APPLY, "ContainersFound", message);
    }
}

/// Marks pods that nobody gave to a subset, and says of each which goes first.
async fn write_pods(
    spread: &WorkloadSpread,
    context: &Context,
    workload: &Workload,
    members: &[Member],
) -> Result<(), PassError> {
    let bounds = spread.spec.bounds(workload.replicas);
    let mut versions: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
    for member in members.iter().filter(|member| is_active(&member.pod)) {
        versions.entry(&member.version).or_default().push(member);
    }
    let mut writes = Vec::new();
    for members in versions.into_values() {
        let costs = costs(&bounds, &members);
        for (member, cost) in members.into_iter().zip(costs) {
            let cost = spread.spec.target_ref.honours_cost().then_some(cost);
            writes.extend(change(spread, member, cost));
        }
    }
    let namespace = spread.namespace().unwrap_or_default();
    pods::patch_all(&context.client, &namespace, writes).await
}

fn costs(bounds: &[Bounds], members: &[&Member]) -> Vec<i32> {
    let pods: Vec<SpreadPod> = members
        .iter()
        .map(|member| SpreadPod {
            subset: member.subset,
            ready: is_ready(&member.pod),
            bound: member
                .pod
                .spec
                .as_ref()
                .is_some_and(|spec| spec.node_name.is_some()),
            created: member
                .pod
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.0.as_second()),
            name: member.pod.name_any(),
        })
        .collect();
    deletion_costs(bounds, &pods)
}

/// The write that a pod needs, if any.
fn change(spread: &WorkloadSpread, member: &Member, cost: Option<i32>) -> Option<(String, Value)> {
    let annotations = member.pod.annotations();
    let mut wanted = serde_json::Map::new();
    if let Some(subset) = member.subset.filter(|_| !member.marked) {
        let found = Match {
            name: spread.name_any(),
            subset: spread.spec.subsets[subset].name.clone(),
            uid: String::new(),
        };
        let text = json!(found).to_string();
        wanted.insert(MATCHED_SPREAD_ANNOTATION.to_owned(), json!(text));
    }
    if let Some(cost) = cost {
        let text = cost.to_string();
        if annotations.get(POD_DELETION_COST) != Some(&text) {
            wanted.insert(POD_DELETION_COST.to_owned(), json!(text));
        }
    }
    let patch = json!({"metadata": {"uid": member.pod.uid(), "annotations": wanted}});
    (!wanted.is_empty()).then(|| (member.pod.name_any(), patch))
}

/// Closes subsets whose pods find no place and opens those whose time is over. Returns when something is due, and the pods
/// to be deleted. The last subset is never closed, because there is none after it.
fn out_of_place(
    spread: &WorkloadSpread,
    members: &[Member],
    now: Timestamp,
    status: &mut WorkloadSpreadStatus,
    teller: &mut Teller,
) -> (Vec<Timestamp>, Vec<Pod>) {
    let last = spread.spec.subsets.len() - 1;
    let after = |moment: Timestamp, seconds: i64| moment + SignedDuration::from_secs(seconds);
    let (mut due, mut evicted) = (Vec::new(), Vec::new());
    let mut statuses = std::mem::take(&mut status.subset_statuses);
    for (index, subset) in spread.spec.subsets.iter().enumerate() {
        let known = statuses.iter_mut().find(|known| known.name == subset.name);
        let mut known = known.map(std::mem::take).unwrap_or_default();
        known.name.clone_from(&subset.name);
        let here = members.iter().filter(|member| member.subset == Some(index));
        let mut overdue = Vec::new();
        if let Some(critical) = spread.spec.critical_seconds().filter(|_| index < last) {
            for member in here {
                match without_place_since(&member.pod).map(|since| after(since, critical)) {
                    Some(moment) if moment <= now => overdue.push(member.pod.clone()),
                    Some(moment) => due.push(moment),
                    None => {}
                }
            }
        }
        mark(&mut known, !overdue.is_empty(), now, teller);
        let closed = known
            .conditions
            .iter()
            .find(|condition| condition.status == "True");
        due.extend(closed.map(|closed| after(closed.last_transition_time.0, RECOVER_SECONDS)));
        status.subset_statuses.push(known);
        evicted.extend(overdue);
    }
    (due, evicted)
}

fn mark(known: &mut SpreadSubsetStatus, overdue: bool, now: Timestamp, teller: &mut Teller) {
    let mut conditions = known.conditions.iter();
    let closed = conditions
        .find(|one| one.type_ == SUBSET_UNSCHEDULABLE && one.status == "True")
        .map(|one| one.last_transition_time.0);
    let ends = closed.map(|since| since + SignedDuration::from_secs(RECOVER_SECONDS));
    let name = known.name.clone();
    if overdue && closed.is_none() {
        let message = "pods found no place for too long, they go to later subsets";
        let kind = ConditionStatus::True;
        set_condition(
            &mut known.conditions,
            SUBSET_UNSCHEDULABLE,
            kind,
            "RescheduleCritical",
            message,
            None,
            now,
        );
        let message = format!("pods of subset {name} find no place, they go to later subsets");
        teller.event(EventKind::Warning, "SubsetUnschedulable", &message);
    } else if ends.is_some_and(|ends| ends <= now) {
        let kind = ConditionStatus::False;
        set_condition(
            &mut known.conditions,
            SUBSET_UNSCHEDULABLE,
            kind,
            "Recovered",
            "takes pods",
            None,
            now,
        );
        let message = format!("subset {name} takes pods again");
        teller.event(EventKind::Normal, "RecoverSchedulable", &message);
    }
}

/// Numbers of each revision; the newest one's are the subsets' own.
fn count(
    spread: &WorkloadSpread,
    workload: &Workload,
    members: &[Member],
    now: Timestamp,
    status: &mut WorkloadSpreadStatus,
) {
    let newest = workload.newest.clone();
    let newest = newest.unwrap_or_else(|| NO_VERSION.to_owned());
    let bounds = spread.spec.bounds(workload.replicas);
    let mut versions: BTreeMap<String, Vec<&Member>> = BTreeMap::new();
    versions.entry(newest.clone()).or_default();
    // Promises to pods of a revision that has no pods yet are kept too.
    for version in status.versioned_subset_statuses.keys() {
        let promised = spread
            .spec
            .subsets
            .iter()
            .any(|subset| !status.creating(version, &subset.name, &[], now).is_empty());
        if promised {
            versions.entry(version.clone()).or_default();
        }
    }
    for member in members {
        versions
            .entry(member.version.clone())
            .or_default()
            .push(member);
    }
    let mut counted = BTreeMap::new();
    for (version, members) in versions {
        let seen: Vec<String> = members
            .iter()
            .filter_map(|member| matched(member.pod.annotations()))
            .map(|found| found.uid)
            .collect();
        let all = spread
            .spec
            .subsets
            .iter()
            .enumerate()
            .map(|(index, subset)| {
                let creating = status.creating(&version, &subset.name, &seen, now);
                let here = members.iter().filter(|member| member.subset == Some(index));
                subset_numbers(&subset.name, bounds[index], here, creating)
            });
        let all: Vec<SpreadSubsetStatus> = all.collect();
        counted.insert(version, all);
    }
    let numbers = counted.get(&newest).cloned().unwrap_or_default();
    for (known, numbers) in status.subset_statuses.iter_mut().zip(numbers) {
        *known = SpreadSubsetStatus {
            conditions: std::mem::take(&mut known.conditions),
            ..numbers
        };
    }
    status.versioned_subset_statuses = counted;
    status.observed_workload_replicas = i32::try_from(workload.replicas).ok();
}

fn subset_numbers<'a>(
    name: &str,
    bounds: Bounds,
    here: impl Iterator<Item = &'a &'a Member>,
    creating: BTreeMap<String, Time>,
) -> SpreadSubsetStatus {
    let (mut pods, mut deleting) = (0u32, BTreeMap::new());
    for member in here {
        match member.pod.metadata.deletion_timestamp.clone() {
            Some(since) => drop(deleting.insert(member.pod.name_any(), since)),
            None => pods += 1,
        }
    }
    let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let taken = pods + u32::try_from(creating.len()).unwrap_or(u32::MAX / 2);
    SpreadSubsetStatus {
        name: name.to_owned(),
        replicas: number(pods),
        missing_replicas: bounds
            .max
            .map_or(-1, |max| number(max.saturating_sub(taken))),
        creating_pods: creating,
        deleting_pods: deleting,
        conditions: Vec::new(),
    }
}

/// When promises of places end whose pods did not come.
fn promises_end(status: &WorkloadSpreadStatus) -> Option<Timestamp> {
    let all = status.versioned_subset_statuses.values().flatten();
    let since = all.flat_map(|subset| subset.creating_pods.values()).min();
    since.map(|since| since.0 + SignedDuration::from_secs(CREATING_SECONDS))
}
