//! What of the add-on is in a cluster, and how it does.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde::Serialize;

use crate::manifests::{Mode, Options, objects};
use crate::names::{CONTROLLER, MODE_ANNOTATION, NAMESPACE, SERVICE_ACCOUNT, VERSION_LABEL};
use crate::operator::election::holder;
use crate::{apply, operator::settings::Texts};

/// The API did not answer.
#[derive(Debug, thiserror::Error)]
#[error("look for {what}")]
pub struct StatusError {
    what: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The add-on as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddonStatus {
    /// The version that installed it; none when it is not installed.
    pub version: Option<String>,
    /// `in-cluster` or `managed`.
    pub mode: Option<String>,
    /// The replica that leads.
    pub leader: Option<String>,
    /// Ready replicas and wanted ones, in the cluster.
    pub replicas: Option<(i32, i32)>,
    /// Virtual nodes with their readiness.
    pub nodes: BTreeMap<String, bool>,
    /// Objects that should be there and are not.
    pub missing: Vec<String>,
}

/// Looks at the cluster.
pub async fn status(client: &Client) -> Result<AddonStatus, StatusError> {
    fn failed<E: std::error::Error + Send + Sync + 'static>(
        what: &'static str,
    ) -> impl FnOnce(E) -> StatusError {
        move |error| StatusError {
            what,
            source: Box::new(error),
        }
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let account = accounts
        .get_opt(SERVICE_ACCOUNT)
        .await
        .map_err(failed("the add-on's account"))?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let lease = leases
        .get_opt(CONTROLLER)
        .await
        .map_err(failed("the lease"))?;
    let mut status = AddonStatus {
        leader: lease.as_ref().and_then(holder).map(str::to_owned),
        nodes: nodes(client)
            .await
            .map_err(failed("virtual nodes"))?
            .iter()
            .map(|node| (node.name_any(), is_ready(node)))
            .collect(),
        ..AddonStatus::default()
    };
    let Some(account) = account else {
        return Ok(status);
    };
    status.version = account.labels().get(VERSION_LABEL).cloned();
    status.mode = account.annotations().get(MODE_ANNOTATION).cloned();
    let options = Options {
        mode: mode(&account),
        ..Options::default()
    };
    for object in objects(&options) {
        let found = apply::find(client, &object).await;
        if found.map_err(failed("an object"))?.is_none() {
            status.missing.push(apply::title(&object));
        }
    }
    let deployment = deployment(client).await.map_err(failed("the Deployment"))?;
    status.replicas = deployment.map(|deployment| {
        let ready = deployment.status.and_then(|status| status.ready_replicas);
        let wanted = deployment.spec.and_then(|spec| spec.replicas);
        (ready.unwrap_or(0), wanted.unwrap_or(1))
    });
    Ok(status)
}

fn mode(account: &ServiceAccount) -> Mode {
    match account.annotations().get(MODE_ANNOTATION) {
        Some(mode) if mode == Mode::Managed.name() => Mode::Managed,
        _ => Mode::InCluster,
    }
}

async fn deployment(client: &Client) -> Result<Option<Deployment>, kube::Error> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    deployments.get_opt(CONTROLLER).await
}

/// What an earlier installation was told, and what people edited since: mode, image, replicas, variables.
pub async fn installed(client: &Client) -> Result<Option<Options>, kube::Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let Some(account) = accounts.get_opt(SERVICE_ACCOUNT).await? else {
        return Ok(None);
    };
    let mut options = Options {
        mode: mode(&account),
        ..Options::default()
    };
    if let Some(deployment) = deployment(client).await? {
        let spec = deployment.spec.unwrap_or_default();
        if let Some(replicas) = spec.replicas {
            options.replicas = replicas.to_string();
        }
        let containers = spec.template.spec.map(|pod| pod.containers);
        let container = containers.unwrap_or_default().into_iter().next();
        if let Some(container) = container {
            options.image = container.image.unwrap_or(options.image);
            options.environment.extend(plain(container.env));
        }
    }
    Ok(Some(options))
}

/// Variables with a text of their own that are not the manifest's.
fn plain(environment: Option<Vec<k8s_openapi::api::core::v1::EnvVar>>) -> Texts {
    let all = environment.unwrap_or_default().into_iter();
    all.filter(|variable| variable.value_from.is_none())
        .map(|variable| (variable.name, variable.value.unwrap_or_default()))
        .collect()
}

/// All virtual nodes.
pub(crate) async fn nodes(client: &Client) -> Result<Vec<Node>, kube::Error> {
    use elastic_core::names::{NODE_TYPE_LABEL, NODE_TYPE_VIRTUAL, VIRTUAL_NODE_PREFIX};
    let nodes: Api<Node> = Api::all(client.clone());
    let only = ListParams::default().labels(&format!("{NODE_TYPE_LABEL}={NODE_TYPE_VIRTUAL}"));
    let mut found = nodes.list(&only).await?.items;
    found.retain(|node| node.name_any().starts_with(VIRTUAL_NODE_PREFIX));
    Ok(found)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
