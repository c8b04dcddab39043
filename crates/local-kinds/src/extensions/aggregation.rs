//! APIServices: group versions that other servers answer.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use crate::check::names::{invalid, label_1035, subdomain};
use crate::check::numbers::port;
use crate::print::{NAME, age, column, name};
use crate::rules::{Column, KindRules, NameRule};
use crate::tree::{child_mut, fill, integer, is_empty, list, number, restore, text, truth};

/// The rules of APIServices.
pub struct ApiServiceRules;

const HIGHEST_GROUP_PRIORITY: i64 = 20_000;
const HIGHEST_VERSION_PRIORITY: i64 = 1000;

const COLUMNS: &[Column] = &[NAME, column("Service"), column("Available"), column("Age")];

impl KindRules for ApiServiceRules {
    fn default(&self, _version: &str, object: &mut Value) {
        if let Some(spec) = child_mut(object, "spec")
            && let Some(service) = child_mut(spec, "service")
        {
            fill(service, "port", 443);
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({});
        if object["spec"]["service"].is_null() {
            // A group version of this very server.
            object["status"]["conditions"] = json!([{
                "type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available",
                "lastTransitionTime": object["metadata"]["creationTimestamp"],
            }]);
        }
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        if let Some(metadata) = child_mut(new, "metadata") {
            restore(metadata, &old["metadata"], "labels");
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let (group, version) = (text(spec, "group"), text(spec, "version"));
        let mut errors = Vec::new();
        let wanted = format!("{version}.{group}");
        let own = text(&object["metadata"], "name");
        if own != wanted {
            let words = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.push(FieldError::invalid("metadata.name", own, words));
        }
        if !group.is_empty() {
            errors.extend(invalid("spec.group", group, subdomain(group)));
        } else if version != "v1" {
            let words = "only v1 may have an empty group and it better be legacy kube";
            errors.push(FieldError::required("spec.group", words));
        }
        errors.extend(invalid("spec.version", version, label_1035(version)));
        errors.extend(priority(
            spec,
            "groupPriorityMinimum",
            HIGHEST_GROUP_PRIORITY,
        ));
        errors.extend(priority(spec, "versionPriority", HIGHEST_VERSION_PRIORITY));
        errors.extend(backend(spec));
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let service = &object["spec"]["service"];
        let shown = match service {
            Value::Null => "Local".to_string(),
            _ => format!("{}/{}", text(service, "namespace"), text(service, "name")),
        };
        vec![
            name(object),
            shown.into(),
            available(object).into(),
            age(object, now),
        ]
    }
}

fn available(object: &Value) -> String {
    let condition = list(&object["status"], "conditions")
        .iter()
        .find(|one| text(one, "type") == "Available");
    match condition {
        None => "Unknown".to_string(),
        Some(one) if text(one, "status") == "True" => "True".to_string(),
        Some(one) => format!("{} ({})", text(one, "status"), text(one, "reason")),
    }
}

fn priority(spec: &Value, key: &str, highest: i64) -> Option<FieldError> {
    let value = number(spec, key);
    (!(1..=highest).contains(&value)).then(|| {
        let words = format!("must be positive and less than {highest}");
        FieldError::invalid(format!("spec.{key}"), value, words)
    })
}

fn backend(spec: &Value) -> Vec<FieldError> {
    let service = &spec["service"];
    let insecure = truth(spec, "insecureSkipTLSVerify");
    let mut errors = Vec::new();
    if service.is_null() {
        if !is_empty(&spec["caBundle"]) {
            let bytes = format!("{} bytes", text(spec, "caBundle").len() / 4 * 3);
            let words = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid("spec.caBundle", bytes, words));
        }
        if insecure {
            let words = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(
                "spec.insecureSkipTLSVerify",
                true,
                words,
            ));
        }
        return errors;
    }
    for key in ["namespace", "name"] {
        if text(service, key).is_empty() {
            errors.push(FieldError::required(format!("spec.service.{key}"), ""));
        }
    }
    if let Some(value) = integer(service, "port") {
        errors.extend(
            port(value, "spec.service.port")
                .into_iter()
                .map(|mut error| {
                    error.detail = format!("port is not valid: {}", error.detail);
                    error
                }),
        );
    }
    if insecure && !is_empty(&spec["caBundle"]) {
        let words = "may not be true if caBundle is present";
        errors.push(FieldError::invalid(
            "spec.insecureSkipTLSVerify",
            true,
            words,
        ));
    }
    errors
}
