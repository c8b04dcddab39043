//! The policies that admission has to know of, kept up to date: which there are, and in which namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};

use elastic_core::resource_policy::ResourcePolicy;
use elastic_core::workload_spread::WorkloadSpread;
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::foreign::run_while_ours;

pub(crate) const WORKLOAD_SPREADS: &str = "workloadspreads.apps.kruise.io";
pub(crate) const RESOURCE_POLICIES: &str = "resourcepolicies.scheduling.alibabacloud.com";

/// Objects of a kind by namespace and name.
type Known<K> = Arc<RwLock<BTreeMap<(String, String), Arc<K>>>>;

/// What is known now. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PolicyView {
    spreads: Known<WorkloadSpread>,
    policies: Known<ResourcePolicy>,
    changes: watch::Sender<()>,
}

impl PolicyView {
    pub(crate) fn new() -> Self {
        Self {
            spreads: Known::default(),
            policies: Known::default(),
            changes: watch::channel(()).0,
        }
    }

    /// A receiver that wakes when a policy comes, changes or goes.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The WorkloadSpreads of a namespace, oldest first.
    pub(crate) fn spreads(&self, namespace: &str) -> Vec<Arc<WorkloadSpread>> {
        in_namespace(&self.spreads, namespace)
    }

    /// The ResourcePolicies of a namespace, oldest first.
    pub(crate) fn policies(&self, namespace: &str) -> Vec<Arc<ResourcePolicy>> {
        in_namespace(&self.policies, namespace)
    }

    /// Namespaces in which pods have to be looked at when they are created.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let mut all = BTreeSet::new();
        all.extend(namespaces(&self.spreads));
        all.extend(namespaces(&self.policies));
        all.into_iter().collect()
    }

    /// Keeps the view up to date until `shutdown`, for kinds that are ours.
    pub(crate) async fn follow(&self, client: Client, shutdown: CancellationToken) {
        let spreads = |stop| follow_kind(client.clone(), &self.spreads, &self.changes, stop);
        let policies = |stop| follow_kind(client.clone(), &self.policies, &self.changes, stop);
        tokio::join!(
            run_while_ours(client.clone(), WORKLOAD_SPREADS, shutdown.clone(), spreads),
            run_while_ours(client.clone(), RESOURCE_POLICIES, shutdown, policies),
        );
    }
}

fn namespaces<K>(known: &Known<K>) -> BTreeSet<String> {
    let known = known.read().unwrap_or_else(PoisonError::into_inner);
    known
        .keys()
        .map(|(namespace, _)| namespace.clone())
        .collect()
}

fn in_namespace<K: Resource>(known: &Known<K>, namespace: &str) -> Vec<Arc<K>> {
    let known = known.read().unwrap_or_else(PoisonError::into_inner);
    let mut found: Vec<Arc<K>> = known
        .iter()
        .filter(|((there, _), _)| there == namespace)
        .map(|(_, object)| object.clone())
        .collect();
    found.sort_by_key(|object| age(object.as_ref()));
    found
}

/// Older objects come first; of the same age, in the order of their names.
pub(crate) fn age<K: Resource>(object: &K) -> (Option<jiff::Timestamp>, String) {
    let created = object.meta().creation_timestamp.as_ref();
    (created.map(|time| time.0), object.name_any())
}

async fn follow_kind<K>(
    client: Client,
    known: &Known<K>,
    changes: &watch::Sender<()>,
    stop: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let following = async {
        let objects: Api<K> = Api::all(client);
        let stream = watcher(objects, watcher::Config::default()).default_backoff();
        let mut stream = pin!(stream);
        let mut listing = BTreeMap::new();
        while let Some(event) = stream.next().await {
            let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
            let mut held = known.write().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(watcher::Event::Init) => listing.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    drop(listing.insert(key(&object), Arc::new(object)));
                }
                Ok(watcher::Event::InitDone) => *held = std::mem::take(&mut listing),
                Ok(watcher::Event::Apply(object)) => {
                    drop(held.insert(key(&object), Arc::new(object)));
                }
                Ok(watcher::Event::Delete(object)) => drop(held.remove(&key(&object))),
                Err(error) => {
                    tracing::warn!(%error, "watch of policies broke off, it is taken up again");
                    continue;
                }
            }
            drop(held);
            changes.send_replace(());
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = following => {}
    }
    known
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
    changes.send_replace(());
}
