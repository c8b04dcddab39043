//! Query parameters and the option objects they stand for, checked as upstream checks them.

use crate::status::{ApiError, ApiResult};
use local_schema::{FieldError, FieldErrorKind};
use serde_json::Value;

/// Decoded query parameters in their order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses what stands after `?`.
    pub fn parse(text: &str) -> Self {
        let decode = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_encoding::percent_decode_str(&spaced)
                .decode_utf8_lossy()
                .into_owned()
        };
        Self(
            text.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The first value, when the parameter is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(one, _)| one == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value or empty text.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Every value.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(one, _)| one == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// Go's idea of a boolean parameter: there, and not `false` or `0`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.get(name)
            .map(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// An integer parameter.
    pub fn integer(&self, name: &str) -> ApiResult<Option<i64>> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }
}

/// How unknown and duplicate fields are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped in silence.
    Ignore,
    /// Dropped with a warning.
    Warn,
    /// Refused.
    Strict,
}

/// `CreateOptions`, `UpdateOptions`, `PatchOptions`.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Do everything but store.
    pub dry_run: bool,
    /// As given, may be empty.
    pub field_manager: String,
    /// Treatment of unknown fields.
    pub field_validation: FieldValidation,
    /// Apply takes over conflicting fields.
    pub force: bool,
}

const MANAGER_BYTES: usize = 128;

fn check_dry_run(values: &[&str], errors: &mut Vec<FieldError>) {
    if values.iter().any(|value| *value != "All") {
        let list: Vec<Value> = values.iter().map(|value| Value::from(*value)).collect();
        errors.push(FieldError::not_supported(
            "dryRun",
            Value::Array(list),
            &["All"],
        ));
    }
}

fn check_manager(manager: &str, errors: &mut Vec<FieldError>) {
    if manager.len() > MANAGER_BYTES {
        let detail = format!("may not be more than {MANAGER_BYTES} bytes");
        errors.push(FieldError::new(
            FieldErrorKind::TooLong,
            "fieldManager",
            Value::Null,
            detail,
        ));
    }
    for (at, letter) in manager.chars().enumerate() {
        if letter.is_control() {
            let detail = format!(
                "invalid character U+{:04X} (at position {at})",
                letter as u32
            );
            errors.push(FieldError::invalid("fieldManager", manager, detail));
        }
    }
}

impl WriteOptions {
    /// From the query; `kind` is the option object's name, for errors.
    pub fn parse(query: &Query, kind: &str, apply: bool) -> ApiResult<Self> {
        let mut errors = Vec::new();
        let manager = query.text("fieldManager");
        let force = query.flag("force");
        if kind == "PatchOptions" {
            if apply && manager.is_empty() {
                errors.push(FieldError::required(
                    "fieldManager",
                    "is required for apply patch",
                ));
            }
            if !apply && force.is_some() {
                errors.push(FieldError::forbidden(
                    "force",
                    "may not be specified for non-apply patch",
                ));
            }
        }
        check_manager(manager, &mut errors);
        let dry_run = query.all("dryRun");
        check_dry_run(&dry_run, &mut errors);
        let field_validation = match query.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.push(FieldError::not_supported(
                    "fieldValidation",
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                ));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", kind, "", &errors));
        }
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            field_manager: manager.to_string(),
            field_validation,
            force: force.unwrap_or(false),
        })
    }
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds of grace.
    pub grace_period_seconds: Option<i64>,
    /// `Foreground`, `Background`, `Orphan` or empty.
    pub propagation: String,
    /// Must be the stored uid.
    pub uid: Option<String>,
    /// Must be the stored resourceVersion.
    pub resource_version: Option<String>,
    /// Do everything but store.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// From a decoded body, or from the query when there is none.
    pub fn parse(query: &Query, body: Option<&Value>) -> ApiResult<Self> {
        let text = |value: &Value| value.as_str().map(str::to_string);
        let (grace, policy, orphan, dry_run, uid, resource_version) = match body {
            Some(body) => (
                body["gracePeriodSeconds"].as_i64(),
                body["propagationPolicy"].as_str().map(str::to_string),
                body["orphanDependents"].as_bool(),
                body["dryRun"]
                    .as_array()
                    .map(|list| list.iter().filter_map(text).collect())
                    .unwrap_or_default(),
                text(&body["preconditions"]["uid"]),
                text(&body["preconditions"]["resourceVersion"]),
            ),
            None => (
                query.integer("gracePeriodSeconds")?,
                query.get("propagationPolicy").map(str::to_string),
                query.flag("orphanDependents"),
                query
                    .all("dryRun")
                    .into_iter()
                    .map(str::to_string)
                    .collect::<Vec<_>>(),
                None,
                None,
            ),
        };
        let mut errors = Vec::new();
        if orphan.is_some() && policy.is_some() {
            errors.push(FieldError::invalid(
                "propagationPolicy",
                policy.clone().unwrap_or_default(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if let Some(policy) = &policy
            && !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan")
        {
            errors.push(FieldError::not_supported(
                "propagationPolicy",
                policy.as_str(),
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
        let list: Vec<&str> = dry_run.iter().map(String::as_str).collect();
        check_dry_run(&list, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                &errors,
            ));
        }
        let orphaned = match orphan {
            Some(true) => Some("Orphan".to_string()),
            Some(false) => Some("Background".to_string()),
            None => None,
        };
        Ok(Self {
            grace_period_seconds: grace,
            propagation: policy.or(orphaned).unwrap_or_default(),
            uid,
            resource_version,
            dry_run: !dry_run.is_empty(),
        })
    }
}

/// `ListOptions`, for lists, watches and deletecollection.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Page size, 0 = everything.
    pub limit: usize,
    /// Where the last page ended.
    pub continue_token: String,
    /// As given.
    pub resource_version: String,
    /// `Exact`, `NotOlderThan` or empty.
    pub resource_version_match: String,
    /// Seconds until a watch ends.
    pub timeout_seconds: Option<i64>,
    /// A watch gets bookmarks.
    pub bookmarks: bool,
    /// A watch starts with the present state.
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// From the query.
    pub fn parse(query: &Query, watch: bool) -> ApiResult<Self> {
        let limit = query.integer("limit")?.unwrap_or(0);
        let options = Self {
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: query.text("continue").to_string(),
            resource_version: query.text("resourceVersion").to_string(),
            resource_version_match: query.text("resourceVersionMatch").to_string(),
            timeout_seconds: query.integer("timeoutSeconds")?,
            bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
            send_initial_events: query.flag("sendInitialEvents"),
        };
        let errors = if watch {
            options.watch_errors()
        } else {
            options.list_errors()
        };
        if errors.is_empty() {
            Ok(options)
        } else {
            Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &errors))
        }
    }

    fn list_errors(&self) -> Vec<FieldError> {
        const FIELD: &str = "resourceVersionMatch";
        let mut errors = Vec::new();
        let wanted = self.resource_version_match.as_str();
        if !wanted.is_empty() {
            if self.resource_version.is_empty() {
                errors.push(FieldError::forbidden(
                    FIELD,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !self.continue_token.is_empty() {
                errors.push(FieldError::forbidden(
                    FIELD,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if !matches!(wanted, "Exact" | "NotOlderThan") {
                errors.push(FieldError::not_supported(
                    FIELD,
                    wanted,
                    &["Exact", "NotOlderThan", ""],
                ));
            }
            if wanted == "Exact" && self.resource_version == "0" {
                errors.push(FieldError::forbidden(
                    FIELD,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if self.send_initial_events.is_some() {
            errors.push(FieldError::forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            ));
        }
        errors
    }

    fn watch_errors(&self) -> Vec<FieldError> {
        const FIELD: &str = "resourceVersionMatch";
        let mut errors = Vec::new();
        let wanted = self.resource_version_match.as_str();
        if !self.continue_token.is_empty() {
            errors.push(FieldError::forbidden(
                FIELD,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
            return errors;
        }
        match self.send_initial_events {
            None if !wanted.is_empty() => errors.push(FieldError::forbidden(
                FIELD,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )),
            Some(_) => {
                if wanted != "NotOlderThan" {
                    errors.push(FieldError::forbidden(
                        FIELD,
                        "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                    ));
                }
                if !wanted.is_empty() && wanted != "NotOlderThan" {
                    errors.push(FieldError::not_supported(FIELD, wanted, &["NotOlderThan"]));
                }
            }
            None => {}
        }
        errors
    }
}

/// Parses a resourceVersion as Go does; the sentence is upstream's.
pub fn parse_revision(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_first_counts() {
        let query = Query::parse("a=1&labelSelector=app%3Dx&a=2&b&c=x+y");
        assert_eq!(query.text("a"), "1");
        assert_eq!(query.text("labelSelector"), "app=x");
        assert_eq!(query.all("a"), ["1", "2"]);
        assert_eq!(query.flag("b"), Some(true));
        assert_eq!(query.text("c"), "x y");
    }

    #[test]
    fn an_unknown_field_validation_is_refused_with_the_supported_ones() {
        let error = WriteOptions::parse(
            &Query::parse("fieldValidation=Maybe"),
            "CreateOptions",
            false,
        )
        .unwrap_err();
        assert_eq!(
            error.message(),
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Maybe\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        );
    }
}
