//! Isolation, limits, statuses and removal of containers.

use std::time::{Duration, Instant};

use local_runtime::{
    ContainerSpec, ContainerState, Mount, ResourceLimits, Runtime, RuntimeError, UserSpec,
};

use crate::world::{World, eventually, sandbox, script, sleeper};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_runs_quickly_and_its_exit_and_log_are_kept() {
    let world = World::new().await;
    let before = Instant::now();
    world.sandbox("pod").await;
    let created = before.elapsed();
    let id = world.start("pod", sleeper("web")).await;
    eprintln!("sandbox {created:?}, until running {:?}", before.elapsed());
    let status = world.runtime.container_status(&id).await.unwrap();
    assert_eq!(status.state, ContainerState::Running);
    let (status, log) = world
        .run("pod", script("hello", "echo out; echo err >&2; exit 3"))
        .await;
    assert_eq!(
        (status.exit_code, status.signal, status.oom_killed),
        (Some(3), None, false)
    );
    assert!(status.started_at.unwrap() <= status.finished_at.unwrap());
    assert!(log.contains("out\n") && log.contains("err\n"), "{log}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_separate_processes_files_and_names() {
    let mut world = World::new().await;
    let spec = local_runtime::SandboxSpec {
        netns_path: Some(world.network_namespace()),
        hosts: "10.0.0.1 me\n".into(),
        resolv_conf: "nameserver 10.96.0.10\n".into(),
        sysctls: [(
            "net.ipv4.ip_unprivileged_port_start".to_owned(),
            "77".to_owned(),
        )]
        .into(),
        ..sandbox("pod")
    };
    world.runtime.create_sandbox(spec).await.unwrap();
    let text = "echo pid=$$; hostname; cat /etc/hosts /etc/resolv.conf /etc/hostname; ls /sys/class/net; \
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls / ; echo env=$FROM_IMAGE $HOSTNAME $HOME; id -u; \
        cat /proc/self/cgroup; ls /sys/fs/cgroup; ls -l /dev/null /dev/fd /dev/shm; df /dev/shm";
    let (status, log) = world.run("pod", script("look", text)).await;
    assert_eq!(status.exit_code, Some(0), "{log}");
    for wanted in [
        "pid=1\n",
        "pod\n",
        "10.0.0.1 me\n",
        "nameserver 10.96.0.10\n",
        "lo\n",
        "77\n",
        "env=yes pod /root\n",
    ] {
        assert!(log.contains(wanted), "{wanted:?} is missing in:\n{log}");
    }
    assert!(
        !log.contains("springtide-it"),
        "the container sees its cgroup's name:\n{log}"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dangerous_things_are_closed() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let text = "cat /proc/kcore; echo x > /proc/sys/kernel/panic; echo 1 > /sys/kernel/x; mount -t tmpfs x /tmp; \
        mknod /tmp/sda b 8 0 && cat /tmp/sda; echo x > /sys/fs/cgroup/memory/tasks; hostname evil; \
        grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; ls /proc/1/fd; mount | grep ' / '";
    let spec = ContainerSpec {
        no_new_privileges: true,
        ..script("probe", text)
    };
    let (_, log) = world.run("pod", spec).await;
    assert!(
        log.contains("CapEff:\t00000000a80425fb") && log.contains("CapBnd:\t00000000a80425fb"),
        "{log}"
    );
    assert!(log.contains("NoNewPrivs:\t1"), "{log}");
    assert!(
        log.contains("can't create /proc/sys/kernel/panic: Read-only"),
        "{log}"
    );
    assert!(
        log.contains("mount: permission denied") || log.contains("Operation not permitted"),
        "{log}"
    );
    assert!(log.contains("can't open '/tmp/sda'"), "{log}");
    assert!(log.contains("nodev"), "{log}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_groups_and_capabilities_are_as_asked() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let by_name = ContainerSpec {
        run_as_user: Some(UserSpec::Name("web".into())),
        supplemental_groups: vec![99],
        ..script(
            "name",
            "id; echo $HOME; grep CapEff /proc/self/status; echo hi > /dev/stderr",
        )
    };
    let (_, log) = world.run("pod", by_name).await;
    assert!(
        log.contains("uid=1234(web) gid=1235 groups=77(extra),99") && log.contains("/srv"),
        "{log}"
    );
    assert!(
        log.contains("CapEff:\t0000000000000000") && log.contains("hi\n"),
        "{log}"
    );
    let by_number = ContainerSpec {
        run_as_user: Some(UserSpec::Id(4000)),
        run_as_group: Some(4001),
        must_run_as_non_root: true,
        ..script("number", "id -u; id -g")
    };
    assert_eq!(world.run("pod", by_number).await.1, "4000\n4001\n");
    let dropped = ContainerSpec {
        dropped_capabilities: vec!["ALL".into()],
        added_capabilities: vec!["KILL".into()],
        ..script("caps", "grep CapEff /proc/self/status")
    };
    assert_eq!(
        world.run("pod", dropped).await.1,
        "CapEff:\t0000000000000020\n"
    );
    let root = ContainerSpec {
        must_run_as_non_root: true,
        ..script("root", "true")
    };
    let id = world.runtime.create_container("pod", root).await.unwrap();
    let error = world
        .runtime
        .start_container(&id)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("runAsNonRoot"), "{error}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_appear_and_read_only_ones_refuse_writes() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let volume = tempfile::tempdir().unwrap();
    std::fs::write(volume.path().join("given"), "from host").unwrap();
    let bind = |target: &str, read_only| Mount {
        source: volume.path().into(),
        target: target.into(),
        read_only,
        tmpfs_size: None,
    };
    let spec = ContainerSpec {
        mounts: vec![
            bind("/data/in", false),
            bind("/readonly", true),
            Mount {
                target: "/memory".into(),
                tmpfs_size: Some(1 << 20),
                ..Mount::default()
            },
            Mount {
                source: volume.path().join("given"),
                target: "/etc/one-file".into(),
                ..Mount::default()
            },
        ],
        read_only_rootfs: true,
        working_dir: Some("/data/in".into()),
        termination_message_path: Some("/dev/termination-log".into()),
        ..script(
            "vol",
            "cat given; cat /etc/one-file; echo new > made; echo x > /readonly/x; echo x > /x; echo m > /memory/f && echo memory ok; pwd; echo last words > /dev/termination-log",
        )
    };
    let (status, log) = world.run("pod", spec).await;
    assert!(
        log.matches("from host").count() == 2 && log.contains("memory ok\n/data/in\n"),
        "{log}"
    );
    assert_eq!(log.matches("Read-only file system").count(), 2, "{log}");
    assert_eq!(
        std::fs::read_to_string(volume.path().join("made")).unwrap(),
        "new\n"
    );
    assert_eq!(status.message.as_deref(), Some("last words\n"));
    world.finish().await;
    assert!(volume.path().join("given").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_in_the_image_cannot_lead_a_mount_out() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let outside = tempfile::tempdir().unwrap();
    let tree = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), tree.path().join("link")).unwrap();
    let layers = vec![local_runtime::image::LayerSource::Directory(
        tree.path().into(),
    )];
    world
        .runtime
        .images()
        .import_image("evil", Default::default(), layers)
        .await
        .unwrap();
    let volume = tempfile::tempdir().unwrap();
    let mount = Mount {
        source: volume.path().into(),
        target: "/link/inner".into(),
        ..Mount::default()
    };
    let spec = ContainerSpec {
        image: "evil".into(),
        mounts: vec![mount],
        ..script("evil", "true")
    };
    let id = world.runtime.create_container("pod", spec).await.unwrap();
    // It has no shell, so it fails either way.
    assert!(world.runtime.start_container(&id).await.is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_bind_and_usage_is_measured() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let memory = ContainerSpec {
        resources: ResourceLimits {
            memory_limit_bytes: Some(24 << 20),
            ..ResourceLimits::default()
        },
        ..script("hog", "x=a; while :; do x=$x$x; done")
    };
    let (status, _) = world.run("pod", memory).await;
    assert!(
        status.oom_killed && status.exit_code == Some(137),
        "{status:?}"
    );
    let pids = ContainerSpec {
        resources: ResourceLimits {
            pids_limit: Some(5),
            ..ResourceLimits::default()
        },
        ..script("forks", "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done")
    };
    let (_, log) = world.run("pod", pids).await;
    assert!(log.contains("can't fork"), "{log}");
    let busy = ContainerSpec {
        resources: ResourceLimits {
            cpu_limit_milli: Some(100),
            ..ResourceLimits::default()
        },
        ..script("busy", "while :; do :; done")
    };
    world.start("pod", busy).await;
    let usage = async || {
        let usage = world.runtime.usage("pod").await.unwrap();
        usage
            .containers
            .into_iter()
            .find(|one| one.name == "busy")
            .map(|one| (one, Instant::now()))
    };
    let (first, began) = usage().await.unwrap();
    eventually("a second of usage", async || {
        began.elapsed() > Duration::from_secs(1)
    })
    .await;
    let (second, ended) = usage().await.unwrap();
    let cores =
        (second.cpu_usage_nanos - first.cpu_usage_nanos) as f64 / (ended - began).as_nanos() as f64;
    assert!(cores < 0.25, "a limit of 0.1 cores gave {cores}");
    assert!(
        second.memory_usage_bytes > 0
            && second.memory_working_set_bytes <= second.memory_usage_bytes
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_limit_binds_all_below_it() {
    let world = World::new().await;
    let limits = ResourceLimits {
        memory_limit_bytes: Some(32 << 20),
        ..ResourceLimits::default()
    };
    world
        .runtime
        .set_group_limits("worker-1", &limits)
        .await
        .unwrap();
    world.sandbox("pod").await;
    let (status, _) = world
        .run("pod", script("hog", "x=a; while :; do x=$x$x; done"))
        .await;
    assert_eq!(status.exit_code, Some(137), "{status:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_sends_the_signal_first_and_kills_after_the_grace() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let polite = world.start("pod", sleeper("polite")).await;
    // The trap must be set before the signal comes.
    eventually("the trap", async || {
        world
            .exec(&polite, "grep -q 'SigCgt:.*4...$' /proc/1/status")
            .await
            .0
            == 0
    })
    .await;
    world
        .runtime
        .stop_container(&polite, Duration::from_secs(10))
        .await
        .unwrap();
    let status = world.runtime.container_status(&polite).await.unwrap();
    assert_eq!((status.exit_code, status.signal), (Some(7), None));
    let deaf = world
        .start(
            "pod",
            script("deaf", "sleep 1000 & while :; do sleep 1000; done"),
        )
        .await;
    let began = Instant::now();
    world
        .runtime
        .stop_container(&deaf, Duration::from_millis(200))
        .await
        .unwrap();
    let status = world.runtime.container_status(&deaf).await.unwrap();
    assert_eq!((status.exit_code, status.signal), (Some(137), Some(9)));
    assert!(began.elapsed() >= Duration::from_millis(200));
    world.runtime.remove_container(&deaf).await.unwrap();
    assert!(
        world
            .runtime
            .container_status(&deaf)
            .await
            .unwrap_err()
            .is_not_found()
    );
    world.runtime.remove_container(&deaf).await.unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_process_namespace_shows_neighbours_and_ends_only_its_own() {
    let world = World::new().await;
    let spec = local_runtime::SandboxSpec {
        share_process_namespace: true,
        ..sandbox("pod")
    };
    world.runtime.create_sandbox(spec).await.unwrap();
    let neighbour = world.start("pod", sleeper("neighbour")).await;
    let (_, log) = world.run("pod", script("look", "ps; sleep 100 & ")).await;
    assert!(log.contains("trap 'exit 7'"), "{log}");
    let status = world.runtime.container_status(&neighbour).await.unwrap();
    assert_eq!(status.state, ContainerState::Running);
    let (code, output) = world.exec(&neighbour, "ps | grep -c 'sleep 100$'").await;
    assert_eq!((code, output.as_str()), (1, "0\n"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_working_directory_leads_out() {
    let world = World::new().await;
    world.sandbox("pod").await;
    // Were a descriptor of a host directory left open, it would be one of these.
    for number in 3..20 {
        let spec = ContainerSpec {
            working_dir: Some(format!("/proc/self/fd/{number}")),
            ..script(&format!("fd{number}"), "ls")
        };
        let id = world.runtime.create_container("pod", spec).await.unwrap();
        assert!(
            world.runtime.start_container(&id).await.is_err(),
            "descriptor {number}"
        );
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_multiply_are_ended_with_their_container() {
    let world = World::new().await;
    let spec = local_runtime::SandboxSpec {
        share_process_namespace: true,
        ..sandbox("pod")
    };
    world.runtime.create_sandbox(spec).await.unwrap();
    let resources = ResourceLimits {
        pids_limit: Some(40),
        cpu_limit_milli: Some(500),
        ..ResourceLimits::default()
    };
    let bomb = ContainerSpec {
        resources,
        ..script("bomb", "b() { b | b & }; b; while :; do sleep 1; done")
    };
    let bomb = world.start("pod", bomb).await;
    let neighbour = world.start("pod", sleeper("neighbour")).await;
    world
        .runtime
        .stop_container(&bomb, Duration::ZERO)
        .await
        .unwrap();
    world.runtime.remove_container(&bomb).await.unwrap();
    eventually("only the neighbour is left", async || {
        world.exec(&neighbour, "ps | grep -c 'b() [{]'").await.1 == "0\n"
    })
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why_and_counts_as_exited() {
    let world = World::new().await;
    world.sandbox("pod").await;
    for (name, command, wanted) in [
        (
            "missing",
            "nonsense",
            "\"nonsense\": executable file not found in $PATH",
        ),
        ("path", "/no/such", "no such file or directory"),
        ("denied", "/etc/passwd", "permission denied"),
    ] {
        let spec = ContainerSpec {
            command: Some(vec![command.into()]),
            ..script(name, "")
        };
        let id = world.runtime.create_container("pod", spec).await.unwrap();
        let error = world.runtime.start_container(&id).await.unwrap_err();
        assert!(
            matches!(error, RuntimeError::Start { .. }) && error.to_string().contains(wanted),
            "{error}"
        );
        let status = world.runtime.container_status(&id).await.unwrap();
        assert_eq!(
            (status.state, status.exit_code),
            (ContainerState::Exited, Some(128))
        );
    }
    let user = ContainerSpec {
        run_as_user: Some(UserSpec::Name("nobody".into())),
        ..script("user", "true")
    };
    let id = world.runtime.create_container("pod", user).await.unwrap();
    assert!(
        world
            .runtime
            .start_container(&id)
            .await
            .unwrap_err()
            .to_string()
            .contains("nobody")
    );
    let unknown = ContainerSpec {
        image: "no/such:1".into(),
        ..script("image", "true")
    };
    assert!(matches!(
        world.runtime.create_container("pod", unknown).await,
        Err(RuntimeError::Image { .. })
    ));
    let privileged = ContainerSpec {
        privileged: true,
        ..script("all", "true")
    };
    assert!(matches!(
        world.runtime.create_container("pod", privileged).await,
        Err(RuntimeError::Invalid { .. })
    ));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_sandboxes_start_side_by_side() {
    let world = World::new().await;
    let starts = (0..8).map(|number| {
        let world = &world;
        async move {
            let pod = format!("pod-{number}");
            world.sandbox(&pod).await;
            let one = world.start(&pod, sleeper("one")).await;
            let two = world.start(&pod, sleeper("two")).await;
            assert_eq!(world.exec(&one, "echo $$ alive").await.0, 0);
            assert_eq!(
                world.runtime.container_status(&two).await.unwrap().state,
                ContainerState::Running
            );
        }
    });
    futures::future::join_all(starts).await;
    assert_eq!(world.runtime.sandboxes().await.len(), 8);
    world.runtime.remove_sandbox("pod-3").await.unwrap();
    world.runtime.remove_sandbox("pod-3").await.unwrap();
    assert_eq!(world.runtime.sandboxes().await.len(), 7);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_that_cannot_start_leaves_nothing() {
    let world = World::new().await;
    let spec = local_runtime::SandboxSpec {
        netns_path: Some("/run/netns/no-such".into()),
        ..sandbox("pod")
    };
    let error = world
        .runtime
        .create_sandbox(spec)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("/run/netns/no-such"), "{error}");
    assert!(world.runtime.sandboxes().await.is_empty());
    let left = Runtime::leftovers(world.state.path(), &world.cluster);
    assert!(
        left.processes.is_empty() && left.mounts.is_empty(),
        "{left:?}"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_output_is_bounded_on_disk_and_blocks_nobody() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let line = "x".repeat(1000);
    let flood = world
        .start(
            "pod",
            script(
                "flood",
                &format!("yes {line} | head -c 36000000; echo the end"),
            ),
        )
        .await;
    let quiet = world.start("pod", sleeper("quiet")).await;
    assert_eq!(
        world.exec(&quiet, "echo still here").await,
        (0, "still here\n".to_owned())
    );
    let status = world.wait_exited(&flood).await;
    let directory = status.log_path.parent().unwrap();
    let sizes = std::fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len());
    let total: u64 = sizes.sum();
    assert!(total < 32 << 20, "{total} bytes of log");
    assert!(world.log(&flood).await.ends_with("the end\n"));
    world.finish().await;
}
