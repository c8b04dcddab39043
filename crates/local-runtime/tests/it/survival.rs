//! What happens when the program, a shim, or the state directory goes.

use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt;
use local_runtime::{ContainerId, ContainerState, ExecSpec, Runtime, SandboxState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;

use crate::world::{PATIENCE, World, config, eventually, sandbox, script, sleeper};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_handle_finds_running_containers_again() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let running = world.start("pod", sleeper("web")).await;
    let (done, _) = world.run("pod", script("done", "exit 6")).await;
    let before = world.runtime.container_status(&running).await.unwrap();
    let again = Runtime::open(config(world.state.path(), &world.cluster))
        .await
        .unwrap();
    assert_eq!(again.container_status(&running).await.unwrap(), before);
    assert_eq!(again.container_status(&done.id).await.unwrap(), done);
    let output = again
        .exec_sync(
            &running,
            vec!["echo".into(), "hi".into()],
            Duration::from_secs(10),
        )
        .await
        .unwrap();
    assert_eq!(output.stdout, b"hi\n");
    let mut events = again.events();
    again
        .stop_container(&running, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(events.recv().await.unwrap(), "pod");
    world.finish().await;
}

const HELPER_STATE: &str = "LOCAL_RUNTIME_HELPER_STATE";
const HELPER_CLUSTER: &str = "LOCAL_RUNTIME_HELPER_CLUSTER";

/// Not a test by itself: the program that the next test kills. It starts a container and goes on until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helper_that_is_killed() {
    let (Ok(state), Ok(cluster)) = (std::env::var(HELPER_STATE), std::env::var(HELPER_CLUSTER))
    else {
        return;
    };
    let runtime = Runtime::open(config(state.as_ref(), &cluster))
        .await
        .unwrap();
    runtime.create_sandbox(sandbox("pod")).await.unwrap();
    let spec = script(
        "web",
        "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done",
    );
    let id = runtime.create_container("pod", spec).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    let mut session = runtime
        .exec(
            &id,
            ExecSpec {
                command: vec!["sleep".into(), "999".into()],
                ..ExecSpec::default()
            },
        )
        .await
        .unwrap();
    std::fs::write(Path::new(&state).join("started"), "").unwrap();
    let _ = session.stdout.read_u8().await;
}

/// Not a test by itself either: it creates and removes sandboxes until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helper_that_churns() {
    let (Ok(state), Ok(cluster)) = (std::env::var(HELPER_STATE), std::env::var(HELPER_CLUSTER))
    else {
        return;
    };
    let runtime = &Runtime::open(config(state.as_ref(), &cluster))
        .await
        .unwrap();
    std::fs::write(Path::new(&state).join("started"), "").unwrap();
    let churn = (0..4).map(|number| async move {
        for round in 0.. {
            let pod = format!("pod-{number}-{round}");
            runtime.create_sandbox(sandbox(&pod)).await.unwrap();
            let id = runtime
                .create_container(&pod, sleeper("web"))
                .await
                .unwrap();
            runtime.start_container(&id).await.unwrap();
            if round % 2 == 0 {
                runtime.remove_sandbox(&pod).await.unwrap();
            }
        }
    });
    futures::future::join_all(churn).await;
}

fn start_helper(world: &World, name: &str) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(HELPER_STATE, world.state.path())
        .env(HELPER_CLUSTER, &world.cluster)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_killed_at_any_moment_leaves_only_what_can_be_found_or_removed() {
    for milliseconds in [5, 40, 90, 170, 260] {
        let world = World::new().await;
        let mut program = start_helper(&world, "survival::helper_that_churns");
        eventually("the program has begun", async || {
            world.state.path().join("started").exists()
        })
        .await;
        // Wherever it is by then is as good as anywhere else.
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        program.kill().unwrap();
        program.wait().unwrap();
        let again = Runtime::open(config(world.state.path(), &world.cluster))
            .await
            .unwrap();
        for found in again.sandboxes().await {
            for container in again.containers(&found.id).await {
                let known = [
                    ContainerState::Created,
                    ContainerState::Running,
                    ContainerState::Exited,
                ];
                assert!(known.contains(&container.state));
            }
            again.remove_sandbox(&found.id).await.unwrap();
        }
        // Whatever is created under the same name is whole again.
        again.create_sandbox(sandbox("pod-0-0")).await.unwrap();
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_program_neither_ends_nor_leaks_its_containers() {
    let world = World::new().await;
    let mut program = start_helper(&world, "survival::helper_that_is_killed");
    eventually("the program has started its container", async || {
        world.state.path().join("started").exists()
    })
    .await;
    program.kill().unwrap();
    program.wait().unwrap();
    let again = Runtime::open(config(world.state.path(), &world.cluster))
        .await
        .unwrap();
    let id = ContainerId::new("pod", "web", 0);
    assert_eq!(
        again.container_status(&id).await.unwrap().state,
        ContainerState::Running
    );
    let lines = async || {
        let stream = again.container_logs(&id, Default::default()).await.unwrap();
        let chunks: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
        chunks
            .concat()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
    };
    let before = lines().await;
    eventually("the container goes on writing", async || {
        lines().await > before + 3
    })
    .await;
    // The command whose client was killed has gone with it.
    let look = vec![
        "sh".into(),
        "-c".into(),
        "ps | grep -q 'sleep 99[9]'".into(),
    ];
    eventually("the orphaned command is gone", async || {
        again
            .exec_sync(&id, look.clone(), PATIENCE)
            .await
            .unwrap()
            .exit_code
            == 1
    })
    .await;
    again.remove_sandbox("pod").await.unwrap();
    assert!(
        Runtime::leftovers(world.state.path(), &world.cluster)
            .processes
            .is_empty()
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_shim_takes_its_containers_and_is_reported() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let id = world.start("pod", sleeper("web")).await;
    let pid = world
        .runtime
        .container_status(&id)
        .await
        .unwrap()
        .pid
        .unwrap();
    let shim = world
        .runtime
        .sandbox_status("pod")
        .await
        .unwrap()
        .shim_pid
        .unwrap();
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    eventually("the sandbox is not ready", async || {
        world.runtime.sandbox_status("pod").await.unwrap().state == SandboxState::NotReady
    })
    .await;
    eventually("the container is gone", async || {
        kill(Pid::from_raw(pid), None).is_err()
    })
    .await;
    let status = world.runtime.container_status(&id).await.unwrap();
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::Exited, Some(137))
    );
    assert!(world.runtime.start_container(&id).await.is_err());
    let again = Runtime::open(config(world.state.path(), &world.cluster))
        .await
        .unwrap();
    assert_eq!(
        again.sandbox_status("pod").await.unwrap().state,
        SandboxState::NotReady
    );
    again.remove_sandbox("pod").await.unwrap();
    assert!(again.sandboxes().await.is_empty());
    let left = Runtime::leftovers(world.state.path(), &world.cluster);
    assert!(
        left.processes.is_empty() && left.mounts.is_empty(),
        "{left:?}"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_whose_directory_vanished_ends_itself() {
    let world = World::new().await;
    world.sandbox("pod").await;
    world.start("pod", sleeper("web")).await;
    std::fs::remove_file(world.state.path().join("sandboxes/pod/sandbox.json")).unwrap();
    eventually("nothing is left", async || {
        Runtime::leftovers(world.state.path(), &world.cluster)
            .processes
            .is_empty()
    })
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_all_is_complete_and_can_be_repeated() {
    let world = World::new().await;
    for number in 0..3 {
        let pod = format!("pod-{number}");
        world.sandbox(&pod).await;
        world.start(&pod, sleeper("web")).await;
    }
    let shim = world
        .runtime
        .sandbox_status("pod-1")
        .await
        .unwrap()
        .shim_pid
        .unwrap();
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    let left = Runtime::leftovers(world.state.path(), &world.cluster);
    assert!(
        !left.cgroups.is_empty() && left.processes.len() >= 4 && !left.mounts.is_empty(),
        "{left:?}"
    );
    Runtime::remove_all(world.state.path(), &world.cluster)
        .await
        .unwrap();
    Runtime::remove_all(world.state.path(), &world.cluster)
        .await
        .unwrap();
    world.finish().await;
}
