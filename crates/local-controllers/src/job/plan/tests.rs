use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::job::pods::TRACKING_FINALIZER;

const NOW: &str = "2026-11-21T11:00:30Z";

fn job(spec: Value, status: Value) -> Job {
    let mut whole = json!({"template": {"spec": {"containers": [], "restartPolicy": "Never"}},
        "backoffLimit": 6, "parallelism": 1, "completions": 1});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(
        json!({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": whole,
        "status": status}),
    )
    .unwrap()
}

/// A pod in words: its UID, phase, and what is special about it.
fn pod(id: &str, phase: &str, more: Value) -> Arc<Pod> {
    let mut object = json!({
        "metadata": {"name": id, "namespace": "n", "uid": id, "finalizers": [TRACKING_FINALIZER]},
        "status": {"phase": phase},
    });
    if more["counted"] == true {
        object["metadata"]["finalizers"] = json!([]);
    }
    if let Some(index) = more["index"].as_i64() {
        object["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] =
            index.to_string().into();
    }
    if more["going"] == true {
        object["metadata"]["deletionTimestamp"] = "2026-11-21T11:00:20Z".into();
    }
    Arc::new(serde_json::from_value(object).unwrap())
}

fn decide(job: &Job, pods: &[Arc<Pod>]) -> Plan {
    plan(job, pods, NOW.parse().unwrap())
}

fn conditions(plan: &Plan) -> Vec<String> {
    let all = plan.status.conditions.iter().flatten();
    all.map(|one| {
        format!(
            "{}={} {}",
            one.type_,
            one.status,
            one.reason.as_deref().unwrap_or("")
        )
    })
    .collect()
}

#[test]
fn a_new_job_makes_as_many_pods_as_may_run_at_once() {
    let plan = decide(
        &job(json!({"completions": 5, "parallelism": 2}), json!({})),
        &[],
    );
    assert_eq!(plan.create, [NewPod::default(); 2]);
    assert!(plan.status.start_time.is_some());
    let last = json!({"succeeded": 4, "startTime": NOW});
    let plan = decide(&job(json!({"completions": 5, "parallelism": 2}), last), &[]);
    assert_eq!(plan.create.len(), 1);
}

#[test]
fn a_pod_is_counted_in_three_steps_and_only_once() {
    let first = job(json!({}), json!({"startTime": NOW}));
    let done = pod("a", "Succeeded", json!({}));
    let plan = decide(&first, std::slice::from_ref(&done));
    assert_eq!(plan.status.succeeded, None);
    assert_eq!(plan.untrack, [done]);
    assert_eq!(
        conditions(&plan),
        ["SuccessCriteriaMet=True CompletionsReached"]
    );
    // The status is written, the finalizer is still there: nothing new.
    let mut second = first.clone();
    second.status = Some(plan.status.clone());
    let again = decide(&second, &[pod("a", "Succeeded", json!({}))]);
    assert_eq!(again.status, plan.status);
    let last = decide(&second, &[pod("a", "Succeeded", json!({"counted": true}))]);
    assert_eq!(last.status.succeeded, Some(1));
    assert_eq!(last.events[0].reason, "Completed");
    assert!(last.status.completion_time.is_some());
    second.status = Some(last.status.clone());
    assert_eq!(decide(&second, &[]).status, last.status);
}

#[test]
fn too_many_failures_end_the_job_after_its_pods_have_gone() {
    let pods = [
        pod("a", "Failed", json!({})),
        pod("b", "Running", json!({})),
    ];
    let spec = json!({"backoffLimit": 0, "completions": 2, "parallelism": 2});
    let plan = decide(&job(spec.clone(), json!({"startTime": NOW})), &pods);
    assert_eq!(
        conditions(&plan),
        ["FailureTarget=True BackoffLimitExceeded"]
    );
    assert_eq!(plan.delete, [Arc::clone(&pods[1])]);
    let next = job(spec, serde_json::to_value(&plan.status).unwrap());
    let going = [
        pod("a", "Failed", json!({"counted": true})),
        pod("b", "Running", json!({"going": true})),
    ];
    let waiting = decide(&next, &going);
    assert_eq!(waiting.status.failed, Some(1));
    assert!(waiting.events.is_empty() && waiting.untrack.len() == 1);
    let next = job(json!({}), serde_json::to_value(&waiting.status).unwrap());
    let over = decide(&next, &[]);
    assert_eq!(over.status.failed, Some(2));
    assert_eq!(
        conditions(&over),
        [
            "FailureTarget=True BackoffLimitExceeded",
            "Failed=True BackoffLimitExceeded"
        ]
    );
    assert!(over.events[0].is_warning);
}

#[test]
fn a_suspended_job_removes_its_pods_and_starts_anew() {
    let running = [pod("a", "Running", json!({}))];
    let plan = decide(
        &job(json!({"suspend": true}), json!({"startTime": NOW})),
        &running,
    );
    assert_eq!(plan.delete.len(), 1);
    assert_eq!(conditions(&plan), ["Suspended=True JobSuspended"]);
    let status = json!({"conditions": plan.status.conditions, "startTime": "2026-11-21T10:00:00Z"});
    let plan = decide(&job(json!({}), status), &[]);
    assert_eq!(conditions(&plan), ["Suspended=False JobResumed"]);
    assert_eq!(plan.status.start_time.unwrap().0, NOW.parse().unwrap());
    assert_eq!(plan.create.len(), 1);
}

#[test]
fn an_indexed_job_makes_each_missing_index_once() {
    let spec = json!({"completionMode": "Indexed", "completions": 5, "parallelism": 3});
    let pods = [
        pod("a", "Succeeded", json!({"index": 0})),
        pod("b", "Running", json!({"index": 2})),
        pod("c", "Running", json!({"index": 2})),
        pod("d", "Running", json!({"index": 9})),
    ];
    let plan = decide(&job(spec.clone(), json!({})), &pods);
    assert_eq!(plan.delete, [Arc::clone(&pods[2]), Arc::clone(&pods[3])]);
    let plan = decide(&job(spec, json!({"completedIndexes": "1"})), &pods[..2]);
    assert_eq!(plan.status.completed_indexes.as_deref(), Some("0,1"));
    let made: Vec<_> = plan.create.iter().map(|new| new.index.unwrap()).collect();
    assert_eq!(made, [3, 4]);
}

#[test]
fn indexes_fail_one_by_one_when_the_limit_is_per_index() {
    let spec = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 1});
    let first = [
        pod("a", "Failed", json!({"index": 0})),
        pod("b", "Running", json!({"index": 1})),
    ];
    let plan = decide(&job(spec.clone(), json!({})), &first);
    let again = NewPod {
        index: Some(0),
        index_failures: Some(1),
    };
    assert_eq!(plan.create, [again]);
    let mut second = Pod::clone(&pod("c", "Failed", json!({"index": 0})));
    second.metadata.annotations.as_mut().unwrap().insert(
        "batch.kubernetes.io/job-index-failure-count".to_owned(),
        "1".to_owned(),
    );
    let pods = [Arc::new(second), pod("b", "Succeeded", json!({"index": 1}))];
    let plan = decide(&job(spec, json!({"failed": 1})), &pods);
    assert_eq!(conditions(&plan), ["FailureTarget=True FailedIndexes"]);
    assert_eq!(plan.status.failed_indexes.as_deref(), Some("0"));
}

#[test]
fn the_deadline_counts_from_the_start() {
    let spec = json!({"activeDeadlineSeconds": 20});
    let plan = decide(
        &job(spec.clone(), json!({"startTime": "2026-11-21T11:00:15Z"})),
        &[],
    );
    assert_eq!(plan.next, Some(Duration::from_secs(5)));
    let plan = decide(
        &job(spec, json!({"startTime": "2026-11-21T11:00:10Z"})),
        &[],
    );
    assert_eq!(
        conditions(&plan),
        [
            "FailureTarget=True DeadlineExceeded",
            "Failed=True DeadlineExceeded"
        ]
    );
}

#[test]
fn a_finished_job_goes_when_its_time_is_over() {
    let status = json!({"conditions": [{"type": "Complete", "status": "True",
        "lastTransitionTime": "2026-11-21T11:00:00Z"}]});
    let plan = decide(
        &job(json!({"ttlSecondsAfterFinished": 40}), status.clone()),
        &[],
    );
    assert_eq!(
        (plan.is_expired, plan.next),
        (false, Some(Duration::from_secs(10)))
    );
    assert!(
        decide(
            &job(json!({"ttlSecondsAfterFinished": 30}), status.clone()),
            &[]
        )
        .is_expired
    );
    assert!(!decide(&job(json!({}), status), &[]).is_expired);
}

#[test]
fn a_success_policy_ends_the_job_before_all_of_it_has_run() {
    let spec = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4,
        "successPolicy": {"rules": [{"succeededIndexes": "2-3"}, {"succeededIndexes": "0,3", "succeededCount": 1}]}});
    let pods = [
        pod("a", "Succeeded", json!({"index": 0})),
        pod("b", "Running", json!({"index": 1})),
    ];
    let plan = decide(&job(spec, json!({})), &pods);
    assert_eq!(conditions(&plan), ["SuccessCriteriaMet=True SuccessPolicy"]);
    assert_eq!(plan.delete, [Arc::clone(&pods[1])]);
}

proptest! {
    /// Pods end in any order and well or badly, the controller is interrupted between any two of its steps: in the
    /// end every ended pod was counted exactly once.
    #[test]
    fn every_pod_is_counted_once(completions in 1..6, parallelism in 1..4, outcomes in proptest::collection::vec(any::<bool>(), 40),
                                 interruptions in proptest::collection::vec(0..3_u8, 200)) {
        let mut current = job(json!({"completions": completions, "parallelism": parallelism, "backoffLimit": 100}),
                              json!({"startTime": NOW}));
        let mut pods: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        let (mut made, mut good, mut bad) = (0, 0, 0);
        for interruption in interruptions {
            let all: Vec<_> = pods.values().cloned().collect();
            // Old failures hold a new try back; time passes.
            let plan = plan(&current, &all, "2026-11-21T23:00:30Z".parse().unwrap());
            for _ in &plan.create {
                let id = format!("p{made}");
                pods.insert(id.clone(), pod(&id, "Running", json!({})));
                made += 1;
            }
            for gone in &plan.delete {
                pods.remove(gone.metadata.name.as_ref().unwrap());
            }
            if interruption == 0 { continue; }
            current.status = Some(plan.status.clone());
            if interruption == 1 { continue; }
            for counted in &plan.untrack {
                let id = counted.metadata.name.clone().unwrap();
                let phase = phase(counted).to_owned();
                pods.insert(id.clone(), pod(&id, &phase, json!({"counted": true})));
            }
            let running = pods.iter().find(|(_, pod)| phase(pod) == "Running").map(|(id, _)| id.clone());
            if let Some(id) = running {
                let is_good = outcomes[made as usize % outcomes.len()];
                if is_good { good += 1 } else { bad += 1 }
                pods.insert(id.clone(), pod(&id, if is_good { "Succeeded" } else { "Failed" }, json!({})));
            }
        }
        let status = current.status.unwrap();
        let held = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let length = |list: Option<Vec<String>>| list.map_or(0, |list| list.len() as i32);
        prop_assert!(status.succeeded.unwrap_or(0) + length(held.succeeded) <= good);
        prop_assert!(status.failed.unwrap_or(0) + length(held.failed) <= bad);
        if status::is_finished(&status) {
            prop_assert_eq!(status.succeeded.unwrap_or(0), good);
            prop_assert_eq!(status.failed.unwrap_or(0), bad);
        }
    }
}
