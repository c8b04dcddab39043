//! From a pod to the request for a container group. Pure: what the pod refers to has been fetched before.
//!
//! What a container group cannot do is refused by name of the field; nothing is left out silently that the pod relies on.

mod container;
mod environment;
mod expand;
mod gpu;
mod network;
mod options;
mod probe;
mod refusal;
mod volume;

pub use environment::{ClaimState, References};
pub use refusal::{Refusal, is_daemon, refuse};
pub use volume::TokenKey;

use cloud_api::model::create::{CreateContainerGroupRequest, RegistryCredential};
use cloud_api::model::describe::Tag;
use elastic_core::eci_annotations::InstanceOptions;
use elastic_core::eci_profile::describe;
use elastic_core::names::tags;
use elastic_core::pod_sizing::{PodSize, SizingError, WantedSpec, wanted_specs};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::ResourceExt;

use crate::config::ClusterSettings;

/// Longest name of a container group.
const MAX_NAME_BYTES: usize = 128;
/// Longest value of a tag.
const MAX_TAG_BYTES: usize = 128;

/// Why a pod cannot be expressed as a container group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    /// The pod asks for something that virtual nodes do not have.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its size is unreadable.
    #[error(transparent)]
    Sizing(#[from] SizingError),
    /// It refers to something that does not exist (yet).
    #[error("{referrer} refers to {kind} {name}, which {problem}")]
    Missing {
        /// The field or container.
        referrer: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// `does not exist` or `has no key …`.
        problem: String,
    },
    /// Annotations that cannot be followed.
    #[error("annotation {0}")]
    Annotations(String),
    /// A field has a value that cannot be used.
    #[error("{field}: {reason}")]
    Invalid {
        /// Path in the pod.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

impl TranslateError {
    /// Whether it may succeed later without a change of the pod.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// Who the pod is run for.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The cluster's id.
    pub cluster: &'a str,
    /// The virtual node.
    pub node: &'a str,
    /// Its address, which pods see as their host's.
    pub node_ip: &'a str,
}

/// The request, without region, vSwitch and size, which differ from try to try.
pub fn container_group(
    pod: &Pod,
    identity: Identity<'_>,
    settings: &ClusterSettings,
    references: &References,
) -> Result<CreateContainerGroupRequest, TranslateError> {
    refuse(pod)?;
    let spec = pod.spec.as_ref().ok_or_else(|| TranslateError::Invalid {
        field: "spec".into(),
        reason: "is missing".into(),
    })?;
    let options = options_of(pod)?;
    let context = environment::Context {
        pod,
        spec,
        identity,
        settings,
        references,
    };
    let own =
        |own: &Option<String>, cluster: &Option<String>| own.clone().or_else(|| cluster.clone());
    let mut request = CreateContainerGroupRequest {
        container_group_name: group_name(pod),
        security_group_id: own(&options.security_groups, &settings.security_group),
        resource_group_id: own(&options.resource_group, &settings.resource_group),
        restart_policy: spec.restart_policy.clone(),
        active_deadline_seconds: spec.active_deadline_seconds,
        termination_grace_period_seconds: spec.termination_grace_period_seconds,
        client_token: pod.uid(),
        tag: group_tags(pod, identity, settings, &options),
        host_name: Some(host_name(pod, spec)),
        share_process_namespace: spec.share_process_namespace,
        image_registry_credential: registry_credentials(spec, references),
        volume: volume::volumes(&context)?,
        ..CreateContainerGroupRequest::default()
    };
    network::resolver(pod, spec, settings, &mut request);
    options::apply(&options, spec, &mut request)?;
    for container in spec.init_containers.iter().flatten() {
        let translated = container::container(&context, container)?;
        if is_sidecar(container) {
            // Started with the others and ended after them; the cloud knows it by this variable.
            request.container.push(container::as_sidecar(translated));
        } else {
            request.init_container.push(translated);
        }
    }
    for container in &spec.containers {
        request
            .container
            .push(container::container(&context, container)?);
    }
    Ok(request)
}

/// What the annotations of a pod say; every one that cannot be followed is named.
pub fn options_of(pod: &Pod) -> Result<InstanceOptions, TranslateError> {
    InstanceOptions::read(pod.annotations())
        .map_err(|problems| TranslateError::Annotations(describe(&problems)))
}

/// An init container that runs along with the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The sizes to try, in order.
pub fn sizes(pod: &Pod) -> Result<Vec<WantedSpec>, TranslateError> {
    let spec = pod.spec.clone().unwrap_or_default();
    Ok(wanted_specs(&spec, pod.metadata.annotations.as_ref())?)
}

/// Puts one of the sizes into a request.
pub fn with_size(request: &mut CreateContainerGroupRequest, size: &WantedSpec) {
    match size {
        WantedSpec::Size(size) => {
            request.cpu = Some(vcpu(size));
            request.memory = Some(gib(size));
            request.instance_type = None;
        }
        WantedSpec::InstanceType(name) => {
            request.cpu = None;
            request.memory = None;
            request.instance_type = Some(name.clone());
        }
    }
}

/// vCPU as the cloud counts it.
pub fn vcpu(size: &PodSize) -> f64 {
    size.cpu_milli as f64 / 1_000.0
}

/// Memory as the cloud counts it.
pub fn gib(size: &PodSize) -> f64 {
    size.memory_bytes as f64 / f64::from(1 << 30)
}

fn group_name(pod: &Pod) -> String {
    let namespace = pod.namespace().unwrap_or_default();
    let text = format!("{namespace}-{}", pod.name_any());
    let allowed = |character: char| {
        if character.is_ascii_alphanumeric() {
            character
        } else {
            '-'
        }
    };
    let name: String = text
        .to_ascii_lowercase()
        .chars()
        .map(allowed)
        .take(MAX_NAME_BYTES)
        .collect();
    name.trim_matches('-').to_owned()
}

fn host_name(pod: &Pod, spec: &PodSpec) -> String {
    // As the kubelet does it: at most 63 characters, not ending in a dash or dot.
    let name = spec.hostname.clone().unwrap_or_else(|| pod.name_any());
    let name: String = name.chars().take(63).collect();
    name.trim_end_matches(['-', '.']).to_owned()
}

fn group_tags(
    pod: &Pod,
    identity: Identity<'_>,
    settings: &ClusterSettings,
    options: &InstanceOptions,
) -> Vec<Tag> {
    let tag = |key: &str, value: &str| Tag {
        key: key.to_owned(),
        value: value.chars().take(MAX_TAG_BYTES).collect(),
    };
    let mut all = vec![
        tag(tags::CLUSTER, identity.cluster),
        tag(tags::NODE, identity.node),
        tag(tags::NAMESPACE, &pod.namespace().unwrap_or_default()),
        tag(tags::POD, &pod.name_any()),
        tag(tags::UID, &pod.uid().unwrap_or_default()),
    ];
    if !settings.cluster_ip {
        all.push(tag(tags::SERVICE_ADDRESSES, "false"));
    }
    all.extend(options.tags.iter().map(|(key, value)| tag(key, value)));
    all
}

/// Logins of the pod's image pull secrets; one that cannot be read is left out, and the pull says so later.
fn registry_credentials(spec: &PodSpec, references: &References) -> Vec<RegistryCredential> {
    let secrets = spec.image_pull_secrets.iter().flatten();
    let mut all: Vec<RegistryCredential> = Vec::new();
    for credential in secrets.flat_map(|secret| references.registry_credentials(&secret.name)) {
        if !all.iter().any(|known| known.server == credential.server) {
            all.push(credential);
        }
    }
    all
}

#[cfg(test)]
mod tests;
