//! Names inside of definitions.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

use crate::field_error::FieldError;

const LABEL_MAX_LENGTH: usize = 63;
const LABEL_PATTERN: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_PATTERN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

fn matcher(cell: &'static OnceLock<Option<Regex>>, pattern: &str) -> Option<&'static Regex> {
    cell.get_or_init(|| Regex::new(&format!("^{pattern}$")).ok())
        .as_ref()
}

/// A DNS-1035 label.
pub(super) fn is_label(text: &str, path: &str, errors: &mut Vec<FieldError>) {
    static LABEL: OnceLock<Option<Regex>> = OnceLock::new();
    if text.len() > LABEL_MAX_LENGTH {
        errors.push(FieldError::invalid(
            path,
            text,
            format!("must be no more than {LABEL_MAX_LENGTH} characters"),
        ));
    }
    if !matcher(&LABEL, LABEL_PATTERN).is_some_and(|label| label.is_match(text)) {
        errors.push(FieldError::invalid(
            path,
            text,
            format!("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '{LABEL_PATTERN}')"),
        ));
    }
}

/// A group: a domain with a dot.
pub(super) fn group(group: &str, errors: &mut Vec<FieldError>) {
    static SUBDOMAIN: OnceLock<Option<Regex>> = OnceLock::new();
    let path = "spec.group";
    if group.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !matcher(&SUBDOMAIN, SUBDOMAIN_PATTERN).is_some_and(|domain| domain.is_match(group)) {
        errors.push(FieldError::invalid(
            path,
            group,
            format!("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN_PATTERN}')"),
        ));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid(
            path,
            group,
            "should be a domain with at least one dot",
        ));
    }
}

/// `spec.names`.
pub(super) fn validate(names: &Value, errors: &mut Vec<FieldError>) {
    let text = |name: &str| names[name].as_str().unwrap_or_default();
    for name in ["plural", "singular", "kind", "listKind"] {
        if text(name).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{name}"), ""));
        }
    }
    for name in ["plural", "singular"] {
        if !text(name).is_empty() {
            is_label(text(name), &format!("spec.names.{name}"), errors);
        }
    }
    for name in ["kind", "listKind"] {
        if !text(name).is_empty() {
            let before = errors.len();
            is_label(
                &text(name).to_lowercase(),
                &format!("spec.names.{name}"),
                errors,
            );
            for error in &mut errors[before..] {
                error.value = names[name].clone();
                error.detail = format!(
                    "may have mixed case, but should otherwise match: {}",
                    error.detail
                );
            }
        }
    }
    for list in ["shortNames", "categories"] {
        for (index, name) in names[list].as_array().into_iter().flatten().enumerate() {
            is_label(
                name.as_str().unwrap_or_default(),
                &format!("spec.names.{list}[{index}]"),
                errors,
            );
        }
    }
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        errors.push(FieldError::invalid(
            "spec.names.listKind",
            text("listKind"),
            "kind and listKind may not be the same",
        ));
    }
}
