//! Flattening and reading back.

use cloud_api::flatten::flatten;
use cloud_api::model::create::*;
use cloud_api::model::describe::Tag;
use cloud_api::model::manage::ExecContainerCommandRequest;
use cloud_api::unflatten::{ParameterError, unflatten};
use proptest::prelude::*;
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(pairs: &[(&str, &str)]) -> Result<T, ParameterError> {
    unflatten(pairs.iter().copied())
}

fn back<T: DeserializeOwned>(pairs: &[(String, String)]) -> Result<T, ParameterError> {
    unflatten(
        pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    )
}

fn sample() -> CreateContainerGroupRequest {
    CreateContainerGroupRequest {
        region_id: "cn-hangzhou".to_owned(),
        container_group_name: "group".to_owned(),
        cpu: Some(0.25),
        memory: Some(1.0),
        termination_grace_period_seconds: Some(30),
        tag: vec![Tag {
            key: "a".to_owned(),
            value: "b".to_owned(),
        }],
        container: vec![ContainerSpec {
            name: "main".to_owned(),
            image: "busybox".to_owned(),
            command: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            environment_var: vec![EnvironmentVarSpec {
                key: "IP".to_owned(),
                field_ref: Some(FieldRef {
                    field_path: "status.podIP".to_owned(),
                }),
                ..Default::default()
            }],
            port: vec![ContainerPort {
                port: 80,
                protocol: Some("TCP".to_owned()),
            }],
            liveness_probe: Some(ProbeSpec {
                tcp_socket: Some(TcpSocketAction {
                    host: None,
                    port: 80,
                }),
                ..Default::default()
            }),
            lifecycle_pre_stop_handler_exec: vec!["sleep".to_owned()],
            security_context_run_as_group: Some(7),
            tty: Some(true),
            ..Default::default()
        }],
        volume: vec![VolumeSpec {
            name: "share".to_owned(),
            volume_type: "NFSVolume".to_owned(),
            nfs_volume: Some(NfsVolumeSpec {
                server: "s".to_owned(),
                path: "/".to_owned(),
                read_only: Some(true),
            }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn names_are_the_documented_ones() {
    let pairs = flatten(&sample()).unwrap();
    let has = |name: &str, value: &str| {
        assert!(
            pairs.contains(&(name.to_owned(), value.to_owned())),
            "{name}={value} in {pairs:?}"
        );
    };
    has("Container.1.Command.2", "-c");
    has(
        "Container.1.EnvironmentVar.1.FieldRef.FieldPath",
        "status.podIP",
    );
    has("Container.1.LivenessProbe.TcpSocket.Port", "80");
    has("Container.1.LifecyclePreStopHandlerExec.1", "sleep");
    has("Container.1.SecurityContextRunAsGroup", "7");
    has("Container.1.Tty", "true");
    has("Volume.1.NFSVolume.ReadOnly", "true");
    has("Volume.1.Type", "NFSVolume");
    has("Tag.1.Key", "a");
    has("TerminationGracePeriodSeconds", "30");
    has("Memory", "1.0");
    assert!(
        !pairs
            .iter()
            .any(|(name, _)| name.starts_with("InitContainer")),
        "unset members travel"
    );
}

#[test]
fn a_request_comes_back_whole() {
    assert_eq!(
        back::<CreateContainerGroupRequest>(&flatten(&sample()).unwrap()),
        Ok(sample())
    );
}

#[test]
fn every_client_s_way_of_writing_is_understood() {
    let request: CreateContainerGroupRequest = read(&[
        ("Cpu", "1"),
        ("Memory", "2.0"),
        ("TerminationGracePeriodSeconds", "30.0"),
        ("ShareProcessNamespace", "True"),
        ("DryRun", "false"),
        ("Container.1.Tty", "FALSE"),
        ("OwnerId", "12"),
        ("EphemeralStorage", ""),
    ])
    .unwrap();
    assert_eq!((request.cpu, request.memory), (Some(1.0), Some(2.0)));
    assert_eq!(request.termination_grace_period_seconds, Some(30));
    assert_eq!(
        (request.share_process_namespace, request.dry_run),
        (Some(true), Some(false))
    );
    assert_eq!(request.container[0].tty, Some(false));
    assert_eq!(request.ephemeral_storage, None);
}

#[test]
fn gaps_in_a_list_close_up_in_numeric_order() {
    let request: CreateContainerGroupRequest = read(&[
        ("Container.10.Name", "c"),
        ("Container.2.Name", "b"),
        ("Container.1.Name", "a"),
    ])
    .unwrap();
    let names: Vec<_> = request
        .container
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn json_lists_are_read_with_and_without_spaces() {
    for text in [r#"["/bin/sh", "-c"]"#, r#"["/bin/sh","-c"]"#] {
        let request: ExecContainerCommandRequest =
            read(&[("Command", text), ("TTY", "False")]).unwrap();
        assert_eq!(request.command, ["/bin/sh", "-c"]);
        assert_eq!(request.tty, Some(false));
    }
}

#[test]
fn wrong_values_are_refused_with_the_parameter_s_full_name() {
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[("Cpu", "many")], "Cpu"),
        (&[("Cpu", "NaN")], "Cpu"),
        (
            &[("Container.1.Port.2.Port", "70000")],
            "Container.1.Port.2.Port",
        ),
        (&[("Container.0.Name", "a")], "Container.0"),
        (&[("Container.x.Name", "a")], "Container.x"),
        (&[("Container.1001.Name", "a")], "Container.1001"),
        (&[("Container", "a")], "Container"),
        (&[("ContainerGroupName.1", "a")], "ContainerGroupName"),
        (&[("Cpu", "1"), ("Cpu", "2")], "Cpu"),
    ];
    for (pairs, name) in cases {
        let error = read::<CreateContainerGroupRequest>(pairs).unwrap_err();
        assert_eq!(error.parameter(), name, "{error}");
    }
    let error = read::<ExecContainerCommandRequest>(&[("Command", "ls")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "parameter Command must be a JSON array of texts"
    );
    let deep = vec!["A"; 100].join(".");
    let error = read::<CreateContainerGroupRequest>(&[(&deep, "1")]).unwrap_err();
    assert!(matches!(error, ParameterError::TooDeep { .. }));
}

fn text() -> impl Strategy<Value = String> {
    ".{1,12}"
}

fn container() -> impl Strategy<Value = ContainerSpec> {
    (
        (text(), text()),
        proptest::collection::vec(text(), 0..4),
        proptest::collection::vec((text(), proptest::option::of(text())), 0..4),
        proptest::collection::vec(any::<u16>(), 0..3),
        proptest::option::of(0.01f64..64.0),
        proptest::option::of(any::<bool>()),
    )
        .prop_map(|((name, image), arg, environment, ports, cpu, tty)| {
            let environment_var = environment
                .into_iter()
                .map(|(key, value)| EnvironmentVarSpec {
                    key,
                    value,
                    field_ref: None,
                })
                .collect();
            let port = ports
                .into_iter()
                .map(|port| ContainerPort {
                    port,
                    protocol: None,
                })
                .collect();
            ContainerSpec {
                name,
                image,
                arg,
                environment_var,
                port,
                cpu,
                tty,
                ..Default::default()
            }
        })
}

proptest! {
    #[test]
    fn whatever_is_flattened_comes_back(container in proptest::collection::vec(container(), 0..4),
                                        name in text(), memory in proptest::option::of(0.1f64..512.0)) {
        let request = CreateContainerGroupRequest {
            container_group_name: name, container, memory, ..Default::default()
        };
        let pairs = flatten(&request).unwrap();
        prop_assert_eq!(back::<CreateContainerGroupRequest>(&pairs), Ok(request));
    }

    #[test]
    fn reading_parameters_never_panics(pairs in proptest::collection::vec(
        ("(Container|Volume|Tag|Cpu|DnsConfig|[.]|[0-9]{1,5}|Name|Port){1,6}", ".{0,6}"), 0..8)) {
        let _ = back::<CreateContainerGroupRequest>(&pairs);
    }
}
