//! What every namespace has: the service account `default`, and the certificate authority in `kube-root-ca.crt`.
//! Both come back when they are deleted or edited. Refuses namespaces that are being deleted.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::Api;
use kube::runtime::watcher;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::shared::objects::namespace;
use crate::shared::requests::{create, merge_blind, path_of};
use crate::shared::{Cache, Cluster, ControllerError, Next, ObjectKey, WorkQueue};

const COMPONENT: &str = "serviceaccount-controller";
const WORKERS: usize = 4;
const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
/// The text that upstream's publisher writes; clients compare it.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

struct Controller {
    cluster: Cluster,
    ca_pem: Option<String>,
    namespaces: Arc<Cache<Namespace>>,
    accounts: Arc<Cache<ServiceAccount>>,
    config_maps: Arc<Cache<ConfigMap>>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

/// Starts the controller.
pub fn start(cluster: &Cluster, ca_pem: Option<String>) {
    let only = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let client = cluster.client();
    let controller = Arc::new(Controller {
        cluster: cluster.clone(),
        ca_pem,
        namespaces: cluster.namespaces(),
        accounts: cluster.start_cache(Api::all(client.clone()), only(ACCOUNT)),
        config_maps: cluster.start_cache(Api::all(client.clone()), only(ROOT_CA)),
        queue: Arc::default(),
    });
    let starter = cluster.clone();
    cluster.spawn(async move {
        let synced = async {
            tokio::join!(
                controller.namespaces.wait_synced(),
                controller.accounts.wait_synced(),
                controller.config_maps.wait_synced()
            )
        };
        tokio::select! {
            () = starter.shutdown().cancelled() => return,
            _ = synced => {}
        }
        controller.subscribe();
        let queue = Arc::clone(&controller.queue);
        queue.start_workers(COMPONENT, WORKERS, &starter, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.reconcile(key).await }
        });
    });
}

impl Controller {
    fn subscribe(self: &Arc<Self>) {
        let queue = Arc::clone(&self.queue);
        self.namespaces.subscribe(move |old, new| {
            if let (None, Some(namespace)) = (old, new) {
                queue.add(ObjectKey::of(namespace.as_ref()));
            }
        });
        let queue = Arc::clone(&self.queue);
        self.accounts.subscribe(move |old, new| {
            if let (Some(account), None) = (old, new) {
                queue.add(ObjectKey::new("", namespace(&account.metadata)));
            }
        });
        let queue = Arc::clone(&self.queue);
        self.config_maps.subscribe(move |old, _| {
            if let Some(config_map) = old {
                queue.add(ObjectKey::new("", namespace(&config_map.metadata)));
            }
        });
    }

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ControllerError> {
        let Some(home) = self
            .namespaces
            .get(&key)
            .filter(|home| home.metadata.deletion_timestamp.is_none())
        else {
            return Ok(Next::Wait);
        };
        let home = home.metadata.name.as_deref().unwrap_or_default();
        if self.accounts.named(home, ACCOUNT).is_none() {
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": home}});
            self.make(&path_of::<ServiceAccount>(home, "", ""), &account)
                .await?;
        }
        let Some(ca_pem) = &self.ca_pem else {
            return Ok(Next::Wait);
        };
        match self.config_maps.named(home, ROOT_CA) {
            None => {
                let config_map = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": ROOT_CA, "namespace": home, "annotations": {DESCRIPTION_KEY: DESCRIPTION}},
                    "data": {CA_KEY: ca_pem},
                });
                self.make(&path_of::<ConfigMap>(home, "", ""), &config_map)
                    .await?;
            }
            Some(known) if !is_right(&known, ca_pem) => {
                let patch = json!({"metadata": {"annotations": {DESCRIPTION_KEY: DESCRIPTION}}, "data": {CA_KEY: ca_pem}});
                merge_blind(
                    self.cluster.client(),
                    &path_of::<ConfigMap>(home, ROOT_CA, ""),
                    &patch,
                )
                .await?;
            }
            Some(_) => {}
        }
        Ok(Next::Wait)
    }

    /// Creates an object unless someone else was faster.
    async fn make(&self, path: &str, body: &Value) -> Result<(), ControllerError> {
        match create::<IgnoredAny>(self.cluster.client(), path, body).await {
            Err(error)
                if error.code() == Some(409)
                    || error.is_namespace_going()
                    || error.is_not_found() =>
            {
                Ok(())
            }
            result => result.map(|_| ()),
        }
    }
}

fn is_right(config_map: &ConfigMap, ca_pem: &str) -> bool {
    let text = config_map.data.as_ref().and_then(|data| data.get(CA_KEY));
    text.is_some_and(|text| text == ca_pem)
}
