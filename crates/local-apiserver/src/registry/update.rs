//! update: the read-modify-write that PUT, every kind of patch and the subresources share.

use super::context::{Call, Reply};
use super::options::WriteOptions;
use super::{create, decode, metadata};
use crate::admission::{self, Attributes, Operation};
use crate::schema::{self, Manager};
use crate::status::{ApiError, ApiResult};
use crate::store::{Change, Prepared, StoredObject, Write, WriteError};
use local_schema::FieldError;
use serde_json::Value;
use std::sync::Arc;

/// Tries before a conflict that the client did not ask about is given back.
const TRIES: usize = 10;

/// PUT on an object or on its status.
pub async fn update(call: &Call) -> ApiResult<Reply> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions", false)?;
    let mut body = decode::object(call, options.field_validation)?;
    check_name(call, &body)?;
    metadata::match_namespace(call, &mut body)?;
    schema::default(&call.served, &mut body);
    let manager = Manager::update(call, &options, &call.subresource);
    if call
        .core
        .store
        .get(&call.served.storage_id, &call.key())
        .is_none()
    {
        if call.subresource.is_empty()
            && call.served.rules.allows_create_on_update()
            && !call.served.is_custom()
        {
            return create::create_object(call, &options, body, manager).await;
        }
        return Err(call.not_found());
    }
    let change = |_: &Value| Ok(body.clone());
    read_modify_write(call, &options, &manager, change).await
}

/// The body's name must be the path's.
pub fn check_name(call: &Call, body: &Value) -> ApiResult<()> {
    let name = metadata::text(body, "name");
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.name
        )));
    }
    if name != call.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    Ok(())
}

/// Applies `change` to the stored object (in the served version) until it can be written.
///
/// `change` gets the stored object in the served version and gives the wanted one. A resourceVersion in the wanted
/// object that is not the stored one is a conflict; without one, a concurrent write makes it try again.
pub async fn read_modify_write(
    call: &Call,
    options: &WriteOptions,
    manager: &Manager<'_>,
    mut change: impl FnMut(&Value) -> ApiResult<Value>,
) -> ApiResult<Reply> {
    for _ in 0..TRIES {
        let old = call.existing()?;
        let live = live_view(call, &old);
        let wanted = change(&live)?;
        let pinned = metadata::text(&wanted, "resourceVersion").to_string();
        match attempt(call, options, manager, &old, &live, wanted).await {
            Err(Failure::Raced) if manager.retries() || pinned.is_empty() => continue,
            Err(Failure::Raced) => return Err(modified(call)),
            Err(Failure::Refused(error)) => return Err(error),
            Ok(stored) => return Ok(stored),
        }
    }
    Err(modified(call))
}

/// The stored object as the request's version shows it.
pub fn live_view(call: &Call, old: &StoredObject) -> Value {
    let mut live = (*old.tree).clone();
    call.served.to_served(&mut live);
    live
}

fn modified(call: &Call) -> ApiError {
    ApiError::modified(&call.served.storage_group, &call.served.plural, &call.name)
}

enum Failure {
    Raced,
    Refused(ApiError),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

async fn attempt(
    call: &Call,
    options: &WriteOptions,
    manager: &Manager<'_>,
    old: &Arc<StoredObject>,
    live: &Value,
    mut new: Value,
) -> Result<Reply, Failure> {
    let served = &call.served;
    // A PUT's uid is a precondition; a patch that changes the uid fails validation instead.
    if !manager.retries() {
        check_uid(call, &new, &old.tree)?;
    }
    restore_untouched(call, &mut new, live);
    if manager.is_update() {
        schema::track(call, manager, Some(live), &mut new);
    }
    served.to_storage(&mut new);
    let mut attributes = Attributes::new(call, Operation::Update, &call.name, options.dry_run);
    admission::mutate(&mut attributes, &mut new, Some(&old.tree)).await?;
    check_revision(call, &new, old)?;
    prepare(call, &mut new, &old.tree);
    let _reserved = admission::allocate(call, &mut new, Some(&old.tree))?;
    let refused = match validate(call, &new, &old.tree) {
        Err(error) => Err(error),
        Ok(()) => admission::validate(&mut attributes, &new, Some(&old.tree)).await,
    };
    if let Err(error) = refused {
        return Err(error.into());
    }
    for warning in served.rules.warnings(&new, Some(&old.tree)) {
        call.warn(warning);
    }
    metadata::of(&mut new).insert("resourceVersion".into(), old.revision.to_string().into());
    local_schema::managed_fields::keep_timestamps(&old.tree, &mut new);
    if options.dry_run {
        served.to_served(&mut new);
        return Ok(Reply::tree(new));
    }
    if finished(&new, &old.tree) {
        return remove(call, old, new).await;
    }
    if new == *old.tree {
        return Ok(Reply::stored(old.clone()));
    }
    let write = Write {
        resource: served.storage_id.clone(),
        key: call.key().into(),
        expected: Some(old.revision),
        change: Change::Put(Prepared::new(new)),
    };
    match call.core.store.write(write).await {
        Ok(stored) => Ok(Reply::stored(stored)),
        Err(WriteError::Unavailable(why)) => Err(ApiError::unavailable(why).into()),
        Err(_) => Err(Failure::Raced),
    }
}

/// Removes an object whose last finalizer went; the answer shows it at its old revision.
async fn remove(call: &Call, old: &Arc<StoredObject>, new: Value) -> Result<Reply, Failure> {
    let mut shown = new.clone();
    let write = Write {
        resource: call.served.storage_id.clone(),
        key: call.key().into(),
        expected: Some(old.revision),
        change: Change::Delete(Prepared::new(new)),
    };
    match call.core.store.write(write).await {
        Ok(_) => {
            call.served.to_served(&mut shown);
            Ok(Reply::tree(shown))
        }
        Err(WriteError::Unavailable(why)) => Err(ApiError::unavailable(why).into()),
        Err(_) => Err(Failure::Raced),
    }
}

/// True when an update leaves nothing that holds a deleted object.
fn finished(new: &Value, old: &Value) -> bool {
    metadata::is_deleting(new)
        && metadata::finalizers(new).is_empty()
        && new["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            == 0
        && (!metadata::finalizers(old).is_empty() || new["kind"] == "Namespace")
        && namespace_is_empty(new)
}

/// A namespace goes when its spec's finalizers are gone, too.
fn namespace_is_empty(new: &Value) -> bool {
    new["kind"] != "Namespace"
        || new["spec"]["finalizers"]
            .as_array()
            .is_none_or(|list| list.is_empty())
}

fn check_uid(call: &Call, new: &Value, old: &Value) -> ApiResult<()> {
    let (given, stored) = (metadata::text(new, "uid"), metadata::text(old, "uid"));
    if given.is_empty() || given == stored {
        return Ok(());
    }
    let served = &call.served;
    let group = if served.group.contains('.') && served.is_custom() {
        format!("{}/", served.group)
    } else {
        String::new()
    };
    let key = format!("/registry/{group}{}/{}", served.plural, call.key());
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {given}, UID in object meta: {stored}"
    );
    Err(ApiError::conflict(
        &served.storage_group,
        &served.plural,
        &call.name,
        &why,
    ))
}

fn check_revision(call: &Call, new: &Value, old: &StoredObject) -> Result<(), Failure> {
    let given = metadata::text(new, "resourceVersion");
    if given.is_empty() || given == "0" {
        let served = &call.served;
        if served.is_custom() || !served.rules.allows_unconditional_update() {
            let error = FieldError::invalid(
                "metadata.resourceVersion",
                given_value(new),
                "must be specified for an update",
            );
            return Err(
                // Upstream names the resource here, not the kind.
                ApiError::invalid(&served.group, &served.plural, &call.name, &[error]).into(),
            );
        }
        return Ok(());
    }
    let Ok(given) = given.parse::<u64>() else {
        let error = super::options::parse_revision(given)
            .err()
            .unwrap_or_default();
        return Err(ApiError::plain(error).into());
    };
    if given != old.revision {
        return Err(modified(call).into());
    }
    Ok(())
}

fn given_value(new: &Value) -> Value {
    match &new["metadata"]["resourceVersion"] {
        Value::String(text) if text != "0" => Value::from(text.as_str()),
        _ => Value::from(0),
    }
}

/// Puts back what this endpoint may not change, before ownership is taken.
fn restore_untouched(call: &Call, new: &mut Value, live: &Value) {
    match call.subresource.as_str() {
        "" | "scale" if call.served.has_status() => restore(new, live, "status"),
        "status" => restore_all_but_status(new, live, call.served.is_custom()),
        _ => {}
    }
}

/// What upstream's strategies do before validation.
fn prepare(call: &Call, new: &mut Value, old: &Value) {
    let served = &call.served;
    metadata::carry_over(new, old);
    match call.subresource.as_str() {
        "" | "scale" => {
            if served.has_status() {
                restore(new, old, "status");
            }
            if !served.is_custom() {
                served.rules.prepare_for_update(new, old);
            }
            let status_counts = !served.has_status();
            if metadata::generation_follows(served)
                && metadata::spec_differs(new, old, status_counts)
            {
                count_generation(new, old);
            }
        }
        "status" => {
            restore_all_but_status(new, old, served.is_custom());
            served.rules.prepare_for_status_update(new, old);
        }
        other => {
            served.rules.prepare_for_subresource_update(other, new, old);
            // Where a pod runs is no change of what it is.
            if other != "binding"
                && served.rules.has_generation()
                && metadata::spec_differs(new, old, false)
            {
                count_generation(new, old);
            }
        }
    }
}

fn count_generation(new: &mut Value, old: &Value) {
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
    metadata::of(new).insert("generation".into(), generation.into());
}

fn restore(new: &mut Value, old: &Value, field: &str) {
    let Some(fields) = new.as_object_mut() else {
        return;
    };
    match old.get(field) {
        Some(value) => fields.insert(field.into(), value.clone()),
        None => fields.remove(field),
    };
}

/// A status update keeps everything else; of metadata, custom resources keep all but managedFields,
/// built-in kinds take labels, annotations and finalizers from the request, as upstream.
fn restore_all_but_status(new: &mut Value, old: &Value, custom: bool) {
    let status = new.get("status").cloned();
    let sent = new["metadata"].take();
    *new = old.clone();
    if let Some(fields) = new.as_object_mut() {
        match status {
            Some(status) => fields.insert("status".into(), status),
            None => fields.remove("status"),
        };
    }
    let kept: &[&str] = if custom {
        &["managedFields", "resourceVersion"]
    } else {
        &[
            "managedFields",
            "resourceVersion",
            "labels",
            "annotations",
            "finalizers",
            "ownerReferences",
        ]
    };
    let metadata = metadata::of(new);
    for field in kept {
        match sent.get(field) {
            Some(value) => metadata.insert((*field).into(), value.clone()),
            None => metadata.remove(*field),
        };
    }
}

fn validate(call: &Call, new: &Value, old: &Value) -> ApiResult<()> {
    let served = &call.served;
    // Upstream checks metadata twice, in the generic registry and in the kind's own, and reports both.
    let mut errors = metadata::validate_update(served, new, old);
    errors.extend(errors.clone());
    match call.subresource.as_str() {
        "" | "scale" => errors.extend(schema::validate(served, new, Some(old))),
        "status" if served.is_custom() => errors.extend(schema::validate(served, new, Some(old))),
        "status" => errors.extend(served.rules.validate_status_update(new, old)),
        other => errors.extend(served.rules.validate_subresource_update(other, new, old)),
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        &served.group,
        &served.kind,
        &call.name,
        &errors,
    ))
}
