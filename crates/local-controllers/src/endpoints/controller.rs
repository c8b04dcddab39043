//! Watches services, pods and nodes' zones; writes slices at once and the larger Endpoints objects at a bounded rate.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::legacy;
use super::members::{Member, is_managed, members, selects};
use super::mirror;
use super::slices::{self, Action, MANAGER_LABEL};
use crate::shared::cache::{in_namespace, of_service};
use crate::shared::objects::{name, namespace};
use crate::shared::requests::{create, delete, path_of, replace, to_value};
use crate::shared::{Cache, Cluster, ControllerError, Next, ObjectKey, WorkQueue};

const WORKERS: usize = 2;
/// A service with many pods in motion is written this often at most.
const CROWD_INTERVAL: Duration = Duration::from_millis(20);
const CROWD: usize = 20;
/// The Endpoints object of a large service is written whole each time, so it follows less closely.
const LEGACY_INTERVAL: Duration = Duration::from_millis(250);
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

struct Controller {
    cluster: Cluster,
    services: Arc<Cache<Service>>,
    pods: Arc<Cache<Pod>>,
    nodes: Arc<Cache<Node>>,
    slices: Arc<Cache<EndpointSlice>>,
    endpoints: Arc<Cache<Endpoints>>,
    slice_queue: Arc<WorkQueue<ObjectKey>>,
    legacy_queue: Arc<WorkQueue<ObjectKey>>,
    mirror_queue: Arc<WorkQueue<ObjectKey>>,
}

/// Starts the controller.
pub fn start(cluster: &Cluster) {
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        services: cluster.services(),
        pods: cluster.pods(),
        nodes: cluster.nodes(),
        slices: cluster.slices(),
        endpoints: cluster.endpoints(),
        slice_queue: Arc::default(),
        legacy_queue: Arc::default(),
        mirror_queue: Arc::default(),
    });
    let starter = cluster.clone();
    cluster.spawn(async move {
        let synced = async {
            tokio::join!(
                controller.services.wait_synced(),
                controller.pods.wait_synced(),
                controller.nodes.wait_synced(),
                controller.slices.wait_synced(),
                controller.endpoints.wait_synced()
            )
        };
        tokio::select! {
            () = starter.shutdown().cancelled() => return,
            _ = synced => {}
        }
        controller.subscribe();
        controller.start_workers(&starter);
    });
}

impl Controller {
    fn start_workers(self: &Arc<Self>, cluster: &Cluster) {
        let controller = Arc::clone(self);
        self.slice_queue
            .start_workers("endpointslice-controller", WORKERS, cluster, move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.write_slices(key).await }
            });
        let controller = Arc::clone(self);
        self.legacy_queue
            .start_workers("endpoint-controller", WORKERS, cluster, move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.write_legacy(key).await }
            });
        let controller = Arc::clone(self);
        self.mirror_queue.start_workers(
            "endpointslicemirroring-controller",
            1,
            cluster,
            move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.mirror(key).await }
            },
        );
    }

    fn subscribe(self: &Arc<Self>) {
        let controller = Arc::downgrade(self);
        self.services.subscribe(move |old, new| {
            if let (Some(controller), Some(service)) = (controller.upgrade(), new.or(old)) {
                let key = ObjectKey::of(service.as_ref());
                controller.slice_queue.add(key.clone());
                controller.legacy_queue.add(key.clone());
                controller.mirror_queue.add(key);
            }
        });
        let controller = Arc::downgrade(self);
        self.pods.subscribe(move |old, new| {
            if let Some(controller) = controller.upgrade() {
                controller.pod_changed(old, new);
            }
        });
        let controller = Arc::downgrade(self);
        self.endpoints.subscribe(move |old, new| {
            if let (Some(controller), Some(endpoints)) = (controller.upgrade(), new.or(old)) {
                let key = ObjectKey::of(endpoints.as_ref());
                if new.is_none() {
                    controller.legacy_queue.add(key.clone());
                }
                controller.mirror_queue.add(key);
            }
        });
        let controller = Arc::downgrade(self);
        self.slices.subscribe(move |old, new| {
            if let (Some(controller), Some(slice), None) = (controller.upgrade(), old, new) {
                let labels = slice.metadata.labels.as_ref();
                if let Some(service) = labels.and_then(|labels| labels.get(slices::SERVICE_LABEL)) {
                    controller
                        .slice_queue
                        .add(ObjectKey::new(namespace(&slice.metadata), service));
                }
            }
        });
    }

    fn pod_changed(&self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        if let (Some(old), Some(new)) = (old, new)
            && !matters(old, new)
        {
            return;
        }
        let Some(pod) = new.or(old) else { return };
        for service in self
            .services
            .indexed(&in_namespace(namespace(&pod.metadata)))
        {
            if [old, new]
                .into_iter()
                .flatten()
                .any(|pod| selects(&service, pod))
            {
                let key = ObjectKey::of(service.as_ref());
                self.slice_queue.add(key.clone());
                self.legacy_queue.add(key);
            }
        }
    }

    fn members_of(&self, service: &Service) -> Vec<Member> {
        let pods = self
            .pods
            .indexed(&in_namespace(namespace(&service.metadata)));
        members(service, &pods, |node| {
            let node = self.nodes.named("", node)?;
            node.metadata.labels.as_ref()?.get(ZONE_LABEL).cloned()
        })
    }

    async fn write_slices(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let Some(service) = self
            .services
            .get(&key)
            .filter(|service| is_current(service))
        else {
            return Ok(Next::Wait);
        };
        let members = self.members_of(&service);
        let existing: Vec<_> = self
            .slices
            .indexed(&of_service(&key.namespace, &key.name))
            .into_iter()
            .filter(|slice| is_managed_by(slice, slices::MANAGER))
            .collect();
        let actions = slices::plan(&service, &members, &existing);
        for action in actions {
            self.carry_out(&key.namespace, action).await?;
        }
        // What changes meanwhile is looked at together when the service is large.
        if members.len() > CROWD {
            tokio::time::sleep(CROWD_INTERVAL).await;
        }
        Ok(Next::Wait)
    }

    async fn carry_out(&self, namespace: &str, action: Action) -> Result<(), ControllerError> {
        let client = self.cluster.client();
        let written: EndpointSlice = match action {
            Action::Create(body) => {
                create(client, &path_of::<EndpointSlice>(namespace, "", ""), &body).await?
            }
            Action::Update(name, body) => {
                replace(
                    client,
                    &path_of::<EndpointSlice>(namespace, &name, ""),
                    &body,
                )
                .await?
            }
            Action::Delete(name) => {
                let path = path_of::<EndpointSlice>(namespace, &name, "");
                return delete(client, &path, &json!({})).await;
            }
        };
        self.slices.write_through(written);
        Ok(())
    }

    async fn write_legacy(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let Some(service) = self.services.get(&key) else {
            // The service is gone, and its endpoints with it.
            if self
                .endpoints
                .get(&key)
                .is_some_and(|known| is_ours(&known))
            {
                let path = path_of::<Endpoints>(&key.namespace, &key.name, "");
                delete(self.cluster.client(), &path, &json!({})).await?;
            }
            return Ok(Next::Wait);
        };
        if !is_current(&service) {
            return Ok(Next::Wait);
        }
        let members = self.members_of(&service);
        let existing = self.endpoints.get(&key);
        if let Some(body) = legacy::wanted(&service, &members, existing.as_deref()) {
            let client = self.cluster.client();
            let written: Endpoints = match existing {
                Some(_) => {
                    replace(
                        client,
                        &path_of::<Endpoints>(&key.namespace, &key.name, ""),
                        &body,
                    )
                    .await?
                }
                None => {
                    create(client, &path_of::<Endpoints>(&key.namespace, "", ""), &body).await?
                }
            };
            self.endpoints.write_through(written);
            if members.len() > CROWD {
                tokio::time::sleep(LEGACY_INTERVAL).await;
            }
        }
        Ok(Next::Wait)
    }

    async fn mirror(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let service = self.services.get(&key);
        let endpoints = self
            .endpoints
            .get(&key)
            .filter(|known| mirror::is_mirrored(known, service.as_deref()));
        let wanted = match (&endpoints, &service) {
            (Some(endpoints), Some(service)) => mirror::slices(endpoints, service),
            _ => Vec::new(),
        };
        let existing = self.slices.indexed(&of_service(&key.namespace, &key.name));
        let mut surplus: Vec<_> = existing
            .into_iter()
            .filter(|slice| is_managed_by(slice, mirror::MANAGER))
            .collect();
        let client = self.cluster.client();
        for body in wanted {
            let same = surplus.iter().position(|slice| {
                to_value(slice.as_ref()).is_ok_and(|existing| mirror::is_same(&body, &existing))
            });
            match same {
                Some(index) => drop(surplus.remove(index)),
                None => {
                    let path = path_of::<EndpointSlice>(&key.namespace, "", "");
                    self.slices
                        .write_through(create(client, &path, &body).await?);
                }
            }
        }
        for slice in surplus {
            delete(
                client,
                &path_of::<EndpointSlice>(&key.namespace, name(&slice.metadata), ""),
                &json!({}),
            )
            .await?;
        }
        Ok(Next::Wait)
    }
}

fn is_current(service: &Service) -> bool {
    is_managed(service) && service.metadata.deletion_timestamp.is_none()
}

fn is_managed_by(slice: &EndpointSlice, manager: &str) -> bool {
    slice
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(MANAGER_LABEL))
        .is_some_and(|text| text == manager)
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key("endpoints.kubernetes.io/managed-by"))
}

/// Whether a pod's change can matter to a service.
fn matters(old: &Pod, new: &Pod) -> bool {
    let address = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let ready = crate::shared::objects::is_ready;
    let finished = crate::shared::objects::is_finished;
    old.metadata.uid != new.metadata.uid
        || old.metadata.labels != new.metadata.labels
        || old.metadata.deletion_timestamp.is_some() != new.metadata.deletion_timestamp.is_some()
        || address(old) != address(new)
        || ready(old) != ready(new)
        || finished(old) != finished(new)
}
