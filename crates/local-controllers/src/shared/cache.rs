//! A store of one kind, filled by one watch and shared by all controllers, with an index and change handlers.
//!
//! Handlers run on the watching task and may only put keys into queues. [`Cache::write_through`] lets a controller
//! see its own write before the watch brings it back.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::objects::{controller_of, resource_version};

/// Namespace and name of an object; cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace, empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of that namespace and name.
    pub fn new(namespace: &str, name: &str) -> Self {
        ObjectKey {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            return formatter.write_str(&self.name);
        }
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A kind that can be cached. The index keys are what controllers look objects up by.
pub trait Indexed:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Adds the keys under which this object is found besides its name.
    fn index_keys(&self, keys: &mut Vec<String>) {
        keys.push(in_namespace(
            self.meta().namespace.as_deref().unwrap_or_default(),
        ));
    }
}

/// Index key: everything in a namespace.
pub fn in_namespace(namespace: &str) -> String {
    format!("namespace:{namespace}")
}

/// Index key: what a controlling owner with this UID has.
pub fn controlled_by(uid: &str) -> String {
    format!("controller:{uid}")
}

/// Index key: what nobody controls in a namespace.
pub fn uncontrolled_in(namespace: &str) -> String {
    format!("uncontrolled:{namespace}")
}

/// Index key: pods of a node.
pub fn on_node(node: &str) -> String {
    format!("node:{node}")
}

/// Index key: slices of a service.
pub fn of_service(namespace: &str, service: &str) -> String {
    format!("service:{namespace}/{service}")
}

fn ownership_keys<K: Indexed>(object: &K, keys: &mut Vec<String>) {
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    keys.push(in_namespace(namespace));
    keys.push(match controller_of(object.meta()) {
        Some(owner) => controlled_by(&owner.uid),
        None => uncontrolled_in(namespace),
    });
}

impl Indexed for Pod {
    fn index_keys(&self, keys: &mut Vec<String>) {
        ownership_keys(self, keys);
        if let Some(node) = self
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
        {
            keys.push(on_node(node));
        }
    }
}

impl Indexed for ReplicaSet {
    fn index_keys(&self, keys: &mut Vec<String>) {
        ownership_keys(self, keys);
    }
}

impl Indexed for Job {
    fn index_keys(&self, keys: &mut Vec<String>) {
        ownership_keys(self, keys);
    }
}

impl Indexed for ControllerRevision {
    fn index_keys(&self, keys: &mut Vec<String>) {
        ownership_keys(self, keys);
    }
}

impl Indexed for EndpointSlice {
    fn index_keys(&self, keys: &mut Vec<String>) {
        let labels = self.metadata.labels.as_ref();
        if let Some(service) = labels.and_then(|labels| labels.get("kubernetes.io/service-name")) {
            keys.push(of_service(
                self.metadata.namespace.as_deref().unwrap_or_default(),
                service,
            ));
        }
    }
}

impl Indexed for Deployment {}
impl Indexed for StatefulSet {}
impl Indexed for CronJob {}
impl Indexed for PersistentVolumeClaim {}
impl Indexed for HorizontalPodAutoscaler {}
impl Indexed for Lease {}
impl Indexed for ConfigMap {}
impl Indexed for Endpoints {}
impl Indexed for Namespace {}
impl Indexed for Node {}
impl Indexed for Service {}
impl Indexed for ServiceAccount {}

type Handler<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;
type ByKey<K> = HashMap<ObjectKey, Arc<K>>;

struct State<K> {
    objects: ByKey<K>,
    index: HashMap<String, ByKey<K>>,
    /// The newest version that the watch has delivered.
    seen_version: u64,
}

/// The store. See the module's description.
pub struct Cache<K> {
    state: RwLock<State<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

impl<K: Indexed> Default for Cache<K> {
    fn default() -> Self {
        let state = State {
            objects: HashMap::new(),
            index: HashMap::new(),
            seen_version: 0,
        };
        Cache {
            state: RwLock::new(state),
            handlers: RwLock::default(),
            synced: watch::Sender::new(false),
        }
    }
}

impl<K: Indexed> Cache<K> {
    /// Watches until the shutdown. Failures are retried with the client library's back-off.
    pub async fn watch(
        self: Arc<Self>,
        api: Api<K>,
        config: watcher::Config,
        shutdown: CancellationToken,
    ) {
        let stream = watcher(api, config).default_backoff();
        let mut stream = pin!(stream);
        let mut relist: Option<Relist<K>> = None;
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                Some(Ok(event)) => self.take(event, &mut relist),
                Some(Err(error)) => {
                    tracing::debug!(kind = %K::kind(&()), %error, "watch interrupted")
                }
                None => return,
            }
        }
    }

    /// Waits until the first list is complete.
    pub async fn wait_synced(&self) {
        // The sender lives in `self`, so the wait can only end with the value.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Calls the handler for every object there is (as new) and for every change from now on.
    pub fn subscribe(
        &self,
        handler: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static,
    ) {
        let mut handlers = self
            .handlers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for object in self.all() {
            handler(None, Some(&object));
        }
        handlers.push(Box::new(handler));
    }

    /// The object of that key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read(|state| state.objects.get(key).cloned())
    }

    /// The object of that namespace and name.
    pub fn named(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&ObjectKey::new(namespace, name))
    }

    /// Everything.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read(|state| state.objects.values().cloned().collect())
    }

    /// The objects under an index key, in no particular order.
    pub fn indexed(&self, key: &str) -> Vec<Arc<K>> {
        self.read(|state| {
            state
                .index
                .get(key)
                .map(|found| found.values().cloned().collect())
                .unwrap_or_default()
        })
    }

    /// Takes over the answer to a write, unless the watch has brought something newer.
    pub fn write_through(&self, object: K) {
        let version = resource_version(object.meta());
        let key = ObjectKey::of(&object);
        let is_outdated = self.read(|state| match state.objects.get(&key) {
            Some(known) => resource_version(known.meta()) >= version,
            // The watch is past this version and the object is not there: it was deleted meanwhile.
            None => state.seen_version >= version,
        });
        if !is_outdated {
            self.put(key, object);
        }
    }

    fn read<T>(&self, reader: impl FnOnce(&State<K>) -> T) -> T {
        reader(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, event: watcher::Event<K>, relist: &mut Option<Relist<K>>) {
        match event {
            watcher::Event::Apply(object) => self.apply(object),
            watcher::Event::Delete(object) => self.delete(&object),
            watcher::Event::Init => {
                let before = self.read(|state| state.objects.keys().cloned().collect());
                *relist = Some(Relist {
                    before,
                    objects: Vec::new(),
                });
            }
            watcher::Event::InitApply(object) => {
                if let Some(relist) = relist {
                    relist.objects.push(object);
                }
            }
            watcher::Event::InitDone => {
                if let Some(relist) = relist.take() {
                    self.replace(relist);
                }
                self.synced.send_replace(true);
            }
        }
    }

    fn replace(&self, relist: Relist<K>) {
        let listed: HashSet<ObjectKey> = relist.objects.iter().map(ObjectKey::of).collect();
        for object in relist.objects {
            self.apply(object);
        }
        for key in relist.before.difference(&listed) {
            if let Some(gone) = self.write_state(|state| state.remove(key)) {
                self.notify(Some(&gone), None);
            }
        }
    }

    fn apply(&self, object: K) {
        let version = resource_version(object.meta());
        let key = ObjectKey::of(&object);
        let is_known = self.write_state(|state| {
            state.seen_version = state.seen_version.max(version);
            state.objects.get(&key).is_some_and(|known| {
                known.meta().uid == object.meta().uid && resource_version(known.meta()) >= version
            })
        });
        if !is_known {
            self.put(key, object);
        }
    }

    fn delete(&self, object: &K) {
        let version = resource_version(object.meta());
        let key = ObjectKey::of(object);
        let gone = self.write_state(|state| {
            state.seen_version = state.seen_version.max(version);
            let known = state.objects.get(&key)?;
            let is_successor =
                known.meta().uid != object.meta().uid && resource_version(known.meta()) > version;
            if is_successor {
                None
            } else {
                state.remove(&key)
            }
        });
        if let Some(gone) = gone {
            self.notify(Some(&gone), None);
        }
    }

    fn put(&self, key: ObjectKey, mut object: K) {
        object.meta_mut().managed_fields = None;
        let object = Arc::new(object);
        let previous = self.write_state(|state| state.insert(key, Arc::clone(&object)));
        self.notify(previous.as_ref(), Some(&object));
    }

    fn write_state<T>(&self, writer: impl FnOnce(&mut State<K>) -> T) -> T {
        writer(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn notify(&self, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        for handler in self
            .handlers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            handler(old, new);
        }
    }

    /// Fills the store without a watch, for tests of the code that reads it.
    #[cfg(test)]
    pub fn put_for_test(&self, object: K) {
        self.apply(object);
    }
}

struct Relist<K> {
    before: HashSet<ObjectKey>,
    objects: Vec<K>,
}

impl<K: Indexed> State<K> {
    fn insert(&mut self, key: ObjectKey, object: Arc<K>) -> Option<Arc<K>> {
        let previous = self.remove(&key);
        let mut keys = Vec::new();
        object.index_keys(&mut keys);
        for index_key in keys {
            self.index
                .entry(index_key)
                .or_default()
                .insert(key.clone(), Arc::clone(&object));
        }
        self.objects.insert(key, object);
        previous
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let object = self.objects.remove(key)?;
        let mut keys = Vec::new();
        object.index_keys(&mut keys);
        for index_key in keys {
            if let Some(found) = self.index.get_mut(&index_key) {
                found.remove(key);
                if found.is_empty() {
                    self.index.remove(&index_key);
                }
            }
        }
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn pod(name: &str, version: u64, uid: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("n".to_owned());
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.uid = Some(uid.to_owned());
        pod.metadata.resource_version = Some(version.to_string());
        pod
    }

    #[test]
    fn an_older_version_never_replaces_a_newer_one() {
        let cache = Cache::<Pod>::default();
        cache.apply(pod("a", 5, "u"));
        cache.write_through(pod("a", 4, "u"));
        assert_eq!(
            cache
                .named("n", "a")
                .unwrap()
                .metadata
                .resource_version
                .as_deref(),
            Some("5")
        );
        cache.write_through(pod("a", 9, "u"));
        cache.apply(pod("a", 7, "u"));
        assert_eq!(
            cache
                .named("n", "a")
                .unwrap()
                .metadata
                .resource_version
                .as_deref(),
            Some("9")
        );
    }

    #[test]
    fn a_late_answer_does_not_bring_a_deleted_object_back() {
        let cache = Cache::<Pod>::default();
        cache.apply(pod("a", 5, "u"));
        cache.delete(&pod("a", 8, "u"));
        cache.write_through(pod("a", 6, "u"));
        assert!(cache.named("n", "a").is_none());
        cache.write_through(pod("a", 9, "v"));
        assert!(cache.named("n", "a").is_some());
    }

    #[test]
    fn a_relist_removes_what_is_gone_and_keeps_what_was_just_written() {
        let cache = Cache::<Pod>::default();
        cache.apply(pod("gone", 1, "g"));
        let mut relist = None;
        cache.take(watcher::Event::Init, &mut relist);
        cache.write_through(pod("fresh", 7, "f"));
        cache.take(watcher::Event::InitApply(pod("kept", 2, "k")), &mut relist);
        cache.take(watcher::Event::InitDone, &mut relist);
        let mut names: Vec<_> = cache
            .all()
            .iter()
            .map(|pod| pod.metadata.name.clone().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["fresh", "kept"]);
    }

    #[test]
    fn the_index_follows_changes() {
        let cache = Cache::<Pod>::default();
        let mut bound = pod("a", 1, "u");
        cache.apply(bound.clone());
        assert!(cache.indexed(&on_node("x")).is_empty());
        bound.metadata.resource_version = Some("2".to_owned());
        bound.spec.get_or_insert_default().node_name = Some("x".to_owned());
        cache.apply(bound.clone());
        assert_eq!(cache.indexed(&on_node("x")).len(), 1);
        assert_eq!(cache.indexed(&uncontrolled_in("n")).len(), 1);
        bound.metadata.resource_version = Some("3".to_owned());
        cache.delete(&bound);
        assert!(cache.indexed(&on_node("x")).is_empty());
    }

    #[test]
    fn a_subscriber_sees_what_was_there_and_what_comes() {
        let cache = Cache::<Pod>::default();
        cache.apply(pod("a", 1, "u"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        cache.subscribe(move |old, new| {
            log.lock().unwrap().push((old.is_some(), new.is_some()));
        });
        cache.apply(pod("a", 2, "u"));
        cache.delete(&pod("a", 3, "u"));
        assert_eq!(
            *seen.lock().unwrap(),
            [(false, true), (true, true), (true, false)]
        );
    }
}
