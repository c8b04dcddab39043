//! Makes a pod's volumes as folders on this machine: emptyDir, configMap, secret, downwardAPI, projected, hostPath.
//!
//! Content that can change lies behind a `..data` link that is swapped at once, as upstream does, so that a reader
//! never sees half an update.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, SecretVolumeSource, Volume,
};

use crate::environment::{Facts, References, field_value, resource_value};

/// A file of a volume: relative path to content and permission bits.
pub(crate) type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// Upstream's default permission bits of projected files.
const DEFAULT_MODE: i32 = 0o644;

/// A service account token a volume needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenRequest {
    pub audience: Option<String>,
    pub expiration_seconds: i64,
}

/// Why a volume cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// A reference or path is wrong.
    #[error("volume {volume:?}: {reason}")]
    Content { volume: String, reason: String },
    /// The file system refused.
    #[error("volume {volume:?}: write {path}")]
    Io {
        volume: String,
        path: String,
        #[source]
        source: io::Error,
    },
}

/// Tokens the pod's volumes ask for.
pub(crate) fn token_requests(pod: &Pod) -> Vec<TokenRequest> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let mut requests: Vec<_> = volumes
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten())
        .filter_map(|source| source.service_account_token.as_ref())
        .map(|token| TokenRequest {
            audience: token.audience.clone(),
            expiration_seconds: token.expiration_seconds.unwrap_or(3600),
        })
        .collect();
    requests.sort();
    requests.dedup();
    requests
}

/// What volumes are made from.
pub(crate) struct VolumeInputs<'a> {
    pub pod: &'a Pod,
    pub references: &'a References,
    pub facts: &'a Facts,
    pub tokens: &'a BTreeMap<TokenRequest, String>,
}

/// Makes or refreshes all volumes below `folder`; gives the host path of each by name.
pub(crate) fn materialise(
    folder: &Path,
    inputs: &VolumeInputs<'_>,
) -> Result<BTreeMap<String, PathBuf>, VolumeError> {
    let mut paths = BTreeMap::new();
    for volume in inputs
        .pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
    {
        let path = folder.join(&volume.name);
        let io_error = |source| VolumeError::Io {
            volume: volume.name.clone(),
            path: path.display().to_string(),
            source,
        };
        if let Some(host) = &volume.host_path {
            let kind = host.type_.as_deref().unwrap_or_default();
            if kind == "DirectoryOrCreate" {
                fs::create_dir_all(&host.path).map_err(io_error)?;
            }
            paths.insert(volume.name.clone(), PathBuf::from(&host.path));
            continue;
        }
        fs::create_dir_all(&path).map_err(io_error)?;
        if volume.empty_dir.is_some() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(io_error)?;
        } else {
            let files = files(volume, inputs).map_err(|reason| VolumeError::Content {
                volume: volume.name.clone(),
                reason,
            })?;
            write_at_once(&path, &files).map_err(io_error)?;
        }
        paths.insert(volume.name.clone(), path);
    }
    Ok(paths)
}

/// The files of one volume.
fn files(volume: &Volume, inputs: &VolumeInputs<'_>) -> Result<Files, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        config_map_files(source, inputs, source.default_mode, &mut files)?;
    }
    if let Some(source) = &volume.secret {
        secret_files(source, inputs, source.default_mode, &mut files)?;
    }
    if let Some(source) = &volume.downward_api {
        downward_files(
            source.items.as_deref(),
            inputs,
            source.default_mode,
            &mut files,
        )?;
    }
    if let Some(projected) = &volume.projected {
        let mode = projected.default_mode;
        for source in projected.sources.iter().flatten() {
            if let Some(one) = &source.config_map {
                let whole = ConfigMapVolumeSource {
                    name: one.name.clone(),
                    items: one.items.clone(),
                    optional: one.optional,
                    default_mode: mode,
                };
                config_map_files(&whole, inputs, mode, &mut files)?;
            }
            if let Some(one) = &source.secret {
                let whole = SecretVolumeSource {
                    secret_name: Some(one.name.clone()),
                    items: one.items.clone(),
                    optional: one.optional,
                    default_mode: mode,
                };
                secret_files(&whole, inputs, mode, &mut files)?;
            }
            if let Some(one) = &source.downward_api {
                downward_files(one.items.as_deref(), inputs, mode, &mut files)?;
            }
            if let Some(one) = &source.service_account_token {
                let wanted = TokenRequest {
                    audience: one.audience.clone(),
                    expiration_seconds: one.expiration_seconds.unwrap_or(3600),
                };
                let token = inputs
                    .tokens
                    .get(&wanted)
                    .ok_or("the service account token is not issued yet")?;
                insert(
                    &mut files,
                    &one.path,
                    token.clone().into_bytes(),
                    Some(0o644),
                )?;
            }
        }
    }
    Ok(files)
}

fn config_map_files(
    source: &ConfigMapVolumeSource,
    inputs: &VolumeInputs<'_>,
    mode: Option<i32>,
    files: &mut Files,
) -> Result<(), String> {
    let Some(map) = inputs.references.config_maps.get(&source.name) else {
        return if source.optional == Some(true) {
            Ok(())
        } else {
            Err(format!("configmap \"{}\" not found", source.name))
        };
    };
    let mut data: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    data.extend(
        map.data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone().into_bytes())),
    );
    data.extend(
        map.binary_data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.0.clone())),
    );
    keyed_files(data, source.items.as_deref(), source.optional, mode, files)
}

fn secret_files(
    source: &SecretVolumeSource,
    inputs: &VolumeInputs<'_>,
    mode: Option<i32>,
    files: &mut Files,
) -> Result<(), String> {
    let name = source.secret_name.clone().unwrap_or_default();
    let Some(secret) = inputs.references.secrets.get(&name) else {
        return if source.optional == Some(true) {
            Ok(())
        } else {
            Err(format!("secret \"{name}\" not found"))
        };
    };
    let data = secret
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect();
    keyed_files(data, source.items.as_deref(), source.optional, mode, files)
}

fn keyed_files(
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: Option<i32>,
    files: &mut Files,
) -> Result<(), String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return data
            .into_iter()
            .try_for_each(|(key, value)| insert(files, &key, value, mode));
    };
    for item in items {
        match data.get(&item.key) {
            Some(value) => insert(files, &item.path, value.clone(), item.mode.or(mode))?,
            None if optional == Some(true) => {}
            None => return Err(format!("references non-existent key: {}", item.key)),
        }
    }
    Ok(())
}

fn downward_files(
    items: Option<&[DownwardAPIVolumeFile]>,
    inputs: &VolumeInputs<'_>,
    mode: Option<i32>,
    files: &mut Files,
) -> Result<(), String> {
    for item in items.into_iter().flatten() {
        let text = if let Some(field) = &item.field_ref {
            field_value(inputs.pod, &field.field_path, inputs.facts)
        } else if let Some(field) = &item.resource_field_ref {
            let containers = inputs.pod.spec.iter().flat_map(|spec| &spec.containers);
            let container = containers
                .into_iter()
                .find(|one| Some(&one.name) == field.container_name.as_ref());
            let container = container.ok_or("resourceFieldRef: name a container of the pod")?;
            let divisor = field.divisor.as_ref().map(|quantity| quantity.0.as_str());
            resource_value(container, &field.resource, divisor, inputs.facts)
        } else {
            continue;
        };
        let text = text.map_err(|error| error.to_string())?;
        insert(files, &item.path, text.into_bytes(), item.mode.or(mode))?;
    }
    Ok(())
}

fn insert(
    files: &mut Files,
    path: &str,
    content: Vec<u8>,
    mode: Option<i32>,
) -> Result<(), String> {
    let unsafe_path = path.is_empty()
        || path.starts_with('/')
        || path.split('/').any(|part| part == ".." || part.is_empty());
    if unsafe_path || path.starts_with("..") {
        return Err(format!(
            "path {path:?} must be relative and stay inside the volume"
        ));
    }
    let mode = u32::try_from(mode.unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o777;
    files.insert(path.to_string(), (content, mode));
    Ok(())
}

/// Replaces the whole content by swapping one link. Does nothing when it is the same already.
fn write_at_once(folder: &Path, files: &Files) -> io::Result<()> {
    let data = folder.join("..data");
    if holds(&data, files) {
        return Ok(());
    }
    let generation = (0..u32::MAX)
        .map(|number| folder.join(format!("..{number}")))
        .find(|path| !path.exists())
        .ok_or_else(|| io::Error::other("no free name for a new generation"))?;
    for (path, (content, mode)) in files {
        let file = generation.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, content)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(*mode))?;
    }
    fs::create_dir_all(&generation)?;
    let old = fs::read_link(&data).ok();
    let next = folder.join("..data_next");
    let _ = fs::remove_file(&next);
    if let Some(name) = generation.file_name() {
        symlink(name, &next)?;
    }
    fs::rename(&next, &data)?;
    let mut tops: Vec<&str> = files
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    tops.dedup();
    for top in &tops {
        let link = folder.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(top), &link)?;
        }
    }
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !tops.contains(&name.as_str()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    if let Some(old) = old {
        let _ = fs::remove_dir_all(folder.join(old));
    }
    Ok(())
}

fn holds(data: &Path, files: &Files) -> bool {
    data.exists()
        && count_files(data) == files.len()
        && files.iter().all(|(path, (content, _))| {
            fs::read(data.join(path)).is_ok_and(|found| found == *content)
        })
}

fn count_files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                count_files(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts() -> Facts {
        Facts {
            pod_ip: String::new(),
            host_ip: String::new(),
            node_cpu_milli: 1000,
            node_memory_bytes: 1,
        }
    }

    fn references(value: &str) -> References {
        References {
            config_maps: [(
                "c".to_string(),
                serde_json::from_value(json!({"data": {"a": value, "b": "2"}})).unwrap(),
            )]
            .into(),
            ..References::default()
        }
    }

    fn made(
        folder: &Path,
        volumes: serde_json::Value,
        references: &References,
    ) -> Result<BTreeMap<String, PathBuf>, VolumeError> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": volumes}}),
        )
        .unwrap();
        let tokens = [(
            TokenRequest {
                audience: None,
                expiration_seconds: 3607,
            },
            "secret-token".to_string(),
        )]
        .into();
        materialise(
            folder,
            &VolumeInputs {
                pod: &pod,
                references,
                facts: &facts(),
                tokens: &tokens,
            },
        )
    }

    #[test]
    fn a_changed_config_map_replaces_all_files_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = json!([{"name": "v", "configMap": {"name": "c"}}]);
        let path = made(folder.path(), volumes.clone(), &references("1")).unwrap()["v"].clone();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "1");
        let first = fs::read_link(path.join("..data")).unwrap();
        made(folder.path(), volumes.clone(), &references("1")).unwrap();
        assert_eq!(
            fs::read_link(path.join("..data")).unwrap(),
            first,
            "unchanged content is not rewritten"
        );
        made(folder.path(), volumes, &references("3")).unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "3");
        assert!(!path.join(first).exists());
    }

    #[test]
    fn a_projected_volume_joins_its_sources() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = json!([{"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "c", "items": [{"key": "a", "path": "deep/a.txt", "mode": 256}]}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        ]}}]);
        let path = made(folder.path(), volumes, &references("1")).unwrap()["v"].clone();
        assert_eq!(
            fs::read_to_string(path.join("token")).unwrap(),
            "secret-token"
        );
        assert_eq!(fs::read_to_string(path.join("deep/a.txt")).unwrap(), "1");
        assert_eq!(
            fs::metadata(path.join("deep/a.txt"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o400
        );
        assert_eq!(fs::read_to_string(path.join("name")).unwrap(), "p");
    }

    #[test]
    fn escaping_paths_and_missing_references_are_refused_by_volume() {
        let folder = tempfile::tempdir().unwrap();
        let escaping = json!([{"name": "v", "configMap": {"name": "c", "items": [{"key": "a", "path": "../x"}]}}]);
        let error = made(folder.path(), escaping, &references("1"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("\"v\"") && error.contains("inside"),
            "{error}"
        );
        let missing = json!([{"name": "v", "secret": {"secretName": "none"}}]);
        let error = made(folder.path(), missing, &References::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("secret \"none\" not found"), "{error}");
    }
}
