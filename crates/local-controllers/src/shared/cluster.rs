//! The surroundings of the controllers: the client, the stores (each started when first asked for), the event
//! recorder, and the tasks, which all end with the shutdown.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cache::{Cache, Indexed};
use super::catalog::{self, Catalog};
use super::recorder::EventRecorder;

type Slot<K> = OnceLock<Arc<Cache<K>>>;

#[derive(Default)]
struct Stores {
    pods: Slot<Pod>,
    nodes: Slot<Node>,
    deployments: Slot<Deployment>,
    replica_sets: Slot<ReplicaSet>,
    stateful_sets: Slot<StatefulSet>,
    revisions: Slot<ControllerRevision>,
    claims: Slot<PersistentVolumeClaim>,
    jobs: Slot<Job>,
    cron_jobs: Slot<CronJob>,
    services: Slot<Service>,
    endpoints: Slot<Endpoints>,
    slices: Slot<EndpointSlice>,
    namespaces: Slot<Namespace>,
    leases: Slot<Lease>,
    autoscalers: Slot<HorizontalPodAutoscaler>,
    catalog: OnceLock<watch::Receiver<Arc<Catalog>>>,
}

struct Inner {
    client: Client,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    recorder: EventRecorder,
    stores: Stores,
}

/// What every controller is given. Cheap to copy.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

impl Cluster {
    /// Prepares the surroundings; starts only the event recorder.
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        let tasks = TaskTracker::new();
        let (recorder, writer) = EventRecorder::new(client.clone());
        let stop = shutdown.clone();
        tasks.spawn(async move { writer.run(stop).await });
        Cluster(Arc::new(Inner {
            client,
            shutdown,
            tasks,
            recorder,
            stores: Stores::default(),
        }))
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Fires when everything is to end.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    /// The event recorder.
    pub fn recorder(&self) -> &EventRecorder {
        &self.0.recorder
    }

    /// Starts a task that [`Cluster::finish`] waits for. It must end with the shutdown.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(task);
    }

    /// Waits for all tasks after the shutdown.
    pub async fn finish(&self) {
        self.0.shutdown.cancelled().await;
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// All pods.
    pub fn pods(&self) -> Arc<Cache<Pod>> {
        self.store(&self.0.stores.pods)
    }

    /// All nodes.
    pub fn nodes(&self) -> Arc<Cache<Node>> {
        self.store(&self.0.stores.nodes)
    }

    /// All deployments.
    pub fn deployments(&self) -> Arc<Cache<Deployment>> {
        self.store(&self.0.stores.deployments)
    }

    /// All replica sets.
    pub fn replica_sets(&self) -> Arc<Cache<ReplicaSet>> {
        self.store(&self.0.stores.replica_sets)
    }

    /// All stateful sets.
    pub fn stateful_sets(&self) -> Arc<Cache<StatefulSet>> {
        self.store(&self.0.stores.stateful_sets)
    }

    /// All controller revisions.
    pub fn revisions(&self) -> Arc<Cache<ControllerRevision>> {
        self.store(&self.0.stores.revisions)
    }

    /// All claims on persistent volumes.
    pub fn claims(&self) -> Arc<Cache<PersistentVolumeClaim>> {
        self.store(&self.0.stores.claims)
    }

    /// All jobs.
    pub fn jobs(&self) -> Arc<Cache<Job>> {
        self.store(&self.0.stores.jobs)
    }

    /// All cron jobs.
    pub fn cron_jobs(&self) -> Arc<Cache<CronJob>> {
        self.store(&self.0.stores.cron_jobs)
    }

    /// All services.
    pub fn services(&self) -> Arc<Cache<Service>> {
        self.store(&self.0.stores.services)
    }

    /// All endpoints objects.
    pub fn endpoints(&self) -> Arc<Cache<Endpoints>> {
        self.store(&self.0.stores.endpoints)
    }

    /// All endpoint slices.
    pub fn slices(&self) -> Arc<Cache<EndpointSlice>> {
        self.store(&self.0.stores.slices)
    }

    /// All namespaces.
    pub fn namespaces(&self) -> Arc<Cache<Namespace>> {
        self.store(&self.0.stores.namespaces)
    }

    /// All autoscalers.
    pub fn autoscalers(&self) -> Arc<Cache<HorizontalPodAutoscaler>> {
        self.store(&self.0.stores.autoscalers)
    }

    /// The nodes' leases.
    pub fn node_leases(&self) -> Arc<Cache<Lease>> {
        let api = Api::namespaced(self.client().clone(), "kube-node-lease");
        Arc::clone(
            self.0
                .stores
                .leases
                .get_or_init(|| self.start_cache(api, watcher::Config::default())),
        )
    }

    /// What the API server serves; empty until it was asked.
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        let start = || {
            let (sender, receiver) = watch::channel(Arc::new(Catalog::default()));
            self.spawn(catalog::follow(
                self.client().clone(),
                sender,
                self.shutdown().clone(),
            ));
            receiver
        };
        self.0.stores.catalog.get_or_init(start).clone()
    }

    /// Starts a store of its own over part of a kind.
    pub fn start_cache<K: Indexed>(&self, api: Api<K>, config: watcher::Config) -> Arc<Cache<K>> {
        let cache = Arc::new(Cache::default());
        self.spawn(Arc::clone(&cache).watch(api, config, self.shutdown().clone()));
        cache
    }

    fn store<K: Indexed>(&self, slot: &Slot<K>) -> Arc<Cache<K>> {
        let api = || Api::all(self.client().clone());
        Arc::clone(slot.get_or_init(|| self.start_cache(api(), watcher::Config::default())))
    }
}
