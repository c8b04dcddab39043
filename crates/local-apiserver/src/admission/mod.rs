//! Admission: what is changed or refused before a write, in upstream's order.

mod builtin;
mod pods;
mod services;
mod webhooks;

pub use services::{Allocator, Reserved};

use crate::certificates::REQUESTS;
use crate::registry::context::Call;
use crate::status::ApiResult;
use serde_json::Value;

/// The operation of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// POST.
    Create,
    /// PUT, PATCH.
    Update,
    /// DELETE.
    Delete,
}

/// What admission knows of a write.
pub struct Attributes<'a> {
    /// The request.
    pub call: &'a Call,
    /// The operation.
    pub operation: Operation,
    /// The object's name, empty before it is generated.
    pub name: &'a str,
    /// Nothing will be stored.
    pub dry_run: bool,
}

impl<'a> Attributes<'a> {
    /// From its parts.
    pub fn new(call: &'a Call, operation: Operation, name: &'a str, dry_run: bool) -> Self {
        Self {
            call,
            operation,
            name,
            dry_run,
        }
    }
}

/// Changes the object (storage version) or refuses it.
pub async fn mutate(
    attributes: &mut Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> ApiResult<()> {
    let new_pod = attributes.call.served.storage_id.as_ref() == "pods"
        && attributes.operation == Operation::Create;
    builtin::mutate(attributes, object, old)?;
    if attributes.call.served.storage_id.as_ref() == REQUESTS
        && attributes.operation == Operation::Create
    {
        name_requestor(attributes.call, object);
    }
    if new_pod {
        pods::await_account(attributes, object).await;
        pods::mutate(attributes, object)?;
    }
    webhooks::mutate(attributes, object, old).await
}

/// Who asks for a certificate is written by the server, whatever the request says.
fn name_requestor(call: &Call, object: &mut Value) {
    let user = &call.user;
    object["spec"]["username"] = user.name.as_str().into();
    object["spec"]["groups"] = user.groups.clone().into();
    let extra: serde_json::Map<String, Value> = user
        .extra
        .iter()
        .map(|(key, values)| (key.clone(), values.clone().into()))
        .collect();
    object["spec"]["uid"] = user.uid.as_str().into();
    object["spec"]["extra"] = extra.into();
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.retain(|key, value| match key.as_str() {
            "uid" => *value != "",
            "extra" => value.as_object().is_some_and(|extra| !extra.is_empty()),
            _ => true,
        });
    }
}

/// Refuses the finished object or not.
pub async fn validate(
    attributes: &mut Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> ApiResult<()> {
    webhooks::validate(attributes, Some(object), old).await
}

/// Refuses a delete or not.
pub async fn delete(attributes: &mut Attributes<'_>, old: &Value) -> ApiResult<()> {
    builtin::delete(attributes, old)?;
    webhooks::validate(attributes, None, Some(old)).await
}

/// Allocates what a Service needs; what was given is held until the answer is dropped.
pub fn allocate(
    call: &Call,
    object: &mut Value,
    old: Option<&Value>,
) -> ApiResult<Option<Reserved>> {
    if call.served.storage_id.as_ref() != "services" || !matches!(call.subresource.as_str(), "") {
        return Ok(None);
    }
    services::allocate(call, object, old)
}
