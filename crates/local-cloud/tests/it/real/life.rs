//! Groups of real containers from creation to deletion.

use super::world::{World, group, log, script, until_log};
use crate::support::{TestCloud, eventually};
use bytes::Bytes;
use cloud_api::exec::{Frame, connect};
use cloud_api::model::GroupStatus;
use cloud_api::model::create::*;
use cloud_api::model::describe::ContainerGroup;
use cloud_api::model::manage::{ExecContainerCommandRequest, UpdateContainerGroupRequest};
use cloud_api::model::metrics::DescribeMultiContainerGroupMetricRequest;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..Default::default()
    }
}

/// A web server whose page an init container writes from a configuration file.
fn web() -> CreateContainerGroupRequest {
    let mut main = script("web", "echo serving; exec httpd -f -p 8080 -h /www");
    main.cpu = Some(0.5);
    main.memory = Some(0.25);
    main.volume_mount = vec![mount("www", "/www")];
    main.environment_var = vec![EnvironmentVarSpec {
        key: "POD_IP".to_owned(),
        value: None,
        field_ref: Some(FieldRef {
            field_path: "status.podIP".to_owned(),
        }),
    }];
    main.readiness_probe = Some(ProbeSpec {
        http_get: Some(HttpGetAction {
            path: Some("/index.html".to_owned()),
            port: 8080,
            scheme: None,
        }),
        ..Default::default()
    });
    let mut init = script("init", "cp /conf/page /www/index.html && echo copied");
    init.volume_mount = vec![mount("www", "/www"), mount("conf", "/conf")];
    let mut request = group("web", main);
    request.init_container = vec![init];
    request.dns_config = Some(DnsConfigSpec {
        name_server: vec!["10.1.1.1".to_owned()],
        ..Default::default()
    });
    request.volume = vec![
        VolumeSpec {
            name: "www".to_owned(),
            volume_type: "EmptyDirVolume".to_owned(),
            ..Default::default()
        },
        VolumeSpec {
            name: "conf".to_owned(),
            volume_type: "ConfigFileVolume".to_owned(),
            config_file_volume: Some(ConfigFileVolumeSpec {
                default_mode: Some(0o444),
                config_file_to_path: vec![ConfigFileToPath {
                    path: "page".to_owned(),
                    content: "aGVsbG8=".to_owned(),
                    mode: None,
                }],
            }),
            ..Default::default()
        },
    ];
    request
}

fn exec(id: &str, command: &[&str], sync: bool) -> ExecContainerCommandRequest {
    ExecContainerCommandRequest {
        container_group_id: id.to_owned(),
        container_name: "web".to_owned(),
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        sync: Some(sync),
        ..Default::default()
    }
}

/// Waits until processor time, memory and network of a group are measured.
async fn until_sampled(test: &TestCloud, id: &str) {
    let request = DescribeMultiContainerGroupMetricRequest {
        container_group_ids: vec![id.to_owned()],
        ..Default::default()
    };
    eventually("usage is sampled", || async {
        let datas = test.client.call(&request).await.unwrap().monitor_datas;
        match datas.first().and_then(|data| data.records.first()) {
            Some(record)
                if record.memory.working_set > 0
                    && record.cpu.usage_core_nano_seconds > 0
                    && !record.network.interfaces.is_empty() =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_serves_at_its_address_and_leaves_nothing_behind() {
    let world = World::new().await;
    let test = world.start().await;
    let id = test.create(&web()).await;
    let described = eventually("the web server is ready", || async {
        let group = test.describe(&id).await.unwrap();
        if group.containers[0].ready {
            Ok(group)
        } else {
            Err(format!("{group:#?}"))
        }
    })
    .await;
    assert_eq!(described.status, GroupStatus::Running);
    assert_eq!(described.instance_type, None);
    // Both containers have the same image, so the second pull only counts.
    let events: Vec<(&str, u32)> = described
        .events
        .iter()
        .map(|event| (event.reason.as_str(), event.count))
        .collect();
    let once = |reason| (reason, 1);
    let expected = [
        ("Pulling", 2),
        ("Pulled", 2),
        once("Created"),
        once("Started"),
        once("Created"),
        once("Started"),
    ];
    assert!(events.ends_with(&expected), "{events:?}");
    let address = described.intranet_ip.unwrap();
    let target: SocketAddr = format!("{address}:8080").parse().unwrap();
    let mut stream = world
        .network()
        .await
        .sockets()
        .tcp_connect(target)
        .await
        .unwrap();
    stream
        .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!(log(&test, &id, "init", false).await, "copied\n");
    until_log(&test, &id, "web", "serving").await;

    let command = exec(
        &id,
        &["sh", "-c", "echo $POD_IP; cat /etc/resolv.conf; hostname"],
        true,
    );
    let output = test
        .client
        .call(&command)
        .await
        .unwrap()
        .sync_response
        .unwrap();
    assert_eq!(output, format!("{address}\nnameserver 10.1.1.1\nweb\n"));
    let command = exec(&id, &["sh", "-c", "cat; echo oops >&2; exit 3"], false);
    let uri = test
        .client
        .call(&command)
        .await
        .unwrap()
        .web_socket_uri
        .unwrap();
    let (mut sender, mut receiver) = connect(&uri).await.unwrap();
    sender
        .send(Frame::Stdin(Bytes::from_static(b"round trip")))
        .await
        .unwrap();
    sender.send(Frame::CloseStdin).await.unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = receiver.next().await {
        frames.push(frame.unwrap());
    }
    assert!(
        frames.contains(&Frame::Stdout(Bytes::from_static(b"round trip"))),
        "{frames:?}"
    );
    assert!(
        frames.contains(&Frame::Stderr(Bytes::from_static(b"oops\n"))),
        "{frames:?}"
    );
    assert_eq!(frames.last(), Some(&Frame::Exit(3)));

    until_sampled(&test, &id).await;
    world.finish(test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_keeps_its_log_and_gives_its_address_back() {
    let world = World::new().await;
    let test = world.start().await;
    let mut job = group("job", script("main", "echo done; exit 4"));
    job.restart_policy = Some("Never".to_owned());
    let id = test.create(&job).await;
    let ended = test.until(&id, GroupStatus::Failed).await;
    assert_eq!(
        ended.containers[0]
            .current_state
            .as_ref()
            .unwrap()
            .exit_code,
        Some(4)
    );
    eventually("the network is given back", || async {
        let attached = world.network().await.attached().await.unwrap();
        if attached.is_empty() {
            Ok(())
        } else {
            Err(format!("{attached:?}"))
        }
    })
    .await;
    assert_eq!(log(&test, &id, "main", false).await, "done\n");
    world.finish(test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_liveness_probe_and_a_crash_lead_to_restarts() {
    let world = World::new().await;
    let test = world.start().await;
    let mut main = script(
        "main",
        "echo run; touch /tmp/alive; sleep 1; rm /tmp/alive; exec sleep 1000",
    );
    main.liveness_probe = Some(ProbeSpec {
        exec: Some(ExecAction {
            command: vec!["test".to_owned(), "-e".to_owned(), "/tmp/alive".to_owned()],
        }),
        period_seconds: Some(1),
        failure_threshold: Some(1),
        ..Default::default()
    });
    let sick = test.create(&group("sick", main)).await;
    let crash = test
        .create(&group("crash", script("main", "echo run; exit 1")))
        .await;
    for id in [&sick, &crash] {
        let group = eventually("restarted", || async {
            let group = test.describe(id).await.unwrap();
            if group.containers[0].restart_count >= 2 {
                Ok(group)
            } else {
                Err(format!("{group:#?}"))
            }
        })
        .await;
        assert!(group.containers[0].previous_state.is_some());
    }
    assert_eq!(log(&test, &sick, "main", true).await, "run\n");
    let events = test.describe(&sick).await.unwrap().events;
    assert!(
        events.iter().any(|event| event.reason == "Unhealthy"),
        "{events:?}"
    );
    world.finish(test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_image_is_told_where_people_look_and_the_group_can_go() {
    let world = World::new().await;
    let test = world.start().await;
    let mut main = script("main", "true");
    main.image = "127.0.0.1:1/none/such:1".to_owned();
    let id = test.create(&group("wrong", main)).await;
    eventually("the pull is backed off", || async {
        let group = test.describe(&id).await.unwrap();
        let state = group.containers[0]
            .current_state
            .clone()
            .unwrap_or_default();
        if state.reason.as_deref() == Some("ImagePullBackOff") {
            Ok(())
        } else {
            Err(format!("{group:#?}"))
        }
    })
    .await;
    let events = test.describe(&id).await.unwrap().events;
    assert!(
        events
            .iter()
            .any(|event| event.reason == "Failed" && event.message.contains("none/such")),
        "{events:?}"
    );
    world.finish(test).await;
}

/// A group whose container prints its configuration file.
fn reader(text: &str) -> CreateContainerGroupRequest {
    let mut main = script(
        "web",
        "trap 'exit 0' TERM; while :; do sleep 1 & wait; done",
    );
    main.volume_mount = vec![mount("conf", "/conf")];
    let mut request = group("reader", main);
    request.volume = vec![VolumeSpec {
        name: "conf".to_owned(),
        volume_type: "ConfigFileVolume".to_owned(),
        config_file_volume: Some(ConfigFileVolumeSpec {
            default_mode: None,
            config_file_to_path: vec![ConfigFileToPath {
                path: "token".to_owned(),
                content: text.to_owned(),
                mode: None,
            }],
        }),
        ..Default::default()
    }];
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn new_content_of_a_file_reaches_a_running_container() {
    let world = World::new().await;
    let test = world.start().await;
    let id = test.create(&reader("b25l")).await;
    let before = test.until(&id, GroupStatus::Running).await;
    let read = exec(&id, &["cat", "/conf/token"], true);
    let seen = || async { test.client.call(&read).await.unwrap().sync_response };
    assert_eq!(seen().await, Some("one".to_owned()));
    let update = UpdateContainerGroupRequest {
        container_group_id: id.clone(),
        update_type: Some("IncrementalUpdate".to_owned()),
        volume: reader("dHdv").volume,
        ..Default::default()
    };
    test.client.call(&update).await.unwrap();
    let after = test.until(&id, GroupStatus::Running).await;
    assert_eq!(seen().await, Some("two".to_owned()));
    let state = |group: &ContainerGroup| {
        let container = &group.containers[0];
        let started = container.current_state.as_ref();
        (
            container.restart_count,
            started.and_then(|state| state.start_time.clone()),
        )
    };
    assert_eq!(state(&after), state(&before), "nothing is started anew");
    world.finish(test).await;
}
