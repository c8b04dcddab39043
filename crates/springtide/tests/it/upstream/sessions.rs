//! Logs, commands, terminals and ports: the upstream API server speaks SPDY/3.1 to the virtual node's kubelet API, checks
//! the certificate that the cluster signed for it, and is asked back who may do what.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use serde_json::{Value, json};

use super::{LOOPBACK, NODE, Scene, labelled, runs};
use crate::busybox;
use crate::cluster::{run, wait_for};
use crate::sessions::{Follow, Forward, SIZES, Terminal};

fn busy(name: &str, script: &str) -> Value {
    labelled(name, |pod| {
        let container = &mut pod["spec"]["containers"][0];
        container["image"] = busybox::REFERENCE.into();
        container["command"] = json!(["sh", "-c", script]);
        container["stdin"] = true.into();
    })
}

/// Says a line whenever it is told to.
const TICKS: &str = "mkdir -p /tmp; echo started; \
    while true; do if [ -e /tmp/tick ]; then busybox rm /tmp/tick; echo tick; fi; sleep 0.2; done";

#[test]
fn logs_commands_and_terminals_pass_through_the_upstream_api_server() {
    let (scene, replica) = Scene::in_containers().served();
    assert!(
        replica
            .log()
            .contains("kubelet certificate signed by the cluster"),
        "{}",
        replica.log()
    );
    scene.apply(&[busy("web", TICKS)]);
    scene.wait_for("the pod runs", &["pod", "web"], runs);

    wait_for("the first line", 60, || {
        match scene.try_kubectl(&["logs", "web"])? {
            text if text == "started\n" => Ok(()),
            text => Err(text),
        }
    });
    let log = Follow::of(scene.plane.kubectl(&["logs", "-f", "web"]));
    let attached = Follow::of(scene.plane.kubectl(&["attach", "web"]));
    // The output from now on: nothing is said before somebody listens.
    wait_for("a line while attached", 60, || {
        scene.kubectl(&["exec", "web", "--", "touch", "/tmp/tick"]);
        let seen = attached.seen();
        if seen.contains("tick") {
            Ok(())
        } else {
            Err(seen)
        }
    });
    log.wait_until_seen("tick");
    assert_eq!(scene.kubectl(&["logs", "web", "--tail=1"]), "tick\n");
    let refusal = scene.try_kubectl(&["attach", "-i", "web"]).unwrap_err();
    assert!(refusal.contains("attach without -i"), "{refusal}");
    let refusal = scene.try_kubectl(&["exec", "web", "-c", "other", "--", "true"]);
    assert!(refusal.unwrap_err().contains("other"));

    let input: String = (0..100_000).map(|number| format!("{number}\n")).collect();
    let cat = run(
        &mut scene.plane.kubectl(&["exec", "-i", "web", "--", "cat"]),
        Some(&input),
    );
    assert!(cat.unwrap() == input, "everything comes back");
    let failed = scene.try_kubectl(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    let failed = failed.unwrap_err();
    for part in ["out", "err", "exit code 7"] {
        assert!(failed.contains(part), "{failed}");
    }
    let shell = ["exec", "-it", "web", "--", "sh", "-c", SIZES];
    let mut terminal = Terminal::start(&scene.plane.kubectl(&shell), 31, 97);
    terminal.ask_until("first", "31 97");
    terminal.resize(43, 111);
    terminal.ask_until("second", "43 111");
    terminal.end();
    scene.kubectl(&["delete", "pod", "web", "--wait=false"]);
    log.wait_until_ended();
}

/// Answers one line to whoever connects, for as long as the test runs.
fn serve(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut bytes = [0; 1024];
            let _ = stream.read(&mut bytes);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nI am the group\n");
        }
    });
    port
}

#[test]
fn ports_are_forwarded() {
    let (scene, replica) = Scene::on_paper(LOOPBACK).served();
    scene.apply(&[labelled("web", |_| ())]);
    let pod = scene.wait_for("the pod runs", &["pod", "web"], runs);
    let port = serve(pod["status"]["podIP"].as_str().unwrap());
    let command = scene
        .plane
        .kubectl(&["port-forward", "pod/web", &format!(":{port}")]);
    let forward = Forward::of(command, || replica.log());
    for _ in 0..3 {
        let answer = forward.get("/").unwrap();
        assert!(answer.ends_with("I am the group\n"), "{answer}");
    }
    let command = scene.plane.kubectl(&["port-forward", "pod/web", ":9"]);
    let closed = Forward::of(command, || replica.log());
    assert_eq!(closed.get("/").unwrap_or_default(), "");
    closed.wait_until_said("error forwarding port 9");
}

#[test]
fn a_kubelet_tells_its_metrics_to_whom_the_cluster_lets() {
    let (scene, _replica) = Scene::on_paper(LOOPBACK).served();
    scene.apply(&[labelled("web", |_| ())]);
    scene.wait_for("the pod runs", &["pod", "web"], runs);
    let ask = |flags: &[String]| ask_kubelet(&scene, flags);
    let client = |name: &str| {
        let file = |end: &str| {
            scene
                .plane
                .certificate(&format!("{name}.{end}"))
                .display()
                .to_string()
        };
        ask(&[
            format!("--client-certificate={}", file("crt")),
            format!("--client-key={}", file("key")),
        ])
    };
    // Once its certificate is signed.
    let figures = wait_for("the node tells its metrics", 60, || {
        client("kubelet-client")
    });
    assert!(
        figures.contains("node_cpu_usage_seconds_total"),
        "{figures}"
    );
    let refusal = ask(&["--token=guessed".to_owned()]).unwrap_err();
    assert!(refusal.contains("must be logged in"), "nobody: {refusal}");
    let refusal = client("scheduler").unwrap_err();
    assert!(
        refusal.contains("Forbidden"),
        "somebody without the right: {refusal}"
    );
    an_account_may_when_it_has_the_right(&scene);
}

/// Asks the node itself, as nobody but whom the flags name.
fn ask_kubelet(scene: &Scene, flags: &[String]) -> Result<String, String> {
    let node = scene.get(&["node", NODE]);
    let kubelet = format!(
        "https://127.0.0.1:{}",
        node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    );
    let authority = format!(
        "--certificate-authority={}",
        scene.plane.certificate("ca.crt").display()
    );
    let mut command = Command::new("kubectl");
    command
        .args([
            "get",
            "--raw",
            "/metrics/resource",
            "--server",
            &kubelet,
            &authority,
        ])
        .args(flags)
        .env("KUBECONFIG", "/dev/null");
    run(&mut command, None)
}

fn an_account_may_when_it_has_the_right(scene: &Scene) {
    let ask = |flags: &[String]| ask_kubelet(scene, flags);
    scene.kubectl(&["create", "serviceaccount", "scraper"]);
    let token = wait_for("the account's token", 60, || {
        let name = scene.kubectl(&[
            "get",
            "serviceaccount",
            "scraper",
            "-o=jsonpath={.secrets[0].name}",
        ]);
        scene.try_kubectl(&[
            "get",
            "secret",
            &name,
            "-o=go-template={{.data.token | base64decode}}",
        ])
    });
    let bearer = [format!("--token={token}")];
    let refusal = ask(&bearer).unwrap_err();
    assert!(
        refusal.contains("Forbidden"),
        "an account without the right: {refusal}"
    );
    scene.kubectl(&[
        "create",
        "clusterrole",
        "scraper",
        "--verb=get",
        "--resource=nodes/metrics",
    ]);
    let bind = [
        "create",
        "clusterrolebinding",
        "scraper",
        "--clusterrole=scraper",
    ];
    scene.kubectl(&[&bind[..], &["--serviceaccount=default:scraper"]].concat());
    wait_for("the right is seen", 60, || ask(&bearer).map(drop));
}
