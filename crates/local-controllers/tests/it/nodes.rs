//! Nodes that fall silent or vanish, with pods on them.

use std::time::Duration;

use local_controllers::ControllersConfig;
use local_controllers::config::NodesConfig;
use serde_json::{Value, json};

use super::world::World;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, manual: &str, tolerations: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"manual": manual}},
        "spec": {"nodeName": "node-a", "containers": [{"name": "c", "image": "i"}], "tolerations": tolerations},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_loses_what_does_not_tolerate_it_and_a_vanished_one_everything() {
    let nodes = NodesConfig {
        grace_period: Duration::from_secs(2),
        orphan_quarantine: Duration::from_millis(200),
    };
    let world = World::start(ControllersConfig {
        nodes,
        ..ControllersConfig::default()
    })
    .await;
    world.add_node("node-a", "zone-1", "16", "110").await;
    world
        .act(
            "POST",
            PODS,
            pod("goes", "0", json!([{"key": "none", "operator": "Exists"}])),
        )
        .await;
    world
        .act(
            "POST",
            PODS,
            pod("stays", "1", json!([{"operator": "Exists"}])),
        )
        .await;
    let node = "/api/v1/nodes/node-a";
    let silent = world
        .until(node, "tainted", |node| {
            node["spec"]["taints"]
                .as_array()
                .is_some_and(|taints| taints.len() == 2)
        })
        .await;
    let ready = silent["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["type"] == "Ready")
        .unwrap();
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&json!("Unknown"), &json!("NodeStatusUnknown"))
    );

    let left = |names: &'static [&'static str]| {
        move |list: &Value| {
            let items = list["items"].as_array().cloned().unwrap_or_default();
            items
                .iter()
                .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
                .eq(names.iter().map(|name| (*name).to_owned()))
        }
    };
    // Admission may have given the pod five minutes; then it is the taint alone that the node shows.
    let goes = world.act("GET", &format!("{PODS}/goes"), Value::Null).await;
    let has_default = goes["spec"]["tolerations"]
        .as_array()
        .is_some_and(|all| all.len() > 1);
    if !has_default {
        world.until(PODS, "evicted", left(&["stays"])).await;
    }
    world.act("DELETE", node, Value::Null).await;
    world.until(PODS, "removed", left(&[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_speaks_again_is_cleared() {
    let nodes = NodesConfig {
        grace_period: Duration::from_secs(1),
        ..NodesConfig::default()
    };
    let world = World::start(ControllersConfig {
        nodes,
        ..ControllersConfig::default()
    })
    .await;
    world.add_node("node-a", "zone-1", "16", "110").await;
    let node = "/api/v1/nodes/node-a";
    world
        .until(node, "tainted", |node| {
            node["spec"]["taints"]
                .as_array()
                .is_some_and(|taints| taints.len() == 2)
        })
        .await;
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())
        .unwrap()
        .to_string();
    let status = json!({"status": {"conditions": [
        {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
    world.act("PATCH", &format!("{node}/status"), status).await;
    world
        .until(node, "cleared", |node| node["spec"]["taints"].is_null())
        .await;
}
