//! Security contexts of pods and containers.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use local_schema::FieldError;
use regex::Regex;
use serde_json::Value;

use super::ports::host_network;
use crate::check::numbers::{range_words, within};
use crate::check::show;
use crate::tree::{child, index, list, present, text, truth};

const LARGEST_ID: i64 = i32::MAX as i64;
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const SECCOMP_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

static SYSCTL_PATTERN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(SYSCTL).expect("the pattern is a constant"));

/// The pod's own context.
pub fn check_pod(spec: &Value, path: &str) -> Vec<FieldError> {
    let context = &spec["securityContext"];
    let mut errors = Vec::new();
    if truth(spec, "hostNetwork") {
        for key in ["containers", "initContainers"] {
            errors.extend(host_network(list(spec, key), &child(path, key)));
        }
    }
    let own = child(path, "securityContext");
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        errors.extend(within(context, key, &own, 0, LARGEST_ID));
    }
    for group in list(context, "supplementalGroups")
        .iter()
        .filter_map(Value::as_i64)
    {
        if !(0..=LARGEST_ID).contains(&group) {
            errors.push(FieldError::invalid(
                child(&own, "supplementalGroups"),
                group,
                range_words(0, LARGEST_ID),
            ));
        }
    }
    if truth(spec, "shareProcessNamespace") && truth(spec, "hostPID") {
        errors.push(FieldError::invalid(
            child(path, "shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    errors.extend(sysctls(context, &own));
    errors.extend(seccomp(
        &context["seccompProfile"],
        &child(&own, "seccompProfile"),
    ));
    errors
}

fn sysctls(context: &Value, path: &str) -> Vec<FieldError> {
    let path = child(path, "sysctls");
    let mut names = BTreeSet::new();
    let mut errors = Vec::new();
    for (position, one) in list(context, "sysctls").iter().enumerate() {
        let path = child(&index(&path, position), "name");
        let name = text(one, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if name.len() > 253 || !SYSCTL_PATTERN.is_match(name) {
            let words = format!("must have at most 253 characters and match regex {SYSCTL}");
            errors.push(FieldError::invalid(path, name, words));
        } else if !names.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
    errors
}

fn seccomp(profile: &Value, path: &str) -> Vec<FieldError> {
    if profile.is_null() {
        return Vec::new();
    }
    let kind = text(profile, "type");
    let mut errors = Vec::new();
    if kind.is_empty() {
        let words = "type is required when seccompProfile is set";
        errors.push(FieldError::required(child(path, "type"), words));
    } else if !SECCOMP_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(
            child(path, "type"),
            kind,
            SECCOMP_TYPES,
        ));
    }
    let file = child(path, "localhostProfile");
    match (kind == "Localhost", present(profile, "localhostProfile")) {
        (true, false) => {
            let words = "must be set when seccomp type is Localhost";
            errors.push(FieldError::required(file, words));
        }
        (false, true) => {
            let words = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(file, profile.clone(), words));
        }
        _ => {}
    }
    errors
}

/// A container's context.
pub fn check_container(context: &Value, path: &str) -> Vec<FieldError> {
    if context.is_null() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    for key in ["runAsUser", "runAsGroup"] {
        errors.extend(within(context, key, path, 0, LARGEST_ID));
    }
    errors.extend(seccomp(
        &context["seccompProfile"],
        &child(path, "seccompProfile"),
    ));
    if context["allowPrivilegeEscalation"] == Value::Bool(false) {
        if truth(context, "privileged") {
            let words = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(contradiction(context, path, words));
        }
        let admin = |one: &Value| one == "CAP_SYS_ADMIN";
        if list(&context["capabilities"], "add").iter().any(admin) {
            let words = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(contradiction(context, path, words));
        }
    }
    errors
}

/// Upstream shows the whole context.
fn contradiction(context: &Value, path: &str, words: &str) -> FieldError {
    let shown = show::structure(&[
        (
            "Capabilities",
            show::nested(context, "capabilities", |one| {
                show::structure(&[
                    ("Add", show::pointer(one, "add")),
                    ("Drop", show::pointer(one, "drop")),
                ])
            }),
        ),
        ("Privileged", show::pointer(context, "privileged")),
        (
            "SELinuxOptions",
            show::nested(context, "seLinuxOptions", |one| {
                show::structure(&[
                    ("User", show::text(one, "user")),
                    ("Role", show::text(one, "role")),
                    ("Type", show::text(one, "type")),
                    ("Level", show::text(one, "level")),
                ])
            }),
        ),
        ("WindowsOptions", show::pointer(context, "windowsOptions")),
        ("RunAsUser", show::pointer(context, "runAsUser")),
        ("RunAsGroup", show::pointer(context, "runAsGroup")),
        ("RunAsNonRoot", show::pointer(context, "runAsNonRoot")),
        (
            "ReadOnlyRootFilesystem",
            show::pointer(context, "readOnlyRootFilesystem"),
        ),
        (
            "AllowPrivilegeEscalation",
            show::pointer(context, "allowPrivilegeEscalation"),
        ),
        ("ProcMount", show::pointer(context, "procMount")),
        (
            "SeccompProfile",
            show::nested(context, "seccompProfile", |one| {
                show::structure(&[
                    ("Type", show::text(one, "type")),
                    ("LocalhostProfile", show::pointer(one, "localhostProfile")),
                ])
            }),
        ),
        ("AppArmorProfile", show::pointer(context, "appArmorProfile")),
    ]);
    FieldError::invalid(path, context.clone(), words).showing(shown)
}
