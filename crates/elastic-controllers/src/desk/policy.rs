//! Places by ResourcePolicies.

use std::collections::BTreeMap;
use std::sync::Arc;

use elastic_core::resource_policy::{
    Choice, Match, ResourcePolicy, UnitState, UnitStatus, allows, choose, enter, is_waiting,
    leave_alone, matched, validate, wait,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};

use super::batch::Outcome;
use super::{Admitted, Desk, LIVING, Newcomer, labels};

const KIND: &str = "ResourcePolicy";

pub(super) async fn admit(desk: &Desk, newcomer: Newcomer) -> Admitted {
    let Some(policy) = find(desk, &newcomer) else {
        return Admitted::Unchanged(Vec::new());
    };
    let name = policy.name_any();
    if let Err(label) = policy.spec.group(&labels(&newcomer.pod)) {
        return Admitted::Refused(format!(
            "{KIND} {name} counts pods by label {label}, which the pod does not have; add it, or take it out of spec.matchLabelKeys"
        ));
    }
    let counter = desk.counter((KIND, newcomer.namespace.clone(), name.clone()));
    let serve = |asks| serve(desk, policy.clone(), asks);
    match counter.ask(newcomer, serve).await {
        Some(Some(pod)) => {
            let waits =
                serde_json::from_value::<Pod>(pod.clone()).is_ok_and(|pod| is_waiting(&pod));
            let text = format!(
                "every unit of {KIND} {name} has its maximum, the pod waits until one takes it"
            );
            Admitted::Placed(pod, waits.then_some(text).into_iter().collect())
        }
        Some(None) => Admitted::Unchanged(Vec::new()),
        None => {
            let text = format!("{KIND} {name} has no time for the pod, it is given no unit");
            Admitted::Unchanged(vec![text])
        }
    }
}

/// The oldest ResourcePolicy that can be followed and selects the pod.
fn find(desk: &Desk, newcomer: &Newcomer) -> Option<Arc<ResourcePolicy>> {
    let policies = desk.view.policies(&newcomer.namespace);
    if policies.is_empty() || newcomer.pod["spec"]["nodeName"].is_string() {
        return None;
    }
    let pod: Pod = serde_json::from_value(newcomer.pod.clone()).ok()?;
    if leave_alone(&pod) {
        return None;
    }
    policies
        .into_iter()
        .find(|policy| policy.spec.selects(pod.labels()) && validate(&policy.spec).is_empty())
}

async fn serve(desk: &Desk, policy: Arc<ResourcePolicy>, asks: Vec<Newcomer>) -> Vec<Outcome> {
    let namespace = policy.namespace().unwrap_or_default();
    let api: Api<ResourcePolicy> = Api::namespaced(desk.client.clone(), &namespace);
    let name = policy.name_any();
    super::in_attempts((KIND, &namespace, &name), asks.len(), || {
        attempt(&desk.client, &api, &name, &asks)
    })
    .await
}

async fn attempt(
    client: &Client,
    api: &Api<ResourcePolicy>,
    name: &str,
    asks: &[Newcomer],
) -> Result<Vec<Outcome>, kube::Error> {
    let Some(mut policy) = api.get_opt(name).await? else {
        return Ok(vec![None; asks.len()]);
    };
    if !validate(&policy.spec).is_empty() || policy.metadata.deletion_timestamp.is_some() {
        return Ok(vec![None; asks.len()]);
    }
    let mut lots = Lots {
        now: Timestamp::now(),
        lots: BTreeMap::new(),
    };
    let mut outcomes = Vec::with_capacity(asks.len());
    let mut given = false;
    for ask in asks {
        let (outcome, placed) = lots.give(client, &policy, ask).await?;
        given |= placed;
        outcomes.push(outcome);
    }
    if given && policy.spec.counts() {
        lots.note(&mut policy);
        api.replace_status(name, &PostParams::default(), &policy)
            .await?;
    }
    Ok(outcomes)
}

/// Pods and promises of one group, by unit.
struct Lot {
    states: Vec<UnitState>,
    creating: Vec<BTreeMap<String, Time>>,
}

/// What one attempt knows and gives.
struct Lots {
    now: Timestamp,
    lots: BTreeMap<String, Lot>,
}

impl Lots {
    /// The pod with its place, and whether a place was taken for good.
    async fn give(
        &mut self,
        client: &Client,
        policy: &ResourcePolicy,
        ask: &Newcomer,
    ) -> Result<(Outcome, bool), kube::Error> {
        let Ok(pod) = serde_json::from_value::<Pod>(ask.pod.clone()) else {
            return Ok((None, false));
        };
        let Ok(group) = policy.spec.group(pod.labels()) else {
            return Ok((None, false));
        };
        if !self.lots.contains_key(&group) {
            let lot = self.count(client, policy, &group).await?;
            self.lots.insert(group.clone(), lot);
        }
        let Some(lot) = self.lots.get_mut(&group) else {
            return Ok((None, false));
        };
        let mut states = lot.states.clone();
        for (state, unit) in states.iter_mut().zip(&policy.spec.units) {
            state.allowed = allows(unit, &pod);
        }
        let mut found = Match {
            name: policy.name_any(),
            unit: String::new(),
            uid: ask.uid.clone(),
        };
        Ok(match choose(&policy.spec, &states) {
            Choice::Outside => (None, false),
            Choice::Wait => (Some(wait(&ask.pod, &found)), false),
            Choice::Unit(index) => {
                if !ask.dry_run {
                    lot.states[index].pods += 1;
                    lot.creating[index].insert(ask.uid.clone(), Time(self.now));
                }
                found.unit.clone_from(&policy.spec.keys()[index]);
                let placed = enter(&ask.pod, &policy.spec.units[index], &found);
                (Some(placed), !ask.dry_run)
            }
        })
    }

    /// Counts the pods of a group as they are at this moment, and those still to come.
    async fn count(
        &self,
        client: &Client,
        policy: &ResourcePolicy,
        group: &str,
    ) -> Result<Lot, kube::Error> {
        let keys = policy.spec.keys();
        let status = policy.status.clone().unwrap_or_default();
        let mut lot = Lot {
            states: vec![UnitState::default(); keys.len()],
            creating: vec![BTreeMap::new(); keys.len()],
        };
        for (state, key) in lot.states.iter_mut().zip(&keys) {
            state.short = status.skipped_since(key, self.now).is_some();
        }
        if !policy.spec.counts() {
            return Ok(lot);
        }
        let which = ListParams::default()
            .fields(LIVING)
            .labels(&policy.spec.list_selector(group));
        let namespace = policy.namespace().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let name = policy.name_any();
        let mut seen = Vec::new();
        for pod in pods.list_metadata(&which).await?.items {
            let found = matched(pod.annotations()).filter(|found| found.name == name);
            let Some(index) = found
                .as_ref()
                .and_then(|found| keys.iter().position(|key| *key == found.unit))
            else {
                continue;
            };
            seen.extend(found.map(|found| found.uid));
            let state = &mut lot.states[index];
            let ending = pod.metadata.deletion_timestamp.is_some();
            state.terminating += u32::from(ending);
            state.pods += u32::from(!ending || !policy.spec.ignores_terminating());
        }
        for (index, key) in keys.iter().enumerate() {
            let creating = status.creating(group, key, &seen, self.now);
            lot.states[index].pods += u32::try_from(creating.len()).unwrap_or(u32::MAX);
            lot.creating[index] = creating;
        }
        Ok(lot)
    }

    /// Writes down what was given.
    fn note(self, policy: &mut ResourcePolicy) {
        let keys = policy.spec.keys();
        let status = policy.status.get_or_insert_default();
        for (group, lot) in self.lots {
            let known = status.groups.entry(group).or_default();
            let before = std::mem::take(known);
            for (key, creating) in keys.iter().zip(lot.creating) {
                let old = before.iter().find(|old| old.unit == *key).cloned();
                known.push(UnitStatus {
                    unit: key.clone(),
                    creating_pods: creating,
                    ..old.unwrap_or_default()
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn promises_are_noted_beside_what_is_known_of_the_units() {
        let mut policy: ResourcePolicy =
            serde_json::from_value(json!({"metadata": {"name": "web"},
            "spec": {"units": [{"resource": "ecs", "max": 2}, {"resource": "eci"}]},
            "status": {"groups": {"*": [{"unit": "ecs", "pods": 1}]}}}))
            .unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let creating = vec![
            BTreeMap::from([("u-1".to_owned(), Time(now))]),
            BTreeMap::new(),
        ];
        let states = vec![UnitState::default(); 2];
        let lots = BTreeMap::from([("*".to_owned(), Lot { states, creating })]);
        Lots { now, lots }.note(&mut policy);
        let status = policy.status.unwrap();
        assert_eq!(status.groups["*"].len(), 2);
        assert_eq!(status.groups["*"][0].pods, 1);
        let promised = |seen: &[String]| status.creating("*", "ecs", seen, now).len();
        assert_eq!((promised(&[]), promised(&["u-1".to_owned()])), (1, 0));
        assert_eq!(status.groups["*"][1].unit, "eci");
    }
}
