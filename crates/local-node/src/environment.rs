//! The environment of a container: literal values, fields of the pod, config maps, secrets, services, and `$(NAME)`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};

/// Objects of the pod's namespace that its containers refer to.
#[derive(Default)]
pub(crate) struct References {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
    /// Services of the namespace plus `default/kubernetes`.
    pub services: Vec<Service>,
}

/// Facts the downward API knows and the pod object does not.
pub(crate) struct Facts {
    pub pod_ip: String,
    pub host_ip: String,
    pub node_cpu_milli: u64,
    pub node_memory_bytes: u64,
}

/// Why an environment cannot be made; the text becomes the container's waiting message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EnvironmentError(pub String);

/// All variables in order; later ones win in the container.
pub(crate) fn resolve(
    pod: &Pod,
    container: &Container,
    references: &References,
    facts: &Facts,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut variables = service_variables(pod, &references.services);
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        if let Some(wanted) = &source.config_map_ref {
            match references.config_maps.get(&wanted.name) {
                Some(map) => variables.extend(
                    map.data
                        .iter()
                        .flatten()
                        .map(|(key, value)| (format!("{prefix}{key}"), value.clone())),
                ),
                None if wanted.optional == Some(true) => {}
                None => {
                    return Err(EnvironmentError(format!(
                        "configmap \"{}\" not found",
                        wanted.name
                    )));
                }
            }
        }
        if let Some(wanted) = &source.secret_ref {
            match references.secrets.get(&wanted.name) {
                Some(secret) => {
                    variables.extend(secret.data.iter().flatten().map(|(key, value)| {
                        (
                            format!("{prefix}{key}"),
                            String::from_utf8_lossy(&value.0).into_owned(),
                        )
                    }))
                }
                None if wanted.optional == Some(true) => {}
                None => {
                    return Err(EnvironmentError(format!(
                        "secret \"{}\" not found",
                        wanted.name
                    )));
                }
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => match value_from(pod, container, source, references, facts)? {
                Some(value) => value,
                None => continue,
            },
            (Some(text), None) => expand(text, &variables),
            (None, None) => String::new(),
        };
        variables.push((variable.name.clone(), value));
    }
    Ok(variables)
}

fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    references: &References,
    facts: &Facts,
) -> Result<Option<String>, EnvironmentError> {
    if let Some(field) = &source.field_ref {
        return field_value(pod, &field.field_path, facts).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        let name = field.container_name.as_ref().unwrap_or(&container.name);
        let spec = pod.spec.as_ref();
        let of = spec.and_then(|spec| spec.containers.iter().find(|one| one.name == *name));
        let divisor = field.divisor.as_ref().map(|quantity| quantity.0.clone());
        return resource_value(
            of.unwrap_or(container),
            &field.resource,
            divisor.as_deref(),
            facts,
        )
        .map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let found = references
            .config_maps
            .get(&key.name)
            .and_then(|map| map.data.as_ref()?.get(&key.key).cloned());
        return match found {
            None if key.optional != Some(true) => Err(EnvironmentError(missing_key(
                references.config_maps.contains_key(&key.name),
                "configmap",
                &key.name,
                "ConfigMap",
                &key.key,
                pod,
            ))),
            found => Ok(found),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let found = references
            .secrets
            .get(&key.name)
            .and_then(|secret| secret.data.as_ref()?.get(&key.key));
        return match found {
            None if key.optional != Some(true) => Err(EnvironmentError(missing_key(
                references.secrets.contains_key(&key.name),
                "secret",
                &key.name,
                "Secret",
                &key.key,
                pod,
            ))),
            found => Ok(found.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())),
        };
    }
    Ok(None)
}

fn missing_key(exists: bool, lower: &str, name: &str, kind: &str, key: &str, pod: &Pod) -> String {
    if exists {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        format!("couldn't find key {key} in {kind} {namespace}/{name}")
    } else {
        format!("{lower} \"{name}\" not found")
    }
}

/// A downward API field of the pod.
pub(crate) fn field_value(
    pod: &Pod,
    path: &str,
    facts: &Facts,
) -> Result<String, EnvironmentError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    if let Some((map, key)) = path
        .strip_suffix("']")
        .and_then(|rest| rest.split_once("['"))
    {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(EnvironmentError(format!("unsupported fieldPath: {path}"))),
        };
        return Ok(map
            .as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => spec.map(|spec| text(&spec.node_name)).unwrap_or_default(),
        "spec.serviceAccountName" => spec
            .map(|spec| text(&spec.service_account_name))
            .unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone(),
        _ => return Err(EnvironmentError(format!("unsupported fieldPath: {path}"))),
    })
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let pairs = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"));
    pairs.collect::<Vec<_>>().join("\n")
}

/// A container's request or limit divided by `divisor`, rounded up; an absent limit is the node's capacity.
pub(crate) fn resource_value(
    container: &Container,
    resource: &str,
    divisor: Option<&str>,
    facts: &Facts,
) -> Result<String, EnvironmentError> {
    let unsupported = || EnvironmentError(format!("unsupported container resource: {resource}"));
    let (kind, name) = resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.clone().unwrap_or_default();
    let map = match kind {
        "limits" => resources.limits,
        "requests" => resources.requests,
        _ => return Err(unsupported()),
    };
    let amount = map.and_then(|map| map.get(name).and_then(|quantity| parse_milli(&quantity.0)));
    let milli = match (amount, name, kind) {
        (Some(milli), _, _) => milli,
        (None, "cpu", "limits") => u128::from(facts.node_cpu_milli),
        (None, "memory", "limits") => u128::from(facts.node_memory_bytes) * 1000,
        (None, "cpu" | "memory" | "ephemeral-storage", _) => 0,
        _ => return Err(unsupported()),
    };
    let divisor = divisor
        .and_then(parse_milli)
        .filter(|divisor| *divisor > 0)
        .unwrap_or(1000);
    Ok(milli.div_ceil(divisor).to_string())
}

/// A Kubernetes quantity in thousandths; `None` when it is not one. Fractions below a thousandth round up.
pub(crate) fn parse_milli(text: &str) -> Option<u128> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let (numerator, denominator): (u128, u128) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1_000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1_000 << 10, 1),
        "Mi" => (1_000 << 20, 1),
        "Gi" => (1_000 << 30, 1),
        "Ti" => (1_000 << 40, 1),
        "Pi" => (1_000 << 50, 1),
        _ => return None,
    };
    Some(digits.checked_mul(numerator)?.div_ceil(scale * denominator))
}

/// Upstream's service links: `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT` for services of the namespace, and the API server's.
fn service_variables(pod: &Pod, services: &[Service]) -> Vec<(String, String)> {
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
    let mut variables = Vec::new();
    for service in services {
        let (Some(name), Some(spec)) = (&service.metadata.name, &service.spec) else {
            continue;
        };
        let is_api =
            name == "kubernetes" && service.metadata.namespace.as_deref() == Some("default");
        let Some(ip) = spec
            .cluster_ip
            .as_ref()
            .filter(|ip| !ip.is_empty() && *ip != "None")
        else {
            continue;
        };
        if !is_api && (!links || service.metadata.namespace != pod.metadata.namespace) {
            continue;
        }
        let prefix = name.to_uppercase().replace(['-', '.'], "_");
        variables.push((format!("{prefix}_SERVICE_HOST"), ip.clone()));
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            if index == 0 {
                variables.push((format!("{prefix}_SERVICE_PORT"), port.port.to_string()));
            }
            if let Some(name) = &port.name {
                let suffix = name.to_uppercase().replace('-', "_");
                variables.push((
                    format!("{prefix}_SERVICE_PORT_{suffix}"),
                    port.port.to_string(),
                ));
            }
        }
    }
    variables
}

/// Replaces `$(NAME)` by variables known so far; `$$(NAME)` is the text `$(NAME)`; unknown names stay as written.
pub(crate) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn facts() -> Facts {
        Facts {
            pod_ip: "10.30.1.2".to_string(),
            host_ip: "10.10.0.11".to_string(),
            node_cpu_milli: 2000,
            node_memory_bytes: 1 << 30,
        }
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"nodeName": "worker-1", "containers": []},
        }))
        .unwrap()
    }

    fn resolved(
        env: serde_json::Value,
        references: &References,
    ) -> Result<Vec<(String, String)>, EnvironmentError> {
        let mut container = env;
        container["name"] = json!("main");
        resolve(
            &pod(),
            &serde_json::from_value(container).unwrap(),
            references,
            &facts(),
        )
    }

    fn references() -> References {
        References {
            config_maps: [(
                "settings".to_string(),
                serde_json::from_value(json!({"data": {"COLOR": "blue"}})).unwrap(),
            )]
            .into(),
            secrets: [(
                "keys".to_string(),
                serde_json::from_value(json!({"data": {"TOKEN": "czNjcmV0"}})).unwrap(),
            )]
            .into(),
            services: vec![
                serde_json::from_value(json!({
                    "metadata": {"name": "web-api", "namespace": "shop"},
                    "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80, "name": "http"}]},
                }))
                .unwrap(),
            ],
        }
    }

    #[test]
    fn every_source_gives_its_value_in_order() {
        let env = json!({
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "settings"}}],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)2 $(NONE) $$(A)"},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "TOKEN"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ],
        });
        let variables: BTreeMap<_, _> = resolved(env, &references()).unwrap().into_iter().collect();
        for (name, value) in [
            ("P_COLOR", "blue"),
            ("B", "12 $(NONE) $(A)"),
            ("NODE", "worker-1"),
            ("APP", "web"),
            ("TOKEN", "s3cret"),
            ("CPU", "2"),
            ("WEB_API_SERVICE_HOST", "10.96.0.9"),
            ("WEB_API_SERVICE_PORT_HTTP", "80"),
        ] {
            assert_eq!(variables[name], value, "{name}");
        }
    }

    #[test]
    fn a_missing_reference_is_an_error_unless_it_is_optional() {
        let wanted = |optional: bool| json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": optional}}}]});
        let error = resolved(wanted(false), &References::default()).unwrap_err();
        assert_eq!(error.0, "configmap \"none\" not found");
        assert_eq!(
            resolved(wanted(true), &References::default()),
            Ok(Vec::new())
        );
    }

    #[test]
    fn quantities_are_read_in_thousandths() {
        for (text, milli) in [
            ("100m", 100),
            ("2", 2000),
            ("0.5", 500),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("1n", 1),
        ] {
            assert_eq!(parse_milli(text), Some(milli), "{text}");
        }
        assert_eq!(parse_milli("x"), None);
        assert_eq!(parse_milli(""), None);
    }

    proptest! {
        #[test]
        fn expansion_never_panics_and_leaves_text_without_dollars_alone(text in "\\PC{0,60}") {
            let expanded = expand(&text, &[("A".to_string(), "1".to_string())]);
            if !text.contains('$') {
                prop_assert_eq!(expanded, text);
            }
        }
    }
}
