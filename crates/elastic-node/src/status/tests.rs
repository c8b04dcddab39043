//! Every group status, and what must not be touched.

use serde_json::{Value, json};

use super::*;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "shop"},
        "spec": {
            "initContainers": [{"name": "prepare", "image": "tool:1"}],
            "containers": [{"name": "web", "image": "shop:1"}, {"name": "side", "image": "side:1"}],
            "readinessGates": []
        },
        "status": {
            "phase": "Pending", "qosClass": "Burstable",
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        }
    }))
    .unwrap()
}

fn entry(status: &str, ready: bool) -> GroupStatusEntry {
    let flag = if ready { "True" } else { "False" };
    let at = "2026-01-01T00:00:05Z";
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": at});
    let container = |name: &str| {
        json!({"Name": name, "Image": "x", "ImageID": "sha256:1", "Ready": ready, "Started": true, "RestartCount": 2,
            "State": {"Running": {"StartedAt": at}}})
    };
    serde_json::from_value(json!({
        "ContainerGroupId": "eci-1", "Status": status,
        "PodStatus": {
            "Phase": "Running", "PodIp": "10.4.1.7", "StartTime": "2026-01-01T00:00:01Z",
            "Conditions": [condition("Initialized", "True"), condition("Ready", flag), condition("ContainersReady", flag)],
            "ContainerStatuses": [container("side"), container("web")]
        }
    }))
    .unwrap()
}

fn show(entry: &GroupStatusEntry) -> Value {
    let now = "2026-01-01T00:00:09Z".parse().unwrap();
    serde_json::to_value(pod_status(&pod(), entry, "10.10.0.101", now)).unwrap()
}

fn condition<'v>(status: &'v Value, kind: &str) -> &'v Value {
    status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|condition| condition["type"] == kind)
        .unwrap()
}

#[test]
fn every_group_status_has_its_phase() {
    let table = [
        ("Scheduling", "Pending"),
        ("Pending", "Pending"),
        ("Running", "Running"),
        ("Restarting", "Pending"),
        ("Updating", "Pending"),
        ("Terminating", "Running"),
        ("Succeeded", "Succeeded"),
        ("Failed", "Failed"),
        ("Expired", "Failed"),
        ("ScheduleFailed", "Failed"),
        ("Whatever", "Unknown"),
    ];
    for (status, phase) in table {
        assert_eq!(show(&entry(status, false))["phase"], phase, "{status}");
    }
    assert_eq!(show(&entry("Expired", false))["reason"], "BidFailed");
}

#[test]
fn a_group_that_gets_new_files_while_its_containers_go_on_stays_ready() {
    let status = show(&entry("Updating", true));
    assert_eq!(status["phase"], "Running");
    assert_eq!(condition(&status, "Ready")["status"], "True");
}

#[test]
fn a_ready_group_makes_a_ready_pod_with_its_address() {
    let status = show(&entry("Running", true));
    assert_eq!(status["podIP"], "10.4.1.7");
    assert_eq!(status["hostIP"], "10.10.0.101");
    assert_eq!(status["qosClass"], "Burstable");
    assert_eq!(condition(&status, "Ready")["status"], "True");
    assert_eq!(
        condition(&status, "Ready")["lastTransitionTime"],
        "2026-01-01T00:00:05Z"
    );
    assert_eq!(
        condition(&status, "PodScheduled")["lastTransitionTime"],
        "2026-01-01T00:00:00Z"
    );
    let names: Vec<_> = status["containerStatuses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|status| &status["name"])
        .collect();
    assert_eq!(names, ["web", "side"]);
    assert_eq!(
        status["containerStatuses"][0]["containerID"],
        "eci://eci-1/web"
    );
    assert_eq!(status["containerStatuses"][0]["restartCount"], 2);
    assert_eq!(
        status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"],
        0
    );
}

#[test]
fn the_same_word_of_the_cloud_gives_the_same_status_again() {
    let mut pod = pod();
    let entry = entry("Running", true);
    let first = pod_status(
        &pod,
        &entry,
        "10.10.0.101",
        "2026-01-01T00:00:09Z".parse().unwrap(),
    );
    pod.status = Some(first.clone());
    let later = pod_status(
        &pod,
        &entry,
        "10.10.0.101",
        "2026-01-01T01:00:00Z".parse().unwrap(),
    );
    assert_eq!(
        serde_json::to_value(first).unwrap(),
        serde_json::to_value(later).unwrap()
    );
}

#[test]
fn a_closed_readiness_gate_keeps_the_pod_unready() {
    let mut pod = pod();
    pod.spec.as_mut().unwrap().readiness_gates =
        serde_json::from_value(json!([{"conditionType": "example.com/in-rotation"}])).unwrap();
    let status = pod_status(&pod, &entry("Running", true), "h", Timestamp::UNIX_EPOCH);
    let status = serde_json::to_value(status).unwrap();
    assert_eq!(condition(&status, "ContainersReady")["status"], "True");
    assert_eq!(condition(&status, "Ready")["status"], "False");
}

#[test]
fn a_lost_group_fails_the_pod_with_the_documented_code() {
    let mut pod = pod();
    pod.status = Some(pod_status(
        &pod,
        &entry("Running", true),
        "h",
        Timestamp::UNIX_EPOCH,
    ));
    let status = serde_json::to_value(lost_status(&pod, Timestamp::UNIX_EPOCH)).unwrap();
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&json!("Failed"), &json!("NotFound"))
    );
    assert_eq!(
        status["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        -137
    );
    assert_eq!(condition(&status, "Ready")["status"], "False");
}

#[test]
fn a_failed_creation_says_why_and_keeps_what_others_wrote() {
    let status = failure_status(
        &pod(),
        false,
        "NoStock",
        "no zone has stock",
        Timestamp::UNIX_EPOCH,
    );
    let status = serde_json::to_value(status).unwrap();
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&json!("Pending"), &json!("ProviderFailed"))
    );
    assert_eq!(
        condition(&status, "ContainerInstanceCreated")["reason"],
        "NoStock"
    );
    assert_eq!(condition(&status, "PodScheduled")["status"], "True");
}

#[test]
fn a_pod_is_over_when_its_main_containers_are_although_sidecars_go_on() {
    let ended = |code: i64| json!({"Terminated": {"ExitCode": code}});
    let entry = |code: i64| {
        let mut entry = entry("Running", true);
        let web = entry
            .pod_status
            .container_statuses
            .iter_mut()
            .find(|one| one.name == "web")
            .unwrap();
        web.state = serde_json::from_value(ended(code)).unwrap();
        entry
    };
    let phase = |policy: &str, side: Value, web: Value, code: i64| {
        let mut pod = pod();
        let spec = pod.spec.as_mut().unwrap();
        spec.restart_policy = Some(policy.to_owned());
        spec.containers[0].env = serde_json::from_value(web).unwrap();
        spec.containers[1].env = serde_json::from_value(side).unwrap();
        pod_status(&pod, &entry(code), "10.0.0.1", Timestamp::UNIX_EPOCH)
            .phase
            .unwrap()
    };
    let side = || json!([{"name": "ECI_CONTAINER_TYPE", "value": "sidecar"}]);
    let lenient = || json!([{"name": "ECI_CONTAINER_IGNORE_EXIT_CODE", "value": "true"}]);
    assert_eq!(phase("Never", side(), json!([]), 0), "Succeeded");
    assert_eq!(phase("Never", side(), json!([]), 3), "Failed");
    assert_eq!(phase("Never", side(), lenient(), 3), "Succeeded");
    assert_eq!(phase("OnFailure", side(), json!([]), 3), "Running");
    assert_eq!(phase("OnFailure", side(), json!([]), 0), "Succeeded");
    assert_eq!(phase("Always", side(), json!([]), 0), "Running");
    assert_eq!(phase("Never", json!([]), json!([]), 0), "Running");
}

#[test]
fn a_group_that_never_started_fails_only_pods_that_never_restart() {
    let mut entry = entry("Failed", false);
    entry.pod_status.container_statuses.clear();
    for (policy, expected) in [
        ("Never", "Failed"),
        ("Always", "Pending"),
        ("OnFailure", "Pending"),
    ] {
        let mut pod = pod();
        pod.spec.as_mut().unwrap().restart_policy = Some(policy.to_owned());
        let status = pod_status(&pod, &entry, "10.0.0.1", Timestamp::UNIX_EPOCH);
        assert_eq!(status.phase.as_deref(), Some(expected), "{policy}");
        let waits = expected == "Pending";
        // Nothing comes of waiting by itself, so the pod says what to do.
        assert_eq!(status.reason.as_deref(), waits.then_some(STILLBORN));
        let status = serde_json::to_value(&status).unwrap();
        let created = condition(&status, "ContainerInstanceCreated");
        assert_eq!(created["status"], if waits { "False" } else { "True" });
        assert_eq!(created["message"].is_string(), waits);
    }
}
