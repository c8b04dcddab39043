//! The burst that everything is measured by: many pods at once, and none again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::world::World;
use local_controllers::ControllersConfig;
use local_controllers::config::NodesConfig;

/// Generous: the goal of 2 s is for optimised code.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_pods_come_and_go() {
    come_and_go(200).await;
}

/// Takes long in code that is not optimised and on a machine that is busy: `cargo test -- --ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_thousand_pods_come_and_go() {
    come_and_go(1000).await;
}

async fn come_and_go(count: i64) {
    // The node of this test sends no sign of life.
    let nodes = NodesConfig {
        grace_period: Duration::from_secs(3600),
        ..NodesConfig::default()
    };
    let world = World::start(ControllersConfig {
        nodes,
        ..ControllersConfig::default()
    })
    .await;
    world.add_node("virtual", "zone-1", "100000", "5000").await;
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": {
            "metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i",
                "resources": {"requests": {"cpu": "250m", "memory": "16Mi"}}}]}}},
    });
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    world
        .act(
            "POST",
            "/apis/apps/v1/namespaces/default/deployments",
            deployment,
        )
        .await;
    world
        .until(path, "observed", |found| {
            found["status"]["observedGeneration"] == 1
        })
        .await;

    let up = scale(&world, path, count).await;
    let down = scale(&world, path, 0).await;
    let again = scale(&world, path, count).await;
    let start = Instant::now();
    world
        .act("DELETE", path, json!({"propagationPolicy": "Background"}))
        .await;
    let is_empty = |list: &Value| list["items"].as_array().is_some_and(Vec::is_empty);
    world
        .until(
            "/api/v1/namespaces/default/pods?limit=1",
            "no pods",
            is_empty,
        )
        .await;
    let collected = start.elapsed();
    println!(
        "{count} pods: up {up:?}, down {down:?}, up {again:?}, collected with their deployment {collected:?}"
    );
    assert!(up.max(down).max(again).max(collected) < PATIENCE);
}

async fn scale(world: &World, path: &str, replicas: i64) -> Duration {
    let start = Instant::now();
    world
        .act(
            "PATCH",
            &format!("{path}/scale"),
            json!({"spec": {"replicas": replicas}}),
        )
        .await;
    world
        .until(path, "scaled", |found: &Value| {
            let number = |key: &str| found["status"][key].as_i64().unwrap_or(0);
            number("availableReplicas") == replicas
                && number("replicas") == replicas
                && found["status"]["observedGeneration"] == found["metadata"]["generation"]
        })
        .await;
    start.elapsed()
}
