//! What a unit changes in the source's pod template.
//!
//! First the plain fields, then `patch`, then what a unit cannot do without: its own label, the labels the source selects
//! by, and the way to virtual nodes when the pods ask for serverless.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value, json};

use super::{ElasticUnit, UnitError};
use crate::names::UNIT_LABEL;
use crate::patch_containers::strangers;
use crate::routing;
use crate::strategic_merge::merge_pod;

/// The pod template of `unit`, which is at `index` in the spec. `selected` are the labels the source selects its pods by.
pub(super) fn unit_template(
    source: &Value,
    unit: &ElasticUnit,
    index: usize,
    selected: &BTreeMap<String, String>,
) -> Result<Value, UnitError> {
    let field = |name: &str| format!("spec.elasticUnit[{index}].{name}");
    let mut template = source.clone();
    plain(&mut template, unit);
    let makes_none = |reason: String| format!("makes no pod template: {reason}");
    decode(&template).map_err(|reason| UnitError::field(field("affinity"), makes_none(reason)))?;
    if let Some(patch) = container_patch(&template, unit)
        .map_err(|reason| UnitError::field(field("container"), reason))?
    {
        template = merge_pod(&template, &patch)
            .map_err(|error| UnitError::field(field("env"), error.to_string()))?;
        quantities_as_text(&mut template);
        let wrong = |reason| UnitError::field(field("env and resources"), makes_none(reason));
        decode(&template).map_err(wrong)?;
    }
    if let Some(patch) = &unit.patch {
        let before = template;
        if let Some(stranger) = strangers(&before, patch).first() {
            let name = format!("patch.{}", stranger.path);
            let reason = stranger.reason("the source's pod template");
            return Err(UnitError::field(field(&name), reason));
        }
        template = merge_pod(&before, patch).map_err(|error| {
            UnitError::field(field(&format!("patch.{}", error.path)), error.reason)
        })?;
        quantities_as_text(&mut template);
        if let Err(reason) = decode(&template) {
            let member = wrong_member(&before, patch).unwrap_or_default();
            return Err(UnitError::field(
                field(&format!("patch{member}")),
                makes_none(reason),
            ));
        }
    }
    let labels = object(member(&mut template, "metadata"), "labels");
    for (label, value) in selected {
        if labels.get(label).and_then(Value::as_str) != Some(value) {
            return Err(UnitError::SelectorLabel {
                field: field("labels"),
                label: label.clone(),
                value: value.clone(),
            });
        }
    }
    labels.insert(UNIT_LABEL.to_owned(), unit.name.clone().into());
    route(&mut template).map_err(|reason| {
        UnitError::field(
            format!("spec.elasticUnit[{index}]"),
            format!("makes no pod template: {reason}"),
        )
    })?;
    Ok(template)
}

/// The member `name`, an object; made when it is none.
pub(super) fn member<'a>(parent: &'a mut Value, name: &str) -> &'a mut Value {
    if !parent.is_object() {
        *parent = json!({});
    }
    let member = &mut parent[name];
    if !member.is_object() {
        *member = json!({});
    }
    member
}

/// The members of the member `name`.
pub(super) fn object<'a>(parent: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    let member = member(parent, name).as_object_mut();
    member.expect("it was made an object just now")
}

fn plain(template: &mut Value, unit: &ElasticUnit) {
    let metadata = member(template, "metadata");
    for (name, texts) in [("labels", &unit.labels), ("annotations", &unit.annotations)] {
        if !texts.is_empty() {
            let texts = texts
                .iter()
                .map(|(key, value)| (key.clone(), value.clone().into()));
            object(metadata, name).extend(texts);
        }
    }
    let spec = object(template, "spec");
    if let Some(node_selector) = &unit.node_selector {
        spec.insert("nodeSelector".to_owned(), json!(node_selector));
    }
    if let Some(affinity) = &unit.affinity {
        spec.insert("affinity".to_owned(), json!(affinity));
    }
    if unit.tolerations.is_empty() {
        return;
    }
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if let Some(tolerations) = tolerations.as_array_mut() {
        let added = unit.tolerations.iter().map(|toleration| json!(toleration));
        let added: Vec<Value> = added
            .filter(|toleration| !tolerations.contains(toleration))
            .collect();
        tolerations.extend(added);
    }
}

/// Image, variables and resources, as a patch of the container they are meant for.
fn container_patch(template: &Value, unit: &ElasticUnit) -> Result<Option<Value>, String> {
    let containers = template["spec"]["containers"].as_array();
    let names: Vec<&str> = containers
        .into_iter()
        .flatten()
        .filter_map(|container| container["name"].as_str())
        .collect();
    let wanted = unit.container.as_deref().or(names.first().copied());
    let name = wanted.filter(|name| names.contains(name));
    if unit.image.is_none()
        && unit.env.is_empty()
        && unit.resources.is_none()
        && unit.container.is_none()
    {
        return Ok(None);
    }
    let Some(name) = name else {
        let wanted = wanted.unwrap_or_default();
        return Err(format!(
            "the source has no container {wanted:?}; it has {}",
            names.join(", ")
        ));
    };
    let mut patch = json!({"name": name});
    if let Some(image) = &unit.image {
        patch["image"] = json!(image);
    }
    if let Some(resources) = &unit.resources {
        patch["resources"] = json!(resources);
    }
    if !unit.env.is_empty() {
        let mut variables = json!(unit.env);
        for variable in variables.as_array_mut().into_iter().flatten() {
            // A plain value takes the place of a reference, and the other way round.
            variable["$patch"] = "replace".into();
        }
        patch["env"] = variables;
    }
    Ok(Some(json!({"spec": {"containers": [patch]}})))
}

/// Manifests may have quantities as numbers; the API has them as texts.
fn quantities_as_text(template: &mut Value) {
    let spec = &mut template["spec"];
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for part in ["requests", "limits"] {
                let quantities = container.pointer_mut(&format!("/resources/{part}"));
                let quantities = quantities.and_then(Value::as_object_mut);
                for quantity in quantities.into_iter().flat_map(Map::values_mut) {
                    if quantity.is_number() {
                        *quantity = quantity.to_string().into();
                    }
                }
            }
        }
    }
}

fn decode(template: &Value) -> Result<PodTemplateSpec, String> {
    serde_json::from_value(template.clone()).map_err(|error| error.to_string())
}

/// The first member of the patch that spoils the template by itself.
fn wrong_member(before: &Value, patch: &Value) -> Option<String> {
    let parts = patch.as_object()?.iter();
    let members = parts.flat_map(|(part, members)| {
        let members = members.as_object().into_iter().flatten();
        members.map(move |(name, value)| (part, name, value))
    });
    for (part, name, value) in members {
        let alone = json!({part.as_str(): {name.as_str(): value}});
        let spoils = merge_pod(before, &alone).is_ok_and(|mut merged| {
            quantities_as_text(&mut merged);
            decode(&merged).is_err()
        });
        if spoils {
            return Some(format!(".{part}.{name}"));
        }
    }
    None
}

/// What admission would do to each of the pods, done once here, which saves one call per pod in a burst.
fn route(template: &mut Value) -> Result<(), String> {
    let typed = decode(template)?;
    let labels = typed
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.labels.as_ref());
    if !routing::pod_asks_for_serverless(labels) {
        return Ok(());
    }
    let mut pod = typed.spec.unwrap_or_default();
    routing::route_to_virtual_nodes(&mut pod);
    let routed = json!(pod);
    let spec = object(template, "spec");
    for name in [
        "nodeSelector",
        "affinity",
        "topologySpreadConstraints",
        "tolerations",
    ] {
        match routed.get(name) {
            Some(value) => spec.insert(name.to_owned(), value.clone()),
            None => spec.remove(name),
        };
    }
    Ok(())
}
