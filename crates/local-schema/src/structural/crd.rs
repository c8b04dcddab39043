//! CustomResourceDefinition objects: their defaults and everything upstream refuses in them.

mod names;
mod schema_rules;

use serde_json::{Map, Value, json};

use crate::field_error::FieldError;
use names::is_label;

const APPROVAL: &str = "api-approved.kubernetes.io";
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];

/// Sets upstream's defaults: singular, listKind, conversion strategy.
pub fn default_crd(crd: &mut Value) {
    let Some(spec) = crd.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let kind = names
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_string();
        let mut fill = |name: &str, value: String| {
            let empty = names
                .get(name)
                .and_then(Value::as_str)
                .is_none_or(str::is_empty);
            if empty && !kind.is_empty() {
                names.insert(name.to_string(), value.into());
            }
        };
        fill("singular", kind.to_lowercase());
        fill("listKind", format!("{kind}List"));
    }
    let conversion = spec.entry("conversion").or_insert_with(|| json!({}));
    if conversion.is_null() {
        *conversion = json!({});
    }
    if let Value::Object(conversion) = conversion {
        let missing = conversion
            .get("strategy")
            .and_then(Value::as_str)
            .is_none_or(str::is_empty);
        if missing {
            conversion.insert("strategy".to_string(), "None".into());
        }
        if let Some(Value::Object(service)) = conversion
            .get_mut("webhook")
            .and_then(|webhook| webhook.pointer_mut("/clientConfig/service"))
        {
            service.entry("port").or_insert(json!(443));
        }
    }
}

/// Everything wrong with a new definition.
pub fn validate_crd(crd: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &crd["spec"];
    // Names cannot change later, so only a create looks at them.
    let name = text(&crd["metadata"]["name"]);
    let wanted = format!(
        "{}.{}",
        text(&spec["names"]["plural"]),
        text(&spec["group"])
    );
    if name != wanted {
        errors.push(FieldError::invalid(
            "metadata.name",
            name,
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    validate_rest(crd, &mut errors);
    errors
}

fn validate_rest(crd: &Value, errors: &mut Vec<FieldError>) {
    validate_spec(&crd["spec"], errors);
    stored_versions(crd, errors);
    approval(crd, errors);
}

/// Everything wrong with a changed definition.
pub fn validate_crd_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_rest(new, &mut errors);
    let established = old["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    let mut immutable = vec!["group", "names/plural"];
    if established {
        immutable.extend(["scope", "names/kind"]);
    }
    for path in immutable {
        let pointer = format!("/spec/{path}");
        if new.pointer(&pointer) != old.pointer(&pointer) {
            let value = new.pointer(&pointer).cloned().unwrap_or(Value::Null);
            errors.push(FieldError::invalid(
                pointer[1..].replace('/', "."),
                value,
                "field is immutable",
            ));
        }
    }
    errors
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn versions(spec: &Value) -> &[Value] {
    spec["versions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn validate_spec(spec: &Value, errors: &mut Vec<FieldError>) {
    names::group(text(&spec["group"]), errors);
    match text(&spec["scope"]) {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(FieldError::not_supported(
            "spec.scope",
            other,
            &["Cluster", "Namespaced"],
        )),
    }
    if spec["preserveUnknownFields"] == true {
        errors.push(FieldError::invalid(
            "spec.preserveUnknownFields",
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    validate_versions(spec, errors);
    names::validate(&spec["names"], errors);
    let list = versions(spec);
    for place in places(
        spec,
        "additionalPrinterColumns",
        "spec.additionalPrinterColumns",
        "additionalPrinterColumns",
    ) {
        columns(&place.value, &place.path, errors);
    }
    for place in places(
        spec,
        "selectableFields",
        "spec.selectableFields",
        "selectableFields",
    ) {
        let schema = &list[place.index]["schema"]["openAPIV3Schema"];
        selectable_fields(&place.value, schema, &place.path, errors);
    }
    for place in places(spec, "schema", "spec.validation", "schema") {
        schema_rules::validate(
            &place.value["openAPIV3Schema"],
            &format!("{}.openAPIV3Schema", place.path),
            errors,
        );
    }
    for place in places(spec, "subresources", "spec.subresources", "subresources") {
        subresources(&place.value, &place.path, errors);
    }
    conversion(&spec["conversion"], errors);
}

/// A part of the versions and where messages say it stands.
struct Place {
    index: usize,
    value: Value,
    path: String,
}

/// Upstream lifts a part that all versions share to the top of the spec, and names it there.
fn places(spec: &Value, name: &str, shared: &str, own: &str) -> Vec<Place> {
    let list = versions(spec);
    let Some(first) = list.first() else {
        return Vec::new();
    };
    if list.iter().all(|version| version[name] == first[name]) {
        if first[name].is_null() {
            return Vec::new();
        }
        return vec![Place {
            index: 0,
            value: first[name].clone(),
            path: shared.to_string(),
        }];
    }
    let each = list
        .iter()
        .enumerate()
        .filter(|(_, version)| !version[name].is_null());
    each.map(|(index, version)| Place {
        index,
        value: version[name].clone(),
        path: format!("spec.versions[{index}].{own}"),
    })
    .collect()
}

fn validate_versions(spec: &Value, errors: &mut Vec<FieldError>) {
    let list = versions(spec);
    for (index, version) in list.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        is_label(text(&version["name"]), &format!("{path}.name"), errors);
        let warning = &version["deprecationWarning"];
        if warning.is_string() && version["deprecated"] != true {
            errors.push(FieldError::invalid(
                format!("{path}.deprecationWarning"),
                warning.clone(),
                "can only be set for deprecated versions",
            ));
        }
        if !version["schema"]["openAPIV3Schema"].is_object() {
            errors.push(FieldError::required(
                format!("{path}.schema.openAPIV3Schema"),
                "",
            ));
        }
    }
    let names: Vec<&str> = list.iter().map(|version| text(&version["name"])).collect();
    let refuse = |detail: &str| {
        FieldError::invalid("spec.versions", Value::Null, detail).showing(show_versions(spec))
    };
    if names
        .iter()
        .enumerate()
        .any(|(index, name)| names[..index].contains(name))
    {
        errors.push(refuse("must contain unique version names"));
    }
    if list
        .iter()
        .filter(|version| version["storage"] == true)
        .count()
        != 1
    {
        errors.push(refuse(
            "must have exactly one version marked as storage version",
        ));
    }
    if let Some(first) = names.first() {
        is_label(first, "spec.version", errors);
    }
}

/// The versions as Go prints its internal structs.
fn show_versions(spec: &Value) -> String {
    let Some(list) = spec["versions"].as_array() else {
        return "null".to_string();
    };
    let own = |version: &Value, name: &str| {
        let shared = list.iter().all(|one| one[name] == version[name]);
        if shared {
            Value::Null
        } else {
            version[name].clone()
        }
    };
    let shown: Vec<String> = list
        .iter()
        .map(|version| {
            format!(
                "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{},\"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
                version["name"],
                version["served"] == true,
                version["storage"] == true,
                version["deprecated"] == true,
                version["deprecationWarning"],
                own(version, "schema"),
                own(version, "subresources"),
                own(version, "additionalPrinterColumns"),
                own(version, "selectableFields"),
            )
        })
        .collect();
    format!("[{}]", shown.join(","))
}

fn simple_path(path: &str) -> bool {
    path.starts_with('.')
}

fn columns(columns: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (index, column) in columns.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{index}]");
        if text(&column["name"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        match text(&column["type"]) {
            "" => errors.push(FieldError::required(
                format!("{path}.type"),
                format!("must be one of {}", COLUMN_TYPES.join(",")),
            )),
            kind if COLUMN_TYPES.contains(&kind) => {}
            kind => errors.push(FieldError::invalid(
                format!("{path}.type"),
                kind,
                format!("must be one of {}", COLUMN_TYPES.join(",")),
            )),
        }
        let json_path = text(&column["jsonPath"]);
        if json_path.is_empty() {
            errors.push(FieldError::required(format!("{path}.JSONPath"), ""));
        } else if !simple_path(json_path) {
            errors.push(FieldError::invalid(
                format!("{path}.JSONPath"),
                json_path,
                "must be a simple json path starting with .",
            ));
        }
    }
}

fn selectable_fields(fields: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, field) in fields.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{index}].jsonPath");
        let json_path = text(&field["jsonPath"]);
        if json_path.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        if seen.contains(&json_path) {
            errors.push(FieldError::duplicate(&path, json_path));
        }
        seen.push(json_path);
        let target = json_path
            .trim_start_matches('.')
            .split('.')
            .try_fold(schema, |place, name| place["properties"].get(name));
        match target {
            None => errors.push(FieldError::invalid(path, json_path, "is an invalid path: does not refer to a valid field")),
            Some(target) if matches!(target["type"].as_str(), Some("string" | "boolean" | "integer")) => {}
            Some(_) => errors.push(FieldError::invalid(
                path,
                json_path,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            )),
        }
    }
}

fn subresources(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(scale) = value["scale"].as_object() else {
        return;
    };
    let paths: [(&str, &[&str], &str, bool); 3] = [
        (
            "specReplicasPath",
            &[".spec."],
            "should be a json path under .spec",
            true,
        ),
        (
            "statusReplicasPath",
            &[".status."],
            "should be a json path under .status",
            true,
        ),
        (
            "labelSelectorPath",
            &[".spec.", ".status."],
            "should be a json path under either .spec or .status",
            false,
        ),
    ];
    for (name, prefixes, detail, required) in paths {
        let value = scale.get(name).map(text).unwrap_or_default();
        let field = format!("{path}.scale.{name}");
        if value.is_empty() {
            if required {
                errors.push(FieldError::required(field, ""));
            }
        } else if !simple_path(value) {
            errors.push(FieldError::invalid(
                field,
                value,
                "must be a simple json path starting with .",
            ));
        } else if !prefixes.iter().any(|prefix| value.starts_with(prefix)) {
            errors.push(FieldError::invalid(field, value, detail));
        }
    }
}

fn conversion(conversion: &Value, errors: &mut Vec<FieldError>) {
    match text(&conversion["strategy"]) {
        "" => {}
        "None" => {}
        "Webhook" => {
            if !conversion["webhook"]["clientConfig"].is_object() {
                errors.push(FieldError::required(
                    "spec.conversion.webhookClientConfig",
                    "required when strategy is set to Webhook",
                ));
            }
            let none = conversion["webhook"]["conversionReviewVersions"]
                .as_array()
                .is_none_or(Vec::is_empty);
            if none {
                errors.push(FieldError::required(
                    "spec.conversion.conversionReviewVersions",
                    "",
                ));
            }
        }
        other => errors.push(FieldError::not_supported(
            "spec.conversion.strategy",
            other,
            &["None", "Webhook"],
        )),
    }
}

fn stored_versions(crd: &Value, errors: &mut Vec<FieldError>) {
    let spec = &crd["spec"];
    let list = versions(spec);
    let mut stored: Vec<Value> = crd["status"]["storedVersions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if stored.is_empty()
        && let Some(version) = list.iter().find(|version| version["storage"] == true)
    {
        stored.push(version["name"].clone());
    }
    let path = "status.storedVersions";
    if stored.is_empty() {
        errors.push(FieldError::invalid(
            path,
            Value::Null,
            "must have at least one stored version",
        ));
        return;
    }
    // As upstream, the last version marked counts when several are.
    if let Some(version) = list.iter().rfind(|version| version["storage"] == true)
        && !stored.contains(&version["name"])
    {
        errors.push(FieldError::invalid(
            path,
            Value::Array(stored.clone()),
            format!("must have the storage version {}", text(&version["name"])),
        ));
    }
    for (index, name) in stored.iter().enumerate() {
        if !list.iter().any(|version| version["name"] == *name) {
            errors.push(FieldError::invalid(
                format!("{path}[{index}]"),
                name.clone(),
                "missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions"
                    .replace("v1", text(name)),
            ));
        }
    }
}

fn approval(crd: &Value, errors: &mut Vec<FieldError>) {
    let group = text(&crd["spec"]["group"]);
    let protected = group == "k8s.io"
        || group.ends_with(".k8s.io")
        || group == "kubernetes.io"
        || group.ends_with(".kubernetes.io");
    if !protected {
        return;
    }
    let empty = Map::new();
    let annotations = crd["metadata"]["annotations"].as_object().unwrap_or(&empty);
    let path = format!("metadata.annotations[{APPROVAL}]");
    match annotations.get(APPROVAL).map(text) {
        None | Some("") => errors.push(FieldError::required(
            path,
            format!("protected groups must have approval annotation \"{APPROVAL}\", see https://github.com/kubernetes/enhancements/pull/1111"),
        )),
        Some(value) if value.starts_with("http") || value.starts_with("unapproved") => {}
        Some(value) => errors.push(FieldError::invalid(
            path,
            value,
            "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111",
        )),
    }
}
