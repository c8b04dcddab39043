//! Empties namespaces and releases them.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::ListParams;
use kube::core::{DynamicObject, PartialObjectMeta};
use serde_json::json;

use super::conditions::{Remains, conditions};
use crate::shared::cache::in_namespace;
use crate::shared::catalog::ServedResource;
use crate::shared::objects::{is_finished, name, namespace};
use crate::shared::requests::{delete, merge, path_of, replace, to_value};
use crate::shared::{Cache, Cluster, ControllerError, Next, ObjectKey, WorkQueue};

const COMPONENT: &str = "namespace-controller";
const WORKERS: usize = 4;
/// So many resources of a namespace are emptied at once.
const RESOURCES_MAX: usize = 8;
/// What holds a namespace is asked about again after this time, unless a pod's end comes first.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const POD_EVENT_DELAY: Duration = Duration::from_millis(20);
const FINALIZER: &str = "kubernetes";

struct Controller {
    cluster: Cluster,
    namespaces: Arc<Cache<Namespace>>,
    pods: Arc<Cache<Pod>>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

/// Starts the controller.
pub fn start(cluster: &Cluster) {
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        namespaces: cluster.namespaces(),
        pods: cluster.pods(),
        queue: Arc::default(),
    });
    let weak = Arc::downgrade(&controller);
    controller.namespaces.subscribe(move |_, new| {
        if let (Some(controller), Some(namespace)) =
            (weak.upgrade(), new.filter(|namespace| is_going(namespace)))
        {
            controller.queue.add(ObjectKey::of(namespace.as_ref()));
        }
    });
    let weak = Arc::downgrade(&controller);
    controller.pods.subscribe(move |old, new| {
        if let (Some(controller), Some(pod), None) = (weak.upgrade(), old, new) {
            let key = ObjectKey::new("", namespace(&pod.metadata));
            if controller
                .namespaces
                .get(&key)
                .is_some_and(|namespace| is_going(&namespace))
            {
                controller.queue.add_after(key, POD_EVENT_DELAY);
            }
        }
    });
    let queue = Arc::clone(&controller.queue);
    queue.start_workers(COMPONENT, WORKERS, cluster, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(key).await }
    });
}

fn is_going(namespace: &Namespace) -> bool {
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_deref())
        .unwrap_or_default();
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let Some(namespace) = self
            .namespaces
            .get(&key)
            .filter(|namespace| is_going(namespace))
        else {
            return Ok(Next::Wait);
        };
        let catalog = Arc::clone(&self.cluster.catalog().borrow());
        if catalog.deletable.is_empty() {
            return Ok(Next::After(LOOK_AGAIN));
        }
        let (pods, others): (Vec<_>, Vec<_>) = catalog
            .deletable
            .iter()
            .filter(|resource| resource.is_namespaced)
            .cloned()
            .partition(|resource| resource.name() == "pods");
        let mut remains = self.empty(&key.name, &pods).await;
        let pods_remain = !remains.objects.is_empty();
        if pods_remain {
            self.judge_pods(&key, &namespace, &mut remains);
        } else if remains.failures.is_empty() {
            remains = self.empty(&key.name, &others).await;
        }
        self.tell(&key, &namespace, &remains).await?;
        if pods_remain || !remains.is_nothing() {
            return Ok(Next::After(LOOK_AGAIN));
        }
        self.release(&key).await?;
        Ok(Next::Wait)
    }

    /// Deletes everything of these resources and says what is left.
    async fn empty(&self, namespace: &str, resources: &[Arc<ServedResource>]) -> Remains {
        let results = futures::stream::iter(resources.to_vec())
            .map(|resource| async move {
                let left = self.empty_one(namespace, &resource).await;
                (resource, left)
            })
            .buffer_unordered(RESOURCES_MAX)
            .collect::<Vec<_>>()
            .await;
        let mut remains = Remains::default();
        for (resource, result) in results {
            match result {
                Ok(left) if left.is_empty() => {}
                Ok(left) => {
                    let resource_name = format!("{}.{}", resource.api.plural, resource.api.group);
                    remains.objects.insert(resource_name, left.len());
                    let mut held = false;
                    for finalizer in left.iter().flat_map(|finalizers| finalizers.iter()) {
                        *remains.finalizers.entry(finalizer.clone()).or_default() += 1;
                        held = true;
                    }
                    if !held && resource.name() != "pods" {
                        remains.failures.push(unexpected(namespace, &resource));
                    }
                }
                Err(error) => remains.failures.push(error.api_message()),
            }
        }
        remains
    }

    /// The finalizers of each object that is left.
    async fn empty_one(
        &self,
        namespace: &str,
        resource: &ServedResource,
    ) -> Result<Vec<Vec<String>>, ControllerError> {
        if self.list(namespace, resource).await?.is_empty() {
            return Ok(Vec::new());
        }
        let options =
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        let collection = resource.path(namespace, "");
        match delete(self.cluster.client(), &collection, &options).await {
            Err(error) if error.code() == Some(405) => {
                for object in self.list(namespace, resource).await? {
                    delete(
                        self.cluster.client(),
                        &resource.path(namespace, name(&object.metadata)),
                        &options,
                    )
                    .await?;
                }
            }
            result => result?,
        }
        let left = self.list(namespace, resource).await?;
        Ok(left
            .into_iter()
            .map(|object| object.metadata.finalizers.unwrap_or_default())
            .collect())
    }

    async fn list(
        &self,
        namespace: &str,
        resource: &ServedResource,
    ) -> Result<Vec<PartialObjectMeta<DynamicObject>>, ControllerError> {
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::namespaced_with(self.cluster.client().clone(), namespace, &resource.api);
        match api.list(&ListParams::default()).await {
            Ok(list) => Ok(list.items),
            // The resource has just been withdrawn.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(source) => Err(ControllerError::Request {
                method: http::Method::GET,
                path: resource.path(namespace, ""),
                source: Box::new(source),
            }),
        }
    }

    /// Pods may use their grace period before they count as stuck; until then nothing is said of them.
    fn judge_pods(&self, key: &ObjectKey, namespace: &Namespace, remains: &mut Remains) {
        remains.objects.clear();
        remains.finalizers.clear();
        let grace = |pod: &Pod| {
            let spec = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.termination_grace_period_seconds);
            pod.metadata
                .deletion_grace_period_seconds
                .or(spec)
                .unwrap_or(0)
        };
        let pods = self.pods.indexed(&in_namespace(&key.name));
        let longest = pods
            .iter()
            .filter(|pod| !is_finished(pod))
            .map(|pod| grace(pod))
            .max()
            .unwrap_or(0);
        let since = namespace
            .metadata
            .deletion_timestamp
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        if since + SignedDuration::from_secs(longest) < Timestamp::now() {
            let gvr = "/v1, Resource=pods";
            let name = &key.name;
            remains.failures.push(format!(
                "unexpected items still remain in namespace: {name} for gvr: {gvr}"
            ));
        }
    }

    async fn tell(
        &self,
        key: &ObjectKey,
        namespace: &Namespace,
        remains: &Remains,
    ) -> Result<(), ControllerError> {
        let status = namespace.status.as_ref();
        let previous = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        let wanted = conditions(previous, remains, Timestamp::now());
        if wanted == previous {
            return Ok(());
        }
        let path = path_of::<Namespace>("", &key.name, "status");
        let written: Namespace = merge(
            self.cluster.client(),
            &path,
            &json!({"status": {"conditions": wanted}}),
        )
        .await?;
        self.namespaces.write_through(written);
        Ok(())
    }

    /// Takes out the finalizer, with which the namespace goes.
    async fn release(&self, key: &ObjectKey) -> Result<(), ControllerError> {
        let Some(namespace) = self.namespaces.get(key) else {
            return Ok(());
        };
        let mut body = to_value(namespace.as_ref())?;
        let finalizers = namespace
            .spec
            .as_ref()
            .and_then(|spec| spec.finalizers.clone())
            .unwrap_or_default();
        let others: Vec<String> = finalizers
            .into_iter()
            .filter(|finalizer| finalizer != FINALIZER)
            .collect();
        body["apiVersion"] = "v1".into();
        body["kind"] = "Namespace".into();
        body["spec"] = json!({"finalizers": others});
        let path = path_of::<Namespace>("", &key.name, "finalize");
        match replace::<serde::de::IgnoredAny>(self.cluster.client(), &path, &body).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn unexpected(namespace: &str, resource: &ServedResource) -> String {
    let api = &resource.api;
    let group_version = if api.group.is_empty() {
        format!("/{}", api.version)
    } else {
        api.api_version.clone()
    };
    format!(
        "unexpected items still remain in namespace: {namespace} for gvr: {group_version}, Resource={}",
        api.plural
    )
}
