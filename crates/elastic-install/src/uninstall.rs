//! Removes the add-on: drains first, and leaves nothing behind that nobody named.
//!
//! The order is the point. Routing ends, nodes are closed, pods go while the controller still looks after them; then the
//! controller ends, what is left in the cloud is deleted and its absence verified there; objects and nodes go last. Every
//! step can be repeated, so a removal that was interrupted is simply started again.

use std::time::Duration;

use cloud_api::model::describe::{DescribeContainerGroupsRequest, Tag};
use cloud_api::model::manage::DeleteContainerGroupRequest;
use cloud_api::{EciClient, EciError};
use elastic_core::definitions::{definitions, is_ours};
use elastic_core::names::tags;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::apply::{self, ApplyError, Outcome};
use crate::manifests::{Options, objects};
use crate::names::{
    CONTROLLER, METRICS, METRICS_API_SERVICES, NAMESPACE, NODE_LEASES, UNINSTALLING, WEBHOOK_SECRET,
};
use crate::operator::election::holder;
use crate::status;

const POLL: Duration = Duration::from_millis(300);
/// Names in one message.
const NAMES_SHOWN: usize = 10;

/// What may stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abandon {
    /// Container groups in the cloud; they go on being billed.
    pub groups: bool,
    /// ElasticWorkloads and the other objects of our own kinds, and with them all definitions.
    pub elastic_workloads: bool,
}

/// How to remove.
#[derive(Clone, Debug)]
pub struct UninstallOptions {
    /// The cluster's id in the cloud.
    pub cluster_id: String,
    /// What may stay.
    pub abandon: Abandon,
    /// Longest wait for each step: pods, the controller, groups.
    pub patience: Duration,
}

/// Why the removal stopped. What was done stays done; starting again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// Objects of users would go with their definition.
    #[error(
        "these objects would be deleted with their definitions: {0}; delete them, or keep them with `--abandon elastic-workloads`"
    )]
    Objects(String),
    /// Without the cloud nothing can be verified.
    #[error(
        "the cloud cannot be asked for this cluster's container groups; give its credentials, or leave groups behind (and billed) with `--abandon groups`"
    )]
    NoCloud,
    /// Somebody still works.
    #[error(
        "replica {0} still leads after {1:?}; stop it (it should have ended by itself) and start again"
    )]
    StillLeading(String, Duration),
    /// The cloud still has groups.
    #[error(
        "{count} container groups are still in the cloud after {patience:?}: {names}; start again, or leave them behind (and billed) with `--abandon groups`"
    )]
    GroupsLeft {
        /// How many.
        count: usize,
        /// Some of them.
        names: String,
        /// How long was waited.
        patience: Duration,
    },
    /// The controller's pods do not end.
    #[error("{count} pods of the controller are still there after {patience:?}; start again")]
    ControllerLeft {
        /// How many.
        count: usize,
        /// How long was waited.
        patience: Duration,
    },
    /// The cloud refused.
    #[error("{attempted} in the cloud")]
    Cloud {
        /// What.
        attempted: String,
        /// Why.
        #[source]
        source: Box<EciError>,
    },
    /// The API refused.
    #[error("{attempted}")]
    Api {
        /// What.
        attempted: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object refused.
    #[error(transparent)]
    Object(#[from] ApplyError),
}

fn api(attempted: impl Into<String>) -> impl FnOnce(kube::Error) -> UninstallError {
    let attempted = attempted.into();
    move |error| UninstallError::Api {
        attempted,
        source: Box::new(error),
    }
}

fn cloud(attempted: impl Into<String>) -> impl FnOnce(EciError) -> UninstallError {
    let attempted = attempted.into();
    move |error| UninstallError::Cloud {
        attempted,
        source: Box::new(error),
    }
}

/// Removes everything; `tell` gets a sentence a step.
pub async fn uninstall(
    client: &Client,
    eci: Option<&EciClient>,
    options: &UninstallOptions,
    tell: &mut (dyn FnMut(String) + Send),
) -> Result<(), UninstallError> {
    let eci = match (eci, options.abandon.groups) {
        (_, true) => None,
        (Some(eci), false) => Some(eci),
        (None, false) => return Err(UninstallError::NoCloud),
    };
    let keep_definitions = check_objects(client, options.abandon).await?;
    let removal = Removal {
        client,
        options,
        all: objects(&Options::default()),
        keep_definitions,
    };
    removal.return_replicas(tell).await?;
    removal.close(tell).await?;
    if eci.is_some() {
        // A pod that ends takes its group with it, so pods whose groups may stay only go with their nodes.
        removal.drain(tell).await?;
    }
    removal.end_controller(tell).await?;
    match eci {
        Some(eci) => removal.delete_groups(eci, tell).await?,
        None => tell("container groups in the cloud are left behind, as asked".to_owned()),
    }
    removal.remove_pods_and_nodes(tell).await?;
    removal.remove_objects(tell).await
}

/// Whether the definitions stay, because objects of theirs do.
async fn check_objects(client: &Client, abandon: Abandon) -> Result<bool, UninstallError> {
    let mut found = Vec::new();
    let installed: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in definitions() {
        let name = definition.name_any();
        let there = installed.get_opt(&name).await;
        let there = there.map_err(api(format!("read definition {name}")))?;
        // A kind that another product brought stays, and its objects with it.
        if there.as_ref().is_some_and(is_ours) {
            found.extend(objects_of(client, &definition).await?);
        }
    }
    if found.is_empty() || abandon.elastic_workloads {
        return Ok(!found.is_empty());
    }
    Err(UninstallError::Objects(some(found.into_iter())))
}

/// Kind, namespace and name of every object of the definition.
async fn objects_of(
    client: &Client,
    definition: &CustomResourceDefinition,
) -> Result<Vec<String>, UninstallError> {
    let spec = &definition.spec;
    let Some(version) = spec.versions.iter().find(|version| version.storage) else {
        return Ok(Vec::new());
    };
    let kind = GroupVersionKind::gvk(&spec.group, &version.name, &spec.names.kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, &spec.names.plural);
    let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match objects.list_metadata(&ListParams::default()).await {
        Ok(found) => Ok(found
            .items
            .iter()
            .map(|object| {
                let namespace = object.namespace().unwrap_or_default();
                format!("{} {namespace}/{}", spec.names.kind, object.name_any())
            })
            .collect()),
        // No definition, no objects.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(api("list objects of a definition")(error)),
    }
}

fn some(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let mut shown: Vec<String> = names.take(NAMES_SHOWN).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

/// Who leads and lives. A leader that died does not renew, so its Lease counts as free one duration after its last change
/// was seen.
#[derive(Default)]
struct Sighting {
    last: Option<(Option<String>, Instant)>,
}

impl Sighting {
    fn leader(&mut self, lease: Option<Lease>) -> Option<String> {
        let lease = lease?;
        let leader = holder(&lease)?.to_owned();
        let version = lease.resource_version();
        let seconds = lease.spec.and_then(|spec| spec.lease_duration_seconds);
        let lasts = Duration::from_secs(u64::try_from(seconds?).ok()?);
        let now = Instant::now();
        match &self.last {
            Some((known, since)) if *known == version => {
                (now.duration_since(*since) <= lasts).then_some(leader)
            }
            _ => {
                self.last = Some((version, now));
                Some(leader)
            }
        }
    }
}

struct Removal<'a> {
    client: &'a Client,
    options: &'a UninstallOptions,
    all: Vec<Value>,
    keep_definitions: bool,
}

type Tell<'a> = &'a mut (dyn FnMut(String) + Send);

impl Removal<'_> {
    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.all.iter().filter(move |object| object["kind"] == kind)
    }

    /// Sources whose ElasticWorkload was deleted a moment ago get their replicas back although the controller ends.
    async fn return_replicas(&self, tell: Tell<'_>) -> Result<(), UninstallError> {
        let returned = elastic_controllers::return_replicas(self.client).await;
        let returned = returned.map_err(api("give sources their replicas back"))?;
        if returned > 0 {
            tell(format!("{returned} sources got their replicas back"));
        }
        Ok(())
    }

    /// No new pods come: no routing, closed nodes.
    async fn close(&self, tell: Tell<'_>) -> Result<(), UninstallError> {
        for webhook in self.of_kind("MutatingWebhookConfiguration") {
            if let Some(outcome) = apply::delete(self.client, webhook).await? {
                tell(format!("{} {outcome}", apply::title(webhook)));
            }
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        for node in self.nodes().await? {
            let name = node.name_any();
            let patch = Patch::Merge(json!({"spec": {"unschedulable": true}}));
            match nodes.patch(&name, &PatchParams::default(), &patch).await {
                Ok(_) => tell(format!("node/{name} cordoned")),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(api(format!("cordon node {name}"))(error)),
            }
        }
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<Node>, UninstallError> {
        let found = status::nodes(self.client).await;
        found.map_err(api("list virtual nodes"))
    }

    async fn pods(&self) -> Result<Vec<Pod>, UninstallError> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let mut all = Vec::new();
        for node in self.nodes().await? {
            let there = ListParams::default().fields(&format!("spec.nodeName={}", node.name_any()));
            let found = pods.list(&there).await;
            all.extend(found.map_err(api("list pods of virtual nodes"))?.items);
        }
        Ok(all)
    }

    async fn delete_pod(&self, pod: &Pod, how: DeleteParams) -> Result<(), UninstallError> {
        let namespace = pod.namespace().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        match pods.delete(&pod.name_any(), &how).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => {
                let what = format!("delete pod {namespace}/{}", pod.name_any());
                Err(api(what)(error))
            }
        }
    }

    /// Pods end as pods do, as long as somebody looks after them.
    async fn drain(&self, tell: Tell<'_>) -> Result<(), UninstallError> {
        let pods = self.pods().await?;
        for pod in &pods {
            self.delete_pod(pod, DeleteParams::default()).await?;
        }
        if pods.is_empty() {
            return Ok(());
        }
        tell(format!("{} pods of virtual nodes are ending", pods.len()));
        let until = Instant::now() + self.options.patience;
        let mut sighting = Sighting::default();
        while sighting.leader(self.lease().await?).is_some() && Instant::now() < until {
            if self.pods().await?.is_empty() {
                tell("all pods of virtual nodes have ended".to_owned());
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        tell("some pods did not end by themselves; they go with their nodes".to_owned());
        Ok(())
    }

    async fn lease(&self) -> Result<Option<Lease>, UninstallError> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let found = leases.get_opt(CONTROLLER).await;
        found.map_err(api("read the controller's Lease"))
    }

    /// Replicas outside the cluster end too: the Lease tells them.
    async fn end_controller(&self, tell: Tell<'_>) -> Result<(), UninstallError> {
        for kind in ["PodDisruptionBudget", "Deployment"] {
            for object in self.of_kind(kind) {
                if let Some(outcome) = apply::delete(self.client, object).await? {
                    tell(format!("{} {outcome}", apply::title(object)));
                }
            }
        }
        if self.lease().await?.is_some() {
            let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
            let mark = Patch::Merge(json!({"metadata": {"annotations": {UNINSTALLING: "true"}}}));
            let marked = leases
                .patch(CONTROLLER, &PatchParams::default(), &mark)
                .await;
            marked.map_err(api("mark the controller's Lease"))?;
        }
        self.wait_for_pods_of_controller().await?;
        self.wait_for_leader().await?;
        tell("no replica of the controller works any more".to_owned());
        Ok(())
    }

    async fn wait_for_pods_of_controller(&self) -> Result<(), UninstallError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let ours = ListParams::default().labels(&format!("app={CONTROLLER}"));
        let until = Instant::now() + self.options.patience;
        loop {
            let found = pods.list(&ours).await;
            let count = found
                .map_err(api("list the controller's pods"))?
                .items
                .len();
            if count == 0 {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(UninstallError::ControllerLeft {
                    count,
                    patience: self.options.patience,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn wait_for_leader(&self) -> Result<(), UninstallError> {
        let until = Instant::now() + self.options.patience;
        let mut sighting = Sighting::default();
        while let Some(leader) = sighting.leader(self.lease().await?) {
            if Instant::now() >= until {
                return Err(UninstallError::StillLeading(leader, self.options.patience));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn groups(&self, eci: &EciClient) -> Result<Vec<String>, UninstallError> {
        let question = DescribeContainerGroupsRequest {
            tag: vec![Tag {
                key: tags::CLUSTER.to_owned(),
                value: self.options.cluster_id.clone(),
            }],
            ..DescribeContainerGroupsRequest::default()
        };
        let found = eci.all_container_groups(question).await;
        let found = found.map_err(cloud("list this cluster's container groups"))?;
        Ok(found
            .into_iter()
            .map(|group| group.container_group_id)
            .collect())
    }

    /// Until the cloud's own list is empty.
    async fn delete_groups(&self, eci: &EciClient, tell: Tell<'_>) -> Result<(), UninstallError> {
        let until = Instant::now() + self.options.patience;
        let mut asked: Vec<String> = Vec::new();
        loop {
            let left = self.groups(eci).await?;
            if left.is_empty() {
                tell(format!(
                    "the cloud has no container group of cluster {} any more",
                    self.options.cluster_id
                ));
                return Ok(());
            }
            for id in &left {
                if asked.contains(id) {
                    continue;
                }
                let request = DeleteContainerGroupRequest {
                    container_group_id: id.clone(),
                    ..DeleteContainerGroupRequest::default()
                };
                match eci.call(&request).await {
                    Ok(_) => tell(format!("container group {id} is being deleted")),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => {
                        return Err(cloud(format!("delete container group {id}"))(error));
                    }
                }
                asked.push(id.clone());
            }
            if Instant::now() >= until {
                return Err(UninstallError::GroupsLeft {
                    count: left.len(),
                    names: some(left.into_iter()),
                    patience: self.options.patience,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn remove_pods_and_nodes(&self, tell: Tell<'_>) -> Result<(), UninstallError> {
        for pod in self.pods().await? {
            let at_once = DeleteParams::default().grace_period(0);
            self.delete_pod(&pod, at_once).await?;
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NODE_LEASES);
        for node in self.nodes().await? {
            let name = node.name_any();
            match nodes.delete(&name, &DeleteParams::default()).await {
                Ok(_) => tell(format!("node/{name} {}", Outcome::Deleted)),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(api(format!("delete node {name}"))(error)),
            }
            match leases.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(api(format!("delete the lease of node {name}"))(error)),
            }
        }
        Ok(())
    }

    /// Those that lead to the add-on; another server may have taken them since.
    async fn remove_api_services(&self, tell: Tell<'_>) -> Result<(), UninstallError> {
        let services: Api<APIService> = Api::all(self.client.clone());
        for name in METRICS_API_SERVICES {
            let found = services.get_opt(name).await;
            let found = found.map_err(api(format!("read apiservice {name}")))?;
            let service = found.and_then(|found| found.spec?.service);
            let ours = service.is_some_and(|service| {
                service.name.as_deref() == Some(METRICS)
                    && service.namespace.as_deref() == Some(NAMESPACE)
            });
            if !ours {
                continue;
            }
            match services.delete(name, &DeleteParams::default()).await {
                Ok(_) => tell(format!("apiservice/{name} deleted")),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(api(format!("delete apiservice {name}"))(error)),
            }
        }
        Ok(())
    }

    async fn remove_objects(&self, tell: Tell<'_>) -> Result<(), UninstallError> {
        self.remove_api_services(tell).await?;
        let own = |api_version: &str, kind: &str, name: &str| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}});
        let made_later = [
            own("v1", "Secret", WEBHOOK_SECRET),
            own("coordination.k8s.io/v1", "Lease", CONTROLLER),
        ];
        for object in made_later.iter().chain(self.all.iter().rev()) {
            if self.keep_definitions && object["kind"] == "CustomResourceDefinition" {
                tell(format!("{} stays, as asked", apply::title(object)));
                continue;
            }
            if let Some(outcome) = apply::delete(self.client, object).await? {
                tell(format!("{} {outcome}", apply::title(object)));
            }
        }
        Ok(())
    }
}
