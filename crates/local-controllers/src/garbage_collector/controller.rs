//! Carries out the verdicts.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Deserialize;
use serde_json::json;

use super::graph::{FOREGROUND, Graph, ORPHAN, Object};
use super::judge::{Verdict, judge};
use crate::shared::catalog::Catalog;
use crate::shared::requests::{delete, get, merge_blind};
use crate::shared::{Cluster, ControllerError, Next, WorkQueue};

const COMPONENT: &str = "garbage-collector-controller";
const WORKERS: usize = 64;
/// An owner may be told of by another watch a moment later than its dependent.
const OWNER_PATIENCE: Duration = Duration::from_millis(50);
/// An owner whose kind is not served may be so later.
const KIND_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Meta {
    metadata: ObjectMeta,
}

pub(super) struct Collector {
    pub(super) cluster: Cluster,
    graph: Mutex<Graph>,
    catalog: Mutex<Arc<Catalog>>,
    queue: Arc<WorkQueue<String>>,
}

/// Starts the collector.
pub fn start(cluster: &Cluster) {
    let collector = Arc::new(Collector {
        cluster: cluster.clone(),
        graph: Mutex::default(),
        catalog: Mutex::default(),
        queue: Arc::default(),
    });
    cluster.spawn(super::watches::follow(Arc::clone(&collector)));
    let queue = Arc::clone(&collector.queue);
    queue.start_workers(COMPONENT, WORKERS, cluster, move |uid| {
        let collector = Arc::clone(&collector);
        async move { collector.look_at(&uid).await }
    });
}

impl Collector {
    pub(super) fn observe(&self, object: Object) {
        let look_at = self.graph().observe(object);
        for uid in look_at {
            self.queue.add_after(uid, OWNER_PATIENCE);
        }
    }

    pub(super) fn forget(&self, uid: &str) {
        let look_at = self.graph().forget(uid);
        for uid in look_at {
            self.queue.add(uid);
        }
    }

    pub(super) fn drop_resource(&self, uids: HashSet<String>) {
        self.graph().drop_resource(uids);
    }

    pub(super) fn catalog_changed(&self, catalog: Arc<Catalog>) {
        *self.catalog.lock().unwrap_or_else(PoisonError::into_inner) = catalog;
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_at(&self, uid: &str) -> Result<Next, ControllerError> {
        let mut confirmed = HashSet::new();
        loop {
            let (object, verdict) = {
                let graph = self.graph();
                let Some(object) = graph.get(uid) else {
                    return Ok(Next::Wait);
                };
                (object.clone(), judge(&graph, object, &confirmed))
            };
            match verdict {
                Verdict::AskFor(owners) => {
                    for owner in owners {
                        match self.ask_for(&object, &owner).await? {
                            Some(true) => drop(confirmed.insert(owner.uid)),
                            Some(false) => self.graph().mark_gone(&owner.uid),
                            None => return Ok(Next::After(KIND_PATIENCE)),
                        }
                    }
                }
                other => return self.carry_out(&object, other).await,
            }
        }
    }

    /// Whether an owner exists; `None` when its kind is not served.
    async fn ask_for(
        &self,
        object: &Object,
        owner: &OwnerReference,
    ) -> Result<Option<bool>, ControllerError> {
        let catalog = Arc::clone(&self.catalog.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(resource) = catalog.of_kind(&owner.api_version, &owner.kind) else {
            return Ok(None);
        };
        if resource.is_namespaced && !object.resource.is_namespaced {
            let message = format!(
                "ownerRef {} does not exist in namespace \"\"",
                describe(owner)
            );
            self.warn_of_namespace(object, message);
            return Ok(Some(true));
        }
        let namespace = if resource.is_namespaced {
            object.namespace.as_str()
        } else {
            ""
        };
        match get::<Meta>(
            self.cluster.client(),
            &resource.path(namespace, &owner.name),
        )
        .await
        {
            Ok(found) => Ok(Some(found.metadata.uid.as_deref() == Some(&owner.uid))),
            Err(error) if error.is_not_found() => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }

    fn warn_of_namespace(&self, object: &Object, message: String) {
        let reference = ObjectReference {
            api_version: Some(object.resource.api.api_version.clone()),
            kind: Some(object.resource.api.kind.clone()),
            namespace: (!object.namespace.is_empty()).then(|| object.namespace.clone()),
            name: Some(object.name.clone()),
            uid: Some(object.uid.clone()),
            ..ObjectReference::default()
        };
        self.cluster.recorder().record(
            COMPONENT,
            reference,
            true,
            "OwnerRefInvalidNamespace",
            message,
        );
    }

    async fn carry_out(&self, object: &Object, verdict: Verdict) -> Result<Next, ControllerError> {
        let result = match verdict {
            Verdict::Leave | Verdict::AskFor(_) => Ok(()),
            Verdict::LookAt(uids) => {
                for uid in uids {
                    self.queue.add(uid);
                }
                Ok(())
            }
            Verdict::Delete(policy) => self.delete(object, policy).await,
            Verdict::DropOwners(uids) => self.drop_owners(object, &uids).await,
            Verdict::Release => self.drop_finalizer(object, FOREGROUND).await,
            Verdict::LetGo(dependents) => self.let_go(object, &dependents).await,
        };
        match result {
            Err(error) if error.is_not_found() => Ok(Next::Wait),
            Err(error) if error.code() == Some(409) => {
                self.refresh(object).await?;
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(Next::Wait),
        }
    }

    /// Deletes the object as it was judged: a newer version is judged anew.
    async fn delete(&self, object: &Object, policy: &str) -> Result<(), ControllerError> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": policy,
            "preconditions": {"uid": object.uid, "resourceVersion": object.version},
        });
        delete(self.cluster.client(), &object.path(), &options).await
    }

    /// Takes over the object's newest state.
    async fn refresh(&self, object: &Object) -> Result<(), ControllerError> {
        match self.read(object).await? {
            Some(meta) => {
                if let Some(fresh) = Object::read(&object.resource, &meta) {
                    self.observe(fresh);
                }
            }
            None => self.forget(&object.uid),
        }
        Ok(())
    }

    /// The object's metadata; `None` when it is gone or another has its name.
    async fn read(&self, object: &Object) -> Result<Option<ObjectMeta>, ControllerError> {
        match get::<Meta>(self.cluster.client(), &object.path()).await {
            Ok(found) if found.metadata.uid.as_deref() == Some(&object.uid) => {
                Ok(Some(found.metadata))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn drop_owners(&self, object: &Object, uids: &[String]) -> Result<(), ControllerError> {
        let Some(meta) = self.read(object).await? else {
            return Ok(());
        };
        let mut owners = meta.owner_references.unwrap_or_default();
        let before = owners.len();
        owners.retain(|owner| !uids.contains(&owner.uid));
        if owners.len() == before {
            return Ok(());
        }
        let owners = (!owners.is_empty()).then_some(owners);
        let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "ownerReferences": owners}});
        merge_blind(self.cluster.client(), &object.path(), &patch).await
    }

    async fn drop_finalizer(
        &self,
        object: &Object,
        finalizer: &str,
    ) -> Result<(), ControllerError> {
        let Some(meta) = self.read(object).await? else {
            return Ok(());
        };
        let mut finalizers = meta.finalizers.unwrap_or_default();
        let before = finalizers.len();
        finalizers.retain(|known| known != finalizer);
        if finalizers.len() == before {
            return Ok(());
        }
        let finalizers = (!finalizers.is_empty()).then_some(finalizers);
        let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": finalizers}});
        merge_blind(self.cluster.client(), &object.path(), &patch).await
    }

    async fn let_go(&self, object: &Object, dependents: &[String]) -> Result<(), ControllerError> {
        for uid in dependents {
            let Some(dependent) = self.graph().get(uid).cloned() else {
                continue;
            };
            match self
                .drop_owners(&dependent, std::slice::from_ref(&object.uid))
                .await
            {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        self.drop_finalizer(object, ORPHAN).await
    }
}

fn describe(owner: &OwnerReference) -> String {
    format!(
        "[{}/{}, namespace: , name: {}, uid: {}]",
        owner.api_version, owner.kind, owner.name, owner.uid
    )
}
