//! What the registry does to `metadata`: system fields, validation, finalizers, generation.

use super::context::{Call, time_text};
use super::names;
use super::resource::Served;
use jiff::Timestamp;
use local_schema::FieldError;
use rand::Rng;
use serde_json::{Map, Value};

/// Letters of generated name suffixes: no vowels and nothing that looks alike.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
const NAME_BYTES: usize = 63;

/// The metadata map, made when absent.
pub fn of(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    match &mut object["metadata"] {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}

/// A text field of metadata, empty when absent.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// The finalizers.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = object["metadata"]["finalizers"].as_array();
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Whether a deletion is under way.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// `prefix` cut to what leaves room, plus five letters.
pub fn generate_name(prefix: &str) -> String {
    let room = NAME_BYTES - SUFFIX;
    let mut end = prefix.len().min(room);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut random = rand::rng();
    let suffix: String = (0..SUFFIX)
        .map(|_| SUFFIX_LETTERS[random.random_range(0..SUFFIX_LETTERS.len())] as char)
        .collect();
    format!("{}{suffix}", &prefix[..end])
}

/// System fields of a new object.
pub fn prepare_new(served: &Served, object: &mut Value, now: Timestamp) {
    let has_generation = generation_follows(served);
    let metadata = of(object);
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
    ] {
        metadata.remove(field);
    }
    let uid = uuid::Uuid::new_v4().to_string();
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), time_text(now).into());
    if has_generation {
        metadata.insert("generation".into(), 1.into());
    }
    drop_empty(metadata);
}

/// Removes metadata fields whose empty value Go would omit.
pub fn drop_empty(metadata: &mut Map<String, Value>) {
    metadata.retain(|name, value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty() || !matches!(name.as_str(), "labels" | "annotations"),
        Value::Array(list) => {
            !list.is_empty()
                || !matches!(
                    name.as_str(),
                    "finalizers" | "ownerReferences" | "managedFields"
                )
        }
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_i64() != Some(0) || name != "generation",
        Value::Bool(_) => true,
    });
}

/// Whether the registry counts generations for this kind.
pub fn generation_follows(served: &Served) -> bool {
    served.is_custom() || served.rules.has_generation()
}

/// Keeps what an update may not change, as upstream's `BeforeUpdate`.
pub fn carry_over(new: &mut Value, old: &Value) {
    let old = &old["metadata"];
    let metadata = of(new);
    metadata.remove("selfLink");
    let absent = |metadata: &Map<String, Value>, field: &str| {
        metadata
            .get(field)
            .is_none_or(|value| value.is_null() || value == "")
    };
    if absent(metadata, "uid") {
        metadata.insert("uid".into(), old["uid"].clone());
    }
    for field in ["creationTimestamp", "generation"] {
        match old.get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        match old.get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    drop_empty(metadata);
}

/// True when anything but metadata, status and the type differs.
pub fn spec_differs(new: &Value, old: &Value, status_counts: bool) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return true;
    };
    let counts = |name: &str| {
        !matches!(name, "metadata" | "apiVersion" | "kind") && (status_counts || name != "status")
    };
    new.iter()
        .any(|(name, value)| counts(name) && old.get(name) != Some(value))
        || old
            .keys()
            .any(|name| counts(name) && !new.contains_key(name))
}

/// Upstream's `ValidateObjectMeta`.
pub fn validate_new(served: &Served, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let metadata = &object["metadata"];
    let rule = served.name_rule();
    let prefix = text(object, "generateName");
    if !prefix.is_empty() {
        for error in names::name_errors(rule, prefix, true) {
            errors.push(FieldError::invalid("metadata.generateName", prefix, error));
        }
    }
    let name = text(object, "name");
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        for error in names::name_errors(rule, name, false) {
            errors.push(FieldError::invalid("metadata.name", name, error));
        }
    }
    if served.namespaced {
        let namespace = text(object, "namespace");
        if namespace.is_empty() {
            errors.push(FieldError::required("metadata.namespace", ""));
        } else {
            for error in names::label_errors(namespace) {
                errors.push(FieldError::invalid("metadata.namespace", namespace, error));
            }
        }
    }
    errors.extend(validate_common(metadata));
    errors
}

fn validate_common(metadata: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(generation) = metadata["generation"].as_i64().filter(|number| *number < 0) {
        errors.push(FieldError::invalid(
            "metadata.generation",
            generation,
            "must be greater than or equal to 0",
        ));
    }
    if let Some(labels) = metadata["labels"].as_object() {
        errors.extend(names::labels(labels, "metadata.labels"));
    }
    if let Some(annotations) = metadata["annotations"].as_object() {
        errors.extend(names::annotations(annotations, "metadata.annotations"));
    }
    errors.extend(owner_errors(&metadata["ownerReferences"]));
    for finalizer in metadata["finalizers"].as_array().into_iter().flatten() {
        let finalizer = finalizer.as_str().unwrap_or_default();
        errors.extend(finalizer_errors(finalizer));
    }
    errors
}

fn finalizer_errors(finalizer: &str) -> Vec<FieldError> {
    const PATH: &str = "metadata.finalizers";
    let mut errors: Vec<FieldError> = names::qualified_name_errors(finalizer)
        .into_iter()
        .map(|error| FieldError::invalid(PATH, finalizer, error))
        .collect();
    let standard = ["kubernetes", "orphan", "foregroundDeletion"];
    if errors.is_empty() && !finalizer.contains('/') && !standard.contains(&finalizer) {
        errors.push(FieldError::invalid(
            PATH,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        ));
    }
    errors
}

fn owner_errors(owners: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controllers: Vec<&Value> = Vec::new();
    for (index, owner) in owners.as_array().into_iter().flatten().enumerate() {
        let path = "metadata.ownerReferences";
        let field = |name: &str| owner[name].as_str().unwrap_or_default();
        let _ = index;
        if !field("apiVersion").contains('/') && field("apiVersion").is_empty() {
            errors.push(FieldError::invalid(
                format!("{path}.apiVersion"),
                field("apiVersion"),
                "version must not be empty",
            ));
        }
        for name in ["kind", "name", "uid"] {
            if field(name).is_empty() {
                let detail = if name == "kind" {
                    "kind must not be empty".to_string()
                } else {
                    format!("{name} must not be empty")
                };
                errors.push(FieldError::invalid(
                    format!("{path}.{name}"),
                    field(name),
                    detail,
                ));
            }
        }
        if owner["controller"] == true {
            controllers.push(owner);
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let show = |owner: &Value| {
            format!(
                "{}/{}",
                owner["kind"].as_str().unwrap_or_default(),
                owner["name"].as_str().unwrap_or_default()
            )
        };
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            owners.clone(),
            format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                show(first),
                show(second)
            ),
        ));
    }
    errors
}

/// Upstream's `ValidateObjectMetaUpdate`.
pub fn validate_update(served: &Served, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if is_deleting(old) {
        let before = finalizers(old);
        let added: Vec<&str> = finalizers(new)
            .into_iter()
            .filter(|one| !before.contains(one))
            .collect();
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|one| format!("{one:?}")).collect();
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    list.join(", ")
                ),
            ));
        }
    }
    let fields: &[&str] = if served.namespaced {
        &["name", "namespace", "uid"]
    } else {
        &["name", "uid"]
    };
    for field in fields {
        if text(new, field) != text(old, field) {
            errors.push(FieldError::invalid(
                format!("metadata.{field}"),
                text(new, field),
                "field is immutable",
            ));
        }
    }
    errors.extend(validate_common(&new["metadata"]));
    errors
}

/// Checks and sets the namespace of a body against the path's.
pub fn match_namespace(call: &Call, object: &mut Value) -> crate::status::ApiResult<()> {
    let given = text(object, "namespace").to_string();
    if !call.served.namespaced || call.namespace.is_empty() {
        of(object).remove("namespace");
        return Ok(());
    }
    if given.is_empty() {
        of(object).insert("namespace".into(), call.namespace.as_str().into());
    } else if given != call.namespace {
        return Err(crate::status::ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
