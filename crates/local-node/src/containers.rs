//! From a pod's container to what the runtime starts. Plain functions; refusals name the field and the remedy.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use local_runtime::{ContainerSpec, Mount, ResourceLimits, SandboxSpec, UserSpec};

use crate::config::WorkerConfig;
use crate::environment::{expand, parse_milli};

/// Processes of one pod together, so that none can exhaust the machine's.
const PIDS_MAX: u64 = 4096;

/// What this node cannot do for a pod: reason and sentence of the event.
pub(crate) fn refusal(spec: &PodSpec) -> Option<String> {
    let refuse = |field: &str, instead: &str| {
        Some(format!(
            "{field} is not supported by local workers: {instead}"
        ))
    };
    if spec.host_network == Some(true) {
        return refuse(
            "spec.hostNetwork",
            "remove it and reach the pod by its own address",
        );
    }
    if spec.host_pid == Some(true) || spec.host_ipc == Some(true) {
        return refuse("spec.hostPID/hostIPC", "remove it");
    }
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    for container in all {
        let privileged = container
            .security_context
            .as_ref()
            .and_then(|one| one.privileged);
        if privileged == Some(true) {
            return refuse(
                "securityContext.privileged",
                "remove it and add the single capabilities the program needs",
            );
        }
    }
    for volume in spec.volumes.iter().flatten() {
        let supported = volume.empty_dir.is_some()
            || volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
            || volume.host_path.is_some();
        if !supported {
            return refuse(
                &format!("the kind of volume {:?}", volume.name),
                "use emptyDir, configMap, secret, downwardAPI, projected or hostPath",
            );
        }
    }
    None
}

/// The sandbox of a pod.
pub(crate) fn sandbox_spec(
    pod: &Pod,
    id: &str,
    config: &WorkerConfig,
    ip: &str,
    netns_path: PathBuf,
) -> SandboxSpec {
    let spec = pod.spec.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let hostname = spec.hostname.clone().unwrap_or_else(|| name.clone());
    let labels = [
        (
            "namespace",
            pod.metadata.namespace.clone().unwrap_or_default(),
        ),
        ("pod", name),
        ("uid", pod.metadata.uid.clone().unwrap_or_default()),
        ("node", config.name.clone()),
        ("ip", ip.to_string()),
    ];
    let sysctls = spec
        .security_context
        .as_ref()
        .and_then(|context| context.sysctls.as_ref());
    SandboxSpec {
        id: id.to_string(),
        labels: labels.map(|(key, value)| (key.to_string(), value)).into(),
        hostname: hostname.chars().take(63).collect(),
        netns_path: Some(netns_path),
        resolv_conf: resolv_conf(pod, &spec, config),
        hosts: hosts(&spec, &hostname, ip),
        cgroup_subpath: config.name.clone(),
        limits: pod_limits(&spec),
        sysctls: sysctls
            .into_iter()
            .flatten()
            .map(|one| (one.name.clone(), one.value.clone()))
            .collect(),
        share_process_namespace: spec.share_process_namespace == Some(true),
        log_directory: None,
    }
}

fn resolv_conf(pod: &Pod, spec: &PodSpec, config: &WorkerConfig) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let domain = &config.cluster_domain;
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let mut servers = Vec::new();
    let mut searches = Vec::new();
    let mut options = Vec::new();
    if policy.starts_with("ClusterFirst") {
        servers.push(config.cluster_dns.to_string());
        searches.extend([
            format!("{namespace}.svc.{domain}"),
            format!("svc.{domain}"),
            domain.clone(),
        ]);
        options.push("ndots:5".to_string());
    } else if policy == "Default" {
        servers.push(config.cluster_dns.to_string());
    }
    if let Some(dns) = &spec.dns_config {
        servers.extend(dns.nameservers.iter().flatten().cloned());
        searches.extend(dns.searches.iter().flatten().cloned());
        options.extend(dns.options.iter().flatten().filter_map(|option| {
            let name = option.name.clone()?;
            Some(
                option
                    .value
                    .as_ref()
                    .map_or(name.clone(), |value| format!("{name}:{value}")),
            )
        }));
    }
    let mut text = String::new();
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in servers.iter().take(3) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

fn hosts(spec: &PodSpec, hostname: &str, ip: &str) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n",
    );
    text.push_str(&format!("{ip}\t{hostname}\n"));
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.clone().unwrap_or_default();
        text.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    text
}

fn amount(container: &Container, limits: bool, name: &str) -> Option<u64> {
    let resources = container.resources.as_ref()?;
    let map = if limits {
        &resources.limits
    } else {
        &resources.requests
    };
    let milli = parse_milli(&map.as_ref()?.get(name)?.0)?;
    u64::try_from(milli).ok()
}

/// A container's own limits. Memory is whole bytes, CPU thousandths of a core.
pub(crate) fn limits(container: &Container) -> ResourceLimits {
    ResourceLimits {
        cpu_request_milli: amount(container, false, "cpu").or(amount(container, true, "cpu")),
        cpu_limit_milli: amount(container, true, "cpu"),
        memory_limit_bytes: amount(container, true, "memory").map(|milli| milli.div_ceil(1000)),
        pids_limit: None,
    }
}

/// A pod is limited as a whole only where all its containers are.
fn pod_limits(spec: &PodSpec) -> ResourceLimits {
    let each: Vec<_> = spec.containers.iter().map(limits).collect();
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .any(crate::plan::is_sidecar);
    let sum = |pick: fn(&ResourceLimits) -> Option<u64>| {
        let own: Option<u64> = each.iter().map(pick).sum();
        let init: Option<Vec<u64>> = spec
            .init_containers
            .iter()
            .flatten()
            .map(|one| pick(&limits(one)))
            .collect();
        match (own, init) {
            (Some(own), Some(init)) if !sidecars => {
                Some(own.max(init.into_iter().max().unwrap_or(0)))
            }
            _ => None,
        }
    };
    ResourceLimits {
        cpu_request_milli: Some(each.iter().filter_map(|one| one.cpu_request_milli).sum()),
        cpu_limit_milli: sum(|one| one.cpu_limit_milli),
        memory_limit_bytes: sum(|one| one.memory_limit_bytes),
        pids_limit: Some(PIDS_MAX),
    }
}

/// What the runtime is asked to start. `volumes` maps volume names to host paths.
///
/// # Errors
/// A mount of an unknown volume, or a sub-path that leaves its volume.
pub(crate) fn container_spec(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    env: Vec<(String, String)>,
    volumes: &BTreeMap<String, PathBuf>,
) -> Result<ContainerSpec, String> {
    let pod_context = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.clone())
        .unwrap_or_default();
    let context = container.security_context.clone().unwrap_or_default();
    let capabilities = context.capabilities.clone().unwrap_or_default();
    let expanded = |list: &Option<Vec<String>>| {
        list.as_ref().map(|list| {
            list.iter()
                .map(|text| expand(text, &env))
                .collect::<Vec<_>>()
        })
    };
    let id = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let mut groups: Vec<u32> = pod_context
        .supplemental_groups
        .iter()
        .flatten()
        .filter_map(|group| u32::try_from(*group).ok())
        .collect();
    groups.extend(id(pod_context.fs_group));
    Ok(ContainerSpec {
        name: container.name.clone(),
        attempt,
        image: container.image.clone().unwrap_or_default(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone(),
        mounts: mounts(container, &env, volumes)?,
        run_as_user: id(context.run_as_user.or(pod_context.run_as_user)).map(UserSpec::Id),
        run_as_group: id(context.run_as_group.or(pod_context.run_as_group)),
        supplemental_groups: groups,
        must_run_as_non_root: context.run_as_non_root.or(pod_context.run_as_non_root) == Some(true),
        added_capabilities: capabilities.add.unwrap_or_default(),
        dropped_capabilities: capabilities.drop.unwrap_or_default(),
        privileged: false,
        read_only_rootfs: context.read_only_root_filesystem == Some(true),
        no_new_privileges: context.allow_privilege_escalation != Some(true),
        resources: limits(container),
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        termination_message_path: container
            .termination_message_path
            .clone()
            .or_else(|| Some("/dev/termination-log".to_string())),
        env,
        ..ContainerSpec::default()
    })
}

fn mounts(
    container: &Container,
    env: &[(String, String)],
    volumes: &BTreeMap<String, PathBuf>,
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        let source = volumes
            .get(&wanted.name)
            .ok_or_else(|| format!("volumeMounts: there is no volume {:?}", wanted.name))?;
        let sub_path = match (&wanted.sub_path_expr, &wanted.sub_path) {
            (Some(expression), _) => expand(expression, env),
            (None, Some(path)) => path.clone(),
            (None, None) => String::new(),
        };
        if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
            return Err(format!(
                "volumeMounts: subPath {sub_path:?} must stay inside its volume"
            ));
        }
        let source = if sub_path.is_empty() {
            source.clone()
        } else {
            source.join(&sub_path)
        };
        mounts.push(Mount {
            source,
            target: wanted.mount_path.clone(),
            read_only: wanted.read_only == Some(true),
            tmpfs_size: None,
        });
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(value: serde_json::Value) -> Container {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn limits_and_security_reach_the_runtime_and_escalation_is_off_by_default() {
        let one = container(json!({
            "name": "main", "image": "m", "command": ["run", "$(A)"],
            "resources": {"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "100m"}},
            "securityContext": {"runAsUser": 7, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true},
            "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "a/b", "readOnly": true}],
        }));
        let volumes = [("data".to_string(), PathBuf::from("/v"))].into();
        let env = vec![("A".to_string(), "x".to_string())];
        let spec = container_spec(&Pod::default(), &one, 3, env, &volumes).unwrap();
        assert_eq!(spec.command, Some(vec!["run".to_string(), "x".to_string()]));
        assert_eq!(spec.resources.cpu_limit_milli, Some(200));
        assert_eq!(spec.resources.memory_limit_bytes, Some(64 << 20));
        assert_eq!(spec.run_as_user, Some(UserSpec::Id(7)));
        assert!(spec.no_new_privileges && spec.read_only_rootfs);
        assert_eq!(spec.mounts[0].source, PathBuf::from("/v/a/b"));
    }

    #[test]
    fn a_sub_path_may_not_leave_its_volume() {
        let one = container(
            json!({"name": "m", "volumeMounts": [{"name": "d", "mountPath": "/d", "subPath": "../etc"}]}),
        );
        let volumes = [("d".to_string(), PathBuf::from("/v"))].into();
        let error = container_spec(&Pod::default(), &one, 0, Vec::new(), &volumes).unwrap_err();
        assert!(error.contains("subPath"), "{error}");
    }

    #[test]
    fn what_the_node_cannot_do_is_refused_by_field() {
        let spec = |value: serde_json::Value| serde_json::from_value::<PodSpec>(value).unwrap();
        for (value, part) in [
            (
                json!({"hostNetwork": true, "containers": []}),
                "hostNetwork",
            ),
            (
                json!({"containers": [{"name": "a", "securityContext": {"privileged": true}}]}),
                "privileged",
            ),
            (
                json!({"containers": [], "volumes": [{"name": "v", "nfs": {"path": "/", "server": "s"}}]}),
                "\"v\"",
            ),
        ] {
            let sentence = refusal(&spec(value)).unwrap();
            assert!(sentence.contains(part), "{sentence}");
        }
        assert_eq!(
            refusal(&spec(
                json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]})
            )),
            None
        );
    }

    #[test]
    fn a_pod_is_limited_as_a_whole_only_when_every_container_is() {
        let spec = |second: serde_json::Value| {
            let limited = json!({"limits": {"cpu": "100m", "memory": "1Mi"}});
            serde_json::from_value::<PodSpec>(json!({"containers": [{"name": "a", "resources": limited}, {"name": "b", "resources": second}]})).unwrap()
        };
        assert_eq!(pod_limits(&spec(json!({}))).cpu_limit_milli, None);
        assert_eq!(
            pod_limits(&spec(json!({"limits": {"cpu": "1"}}))).cpu_limit_milli,
            Some(1100)
        );
    }
}
