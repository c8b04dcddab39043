//! DescribeContainerGroups.

use super::Call;
use super::filter::{Filter, given, page};
use crate::gateway::refusal::Refusal;
use crate::shared::Shared;
use crate::state::record::{ContainerRecord, EventRecord, GroupRecord, RunState};
use cloud_api::model::create::{
    ContainerSpec, CreateContainerGroupRequest, ProbeSpec, SecurityContextSpec, VolumeSpec,
};
use cloud_api::model::describe::*;
use cloud_api::time;

const PAGE: u32 = 20;
/// Stands in for the instance type of groups on paper.
const SIMULATED: &str = "simulated";

pub(crate) fn describe(
    call: &Call<'_>,
    request: DescribeContainerGroupsRequest,
) -> Result<DescribeContainerGroupsResponse, Refusal> {
    call.need(&["RegionId"])?;
    let filter = Filter {
        ids: &request.container_group_ids,
        name: given(&request.container_group_name),
        status: given(&request.status),
        zone: given(&request.zone_id),
        v_switch: given(&request.v_switch_id),
        security_group: given(&request.security_group_id),
        resource_group: given(&request.resource_group_id),
        compute_category: given(&request.compute_category),
        tags: &request.tag,
        ..Default::default()
    };
    let state = call.shared.state();
    let page = page(
        &state.groups,
        &filter,
        request.limit,
        PAGE,
        request.next_token.as_deref(),
    )?;
    let with_events = request.with_event.unwrap_or(true);
    Ok(DescribeContainerGroupsResponse {
        container_groups: page
            .groups
            .iter()
            .map(|group| describe_group(call.shared, group, with_events))
            .collect(),
        next_token: page.next_token,
        total_count: page.total_count,
        ..Default::default()
    })
}

fn describe_group(shared: &Shared, group: &GroupRecord, with_events: bool) -> ContainerGroup {
    let request = &group.request;
    let ended = |status: &str| {
        let end = (group.status.as_str() == status)
            .then_some(group.billed_until)
            .flatten();
        end.map(time::format)
    };
    let containers = request.container.iter().zip(&group.containers);
    let init_containers = request.init_container.iter().zip(&group.init_containers);
    ContainerGroup {
        container_group_id: group.id.clone(),
        container_group_name: request.container_group_name.clone(),
        region_id: shared.config.region.clone(),
        zone_id: group.zone.clone(),
        vpc_id: shared.config.vpc_id.clone(),
        v_switch_id: group.v_switch.clone(),
        security_group_id: request.security_group_id.clone().unwrap_or_default(),
        resource_group_id: request.resource_group_id.clone(),
        status: group.status.clone(),
        restart_policy: request
            .restart_policy
            .clone()
            .unwrap_or_else(|| "Always".to_owned()),
        instance_type: group
            .machine
            .clone()
            .or_else(|| group.simulated.then(|| SIMULATED.to_owned())),
        compute_category: request.compute_category.first().cloned(),
        spot_strategy: Some(given(&request.spot_strategy).unwrap_or("NoSpot").to_owned()),
        spot_price_limit: group.spot.as_ref().and_then(|spot| spot.limit),
        discount: group.spot.as_ref().map(|spot| spot.discount),
        ram_role_name: request.ram_role_name.clone(),
        intranet_ip: Some(group.address.to_string()),
        internet_ip: group.eip.as_ref().map(|(_, address)| address.to_string()),
        eni_instance_id: Some(format!("eni-{}", group.id.trim_start_matches("eci-"))),
        creation_time: time::format(group.created_at),
        succeeded_time: ended("Succeeded"),
        failed_time: ended("Failed"),
        expired_time: ended("Expired"),
        cpu: group.size.vcpu(),
        memory: group.size.memory_gib(),
        ephemeral_storage: request.ephemeral_storage,
        tags: tags(group),
        events: if with_events {
            group.events.iter().map(event).collect()
        } else {
            Vec::new()
        },
        containers: containers
            .map(|(spec, record)| container(spec, record))
            .collect(),
        init_containers: init_containers
            .map(|(spec, record)| init_container(spec, record))
            .collect(),
        volumes: request.volume.iter().map(volume).collect(),
        host_aliases: host_aliases(request),
        dns_config: request.dns_config.as_ref().map(|config| DnsConfigInfo {
            name_servers: config.name_server.clone(),
            searches: config.search.clone(),
            options: config.option.clone(),
        }),
        eci_security_context: sysctls(request),
        ..Default::default()
    }
}

fn host_aliases(request: &CreateContainerGroupRequest) -> Vec<HostAliasInfo> {
    let aliases = request.host_aliase.iter();
    aliases
        .map(|alias| HostAliasInfo {
            ip: alias.ip.clone(),
            hostnames: alias.hostname.clone(),
        })
        .collect()
}

fn sysctls(request: &CreateContainerGroupRequest) -> Option<EciSecurityContext> {
    let contexts = request
        .security_context
        .iter()
        .chain(&request.host_security_context);
    let sysctls: Vec<_> = contexts
        .flat_map(|context| context.sysctl.clone())
        .collect();
    (!sysctls.is_empty()).then_some(EciSecurityContext { sysctls })
}

/// The caller's tags, and for groups on paper one that says so.
pub(super) fn tags(group: &GroupRecord) -> Vec<Tag> {
    let mut tags = group.request.tag.clone();
    if group.simulated {
        tags.push(Tag {
            key: SIMULATED.to_owned(),
            value: "true".to_owned(),
        });
    }
    tags
}

fn event(event: &EventRecord) -> GroupEvent {
    GroupEvent {
        event_type: if event.warning { "Warning" } else { "Normal" }.to_owned(),
        reason: event.reason.clone(),
        message: event.message.clone(),
        name: format!(
            "{}.{:x}",
            event.reason.to_lowercase(),
            event.first.as_nanosecond()
        ),
        count: event.count,
        first_timestamp: time::format(event.first),
        last_timestamp: time::format(event.last),
    }
}

fn state(state: &RunState) -> ContainerState {
    match state {
        RunState::Waiting { reason, message } => ContainerState {
            state: "Waiting".to_owned(),
            reason: Some(reason.clone()),
            message: Some(message.clone()),
            ..Default::default()
        },
        RunState::Running { started_at } => ContainerState {
            state: "Running".to_owned(),
            start_time: Some(time::format(*started_at)),
            ..Default::default()
        },
        RunState::Terminated {
            exit_code,
            signal,
            reason,
            message,
            started_at,
            finished_at,
        } => ContainerState {
            state: "Terminated".to_owned(),
            detail_status: Some(reason.clone()),
            reason: Some(reason.clone()),
            message: Some(message.clone()),
            exit_code: Some((*exit_code).into()),
            signal: Some((*signal).into()),
            start_time: started_at.map(time::format),
            finish_time: Some(time::format(*finished_at)),
        },
    }
}

fn probe(probe: &ProbeSpec) -> ProbeInfo {
    ProbeInfo {
        http_get: probe.http_get.clone(),
        tcp_socket: probe.tcp_socket.clone(),
        execs: probe
            .exec
            .as_ref()
            .map(|exec| exec.command.clone())
            .unwrap_or_default(),
        initial_delay_seconds: probe.initial_delay_seconds,
        period_seconds: probe.period_seconds,
        timeout_seconds: probe.timeout_seconds,
        success_threshold: probe.success_threshold,
        failure_threshold: probe.failure_threshold,
    }
}

fn ports(spec: &ContainerSpec) -> Vec<PortInfo> {
    let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    spec.port
        .iter()
        .map(|port| PortInfo {
            port: port.port,
            protocol: protocol(&port.protocol),
        })
        .collect()
}

fn environment(spec: &ContainerSpec) -> Vec<EnvironmentVarInfo> {
    let hide = spec.environment_var_hide == Some(true);
    let variables = spec.environment_var.iter();
    variables
        .map(|variable| EnvironmentVarInfo {
            key: variable.key.clone(),
            value: variable.value.clone().filter(|_| !hide),
            value_from: variable.field_ref.clone().map(|field_ref| ValueFrom {
                field_ref: Some(field_ref),
            }),
        })
        .collect()
}

fn container(spec: &ContainerSpec, record: &ContainerRecord) -> ContainerInfo {
    ContainerInfo {
        name: spec.name.clone(),
        image: spec.image.clone(),
        image_pull_policy: spec.image_pull_policy.clone(),
        cpu: spec.cpu.unwrap_or_default(),
        memory: spec.memory.unwrap_or_default(),
        gpu: spec.gpu.unwrap_or_default(),
        commands: spec.command.clone(),
        args: spec.arg.clone(),
        working_dir: spec.working_dir.clone(),
        ports: ports(spec),
        environment_vars: environment(spec),
        volume_mounts: spec.volume_mount.clone(),
        ready: record.ready,
        restart_count: record.restart_count,
        stdin: spec.stdin.unwrap_or_default(),
        stdin_once: spec.stdin_once.unwrap_or_default(),
        tty: spec.tty.unwrap_or_default(),
        current_state: Some(state(&record.state)),
        previous_state: record.previous.as_ref().map(state),
        liveness_probe: spec.liveness_probe.as_ref().map(probe),
        readiness_probe: spec.readiness_probe.as_ref().map(probe),
        security_context: spec.security_context.as_ref().map(security),
    }
}

fn init_container(spec: &ContainerSpec, record: &ContainerRecord) -> InitContainerInfo {
    InitContainerInfo {
        name: spec.name.clone(),
        image: spec.image.clone(),
        image_pull_policy: spec.image_pull_policy.clone(),
        cpu: spec.cpu.unwrap_or_default(),
        memory: spec.memory.unwrap_or_default(),
        command: spec.command.clone(),
        args: spec.arg.clone(),
        working_dir: spec.working_dir.clone(),
        ports: ports(spec),
        environment_vars: environment(spec),
        volume_mounts: spec.volume_mount.clone(),
        ready: record.ready,
        restart_count: record.restart_count,
        current_state: Some(state(&record.state)),
        previous_state: record.previous.as_ref().map(state),
        security_context: spec.security_context.as_ref().map(security),
    }
}

fn security(context: &SecurityContextSpec) -> SecurityContextInfo {
    SecurityContextInfo {
        capability: context
            .capability
            .as_ref()
            .map(|capability| CapabilityInfo {
                adds: capability.add.clone(),
            }),
        run_as_user: context.run_as_user,
        read_only_root_filesystem: context.read_only_root_filesystem,
    }
}

fn volume(volume: &VolumeSpec) -> VolumeInfo {
    let empty_dir = volume.empty_dir_volume.as_ref();
    let files = volume.config_file_volume.as_ref();
    VolumeInfo {
        name: volume.name.clone(),
        volume_type: volume.volume_type.clone(),
        empty_dir_volume_medium: empty_dir.and_then(|volume| volume.medium.clone()),
        empty_dir_volume_size_limit: empty_dir.and_then(|volume| volume.size_limit.clone()),
        config_file_volume_config_file_to_paths: files
            .map(|volume| volume.config_file_to_path.clone())
            .unwrap_or_default(),
        nfs_volume_server: volume.nfs_volume.as_ref().map(|share| share.server.clone()),
        nfs_volume_path: volume.nfs_volume.as_ref().map(|share| share.path.clone()),
        nfs_volume_read_only: volume.nfs_volume.as_ref().and_then(|share| share.read_only),
        ..Default::default()
    }
}
