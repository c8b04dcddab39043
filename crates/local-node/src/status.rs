//! The pod status as upstream's kubelet reports it: a plain function of the pod and what is seen.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use local_runtime::{ContainerState as RunState, ContainerStatus as Seen};

use crate::observed::{ImageState, Observed};
use crate::plan::{self, Ending, is_sidecar, restart_due, restart_rule};

/// Facts about the node that appear in every pod's status.
pub(crate) struct NodeFacts {
    pub address: String,
}

/// The status to report. `forced` overrides how the pod ended (deadline, refused).
pub(crate) fn pod_status(
    pod: &Pod,
    observed: &Observed,
    node: &NodeFacts,
    forced: Option<(&str, &str)>,
    now: Timestamp,
) -> PodStatus {
    let spec = pod.spec.clone().unwrap_or_default();
    let old = pod.status.clone().unwrap_or_default();
    let ending = plan::ending(&spec, observed);
    let initialized = initialized(&spec, observed);
    let init_statuses: Vec<_> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|one| container_status(&spec, one, true, observed, initialized, now))
        .collect();
    let statuses: Vec<_> = spec
        .containers
        .iter()
        .map(|one| container_status(&spec, one, false, observed, initialized, now))
        .collect();
    let phase = match (forced, ending) {
        (Some(_), _) | (None, Some(Ending::Failed)) => "Failed",
        (None, Some(Ending::Succeeded)) => "Succeeded",
        (None, None) if was_started(&spec, observed, initialized) => "Running",
        (None, None) => "Pending",
    };
    let ip = observed.ip.map(|ip| ip.to_string());
    PodStatus {
        phase: Some(phase.to_string()),
        reason: forced.map(|(reason, _)| reason.to_string()),
        message: forced.map(|(_, message)| message.to_string()),
        conditions: Some(conditions(
            &old,
            phase,
            initialized,
            observed,
            &statuses,
            now,
        )),
        host_ip: Some(node.address.clone()),
        host_ips: Some(vec![HostIP {
            ip: node.address.clone(),
        }]),
        pod_ip: ip.clone(),
        pod_ips: ip.map(|ip| vec![PodIP { ip }]),
        start_time: old.start_time.or(Some(Time(now))),
        qos_class: old.qos_class.or_else(|| Some(qos_class(&spec))),
        init_container_statuses: (!init_statuses.is_empty()).then_some(init_statuses),
        container_statuses: Some(statuses),
        ..PodStatus::default()
    }
}

fn initialized(spec: &PodSpec, observed: &Observed) -> bool {
    spec.init_containers.iter().flatten().all(|container| {
        let status = observed.containers.get(&container.name);
        if is_sidecar(container) {
            observed
                .probes
                .get(&container.name)
                .is_some_and(|probe| probe.started)
        } else {
            status.is_some_and(|one| one.state == RunState::Exited && one.exit_code == Some(0))
        }
    })
}

/// Upstream calls a pod Running once its init containers are through and every container was started once.
fn was_started(spec: &PodSpec, observed: &Observed, initialized: bool) -> bool {
    initialized
        && spec.containers.iter().all(|container| {
            observed
                .containers
                .get(&container.name)
                .is_some_and(|one| one.started_at.is_some())
        })
}

fn container_status(
    spec: &PodSpec,
    container: &Container,
    is_init: bool,
    observed: &Observed,
    initialized: bool,
    now: Timestamp,
) -> ContainerStatus {
    let name = &container.name;
    let seen = observed.containers.get(name);
    let probe = observed.probes.get(name).copied().unwrap_or_default();
    let running = seen.is_some_and(|one| one.state == RunState::Running);
    let completed = seen.is_some_and(|one| one.exit_code == Some(0));
    let blocked = !is_init && !initialized;
    let state = container_state(spec, container, is_init, observed, blocked, now);
    let waiting_to_restart = state.waiting.is_some() && seen.is_some();
    let last = if waiting_to_restart {
        seen.and_then(terminated)
    } else {
        observed.previous.get(name).and_then(terminated)
    };
    ContainerStatus {
        name: name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: seen.map(|one| one.image_id.clone()).unwrap_or_default(),
        container_id: seen.map(container_id),
        ready: if is_init && !is_sidecar(container) {
            completed
        } else {
            running && probe.ready
        },
        started: Some(running && probe.started),
        restart_count: seen.map_or(0, |one| i32::try_from(one.attempt).unwrap_or(i32::MAX)),
        state: Some(state),
        last_state: last.map(|terminated| ContainerState {
            terminated: Some(terminated),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    }
}

fn container_state(
    spec: &PodSpec,
    container: &Container,
    is_init: bool,
    observed: &Observed,
    blocked: bool,
    now: Timestamp,
) -> ContainerState {
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_string()),
            message,
        }),
        ..ContainerState::default()
    };
    let name = &container.name;
    let failure = observed
        .start_failures
        .get(name)
        .or(observed.sandbox_failure.as_ref());
    match observed.containers.get(name) {
        Some(seen) if seen.state == RunState::Running => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: seen.started_at.map(Time),
            }),
            ..ContainerState::default()
        },
        Some(seen) if seen.state == RunState::Exited => {
            match restart_due(restart_rule(spec, container, is_init), seen) {
                Some(due) if due > now => {
                    let message = format!("back-off restarting failed container={name}");
                    waiting("CrashLoopBackOff", Some(message))
                }
                _ => ContainerState {
                    terminated: terminated(seen),
                    ..ContainerState::default()
                },
            }
        }
        _ => match (failure, observed.images.get(name)) {
            (Some(failure), _) => waiting(failure.reason, Some(failure.message.clone())),
            (
                None,
                Some(ImageState::Failed {
                    reason, message, ..
                }),
            ) => waiting(reason, Some(message.clone())),
            _ if blocked => waiting("PodInitializing", None),
            _ => waiting("ContainerCreating", None),
        },
    }
}

fn container_id(seen: &Seen) -> String {
    format!("springtide://{}", seen.id)
}

fn terminated(seen: &Seen) -> Option<ContainerStateTerminated> {
    let exit_code = seen.exit_code?;
    let reason = match (seen.oom_killed, exit_code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, _) => "Error",
    };
    Some(ContainerStateTerminated {
        container_id: Some(container_id(seen)),
        exit_code,
        signal: seen.signal,
        reason: Some(reason.to_string()),
        message: seen.message.clone().filter(|text| !text.is_empty()),
        started_at: seen.started_at.map(Time),
        finished_at: seen.finished_at.map(Time),
    })
}

fn conditions(
    old: &PodStatus,
    phase: &str,
    initialized: bool,
    observed: &Observed,
    statuses: &[ContainerStatus],
    now: Timestamp,
) -> Vec<PodCondition> {
    let unready: Vec<&str> = statuses
        .iter()
        .filter(|one| !one.ready)
        .map(|one| one.name.as_str())
        .collect();
    let reason = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => Some("ContainersNotReady"),
    };
    let message = (phase != "Succeeded" && phase != "Failed")
        .then(|| format!("containers with unready status: [{}]", unready.join(" ")));
    let ready = unready.is_empty() && phase == "Running";
    let wanted: [(&str, bool, Option<&str>, Option<String>); 4] = [
        (
            "PodReadyToStartContainers",
            observed.sandbox_ready,
            None,
            None,
        ),
        (
            "Initialized",
            initialized || phase == "Succeeded",
            (!initialized).then_some("ContainersNotInitialized"),
            None,
        ),
        ("Ready", ready, reason, message.clone()),
        ("ContainersReady", ready, reason, message),
    ];
    let mut conditions: Vec<PodCondition> = wanted
        .into_iter()
        .map(|(kind, is_true, reason, message)| {
            let status = if is_true { "True" } else { "False" };
            let before = old
                .conditions
                .iter()
                .flatten()
                .find(|one| one.type_ == kind);
            let since = before
                .filter(|one| one.status == status)
                .and_then(|one| one.last_transition_time.clone());
            PodCondition {
                type_: kind.to_string(),
                status: status.to_string(),
                last_transition_time: Some(since.unwrap_or(Time(now))),
                reason: reason.filter(|_| !is_true).map(str::to_string),
                message: message.filter(|_| !is_true),
                ..PodCondition::default()
            }
        })
        .collect();
    // Conditions of others (PodScheduled, readiness gates, DisruptionTarget) stay as they are.
    let ours: Vec<String> = conditions.iter().map(|one| one.type_.clone()).collect();
    let others = old
        .conditions
        .iter()
        .flatten()
        .filter(|one| !ours.contains(&one.type_));
    conditions.extend(others.cloned());
    conditions
}

/// Guaranteed, Burstable or BestEffort from requests and limits.
pub(crate) fn qos_class(spec: &PodSpec) -> String {
    let all = || {
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
    };
    let amounts = |container: &Container, limits: bool, name: &str| {
        let resources = container.resources.as_ref()?;
        let map = if limits {
            &resources.limits
        } else {
            &resources.requests
        };
        map.as_ref()?.get(name).map(|quantity| quantity.0.clone())
    };
    let guaranteed = all().all(|container| {
        ["cpu", "memory"].into_iter().all(|name| {
            let limit = amounts(container, true, name);
            let request = amounts(container, false, name);
            limit.is_some() && (request.is_none() || request == limit)
        })
    });
    let none = all().all(|container| {
        ["cpu", "memory"].into_iter().all(|name| {
            amounts(container, true, name).is_none() && amounts(container, false, name).is_none()
        })
    });
    match (guaranteed, none) {
        (true, _) => "Guaranteed",
        (false, true) => "BestEffort",
        (false, false) => "Burstable",
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::ProbeResults;
    use local_runtime::ContainerId;
    use serde_json::json;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "spec": {"containers": [{"name": "main", "image": "m"}]},
            "status": {"conditions": [{"type": "PodScheduled", "status": "True"}]},
        }))
        .unwrap()
    }

    fn seen(state: RunState, exit_code: Option<i32>) -> Seen {
        Seen {
            id: ContainerId::new("s", "main", 2),
            name: "main".to_string(),
            attempt: 2,
            labels: Default::default(),
            state,
            pid: None,
            exit_code,
            signal: None,
            oom_killed: false,
            created_at: now(),
            started_at: Some(now()),
            finished_at: exit_code.map(|_| now()),
            image: "m".to_string(),
            image_id: "sha256:1".to_string(),
            log_path: Default::default(),
            message: None,
        }
    }

    fn status(observed: &Observed, forced: Option<(&str, &str)>) -> PodStatus {
        let node = NodeFacts {
            address: "10.10.0.11".to_string(),
        };
        pod_status(&pod(), observed, &node, forced, now())
    }

    fn condition(status: &PodStatus, kind: &str) -> String {
        let conditions = status.conditions.as_ref().unwrap();
        conditions
            .iter()
            .find(|one| one.type_ == kind)
            .unwrap()
            .status
            .clone()
    }

    #[test]
    fn a_running_container_makes_a_ready_pod_only_when_its_probe_says_so() {
        let mut observed = Observed {
            sandbox_ready: true,
            ip: Some([10, 30, 1, 2].into()),
            ..Observed::default()
        };
        observed
            .containers
            .insert("main".to_string(), seen(RunState::Running, None));
        observed.probes.insert(
            "main".to_string(),
            ProbeResults {
                started: true,
                ready: false,
                must_restart: false,
            },
        );
        let unready = status(&observed, None);
        assert_eq!(unready.phase.as_deref(), Some("Running"));
        assert_eq!(condition(&unready, "Ready"), "False");
        assert_eq!(condition(&unready, "PodScheduled"), "True");
        observed.probes.get_mut("main").unwrap().ready = true;
        let ready = status(&observed, None);
        assert_eq!(condition(&ready, "Ready"), "True");
        assert_eq!(ready.pod_ip.as_deref(), Some("10.30.1.2"));
        assert_eq!(ready.container_statuses.unwrap()[0].restart_count, 2);
    }

    #[test]
    fn a_crashed_container_waits_in_back_off_and_keeps_its_last_state() {
        let mut observed = Observed {
            sandbox_ready: true,
            ..Observed::default()
        };
        observed
            .containers
            .insert("main".to_string(), seen(RunState::Exited, Some(1)));
        let crashed = status(&observed, None)
            .container_statuses
            .unwrap()
            .remove(0);
        assert_eq!(
            crashed.state.unwrap().waiting.unwrap().reason.as_deref(),
            Some("CrashLoopBackOff")
        );
        assert_eq!(crashed.last_state.unwrap().terminated.unwrap().exit_code, 1);
    }

    #[test]
    fn a_failed_pull_shows_its_reason_and_a_forced_end_its_message() {
        let mut observed = Observed {
            sandbox_ready: true,
            ..Observed::default()
        };
        observed.images.insert(
            "main".to_string(),
            ImageState::Failed {
                reason: "ErrImagePull",
                message: "not found".to_string(),
                retry_at: now(),
            },
        );
        let waiting = status(&observed, None);
        assert_eq!(waiting.phase.as_deref(), Some("Pending"));
        let state = waiting.container_statuses.unwrap().remove(0).state.unwrap();
        assert_eq!(
            state.waiting.unwrap().reason.as_deref(),
            Some("ErrImagePull")
        );
        let ended = status(&observed, Some(("DeadlineExceeded", "too long")));
        assert_eq!(ended.phase.as_deref(), Some("Failed"));
        assert_eq!(ended.reason.as_deref(), Some("DeadlineExceeded"));
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let class = |resources: serde_json::Value| {
            qos_class(
                &serde_json::from_value(
                    json!({"containers": [{"name": "a", "resources": resources}]}),
                )
                .unwrap(),
            )
        };
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(
            class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
            "Guaranteed"
        );
    }
}
