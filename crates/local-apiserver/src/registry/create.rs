//! create.

use super::context::{Call, Payload, Reply};
use super::options::WriteOptions;
use super::{decode, metadata};
use crate::admission::{self, Attributes, Operation};
use crate::schema::{self, Manager};
use crate::status::{ApiError, ApiResult};
use crate::store::{Change, Prepared, StoredObject, Write, WriteError};
use serde_json::Value;
use std::sync::Arc;

/// Tries with fresh suffixes before a generated name is given up.
const NAME_TRIES: usize = 8;

/// POST on a collection.
pub async fn create(call: &Call) -> ApiResult<Reply> {
    let options = WriteOptions::parse(&call.query, "CreateOptions", false)?;
    let object = decode::object(call, options.field_validation)?;
    let mut new = object;
    metadata::match_namespace(call, &mut new)?;
    let manager = Manager::update(call, &options, "");
    create_object(call, &options, new, manager).await
}

/// Creates a decoded object; used by POST, and by PUT and apply on a missing name.
pub async fn create_object(
    call: &Call,
    options: &WriteOptions,
    mut object: Value,
    manager: Manager<'_>,
) -> ApiResult<Reply> {
    let served = &call.served;
    if !metadata::text(&object, "resourceVersion").is_empty()
        && metadata::text(&object, "resourceVersion") != "0"
    {
        return Err(ApiError::plain(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    schema::default(served, &mut object);
    if manager.is_update() {
        schema::track(call, &manager, None, &mut object);
    }
    let generated = metadata::text(&object, "name").is_empty()
        && !metadata::text(&object, "generateName").is_empty();
    let mut attempt = 1;
    loop {
        let mut next = object.clone();
        if generated {
            let name = metadata::generate_name(metadata::text(&object, "generateName"));
            metadata::of(&mut next).insert("name".into(), name.into());
        }
        match create_once(call, options, next).await {
            Err(error)
                if generated && attempt < NAME_TRIES && error.reason() == "AlreadyExists" =>
            {
                attempt += 1;
            }
            Ok(reply) => return Ok(reply),
            Err(error) => return Err(error),
        }
    }
}

async fn create_once(call: &Call, options: &WriteOptions, mut object: Value) -> ApiResult<Reply> {
    let served = &call.served;
    let name = metadata::text(&object, "name").to_string();
    served.to_storage(&mut object);
    let mut attributes = Attributes::new(call, Operation::Create, &name, options.dry_run);
    admission::mutate(&mut attributes, &mut object, None).await?;
    metadata::prepare_new(served, &mut object, call.now);
    schema::prepare_new(served, &mut object);
    served.rules.prepare_for_create(&mut object);
    let _reserved = admission::allocate(call, &mut object, None)?;
    let mut errors = metadata::validate_new(served, &object);
    errors.extend(schema::validate(served, &object, None));
    for warning in served.rules.warnings(&object, None) {
        call.warn(warning);
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(
            &served.group,
            &served.kind,
            &name,
            &errors,
        ));
    }
    admission::validate(&mut attributes, &object, None).await?;
    if options.dry_run {
        if call
            .core
            .store
            .get(&served.storage_id, &served.key(&call.namespace, &name))
            .is_some()
        {
            return Err(exists(call, &name));
        }
        served.to_served(&mut object);
        return Ok(Reply {
            status: 201,
            payload: Payload::Tree(object),
        });
    }
    match insert(call, &name, object).await {
        Ok(stored) => Ok(Reply {
            status: 201,
            payload: Payload::Stored(stored),
        }),
        Err(error) => Err(error),
    }
}

async fn insert(call: &Call, name: &str, object: Value) -> ApiResult<Arc<StoredObject>> {
    let served = &call.served;
    let write = Write {
        resource: served.storage_id.clone(),
        key: served.key(&call.namespace, name).into(),
        expected: None,
        change: Change::Put(Prepared::new(object)),
    };
    let stored = call
        .core
        .store
        .write(write)
        .await
        .map_err(|error| match error {
            WriteError::Exists | WriteError::Conflict => exists(call, name),
            WriteError::Unavailable(why) => ApiError::unavailable(why),
        })?;
    Ok(stored)
}

fn exists(call: &Call, name: &str) -> ApiError {
    let served = &call.served;
    let mut error = ApiError::already_exists(&served.storage_group, &served.plural, name);
    let there = call
        .core
        .store
        .get(&served.storage_id, &served.key(&call.namespace, name));
    if there.is_some_and(|object| metadata::is_deleting(&object.tree)) {
        error.body["message"] = format!("object is being deleted: {}", error.message()).into();
    }
    error
}
