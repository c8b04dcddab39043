//! A replica dies, the webhook is away.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{ANYWHERE, Scene, labelled, pod, runs};
use crate::cluster::wait_for;

/// The default Lease.
const TAKEOVER: Duration = Duration::from_secs(15);

#[test]
fn a_killed_leader_is_replaced_and_running_groups_are_not_touched() {
    let (scene, first) = Scene::on_paper(ANYWHERE).served();
    scene.apply(&[labelled("kept", |_| ())]);
    let before = scene.wait_for("the pod runs", &["pod", "kept"], runs);
    let second = scene.replica("second", &[]);
    let lease = ["-n", "kube-system", "lease", "ack-virtual-node-controller"];
    wait_for("the second replica stands by", 60, || {
        let log = second.log();
        if log.contains("replica second runs") {
            Ok(())
        } else {
            Err(log)
        }
    });
    first.kill();
    let seen_at = |lease: &Value| {
        let text = lease["spec"]["renewTime"].as_str().unwrap();
        text.parse::<jiff::Timestamp>().unwrap()
    };
    let last_sign = seen_at(&scene.get(&lease));
    let taken = scene.wait_for("the other leads", &lease, |lease| {
        lease["spec"]["holderIdentity"] == "second"
    });
    let acquired = taken["spec"]["acquireTime"].as_str().unwrap();
    let acquired: jiff::Timestamp = acquired.parse().unwrap();
    let waited = acquired.duration_since(last_sign);
    assert!(
        waited.unsigned_abs() >= TAKEOVER - Duration::from_secs(1),
        "not before the Lease ended: {waited}"
    );
    scene.apply(&[labelled("next", |_| ())]);
    scene.wait_for("a new pod runs", &["pod", "next"], runs);
    let after = scene.get(&["pod", "kept"]);
    for part in ["podIP", "startTime", "containerStatuses"] {
        assert_eq!(after["status"][part], before["status"][part], "{part}");
    }
    assert_eq!(scene.groups().len(), 2);
}

#[test]
fn an_absent_webhook_blocks_nobody_and_its_return_routes_again() {
    let (scene, first) = Scene::on_paper(ANYWHERE).served();
    first.kill();
    // Admitted as they are: neither refused nor routed.
    scene.apply(&[labelled("unrouted", |_| ()), pod("plain", |_| ())]);
    for name in ["unrouted", "plain"] {
        let pod = scene.get(&["pod", name]);
        assert!(pod["spec"]["nodeSelector"]["type"].is_null(), "{pod:#}");
        assert!(pod["spec"]["nodeName"].is_null(), "{pod:#}");
    }
    let second = scene.replica("second", &[]);
    wait_for("the second replica leads", 90, || {
        let log = second.log();
        if log.contains("leading") {
            Ok(())
        } else {
            Err(log)
        }
    });
    // What could be placed nowhere in the meantime is sent on afterwards.
    scene.wait_for("the repaired pod runs", &["pod", "unrouted"], runs);
    let url = format!("https://127.0.0.1:{}", second.webhook);
    scene.wait_for(
        "the new registration",
        &["mutatingwebhookconfiguration", "vk-webhook"],
        |hooks| {
            let found = hooks["webhooks"][0]["clientConfig"]["url"].as_str();
            found.is_some_and(|found| found.starts_with(&url))
        },
    );
    scene.apply(&[labelled("routed", |_| ())]);
    scene.wait_for("the routed pod runs", &["pod", "routed"], runs);
    assert!(scene.get(&["pod", "plain"])["spec"]["nodeName"].is_null());
}

#[test]
fn a_certificate_that_is_signed_late_is_shown_without_a_restart() {
    let scene = Scene::on_paper(ANYWHERE);
    let processes = scene.plane.processes();
    let signer = processes
        .iter()
        .find(|(name, _)| *name == "kube-controller-manager");
    let signer = Pid::from_raw(i32::try_from(signer.unwrap().1).unwrap());
    kill(signer, Signal::SIGSTOP).unwrap();
    let (scene, replica) = scene.served();
    wait_for("the replica goes on without", 60, || {
        let log = replica.log();
        if log.contains("the cluster signs no kubelet certificates") {
            Ok(())
        } else {
            Err(log)
        }
    });
    kill(signer, Signal::SIGCONT).unwrap();
    scene.apply(&[labelled("web", |_| ())]);
    scene.wait_for("the pod runs", &["pod", "web"], runs);
    // The API server checks the node's certificate, so there are logs only with a signed one.
    wait_for("logs", 120, || scene.try_kubectl(&["logs", "web"]));
    let open = scene.get(&["certificatesigningrequests"]);
    let approved = |one: &Value| one["status"]["certificate"].is_string();
    assert!(
        open["items"].as_array().unwrap().iter().all(approved),
        "{open:#}"
    );
}
