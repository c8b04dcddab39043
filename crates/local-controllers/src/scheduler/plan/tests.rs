//! Tables of boards and pods with the node that must come out, or the sentence.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;

fn node(name: &str, more: Value) -> Arc<Node> {
    let mut object = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": "z1"}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    merge(&mut object, more);
    Arc::new(serde_json::from_value(object).unwrap())
}

fn pod(name: &str, spec: Value) -> Arc<Pod> {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
    });
    merge(&mut object, json!({"spec": spec}));
    Arc::new(serde_json::from_value(object).unwrap())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn virtual_node(name: &str) -> Arc<Node> {
    node(
        name,
        json!({
            "metadata": {"labels": {"type": "virtual-kubelet", "zone": "z9"}},
            "spec": {"taints": [{"key": "virtual-kubelet.io/provider", "value": "alibabacloud", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "100000", "memory": "1000Ti", "pods": "5000"}},
        }),
    )
}

fn board(nodes: &[Arc<Node>]) -> Board {
    let mut board = Board::default();
    for node in nodes {
        board.set_node(Arc::clone(node));
    }
    board
}

fn tolerating() -> Value {
    json!({"tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]})
}

fn message(board: &Board, pod: &Pod) -> String {
    choose(board, pod).unwrap_err().to_string()
}

#[test]
fn pods_spread_over_equal_nodes() {
    let mut board = board(&[node("a", json!({})), node("b", json!({}))]);
    for index in 0..4 {
        let pod = pod(&format!("p{index}"), json!({}));
        let node = choose(&board, &pod).unwrap();
        board.place(pod, &node);
    }
    assert_eq!(board.nodes["a"].pods.len(), 2);
    assert_eq!(board.nodes["b"].pods.len(), 2);
}

#[test]
fn workers_fill_before_a_virtual_node_that_is_merely_tolerated() {
    let mut board = board(&[
        node("a", json!({})),
        node("b", json!({})),
        virtual_node("virtual-kubelet-z9"),
    ]);
    let mut placed = Vec::new();
    for index in 0..12 {
        let pod = pod(&format!("p{index}"), tolerating());
        let node = choose(&board, &pod).unwrap();
        placed.push(node.clone());
        board.place(pod, &node);
    }
    assert!(
        placed[..8].iter().all(|node| node == "a" || node == "b"),
        "{placed:?}"
    );
    assert!(
        placed[8..].iter().all(|node| node == "virtual-kubelet-z9"),
        "{placed:?}"
    );
}

#[test]
fn a_preferred_virtual_node_is_taken_at_once() {
    let board = board(&[node("a", json!({})), virtual_node("v")]);
    let mut spec = tolerating();
    spec["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "preference": {"matchExpressions": [
            {"key": "type", "operator": "In", "values": ["virtual-kubelet"]}]}}]}});
    assert_eq!(choose(&board, &pod("p", spec)).unwrap(), "v");
}

#[test]
fn a_node_selector_decides() {
    let board = board(&[node("a", json!({})), virtual_node("v")]);
    let mut spec = tolerating();
    spec["nodeSelector"] = json!({"type": "virtual-kubelet"});
    assert_eq!(choose(&board, &pod("p", spec)).unwrap(), "v");
    let wrong = pod("p", json!({"nodeSelector": {"disk": "ssd"}}));
    assert_eq!(
        message(&board, &wrong),
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint \
         {virtual-kubelet.io/provider: alibabacloud}. no new claims to deallocate, preemption: 0/2 nodes are \
         available: 2 Preemption is not helpful for scheduling."
    );
}

#[test]
fn what_is_missing_is_counted_over_all_nodes() {
    let mut board = board(&[
        node("a", json!({})),
        node("b", json!({})),
        node("c", json!({"spec": {"unschedulable": true}})),
    ]);
    board.place(
        pod(
            "old",
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "3500m"}}}]}),
        ),
        "a",
    );
    let big = pod(
        "big",
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "4", "memory": "9Gi"}}}]}),
    );
    assert_eq!(
        message(&board, &big),
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable, 2 Insufficient memory. no new \
         claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
    let medium = pod(
        "medium",
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "4"}}}]}),
    );
    assert_eq!(choose(&board, &medium).unwrap(), "b");
    assert_eq!(
        message(&Board::default(), &medium),
        "no nodes available to schedule pods"
    );
}

#[test]
fn a_full_node_and_a_taken_port_can_be_resolved() {
    let mut board = board(&[
        node("a", json!({"status": {"allocatable": {"pods": "1"}}})),
        node("b", json!({})),
    ]);
    let with_port = |name: &str| {
        pod(
            name,
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
        )
    };
    board.place(pod("x", json!({})), "a");
    board.place(with_port("y"), "b");
    assert_eq!(
        message(&board, &with_port("p")),
        "0/2 nodes are available: 1 Too many pods, 1 node(s) didn't have free ports for the requested pod ports. no \
         new claims to deallocate, preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    );
    board.unplace("y");
    assert_eq!(choose(&board, &with_port("p")).unwrap(), "b");
}

#[test]
fn required_affinity_follows_and_anti_affinity_avoids() {
    let mut board = board(&[
        node("a", json!({})),
        node("b", json!({"metadata": {"labels": {"zone": "z2"}}})),
    ]);
    let term =
        |key: &str| json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let near = |name: &str| {
        pod(
            name,
            json!({"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": term("zone")}}}),
        )
    };
    let apart = |name: &str| {
        pod(
            name,
            json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": term("kubernetes.io/hostname")}}}),
        )
    };
    board.place(near("first"), "b");
    for index in 0..2 {
        assert_eq!(choose(&board, &near(&format!("n{index}"))).unwrap(), "b");
    }
    assert_eq!(choose(&board, &apart("p")).unwrap(), "a");
    board.place(apart("p"), "a");
    assert_eq!(
        message(&board, &apart("q")),
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. no new claims to deallocate, \
         preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    );
    let anyone = pod("r", json!({"nodeSelector": {"zone": "z1"}}));
    assert!(
        message(&board, &anyone)
            .contains("1 node(s) didn't satisfy existing pods anti-affinity rules")
    );
}

#[test]
fn the_first_of_a_group_that_wants_to_be_together_may_go_anywhere() {
    let board = board(&[node("a", json!({}))]);
    let near = pod(
        "p",
        json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}}]}}}),
    );
    assert_eq!(choose(&board, &near).unwrap(), "a");
    let stranger = pod(
        "p",
        json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "other"}}}]}}}),
    );
    assert!(message(&board, &stranger).contains("1 node(s) didn't match pod affinity rules."));
}

#[test]
fn spread_constraints_bound_the_skew() {
    let mut board = board(&[
        node("a", json!({})),
        node("b", json!({"metadata": {"labels": {"zone": "z2"}}})),
    ]);
    let even = |name: &str| {
        pod(
            name,
            json!({"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]}),
        )
    };
    board.place(even("x"), "a");
    assert_eq!(choose(&board, &even("p")).unwrap(), "b");
    board.place(even("y"), "a");
    board.place(even("z"), "a");
    let cordoned = node(
        "b",
        json!({"metadata": {"labels": {"zone": "z2"}}, "spec": {"unschedulable": true}}),
    );
    board.set_node(cordoned);
    assert!(
        message(&board, &even("p"))
            .contains("1 node(s) didn't match pod topology spread constraints")
    );
}

#[test]
fn a_node_that_comes_back_still_has_its_pods() {
    let mut board = board(&[node("a", json!({}))]);
    board.place(pod("x", json!({})), "a");
    board.remove_node("a");
    board.set_node(node("a", json!({})));
    assert_eq!(board.nodes["a"].used.cpu_millis, 1000);
    board.unplace("x");
    assert_eq!(board.nodes["a"].used.cpu_millis, 0);
}
