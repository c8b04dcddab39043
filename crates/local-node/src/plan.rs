//! What to do next for one pod: a plain function of what is wanted and what is seen.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use local_runtime::{ContainerState, ContainerStatus};

use crate::observed::{ImageState, Observed};

/// First wait before a second restart; doubled each time (upstream `backOffPeriod`).
const RESTART_BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// Longest wait before a restart (upstream `MaxContainerBackOff`).
const RESTART_BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long starts over with its back-off.
const RESTART_RESET: SignedDuration = SignedDuration::from_secs(600);

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make network, volumes and sandbox.
    EnsureSandbox,
    /// Fetch the image of this container.
    PullImage { container: String },
    /// Create and start this attempt.
    Start { container: String, attempt: u32 },
    /// Stop a running container, for the reason given.
    Stop { container: String, reason: String },
    /// Stop everything and free network and volumes; the pod object stays.
    StopAll { reason: String },
    /// Look again then.
    WakeAt(Timestamp),
}

/// Whether the pod has ended for good, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Succeeded,
    Failed,
}

/// Restart rules of a container within its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// A native sidecar: an init container that keeps running.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub(crate) fn restart_rule(spec: &PodSpec, container: &Container, is_init: bool) -> Restart {
    if is_init && is_sidecar(container) {
        return Restart::Always;
    }
    match (spec.restart_policy.as_deref(), is_init) {
        (Some("Never"), _) => Restart::Never,
        (Some("OnFailure"), _) | (_, true) => Restart::OnFailure,
        _ => Restart::Always,
    }
}

/// When the next attempt of an ended container is due; `None` when it stays ended.
pub(crate) fn restart_due(rule: Restart, ended: &ContainerStatus) -> Option<Timestamp> {
    let failed = ended.exit_code != Some(0);
    let restarts = match rule {
        Restart::Always => true,
        Restart::OnFailure => failed,
        Restart::Never => false,
    };
    if !restarts {
        return None;
    }
    let finished = ended.finished_at.unwrap_or(ended.created_at);
    Some(finished + restart_delay(ended))
}

/// The first restart is immediate, the second waits 10 s, then 20 s … 5 min; a long healthy run starts over.
fn restart_delay(ended: &ContainerStatus) -> SignedDuration {
    let ran = match (ended.started_at, ended.finished_at) {
        (Some(started), Some(finished)) => finished.duration_since(started),
        _ => SignedDuration::ZERO,
    };
    if ended.attempt == 0 || ran >= RESTART_RESET {
        return SignedDuration::ZERO;
    }
    let doublings = (ended.attempt - 1).min(5);
    (RESTART_BACKOFF * (1 << doublings)).min(RESTART_BACKOFF_MAX)
}

/// The pod's deadline, counted from its start.
pub(crate) fn deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    Some(start + SignedDuration::from_secs(seconds))
}

/// How the pod ended, if it has.
pub(crate) fn ending(spec: &PodSpec, observed: &Observed) -> Option<Ending> {
    for container in spec.init_containers.iter().flatten() {
        if let Some(status) = observed.containers.get(&container.name)
            && status.state == ContainerState::Exited
            && status.exit_code != Some(0)
            && restart_rule(spec, container, true) == Restart::Never
        {
            return Some(Ending::Failed);
        }
    }
    let mut failed = false;
    for container in &spec.containers {
        let status = observed.containers.get(&container.name)?;
        if status.state != ContainerState::Exited
            || restart_due(restart_rule(spec, container, false), status).is_some()
        {
            return None;
        }
        failed |= status.exit_code != Some(0);
    }
    Some(if failed {
        Ending::Failed
    } else {
        Ending::Succeeded
    })
}

/// Steps that bring a pod that should run closer to running. Deletion is decided by the caller.
pub(crate) fn plan(pod: &Pod, observed: &Observed, now: Timestamp) -> Vec<Action> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let mut actions = Vec::new();
    if let Some(deadline) = deadline(pod) {
        if deadline <= now {
            return vec![Action::StopAll {
                reason: "Pod was active on the node longer than the specified deadline".to_string(),
            }];
        }
        actions.push(Action::WakeAt(deadline));
    }
    if ending(spec, observed).is_some() {
        return vec![Action::StopAll {
            reason: "the pod has ended".to_string(),
        }];
    }
    if !observed.sandbox_ready {
        match &observed.sandbox_failure {
            Some(failure) if failure.retry_at > now => {
                actions.push(Action::WakeAt(failure.retry_at))
            }
            _ => actions.push(Action::EnsureSandbox),
        }
        return actions;
    }
    for container in spec.init_containers.iter().flatten() {
        let rule = restart_rule(spec, container, true);
        if !container_steps(container, rule, observed, now, &mut actions)
            .is_done_for_successors(container, observed)
        {
            return actions;
        }
    }
    for container in &spec.containers {
        let rule = restart_rule(spec, container, false);
        container_steps(container, rule, observed, now, &mut actions);
    }
    actions
}

/// How a container stands after its steps were planned.
enum Standing {
    Waiting,
    Running,
    Completed,
}

impl Standing {
    /// Whether the next init container, or the first app container, may start.
    fn is_done_for_successors(&self, container: &Container, observed: &Observed) -> bool {
        match self {
            Self::Completed => true,
            Self::Running => {
                is_sidecar(container)
                    && observed
                        .probes
                        .get(&container.name)
                        .is_some_and(|probe| probe.started)
            }
            Self::Waiting => false,
        }
    }
}

fn container_steps(
    container: &Container,
    rule: Restart,
    observed: &Observed,
    now: Timestamp,
    actions: &mut Vec<Action>,
) -> Standing {
    let name = &container.name;
    let attempt = match observed.containers.get(name) {
        None => 0,
        Some(status) => match status.state {
            ContainerState::Running => {
                if observed
                    .probes
                    .get(name)
                    .is_some_and(|probe| probe.must_restart)
                {
                    actions.push(Action::Stop {
                        container: name.clone(),
                        reason: format!(
                            "Container {name} failed liveness probe, will be restarted"
                        ),
                    });
                }
                return Standing::Running;
            }
            // A crash of this program between create and start leaves a created container.
            ContainerState::Created => status.attempt,
            ContainerState::Exited => match restart_due(rule, status) {
                None => {
                    return if status.exit_code == Some(0) {
                        Standing::Completed
                    } else {
                        Standing::Waiting
                    };
                }
                Some(due) if due > now => {
                    actions.push(Action::WakeAt(due));
                    return Standing::Waiting;
                }
                Some(_) => status.attempt + 1,
            },
        },
    };
    if let Some(failure) = observed.start_failures.get(name)
        && failure.retry_at > now
    {
        actions.push(Action::WakeAt(failure.retry_at));
        return Standing::Waiting;
    }
    match observed.images.get(name) {
        Some(ImageState::Present) => actions.push(Action::Start {
            container: name.clone(),
            attempt,
        }),
        Some(ImageState::Pulling) => {}
        Some(ImageState::Failed { retry_at, .. }) if *retry_at > now => {
            actions.push(Action::WakeAt(*retry_at));
        }
        None | Some(ImageState::Failed { .. }) => actions.push(Action::PullImage {
            container: name.clone(),
        }),
    }
    Standing::Waiting
}

/// Time a container gets between the stop signal and the kill.
pub(crate) fn grace_period(pod: &Pod) -> Duration {
    let requested = pod.metadata.deletion_grace_period_seconds.or_else(|| {
        pod.spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds)
    });
    Duration::from_secs(u64::try_from(requested.unwrap_or(30)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{ProbeResults, StartFailure};
    use local_runtime::ContainerId;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn pod(restart_policy: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web"},
            "spec": {
                "restartPolicy": restart_policy,
                "initContainers": [{"name": "prepare", "image": "i"}],
                "containers": [{"name": "main", "image": "m"}],
            },
        }))
        .unwrap()
    }

    fn container(
        name: &str,
        attempt: u32,
        state: ContainerState,
        exit: Option<i32>,
    ) -> ContainerStatus {
        ContainerStatus {
            id: ContainerId::new("s", name, attempt),
            name: name.to_string(),
            attempt,
            labels: Default::default(),
            state,
            pid: None,
            exit_code: exit,
            signal: None,
            oom_killed: false,
            created_at: at(0),
            started_at: Some(at(0)),
            finished_at: exit.map(|_| at(1)),
            image: String::new(),
            image_id: String::new(),
            log_path: Default::default(),
            message: None,
        }
    }

    fn seen(containers: Vec<ContainerStatus>) -> Observed {
        Observed {
            sandbox_ready: true,
            containers: containers
                .into_iter()
                .map(|one| (one.name.clone(), one))
                .collect(),
            images: ["prepare", "main"]
                .map(|name| (name.to_string(), ImageState::Present))
                .into(),
            ..Observed::default()
        }
    }

    fn start(container: &str, attempt: u32) -> Action {
        Action::Start {
            container: container.to_string(),
            attempt,
        }
    }

    #[test]
    fn the_sandbox_comes_first_and_is_retried_only_when_due() {
        assert_eq!(
            plan(&pod("Always"), &Observed::default(), at(0)),
            [Action::EnsureSandbox]
        );
        let failed = Observed {
            sandbox_failure: Some(StartFailure {
                reason: "FailedCreatePodSandBox",
                message: String::new(),
                retry_at: at(5),
            }),
            ..Observed::default()
        };
        assert_eq!(
            plan(&pod("Always"), &failed, at(0)),
            [Action::WakeAt(at(5))]
        );
        assert_eq!(
            plan(&pod("Always"), &failed, at(5)),
            [Action::EnsureSandbox]
        );
    }

    #[test]
    fn init_containers_run_one_after_the_other_before_the_app() {
        let pod = pod("Always");
        assert_eq!(plan(&pod, &seen(vec![]), at(0)), [start("prepare", 0)]);
        let running = container("prepare", 0, ContainerState::Running, None);
        assert_eq!(plan(&pod, &seen(vec![running]), at(0)), []);
        let done = container("prepare", 0, ContainerState::Exited, Some(0));
        assert_eq!(plan(&pod, &seen(vec![done]), at(2)), [start("main", 0)]);
    }

    #[test]
    fn a_crashed_container_restarts_at_once_then_after_ten_seconds_doubling() {
        let done = container("prepare", 0, ContainerState::Exited, Some(0));
        for (attempt, wait) in [(0, 0), (1, 10), (2, 20), (3, 40), (20, 300)] {
            let crashed = container("main", attempt, ContainerState::Exited, Some(1));
            let seen = seen(vec![done.clone(), crashed]);
            if wait > 0 {
                let early = plan(&pod("Always"), &seen, at(wait));
                assert_eq!(early, [Action::WakeAt(at(1 + wait))], "attempt {attempt}");
            }
            assert_eq!(
                plan(&pod("Always"), &seen, at(1 + wait)),
                [start("main", attempt + 1)]
            );
        }
    }

    #[test]
    fn restart_policies_decide_how_the_pod_ends() {
        let done = container("prepare", 0, ContainerState::Exited, Some(0));
        let ended = |code| {
            seen(vec![
                done.clone(),
                container("main", 0, ContainerState::Exited, Some(code)),
            ])
        };
        let spec = |policy: &str| pod(policy).spec.unwrap();
        assert_eq!(ending(&spec("Never"), &ended(0)), Some(Ending::Succeeded));
        assert_eq!(ending(&spec("Never"), &ended(3)), Some(Ending::Failed));
        assert_eq!(
            ending(&spec("OnFailure"), &ended(0)),
            Some(Ending::Succeeded)
        );
        assert_eq!(ending(&spec("OnFailure"), &ended(3)), None);
        assert_eq!(ending(&spec("Always"), &ended(0)), None);
        let broken_init = seen(vec![container(
            "prepare",
            0,
            ContainerState::Exited,
            Some(1),
        )]);
        assert_eq!(ending(&spec("Never"), &broken_init), Some(Ending::Failed));
    }

    #[test]
    fn a_failed_liveness_probe_stops_the_container_and_images_are_pulled_first() {
        let done = container("prepare", 0, ContainerState::Exited, Some(0));
        let mut sick = seen(vec![
            done.clone(),
            container("main", 0, ContainerState::Running, None),
        ]);
        sick.probes.insert(
            "main".to_string(),
            ProbeResults {
                started: true,
                ready: false,
                must_restart: true,
            },
        );
        assert!(matches!(
            plan(&pod("Always"), &sick, at(2))[..],
            [Action::Stop { .. }]
        ));
        let mut missing = seen(vec![done]);
        missing.images.remove("main");
        assert_eq!(
            plan(&pod("Always"), &missing, at(2)),
            [Action::PullImage {
                container: "main".to_string()
            }]
        );
    }

    #[test]
    fn a_pod_past_its_deadline_is_stopped() {
        let mut pod = pod("Always");
        pod.spec.as_mut().unwrap().active_deadline_seconds = Some(5);
        pod.status = Some(
            serde_json::from_value(serde_json::json!({"startTime": at(0).to_string()})).unwrap(),
        );
        assert!(matches!(
            plan(&pod, &seen(vec![]), at(6))[..],
            [Action::StopAll { .. }]
        ));
    }
}
