//! The autoscaler with the real `/scale` of built-in and custom kinds; no metrics API is there to answer.

use std::time::Duration;

use local_controllers::ControllersConfig;
use local_controllers::config::AutoscalerConfig;
use serde_json::{Value, json};

use super::world::World;

async fn world() -> World {
    let autoscaler = AutoscalerConfig {
        sync_period: Duration::from_millis(100),
        ..AutoscalerConfig::default()
    };
    let world = World::start(ControllersConfig {
        autoscaler,
        ..ControllersConfig::default()
    })
    .await;
    world.add_node("node-a", "zone-1", "16", "110").await;
    world
}

fn autoscaler(api_version: &str, kind: &str, min: i32, max: i32) -> Value {
    json!({
        "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"apiVersion": api_version, "kind": kind, "name": "t"},
            "minReplicas": min, "maxReplicas": max,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}],
        },
    })
}

fn condition<'a>(autoscaler: &'a Value, kind: &str) -> &'a Value {
    let conditions = autoscaler["status"]["conditions"].as_array();
    conditions
        .and_then(|all| all.iter().find(|one| one["type"] == kind))
        .unwrap_or(&Value::Null)
}

const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_brought_within_its_bounds() {
    let world = world().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "t"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "t"}},
        "template": {"metadata": {"labels": {"app": "t"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    world.act("POST", deployments, deployment).await;
    world
        .act(
            "POST",
            AUTOSCALERS,
            autoscaler("apps/v1", "Deployment", 2, 5),
        )
        .await;
    let path = format!("{AUTOSCALERS}/h");
    let blind = world
        .until(&path, "blind", |found| {
            condition(found, "ScalingActive")["reason"] == "FailedGetResourceMetric"
        })
        .await;
    assert_eq!(blind["status"]["currentReplicas"], 2);
    let deployment = world
        .act("GET", &format!("{deployments}/t"), Value::Null)
        .await;
    assert_eq!(deployment["spec"]["replicas"], 2);
    let events = "/api/v1/namespaces/default/events";
    world
        .until(events, "the event", |events| {
            let wanted = "New size: 2; reason: Current number of replicas below Spec.MinReplicas";
            events["items"]
                .as_array()
                .is_some_and(|all| all.iter().any(|event| event["message"] == wanted))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_kind_is_scaled_through_its_scale() {
    let world = world().await;
    let definition = json!({
        "metadata": {"name": "scalables.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "scalables", "singular": "scalable", "kind": "Scalable", "listKind": "ScalableList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    world.act("POST", definitions, definition).await;
    let scalables = "/apis/example.com/v1/namespaces/default/scalables";
    world
        .until(scalables, "served", |found| found["items"].is_array())
        .await;
    let scalable = json!({"apiVersion": "example.com/v1", "kind": "Scalable", "metadata": {"name": "t"}, "spec": {"replicas": 9}});
    world.act("POST", scalables, scalable).await;
    world
        .act(
            "POST",
            AUTOSCALERS,
            autoscaler("example.com/v1", "Scalable", 1, 4),
        )
        .await;
    world
        .until(&format!("{scalables}/t"), "lowered", |found| {
            found["spec"]["replicas"] == 4
        })
        .await;
    let path = format!("{AUTOSCALERS}/h");
    world
        .until(&path, "no selector", |found| {
            condition(found, "ScalingActive")["reason"] == "InvalidSelector"
        })
        .await;
    world
        .act("DELETE", &format!("{scalables}/t"), Value::Null)
        .await;
    let lost = world
        .until(&path, "lost", |found| {
            condition(found, "AbleToScale")["reason"] == "FailedGetScale"
        })
        .await;
    assert_eq!(
        condition(&lost, "AbleToScale")["message"],
        "the HPA controller was unable to get the target's current scale: scalables.example.com \"t\" not found"
    );
}
