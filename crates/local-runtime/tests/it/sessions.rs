//! Commands in running containers, terminals, attaching, following logs.

use std::time::Duration;

use futures::StreamExt;
use local_runtime::logs::LogOptions;
use local_runtime::{ContainerSpec, ExecSpec, RuntimeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{PATIENCE, World, eventually, script, sleeper};

fn shell(text: &str, tty: bool, stdin: bool) -> ExecSpec {
    ExecSpec {
        command: vec!["sh".into(), "-c".into(), text.into()],
        tty,
        stdin,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_inside_and_gives_its_streams_and_code() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let id = world.start("pod", sleeper("web")).await;
    let command = vec![
        "sh".into(),
        "-c".into(),
        "echo out; echo err >&2; cat /proc/1/comm; exit 5".into(),
    ];
    let output = world
        .runtime
        .exec_sync(&id, command, PATIENCE)
        .await
        .unwrap();
    assert_eq!(output.exit_code, 5);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\nsh\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");
    let missing = world
        .runtime
        .exec_sync(&id, vec!["nonsense".into()], PATIENCE)
        .await
        .unwrap_err();
    assert!(
        missing.to_string().contains("not found in $PATH"),
        "{missing}"
    );
    world
        .runtime
        .stop_container(&id, Duration::ZERO)
        .await
        .unwrap();
    let late = world
        .runtime
        .exec_sync(&id, vec!["true".into()], PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(late, RuntimeError::WrongState { .. }), "{late:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_takes_too_long_is_ended_with_its_children() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let id = world.start("pod", sleeper("web")).await;
    let command = vec!["sh".into(), "-c".into(), "sleep 777 | cat".into()];
    let error = world
        .runtime
        .exec_sync(&id, command, Duration::from_millis(150))
        .await
        .unwrap_err();
    assert!(matches!(error, RuntimeError::Timeout { .. }), "{error:?}");
    eventually("the command is gone", async || {
        world.exec(&id, "ps | grep -q 'sleep 77[7]'").await.0 == 1
    })
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_input_is_half_closed_and_large_data_survives() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let id = world.start("pod", sleeper("web")).await;
    let mut session = world
        .runtime
        .exec(&id, shell("wc -c; echo done", false, true))
        .await
        .unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; 300_000]).await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut text = String::new();
    session.stdout.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "300000\ndone\n");
    assert_eq!(session.exit.await.unwrap(), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_a_size_echoes_and_ends() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let id = world.start("pod", sleeper("web")).await;
    let text = "tty; read answer; echo got=$answer; stty size; exit 9";
    let mut session = world
        .runtime
        .exec(&id, shell(text, true, true))
        .await
        .unwrap();
    session.resize.send((91, 33)).await.unwrap();
    let mut seen = String::new();
    let mut chunk = [0_u8; 1024];
    while !seen.contains("/dev/pts/0") {
        let count = session.stdout.read(&mut chunk).await.unwrap();
        assert!(count > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    session
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"hello\n")
        .await
        .unwrap();
    session.stdout.read_to_string(&mut seen).await.unwrap();
    assert!(seen.contains("got=hello\r\n33 91\r\n"), "{seen:?}");
    assert_eq!(session.exit.await.unwrap(), 9);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attaching_shows_output_passes_input_and_ends_with_the_container() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let spec = ContainerSpec {
        stdin: true,
        stdin_once: true,
        ..script("echo", "while read line; do echo got $line; done; exit 4")
    };
    let id = world.start("pod", spec).await;
    let mut session = world.runtime.attach(&id, true).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut text = String::new();
    session.stdout.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "got one\ngot two\n");
    assert_eq!(session.exit.await.unwrap(), 4);
    assert_eq!(world.log(&id).await, text);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_with_a_terminal_can_be_attached_to() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let spec = ContainerSpec {
        stdin: true,
        tty: true,
        ..script("term", "read line; echo got $line; tty")
    };
    let id = world.start("pod", spec).await;
    let mut session = world.runtime.attach(&id, true).await.unwrap();
    session
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"it\n")
        .await
        .unwrap();
    let mut text = String::new();
    session.stdout.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("got it\r\n/dev/pts/0"), "{text:?}");
    assert_eq!(session.exit.await.unwrap(), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_log_ends_when_the_container_does() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let id = world
        .start(
            "pod",
            script(
                "talk",
                "for i in 1 2 3; do echo line $i; sleep 0.1; done; printf end",
            ),
        )
        .await;
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let stream = world.runtime.container_logs(&id, options).await.unwrap();
    let chunks: Vec<bytes::Bytes> =
        tokio::time::timeout(PATIENCE, stream.map(Result::unwrap).collect())
            .await
            .expect("the log never ended");
    assert_eq!(
        String::from_utf8(chunks.concat()).unwrap(),
        "line 1\nline 2\nline 3\nend\n"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_wake_listeners() {
    let world = World::new().await;
    let mut events = world.runtime.events();
    world.sandbox("pod").await;
    let id = world.start("pod", script("short", "sleep 0.1")).await;
    let waiting = async {
        loop {
            assert_eq!(events.recv().await.unwrap(), "pod");
            let status = world.runtime.container_status(&id).await.unwrap();
            if status.exit_code == Some(0) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("no event came for the end");
    world.finish().await;
}
