//! The documents of OCI and Docker images, as far as we read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::ImageConfig;
use super::digest::Digest;

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Layers an image may have; the kernel's overlay takes fewer than 500.
pub(super) const LAYERS_MAX: usize = 128;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) variant: Option<String>,
}

/// An index or a manifest: both are told apart by what they hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    #[serde(default)]
    pub(super) manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    pub(super) config: Option<Descriptor>,
    #[serde(default)]
    pub(super) layers: Option<Vec<Descriptor>>,
}

/// One entry of `docker save`'s `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SavedImage {
    pub(super) config: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) repo_tags: Vec<String>,
    pub(super) layers: Vec<String>,
}

/// An image's configuration document.
#[derive(Debug, Deserialize)]
pub(super) struct Configuration {
    #[serde(default, deserialize_with = "or_default")]
    config: ProcessConfiguration,
    pub(super) rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(super) struct RootFs {
    pub(super) diff_ids: Vec<Digest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessConfiguration {
    #[serde(default, deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    working_dir: String,
    #[serde(default, deserialize_with = "or_default")]
    user: String,
    #[serde(default, deserialize_with = "or_default")]
    stop_signal: String,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

/// Builders write `null` where they mean nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Configuration {
    pub(super) fn image_config(&self) -> ImageConfig {
        let config = &self.config;
        ImageConfig {
            env: config.env.clone(),
            entrypoint: config.entrypoint.clone(),
            command: config.cmd.clone(),
            working_dir: config.working_dir.clone(),
            user: config.user.clone(),
            stop_signal: config.stop_signal.clone(),
            labels: config.labels.clone(),
        }
    }
}

/// The configuration document of an image made here.
pub(super) fn write_configuration(config: &ImageConfig, diff_ids: &[Digest]) -> Vec<u8> {
    #[derive(Serialize)]
    struct RootFsOut<'a> {
        r#type: &'static str,
        diff_ids: &'a [Digest],
    }
    let document = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": config.env,
            "Entrypoint": config.entrypoint,
            "Cmd": config.command,
            "WorkingDir": config.working_dir,
            "User": config.user,
            "StopSignal": config.stop_signal,
            "Labels": config.labels,
        },
        "rootfs": RootFsOut { r#type: "layers", diff_ids },
    });
    document.to_string().into_bytes()
}

/// This machine's architecture in the words of images.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The manifest for this machine. Entries for no real platform (attestations) never match.
pub(super) fn select<'a>(
    manifests: &'a [Descriptor],
    architecture: &str,
) -> Option<&'a Descriptor> {
    let fits = |descriptor: &&Descriptor| match &descriptor.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture,
        None => false,
    };
    // `v8` is what arm64 means anyway; otherwise the plainest variant runs everywhere.
    let plain = |descriptor: &&Descriptor| {
        let variant = descriptor
            .platform
            .as_ref()
            .and_then(|platform| platform.variant.as_deref());
        matches!(variant, None | Some("" | "v8" | "v1"))
    };
    let fitting = || manifests.iter().filter(fits);
    let unnamed = || {
        manifests
            .iter()
            .find(|descriptor| descriptor.platform.is_none())
    };
    fitting()
        .find(plain)
        .or_else(|| fitting().next())
        .or_else(unnamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(architecture: &str, variant: Option<&str>) -> Descriptor {
        Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: Digest::of(architecture.as_bytes()),
            size: 1,
            platform: Some(Platform {
                architecture: architecture.into(),
                os: if architecture == "unknown" {
                    "unknown"
                } else {
                    "linux"
                }
                .into(),
                variant: variant.map(Into::into),
            }),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn the_machines_own_manifest_is_chosen() {
        let list = [
            descriptor("unknown", None),
            descriptor("arm64", Some("v8")),
            descriptor("amd64", None),
        ];
        assert_eq!(select(&list, "arm64").unwrap().digest, Digest::of(b"arm64"));
        assert_eq!(select(&list, "amd64").unwrap().digest, Digest::of(b"amd64"));
        assert!(select(&list, "riscv64").is_none());
    }

    #[test]
    fn nulls_in_a_configuration_mean_nothing() {
        let text = r#"{"config":{"Env":null,"Cmd":["a"],"User":null,"Labels":null},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let configuration: Configuration = serde_json::from_str(text).unwrap();
        let wanted = ImageConfig {
            command: vec!["a".into()],
            ..ImageConfig::default()
        };
        assert_eq!(configuration.image_config(), wanted);
    }

    #[test]
    fn a_written_configuration_reads_back() {
        let config = ImageConfig {
            env: vec!["A=1".into()],
            entrypoint: vec!["/x".into()],
            ..ImageConfig::default()
        };
        let bytes = write_configuration(&config, &[Digest::of(b"layer")]);
        let read: Configuration = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read.image_config(), config);
        assert_eq!(read.rootfs.diff_ids, [Digest::of(b"layer")]);
    }
}
