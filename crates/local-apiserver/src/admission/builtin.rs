//! Built-in admission: NamespaceLifecycle and the defaults that upstream's default plugins set.

use super::{Attributes, Operation};
use crate::registry::metadata;
use crate::status::{ApiError, ApiResult};
use serde_json::{Value, json};

/// Namespaces nobody may delete.
const PROTECTED: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) fn mutate(
    attributes: &Attributes<'_>,
    object: &mut Value,
    _old: Option<&Value>,
) -> ApiResult<()> {
    let call = attributes.call;
    if attributes.operation == Operation::Create {
        namespace_lifecycle(attributes)?;
        definition_lifecycle(attributes)?;
    }
    if call.served.storage_id.as_ref() == "namespaces" {
        let name = attributes.name.to_string();
        if !name.is_empty() {
            if !object["metadata"]["labels"].is_object() {
                metadata::of(object).insert("labels".into(), json!({}));
            }
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
        }
    }
    Ok(())
}

pub(super) fn delete(attributes: &Attributes<'_>, _old: &Value) -> ApiResult<()> {
    let call = attributes.call;
    if call.served.storage_id.as_ref() == "namespaces" && PROTECTED.contains(&attributes.name) {
        return Err(ApiError::forbidden(
            "",
            "namespaces",
            attributes.name,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}

/// New custom objects need a definition that is not going.
fn definition_lifecycle(attributes: &Attributes<'_>) -> ApiResult<()> {
    let served = &attributes.call.served;
    if !served.is_custom() {
        return Ok(());
    }
    let definition = attributes
        .call
        .core
        .store
        .get(crate::crd::controller::DEFINITIONS, &served.storage_id);
    if definition.is_none_or(|definition| !metadata::is_deleting(&definition.tree)) {
        return Ok(());
    }
    let why = "create not allowed while custom resource definition is terminating";
    Err(ApiError::forbidden(
        &served.group,
        &served.plural,
        attributes.name,
        why,
    ))
}

/// New objects need a namespace that is there and not going.
fn namespace_lifecycle(attributes: &Attributes<'_>) -> ApiResult<()> {
    let call = attributes.call;
    if !call.served.namespaced {
        return Ok(());
    }
    let Some(namespace) = call.core.store.get("namespaces", &call.namespace) else {
        return Err(ApiError::not_found("", "namespaces", &call.namespace));
    };
    if namespace.tree["status"]["phase"] != "Terminating" && !metadata::is_deleting(&namespace.tree)
    {
        return Ok(());
    }
    let served = &call.served;
    let why = format!(
        "unable to create new content in namespace {} because it is being terminated",
        call.namespace
    );
    let mut error = ApiError::forbidden(&served.group, &served.plural, attributes.name, &why);
    error.body["details"]["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {} is being terminated", call.namespace),
        "field": "metadata.namespace",
    }]);
    Err(error)
}
