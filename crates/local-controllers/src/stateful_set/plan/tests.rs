use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn set(spec: Value) -> StatefulSet {
    let mut whole = json!({
        "replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": {},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    });
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": whole}))
        .unwrap()
}

/// A pod in words: number, revision, and `ready`, `pending`, `failed` or `going`.
fn pod(number: i32, revision: &str, state: &str) -> Arc<Pod> {
    let (phase, ready) = match state {
        "ready" | "going" => ("Running", "True"),
        "pending" => ("Pending", "False"),
        "failed" => ("Failed", "False"),
        other => panic!("{other}"),
    };
    let mut object = json!({
        "metadata": {"name": format!("s-{number}"), "labels": {"controller-revision-hash": revision}},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-11-21T11:00:00Z"}]},
    });
    if state == "going" {
        object["metadata"]["deletionTimestamp"] = "2026-11-21T11:01:00Z".into();
    }
    Arc::new(serde_json::from_value(object).unwrap())
}

fn steps(set: &StatefulSet, pods: &[Arc<Pod>]) -> Vec<String> {
    let now = "2026-11-21T11:00:05Z".parse().unwrap();
    let state = State {
        set,
        pods,
        current: "old",
        update: "new",
        now,
    };
    let word = |step: Step| match step {
        Step::Create(number, revision) => format!("+{number} {revision}"),
        Step::Delete(pod) => format!("-{}", name(&pod.metadata)),
        Step::Replace(pod) => format!("~{}", name(&pod.metadata)),
    };
    plan(&state).steps.into_iter().map(word).collect()
}

#[test]
fn ordered_sets_make_one_pod_after_the_other() {
    let ordered = set(json!({}));
    assert_eq!(steps(&ordered, &[]), ["+0 new"]);
    assert!(steps(&ordered, &[pod(0, "new", "pending")]).is_empty());
    assert_eq!(steps(&ordered, &[pod(0, "new", "ready")]), ["+1 new"]);
    assert!(steps(&ordered, &[pod(0, "new", "going")]).is_empty());
    assert_eq!(steps(&ordered, &[pod(0, "new", "failed")]), ["~s-0"]);
}

#[test]
fn parallel_sets_make_and_remove_all_at_once() {
    let parallel = set(json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}));
    assert_eq!(steps(&parallel, &[]), ["+5 new", "+6 new", "+7 new"]);
    let pods = [
        pod(5, "new", "pending"),
        pod(9, "new", "ready"),
        pod(10, "new", "pending"),
    ];
    assert_eq!(
        steps(&parallel, &pods),
        ["+6 new", "+7 new", "-s-10", "-s-9"]
    );
}

#[test]
fn ordered_sets_shrink_from_the_top_and_wait_for_each() {
    let one = set(json!({"replicas": 1}));
    let all = |top: &str, middle: &str| {
        [
            pod(0, "new", "ready"),
            pod(1, "new", middle),
            pod(2, "new", top),
        ]
    };
    assert_eq!(steps(&one, &all("ready", "ready")), ["-s-2"]);
    assert!(steps(&one, &all("going", "ready")).is_empty());
    // An unhealthy pod below is looked at first, the one on top may not be taken away beside it.
    assert_eq!(steps(&one, &all("ready", "pending")), ["-s-2"]);
    assert!(steps(&one, &all("pending", "pending")).is_empty());
    assert_eq!(steps(&one, &all("pending", "ready")), ["-s-2"]);
}

#[test]
fn an_update_rolls_from_the_top_and_stops_at_the_partition_or_at_an_unhealthy_pod() {
    let rolling = set(json!({}));
    let pods = |top: (&str, &str)| {
        [
            pod(0, "old", "ready"),
            pod(1, "old", "ready"),
            pod(2, top.0, top.1),
        ]
    };
    assert_eq!(steps(&rolling, &pods(("old", "ready"))), ["-s-2"]);
    assert!(steps(&rolling, &pods(("new", "pending"))).is_empty());
    assert_eq!(steps(&rolling, &pods(("new", "ready"))), ["-s-1"]);
    let halved = set(
        json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}),
    );
    assert!(steps(&halved, &pods(("new", "ready"))).is_empty());
    assert_eq!(steps(&halved, &[]), ["+0 old"]);
    let manual = set(json!({"updateStrategy": {"type": "OnDelete"}}));
    assert!(steps(&manual, &pods(("old", "ready"))).is_empty());
    assert_eq!(
        steps(&manual, &[pod(0, "old", "ready"), pod(2, "old", "ready")]),
        ["+1 new"]
    );
}

#[test]
fn a_set_that_goes_does_nothing_any_more() {
    let mut going = set(json!({}));
    going.metadata.deletion_timestamp = pod(0, "new", "going").metadata.deletion_timestamp.clone();
    assert!(steps(&going, &[pod(7, "old", "ready")]).is_empty());
}

proptest! {
    /// Whatever the pods are, ordered sets take one step at a time, and when every step is followed by pods that
    /// become ready, the set comes to rest with the wanted numbers, all of the new revision above the partition.
    #[test]
    fn every_set_comes_to_rest(replicas in 0..6, start in 0..3, partition in 0..4, parallel: bool,
                               present in proptest::collection::btree_set(0..9, 0..9)) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let set = set(json!({"replicas": replicas, "ordinals": {"start": start}, "podManagementPolicy": policy,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}}));
        let mut pods: Vec<Arc<Pod>> = present.iter().map(|number| pod(*number, "old", "ready")).collect();
        let mut rounds = 0;
        loop {
            let now = "2026-11-21T11:00:05Z".parse().unwrap();
            let plan = plan(&State { set: &set, pods: &pods, current: "old", update: "new", now });
            if plan.steps.is_empty() {
                break;
            }
            prop_assert!(parallel || plan.steps.len() == 1);
            for step in plan.steps {
                match step {
                    Step::Create(number, revision) => pods.push(pod(number, &revision, "ready")),
                    Step::Delete(gone) | Step::Replace(gone) => pods.retain(|one| one != &gone),
                }
            }
            rounds += 1;
            prop_assert!(rounds < 60, "no rest");
        }
        let numbers: BTreeSet<i32> = pods.iter().filter_map(|pod| ordinal(&set, name(&pod.metadata))).collect();
        prop_assert_eq!(numbers, (start..start + replicas).collect());
        for pod in &pods {
            let number = ordinal(&set, name(&pod.metadata)).unwrap();
            prop_assert!(revision(pod) == "new" || number - start < partition);
        }
    }
}
