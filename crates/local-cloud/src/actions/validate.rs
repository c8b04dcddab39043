//! Is the request for a group sound? Every refusal names the parameter.

use crate::gateway::refusal::Refusal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest, ProbeSpec, VolumeSpec};
use cloud_api::model::{Tag, create::EnvironmentVarSpec};
use std::collections::HashSet;

pub(super) const MAX_CONTAINERS: usize = 20;
const MAX_VOLUMES: usize = 20;
pub(super) const MAX_TAGS: usize = 20;
/// Largest configuration file, before Base64.
const MAX_FILE_BYTES: usize = 32 * 1024;
const MAX_NAME: usize = 63;

pub(super) type Check = Result<(), Refusal>;

/// Checks a request for a new group.
pub(super) fn check(request: &CreateContainerGroupRequest) -> Check {
    group_name(&request.container_group_name)?;
    one_of(
        "RestartPolicy",
        &request.restart_policy,
        &["Always", "OnFailure", "Never"],
    )?;
    one_of(
        "ScheduleStrategy",
        &request.schedule_strategy,
        &["VSwitchOrdered", "VSwitchRandom"],
    )?;
    one_of("DnsPolicy", &request.dns_policy, &["None", "Default"])?;
    for (number, category) in request.compute_category.iter().enumerate() {
        let name = format!("ComputeCategory.{}", number + 1);
        one_of(&name, &Some(category.clone()), &["general", "economy"])?;
    }
    not_negative(
        "TerminationGracePeriodSeconds",
        request.termination_grace_period_seconds,
    )?;
    not_negative("ActiveDeadlineSeconds", request.active_deadline_seconds)?;
    not_negative("EphemeralStorage", request.ephemeral_storage)?;
    tags(&request.tag)?;
    parts(&request.container, &request.init_container, &request.volume)
}

/// Checks containers and volumes, of a new group or of an update.
pub(super) fn parts(
    containers: &[ContainerSpec],
    inits: &[ContainerSpec],
    volumes: &[VolumeSpec],
) -> Check {
    if containers.is_empty() {
        return Err(Refusal::missing("Container.1.Name"));
    }
    for (list, name) in [(containers, "Container"), (inits, "InitContainer")] {
        if list.len() > MAX_CONTAINERS {
            return Err(Refusal::invalid(
                name,
                format!("at most {MAX_CONTAINERS} are allowed"),
            ));
        }
    }
    let volume_names = self::volumes(volumes)?;
    let mut names = HashSet::new();
    let numbered =
        |list: &'static str| move |(index, spec)| (format!("{list}.{}", index + 1), spec);
    let all = containers.iter().enumerate().map(numbered("Container"));
    for (path, spec) in all.chain(inits.iter().enumerate().map(numbered("InitContainer"))) {
        container(&path, spec, &volume_names)?;
        if !names.insert(spec.name.as_str()) {
            let message = format!(
                "The parameter \"{path}.Name\" repeats the name {}.",
                spec.name
            );
            return Err(Refusal::new(
                400,
                "InvalidParameter.DuplicatedName",
                message,
            ));
        }
    }
    Ok(())
}

fn group_name(name: &str) -> Check {
    if name.is_empty() {
        return Err(Refusal::missing("ContainerGroupName"));
    }
    let sound = (2..=128).contains(&name.len()) && is_label(name);
    let rule =
        "it must be 2 to 128 lower-case letters, digits and dashes, with no dash at either end";
    sound
        .then_some(())
        .ok_or_else(|| Refusal::invalid("ContainerGroupName", rule))
}

/// Lower-case letters, digits and inner dashes.
fn is_label(name: &str) -> bool {
    let letters = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    letters && !name.is_empty() && !name.starts_with('-') && !name.ends_with('-')
}

fn name(path: &str, name: &str) -> Check {
    if name.is_empty() {
        return Err(Refusal::missing(&format!("{path}.Name")));
    }
    let rule =
        "it must be up to 63 lower-case letters, digits and dashes, with no dash at either end";
    let sound = name.len() <= MAX_NAME && is_label(name);
    sound
        .then_some(())
        .ok_or_else(|| Refusal::invalid(&format!("{path}.Name"), rule))
}

pub(super) fn one_of(parameter: &str, value: &Option<String>, allowed: &[&str]) -> Check {
    match value.as_deref() {
        None | Some("") => Ok(()),
        Some(value) if allowed.contains(&value) => Ok(()),
        Some(_) => Err(Refusal::invalid(
            parameter,
            format!("it must be one of {}", allowed.join(", ")),
        )),
    }
}

fn not_negative(parameter: &str, value: Option<i64>) -> Check {
    let sound = value.is_none_or(|value| value >= 0);
    sound
        .then_some(())
        .ok_or_else(|| Refusal::invalid(parameter, "it must not be negative"))
}

/// Checks tags that are to be put on a group.
pub(super) fn tags(tags: &[Tag]) -> Check {
    if tags.len() > MAX_TAGS {
        return Err(Refusal::invalid(
            "Tag",
            format!("at most {MAX_TAGS} are allowed"),
        ));
    }
    let mut keys = HashSet::new();
    for (number, tag) in tags.iter().enumerate() {
        let reserved = |text: &str| {
            text.starts_with("acs:") || text.contains("http://") || text.contains("https://")
        };
        let wrong = |member: &str, rule: &str| {
            Err(Refusal::invalid(
                &format!("Tag.{}.{member}", number + 1),
                rule,
            ))
        };
        if tag.key.is_empty() {
            return Err(Refusal::missing(&format!("Tag.{}.Key", number + 1)));
        }
        if tag.key.chars().count() > 64 || reserved(&tag.key) || tag.key.starts_with("aliyun") {
            return wrong(
                "Key",
                "it must be 1 to 64 characters, not begin with acs: or aliyun, and hold no address",
            );
        }
        if tag.value.chars().count() > 128 || reserved(&tag.value) {
            return wrong(
                "Value",
                "it must be at most 128 characters, not begin with acs:, and hold no address",
            );
        }
        if !keys.insert(tag.key.as_str()) {
            return wrong("Key", "it is given twice");
        }
    }
    Ok(())
}

fn volumes(volumes: &[VolumeSpec]) -> Result<HashSet<&str>, Refusal> {
    if volumes.len() > MAX_VOLUMES {
        return Err(Refusal::invalid(
            "Volume",
            format!("at most {MAX_VOLUMES} are allowed"),
        ));
    }
    let mut names = HashSet::new();
    for (number, volume) in volumes.iter().enumerate() {
        let path = format!("Volume.{}", number + 1);
        name(&path, &volume.name)?;
        if !names.insert(volume.name.as_str()) {
            let message = format!(
                "The parameter \"{path}.Name\" repeats the name {}.",
                volume.name
            );
            return Err(Refusal::new(
                400,
                "InvalidParameter.DuplicatedVolumeName",
                message,
            ));
        }
        match volume.volume_type.as_str() {
            "EmptyDirVolume" => {}
            "ConfigFileVolume" => config_files(&path, volume)?,
            "" => return Err(Refusal::missing(&format!("{path}.Type"))),
            "NFSVolume" => share(&path, volume)?,
            "DiskVolume" => {
                let message = format!("{path} is a cloud disk, and this cloud has none.");
                return Err(Refusal::new(400, "DiskVolume.NotSupport", message));
            }
            "FlexVolume" | "HostPathVolume" => {
                let reason = "this cloud has EmptyDirVolume, ConfigFileVolume and NFSVolume";
                return Err(Refusal::unsupported(&format!("{path}.Type"), reason));
            }
            _ => {
                return Err(Refusal::invalid(
                    &format!("{path}.Type"),
                    "it is no type of volume",
                ));
            }
        }
    }
    Ok(names)
}

fn share(path: &str, volume: &VolumeSpec) -> Check {
    let Some(share) = &volume.nfs_volume else {
        return Err(Refusal::missing(&format!("{path}.NFSVolume.Server")));
    };
    if share.server.is_empty() {
        return Err(Refusal::missing(&format!("{path}.NFSVolume.Server")));
    }
    if !share.path.starts_with('/') || !stays_below(share.path.trim_start_matches('/')) {
        return Err(Refusal::invalid(
            &format!("{path}.NFSVolume.Path"),
            "it must be absolute and must not lead out",
        ));
    }
    Ok(())
}

fn config_files(path: &str, volume: &VolumeSpec) -> Check {
    let files = volume
        .config_file_volume
        .iter()
        .flat_map(|volume| &volume.config_file_to_path);
    for (number, file) in files.enumerate() {
        let path = format!("{path}.ConfigFileVolume.ConfigFileToPath.{}", number + 1);
        if file.path.is_empty() || !stays_below(&file.path) {
            return Err(Refusal::invalid(
                &format!("{path}.Path"),
                "it must be relative and must not lead out",
            ));
        }
        match STANDARD.decode(&file.content) {
            Ok(content) if content.len() <= MAX_FILE_BYTES => {}
            Ok(_) => {
                return Err(Refusal::invalid(
                    &format!("{path}.Content"),
                    "it must be at most 32 KB",
                ));
            }
            Err(_) => {
                return Err(Refusal::invalid(
                    &format!("{path}.Content"),
                    "it must be Base64",
                ));
            }
        }
    }
    Ok(())
}

/// Whether a path is relative and never climbs above its start.
pub(crate) fn stays_below(path: &str) -> bool {
    !path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| part != "..")
}

fn container(path: &str, spec: &ContainerSpec, volumes: &HashSet<&str>) -> Check {
    name(path, &spec.name)?;
    if spec.image.is_empty() {
        return Err(Refusal::missing(&format!("{path}.Image")));
    }
    one_of(
        &format!("{path}.ImagePullPolicy"),
        &spec.image_pull_policy,
        &["Always", "IfNotPresent", "Never"],
    )?;
    for (value, member) in [(spec.cpu, "Cpu"), (spec.memory, "Memory")] {
        if value.is_some_and(|value| !(value.is_finite() && value >= 0.0)) {
            return Err(Refusal::invalid(
                &format!("{path}.{member}"),
                "it must not be negative",
            ));
        }
    }
    not_negative(&format!("{path}.Gpu"), spec.gpu)?;
    if spec.security_context_privileged == Some(true) {
        let reason = "containers get no rights over the host";
        return Err(Refusal::unsupported(
            &format!("{path}.SecurityContextPrivileged"),
            reason,
        ));
    }
    hooks(path, spec)?;
    for (number, variable) in spec.environment_var.iter().enumerate() {
        environment(&format!("{path}.EnvironmentVar.{}", number + 1), variable)?;
    }
    ports(path, spec)?;
    mounts(path, spec, volumes)?;
    for (check, member) in [
        (&spec.liveness_probe, "LivenessProbe"),
        (&spec.readiness_probe, "ReadinessProbe"),
    ] {
        check
            .as_ref()
            .map_or(Ok(()), |check| probe(&format!("{path}.{member}"), check))?;
    }
    Ok(())
}

fn ports(path: &str, spec: &ContainerSpec) -> Check {
    for (number, port) in spec.port.iter().enumerate() {
        let path = format!("{path}.Port.{}", number + 1);
        if port.port == 0 {
            return Err(Refusal::invalid(
                &format!("{path}.Port"),
                "it must be from 1 to 65535",
            ));
        }
        one_of(&format!("{path}.Protocol"), &port.protocol, &["TCP", "UDP"])?;
    }
    Ok(())
}

fn mounts(path: &str, spec: &ContainerSpec, volumes: &HashSet<&str>) -> Check {
    for (number, mount) in spec.volume_mount.iter().enumerate() {
        let path = format!("{path}.VolumeMount.{}", number + 1);
        if !volumes.contains(mount.name.as_str()) {
            return Err(Refusal::invalid(
                &format!("{path}.Name"),
                "there is no volume of this name",
            ));
        }
        if !mount.mount_path.starts_with('/') || mount.mount_path.contains('\0') {
            return Err(Refusal::invalid(
                &format!("{path}.MountPath"),
                "it must be absolute",
            ));
        }
        if mount
            .sub_path
            .as_deref()
            .is_some_and(|sub_path| !stays_below(sub_path))
        {
            return Err(Refusal::invalid(
                &format!("{path}.SubPath"),
                "it must be relative and must not lead out",
            ));
        }
    }
    Ok(())
}

/// Hooks reach the container itself; what they cannot do is said.
fn hooks(path: &str, spec: &ContainerSpec) -> Check {
    let own = "127.0.0.1 and localhost";
    let foreign = |host: &Option<String>| {
        let host = host.as_deref().unwrap_or_default();
        !matches!(host, "" | "127.0.0.1" | "localhost")
    };
    let hosts = [
        (
            &spec.lifecycle_post_start_handler_http_get_host,
            "LifecyclePostStartHandlerHttpGetHost",
        ),
        (
            &spec.lifecycle_post_start_handler_tcp_socket_host,
            "LifecyclePostStartHandlerTcpSocketHost",
        ),
        (
            &spec.lifecycle_pre_stop_handler_http_get_host,
            "LifecyclePreStopHandlerHttpGetHost",
        ),
        (
            &spec.lifecycle_pre_stop_handler_tcp_socket_host,
            "LifecyclePreStopHandlerTcpSocketHost",
        ),
    ];
    for (host, member) in hosts {
        if foreign(host) {
            let reason = format!("a hook reaches its own container only ({own})");
            return Err(Refusal::unsupported(&format!("{path}.{member}"), &reason));
        }
    }
    let headers = [
        (
            &spec.lifecycle_post_start_handler_http_get_http_header,
            "LifecyclePostStartHandlerHttpGetHttpHeader",
        ),
        (
            &spec.lifecycle_pre_stop_handler_http_get_http_header,
            "LifecyclePreStopHandlerHttpGetHttpHeader",
        ),
    ];
    match headers.iter().find(|(list, _)| !list.is_empty()) {
        Some((_, member)) => {
            let reason = "hooks of this cloud send no headers of their own";
            Err(Refusal::unsupported(&format!("{path}.{member}"), reason))
        }
        None => Ok(()),
    }
}

fn environment(path: &str, variable: &EnvironmentVarSpec) -> Check {
    let sound = (1..=128).contains(&variable.key.len()) && !variable.key.contains(['=', '\0']);
    if !sound {
        return Err(Refusal::invalid(
            &format!("{path}.Key"),
            "it must be 1 to 128 characters without =",
        ));
    }
    if variable
        .value
        .as_deref()
        .is_some_and(|value| value.contains('\0'))
    {
        return Err(Refusal::invalid(
            &format!("{path}.Value"),
            "it must not hold a zero byte",
        ));
    }
    Ok(())
}

fn probe(path: &str, probe: &ProbeSpec) -> Check {
    let kinds = [
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.exec.is_some(),
    ];
    if kinds.iter().filter(|kind| **kind).count() != 1 {
        return Err(Refusal::invalid(
            path,
            "it must have one of HttpGet, TcpSocket and Exec",
        ));
    }
    if probe
        .success_threshold
        .is_some_and(|threshold| threshold != 1)
    {
        return Err(Refusal::invalid(
            &format!("{path}.SuccessThreshold"),
            "it must be 1",
        ));
    }
    let port = probe
        .http_get
        .as_ref()
        .map(|get| get.port)
        .or(probe.tcp_socket.as_ref().map(|socket| socket.port));
    if port == Some(0) {
        let kind = if probe.http_get.is_some() {
            "HttpGet"
        } else {
            "TcpSocket"
        };
        return Err(Refusal::invalid(
            &format!("{path}.{kind}.Port"),
            "it must be from 1 to 65535",
        ));
    }
    let scheme = probe.http_get.as_ref().and_then(|get| get.scheme.clone());
    one_of(
        &format!("{path}.HttpGet.Scheme"),
        &scheme,
        &["HTTP", "HTTPS"],
    )
}
