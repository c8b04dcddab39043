//! Kinds of the group `apps`, and what workloads that own pods have in common.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod stateful_set;

use local_schema::FieldError;
use serde_json::{Value, json};

use crate::check::selector;
use crate::core::pod::check_template;
use crate::rules::ScalePaths;
use crate::tree::{at, child, present, text};

/// `/scale` of everything with `spec.replicas` and a selector object.
const SCALE: ScalePaths = ScalePaths {
    spec_replicas: "/spec/replicas",
    status_replicas: "/status/replicas",
    selector: "/spec/selector",
};

/// A new object's status is empty, whatever the client sent.
fn clear_status(object: &mut Value) {
    object["status"] = json!({});
}

/// The selector object of a workload: there, well formed, not selecting everything.
fn check_selector(spec: &Value, path: &str, owner: &str) -> Vec<FieldError> {
    let path = child(path, "selector");
    let own = &spec["selector"];
    if own.is_null() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = selector::check(own, &path);
    if selector::is_unlimited(own) {
        let words = format!("empty selector is invalid for {owner}");
        errors.push(FieldError::invalid(path, own.clone(), words).showing(selector::shown(own)));
    }
    errors
}

/// The template, which the selector has to match, or the complaint that the selector is unusable.
fn check_selected_template(spec: &Value, path: &str, what: &str) -> Vec<FieldError> {
    let own = &spec["selector"];
    if !selector::is_usable(own) {
        let error = FieldError::invalid(
            child(path, "selector"),
            own.clone(),
            "invalid label selector",
        );
        return vec![error.showing(selector::shown(own))];
    }
    let path = child(path, "template");
    let template = &spec["template"];
    let mut errors: Vec<FieldError> = selected(own, template, &path).into_iter().collect();
    errors.extend(check_template(template, &path));
    errors.extend(endless(template, &path, what));
    errors
}

/// The template's labels satisfy the selector.
fn selected(own: &Value, template: &Value, path: &str) -> Option<FieldError> {
    let labels = at(template, "/metadata/labels");
    (!selector::matches(own, labels)).then(|| {
        FieldError::invalid(
            format!("{path}.metadata.labels"),
            labels.clone(),
            "`selector` does not match template `labels`",
        )
    })
}

/// Pods of a workload are restarted for ever.
fn endless(template: &Value, path: &str, what: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &template["spec"];
    let policy = text(spec, "restartPolicy");
    if policy != "Always" {
        errors.push(FieldError::not_supported(
            format!("{path}.spec.restartPolicy"),
            policy,
            &["Always"],
        ));
    }
    if present(spec, "activeDeadlineSeconds") {
        errors.push(FieldError::forbidden(
            format!("{path}.spec.activeDeadlineSeconds"),
            format!("activeDeadlineSeconds in {what} is not Supported"),
        ));
    }
    errors
}
