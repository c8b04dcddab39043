//! What a Job may ask for, and what of it may change.

use std::collections::BTreeSet;

use local_schema::FieldError;
use serde_json::{Value, json};

use super::job::UID_LABEL;
use crate::check::metadata::immutable;
use crate::check::names::{invalid, subdomain};
use crate::check::numbers::not_negative;
use crate::check::{selector, show};
use crate::core::pod::check_template;
use crate::tree::{
    at, child, index, integer, is_empty, list, object_mut, present, restore, same, text, truth,
};

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const NOT_INDEXED: &str = "requires indexed completion mode";
const COUNTS: [&str; 7] = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
];
/// What a suspended Job's template may still change.
const SCHEDULING: [&str; 4] = ["nodeSelector", "tolerations", "affinity", "schedulingGates"];

/// Unless it is manual, the selector is exactly the generated one.
pub fn generated_selector(job: &Value) -> Option<FieldError> {
    let spec = &job["spec"];
    if truth(spec, "manualSelector") || spec["selector"].is_null() {
        return None;
    }
    let uid = text(&job["metadata"], "uid");
    let expected = json!({"matchLabels": {UID_LABEL: uid}});
    (!same(&spec["selector"], &expected)).then(|| {
        let words = "`selector` not auto-generated";
        FieldError::invalid("spec.selector", spec["selector"].clone(), words)
            .showing(selector::shown(&spec["selector"]))
    })
}

/// A Job's spec.
pub fn spec(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = template_spec(spec, path);
    let own = &spec["selector"];
    let selector_path = child(path, "selector");
    if own.is_null() {
        errors.push(FieldError::required(selector_path, ""));
        return errors;
    }
    errors.extend(selector::check(own, &selector_path));
    let labels = at(spec, "/template/metadata/labels");
    if !selector::matches(own, labels) {
        errors.push(FieldError::invalid(
            format!("{path}.template.metadata.labels"),
            labels.clone(),
            "`selector` does not match template `labels`",
        ));
    }
    errors
}

/// A Job's spec without its selector, as it also stands in CronJobs.
pub fn template_spec(spec: &Value, path: &str) -> Vec<FieldError> {
    let indexed = text(spec, "completionMode") == "Indexed";
    let mut errors = Vec::new();
    for key in COUNTS {
        errors.extend(not_negative(spec, key, path));
    }
    errors.extend(manager(spec, path));
    let mode = text(spec, "completionMode");
    if !mode.is_empty() && !["NonIndexed", "Indexed"].contains(&mode) {
        let path = child(path, "completionMode");
        errors.push(FieldError::not_supported(
            path,
            mode,
            &["NonIndexed", "Indexed"],
        ));
    }
    if let Some(limit) = integer(spec, "backoffLimitPerIndex").filter(|_| !indexed) {
        let path = child(path, "backoffLimitPerIndex");
        errors.push(FieldError::invalid(path, limit, NOT_INDEXED));
    }
    errors.extend(failure_policy(
        &spec["podFailurePolicy"],
        &child(path, "podFailurePolicy"),
    ));
    if present(spec, "successPolicy") && !indexed {
        let path = child(path, "successPolicy");
        let policy = &spec["successPolicy"];
        errors.push(
            FieldError::invalid(path, policy.clone(), NOT_INDEXED).showing(shown_success(policy)),
        );
    }
    let replacement = text(spec, "podReplacementPolicy");
    let replacements = &["Failed", "TerminatingOrFailed"];
    if !replacement.is_empty() && !replacements.contains(&replacement) {
        let path = child(path, "podReplacementPolicy");
        errors.push(FieldError::not_supported(path, replacement, replacements));
    }
    errors.extend(check_template(&spec["template"], &child(path, "template")));
    errors.extend(restart_policy(spec, path));
    errors
}

fn manager(spec: &Value, path: &str) -> Vec<FieldError> {
    let own = text(spec, "managedBy");
    let path = child(path, "managedBy");
    match own.split_once('/') {
        _ if own.is_empty() => Vec::new(),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            invalid(&path, domain, subdomain(domain))
        }
        _ => {
            let words = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            vec![FieldError::invalid(path, own, words)]
        }
    }
}

fn restart_policy(spec: &Value, path: &str) -> Option<FieldError> {
    let path = format!("{path}.template.spec.restartPolicy");
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    match policy {
        "Always" => Some(FieldError::required(
            path,
            "valid values: \"OnFailure\", \"Never\"",
        )),
        "OnFailure" if present(spec, "podFailurePolicy") => {
            let words = "only \"Never\" is supported when podFailurePolicy is specified";
            Some(FieldError::invalid(path, policy, words))
        }
        "OnFailure" | "Never" => None,
        other => Some(FieldError::not_supported(
            path,
            other,
            &["OnFailure", "Never"],
        )),
    }
}

fn failure_policy(policy: &Value, path: &str) -> Vec<FieldError> {
    let path = child(path, "rules");
    let mut errors = Vec::new();
    for (position, rule) in list(policy, "rules").iter().enumerate() {
        let path = index(&path, position);
        let action = text(rule, "action");
        if !ACTIONS.contains(&action) {
            errors.push(FieldError::not_supported(
                child(&path, "action"),
                action,
                ACTIONS,
            ));
        }
        let codes = &rule["onExitCodes"];
        if !codes.is_null() {
            errors.extend(exit_codes(codes, &child(&path, "onExitCodes")));
        }
        let words = match (codes.is_null(), is_empty(&rule["onPodConditions"])) {
            (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            _ => continue,
        };
        // Upstream leaves the value out.
        errors.push(FieldError::invalid(path, Value::Null, "").showing(words));
    }
    errors
}

fn exit_codes(codes: &Value, path: &str) -> Vec<FieldError> {
    let operator = text(codes, "operator");
    let mut errors = Vec::new();
    if !["In", "NotIn"].contains(&operator) {
        let path = child(path, "operator");
        errors.push(FieldError::not_supported(path, operator, &["In", "NotIn"]));
    }
    let path = child(path, "values");
    let mut taken = BTreeSet::new();
    for (position, value) in list(codes, "values")
        .iter()
        .filter_map(Value::as_i64)
        .enumerate()
    {
        let path = index(&path, position);
        if operator == "In" && value == 0 {
            let words = "must not be 0 for the In operator";
            errors.push(FieldError::invalid(path, value, words));
        } else if !taken.insert(value) {
            errors.push(FieldError::duplicate(path, value));
        }
    }
    errors
}

fn shown_success(policy: &Value) -> String {
    let rules: Vec<String> = list(policy, "rules")
        .iter()
        .map(|rule| {
            show::structure(&[
                ("SucceededIndexes", show::pointer(rule, "succeededIndexes")),
                ("SucceededCount", show::pointer(rule, "succeededCount")),
            ])
        })
        .collect();
    show::structure(&[("Rules", format!("[{}]", rules.join(",")))])
}

/// What must not change.
pub fn update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (after, before) = (&new["spec"], &old["spec"]);
    let mut errors = Vec::new();
    // An indexed Job may grow and shrink while both numbers stay equal.
    let elastic = text(after, "completionMode") == "Indexed"
        && same(&after["completions"], &after["parallelism"])
        && same(&before["completions"], &before["parallelism"]);
    if !elastic {
        let path = "spec.completions";
        errors.extend(immutable(
            &after["completions"],
            &before["completions"],
            path,
        ));
    }
    errors.extend(selector::immutable(
        &after["selector"],
        &before["selector"],
        "spec.selector",
    ));
    let mut template = after["template"].clone();
    let waits = truth(before, "suspend") && !present(&old["status"], "startTime");
    if waits {
        restore(&mut template, &before["template"], "metadata");
        for key in SCHEDULING {
            restore(
                object_mut(&mut template, "spec"),
                &before["template"]["spec"],
                key,
            );
        }
    }
    errors.extend(immutable(&template, &before["template"], "spec.template"));
    for key in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        errors.extend(immutable(&after[key], &before[key], &child("spec", key)));
    }
    errors
}
