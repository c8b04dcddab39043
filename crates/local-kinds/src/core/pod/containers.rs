//! Containers of all three sorts, each with what only its sort may have.

use std::collections::BTreeSet;

use local_schema::FieldError;
use serde_json::Value;

use super::{environment, ports, probes, security, spec, volumes};
use crate::check::names::{invalid, label};
use crate::check::resources::requirements;
use crate::tree::{child, index, list, present, text};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];
const MAIN_ONLY: [&str; 4] = [
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
];

/// All containers of a spec.
pub fn check(spec: &Value, path: &str) -> Vec<FieldError> {
    let main_path = child(path, "containers");
    let main = list(spec, "containers");
    let mut errors = Vec::new();
    let mut taken = BTreeSet::new();
    if main.is_empty() {
        errors.push(FieldError::required(main_path.clone(), ""));
    }
    for (position, container) in main.iter().enumerate() {
        let path = index(&main_path, position);
        errors.extend(common(spec, container, &path));
        errors.extend(unique_name(&mut taken, container, &path));
        errors.extend(probes::check_container(spec, container, &path));
    }
    errors.extend(ports::host_conflicts(main, &main_path));
    errors.extend(init_containers(spec, path, &mut taken));
    errors.extend(ephemeral_containers(spec, path, &mut taken));
    errors
}

fn unique_name<'a>(
    taken: &mut BTreeSet<&'a str>,
    container: &'a Value,
    path: &str,
) -> Option<FieldError> {
    let name = text(container, "name");
    if name.is_empty() || taken.insert(name) {
        return None;
    }
    Some(FieldError::duplicate(child(path, "name"), name))
}

fn common(spec: &Value, container: &Value, path: &str) -> Vec<FieldError> {
    let name = text(container, "name");
    let mut errors = if name.is_empty() {
        vec![FieldError::required(child(path, "name"), "")]
    } else {
        invalid(&child(path, "name"), name, label(name))
    };
    if text(container, "image").is_empty() {
        errors.push(FieldError::required(child(path, "image"), ""));
    }
    errors.extend(spec::one_of(
        container,
        "terminationMessagePolicy",
        path,
        MESSAGE_POLICIES,
    ));
    errors.extend(ports::check(container, path));
    errors.extend(environment::check(container, path));
    errors.extend(volumes::check_mounts(spec, container, path));
    errors.extend(spec::one_of(
        container,
        "imagePullPolicy",
        path,
        PULL_POLICIES,
    ));
    errors.extend(requirements(
        &container["resources"],
        &child(path, "resources"),
    ));
    errors.extend(security::check_container(
        &container["securityContext"],
        &child(path, "securityContext"),
    ));
    errors
}

fn init_containers<'a>(
    spec: &'a Value,
    path: &str,
    taken: &mut BTreeSet<&'a str>,
) -> Vec<FieldError> {
    let path = child(path, "initContainers");
    let mut errors = Vec::new();
    for (position, container) in list(spec, "initContainers").iter().enumerate() {
        let own = index(&path, position);
        errors.extend(common(spec, container, &own));
        errors.extend(unique_name(taken, container, &own));
        errors.extend(ports::host_conflicts(
            std::slice::from_ref(container),
            &path,
        ));
        if text(container, "restartPolicy") == "Always" {
            errors.extend(probes::check_container(spec, container, &own));
            continue;
        }
        for key in MAIN_ONLY.iter().filter(|key| present(container, key)) {
            errors.push(FieldError::forbidden(
                child(&own, key),
                "may not be set for init containers without restartPolicy=Always",
            ));
        }
    }
    errors
}

fn ephemeral_containers<'a>(
    spec: &'a Value,
    path: &str,
    taken: &mut BTreeSet<&'a str>,
) -> Vec<FieldError> {
    let path = child(path, "ephemeralContainers");
    let mut errors = Vec::new();
    for (position, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        let own = index(&path, position);
        errors.extend(common(spec, container, &own));
        errors.extend(unique_name(taken, container, &own));
        let target = text(container, "targetContainerName");
        let known = |one: &Value| text(one, "name") == target;
        if !target.is_empty()
            && !list(spec, "containers").iter().any(known)
            && !list(spec, "initContainers").iter().any(known)
        {
            errors.push(FieldError::new(
                local_schema::FieldErrorKind::NotFound,
                child(&own, "targetContainerName"),
                target,
                "",
            ));
        }
        for key in MAIN_ONLY.iter().chain(&["ports"]) {
            if present(container, key) {
                let words = "cannot be set for an Ephemeral Container";
                errors.push(FieldError::forbidden(child(&own, key), words));
            }
        }
    }
    errors
}
