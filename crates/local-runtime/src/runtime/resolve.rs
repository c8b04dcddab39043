//! Merging a container's specification with its image's defaults, and refusing what cannot run.

use std::path::Path;

use jiff::Timestamp;
use nix::sys::signal::Signal;

use crate::capability;
use crate::error::RuntimeError;
use crate::id::{ContainerId, is_safe_name};
use crate::image::{ImageConfig, ImageInfo};
use crate::protocol::{ContainerRecord, SandboxRecord};
use crate::shim::DEFAULT_PATH;
use crate::spec::{ContainerSpec, Mount, SandboxSpec, UserSpec};

/// The first real-time signal that programs may use.
const REAL_TIME_FIRST: i32 = 34;
const REAL_TIME_LAST: i32 = 64;

fn invalid(object: &str, field: impl Into<String>, reason: impl Into<String>) -> RuntimeError {
    RuntimeError::Invalid {
        object: object.to_owned(),
        field: field.into(),
        reason: reason.into(),
    }
}

/// Checks what can be checked before a shim exists.
pub(super) fn check_sandbox(spec: &SandboxSpec) -> Result<(), RuntimeError> {
    let object = format!("sandbox {:?}", spec.id);
    if !is_safe_name(&spec.id) {
        return Err(invalid(
            &object,
            "id",
            "must be 1 to 200 letters, digits, '-', '_' or '.'",
        ));
    }
    if spec.hostname.len() > 63 || spec.hostname.contains(['\0', '\n']) {
        return Err(invalid(
            &object,
            "hostname",
            "must have at most 63 bytes and no line end",
        ));
    }
    check_subpath(&object, &spec.cgroup_subpath)?;
    for name in spec.sysctls.keys() {
        let in_ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."]
            .iter()
            .any(|start| name.starts_with(start));
        let in_network = name.starts_with("net.") && spec.netns_path.is_some();
        let plain = !name.contains(['/', '\0']) && !name.contains("..");
        if !plain || !(in_ipc || in_network) {
            return Err(invalid(
                &object,
                format!("sysctls[{name}]"),
                "is not a sysctl of the sandbox's own namespaces",
            ));
        }
    }
    Ok(())
}

/// A cgroup path stays below the cluster's.
pub(super) fn check_subpath(object: &str, subpath: &str) -> Result<(), RuntimeError> {
    if subpath.is_empty() || subpath.split('/').all(is_safe_name) {
        return Ok(());
    }
    Err(invalid(
        object,
        "cgroup_subpath",
        "must be relative, of plain names",
    ))
}

/// Decides everything about a container that its image or the specification leaves open.
pub(super) fn resolve(
    sandbox: &SandboxRecord,
    log_directory: &Path,
    spec: ContainerSpec,
    image: &ImageInfo,
    layers_root: &Path,
    layers: Vec<String>,
) -> Result<ContainerRecord, RuntimeError> {
    let id = ContainerId::new(sandbox.spec.id.clone(), spec.name.clone(), spec.attempt);
    let object = format!("container {id}");
    check_container(&object, &spec)?;
    let capabilities =
        capability::effective_set(&spec.added_capabilities, &spec.dropped_capabilities).map_err(
            |name| {
                invalid(
                    &object,
                    "capabilities",
                    format!("{name:?} is not a capability"),
                )
            },
        )?;
    let stop_signal = stop_signal(&object, &spec, &image.config)?;
    let arguments = arguments(&spec, &image.config);
    if arguments.is_empty() {
        return Err(invalid(
            &object,
            "command",
            "is not given, and the image has none",
        ));
    }
    let user = match &spec.run_as_user {
        Some(UserSpec::Id(uid)) => uid.to_string(),
        Some(UserSpec::Name(name)) => name.clone(),
        None => image.config.user.clone(),
    };
    Ok(ContainerRecord {
        image_id: image.id.clone(),
        arguments,
        environment: environment(&spec, &image.config, &sandbox.spec.hostname),
        working_directory: working_directory(&spec, &image.config),
        user,
        layers_root: layers_root.to_path_buf(),
        layers,
        stop_signal,
        capabilities,
        log_path: crate::logs::path(log_directory, &spec.name, spec.attempt),
        created_at: Timestamp::now(),
        id,
        spec,
    })
}

fn check_container(object: &str, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    if !is_safe_name(&spec.name) {
        return Err(invalid(
            object,
            "name",
            "must be 1 to 200 letters, digits, '-', '_' or '.'",
        ));
    }
    if spec.privileged {
        return Err(invalid(
            object,
            "privileged",
            "is refused: containers here never get the host's rights",
        ));
    }
    for (index, mount) in spec.mounts.iter().enumerate() {
        check_mount(mount).map_err(|reason| invalid(object, format!("mounts[{index}]"), reason))?;
    }
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(invalid(
                object,
                format!("env[{name:?}]"),
                "must be a name without '=' and hold no NUL byte",
            ));
        }
    }
    let texts = spec
        .command
        .iter()
        .flatten()
        .chain(spec.args.iter().flatten());
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(invalid(object, "command", "must hold no NUL byte"));
    }
    Ok(())
}

fn check_mount(mount: &Mount) -> Result<(), String> {
    let target = &mount.target;
    if !target.starts_with('/')
        || target.contains('\0')
        || target.split('/').any(|part| part == "..")
    {
        return Err(format!("target {target:?} must be absolute, without '..'"));
    }
    if target.trim_matches('/').is_empty() {
        return Err("target must not be the root".to_owned());
    }
    if mount.tmpfs_size.is_none() && !mount.source.is_absolute() {
        return Err(format!(
            "source {} must be absolute",
            mount.source.display()
        ));
    }
    if mount.tmpfs_size.is_none() && !mount.source.exists() {
        return Err(format!("source {} does not exist", mount.source.display()));
    }
    Ok(())
}

fn arguments(spec: &ContainerSpec, image: &ImageConfig) -> Vec<String> {
    let (program, rest) = match (&spec.command, &spec.args) {
        (Some(command), args) => (command.clone(), args.clone().unwrap_or_default()),
        (None, Some(args)) => (image.entrypoint.clone(), args.clone()),
        (None, None) => (image.entrypoint.clone(), image.command.clone()),
    };
    program.into_iter().chain(rest).collect()
}

fn environment(spec: &ContainerSpec, image: &ImageConfig, hostname: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    let mut set = |name: &str, entry: String| match entries
        .iter_mut()
        .find(|known| known.split('=').next() == Some(name))
    {
        Some(known) => *known = entry,
        None => entries.push(entry),
    };
    set("PATH", format!("PATH={DEFAULT_PATH}"));
    if !hostname.is_empty() {
        set("HOSTNAME", format!("HOSTNAME={hostname}"));
    }
    for entry in &image.env {
        set(entry.split('=').next().unwrap_or_default(), entry.clone());
    }
    for (name, value) in &spec.env {
        set(name, format!("{name}={value}"));
    }
    entries
}

fn working_directory(spec: &ContainerSpec, image: &ImageConfig) -> String {
    let wanted = spec
        .working_dir
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or(&image.working_dir);
    match wanted.strip_prefix('/') {
        Some(_) => wanted.to_owned(),
        None => format!("/{wanted}"),
    }
}

fn stop_signal(
    object: &str,
    spec: &ContainerSpec,
    image: &ImageConfig,
) -> Result<i32, RuntimeError> {
    let from_image = Some(image.stop_signal.as_str()).filter(|text| !text.is_empty());
    let Some(text) = spec.stop_signal.as_deref().or(from_image) else {
        return Ok(Signal::SIGTERM as i32);
    };
    parse_signal(text)
        .ok_or_else(|| invalid(object, "stop_signal", format!("{text:?} is not a signal")))
}

fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=REAL_TIME_LAST).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    if let Some(rest) = name.strip_prefix("SIGRTMIN") {
        let offset: i32 = if rest.is_empty() {
            0
        } else {
            rest.strip_prefix('+')?.parse().ok()?
        };
        return (0..=REAL_TIME_LAST - REAL_TIME_FIRST)
            .contains(&offset)
            .then_some(REAL_TIME_FIRST + offset);
    }
    name.parse::<Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: texts(&["/entry"]),
            command: texts(&["default"]),
            env: texts(&["A=image", "PATH=/image"]),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn a_command_drops_both_of_the_images_defaults_and_arguments_only_one() {
        let spec = |command: Option<&[&str]>, args: Option<&[&str]>| ContainerSpec {
            command: command.map(texts),
            args: args.map(texts),
            ..ContainerSpec::default()
        };
        assert_eq!(
            arguments(&spec(None, None), &image()),
            ["/entry", "default"]
        );
        assert_eq!(
            arguments(&spec(None, Some(&["x"])), &image()),
            ["/entry", "x"]
        );
        assert_eq!(arguments(&spec(Some(&["/own"]), None), &image()), ["/own"]);
        assert_eq!(
            arguments(&spec(Some(&["/own"]), Some(&["x"])), &image()),
            ["/own", "x"]
        );
    }

    #[test]
    fn the_containers_variables_win_over_the_images() {
        let env = vec![
            ("A".to_owned(), "own".to_owned()),
            ("B".to_owned(), "x=y".to_owned()),
        ];
        let spec = ContainerSpec {
            env,
            ..ContainerSpec::default()
        };
        assert_eq!(
            environment(&spec, &image(), "pod"),
            ["PATH=/image", "HOSTNAME=pod", "A=own", "B=x=y"]
        );
    }

    #[test]
    fn signals_are_read_in_every_usual_form() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
        ] {
            assert_eq!(parse_signal(text), Some(number), "{text}");
        }
        for text in ["", "SIGNOPE", "0", "65", "SIGRTMIN+99", "SIGRTMIN3"] {
            assert_eq!(parse_signal(text), None, "{text}");
        }
    }

    #[test]
    fn mounts_that_leave_the_container_are_refused() {
        let mount = |source: &str, target: &str| Mount {
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        };
        assert!(check_mount(&mount("/tmp", "/data")).is_ok());
        for bad in [
            mount("/tmp", "data"),
            mount("/tmp", "/a/../../etc"),
            mount("/tmp", "/"),
            mount("tmp", "/a"),
        ] {
            assert!(check_mount(&bad).is_err(), "{bad:?}");
        }
        assert!(
            check_mount(&mount("/no/such/file", "/a"))
                .unwrap_err()
                .contains("does not exist")
        );
    }

    #[test]
    fn host_wide_sysctls_are_refused_by_field() {
        let mut spec = SandboxSpec {
            id: "a".into(),
            netns_path: Some("/x".into()),
            ..SandboxSpec::default()
        };
        spec.sysctls
            .insert("net.ipv4.ip_forward".into(), "1".into());
        assert!(check_sandbox(&spec).is_ok());
        spec.netns_path = None;
        assert!(
            check_sandbox(&spec)
                .unwrap_err()
                .to_string()
                .contains("net.ipv4.ip_forward")
        );
        spec.sysctls = [("kernel.panic".to_owned(), "1".to_owned())].into();
        assert!(check_sandbox(&spec).is_err());
    }

    #[test]
    fn cgroup_paths_stay_below_the_cluster() {
        assert!(check_subpath("x", "worker-1/pods").is_ok());
        for bad in ["/abs", "a/../b", "a//b", ".."] {
            assert!(check_subpath("x", bad).is_err(), "{bad}");
        }
    }
}
