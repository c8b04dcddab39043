//! One pass over one UnitedDeployment: read, decide by `elastic-core`, write what differs, report.

use std::collections::BTreeMap;
use std::time::Duration;

use elastic_core::elastic_workload::{
    ChildAction, ChildState, ConditionStatus, Distribution, ScalePlan, ScaleState, plan_scale,
    set_condition,
};
use elastic_core::events::EventKind;
use elastic_core::pod_facts::{is_active, is_ready, without_place_since};
use elastic_core::united_deployment::{
    Adapted, AdaptivePolicy, ChildKind, SCHEDULABLE, Subset, SubsetSight, SubsetStatus,
    UnitedDeployment, UnitedDeploymentStatus, adapt, child_is_current, derive_child,
    elastic_bounds, share, validate,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::Context;
use super::children::{Child, Children};
use crate::pass::{PassError, Teller, generation, join, selector_text, status_patch};

const COMPONENT: &str = "springtide-united-deployment";

/// Everything a pass knows about one subset of the spec.
struct Seen<'a> {
    subset: &'a Subset,
    kind: ChildKind,
    derived: Value,
    child: Option<Child>,
    sight: SubsetSight,
    /// Pods that exist, also those that are ending.
    living: u32,
    /// When the next of its waiting pods has waited for too long.
    due: Option<Timestamp>,
    /// Whether its pods were counted, which the strategy Adaptive needs.
    counted: bool,
}

pub(super) async fn reconcile(
    owner: &UnitedDeployment,
    context: &Context,
) -> Result<Action, PassError> {
    let now = Timestamp::now();
    let old = owner.status.clone().unwrap_or_default();
    let mut status = old.clone();
    let mut teller = Teller::new(&old.conditions, owner.meta().generation, now);
    let errors = validate(&owner.spec);
    let outcome = if errors.is_empty() {
        teller.holds("Valid", "Valid", "spec is valid");
        bring(owner, context, now, &mut status, &mut teller).await
    } else {
        let message = format!("{}; the children stay as they are", join(&errors));
        teller.fails("Valid", "Invalid", &message);
        teller.fails("Ready", "Invalid", &message);
        Ok(Action::await_change())
    };
    if let Err(error) = &outcome
        && let Some((reason, message)) = error.problem()
    {
        teller.fails("Ready", reason, &message);
    }
    status.observed_generation = generation(owner);
    status.conditions = teller.conditions.clone();
    publish(owner, context, &old, &status).await?;
    teller
        .post(&context.client, &owner.object_ref(&()), COMPONENT)
        .await;
    outcome
}

async fn publish(
    owner: &UnitedDeployment,
    context: &Context,
    old: &UnitedDeploymentStatus,
    next: &UnitedDeploymentStatus,
) -> Result<(), PassError> {
    if old == next {
        return Ok(());
    }
    let namespace = owner.namespace().unwrap_or_default();
    let api: Api<UnitedDeployment> = Api::namespaced(context.client.clone(), &namespace);
    let patch = Patch::Merge(status_patch(old, next));
    let name = owner.name_any();
    let written = api
        .patch_status(&name, &PatchParams::default(), &patch)
        .await;
    written
        .map(drop)
        .map_err(PassError::about("write status of", &name))
}

async fn bring(
    owner: &UnitedDeployment,
    context: &Context,
    now: Timestamp,
    status: &mut UnitedDeploymentStatus,
    teller: &mut Teller,
) -> Result<Action, PassError> {
    let children = Children::new(&context.client, owner);
    let adaptive = owner.spec.adaptive();
    let replicas = u32::try_from(owner.spec.replicas.unwrap_or(1)).unwrap_or(0);
    let (mut seen, removed) = look(owner, &children, adaptive, status, now).await?;
    let adapted = decide(owner, replicas, adaptive.as_ref(), &seen, now);
    let lowers = adapted
        .shares
        .first()
        .zip(seen.first())
        .is_some_and(|(share, first)| *share < first.sight.wanted);
    if lowers && adaptive.is_none() {
        // A child's own numbers may leave out pods that are still ending.
        let pods = children.pods().await?;
        for one in &mut seen {
            one.living = count(pods.get(&one.subset.name).map_or(0, Vec::len));
        }
    }
    let plan = plan_scale(
        &distribution(&adapted.shares, adapted.unplaced),
        &scale_state(owner, replicas, &seen, &removed),
    );
    write(&children, &seen, &plan, teller).await?;
    for child in removed.iter().filter(|_| !plan.keep_removed_units) {
        children.delete(child).await?;
        let message = format!("removed {}, whose subset is no longer wanted", child.name());
        teller.event(EventKind::Normal, "SubsetRemoved", &message);
    }
    let held = plan.hold.map(|hold| hold.serverless_pods);
    let held = held.or((plan.kept > 0).then_some(plan.kept));
    report(owner, &seen, &adapted, held, (status, teller), now)?;
    let wait = next_look(&seen, &adapted, held, context, now);
    Ok(wait.map_or_else(Action::await_change, Action::requeue))
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The subsets of the spec, and children that are of none of them.
async fn look<'a>(
    owner: &'a UnitedDeployment,
    children: &Children<'_>,
    adaptive: Option<AdaptivePolicy>,
    status: &UnitedDeploymentStatus,
    now: Timestamp,
) -> Result<(Vec<Seen<'a>>, Vec<Child>), PassError> {
    let mut existing = children.list().await?;
    let pods = match adaptive {
        Some(_) => children.pods().await?,
        None => BTreeMap::new(),
    };
    let mut all = Vec::new();
    for subset in &owner.spec.topology.subsets {
        let (kind, derived) = derive_child(owner, subset)?;
        let position = existing
            .iter()
            .position(|child| child.kind == kind && child.subset() == subset.name);
        let child = position.map(|position| existing.swap_remove(position));
        let mut seen = Seen {
            sight: SubsetSight {
                wanted: child.as_ref().map_or(0, Child::wanted),
                unschedulable_since: unschedulable_since(status, &subset.name),
                ..SubsetSight::default()
            },
            living: child.as_ref().map_or(0, |child| {
                child.status("replicas") + child.status("terminatingReplicas")
            }),
            subset,
            kind,
            derived,
            child,
            due: None,
            counted: adaptive.is_some(),
        };
        if let Some(policy) = &adaptive {
            let pods = pods.get(&subset.name).map_or(&[][..], Vec::as_slice);
            count_pods(&mut seen, pods, policy, now);
        }
        all.push(seen);
    }
    Ok((all, existing))
}

fn count_pods(seen: &mut Seen<'_>, pods: &[Pod], policy: &AdaptivePolicy, now: Timestamp) {
    seen.living = count(pods.len());
    for pod in pods.iter().filter(|pod| is_active(pod)) {
        seen.sight.pods += 1;
        seen.sight.ready += u32::from(is_ready(pod));
        let Some(since) = without_place_since(pod) else {
            continue;
        };
        if policy.is_overdue(since, now) {
            seen.sight.overdue += 1;
        } else {
            seen.due = seen.due.into_iter().chain([policy.due(since)]).min();
        }
    }
}

fn unschedulable_since(status: &UnitedDeploymentStatus, subset: &str) -> Option<Timestamp> {
    let known = status
        .subset_statuses
        .iter()
        .find(|known| known.name == subset)?;
    let mut conditions = known.conditions.iter();
    let condition = conditions.find(|one| one.type_ == SCHEDULABLE && one.status == "False")?;
    Some(condition.last_transition_time.0)
}

fn decide(
    owner: &UnitedDeployment,
    replicas: u32,
    adaptive: Option<&AdaptivePolicy>,
    seen: &[Seen<'_>],
    now: Timestamp,
) -> Adapted {
    let topology = &owner.spec.topology;
    match adaptive {
        Some(policy) => {
            let sights: Vec<SubsetSight> = seen.iter().map(|one| one.sight).collect();
            let bounds = elastic_bounds(topology, replicas);
            adapt(replicas, &bounds, &sights, policy, now)
        }
        None => {
            let (shares, unplaced) = share(topology, replicas);
            Adapted {
                reserved: vec![0; shares.len()],
                unschedulable_since: vec![None; shares.len()],
                shares,
                unplaced,
                recheck: None,
            }
        }
    }
}

/// Writes what differs.
async fn write(
    children: &Children<'_>,
    seen: &[Seen<'_>],
    plan: &ScalePlan,
    teller: &mut Teller,
) -> Result<(), PassError> {
    let mut wanted: Vec<u32> = seen.iter().map(|one| one.sight.wanted).collect();
    let current = |one: &Seen<'_>| match &one.child {
        Some(child) => child_is_current(&child.object, &one.derived),
        None => false,
    };
    for action in &plan.actions {
        let (index, replicas) = match *action {
            ChildAction::SetSource(replicas) => (0, replicas),
            ChildAction::SetUnit(index, replicas) => (index + 1, replicas),
        };
        wanted[index] = replicas;
        if let Some(child) = seen[index].child.as_ref().filter(|_| current(&seen[index])) {
            children.set_replicas(child, replicas).await?;
            let message = format!("scaled {} to {replicas}", child.name());
            teller.event(EventKind::Normal, "SubsetScaled", &message);
        }
    }
    for (one, replicas) in seen.iter().zip(wanted).filter(|(one, _)| !current(one)) {
        let mut derived = one.derived.clone();
        derived["spec"]["replicas"] = json!(replicas);
        match &one.child {
            Some(child) => children.replace(child, &derived).await?,
            None => {
                children.create(one.kind, &derived).await?;
                let name = derived["metadata"]["name"].as_str().unwrap_or_default();
                let message = format!("created {name} with {replicas} replicas");
                teller.event(EventKind::Normal, "SubsetCreated", &message);
            }
        }
    }
    Ok(())
}

fn distribution(shares: &[u32], unplaced: u32) -> Distribution {
    let (first, others) = shares.split_first().unwrap_or((&0, &[]));
    Distribution {
        source: *first,
        units: others.to_vec(),
        unplaced,
    }
}

fn scale_state(
    owner: &UnitedDeployment,
    replicas: u32,
    seen: &[Seen<'_>],
    removed: &[Child],
) -> ScaleState {
    let bounds = elastic_bounds(&owner.spec.topology, replicas);
    let ready = |one: &Seen<'_>| match (&one.child, one.counted) {
        (_, true) => one.sight.ready,
        (Some(child), false) => child.status("readyReplicas"),
        (None, false) => 0,
    };
    let mut states = seen.iter().zip(bounds).map(|(one, bounds)| ChildState {
        wanted: one.sight.wanted,
        pods: one.living,
        ready: ready(one),
        max: bounds.max,
    });
    let sum = |member: &str| removed.iter().map(|child| child.status(member)).sum();
    ScaleState {
        source: states.next().unwrap_or_default(),
        units: states.collect(),
        removed_unit_pods: sum("replicas"),
        removed_unit_ready: sum("readyReplicas"),
    }
}

fn report(
    owner: &UnitedDeployment,
    seen: &[Seen<'_>],
    adapted: &Adapted,
    held: Option<u32>,
    (status, teller): (&mut UnitedDeploymentStatus, &mut Teller),
    now: Timestamp,
) -> Result<(), PassError> {
    let known = std::mem::take(&mut status.subset_statuses);
    let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let child = |one: &Seen<'_>, member: &str| {
        number(one.child.as_ref().map_or(0, |child| child.status(member)))
    };
    for (index, one) in seen.iter().enumerate() {
        let name = &one.subset.name;
        let before = known.iter().find(|known| known.name == *name);
        let mut conditions = before.map_or_else(Vec::new, |known| known.conditions.clone());
        if owner.spec.adaptive().is_none() {
            conditions.clear();
        } else {
            schedulable(
                &mut conditions,
                name,
                adapted.unschedulable_since[index],
                teller,
                now,
            );
        }
        status.subset_statuses.push(SubsetStatus {
            name: name.clone(),
            replicas: child(one, "replicas"),
            ready_replicas: child(one, "readyReplicas"),
            partition: owner.spec.partition(name),
            reserved_pods: number(adapted.reserved[index]),
            conditions,
        });
    }
    let shares = seen.iter().zip(&adapted.shares);
    status.subset_replicas = shares
        .map(|(one, share)| (one.subset.name.clone(), number(*share)))
        .collect();
    let reserved: u32 = adapted.reserved.iter().sum();
    let pods: i32 = seen.iter().map(|one| child(one, "replicas")).sum();
    status.reserved_pods = number(reserved);
    status.replicas = (pods - status.reserved_pods).max(0);
    status.ready_replicas = seen.iter().map(|one| child(one, "readyReplicas")).sum();
    let updated = |one: &&Seen<'_>| {
        one.child.as_ref().is_some_and(|existing| {
            existing.is_observed() && child_is_current(&existing.object, &one.derived)
        })
    };
    let updated = seen.iter().filter(updated);
    status.updated_replicas = updated.map(|one| child(one, "updatedReplicas")).sum();
    status.label_selector = selector_text(&owner.spec.selector, "spec.selector")?;
    tell_outcome(adapted, held, teller);
    Ok(())
}

fn tell_outcome(adapted: &Adapted, held: Option<u32>, teller: &mut Teller) {
    match held {
        Some(pods) => teller.holds(
            "Ready",
            "WaitingForPods",
            &format!(
                "replicas stay until {pods} pods of other subsets are gone, or ready in their place"
            ),
        ),
        None => teller.holds(
            "Ready",
            "Reconciled",
            "every subset has been asked for its share",
        ),
    }
    match adapted.unplaced {
        0 => teller.holds("Placed", "Placed", "every replica has a subset"),
        unplaced => {
            let message = format!(
                "{unplaced} replicas have no subset; raise replicas or maxReplicas of a subset, or add one without"
            );
            teller.fails("Placed", "SubsetsFull", &message);
        }
    }
}

/// The subset's condition holds the moment from which it is tried again, so a restart forgets nothing.
fn schedulable(
    conditions: &mut Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    name: &str,
    since: Option<Timestamp>,
    teller: &mut Teller,
    now: Timestamp,
) {
    let was_closed = conditions
        .iter()
        .any(|one| one.type_ == SCHEDULABLE && one.status == "False");
    let (holds, reason, message) = match since {
        Some(_) => (
            ConditionStatus::False,
            "RescheduleCritical",
            "pods found no place for too long, they run in later subsets",
        ),
        None => (ConditionStatus::True, "Schedulable", "takes pods"),
    };
    set_condition(
        conditions,
        SCHEDULABLE,
        holds,
        reason,
        message,
        None,
        since.unwrap_or(now),
    );
    let fresh = since.filter(|since| *since == now);
    if let (Some(condition), Some(_)) = (
        conditions.iter_mut().find(|one| one.type_ == SCHEDULABLE),
        fresh,
    ) {
        // Closed again when its time was over: the time starts anew.
        condition.last_transition_time.0 = now;
    }
    match (was_closed, since.is_some()) {
        (false, true) => teller.event(
            EventKind::Warning,
            "SubsetUnschedulable",
            &format!("pods of subset {name} find no place, they go to later subsets"),
        ),
        (true, false) => teller.event(
            EventKind::Normal,
            "RecoverSchedulable",
            &format!("subset {name} takes pods again"),
        ),
        _ => {}
    }
}

fn next_look(
    seen: &[Seen<'_>],
    adapted: &Adapted,
    held: Option<u32>,
    context: &Context,
    now: Timestamp,
) -> Option<Duration> {
    let until = |moment: Timestamp| {
        Duration::try_from(moment.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    let mut waits: Vec<Duration> = Vec::new();
    waits.extend(held.map(|_| context.config.hold_check_interval));
    waits.extend(adapted.recheck.map(until));
    waits.extend(seen.iter().filter_map(|one| one.due).map(until));
    // That a pod finds no place changes nothing in its child, so nothing wakes this controller then.
    let mut ready = seen.iter().zip(&adapted.shares);
    let counted = seen.iter().any(|one| one.counted);
    let waiting = counted && ready.any(|(one, share)| one.sight.ready < *share);
    waits.extend(waiting.then_some(context.config.pod_check_interval));
    let soonest = waits.into_iter().min()?;
    Some(soonest.max(Duration::from_millis(50)))
}
