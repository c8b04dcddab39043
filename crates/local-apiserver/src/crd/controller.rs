//! What upstream's apiextensions controllers do: names, Established, and the end of a definition with its objects.

use super::build;
use crate::auth::User;
use crate::core::Core;
use crate::http::body;
use crate::http::dispatch;
use crate::registry::context::time_text;
use crate::registry::metadata;
use crate::registry::resource::Resource;
use crate::store::Store;
use http::{Method, Request, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Where definitions are stored.
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// While objects are held by their finalizers.
const RETRY: Duration = Duration::from_millis(100);

/// Runs until cancelled.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut changes = core.store.changes(DEFINITIONS);
    loop {
        changes.mark_unchanged();
        let busy = reconcile(&core).await;
        let wait = async {
            if busy {
                tokio::time::sleep(RETRY).await;
            } else {
                let _ = changes.changed().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = wait => {}
        }
    }
}

/// The resources that the stored definitions make.
pub fn resources(store: &Store) -> Vec<Arc<Resource>> {
    let definitions = store.list(DEFINITIONS, "").objects;
    definitions
        .iter()
        .filter_map(|(_, definition)| build::resource(&definition.tree).map(Arc::new))
        .collect()
}

/// True when something has to be looked at again soon.
async fn reconcile(core: &Arc<Core>) -> bool {
    let definitions = core.store.list(DEFINITIONS, "").objects;
    let mut busy = false;
    for (name, definition) in &definitions {
        if metadata::is_deleting(&definition.tree) {
            busy |= finish(core, name, &definition.tree).await;
            continue;
        }
        let taken: Vec<&Value> = definitions
            .iter()
            .filter(|(other, _)| other != name)
            .map(|(_, other)| &*other.tree)
            .collect();
        if let Some(status) = wanted_status(&definition.tree, &taken) {
            busy |= !patch(core, name, "/status", &json!({"status": status})).await;
        }
    }
    busy
}

/// The status after looking at names, when it differs from the stored one.
fn wanted_status(definition: &Value, others: &[&Value]) -> Option<Value> {
    let names = &definition["spec"]["names"];
    let group = &definition["spec"]["group"];
    let mut accepted = definition["status"]["acceptedNames"].clone();
    let mut refused = None;
    for (field, label) in [
        ("plural", "plural"),
        ("singular", "singular"),
        ("kind", "kind"),
        ("listKind", "listKind"),
    ] {
        match conflict(names, field, group, others) {
            None => accepted[field] = names[field].clone(),
            Some(()) if refused.is_none() => {
                let title = if field == "listKind" {
                    "ListKindConflict".to_string()
                } else {
                    format!("{}Conflict", capital(label))
                };
                refused = Some((title, format!("{} is already in use", names[field])));
            }
            Some(()) => {}
        }
    }
    for field in ["shortNames", "categories"] {
        let list = names[field].as_array().filter(|list| !list.is_empty());
        match list {
            Some(list) => accepted[field] = Value::Array(list.clone()),
            None => {
                if let Some(map) = accepted.as_object_mut() {
                    map.remove(field);
                }
            }
        }
    }
    let was_established = build::is_true(definition, "Established");
    let mut wanted = vec![match &refused {
        None => (
            "NamesAccepted",
            "True",
            "NoConflicts".to_string(),
            "no conflicts found".to_string(),
        ),
        Some((reason, message)) => ("NamesAccepted", "False", reason.clone(), message.clone()),
    }];
    wanted.push(match &refused {
        None => (
            "Established",
            "True",
            "InitialNamesAccepted".to_string(),
            "the initial names have been accepted".to_string(),
        ),
        Some(_) if was_established => return None,
        Some(_) => (
            "Established",
            "False",
            "NotAccepted".to_string(),
            "not all names are accepted".to_string(),
        ),
    });
    let conditions = conditions(definition, &wanted);
    let same = definition["status"]["acceptedNames"] == accepted
        && definition["status"]["conditions"] == conditions;
    (!same).then(|| json!({"acceptedNames": accepted, "conditions": conditions}))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + letters.as_str()
    })
}

/// Whether another definition of the group holds the name.
fn conflict(names: &Value, field: &str, group: &Value, others: &[&Value]) -> Option<()> {
    let wanted = names[field].as_str().unwrap_or_default();
    let kinds = matches!(field, "kind" | "listKind");
    others
        .iter()
        .filter(|other| other["spec"]["group"] == *group)
        .any(|other| {
            let held = &other["status"]["acceptedNames"];
            let fields: &[&str] = if kinds {
                &["kind", "listKind"]
            } else {
                &["plural", "singular"]
            };
            fields
                .iter()
                .any(|field| held[*field] == wanted && !wanted.is_empty())
        })
        .then_some(())
}

/// Merges wanted conditions into the stored ones; times stay where the status stays.
fn conditions(definition: &Value, wanted: &[(&str, &str, String, String)]) -> Value {
    let mut list = definition["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for (kind, status, reason, message) in wanted {
        let found = list.iter_mut().find(|one| one["type"] == *kind);
        let since = match &found {
            Some(one) if one["status"] == *status => one["lastTransitionTime"].clone(),
            _ => time_text(Timestamp::now()).into(),
        };
        let condition = json!({"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message});
        match found {
            Some(one) => *one = condition,
            None => list.push(condition),
        }
    }
    list.into()
}

/// Deletes the objects of a deleted definition and lets it go when they are gone.
async fn finish(core: &Arc<Core>, name: &str, definition: &Value) -> bool {
    if !metadata::finalizers(definition).contains(&CLEANUP) {
        return false;
    }
    let left = core.store.list(name, "").objects;
    let Some(resource) = build::resource(definition) else {
        return release(core, name, definition).await;
    };
    if left.is_empty() {
        return release(core, name, definition).await;
    }
    let Some(version) = resource.versions.iter().find(|one| one.served) else {
        return release(core, name, definition).await;
    };
    for (key, object) in left
        .iter()
        .filter(|(_, object)| !metadata::is_deleting(&object.tree))
    {
        let namespace = metadata::text(&object.tree, "namespace");
        let place = if resource.namespaced {
            format!("/namespaces/{namespace}")
        } else {
            String::new()
        };
        let own = key.rsplit('/').next().unwrap_or(key);
        let path = format!(
            "/apis/{}{place}/{}/{own}",
            version.api_version, resource.plural
        );
        request(core, Method::DELETE, &path, "", String::new()).await;
    }
    true
}

async fn release(core: &Arc<Core>, name: &str, definition: &Value) -> bool {
    let kept: Vec<&str> = metadata::finalizers(definition)
        .into_iter()
        .filter(|one| *one != CLEANUP)
        .collect();
    !patch(core, name, "", &json!({"metadata": {"finalizers": kept}})).await
}

async fn patch(core: &Arc<Core>, name: &str, subresource: &str, document: &Value) -> bool {
    let path =
        format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}{subresource}");
    let status = request(
        core,
        Method::PATCH,
        &path,
        "application/merge-patch+json",
        document.to_string(),
    )
    .await;
    status.is_success() || status == StatusCode::NOT_FOUND
}

async fn request(
    core: &Arc<Core>,
    method: Method,
    path: &str,
    content_type: &str,
    text: String,
) -> StatusCode {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::USER_AGENT, "kube-apiserver/v1.34")
        .body(body::full(text));
    let Ok(request) = request else {
        return StatusCode::BAD_REQUEST;
    };
    let user = User::new("system:apiserver", &[crate::auth::MASTERS]);
    let status = dispatch::handle(core.clone(), user, request).await.status();
    if !status.is_success() {
        tracing::debug!(path, %status, "a request of the definitions' controller was refused");
    }
    status
}
