//! What the API server serves, kept up to date: asked again whenever a CRD or an aggregated API changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Several changes in a row lead to one question.
const SETTLE: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(2);

/// A resource that can be listed, watched and deleted.
#[derive(Clone, Debug)]
pub struct ServedResource {
    /// How the client library names it.
    pub api: ApiResource,
    /// Whether its objects live in namespaces.
    pub is_namespaced: bool,
}

impl ServedResource {
    /// The path of one object or, with an empty name, of the collection.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let root = if self.api.group.is_empty() {
            "api"
        } else {
            "apis"
        };
        let mut path = format!("/{root}/{}", self.api.api_version);
        if self.is_namespaced && !namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.api.plural);
        if !name.is_empty() {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// `plural.group`, as messages name it.
    pub fn name(&self) -> String {
        if self.api.group.is_empty() {
            return self.api.plural.clone();
        }
        format!("{}.{}", self.api.plural, self.api.group)
    }
}

/// The resources at one time.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Each resource once, in its best version.
    pub deletable: Vec<Arc<ServedResource>>,
    kinds: HashMap<(String, String), Arc<ServedResource>>,
}

impl Catalog {
    /// The resource of a kind in any served version.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<ServedResource>> {
        self.kinds.get(&(api_version.to_owned(), kind.to_owned()))
    }

    fn read(discovery: &Discovery) -> Self {
        let mut catalog = Catalog::default();
        for group in discovery.groups() {
            for version in group.versions() {
                for (api, capabilities) in group.versioned_resources(version) {
                    let key = (api.api_version.clone(), api.kind.clone());
                    catalog
                        .kinds
                        .insert(key, Arc::new(served(api, &capabilities)));
                }
            }
            for (api, capabilities) in group.resources_by_stability() {
                let has_all = [verbs::DELETE, verbs::LIST, verbs::WATCH]
                    .iter()
                    .all(|verb| capabilities.supports_operation(verb));
                if has_all && api.plural != "events" {
                    catalog.deletable.push(Arc::new(served(api, &capabilities)));
                }
            }
        }
        catalog
    }
}

fn served(api: ApiResource, capabilities: &ApiCapabilities) -> ServedResource {
    ServedResource {
        api,
        is_namespaced: capabilities.scope == Scope::Namespaced,
    }
}

/// Asks once.
///
/// # Errors
/// When the API server does not answer.
pub async fn ask(client: &Client) -> Result<Catalog, kube::Error> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) => discovery,
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    Ok(Catalog::read(&discovery))
}

/// Keeps the catalog up to date until the shutdown.
pub async fn follow(
    client: Client,
    catalog: watch::Sender<Arc<Catalog>>,
    shutdown: CancellationToken,
) {
    let definitions = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client.clone());
    let definitions = watcher(definitions, watcher::Config::default())
        .default_backoff()
        .map(|_| ());
    let services = Api::<PartialObjectMeta<APIService>>::all(client.clone());
    let services = watcher(services, watcher::Config::default())
        .default_backoff()
        .map(|_| ());
    let mut changes = std::pin::pin!(futures::stream::select(definitions, services));
    let mut is_known = false;
    loop {
        match ask(&client).await {
            Ok(found) => {
                catalog.send_replace(Arc::new(found));
                is_known = true;
            }
            Err(error) => tracing::debug!(%error, "discovery failed"),
        }
        let wait = async {
            if is_known {
                changes.next().await;
                tokio::time::sleep(SETTLE).await;
            } else {
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = wait => {}
        }
    }
}
