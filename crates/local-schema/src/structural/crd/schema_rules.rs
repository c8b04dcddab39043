//! What makes an OpenAPI v3 schema a structural one.

use serde_json::Value;

use super::super::Structural;
use super::super::schema::compile_pattern;
use crate::cel::Program;
use crate::field_error::{FieldError, FieldErrorKind};

/// Keywords that are not supported at all.
const UNSUPPORTED: [&str; 8] = [
    "$ref",
    "$schema",
    "id",
    "definitions",
    "dependencies",
    "patternProperties",
    "additionalItems",
    "deprecated",
];
/// Schemas nested deeper are not looked at.
const MAX_DEPTH: usize = 100;

/// Checks the schema of a version; `path` ends in `openAPIV3Schema`.
pub(super) fn validate(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match schema["type"].as_str() {
        None | Some("") => errors.push(FieldError::required(
            format!("{path}.type"),
            "must not be empty at the root",
        )),
        Some("object") => {}
        Some(other) => errors.push(FieldError::invalid(
            format!("{path}.type"),
            other,
            "must be object at the root",
        )),
    }
    let mut walker = Walker { errors, root: path };
    walker.node(schema, path, Place::Root, 0);
    walker.values(schema, path, 0);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Property,
    Item,
    Additional,
}

struct Walker<'e> {
    errors: &'e mut Vec<FieldError>,
    root: &'e str,
}

impl Walker<'_> {
    fn forbid(&mut self, path: String, detail: &str) {
        self.errors.push(FieldError::forbidden(path, detail));
    }

    fn require(&mut self, path: String, detail: &str) {
        self.errors.push(FieldError::required(path, detail));
    }

    fn node(&mut self, schema: &Value, path: &str, place: Place, depth: usize) {
        if depth > MAX_DEPTH || !schema.is_object() {
            return;
        }
        self.keywords(schema, path);
        self.extensions(schema, path);
        self.types(schema, path, place);
        if place == Place::Root {
            self.metadata(&schema["properties"]["metadata"], path);
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            self.node(
                property,
                &format!("{path}.properties[{name}]"),
                Place::Property,
                depth + 1,
            );
        }
        self.node(
            &schema["items"],
            &format!("{path}.items"),
            Place::Item,
            depth + 1,
        );
        self.node(
            &schema["additionalProperties"],
            &format!("{path}.additionalProperties"),
            Place::Additional,
            depth + 1,
        );
        self.cel(schema, path);
    }

    fn keywords(&mut self, schema: &Value, path: &str) {
        for name in UNSUPPORTED {
            if schema.get(name).is_some_and(|value| !value.is_null()) {
                self.forbid(
                    format!("{path}.{name}"),
                    &format!("{name} is not supported"),
                );
            }
        }
        if schema["uniqueItems"] == true {
            self.forbid(
                format!("{path}.uniqueItems"),
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            );
        }
        if schema["items"].is_array() {
            self.forbid(
                format!("{path}.items"),
                "items must be a schema object and not an array",
            );
        }
        let has_properties = schema["properties"]
            .as_object()
            .is_some_and(|properties| !properties.is_empty());
        let has_additional =
            schema["additionalProperties"].is_object() || schema["additionalProperties"] == true;
        if has_properties && has_additional {
            self.forbid(
                format!("{path}.additionalProperties"),
                "additionalProperties and properties are mutual exclusive",
            );
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && compile_pattern(pattern).is_none()
        {
            let reason = if pattern.matches('(').count() > pattern.matches(')').count() {
                format!("missing closing ): `{pattern}`")
            } else {
                format!("invalid pattern: `{pattern}`")
            };
            self.errors.push(FieldError::invalid(
                format!("{path}.pattern"),
                pattern,
                format!(
                    "must be a valid regular expression, but isn't: error parsing regexp: {reason}"
                ),
            ));
        }
    }

    fn extensions(&mut self, schema: &Value, path: &str) {
        if schema["x-kubernetes-preserve-unknown-fields"] == false {
            self.errors.push(FieldError::invalid(
                format!("{path}.x-kubernetes-preserve-unknown-fields"),
                false,
                "must be true or undefined",
            ));
        }
        if schema["x-kubernetes-embedded-resource"] == true {
            let none = schema["properties"]
                .as_object()
                .is_none_or(|properties| properties.is_empty());
            if none && schema["x-kubernetes-preserve-unknown-fields"] != true {
                self.require(
                    format!("{path}.properties"),
                    "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
                );
            }
        }
        let map_type = &schema["x-kubernetes-map-type"];
        if let Some(kind) = map_type
            .as_str()
            .filter(|kind| !matches!(*kind, "granular" | "atomic"))
        {
            self.errors.push(FieldError::not_supported(
                format!("{path}.x-kubernetes-map-type"),
                kind,
                &["atomic", "granular"],
            ));
        }
        self.list_type(schema, path);
    }

    fn list_type(&mut self, schema: &Value, path: &str) {
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let Some(kind) = schema["x-kubernetes-list-type"].as_str() else {
            if keys.is_some_and(|keys| !keys.is_empty()) {
                self.require(
                    format!("{path}.x-kubernetes-list-type"),
                    "must be map if x-kubernetes-list-map-keys is non-empty",
                );
            }
            return;
        };
        match kind {
            "atomic" => {}
            "set" => {
                let items = &schema["items"];
                let of_maps =
                    items["type"] == "object" && items["x-kubernetes-map-type"] != "atomic";
                if of_maps {
                    let value = items
                        .get("x-kubernetes-map-type")
                        .cloned()
                        .unwrap_or(Value::Null);
                    self.errors.push(FieldError::invalid(
                        format!("{path}.items.x-kubernetes-map-type"),
                        value,
                        "must be atomic as item of a list with x-kubernetes-list-type=set",
                    ));
                }
            }
            "map" => self.list_map(schema, path),
            other => self.errors.push(FieldError::not_supported(
                format!("{path}.x-kubernetes-list-type"),
                other,
                &["atomic", "set", "map"],
            )),
        }
    }

    fn list_map(&mut self, schema: &Value, path: &str) {
        let field = format!("{path}.x-kubernetes-list-map-keys");
        let keys: Vec<&Value> = schema["x-kubernetes-list-map-keys"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        if keys.is_empty() {
            return self.require(field, "must not be empty if x-kubernetes-list-type is map");
        }
        let items = &schema["items"];
        let known = |key: &Value| {
            key.as_str()
                .is_some_and(|key| items["properties"].get(key).is_some())
        };
        if !keys.iter().all(|key| known(key)) {
            self.errors.push(FieldError::invalid(
                field,
                schema["x-kubernetes-list-map-keys"].clone(),
                "entries must all be names of item properties",
            ));
            return;
        }
        for key in keys.iter().filter_map(|key| key.as_str()) {
            let required = items["required"]
                .as_array()
                .is_some_and(|list| list.iter().any(|name| name == key));
            if !required
                && items["properties"][key]
                    .get("default")
                    .is_none_or(Value::is_null)
            {
                self.require(
                    format!("{path}.items.properties[{key}].default"),
                    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                );
            }
        }
    }

    fn types(&mut self, schema: &Value, path: &str, place: Place) {
        let kind = schema["type"].as_str().unwrap_or_default();
        let int_or_string = schema["x-kubernetes-int-or-string"] == true;
        let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
        if schema["x-kubernetes-embedded-resource"] == true && kind != "object" {
            if kind.is_empty() {
                self.require(
                    format!("{path}.type"),
                    "must be object if x-kubernetes-embedded-resource is true",
                );
            } else {
                self.errors.push(FieldError::invalid(
                    format!("{path}.type"),
                    kind,
                    "must be object if x-kubernetes-embedded-resource is true",
                ));
            }
        } else if kind.is_empty()
            && !int_or_string
            && !free
            && place != Place::Root
            && schema.get("$ref").is_none()
        {
            let what = match place {
                Place::Item => "must not be empty for specified array items",
                Place::Additional => "must not be empty for specified object fields",
                _ => "must not be empty for specified object fields",
            };
            // Combinations are looked at first, as upstream does.
            self.combinations(schema, path, path);
            self.require(format!("{path}.type"), what);
            return;
        }
        if kind == "array" && !schema["items"].is_object() && !schema["items"].is_array() {
            self.require(format!("{path}.items"), "must be specified");
        }
        self.combinations(schema, path, path);
    }

    /// `anyOf` and its like may only restrict what stands outside of them.
    fn combinations(&mut self, schema: &Value, path: &str, structural_path: &str) {
        for name in ["allOf", "anyOf", "oneOf"] {
            for (index, inner) in schema[name].as_array().into_iter().flatten().enumerate() {
                self.restriction(
                    inner,
                    schema,
                    &format!("{path}.{name}[{index}]"),
                    structural_path,
                    0,
                );
            }
        }
        self.restriction(
            &schema["not"],
            schema,
            &format!("{path}.not"),
            structural_path,
            0,
        );
    }

    fn restriction(
        &mut self,
        inner: &Value,
        outer: &Value,
        path: &str,
        outer_path: &str,
        depth: usize,
    ) {
        if depth > MAX_DEPTH || !inner.is_object() {
            return;
        }
        self.plain_keywords(inner, outer, path);
        for (name, property) in inner["properties"].as_object().into_iter().flatten() {
            let property_path = format!("{path}.properties[{name}]");
            let peer_path = format!("{outer_path}.properties[{name}]");
            match outer["properties"].get(name) {
                Some(peer) => {
                    self.restriction(property, peer, &property_path, &peer_path, depth + 1)
                }
                None => {
                    self.restriction(
                        property,
                        &Value::Null,
                        &property_path,
                        &peer_path,
                        depth + 1,
                    );
                    if property.get("default").is_none() {
                        self.require(
                            peer_path,
                            &format!("because it is defined in {property_path}"),
                        );
                    }
                }
            }
        }
        if inner["items"].is_object() {
            self.restriction(
                &inner["items"],
                &outer["items"],
                &format!("{path}.items"),
                &format!("{outer_path}.items"),
                depth + 1,
            );
        }
        for name in ["allOf", "anyOf", "oneOf"] {
            for (index, nested) in inner[name].as_array().into_iter().flatten().enumerate() {
                self.restriction(
                    nested,
                    outer,
                    &format!("{path}.{name}[{index}]"),
                    outer_path,
                    depth + 1,
                );
            }
        }
        self.restriction(
            &inner["not"],
            outer,
            &format!("{path}.not"),
            outer_path,
            depth + 1,
        );
    }

    /// Keywords that may not stand inside of a restriction.
    fn plain_keywords(&mut self, inner: &Value, outer: &Value, path: &str) {
        let is_int_or_string = outer["x-kubernetes-int-or-string"] == true;
        for name in [
            "type",
            "title",
            "description",
            "default",
            "nullable",
            "additionalProperties",
        ] {
            let set = inner
                .get(name)
                .is_some_and(|value| !value.is_null() && *value != false);
            if !set || (name == "type" && is_int_or_string) {
                continue;
            }
            let detail = match name {
                "type" | "title" | "description" => "must be empty to be structural",
                "nullable" => "must be false to be structural",
                _ => "must be undefined to be structural",
            };
            self.forbid(format!("{path}.{name}"), detail);
        }
    }

    fn metadata(&mut self, metadata: &Value, path: &str) {
        let beyond = |name: &String| !matches!(name.as_str(), "name" | "generateName");
        let restricts = metadata["properties"]
            .as_object()
            .is_some_and(|properties| properties.keys().any(beyond));
        let others = metadata.as_object().is_some_and(|fields| {
            fields.keys().any(|name| {
                !matches!(
                    name.as_str(),
                    "type" | "properties" | "description" | "title"
                )
            })
        });
        if restricts || others {
            self.forbid(
                format!("{path}.properties[metadata]"),
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            );
        }
    }

    /// Validation rules: what can be said without compiling them.
    fn cel(&mut self, schema: &Value, path: &str) {
        const REASONS: [&str; 4] = [
            "FieldValueDuplicate",
            "FieldValueForbidden",
            "FieldValueInvalid",
            "FieldValueRequired",
        ];
        for (index, rule) in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let path = format!("{path}.x-kubernetes-validations[{index}]");
            if rule["rule"].as_str().unwrap_or_default().trim().is_empty() {
                self.require(format!("{path}.rule"), "rule is not specified");
            } else if let Err(reason) = Program::parse(rule["rule"].as_str().unwrap_or_default()) {
                let detail = format!("compilation failed: {reason}");
                let error = FieldError::invalid(format!("{path}.rule"), rule.clone(), detail);
                self.errors.push(error.showing(show_rule(rule)));
            }
            if let Some(message) = rule["message"].as_str() {
                if message.contains(['\n', '\r']) {
                    self.errors.push(FieldError::invalid(
                        format!("{path}.message"),
                        message,
                        "must not contain line breaks",
                    ));
                } else if message.trim().is_empty() && !message.is_empty() {
                    self.errors.push(FieldError::invalid(
                        format!("{path}.message"),
                        message,
                        "message must be non-empty if specified",
                    ));
                }
            }
            if let Some(reason) = rule["reason"].as_str()
                && !REASONS.contains(&reason)
            {
                self.errors.push(FieldError::not_supported(
                    format!("{path}.reason"),
                    reason,
                    &REASONS,
                ));
            }
        }
    }

    /// Defaults have to fit their schema.
    fn values(&mut self, schema: &Value, path: &str, depth: usize) {
        if depth > MAX_DEPTH || !schema.is_object() {
            return;
        }
        if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
            let field = format!("{path}.default");
            let structural = Structural::new(schema);
            let mut pruned = default.clone();
            // Only what is below a default is checked here, so it is no resource of its own.
            let before = self.errors.len();
            if path == self.root {
                self.forbid(field, "must not be set at the root");
            } else if !structural.prune_value(&mut pruned).is_empty() {
                self.errors.push(FieldError::invalid(
                    field,
                    default.clone(),
                    "must not have unknown fields",
                ));
            } else {
                structural.default(&mut pruned);
                self.errors.extend(
                    structural
                        .validate_value(&pruned)
                        .into_iter()
                        .map(|error| prefix(error, &field)),
                );
            }
            if self.errors.len() > before {
                return;
            }
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            self.values(property, &format!("{path}.properties[{name}]"), depth + 1);
        }
        self.values(&schema["items"], &format!("{path}.items"), depth + 1);
        self.values(
            &schema["additionalProperties"],
            &format!("{path}.additionalProperties"),
            depth + 1,
        );
    }
}

/// A rule as Go prints its internal struct.
fn show_rule(rule: &Value) -> String {
    let text = |name: &str| rule.get(name).cloned().unwrap_or_else(|| "".into());
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        rule["reason"],
        text("fieldPath"),
        rule["optionalOldSelf"],
    )
}

/// Puts an error found inside of a default where the default stands.
fn prefix(error: FieldError, path: &str) -> FieldError {
    let inner = match error.path.as_str() {
        "" | "<nil>" => path.to_string(),
        inner => format!("{path}.{inner}"),
    };
    match error.kind {
        FieldErrorKind::Required => FieldError::required(inner, error.detail),
        _ => FieldError {
            path: inner,
            ..error
        },
    }
}
