//! Places by WorkloadSpreads.

use std::collections::BTreeMap;
use std::sync::Arc;

use elastic_core::assignment::next_place;
use elastic_core::eci_profile::matches;
use elastic_core::workload_spread::{
    Match, NO_VERSION, SpreadSubsetStatus, WorkloadSpread, enter, matched, places,
    takes_pods_somewhere, validate,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::batch::Outcome;
use super::{Admitted, Desk, LIVING, Newcomer, labels};
use crate::workload_spread::target;

const KIND: &str = "WorkloadSpread";
/// Set by the Deployment controller on the pods of a revision.
const VERSION_LABEL: &str = "pod-template-hash";

pub(super) async fn admit(desk: &Desk, newcomer: Newcomer) -> Admitted {
    let Some(spread) = find(desk, &newcomer).await else {
        return Admitted::Unchanged(Vec::new());
    };
    let name = spread.name_any();
    let counter = desk.counter((KIND, newcomer.namespace.clone(), name.clone()));
    let serve = |asks| serve(desk, spread.clone(), asks);
    match counter.ask(newcomer, serve).await {
        Some(Some(pod)) => Admitted::Placed(pod, Vec::new()),
        Some(None) => Admitted::Unchanged(Vec::new()),
        None => {
            let text = format!("{KIND} {name} has no time for the pod, it is not spread");
            Admitted::Unchanged(vec![text])
        }
    }
}

/// The WorkloadSpread of the pod's workload.
async fn find(desk: &Desk, newcomer: &Newcomer) -> Option<Arc<WorkloadSpread>> {
    let spreads = desk.view.spreads(&newcomer.namespace);
    let pod = &newcomer.pod;
    if spreads.is_empty() || pod["spec"]["nodeName"].is_string() {
        return None;
    }
    let owners = pod["metadata"]["ownerReferences"].clone();
    let owners: Vec<OwnerReference> = serde_json::from_value(owners).ok()?;
    let owner = owners
        .into_iter()
        .find(|owner| owner.controller == Some(true))?;
    let labels = labels(pod);
    let fits = |spread: &WorkloadSpread, owner: &OwnerReference| {
        let target = &spread.spec.target_ref;
        let group = owner
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let filter = spread.spec.target_filter.as_ref();
        let selector = filter.and_then(|filter| filter.selector.as_ref());
        target.group() == group
            && target.kind == owner.kind
            && target.name == owner.name
            && selector.is_none_or(|selector| matches(selector, &labels))
    };
    let direct = spreads.iter().find(|spread| fits(spread, &owner));
    if let Some(found) = direct {
        return Some(found.clone());
    }
    let by_deployment = spreads
        .iter()
        .any(|spread| spread.spec.target_ref.is_deployment());
    if owner.kind != "ReplicaSet" || !by_deployment {
        return None;
    }
    let above = desk
        .owner_of_replica_set(&newcomer.namespace, &owner)
        .await?;
    spreads.into_iter().find(|spread| fits(spread, &above))
}

async fn serve(desk: &Desk, spread: Arc<WorkloadSpread>, asks: Vec<Newcomer>) -> Vec<Outcome> {
    let namespace = spread.namespace().unwrap_or_default();
    let api: Api<WorkloadSpread> = Api::namespaced(desk.client.clone(), &namespace);
    let name = spread.name_any();
    super::in_attempts((KIND, &namespace, &name), asks.len(), || {
        attempt(desk, &api, &name, &namespace, &asks)
    })
    .await
}

async fn attempt(
    desk: &Desk,
    api: &Api<WorkloadSpread>,
    name: &str,
    namespace: &str,
    asks: &[Newcomer],
) -> Result<Vec<Outcome>, kube::Error> {
    let Some(mut spread) = api.get_opt(name).await? else {
        return Ok(vec![None; asks.len()]);
    };
    if !validate(&spread.spec).is_empty() || spread.metadata.deletion_timestamp.is_some() {
        return Ok(vec![None; asks.len()]);
    }
    let mut lots = Lots::new(desk, &spread, namespace).await?;
    let mut outcomes = Vec::with_capacity(asks.len());
    for ask in asks {
        outcomes.push(lots.give(&desk.client, &spread, ask).await?);
    }
    let given = asks.iter().zip(&outcomes);
    let mut real = given.filter(|(ask, outcome)| !ask.dry_run && outcome.is_some());
    if spread.spec.counts() && real.next().is_some() {
        lots.note(&mut spread);
        api.replace_status(name, &PostParams::default(), &spread)
            .await?;
    }
    Ok(outcomes)
}

/// Pods and promises of one revision, by subset.
#[derive(Default)]
struct Lot {
    pods: Vec<u32>,
    creating: Vec<BTreeMap<String, Time>>,
}

/// What one attempt knows and gives.
struct Lots {
    namespace: String,
    replicas: u32,
    nodes: Option<Arc<Vec<Node>>>,
    now: Timestamp,
    lots: BTreeMap<String, Lot>,
}

impl Lots {
    async fn new(
        desk: &Desk,
        spread: &WorkloadSpread,
        namespace: &str,
    ) -> Result<Self, kube::Error> {
        let replicas = if spread.spec.has_percentages() {
            target::replicas(&desk.client, namespace, &spread.spec).await?
        } else {
            0
        };
        let nodes = if spread.spec.simulates() {
            Some(desk.nodes().await?)
        } else {
            None
        };
        Ok(Self {
            namespace: namespace.to_owned(),
            replicas,
            nodes,
            now: Timestamp::now(),
            lots: BTreeMap::new(),
        })
    }

    async fn give(
        &mut self,
        client: &Client,
        spread: &WorkloadSpread,
        ask: &Newcomer,
    ) -> Result<Outcome, kube::Error> {
        let version = version(spread, &ask.pod);
        if !self.lots.contains_key(&version) {
            let lot = self.count(client, spread, &version).await?;
            self.lots.insert(version.clone(), lot);
        }
        let status = spread.status.clone().unwrap_or_default();
        let Some(lot) = self.lots.get_mut(&version) else {
            return Ok(None);
        };
        let mut places = places(&spread.spec, &status, &lot.pods, self.replicas, self.now);
        if let (Some(nodes), Ok(pod)) =
            (&self.nodes, serde_json::from_value::<Pod>(ask.pod.clone()))
        {
            let last = places.len() - 1;
            for (index, subset) in spread.spec.subsets.iter().enumerate().take(last) {
                places[index].open &= takes_pods_somewhere(subset, &pod, nodes.iter());
            }
        }
        let Some(index) = next_place(&places) else {
            return Ok(None);
        };
        let subset = &spread.spec.subsets[index];
        if !ask.dry_run {
            lot.pods[index] += 1;
            lot.creating[index].insert(ask.uid.clone(), Time(self.now));
        }
        let found = Match {
            name: spread.name_any(),
            subset: subset.name.clone(),
            uid: ask.uid.clone(),
        };
        // A patch that cannot be applied was refused with the spec.
        Ok(enter(&ask.pod, subset, &found).ok())
    }

    /// Counts the pods of a revision as they are at this moment, and those still to come.
    async fn count(
        &self,
        client: &Client,
        spread: &WorkloadSpread,
        version: &str,
    ) -> Result<Lot, kube::Error> {
        let subsets = &spread.spec.subsets;
        let mut lot = Lot {
            pods: vec![0; subsets.len()],
            creating: vec![BTreeMap::new(); subsets.len()],
        };
        if !spread.spec.counts() {
            return Ok(lot);
        }
        let mut which = ListParams::default().fields(LIVING);
        if version != NO_VERSION {
            which = which.labels(&format!("{VERSION_LABEL}={version}"));
        }
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let name = spread.name_any();
        let mut seen = Vec::new();
        for pod in pods.list_metadata(&which).await?.items {
            let Some(found) = matched(pod.annotations()).filter(|found| found.name == name) else {
                continue;
            };
            seen.push(found.uid);
            let index = subsets.iter().position(|one| one.name == found.subset);
            if let Some(index) = index.filter(|_| pod.metadata.deletion_timestamp.is_none()) {
                lot.pods[index] += 1;
            }
        }
        let status = spread.status.clone().unwrap_or_default();
        for (index, subset) in subsets.iter().enumerate() {
            let creating = status.creating(version, &subset.name, &seen, self.now);
            lot.pods[index] += u32::try_from(creating.len()).unwrap_or(u32::MAX);
            lot.creating[index] = creating;
        }
        Ok(lot)
    }

    /// Writes down what was given.
    fn note(self, spread: &mut WorkloadSpread) {
        let bounds = spread.spec.bounds(self.replicas);
        let subsets = spread.spec.subsets.clone();
        let status = spread.status.get_or_insert_default();
        for (version, lot) in self.lots {
            let known = status.versioned_subset_statuses.entry(version).or_default();
            let before = std::mem::take(known);
            for (index, subset) in subsets.iter().enumerate() {
                let mut old = before.iter().filter(|old| old.name == subset.name);
                let old = old.next().cloned().unwrap_or_default();
                let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
                known.push(SpreadSubsetStatus {
                    name: subset.name.clone(),
                    missing_replicas: bounds[index]
                        .max
                        .map_or(-1, |max| number(max.saturating_sub(lot.pods[index]))),
                    creating_pods: lot.creating[index].clone(),
                    ..old
                });
            }
        }
    }
}

/// Each ReplicaSet of a Deployment is spread by itself, so that a rollout finds all places free.
fn version(spread: &WorkloadSpread, pod: &Value) -> String {
    let hash = pod["metadata"]["labels"][VERSION_LABEL].as_str();
    let hash = hash.filter(|_| spread.spec.target_ref.is_deployment());
    hash.unwrap_or(NO_VERSION).to_owned()
}
