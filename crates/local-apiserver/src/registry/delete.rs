//! delete and deletecollection.

use super::context::{Call, Payload, Reply, time_text};
use super::decode::{self, Expected};
use super::options::{DeleteOptions, FieldValidation, ListOptions};
use super::selection::Selection;
use super::{metadata, read};
use crate::admission::{self, Attributes, Operation};
use crate::crd::controller::{CLEANUP, DEFINITIONS};
use crate::status::{ApiError, ApiResult};
use crate::store::{Change, Prepared, StoredObject, Write, WriteError};
use serde_json::{Value, json};
use std::sync::Arc;

const TRIES: usize = 10;
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Kinds whose DELETE answers with the object instead of a `Status`, as upstream's registry has them.
const ANSWER_WITH_OBJECT: &[&str] = &[
    "pods",
    "podtemplates",
    "services",
    "serviceaccounts",
    "resourcequotas",
    "persistentvolumes",
    "persistentvolumeclaims",
    "csinodes.storage.k8s.io",
    "storageclasses.storage.k8s.io",
    "volumeattachments.storage.k8s.io",
    "deviceclasses.resource.k8s.io",
    "resourceclaims.resource.k8s.io",
];

/// DELETE on an object.
pub async fn delete(call: &Call) -> ApiResult<Reply> {
    let options = options(call)?;
    for _ in 0..TRIES {
        let old = call.existing()?;
        if let Some(reply) = delete_once(call, &options, &old).await? {
            return Ok(reply);
        }
    }
    let served = &call.served;
    Err(ApiError::modified(
        &served.storage_group,
        &served.plural,
        &call.name,
    ))
}

fn options(call: &Call) -> ApiResult<DeleteOptions> {
    if call.body.is_empty() {
        return DeleteOptions::parse(&call.query, None);
    }
    let body = match call.content_type.as_str() {
        "application/vnd.kubernetes.protobuf" | "application/yaml" => {
            let expected = Expected {
                api_version: "v1",
                kind: "DeleteOptions",
                custom: false,
            };
            decode::decode(call, &expected, FieldValidation::Ignore)?
        }
        _ => {
            let (body, _) = crate::schema::parse_json(&call.body).map_err(|error| {
                ApiError::plain(format!(
                    "couldn't get version/kind; json parse error: {error}"
                ))
            })?;
            body
        }
    };
    let kind = body["kind"].as_str().unwrap_or("DeleteOptions");
    if kind != "DeleteOptions" {
        let version = body["apiVersion"].as_str().unwrap_or_default();
        return Err(ApiError::plain(format!(
            "no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/runtime/scheme.go:110\""
        )));
    }
    DeleteOptions::parse(&call.query, Some(&body))
}

/// `None` = somebody else wrote meanwhile, try again.
async fn delete_once(
    call: &Call,
    options: &DeleteOptions,
    old: &Arc<StoredObject>,
) -> ApiResult<Option<Reply>> {
    check_preconditions(call, options, old)?;
    let mut attributes = Attributes::new(call, Operation::Delete, &call.name, options.dry_run);
    admission::delete(&mut attributes, &old.tree).await?;
    let plan = plan(call, options, &old.tree);
    let Plan::Change {
        object,
        remove,
        graceful,
    } = plan
    else {
        return Ok(Some(answer(call, &old.tree, false)));
    };
    if options.dry_run {
        return Ok(Some(answer(call, &object, remove && !graceful)));
    }
    let change = if remove {
        Change::Delete(Prepared::new(object))
    } else {
        Change::Put(Prepared::new(object))
    };
    let write = Write {
        resource: call.served.storage_id.clone(),
        key: call.key().into(),
        expected: Some(old.revision),
        change,
    };
    match call.core.store.write(write).await {
        Ok(stored) => Ok(Some(answer(call, &stored.tree, remove && !graceful))),
        Err(WriteError::Unavailable(why)) => Err(ApiError::unavailable(why)),
        Err(_) => Ok(None),
    }
}

fn check_preconditions(call: &Call, options: &DeleteOptions, old: &StoredObject) -> ApiResult<()> {
    let refused = |why: String| {
        Err(ApiError::conflict(
            &call.served.storage_group,
            &call.served.kind,
            &call.name,
            &why,
        ))
    };
    let uid = metadata::text(&old.tree, "uid");
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        return refused(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        ));
    }
    let revision = old.revision.to_string();
    if let Some(wanted) = options
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != revision)
    {
        return refused(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
        ));
    }
    Ok(())
}

/// What a delete does to the object.
enum Plan {
    /// It is on its way out already and nothing about that changes.
    Nothing,
    /// Store this state, or remove the object with it as the last one.
    Change {
        object: Value,
        remove: bool,
        /// The kind has grace periods; such a delete answers with the object.
        graceful: bool,
    },
}

fn plan(call: &Call, options: &DeleteOptions, old: &Value) -> Plan {
    let mut object = old.clone();
    let grace = call
        .served
        .rules
        .grace_period_seconds(old, options.grace_period_seconds);
    let graceful = grace.is_some();
    let mut grace = grace.unwrap_or(0);
    let deleting = metadata::is_deleting(old);
    let wanted = finalizers_after(call, options, old);
    let same_finalizers = metadata::finalizers(old).iter().eq(wanted.iter());
    if deleting {
        let left = old["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        if grace >= left && graceful && left > 0 {
            grace = left;
        }
        let shorter = graceful && grace < left;
        let held = !wanted.is_empty() || namespace_held(old);
        if same_finalizers && !shorter && (held || (graceful && left > 0)) {
            return Plan::Nothing;
        }
    }
    let held = !wanted.is_empty() || namespace_held(old);
    set_finalizers(&mut object, wanted);
    if graceful || held || deleting {
        mark(call, &mut object, old, grace, deleting);
    }
    Plan::Change {
        object,
        remove: !held && grace == 0,
        graceful,
    }
}

fn namespace_held(object: &Value) -> bool {
    object["kind"] == "Namespace"
        && object["apiVersion"] == "v1"
        && object["spec"]["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
}

/// Sets the deletion fields; the first time counts as a change of generation.
fn mark(call: &Call, object: &mut Value, old: &Value, grace: i64, deleting: bool) {
    let at = call.now + jiff::SignedDuration::from_secs(grace);
    let metadata = metadata::of(object);
    let shorter = deleting
        && old["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            > grace;
    if !deleting || shorter {
        metadata.insert("deletionTimestamp".into(), time_text(at).into());
        metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    }
    if !deleting
        && let Some(generation) = old["metadata"]["generation"]
            .as_i64()
            .filter(|number| *number > 0)
    {
        metadata.insert("generation".into(), (generation + 1).into());
    }
    if call.served.storage_id.as_ref() == DEFINITIONS && !deleting {
        terminate_definition(object, old, &call.now_text());
    }
    if namespace_held(old) {
        object["status"]["phase"] = "Terminating".into();
        // Upstream's namespace registry sets the time without a grace period.
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("deletionGracePeriodSeconds");
        }
    }
}

/// A definition stays until its objects are gone, and says so.
fn terminate_definition(object: &mut Value, old: &Value, now: &str) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("deletionGracePeriodSeconds");
        if let Some(generation) = old["metadata"].get("generation") {
            metadata.insert("generation".into(), generation.clone());
        }
    }
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = json!([]);
    }
    if let Some(list) = object["status"]["conditions"].as_array_mut() {
        list.push(json!({
            "type": "Terminating", "status": "True", "lastTransitionTime": now, "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        }));
    }
}

/// The propagation policy as finalizers.
fn finalizers_after<'a>(call: &Call, options: &DeleteOptions, old: &'a Value) -> Vec<&'a str> {
    let mut list = metadata::finalizers(old);
    let had = |name: &str| list.contains(&name);
    let policy = match options.propagation.as_str() {
        "" if had(ORPHAN) => "Orphan",
        "" if had(FOREGROUND) => "Foreground",
        "" if matches!(
            call.served.storage_id.as_ref(),
            "jobs.batch" | "replicationcontrollers"
        ) =>
        {
            "Orphan"
        }
        other => other,
    };
    list.retain(|one| *one != ORPHAN && *one != FOREGROUND);
    if call.served.storage_id.as_ref() == DEFINITIONS
        && !metadata::is_deleting(old)
        && !list.contains(&CLEANUP)
    {
        list.push(CLEANUP);
    }
    match policy {
        "Orphan" => list.push(ORPHAN),
        "Foreground" => list.push(FOREGROUND),
        _ => {}
    }
    list
}

fn set_finalizers(object: &mut Value, list: Vec<&str>) {
    let list: Vec<Value> = list.into_iter().map(Value::from).collect();
    let metadata = metadata::of(object);
    if list.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), list.into());
    }
}

/// The object where it stays or the kind wants it shown, otherwise a `Status`.
fn answer(call: &Call, object: &Value, gone: bool) -> Reply {
    let with_object = ANSWER_WITH_OBJECT.contains(&call.served.storage_id.as_ref());
    if !gone || with_object {
        let mut shown = object.clone();
        call.served.to_served(&mut shown);
        return Reply::tree(shown);
    }
    let mut details = serde_json::Map::new();
    details.insert("name".into(), metadata::text(object, "name").into());
    if !call.served.group.is_empty() {
        details.insert("group".into(), call.served.group.as_ref().into());
    }
    details.insert("kind".into(), call.served.plural.as_ref().into());
    details.insert("uid".into(), metadata::text(object, "uid").into());
    Reply {
        status: 200,
        payload: Payload::Plain(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        })),
    }
}

/// DELETE on a collection.
pub async fn delete_collection(call: &Call) -> ApiResult<Reply> {
    let options = options(call)?;
    let list_options = ListOptions::parse(&call.query, false)?;
    let selection = Selection::parse(call)?;
    let page = read::page(call, &list_options, &selection).await?;
    for object in &page.items {
        let one = Call {
            core: call.core.clone(),
            user: call.user.clone(),
            agent: call.agent.clone(),
            served: call.served.clone(),
            namespace: metadata::text(&object.tree, "namespace").to_string(),
            name: metadata::text(&object.tree, "name").to_string(),
            subresource: String::new(),
            query: call.query.clone(),
            content_type: String::new(),
            body: bytes::Bytes::new(),
            now: call.now,
            warnings: Default::default(),
        };
        for _ in 0..TRIES {
            let Some(old) = one.core.store.get(&one.served.storage_id, &one.key()) else {
                break;
            };
            let mut each = options.clone();
            each.uid = None;
            each.resource_version = None;
            if delete_once(&one, &each, &old).await?.is_some() {
                break;
            }
        }
    }
    Ok(Reply {
        status: 200,
        payload: Payload::List(page),
    })
}
