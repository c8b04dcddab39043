//! Deployments in the states of a rollout with the steps and the conditions that must follow.

use serde_json::json;

use super::*;

fn deployment(spec: Value, status: Value) -> Deployment {
    let mut object = json!({
        "metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 3,
            "annotations": {REVISION: "1"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": {"metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "image": "i:2"}]}}},
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn set(name: &str, image: &str, size: i32, available: i32, revision: i64) -> Arc<ReplicaSet> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "generation": 1,
                "creationTimestamp": format!("2026-11-21T11:00:0{revision}Z"),
                "annotations": {REVISION: revision.to_string(), "deployment.kubernetes.io/desired-replicas": "3",
                    "deployment.kubernetes.io/max-replicas": "4"}},
            "spec": {"replicas": size, "selector": {}, "template": {"metadata": {"labels": {"app": "a", "pod-template-hash": name}},
                "spec": {"containers": [{"name": "c", "image": image}]}}},
            "status": {"replicas": size, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1},
        }))
        .unwrap(),
    )
}

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn decide(deployment: &Deployment, sets: Vec<Arc<ReplicaSet>>, old_pods_run: bool) -> Plan {
    plan(State {
        deployment,
        sets,
        old_pods_run: &|_| old_pods_run,
        now: now(),
    })
}

fn reasons(plan: &Plan) -> Vec<(String, String)> {
    let conditions = plan.status.conditions.iter().flatten();
    conditions
        .map(|condition| (condition.type_.clone(), condition.reason.clone().unwrap()))
        .collect()
}

#[test]
fn a_new_deployment_gets_a_set_of_full_size() {
    let plan = decide(&deployment(json!({}), json!({})), vec![], false);
    let Action::Create(set) = &plan.actions[0] else {
        panic!("{:?}", plan.actions)
    };
    assert_eq!(set["spec"]["replicas"], 3);
    assert_eq!(plan.actions.len(), 1);
    assert_eq!(
        reasons(&plan),
        [
            (
                "Available".to_owned(),
                "MinimumReplicasUnavailable".to_owned()
            ),
            ("Progressing".to_owned(), "NewReplicaSetCreated".to_owned())
        ]
    );
}

#[test]
fn a_new_template_starts_with_the_surge_and_the_next_revision() {
    let plan = decide(
        &deployment(json!({}), json!({})),
        vec![set("old", "i:1", 3, 3, 1)],
        false,
    );
    let Action::Create(set) = &plan.actions[0] else {
        panic!("{:?}", plan.actions)
    };
    assert_eq!(set["spec"]["replicas"], 1);
    assert_eq!(plan.actions[1], Action::SetRevision("2".to_owned()));
}

#[test]
fn recreation_waits_until_the_old_pods_are_gone() {
    let deployment = deployment(json!({"strategy": {"type": "Recreate"}}), json!({}));
    let old = set("old", "i:1", 3, 3, 1);
    let plan = decide(&deployment, vec![Arc::clone(&old)], true);
    assert_eq!(plan.actions, [Action::Resize(Resize { set: old, to: 0 })]);
    let emptied = set("old", "i:1", 0, 0, 1);
    assert_eq!(
        decide(&deployment, vec![Arc::clone(&emptied)], true).actions,
        []
    );
    let plan = decide(&deployment, vec![emptied], false);
    assert!(matches!(&plan.actions[0], Action::Create(set) if set["spec"]["replicas"] == 3));
}

#[test]
fn a_paused_deployment_follows_its_size_but_not_its_template() {
    let paused = deployment(json!({"paused": true, "replicas": 5}), json!({}));
    let old = set("old", "i:1", 3, 3, 1);
    let plan = decide(&paused, vec![Arc::clone(&old)], false);
    assert_eq!(plan.actions, [Action::Resize(Resize { set: old, to: 5 })]);
    assert!(reasons(&plan).contains(&("Progressing".to_owned(), "DeploymentPaused".to_owned())));
}

#[test]
fn a_complete_rollout_says_so_and_removes_old_history() {
    let status = json!({"observedGeneration": 3, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
        "availableReplicas": 3, "conditions": [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
        "lastUpdateTime": "2026-11-21T11:59:00Z", "lastTransitionTime": "2026-11-21T11:50:00Z"}]});
    let deployment = deployment(json!({"revisionHistoryLimit": 0}), status);
    let old = set("old", "i:1", 0, 0, 1);
    let plan = decide(
        &deployment,
        vec![Arc::clone(&old), set("new", "i:2", 3, 3, 2)],
        false,
    );
    assert_eq!(
        plan.actions,
        [Action::SetRevision("2".to_owned()), Action::Delete(old)]
    );
    let progressing = plan
        .status
        .conditions
        .as_ref()
        .unwrap()
        .iter()
        .find(|known| known.type_ == "Progressing")
        .unwrap();
    assert_eq!(
        progressing.reason.as_deref(),
        Some("NewReplicaSetAvailable")
    );
    assert_eq!(
        progressing.message.as_deref(),
        Some("ReplicaSet \"new\" has successfully progressed.")
    );
    assert_eq!(
        progressing
            .last_transition_time
            .as_ref()
            .unwrap()
            .0
            .to_string(),
        "2026-11-21T11:50:00Z"
    );
    assert_eq!(plan.next_look, None);
}

#[test]
fn a_rollout_that_does_not_move_times_out() {
    let status = |updated: &str| {
        json!({"observedGeneration": 3, "replicas": 4, "updatedReplicas": 1, "readyReplicas": 3, "availableReplicas": 3,
            "conditions": [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
            "lastUpdateTime": updated, "lastTransitionTime": updated}]})
    };
    let sets = || vec![set("old", "i:1", 3, 3, 1), set("new", "i:2", 1, 0, 2)];
    let spec = json!({"progressDeadlineSeconds": 60});
    let waiting = decide(
        &deployment(spec.clone(), status("2026-11-21T11:59:30Z")),
        sets(),
        false,
    );
    assert_eq!(waiting.next_look, Some(Duration::from_secs(31)));
    let stuck = decide(
        &deployment(spec, status("2026-11-21T11:58:00Z")),
        sets(),
        false,
    );
    assert!(reasons(&stuck).contains(&(
        "Progressing".to_owned(),
        "ProgressDeadlineExceeded".to_owned()
    )));
}

#[test]
fn a_changed_size_is_followed_before_the_rollout_goes_on() {
    let deployment = deployment(json!({"replicas": 6}), json!({}));
    let (old, new) = (set("old", "i:1", 3, 3, 1), set("new", "i:2", 1, 0, 2));
    let plan = decide(&deployment, vec![old, new], false);
    let total: i32 = plan
        .actions
        .iter()
        .map(|action| {
            if let Action::Resize(resize) = action {
                resize.to
            } else {
                0
            }
        })
        .sum();
    assert_eq!(total, 8);
}
