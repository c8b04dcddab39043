//! The row of a pod in a table: above all the STATUS column, which sums a pod's state up in one word.

use jiff::Timestamp;
use serde_json::Value;

use crate::print::{self, NONE, age, name, or_none, parse_time};
use crate::tree::{list, number, text, truth};

/// What the containers' states add up to.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

/// One row.
pub fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        Some(time) if summary.restarts > 0 => {
            let ago = print::duration::human(now.duration_since(time));
            format!("{} ({ago} ago)", summary.restarts)
        }
        _ => summary.restarts.to_string(),
    };
    let status = &pod["status"];
    let address = match list(status, "podIPs").first() {
        Some(first) => text(first, "ip"),
        None => text(status, "podIP"),
    };
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, now),
        or_none(address),
        or_none(text(&pod["spec"], "nodeName")),
        or_none(text(status, "nominatedNodeName")),
        readiness_gates(pod).into(),
    ]
}

fn summarize(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars = list(spec, "initContainers")
        .iter()
        .filter(|one| is_sidecar(one))
        .count();
    let mut summary = Summary {
        reason: first_of(&[text(status, "reason"), text(status, "phase")]).to_string(),
        ready: 0,
        total: list(spec, "containers").len() + sidecars,
        restarts: 0,
        last_restart: None,
    };
    let gated = |one: &Value| {
        text(one, "type") == "PodScheduled" && text(one, "reason") == "SchedulingGated"
    };
    if list(status, "conditions").iter().any(gated) {
        summary.reason = "SchedulingGated".to_string();
    }
    let initializing = init_containers(pod, &mut summary);
    if !initializing || is_true(status, "Initialized") {
        main_containers(pod, &mut summary, initializing);
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        if text(status, "reason") == "NodeLost" {
            summary.reason = "Unknown".to_string();
        } else if !matches!(text(status, "phase"), "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_string();
        }
    }
    summary
}

fn first_of<'a>(texts: &[&'a str]) -> &'a str {
    texts
        .iter()
        .find(|text| !text.is_empty())
        .copied()
        .unwrap_or_default()
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

fn is_true(status: &Value, condition: &str) -> bool {
    list(status, "conditions")
        .iter()
        .any(|one| text(one, "type") == condition && text(one, "status") == "True")
}

fn last_restart(container: &Value) -> Option<Timestamp> {
    parse_time(&container["lastState"]["terminated"]["finishedAt"])
}

/// Counts the init containers; true while they are not through.
fn init_containers(pod: &Value, summary: &mut Summary) -> bool {
    let spec = list(&pod["spec"], "initContainers");
    let mut restarts = 0;
    let mut sidecar_restarts = 0;
    let mut latest = None;
    let mut sidecar_latest = None;
    let mut initializing = false;
    for (position, one) in list(&pod["status"], "initContainerStatuses")
        .iter()
        .enumerate()
    {
        let declared = spec
            .iter()
            .find(|other| text(other, "name") == text(one, "name"));
        let sidecar = declared.is_some_and(is_sidecar);
        restarts += number(one, "restartCount");
        latest = latest.max(last_restart(one));
        if sidecar {
            sidecar_restarts += number(one, "restartCount");
            sidecar_latest = sidecar_latest.max(last_restart(one));
        }
        let terminated = &one["state"]["terminated"];
        if !terminated.is_null() && number(terminated, "exitCode") == 0 {
            continue;
        }
        if sidecar && truth(one, "started") {
            if truth(one, "ready") {
                summary.ready += 1;
            }
            continue;
        }
        let waiting = text(&one["state"]["waiting"], "reason");
        summary.reason = if !terminated.is_null() {
            format!("Init:{}", ended(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{position}/{}", spec.len())
        };
        initializing = true;
        break;
    }
    if initializing {
        (summary.restarts, summary.last_restart) = (restarts, latest);
    } else {
        (summary.restarts, summary.last_restart) = (sidecar_restarts, sidecar_latest);
    }
    initializing
}

/// Why a container ended.
fn ended(terminated: &Value) -> String {
    let reason = text(terminated, "reason");
    if !reason.is_empty() {
        reason.to_string()
    } else if number(terminated, "signal") != 0 {
        format!("Signal:{}", number(terminated, "signal"))
    } else {
        format!("ExitCode:{}", number(terminated, "exitCode"))
    }
}

fn main_containers(pod: &Value, summary: &mut Summary, initializing: bool) {
    if initializing {
        summary.restarts = 0;
        summary.last_restart = None;
    }
    let mut running = false;
    for one in list(&pod["status"], "containerStatuses").iter().rev() {
        summary.restarts += number(one, "restartCount");
        summary.last_restart = summary.last_restart.max(last_restart(one));
        let state = &one["state"];
        let waiting = text(&state["waiting"], "reason");
        if !waiting.is_empty() {
            summary.reason = waiting.to_string();
        } else if !state["terminated"].is_null() {
            summary.reason = ended(&state["terminated"]);
        } else if truth(one, "ready") && !state["running"].is_null() {
            running = true;
            summary.ready += 1;
        }
    }
    // A pod of which one container has finished and another runs is running.
    if summary.reason == "Completed" && running {
        let ready = is_true(&pod["status"], "Ready");
        summary.reason = if ready { "Running" } else { "NotReady" }.to_string();
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(&pod["spec"], "readinessGates");
    if gates.is_empty() {
        return NONE.to_string();
    }
    let open = gates
        .iter()
        .filter(|gate| is_true(&pod["status"], text(gate, "conditionType")))
        .count();
    format!("{open}/{}", gates.len())
}
