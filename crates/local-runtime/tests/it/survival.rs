//! What happens when the program, a shim, or the state directory goes.

use std::time::Duration;

use local_runtime::{ContainerState, Runtime, SandboxState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{World, config, eventually, script, sleeper};

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
