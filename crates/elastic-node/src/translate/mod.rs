//! From a pod to the request for a container group. Pure: what the pod refers to has been fetched before.
//!
//! What a container group cannot do is refused by name of the field; nothing is left out silently that the pod relies on.

mod container;
mod environment;
mod expand;
mod network;
mod probe;
mod refusal;
mod volume;

pub use environment::References;
pub use refusal::{Refusal, refuse};
pub use volume::TokenKey;

use cloud_api::model::create::{CreateContainerGroupRequest, RegistryCredential};
use cloud_api::model::describe::Tag;
use elastic_core::names::{self, tags};
use elastic_core::pod_sizing::{PodSize, SizingError, WantedSpec, wanted_specs};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;

use crate::config::ClusterSettings;

/// Longest name of a container group.
const MAX_NAME_BYTES: usize = 128;
/// Longest value of a tag.
const MAX_TAG_BYTES: usize = 128;
/// Tags a user may add.
const MAX_CUSTOM_TAGS: usize = 3;

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
    let annotation = |key: &str| {
        pod.annotations()
            .get(key)
            .filter(|value| !value.is_empty())
            .cloned()
    };
    let context = environment::Context {
        pod,
        spec,
        identity,
        settings,
        references,
    };
    let mut request = CreateContainerGroupRequest {
        container_group_name: group_name(pod),
        security_group_id: annotation(names::ECI_SECURITY_GROUP)
            .or_else(|| settings.security_group.clone()),
        resource_group_id: annotation(names::ECI_RESOURCE_GROUP)
            .or_else(|| settings.resource_group.clone()),
        restart_policy: spec.restart_policy.clone(),
        compute_category: split(annotation(names::ECI_COMPUTE_CATEGORY)),
        spot_strategy: annotation(names::ECI_SPOT_STRATEGY),
        spot_price_limit: annotation(names::ECI_SPOT_PRICE_LIMIT)
            .and_then(|text| text.parse().ok()),
        active_deadline_seconds: spec.active_deadline_seconds,
        termination_grace_period_seconds: spec.termination_grace_period_seconds,
        client_token: pod.uid(),
        tag: group_tags(pod, identity),
        host_name: Some(host_name(pod, spec)),
        share_process_namespace: spec.share_process_namespace,
        insecure_registry: annotation(names::INSECURE_REGISTRY),
        plain_http_registry: annotation(names::PLAIN_HTTP_REGISTRY),
        image_registry_credential: registry_credentials(spec, references),
        volume: volume::volumes(&context)?,
        ..CreateContainerGroupRequest::default()
    };
    network::resolver(pod, spec, settings, &mut request);
    for container in &spec.containers {
        request
            .container
            .push(container::container(&context, container)?);
    }
    for container in spec.init_containers.iter().flatten() {
        request
            .init_container
            .push(container::container(&context, container)?);
    }
    Ok(request)
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

fn group_tags(pod: &Pod, identity: Identity<'_>) -> Vec<Tag> {
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
    let custom = pod.annotations().get(names::ECI_CUSTOM_TAGS);
    let custom = custom.into_iter().flat_map(|text| text.split(','));
    all.extend(
        custom
            .filter_map(|pair| pair.split_once(':'))
            .take(MAX_CUSTOM_TAGS)
            .map(|(k, v)| tag(k.trim(), v.trim())),
    );
    all
}

fn split(text: Option<String>) -> Vec<String> {
    text.into_iter()
        .flat_map(|text| {
            text.split(',')
                .map(|part| part.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .filter(|part| !part.is_empty())
        .collect()
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
