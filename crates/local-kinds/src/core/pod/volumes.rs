//! Volumes and the places where containers mount them.

use std::collections::BTreeSet;

use local_schema::{FieldError, FieldErrorKind};
use serde_json::Value;

use super::environment::{VOLUME_FIELDS, field_reference, resource_reference};
use crate::check::names::{invalid, label};
use crate::tree::{child, index, integer, list, present, text, truth};

const FILE_MODE_WORDS: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];

/// Volume sources in the order in which upstream looks at them.
const SOURCES: [&str; 29] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
];

/// The volumes of a spec.
pub fn check(spec: &Value, path: &str) -> Vec<FieldError> {
    let path = child(path, "volumes");
    let mut taken = BTreeSet::new();
    let mut errors = Vec::new();
    for (position, volume) in list(spec, "volumes").iter().enumerate() {
        let path = index(&path, position);
        let name = text(volume, "name");
        let mut own = source(volume, &path);
        if name.is_empty() {
            own.push(FieldError::required(child(&path, "name"), ""));
        } else {
            own.extend(invalid(&child(&path, "name"), name, label(name)));
        }
        if taken.contains(name) {
            own.push(FieldError::duplicate(child(&path, "name"), name));
        }
        if own.is_empty() {
            taken.insert(name);
        }
        errors.extend(own);
    }
    errors
}

fn source(volume: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut count = 0;
    let all = SOURCES.iter().chain(&["image"]);
    for key in all.filter(|key| present(volume, key)) {
        count += 1;
        let path = child(path, key);
        if count > 1 {
            errors.push(FieldError::forbidden(
                path,
                "may not specify more than 1 volume type",
            ));
            continue;
        }
        errors.extend(check_source(key, &volume[*key], &path));
    }
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    errors
}

fn required(source: &Value, key: &str, path: &str) -> Option<FieldError> {
    text(source, key)
        .is_empty()
        .then(|| FieldError::required(child(path, key), ""))
}

fn check_source(key: &str, source: &Value, path: &str) -> Vec<FieldError> {
    match key {
        "hostPath" => host_path(source, path),
        "secret" => {
            let mut errors: Vec<_> = required(source, "secretName", path).into_iter().collect();
            errors.extend(keys_to_paths(source, path));
            errors
        }
        "configMap" => {
            let mut errors: Vec<_> = required(source, "name", path).into_iter().collect();
            errors.extend(keys_to_paths(source, path));
            errors
        }
        "persistentVolumeClaim" => required(source, "claimName", path).into_iter().collect(),
        "nfs" => nfs(source, path),
        "downwardAPI" => downward(source, path),
        "projected" => projected(source, path),
        "csi" => required(source, "driver", path).into_iter().collect(),
        "ephemeral" if source["volumeClaimTemplate"].is_null() => {
            vec![FieldError::required(child(path, "volumeClaimTemplate"), "")]
        }
        _ => Vec::new(),
    }
}

/// A directory of the host.
pub fn host_path(source: &Value, path: &str) -> Vec<FieldError> {
    let own = text(source, "path");
    if own.is_empty() {
        return vec![FieldError::required(child(path, "path"), "")];
    }
    let mut errors = no_steps_back(own, &child(path, "path"));
    let kind = text(source, "type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(
            child(path, "type"),
            kind,
            HOST_PATH_TYPES,
        ));
    }
    errors
}

/// A directory of a file server.
pub fn nfs(source: &Value, path: &str) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = ["server", "path"]
        .into_iter()
        .filter_map(|key| required(source, key, path))
        .collect();
    let own = text(source, "path");
    if !own.starts_with('/') {
        errors.push(FieldError::invalid(
            child(path, "path"),
            own,
            "must be an absolute path",
        ));
    }
    errors
}

fn mode(source: &Value, key: &str, path: &str) -> Option<FieldError> {
    let mode = integer(source, key)?;
    (!(0..=0o777).contains(&mode))
        .then(|| FieldError::invalid(child(path, key), mode, FILE_MODE_WORDS))
}

fn keys_to_paths(source: &Value, path: &str) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = mode(source, "defaultMode", path).into_iter().collect();
    for (position, item) in list(source, "items").iter().enumerate() {
        let path = index(&child(path, "items"), position);
        errors.extend(required(item, "key", &path));
        errors.extend(item_path(item, &path));
        errors.extend(mode(item, "mode", &path));
    }
    errors
}

fn item_path(item: &Value, path: &str) -> Vec<FieldError> {
    let own = text(item, "path");
    if own.is_empty() {
        return vec![FieldError::required(child(path, "path"), "")];
    }
    let path = child(path, "path");
    let mut errors = local_path(own, &path);
    if own.starts_with("..") && !own.starts_with("../") {
        errors.push(FieldError::invalid(path, own, "must not start with '..'"));
    }
    errors
}

fn downward(source: &Value, path: &str) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = mode(source, "defaultMode", path).into_iter().collect();
    for (position, item) in list(source, "items").iter().enumerate() {
        let path = index(&child(path, "items"), position);
        errors.extend(item_path(item, &path));
        match (present(item, "fieldRef"), present(item, "resourceFieldRef")) {
            (true, resource) => {
                let field_path = child(&path, "fieldRef");
                errors.extend(field_reference(
                    &item["fieldRef"],
                    VOLUME_FIELDS,
                    &field_path,
                ));
                if resource {
                    let words = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    errors.push(FieldError::invalid(&path, "resource", words));
                }
            }
            (false, true) => {
                let path = child(&path, "resourceFieldRef");
                errors.extend(resource_reference(&item["resourceFieldRef"], true, &path));
            }
            (false, false) => errors.push(FieldError::required(
                &path,
                "one of fieldRef and resourceFieldRef is required",
            )),
        }
        errors.extend(mode(item, "mode", &path));
    }
    errors
}

const PROJECTIONS: [&str; 5] = [
    "secret",
    "configMap",
    "downwardAPI",
    "serviceAccountToken",
    "clusterTrustBundle",
];

fn projected(source: &Value, path: &str) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = mode(source, "defaultMode", path).into_iter().collect();
    let path = child(path, "sources");
    for (position, one) in list(source, "sources").iter().enumerate() {
        let path = index(&path, position);
        let mut count = 0;
        for key in PROJECTIONS.into_iter().filter(|key| present(one, key)) {
            count += 1;
            let path = child(&path, key);
            if count > 1 {
                let words = "may not specify more than 1 volume type per source";
                errors.push(FieldError::forbidden(path, words));
                continue;
            }
            errors.extend(projection(key, &one[key], &path));
        }
        if count == 0 {
            errors.push(FieldError::required(path, "must specify a source type"));
        }
    }
    errors
}

fn projection(key: &str, source: &Value, path: &str) -> Vec<FieldError> {
    match key {
        "secret" | "configMap" => {
            let mut errors: Vec<_> = required(source, "name", path).into_iter().collect();
            errors.extend(keys_to_paths(source, path));
            errors
        }
        "downwardAPI" => downward(source, path),
        "serviceAccountToken" => {
            let mut errors = Vec::new();
            let seconds = integer(source, "expirationSeconds").unwrap_or(3600);
            if seconds < 600 {
                errors.push(FieldError::invalid(
                    child(path, "expirationSeconds"),
                    seconds,
                    "may not specify a duration less than 10 minutes",
                ));
            }
            errors.extend(item_path(source, path));
            errors
        }
        _ => Vec::new(),
    }
}

/// A relative path that stays below where it starts.
fn local_path(own: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if own.starts_with('/') {
        errors.push(FieldError::invalid(path, own, "must be a relative path"));
    }
    errors.extend(no_steps_back(own, path));
    errors
}

/// No `..` between slashes.
pub fn no_steps_back(own: &str, path: &str) -> Vec<FieldError> {
    if own.split('/').any(|part| part == "..") {
        return vec![FieldError::invalid(path, own, "must not contain '..'")];
    }
    Vec::new()
}

/// Where a container mounts volumes.
pub fn check_mounts(spec: &Value, container: &Value, path: &str) -> Vec<FieldError> {
    let path = child(path, "volumeMounts");
    let mut places = BTreeSet::new();
    let mut errors = Vec::new();
    for (position, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = index(&path, position);
        let name = text(mount, "name");
        if name.is_empty() {
            errors.push(FieldError::required(child(&path, "name"), ""));
        }
        let known = list(spec, "volumes")
            .iter()
            .any(|one| text(one, "name") == name);
        if !known {
            errors.push(FieldError::new(
                FieldErrorKind::NotFound,
                child(&path, "name"),
                name,
                "",
            ));
        }
        let place = text(mount, "mountPath");
        if place.is_empty() {
            errors.push(FieldError::required(child(&path, "mountPath"), ""));
        }
        if !places.insert(place) {
            errors.push(FieldError::invalid(
                child(&path, "mountPath"),
                place,
                "must be unique",
            ));
        }
        errors.extend(inner_paths(mount, &path));
        errors.extend(propagation(container, mount, &path));
    }
    errors
}

fn inner_paths(mount: &Value, path: &str) -> Vec<FieldError> {
    let (plain, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    let mut errors = Vec::new();
    if !plain.is_empty() {
        errors.extend(local_path(plain, &child(path, "subPath")));
    }
    if !expression.is_empty() {
        let path = child(path, "subPathExpr");
        if !plain.is_empty() {
            let words = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(path.clone(), expression, words));
        }
        errors.extend(local_path(expression, &path));
    }
    errors
}

fn propagation(container: &Value, mount: &Value, path: &str) -> Option<FieldError> {
    let value = text(mount, "mountPropagation");
    if value.is_empty() {
        return None;
    }
    let path = child(path, "mountPropagation");
    if !PROPAGATIONS.contains(&value) {
        return Some(FieldError::not_supported(path, value, PROPAGATIONS));
    }
    let privileged = truth(&container["securityContext"], "privileged");
    (value == "Bidirectional" && !privileged).then(|| {
        FieldError::forbidden(
            path,
            "Bidirectional mount propagation is available only to privileged containers",
        )
    })
}
