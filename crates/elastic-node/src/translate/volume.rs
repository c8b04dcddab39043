//! Volumes. Everything Kubernetes renders into files travels as a `ConfigFileVolume` in the request.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloud_api::model::create::{
    ConfigFileToPath, ConfigFileVolumeSpec, EmptyDirVolumeSpec, FlexVolumeSpec, NfsVolumeSpec,
    VolumeSpec,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, PersistentVolumeClaimVolumeSource, Secret,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::TranslateError;
use crate::tokens::DEFAULT_LIFE_SECONDS;

use super::environment::{ClaimState, Context, field_text, resource_value};

/// CSI driver of NAS file systems.
const NAS_DRIVER: &str = "nasplugin.csi.alibabacloud.com";
/// Audience asked for when a token projection names none.
const DEFAULT_AUDIENCE: &str = "";

/// Which token a projection needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey {
    /// Audience, empty for the API server's own.
    pub audience: String,
    /// Wanted life.
    pub expiration_seconds: i64,
}

impl From<&ServiceAccountTokenProjection> for TokenKey {
    fn from(projection: &ServiceAccountTokenProjection) -> Self {
        Self {
            audience: projection
                .audience
                .clone()
                .unwrap_or_else(|| DEFAULT_AUDIENCE.to_owned()),
            expiration_seconds: projection
                .expiration_seconds
                .unwrap_or(DEFAULT_LIFE_SECONDS),
        }
    }
}

struct File {
    path: String,
    content: Vec<u8>,
    mode: Option<i32>,
}

pub(super) fn volumes(context: &Context<'_>) -> Result<Vec<VolumeSpec>, TranslateError> {
    context
        .spec
        .volumes
        .iter()
        .flatten()
        .map(|volume| translate(context, volume))
        .collect()
}

fn translate(context: &Context<'_>, volume: &Volume) -> Result<VolumeSpec, TranslateError> {
    let referrer = format!("volume {}", volume.name);
    let mut spec = VolumeSpec {
        name: volume.name.clone(),
        ..VolumeSpec::default()
    };
    if let Some(empty) = &volume.empty_dir {
        spec.volume_type = "EmptyDirVolume".to_owned();
        spec.empty_dir_volume = Some(EmptyDirVolumeSpec {
            medium: empty.medium.clone(),
            size_limit: empty.size_limit.as_ref().map(|limit| limit.0.clone()),
        });
    } else if let Some(nfs) = &volume.nfs {
        share(
            &mut spec,
            nfs.server.clone(),
            nfs.path.clone(),
            nfs.read_only,
        );
    } else if let Some(flex) = &volume.flex_volume {
        spec.volume_type = "FlexVolume".to_owned();
        spec.flex_volume = Some(flex_volume(&flex.driver, &flex.fs_type, &flex.options));
    } else if let Some(claim) = &volume.persistent_volume_claim {
        claimed(context, &referrer, claim, &mut spec)?;
    } else {
        let (files, mode) = rendered(context, &referrer, volume)?;
        spec.volume_type = "ConfigFileVolume".to_owned();
        spec.config_file_volume = Some(ConfigFileVolumeSpec {
            default_mode: mode.map(octal_digits),
            config_file_to_path: files.into_iter().map(to_wire).collect(),
        });
    }
    Ok(spec)
}

/// Files that are made from what the pod refers to, with the mode of those that have none of their own.
fn rendered(
    context: &Context<'_>,
    referrer: &str,
    volume: &Volume,
) -> Result<(Vec<File>, Option<i32>), TranslateError> {
    Ok(if let Some(source) = &volume.config_map {
        let found = context
            .references
            .config_maps
            .get(&source.name)
            .and_then(Option::as_ref);
        let values = found.map(config_map_files);
        let wanted = Wanted::new(
            referrer,
            "ConfigMap",
            &source.name,
            source.items.as_deref(),
            source.optional,
        );
        (wanted.files(values)?, source.default_mode)
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let found = context
            .references
            .secrets
            .get(&name)
            .and_then(Option::as_ref);
        let values = found.map(secret_files);
        let wanted = Wanted::new(
            referrer,
            "Secret",
            &name,
            source.items.as_deref(),
            source.optional,
        );
        (wanted.files(values)?, source.default_mode)
    } else if let Some(source) = &volume.downward_api {
        (
            downward(context, referrer, source.items.iter().flatten())?,
            source.default_mode,
        )
    } else if let Some(source) = &volume.projected {
        let mut files = Vec::new();
        for projection in source.sources.iter().flatten() {
            files.extend(projected(context, referrer, projection)?);
        }
        (files, source.default_mode)
    } else {
        return Err(TranslateError::Invalid {
            field: referrer.to_owned(),
            reason: "has no supported source".into(),
        });
    })
}

fn flex_volume(
    driver: &str,
    fs_type: &Option<String>,
    options: &Option<BTreeMap<String, String>>,
) -> FlexVolumeSpec {
    let options = options.as_ref().filter(|options| !options.is_empty());
    FlexVolumeSpec {
        driver: driver.to_owned(),
        fs_type: fs_type.clone(),
        options: options.and_then(|options| serde_json::to_string(options).ok()),
    }
}

/// A claim is as good as the volume it is bound to: NFS and NAS volumes become shares, flex volumes stay what they are.
fn claimed(
    context: &Context<'_>,
    referrer: &str,
    source: &PersistentVolumeClaimVolumeSource,
    spec: &mut VolumeSpec,
) -> Result<(), TranslateError> {
    let missing = |problem: &str| TranslateError::Missing {
        referrer: referrer.to_owned(),
        kind: "PersistentVolumeClaim",
        name: source.claim_name.clone(),
        problem: problem.to_owned(),
    };
    let volume = match context.references.claims.get(&source.claim_name) {
        None | Some(ClaimState::Missing) => return Err(missing("does not exist")),
        Some(ClaimState::Unbound) => return Err(missing("is not bound to a volume")),
        Some(ClaimState::Bound(volume)) => volume,
    };
    let persistent = volume.spec.clone().unwrap_or_default();
    let read_only = source.read_only;
    if let Some(nfs) = persistent.nfs {
        share(spec, nfs.server, nfs.path, read_only.or(nfs.read_only));
        return Ok(());
    }
    if let Some(flex) = persistent.flex_volume {
        spec.volume_type = "FlexVolume".to_owned();
        spec.flex_volume = Some(flex_volume(&flex.driver, &flex.fs_type, &flex.options));
        return Ok(());
    }
    let csi = persistent.csi.filter(|csi| csi.driver == NAS_DRIVER);
    let attributes = csi.and_then(|csi| csi.volume_attributes);
    let attribute = |key: &str| attributes.as_ref()?.get(key).cloned();
    if let Some(server) = attribute("server") {
        let path = attribute("path").unwrap_or_else(|| "/".to_owned());
        share(spec, server, path, read_only);
        return Ok(());
    }
    Err(TranslateError::Invalid {
        field: referrer.to_owned(),
        reason: format!(
            "claim {} is bound to a volume that is neither NFS, NAS ({NAS_DRIVER}) nor a flex volume; use one of these",
            source.claim_name
        ),
    })
}

fn share(spec: &mut VolumeSpec, server: String, path: String, read_only: Option<bool>) {
    spec.volume_type = "NFSVolume".to_owned();
    spec.nfs_volume = Some(NfsVolumeSpec {
        server,
        path,
        read_only,
    });
}

fn to_wire(file: File) -> ConfigFileToPath {
    ConfigFileToPath {
        path: file.path,
        content: STANDARD.encode(file.content),
        mode: file.mode.map(octal_digits),
    }
}

/// The cloud wants `0644` written as the number 644.
fn octal_digits(mode: i32) -> i64 {
    format!("{:o}", mode & 0o7777).parse().unwrap_or(644)
}

fn config_map_files(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let texts = map
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let bytes = map
        .binary_data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    texts.chain(bytes).collect()
}

fn secret_files(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}

/// Which keys of an object become files.
struct Wanted<'a> {
    referrer: &'a str,
    kind: &'static str,
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    optional: bool,
}

impl<'a> Wanted<'a> {
    fn new(
        referrer: &'a str,
        kind: &'static str,
        name: &'a str,
        items: Option<&'a [KeyToPath]>,
        optional: Option<bool>,
    ) -> Self {
        Self {
            referrer,
            kind,
            name,
            items,
            optional: optional == Some(true),
        }
    }

    fn files(
        &self,
        values: Option<BTreeMap<String, Vec<u8>>>,
    ) -> Result<Vec<File>, TranslateError> {
        let Some(values) = values else {
            return if self.optional {
                Ok(Vec::new())
            } else {
                Err(self.missing("does not exist".to_owned()))
            };
        };
        let Some(items) = self.items.filter(|items| !items.is_empty()) else {
            let file = |(path, content)| File {
                path,
                content,
                mode: None,
            };
            return Ok(values.into_iter().map(file).collect());
        };
        let mut files = Vec::new();
        for item in items {
            match values.get(&item.key) {
                Some(content) => {
                    files.push(File {
                        path: item.path.clone(),
                        content: content.clone(),
                        mode: item.mode,
                    });
                }
                None if self.optional => {}
                None => return Err(self.missing(format!("has no key {}", item.key))),
            }
        }
        Ok(files)
    }

    fn missing(&self, problem: String) -> TranslateError {
        let (referrer, name) = (self.referrer.to_owned(), self.name.to_owned());
        TranslateError::Missing {
            referrer,
            kind: self.kind,
            name,
            problem,
        }
    }
}

fn projected(
    context: &Context<'_>,
    referrer: &str,
    projection: &VolumeProjection,
) -> Result<Vec<File>, TranslateError> {
    if let Some(source) = &projection.config_map {
        let values = context
            .references
            .config_maps
            .get(&source.name)
            .and_then(Option::as_ref)
            .map(config_map_files);
        return Wanted::new(
            referrer,
            "ConfigMap",
            &source.name,
            source.items.as_deref(),
            source.optional,
        )
        .files(values);
    }
    if let Some(source) = &projection.secret {
        let values = context
            .references
            .secrets
            .get(&source.name)
            .and_then(Option::as_ref)
            .map(secret_files);
        return Wanted::new(
            referrer,
            "Secret",
            &source.name,
            source.items.as_deref(),
            source.optional,
        )
        .files(values);
    }
    if let Some(source) = &projection.downward_api {
        return downward(context, referrer, source.items.iter().flatten());
    }
    if let Some(source) = &projection.service_account_token {
        let token = context.references.tokens.get(&TokenKey::from(source));
        // A cluster that issues no tokens runs pods without them.
        let file = |token: &String| File {
            path: source.path.clone(),
            content: token.clone().into_bytes(),
            mode: None,
        };
        return Ok(token.map(file).into_iter().collect());
    }
    Err(TranslateError::Invalid {
        field: referrer.to_owned(),
        reason: "a projection of this kind is not supported on virtual nodes".into(),
    })
}

fn downward<'f>(
    context: &Context<'_>,
    referrer: &str,
    items: impl Iterator<Item = &'f DownwardAPIVolumeFile>,
) -> Result<Vec<File>, TranslateError> {
    let mut files = Vec::new();
    for item in items {
        let invalid = |reason: String| TranslateError::Invalid {
            field: format!("{referrer}, file {}", item.path),
            reason,
        };
        let text = if let Some(field) = &item.field_ref {
            field_text(context.pod, context.identity.node, &field.field_path).ok_or_else(|| {
                invalid(format!("fieldPath {:?} is not supported", field.field_path))
            })?
        } else if let Some(field) = &item.resource_field_ref {
            let divisor = field.divisor.as_ref().map(|divisor| divisor.0.as_str());
            let container = field.container_name.as_deref().unwrap_or_default();
            resource_value(context, container, &field.resource, divisor).map_err(invalid)?
        } else {
            return Err(invalid("has no source".to_owned()));
        };
        files.push(File {
            path: item.path.clone(),
            content: text.into_bytes(),
            mode: item.mode,
        });
    }
    Ok(files)
}
