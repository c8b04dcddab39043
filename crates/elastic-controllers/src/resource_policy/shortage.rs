//! Units without room: which pods leave them for a later unit, and when they are tried again.

use std::collections::BTreeMap;

use elastic_core::elastic_workload::{ConditionStatus, set_condition};
use elastic_core::events::EventKind;
use elastic_core::pod_facts::without_place_since;
use elastic_core::resource_policy::{
    Patience, RETRY_SECONDS, ResourcePolicy, ResourcePolicyStatus, UNIT_SHORT, UnitState,
    UnitStatus, patience, room_after,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::members::{self, Member};
use crate::pass::Teller;

/// What follows from it.
#[derive(Default)]
pub(super) struct Shortage {
    /// When something is due.
    pub(super) due: Vec<Timestamp>,
    /// Pods to be deleted, so that their workload makes new ones.
    pub(super) evicted: Vec<Pod>,
}

/// Marks units that had no room for a pod for too long, and takes the mark away from those that are tried again. The last
/// unit never passes pods on.
pub(super) fn look(
    policy: &ResourcePolicy,
    members: &[Member],
    now: Timestamp,
    status: &mut ResourcePolicyStatus,
    teller: &mut Teller,
) -> Shortage {
    let mut found = Shortage::default();
    let mut states: BTreeMap<String, Vec<UnitState>> = BTreeMap::new();
    for (group, members) in members::by_group(members, status, now) {
        let known = members::states(policy, status, &group, &members, now);
        states.insert(group, known);
    }
    let mut units = std::mem::take(&mut status.units);
    for (index, key) in policy.spec.keys().iter().enumerate() {
        let known = units.iter_mut().find(|known| known.unit == *key);
        let mut known = known.map(std::mem::take).unwrap_or_default();
        known.unit.clone_from(key);
        let here: Vec<&Member> = members
            .iter()
            .filter(|member| member.unit == Some(index))
            .collect();
        let evicted = if index + 1 < policy.spec.units.len() {
            overdue(policy, index, &here, &mut states, now, &mut found.due)
        } else {
            Vec::new()
        };
        let bound = here.iter().filter(|member| member.is_bound()).count();
        let freed = bound < usize::try_from(known.bound_pods).unwrap_or(0);
        mark(&mut known, !evicted.is_empty(), freed, now, teller);
        let short = known
            .conditions
            .iter()
            .find(|condition| condition.status == "True");
        let ends = short
            .map(|short| short.last_transition_time.0 + SignedDuration::from_secs(RETRY_SECONDS));
        found.due.extend(ends);
        found.evicted.extend(evicted);
        status.units.push(known);
    }
    found
}

/// Pods of a unit that waited long enough and that later units take, oldest first.
fn overdue(
    policy: &ResourcePolicy,
    index: usize,
    here: &[&Member],
    states: &mut BTreeMap<String, Vec<UnitState>>,
    now: Timestamp,
    due: &mut Vec<Timestamp>,
) -> Vec<Pod> {
    let mut all: Vec<&&Member> = here.iter().collect();
    all.sort_by_key(|member| (members::created(&member.pod), member.pod.name_any()));
    let mut evicted = Vec::new();
    let mut passed: BTreeMap<&str, u32> = BTreeMap::new();
    for member in all {
        let Some(since) = without_place_since(&member.pod).filter(|_| is_made_anew(&member.pod))
        else {
            continue;
        };
        let Some(states) = states.get_mut(&member.group) else {
            continue;
        };
        let moment = match patience(&policy.spec, index, states[index].terminating) {
            Patience::None => since,
            Patience::For(wait) => since.checked_add(wait).unwrap_or(Timestamp::MAX),
            Patience::Forever => continue,
        };
        if moment > now {
            due.push(moment);
            continue;
        }
        let passed = passed.entry(&member.group).or_default();
        if room_after(&policy.spec, index, states).is_none_or(|room| *passed < room) {
            *passed += 1;
            evicted.push(member.pod.clone());
        }
    }
    evicted
}

/// Whether somebody makes a new pod for one that is deleted.
fn is_made_anew(pod: &Pod) -> bool {
    let mut owners = pod.owner_references().iter();
    owners.any(|owner| owner.controller == Some(true))
}

fn mark(known: &mut UnitStatus, overdue: bool, freed: bool, now: Timestamp, teller: &mut Teller) {
    let mut conditions = known.conditions.iter();
    let since = conditions
        .find(|one| one.type_ == UNIT_SHORT && one.status == "True")
        .map(|one| one.last_transition_time.0);
    let over = since.is_some_and(|since| since + SignedDuration::from_secs(RETRY_SECONDS) <= now);
    let (status, reason, message) = if overdue && (since.is_none() || over || freed) {
        // A mark that is over is made anew, so that the pods of this moment find the unit closed.
        known.conditions.clear();
        (
            ConditionStatus::True,
            "LackResource",
            "has no room for a pod, new ones go to later units for a while",
        )
    } else if over || (freed && since.is_some()) {
        (ConditionStatus::False, "TriedAgain", "takes pods")
    } else {
        return;
    };
    set_condition(
        &mut known.conditions,
        UNIT_SHORT,
        status,
        reason,
        message,
        None,
        now,
    );
    let name = &known.unit;
    if overdue && since.is_none() {
        let message = format!("unit {name} has no room for a pod, it goes to later units");
        teller.event(EventKind::Warning, "UnitShort", &message);
    } else if !overdue {
        let message = format!("unit {name} is tried again");
        teller.event(EventKind::Normal, "UnitTriedAgain", &message);
    }
}
