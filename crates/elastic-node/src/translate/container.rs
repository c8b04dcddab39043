//! One container.

use cloud_api::model::create::{
    CapabilitySpec, ContainerPort, ContainerSpec, EnvironmentVarSpec, NameValue,
    SecurityContextSpec, VolumeMount,
};
use elastic_core::names::{SIDECAR_VALUE, SIDECAR_VARIABLE};
use elastic_core::pod_sizing::container_amount;
use elastic_core::quantity;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::environment::{Context, environment};
use super::expand::expand;
use super::{TranslateError, gpu, probe};

pub(super) fn container(
    context: &Context<'_>,
    container: &Container,
) -> Result<ContainerSpec, TranslateError> {
    let environment = environment(context, container)?;
    let texts = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter()
            .flatten()
            .map(|text| expand(text, &environment.known))
            .collect()
    };
    let cpu_milli = container_amount(container, "cpu", quantity::millis)?;
    let memory_bytes = container_amount(container, "memory", quantity::units)?;
    let mut spec = ContainerSpec {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_pull_policy: container.image_pull_policy.clone(),
        cpu: cpu_milli.map(|milli| milli as f64 / 1_000.0),
        memory: memory_bytes.map(|bytes| bytes as f64 / f64::from(1 << 30)),
        gpu: gpu::of(container),
        command: texts(&container.command),
        arg: texts(&container.args),
        working_dir: container.working_dir.clone(),
        port: ports(container),
        volume_mount: mounts(context, container, &environment.known)?,
        liveness_probe: probe::liveness(container)?,
        readiness_probe: probe::readiness(container)?,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        termination_message_path: container.termination_message_path.clone(),
        termination_message_policy: container.termination_message_policy.clone(),
        environment_var: environment.variables,
        ..ContainerSpec::default()
    };
    security(context, container, &mut spec);
    lifecycle(container, &mut spec)?;
    Ok(spec)
}

fn ports(container: &Container) -> Vec<ContainerPort> {
    let ports = container.ports.iter().flatten();
    ports
        .filter_map(|port| {
            Some(ContainerPort {
                port: u16::try_from(port.container_port).ok()?,
                protocol: port.protocol.clone(),
            })
        })
        .collect()
}

fn mounts(
    context: &Context<'_>,
    container: &Container,
    known: &std::collections::BTreeMap<String, String>,
) -> Result<Vec<VolumeMount>, TranslateError> {
    let volumes = || context.spec.volumes.iter().flatten();
    container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| {
            if !volumes().any(|volume| volume.name == mount.name) {
                return Err(TranslateError::Invalid {
                    field: format!("volumeMounts of container {}", container.name),
                    reason: format!("there is no volume {}", mount.name),
                });
            }
            let expanded = mount.sub_path_expr.as_ref().map(|text| expand(text, known));
            Ok(VolumeMount {
                name: mount.name.clone(),
                mount_path: mount.mount_path.clone(),
                sub_path: mount.sub_path.clone().or(expanded),
                read_only: mount.read_only,
                mount_propagation: None,
            })
        })
        .collect()
}

/// The container's own settings, else the pod's.
fn security(context: &Context<'_>, container: &Container, spec: &mut ContainerSpec) {
    let pod = context.spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let run_as_user = own
        .and_then(|own| own.run_as_user)
        .or_else(|| pod.and_then(|pod| pod.run_as_user));
    let add = own
        .and_then(|own| own.capabilities.as_ref()?.add.clone())
        .unwrap_or_default();
    let read_only_root_filesystem = own.and_then(|own| own.read_only_root_filesystem);
    if run_as_user.is_some() || !add.is_empty() || read_only_root_filesystem.is_some() {
        spec.security_context = Some(SecurityContextSpec {
            run_as_user,
            read_only_root_filesystem,
            capability: (!add.is_empty()).then_some(CapabilitySpec { add }),
        });
    }
    spec.security_context_run_as_group = own
        .and_then(|own| own.run_as_group)
        .or_else(|| pod.and_then(|pod| pod.run_as_group));
    spec.security_context_run_as_non_root = own
        .and_then(|own| own.run_as_non_root)
        .or_else(|| pod.and_then(|pod| pod.run_as_non_root));
}

/// Marks a container that is ended when the others have ended.
pub(super) fn as_sidecar(mut container: ContainerSpec) -> ContainerSpec {
    container
        .environment_var
        .retain(|variable| variable.key != SIDECAR_VARIABLE);
    container.environment_var.push(EnvironmentVarSpec {
        key: SIDECAR_VARIABLE.to_owned(),
        value: Some(SIDECAR_VALUE.to_owned()),
        field_ref: None,
    });
    container
}

fn lifecycle(container: &Container, spec: &mut ContainerSpec) -> Result<(), TranslateError> {
    let Some(lifecycle) = &container.lifecycle else {
        return Ok(());
    };
    let start = handler(container, lifecycle.post_start.as_ref())?;
    spec.lifecycle_post_start_handler_exec = start.exec;
    spec.lifecycle_post_start_handler_http_get_host = start.http_host;
    spec.lifecycle_post_start_handler_http_get_path = start.http_path;
    spec.lifecycle_post_start_handler_http_get_port = start.http_port;
    spec.lifecycle_post_start_handler_http_get_scheme = start.http_scheme;
    spec.lifecycle_post_start_handler_http_get_http_header = start.http_headers;
    spec.lifecycle_post_start_handler_tcp_socket_host = start.tcp_host;
    spec.lifecycle_post_start_handler_tcp_socket_port = start.tcp_port;
    let stop = handler(container, lifecycle.pre_stop.as_ref())?;
    spec.lifecycle_pre_stop_handler_exec = stop.exec;
    spec.lifecycle_pre_stop_handler_http_get_host = stop.http_host;
    spec.lifecycle_pre_stop_handler_http_get_path = stop.http_path;
    spec.lifecycle_pre_stop_handler_http_get_port = stop.http_port;
    spec.lifecycle_pre_stop_handler_http_get_scheme = stop.http_scheme;
    spec.lifecycle_pre_stop_handler_http_get_http_header = stop.http_headers;
    spec.lifecycle_pre_stop_handler_tcp_socket_host = stop.tcp_host;
    spec.lifecycle_pre_stop_handler_tcp_socket_port = stop.tcp_port;
    Ok(())
}

/// A hook in the cloud's flat members.
#[derive(Default)]
struct Hook {
    exec: Vec<String>,
    http_host: Option<String>,
    http_path: Option<String>,
    http_port: Option<u16>,
    http_scheme: Option<String>,
    http_headers: Vec<NameValue>,
    tcp_host: Option<String>,
    tcp_port: Option<u16>,
}

fn handler(
    container: &Container,
    handler: Option<&LifecycleHandler>,
) -> Result<Hook, TranslateError> {
    let mut hook = Hook::default();
    let Some(handler) = handler else {
        return Ok(hook);
    };
    if let Some(exec) = &handler.exec {
        hook.exec = exec.command.clone().unwrap_or_default();
    } else if let Some(http) = &handler.http_get {
        hook.http_host.clone_from(&http.host);
        hook.http_path.clone_from(&http.path);
        hook.http_port = Some(port_number(container, &http.port)?);
        hook.http_scheme.clone_from(&http.scheme);
        let headers = http.http_headers.iter().flatten();
        hook.http_headers = headers
            .map(|header| NameValue {
                name: header.name.clone(),
                value: Some(header.value.clone()),
            })
            .collect();
    } else if let Some(tcp) = &handler.tcp_socket {
        hook.tcp_host.clone_from(&tcp.host);
        hook.tcp_port = Some(port_number(container, &tcp.port)?);
    } else if let Some(sleep) = &handler.sleep {
        // Container groups know no sleep action; the command says the same.
        hook.exec = vec!["sleep".to_owned(), sleep.seconds.to_string()];
    }
    Ok(hook)
}

/// A port given by number or by the name of one of the container's ports.
pub(super) fn port_number(
    container: &Container,
    port: &IntOrString,
) -> Result<u16, TranslateError> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_ref() == Some(name));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| TranslateError::Invalid {
            field: format!("probes of container {}", container.name),
            reason: format!(
                "port {port:?} is neither a number nor the name of a port of the container"
            ),
        })
}
