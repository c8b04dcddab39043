//! Gives a source its replicas back when its ElasticWorkload is gone or has turned to another source.
//!
//! The source carries a mark that says what is due; see `SourceMark` in `elastic-core`. There is no finalizer, so nothing
//! waits for this controller: what happened while it was away is found at its start.

use std::sync::Arc;
use std::time::Duration;

use elastic_core::ElasticWorkload;
use elastic_core::elastic_workload::{SourceKind, SourceMark};
use elastic_core::events::{EventKind, event};
use elastic_core::names::SOURCE_LABEL;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::ReconcileError;
use super::children::{FIELD_MANAGER, delete, units_of};

const COMPONENT: &str = "ElasticWorkload";
/// How often a source is read again that somebody else has just written.
const MOST_TRIES: u32 = 5;

struct Context {
    client: Client,
    kind: SourceKind,
    retry: Duration,
}

/// Watches the marked sources of one kind until `shutdown`.
pub(super) async fn run(
    client: Client,
    kind: SourceKind,
    retry: Duration,
    shutdown: CancellationToken,
) {
    let resource = kind.api_resource();
    let sources: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let workloads: Api<ElasticWorkload> = Api::all(client.clone());
    let marked = watcher::Config::default().labels(SOURCE_LABEL);
    let context = Arc::new(Context {
        client,
        kind,
        retry,
    });
    let of_workload = {
        let resource = resource.clone();
        move |workload: ElasticWorkload| {
            let target = &workload.spec.source_target;
            let namespace = workload.namespace().unwrap_or_default();
            let ours = SourceKind::of(target) == Some(kind);
            ours.then(|| {
                ObjectRef::<DynamicObject>::new_with(&target.name, resource.clone())
                    .within(&namespace)
            })
        }
    };
    Controller::new_with(sources, marked, resource)
        .watches(workloads, watcher::Config::default(), of_workload)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(pass, after_failure, context)
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn pass(source: Arc<DynamicObject>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    give_back(&context.client, context.kind, &source).await?;
    Ok(Action::await_change())
}

fn after_failure(
    source: Arc<DynamicObject>,
    error: &ReconcileError,
    context: Arc<Context>,
) -> Action {
    tracing::warn!(
        namespace = source.namespace(), source = source.name_any(), %error, cause = ?error.cause(),
        "replicas could not be given back, trying again"
    );
    Action::requeue(context.retry)
}

/// Gives back what is due to every source whose ElasticWorkload is gone. Returns how many sources got something; for a
/// removal of this program, which ends the controller that would do it.
pub async fn return_replicas(client: &Client) -> Result<usize, kube::Error> {
    let mut returned = 0;
    for kind in SourceKind::ALL {
        let sources: Api<DynamicObject> = Api::all_with(client.clone(), &kind.api_resource());
        let marked = ListParams::default().labels(SOURCE_LABEL);
        for source in sources.list(&marked).await?.items {
            match return_one(client, kind, source).await {
                Ok(given) => returned += usize::from(given),
                Err(ReconcileError::Api { source, .. }) => return Err(*source),
                // Nothing but the API can fail here.
                Err(error) => tracing::warn!(%error, "replicas could not be given back"),
            }
        }
    }
    Ok(returned)
}

/// Others may write the source at the same time; then it is read again.
async fn return_one(
    client: &Client,
    kind: SourceKind,
    mut source: DynamicObject,
) -> Result<bool, ReconcileError> {
    let (namespace, name) = (source.namespace().unwrap_or_default(), source.name_any());
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &namespace, &kind.api_resource());
    let mut tries = 1;
    loop {
        let outcome = give_back(client, kind, &source).await;
        let conflict = matches!(&outcome, Err(ReconcileError::Api { source, .. })
            if matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409));
        if !conflict || tries == MOST_TRIES {
            return outcome;
        }
        tries += 1;
        let found = api.get_opt(&name).await;
        match found.map_err(ReconcileError::about("read", &name))? {
            Some(found) => source = found,
            None => return Ok(false),
        }
    }
}

/// Whether `source` was due something.
pub(super) async fn give_back(
    client: &Client,
    kind: SourceKind,
    source: &DynamicObject,
) -> Result<bool, ReconcileError> {
    let Some(mark) = SourceMark::of(source) else {
        return Ok(false);
    };
    if is_claimed(client, kind, source, &mark).await? {
        return Ok(false);
    }
    let namespace = source.namespace().unwrap_or_default();
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &namespace, &kind.api_resource());
    let mut orphans = 0;
    let mut owned = Vec::new();
    for unit in units_of(&api, &mark.name).await? {
        let owners = unit.owner_references();
        if owners.iter().any(|owner| owner.uid == mark.uid) {
            owned.push(unit);
        } else if owners.is_empty() {
            orphans += kind.wanted(&unit);
        }
    }
    let replicas = mark.given_back(kind.wanted(source), orphans);
    let mut metadata = SourceMark::nothing();
    metadata["resourceVersion"] = json!(source.resource_version());
    let patch = json!({"metadata": metadata, "spec": {kind.replicas_field(): replicas}});
    let name = source.name_any();
    let how = PatchParams::apply(FIELD_MANAGER);
    match api.patch(&name, &how, &Patch::Merge(patch)).await {
        // The source is gone as well.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        written => drop(written.map_err(ReconcileError::about("give replicas back to", &name))?),
    }
    for unit in &owned {
        delete(&api, unit).await?;
    }
    tell(client, kind, source, &mark, replicas).await;
    Ok(true)
}

/// Whether the ElasticWorkload of the mark lives and still means this source.
pub(super) async fn is_claimed(
    client: &Client,
    kind: SourceKind,
    source: &DynamicObject,
    mark: &SourceMark,
) -> Result<bool, ReconcileError> {
    let namespace = source.namespace().unwrap_or_default();
    let workloads: Api<ElasticWorkload> = Api::namespaced(client.clone(), &namespace);
    let found = workloads.get_opt(&mark.name).await;
    let found = found.map_err(ReconcileError::about("read", &mark.name))?;
    Ok(found.is_some_and(|workload| {
        let target = &workload.spec.source_target;
        workload.uid().as_deref() == Some(&mark.uid)
            && target.name == source.name_any()
            && SourceKind::of(target) == Some(kind)
    }))
}

async fn tell(
    client: &Client,
    kind: SourceKind,
    source: &DynamicObject,
    mark: &SourceMark,
    replicas: u32,
) {
    let (namespace, name) = (source.namespace().unwrap_or_default(), source.name_any());
    let message = format!(
        "ElasticWorkload {} no longer distributes this {}: it has {replicas} replicas again, its units are removed",
        mark.name,
        kind.noun()
    );
    tracing::info!(namespace, source = name, message, "replicas given back");
    let about = source.object_ref(&kind.api_resource());
    let object = event(
        &about,
        COMPONENT,
        EventKind::Normal,
        "ReplicasReturned",
        &message,
        Timestamp::now(),
    );
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    if let Err(error) = events.create(&PostParams::default(), &object).await {
        tracing::warn!(namespace, source = name, %error, "event could not be posted");
    }
}
