//! Feeds the graph: from the shared stores where there is one, else from a metadata watch per resource.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use kube::Api;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use tokio_util::sync::CancellationToken;

use super::controller::Collector;
use super::graph::Object;
use crate::shared::cache::Indexed;
use crate::shared::catalog::{Catalog, ServedResource};
use crate::shared::{Cache, Cluster};

type MetaApi = Api<PartialObjectMeta<DynamicObject>>;

/// Follows the catalog: starts a watch for each new resource, ends those that are not served any more.
pub(super) async fn follow(collector: Arc<Collector>) {
    let cluster = collector.cluster.clone();
    let mut catalog = cluster.catalog();
    let mut running: HashMap<String, CancellationToken> = HashMap::new();
    loop {
        let current = Arc::clone(&catalog.borrow_and_update());
        collector.catalog_changed(Arc::clone(&current));
        reconcile(&collector, &cluster, &current, &mut running);
        tokio::select! {
            () = cluster.shutdown().cancelled() => return,
            changed = catalog.changed() => if changed.is_err() { return },
        }
    }
}

fn reconcile(
    collector: &Arc<Collector>,
    cluster: &Cluster,
    catalog: &Catalog,
    running: &mut HashMap<String, CancellationToken>,
) {
    if catalog.deletable.is_empty() {
        return;
    }
    let wanted: HashSet<String> = catalog
        .deletable
        .iter()
        .map(|resource| resource.name())
        .collect();
    running.retain(|name, stop| {
        let is_wanted = wanted.contains(name);
        if !is_wanted {
            stop.cancel();
        }
        is_wanted
    });
    for resource in &catalog.deletable {
        if running.contains_key(&resource.name()) {
            continue;
        }
        let stop = cluster.shutdown().child_token();
        running.insert(resource.name(), stop.clone());
        if !share(collector, cluster, resource) {
            cluster.spawn(watch(Arc::clone(collector), Arc::clone(resource), stop));
        }
    }
}

/// Uses a store that other controllers fill anyway.
fn share(collector: &Arc<Collector>, cluster: &Cluster, resource: &Arc<ServedResource>) -> bool {
    match resource.name().as_str() {
        "pods" => subscribe(collector, &cluster.pods(), resource),
        "nodes" => subscribe(collector, &cluster.nodes(), resource),
        "services" => subscribe(collector, &cluster.services(), resource),
        "endpoints" => subscribe(collector, &cluster.endpoints(), resource),
        "namespaces" => subscribe(collector, &cluster.namespaces(), resource),
        "deployments.apps" => subscribe(collector, &cluster.deployments(), resource),
        "replicasets.apps" => subscribe(collector, &cluster.replica_sets(), resource),
        "endpointslices.discovery.k8s.io" => subscribe(collector, &cluster.slices(), resource),
        "horizontalpodautoscalers.autoscaling" => {
            subscribe(collector, &cluster.autoscalers(), resource)
        }
        _ => return false,
    }
    true
}

fn subscribe<K: Indexed>(
    collector: &Arc<Collector>,
    cache: &Cache<K>,
    resource: &Arc<ServedResource>,
) {
    let (collector, resource) = (Arc::downgrade(collector), Arc::clone(resource));
    cache.subscribe(move |old, new| {
        let Some(collector) = collector.upgrade() else {
            return;
        };
        if let Some(old) = old.map(|old| old.meta())
            && new.is_none_or(|new| new.meta().uid != old.uid)
        {
            collector.forget(old.uid.as_deref().unwrap_or_default());
        }
        if let Some(object) = new.and_then(|new| Object::read(&resource, new.meta())) {
            collector.observe(object);
        }
    });
}

async fn watch(collector: Arc<Collector>, resource: Arc<ServedResource>, stop: CancellationToken) {
    let api: MetaApi = Api::all_with(collector.cluster.client().clone(), &resource.api);
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    let mut stream = pin!(stream);
    let mut known: HashSet<String> = HashSet::new();
    let mut listed: Option<HashSet<String>> = None;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => break,
            event = stream.next() => event,
        };
        match event {
            Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => {
                if let Some(object) = Object::read(&resource, &object.metadata) {
                    known.insert(object.uid.clone());
                    if let Some(listed) = &mut listed {
                        listed.insert(object.uid.clone());
                    }
                    collector.observe(object);
                }
            }
            Some(Ok(watcher::Event::Delete(object))) => {
                let uid = object.metadata.uid.unwrap_or_default();
                known.remove(&uid);
                collector.forget(&uid);
            }
            Some(Ok(watcher::Event::Init)) => listed = Some(HashSet::new()),
            Some(Ok(watcher::Event::InitDone)) => {
                if let Some(listed) = listed.take() {
                    for uid in known.extract_if(|uid| !listed.contains(uid)) {
                        collector.forget(&uid);
                    }
                }
            }
            Some(Err(error)) => {
                tracing::debug!(resource = resource.name(), %error, "metadata watch interrupted")
            }
            None => break,
        }
    }
    collector.drop_resource(known);
}
