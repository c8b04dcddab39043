//! Admission webhook configurations of both sorts.

use std::collections::BTreeSet;

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use crate::check::names::{invalid, label, subdomain};
use crate::check::numbers::port;
use crate::check::selector;
use crate::print::{NAME, age, column, name, typed};
use crate::rules::{Column, KindRules};
use crate::tree::{
    child, child_mut, fill, index, integer, is_empty, list, list_mut, present, text,
};

/// The rules of MutatingWebhookConfigurations and ValidatingWebhookConfigurations.
pub struct WebhookRules {
    /// Whether the webhooks may change objects.
    pub mutating: bool,
}

/// The rules of MutatingWebhookConfigurations.
pub const MUTATING: WebhookRules = WebhookRules { mutating: true };
/// The rules of ValidatingWebhookConfigurations.
pub const VALIDATING: WebhookRules = WebhookRules { mutating: false };

const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const URL_FORM: &str = "; desired format: https://host[/path]";
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

impl KindRules for WebhookRules {
    fn default(&self, _version: &str, object: &mut Value) {
        for hook in list_mut(object, "webhooks") {
            fill(hook, "failurePolicy", "Fail");
            fill(hook, "matchPolicy", "Equivalent");
            fill(hook, "namespaceSelector", json!({}));
            fill(hook, "objectSelector", json!({}));
            fill(hook, "timeoutSeconds", 10);
            if self.mutating {
                fill(hook, "reinvocationPolicy", "Never");
            }
            for rule in list_mut(hook, "rules") {
                fill(rule, "scope", "*");
            }
            if let Some(client) = child_mut(hook, "clientConfig")
                && let Some(service) = child_mut(client, "service")
            {
                fill(service, "port", 443);
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut names = BTreeSet::new();
        let mut errors = Vec::new();
        for (position, hook) in list(object, "webhooks").iter().enumerate() {
            let path = index("webhooks", position);
            errors.extend(self.check_hook(hook, &path));
            errors.extend(check_versions(
                hook,
                &child(&path, "admissionReviewVersions"),
            ));
            let name = text(hook, "name");
            if !name.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(child(&path, "name"), name));
            }
        }
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, typed("Webhooks", "integer"), column("Age")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let hooks = list(object, "webhooks").len();
        vec![name(object), hooks.into(), age(object, now)]
    }
}

impl WebhookRules {
    fn check_hook(&self, hook: &Value, path: &str) -> Vec<FieldError> {
        let mut errors = full_name(text(hook, "name"), &child(path, "name"));
        for (position, rule) in list(hook, "rules").iter().enumerate() {
            errors.extend(check_rule(rule, &index(&child(path, "rules"), position)));
        }
        errors.extend(choice(hook, "failurePolicy", path, &["Fail", "Ignore"]));
        errors.extend(choice(hook, "matchPolicy", path, &["Equivalent", "Exact"]));
        if !text(hook, "sideEffects").is_empty() {
            errors.extend(choice(hook, "sideEffects", path, &["None", "NoneOnDryRun"]));
        } else {
            let words = "must specify one of None, NoneOnDryRun";
            errors.push(FieldError::required(child(path, "sideEffects"), words));
        }
        if let Some(seconds) = integer(hook, "timeoutSeconds")
            && !(1..=30).contains(&seconds)
        {
            errors.push(FieldError::invalid(
                child(path, "timeoutSeconds"),
                seconds,
                "the timeout value must be between 1 and 30 seconds",
            ));
        }
        for key in ["namespaceSelector", "objectSelector"] {
            errors.extend(selector::check(&hook[key], &child(path, key)));
        }
        if self.mutating {
            errors.extend(choice(
                hook,
                "reinvocationPolicy",
                path,
                &["IfNeeded", "Never"],
            ));
        }
        errors.extend(check_client(
            &hook["clientConfig"],
            &child(path, "clientConfig"),
        ));
        errors
    }
}

fn choice(hook: &Value, key: &str, path: &str, allowed: &[&str]) -> Option<FieldError> {
    let value = text(hook, key);
    (present(hook, key) && !allowed.contains(&value))
        .then(|| FieldError::not_supported(child(path, key), value, allowed))
}

fn full_name(name: &str, path: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let wrong = subdomain(name);
    if !wrong.is_empty() {
        return invalid(path, name, wrong);
    }
    if name.split('.').count() < 3 {
        let words = "should be a domain with at least three segments separated by dots";
        return vec![FieldError::invalid(path, name, words)];
    }
    Vec::new()
}

fn check_rule(rule: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in ["apiGroups", "apiVersions", "resources"] {
        if is_empty(&rule[key]) {
            errors.push(FieldError::required(child(path, key), ""));
        }
    }
    if is_empty(&rule["operations"]) {
        errors.push(FieldError::required(child(path, "operations"), ""));
    }
    for (position, one) in list(rule, "operations").iter().enumerate() {
        let one = one.as_str().unwrap_or_default();
        if !OPERATIONS.contains(&one) {
            let path = index(&child(path, "operations"), position);
            errors.push(FieldError::not_supported(path, one, OPERATIONS));
        }
    }
    errors.extend(choice(rule, "scope", path, &["*", "Cluster", "Namespaced"]));
    errors
}

fn check_client(client: &Value, path: &str) -> Vec<FieldError> {
    match (present(client, "url"), present(client, "service")) {
        (true, false) => check_url(text(client, "url"), &child(path, "url")),
        (false, true) => check_service(&client["service"], &child(path, "service")),
        _ => vec![FieldError::required(
            path,
            "exactly one of url or service is required",
        )],
    }
}

fn check_url(url: &str, path: &str) -> Vec<FieldError> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let mut errors = Vec::new();
    let mut refuse = |value: &str, words: &str| {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{words}{URL_FORM}"),
        ));
    };
    if scheme != "https" {
        refuse(scheme, "'https' is the only allowed URL scheme");
    }
    if host.is_empty() {
        refuse(host, "host must be specified");
    }
    if let Some((user, _)) = host.split_once('@') {
        refuse(user, "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        refuse(fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = rest.split_once('?') {
        refuse(query, "query parameters are not permitted in the URL");
    }
    errors
}

fn check_service(service: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in ["name", "namespace"] {
        if text(service, key).is_empty() {
            let words = format!("service {key} is required");
            errors.push(FieldError::required(child(path, key), words));
        }
    }
    if let Some(number) = integer(service, "port") {
        errors.extend(
            port(number, &child(path, "port"))
                .into_iter()
                .map(|mut error| {
                    error.detail = format!("port is not valid: {}", error.detail);
                    error
                }),
        );
    }
    let own = text(service, "path");
    if !own.is_empty() && !own.starts_with('/') {
        let words = "must start with a '/'";
        errors.push(FieldError::invalid(child(path, "path"), own, words));
    }
    errors
}

fn check_versions(hook: &Value, path: &str) -> Vec<FieldError> {
    let versions = list(hook, "admissionReviewVersions");
    if versions.is_empty() {
        return vec![FieldError::required(
            path,
            "must specify one of v1, v1beta1",
        )];
    }
    let mut errors = Vec::new();
    for (position, one) in versions.iter().enumerate() {
        let one = one.as_str().unwrap_or_default();
        errors.extend(invalid(&index(path, position), one, label(one)));
    }
    if errors.is_empty()
        && !versions
            .iter()
            .any(|one| VERSIONS.iter().any(|known| one == known))
    {
        let shown = hook["admissionReviewVersions"].clone();
        let words = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(path, shown, words));
    }
    errors
}
