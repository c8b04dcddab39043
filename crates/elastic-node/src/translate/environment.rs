//! Environment variables, with everything they refer to.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloud_api::model::create::{EnvironmentVarSpec, FieldRef, RegistryCredential};
use elastic_core::quantity;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, EnvVarSource, PersistentVolume, Pod, PodSpec, Secret,
};
use kube::ResourceExt;

use super::expand::expand;
use super::{Identity, TokenKey, TranslateError};
use crate::config::ClusterSettings;
use crate::tokens::TokenLife;

/// The objects a pod refers to, all of its own namespace; `None` for one that was looked for and does not exist.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Option<Secret>>,
    /// Service account tokens by what was asked for.
    pub tokens: BTreeMap<TokenKey, String>,
    /// The life of the token that ends first.
    pub token_life: Option<TokenLife>,
    /// PersistentVolumeClaims by name.
    pub claims: BTreeMap<String, ClaimState>,
}

/// How a claim stands.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimState {
    /// There is none of the name.
    Missing,
    /// It waits for a volume.
    Unbound,
    /// It has this volume.
    Bound(Box<PersistentVolume>),
}

impl References {
    pub(super) fn registry_credentials(&self, secret: &str) -> Vec<RegistryCredential> {
        let data = self
            .secrets
            .get(secret)
            .and_then(|secret| secret.as_ref()?.data.as_ref());
        let Some(config) = data.and_then(|data| data.get(".dockerconfigjson")) else {
            return Vec::new();
        };
        let Ok(config) = serde_json::from_slice::<serde_json::Value>(&config.0) else {
            return Vec::new();
        };
        let registries = config["auths"].as_object().into_iter().flatten();
        registries
            .filter_map(|(server, login)| registry_login(server, login))
            .collect()
    }
}

fn registry_login(server: &str, login: &serde_json::Value) -> Option<RegistryCredential> {
    let text = |key: &str| login[key].as_str().map(str::to_owned);
    let pair = match (text("username"), text("password")) {
        (Some(user), Some(password)) => (user, password),
        _ => {
            let decoded = STANDARD.decode(login["auth"].as_str()?).ok()?;
            let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
            (user.to_owned(), password.to_owned())
        }
    };
    let server = server
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let server = server.split('/').next().unwrap_or(server).to_owned();
    Some(RegistryCredential {
        server,
        user_name: pair.0,
        password: pair.1,
    })
}

/// Everything a translation looks at.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) pod: &'a Pod,
    pub(super) spec: &'a PodSpec,
    pub(super) identity: Identity<'a>,
    pub(super) settings: &'a ClusterSettings,
    pub(super) references: &'a References,
}

/// Variables for the cloud, and the values known here, for `$(NAME)`.
pub(super) struct Environment {
    pub(super) variables: Vec<EnvironmentVarSpec>,
    pub(super) known: BTreeMap<String, String>,
}

pub(super) fn environment(
    context: &Context<'_>,
    container: &Container,
) -> Result<Environment, TranslateError> {
    let mut known = BTreeMap::new();
    let mut order: Vec<(String, Option<FieldRef>)> = Vec::new();
    let settings = context.settings;
    let service = settings.kubernetes_service.as_ref();
    // Without ClusterIPs the API's own Service cannot be reached either.
    let api = settings
        .api_server
        .as_ref()
        .filter(|_| !settings.cluster_ip);
    if let Some((host, port)) = api.or(service) {
        for (key, value) in [
            ("KUBERNETES_SERVICE_HOST", host.clone()),
            ("KUBERNETES_SERVICE_PORT", port.to_string()),
        ] {
            known.insert(key.to_owned(), value);
            order.push((key.to_owned(), None));
        }
    }
    for (key, value) in from_sources(context, container)? {
        order.retain(|(name, _)| *name != key);
        order.push((key.clone(), None));
        known.insert(key, value);
    }
    for variable in container.env.iter().flatten() {
        order.retain(|(name, _)| *name != variable.name);
        match value_of(context, container, variable, &known)? {
            Value::Text(value) => {
                known.insert(variable.name.clone(), value);
                order.push((variable.name.clone(), None));
            }
            Value::OfGroup(path) => {
                known.remove(&variable.name);
                order.push((variable.name.clone(), Some(FieldRef { field_path: path })));
            }
            Value::Absent => {}
        }
    }
    let variable = |(key, field_ref): (String, Option<FieldRef>)| EnvironmentVarSpec {
        value: field_ref
            .is_none()
            .then(|| known.get(&key).cloned().unwrap_or_default()),
        key,
        field_ref,
    };
    Ok(Environment {
        variables: order.into_iter().map(variable).collect(),
        known,
    })
}

enum Value {
    Text(String),
    /// Known to the cloud only.
    OfGroup(String),
    Absent,
}

fn value_of(
    context: &Context<'_>,
    container: &Container,
    variable: &EnvVar,
    known: &BTreeMap<String, String>,
) -> Result<Value, TranslateError> {
    match &variable.value_from {
        None => Ok(Value::Text(expand(
            variable.value.as_deref().unwrap_or_default(),
            known,
        ))),
        Some(source) => value_from(context, container, &variable.name, source),
    }
}

fn value_from(
    context: &Context<'_>,
    container: &Container,
    name: &str,
    source: &EnvVarSource,
) -> Result<Value, TranslateError> {
    let referrer = || format!("env {name} of container {}", container.name);
    if let Some(field) = &source.field_ref {
        return field_value(context, &field.field_path).ok_or_else(|| TranslateError::Invalid {
            field: referrer(),
            reason: format!("fieldPath {:?} is not supported", field.field_path),
        });
    }
    if let Some(field) = &source.resource_field_ref {
        let asked = field.container_name.as_deref().unwrap_or(&container.name);
        let divisor = field.divisor.as_ref().map(|divisor| divisor.0.as_str());
        let value = resource_value(context, asked, &field.resource, divisor).map_err(|reason| {
            TranslateError::Invalid {
                field: referrer(),
                reason,
            }
        })?;
        return Ok(Value::Text(value));
    }
    let (kind, object, key, optional, value) = if let Some(key) = &source.config_map_key_ref {
        let map = context
            .references
            .config_maps
            .get(&key.name)
            .and_then(Option::as_ref);
        let value = map.map(|map| config_map_value(map, &key.key));
        ("ConfigMap", &key.name, &key.key, key.optional, value)
    } else if let Some(key) = &source.secret_key_ref {
        let secret = context
            .references
            .secrets
            .get(&key.name)
            .and_then(Option::as_ref);
        let value = secret.map(|secret| secret_value(secret, &key.key));
        ("Secret", &key.name, &key.key, key.optional, value)
    } else {
        return Err(TranslateError::Invalid {
            field: referrer(),
            reason: "has no known source".into(),
        });
    };
    let problem = match value {
        Some(Some(value)) => return Ok(Value::Text(value)),
        _ if optional == Some(true) => return Ok(Value::Absent),
        Some(None) => format!("has no key {key}"),
        None => "does not exist".to_owned(),
    };
    Err(TranslateError::Missing {
        referrer: referrer(),
        kind,
        name: object.clone(),
        problem,
    })
}

/// All keys of `envFrom`, later sources winning.
fn from_sources(
    context: &Context<'_>,
    container: &Container,
) -> Result<Vec<(String, String)>, TranslateError> {
    let mut all = Vec::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        let (kind, name, optional, values) = if let Some(from) = &source.config_map_ref {
            let map = context
                .references
                .config_maps
                .get(&from.name)
                .and_then(Option::as_ref);
            let values = map.map(|map| map.data.clone().unwrap_or_default());
            ("ConfigMap", &from.name, from.optional, values)
        } else if let Some(from) = &source.secret_ref {
            let secret = context
                .references
                .secrets
                .get(&from.name)
                .and_then(Option::as_ref);
            (
                "Secret",
                &from.name,
                from.optional,
                secret.map(secret_texts),
            )
        } else {
            continue;
        };
        match values {
            Some(values) => all.extend(
                values
                    .into_iter()
                    .map(|(key, value)| (format!("{prefix}{key}"), value)),
            ),
            None if optional == Some(true) => {}
            None => {
                return Err(TranslateError::Missing {
                    referrer: format!("envFrom of container {}", container.name),
                    kind,
                    name: name.clone(),
                    problem: "does not exist".to_owned(),
                });
            }
        }
    }
    Ok(all)
}

fn config_map_value(map: &ConfigMap, key: &str) -> Option<String> {
    map.data.as_ref()?.get(key).cloned()
}

fn secret_value(secret: &Secret, key: &str) -> Option<String> {
    secret
        .data
        .as_ref()?
        .get(key)
        .map(|value| String::from_utf8_lossy(&value.0).into_owned())
}

fn secret_texts(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
        .collect()
}

fn field_value(context: &Context<'_>, path: &str) -> Option<Value> {
    match path {
        "status.podIP" | "status.podIPs" => Some(Value::OfGroup("status.podIP".to_owned())),
        "status.hostIP" | "status.hostIPs" => {
            Some(Value::Text(context.identity.node_ip.to_owned()))
        }
        path => field_text(context.pod, context.identity.node, path).map(Value::Text),
    }
}

/// Fields of the pod that are known before it runs.
pub(super) fn field_text(pod: &Pod, node: &str, path: &str) -> Option<String> {
    let quoted = |map: &BTreeMap<String, String>| {
        map.iter()
            .map(|(key, value)| format!("{key}={value:?}"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let member = |map: &BTreeMap<String, String>, prefix: &str| {
        let key = path.strip_prefix(prefix)?.strip_suffix("']")?;
        Some(map.get(key).cloned().unwrap_or_default())
    };
    match path {
        "metadata.name" => Some(pod.name_any()),
        "metadata.namespace" => Some(pod.namespace().unwrap_or_default()),
        "metadata.uid" => Some(pod.uid().unwrap_or_default()),
        "metadata.labels" => Some(quoted(pod.labels())),
        "metadata.annotations" => Some(quoted(pod.annotations())),
        "spec.nodeName" => Some(node.to_owned()),
        "spec.serviceAccountName" => {
            let account = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.service_account_name.clone());
            Some(account.unwrap_or_else(|| "default".to_owned()))
        }
        _ => member(pod.labels(), "metadata.labels['")
            .or_else(|| member(pod.annotations(), "metadata.annotations['")),
    }
}

/// `limits.cpu` and the like, in units of the divisor, rounded up.
pub(super) fn resource_value(
    context: &Context<'_>,
    container: &str,
    resource: &str,
    divisor: Option<&str>,
) -> Result<String, String> {
    let containers = context
        .spec
        .containers
        .iter()
        .chain(context.spec.init_containers.iter().flatten());
    let found = containers
        .into_iter()
        .find(|candidate| candidate.name == container);
    let resources = found.and_then(|container| container.resources.as_ref());
    let (kind, name) = resource
        .split_once('.')
        .ok_or_else(|| format!("resource {resource:?} is not known"))?;
    let amounts = resources.and_then(|resources| match kind {
        "limits" => resources
            .limits
            .as_ref()
            .and_then(|limits| limits.get(name)),
        _ => resources
            .requests
            .as_ref()
            .and_then(|requests| requests.get(name)),
    });
    let nanos = amounts
        .map_or(Ok(0), |amount| quantity::nanos(&amount.0))
        .map_err(|error| error.to_string())?;
    let divisor = divisor
        .filter(|text| !text.is_empty() && *text != "0")
        .unwrap_or("1");
    let divisor = quantity::nanos(divisor)
        .map_err(|error| error.to_string())?
        .max(1);
    Ok((nanos / divisor + i128::from(nanos % divisor > 0)).to_string())
}
