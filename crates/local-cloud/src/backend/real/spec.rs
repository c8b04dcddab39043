//! From a group's request to what the runtime is asked for. Plain functions.

use super::RealBackendConfig;
use crate::backend::{BackendError, GroupPlan, Run};
use cloud_api::catalog::Size;
use cloud_api::model::create::{
    ContainerSpec as Asked, CreateContainerGroupRequest, EnvironmentVarSpec,
};
use local_runtime::{ContainerSpec, Mount, ResourceLimits, SandboxSpec, UserSpec};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Longest host name that Linux takes.
const MAX_HOSTNAME: usize = 63;
/// Processes of one group.
const MAX_PIDS: u64 = 8_192;
const MIB: u64 = 1024 * 1024;

pub(super) fn sandbox(
    plan: &GroupPlan,
    config: &RealBackendConfig,
    netns_path: PathBuf,
    log_directory: PathBuf,
) -> SandboxSpec {
    let request = &plan.request;
    let sysctls = request
        .security_context
        .iter()
        .chain(&request.host_security_context)
        .flat_map(|context| &context.sysctl);
    SandboxSpec {
        id: plan.id.clone(),
        labels: BTreeMap::new(),
        hostname: hostname(request),
        netns_path: Some(netns_path),
        resolv_conf: resolv_conf(request).unwrap_or_else(|| config.default_resolv_conf.clone()),
        hosts: hosts(plan),
        cgroup_subpath: config.cgroup_subpath.clone(),
        limits: group_limits(plan.size),
        sysctls: sysctls
            .map(|pair| (pair.name.clone(), pair.value.clone().unwrap_or_default()))
            .collect(),
        share_process_namespace: request.share_process_namespace.unwrap_or_default(),
        log_directory: Some(log_directory),
    }
}

fn group_limits(size: Size) -> ResourceLimits {
    ResourceLimits {
        cpu_request_milli: Some(size.vcpu_milli.into()),
        cpu_limit_milli: Some(size.vcpu_milli.into()),
        memory_limit_bytes: Some(u64::from(size.memory_mib) * MIB),
        pids_limit: Some(MAX_PIDS),
    }
}

fn hostname(request: &CreateContainerGroupRequest) -> String {
    let given = request.host_name.as_deref().filter(|name| !name.is_empty());
    let mut name = given.unwrap_or(&request.container_group_name).to_owned();
    let mut end = name.len().min(MAX_HOSTNAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// `None` when the request brings no DNS configuration.
fn resolv_conf(request: &CreateContainerGroupRequest) -> Option<String> {
    let config = request.dns_config.as_ref()?;
    // A value with a line break would be a second line.
    let clean = |text: &str| text.replace(char::is_whitespace, "");
    let mut text = String::new();
    for server in &config.name_server {
        let _ = writeln!(text, "nameserver {}", clean(server));
    }
    if !config.search.is_empty() {
        let search: Vec<String> = config.search.iter().map(|domain| clean(domain)).collect();
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    let options: Vec<String> = config
        .option
        .iter()
        .map(|option| match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{}:{}", clean(&option.name), clean(value)),
            _ => clean(&option.name),
        })
        .collect();
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    Some(text)
}

fn hosts(plan: &GroupPlan) -> String {
    let clean = |text: &str| text.replace(char::is_whitespace, "");
    let mut text = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost\n{}\t{}\n",
        plan.address,
        hostname(&plan.request)
    );
    for alias in &plan.request.host_aliase {
        let names: Vec<String> = alias.hostname.iter().map(|name| clean(name)).collect();
        let _ = writeln!(text, "{}\t{}", clean(&alias.ip), names.join(" "));
    }
    text
}

pub(super) fn container(
    plan: &GroupPlan,
    run: Run<'_>,
    mounts: Vec<Mount>,
) -> Result<ContainerSpec, BackendError> {
    let asked = run.container;
    let security = asked.security_context.clone().unwrap_or_default();
    let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    Ok(ContainerSpec {
        name: asked.name.clone(),
        attempt: run.attempt,
        image: asked.image.clone(),
        command: list(&asked.command),
        args: list(&asked.arg),
        env: asked
            .environment_var
            .iter()
            .map(|variable| environment(plan, variable))
            .collect(),
        working_dir: asked
            .working_dir
            .clone()
            .filter(|directory| !directory.is_empty()),
        mounts,
        run_as_user: security
            .run_as_user
            .map(|user| number("RunAsUser", user))
            .transpose()?
            .map(UserSpec::Id),
        run_as_group: asked
            .security_context_run_as_group
            .map(|group| number("RunAsGroup", group))
            .transpose()?,
        must_run_as_non_root: asked.security_context_run_as_non_root.unwrap_or_default(),
        added_capabilities: security
            .capability
            .map(|capability| capability.add)
            .unwrap_or_default(),
        read_only_rootfs: security.read_only_root_filesystem.unwrap_or_default(),
        no_new_privileges: true,
        resources: limits(asked),
        tty: asked.tty.unwrap_or_default(),
        stdin: asked.stdin.unwrap_or_default(),
        stdin_once: asked.stdin_once.unwrap_or_default(),
        termination_message_path: asked
            .termination_message_path
            .clone()
            .filter(|path| !path.is_empty()),
        ..ContainerSpec::default()
    })
}

fn number(what: &str, value: i64) -> Result<u32, BackendError> {
    u32::try_from(value).map_err(|_| {
        BackendError::new(
            "CreateContainerConfigError",
            format!("{what} {value} is out of range"),
        )
    })
}

fn limits(asked: &Asked) -> ResourceLimits {
    let milli = asked
        .cpu
        .filter(|cpu| *cpu > 0.0)
        .map(|cpu| (cpu * 1_000.0).ceil() as u64);
    let bytes = asked
        .memory
        .filter(|memory| *memory > 0.0)
        .map(|memory| (memory * 1_024.0).ceil() as u64 * MIB);
    ResourceLimits {
        cpu_request_milli: milli,
        cpu_limit_milli: milli,
        memory_limit_bytes: bytes,
        pids_limit: None,
    }
}

fn environment(plan: &GroupPlan, variable: &EnvironmentVarSpec) -> (String, String) {
    let value = match &variable.field_ref {
        Some(field) => match field.field_path.as_str() {
            "status.podIP" | "status.podIPs" | "status.hostIP" => plan.address.to_string(),
            "metadata.name" => plan.request.container_group_name.clone(),
            "metadata.uid" => plan.id.clone(),
            _ => String::new(),
        },
        None => variable.value.clone().unwrap_or_default(),
    };
    (variable.key.clone(), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloud_api::model::create::{DnsConfigSpec, FieldRef, HostAlias, NameValue};
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    fn plan(request: CreateContainerGroupRequest) -> GroupPlan {
        GroupPlan {
            id: "eci-a".to_owned(),
            request: Arc::new(request),
            address: Ipv4Addr::new(10, 4, 1, 2),
            size: Size {
                vcpu_milli: 2_000,
                memory_mib: 4_096,
            },
            zone: "z".to_owned(),
            cached_images: Vec::new(),
            shares: Default::default(),
        }
    }

    #[test]
    fn resolver_and_hosts_files_are_written_as_asked() {
        let request = CreateContainerGroupRequest {
            container_group_name: "shop-web-1".to_owned(),
            dns_config: Some(DnsConfigSpec {
                name_server: vec!["10.96.0.10".to_owned()],
                search: vec!["a.svc".to_owned(), "svc\nnameserver 6.6.6.6".to_owned()],
                option: vec![NameValue {
                    name: "ndots".to_owned(),
                    value: Some("5".to_owned()),
                }],
            }),
            host_aliase: vec![HostAlias {
                ip: "1.2.3.4".to_owned(),
                hostname: vec!["x".to_owned()],
            }],
            ..Default::default()
        };
        let expected =
            "nameserver 10.96.0.10\nsearch a.svc svcnameserver6.6.6.6\noptions ndots:5\n";
        assert_eq!(resolv_conf(&request).unwrap(), expected);
        let hosts = hosts(&plan(request));
        assert!(
            hosts.contains("10.4.1.2\tshop-web-1\n") && hosts.ends_with("1.2.3.4\tx\n"),
            "{hosts}"
        );
    }

    #[test]
    fn a_host_name_is_cut_to_what_linux_takes() {
        let name = format!("{}-{}", "a".repeat(62), "b");
        let request = CreateContainerGroupRequest {
            container_group_name: name,
            ..Default::default()
        };
        assert_eq!(hostname(&request), "a".repeat(62));
    }

    #[test]
    fn a_container_gets_its_own_limits_and_properties() {
        let asked = Asked {
            name: "main".to_owned(),
            cpu: Some(0.5),
            memory: Some(0.25),
            environment_var: vec![EnvironmentVarSpec {
                key: "IP".to_owned(),
                value: None,
                field_ref: Some(FieldRef {
                    field_path: "status.podIP".to_owned(),
                }),
            }],
            ..Default::default()
        };
        let plan = plan(CreateContainerGroupRequest::default());
        let spec = container(
            &plan,
            Run {
                container: &asked,
                attempt: 3,
            },
            Vec::new(),
        )
        .unwrap();
        assert_eq!(spec.resources.cpu_limit_milli, Some(500));
        assert_eq!(spec.resources.memory_limit_bytes, Some(256 * MIB));
        assert_eq!(spec.env, [("IP".to_owned(), "10.4.1.2".to_owned())]);
        assert_eq!(
            (spec.attempt, spec.no_new_privileges, spec.command),
            (3, true, None)
        );
    }
}
