//! Deployments, replica sets, the scheduler and endpoints together.

use serde_json::{Value, json};

use super::world::World;

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "revisionHistoryLimit": 2,
            "template": {"metadata": {"labels": {"app": name}}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": "10m"}}}]}},
        },
    })
}

fn is_available(count: i64) -> impl Fn(&Value) -> bool {
    move |deployment| {
        let status = &deployment["status"];
        let number = |key: &str| status[key].as_i64().unwrap_or(0);
        number("availableReplicas") == count
            && number("updatedReplicas") == count
            && number("replicas") == count
            && status["observedGeneration"] == deployment["metadata"]["generation"]
    }
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_scales_and_goes_back() {
    let world = World::with_nodes().await;
    world
        .act("POST", DEPLOYMENTS, deployment("d", 3, "nginx:1"))
        .await;
    let path = format!("{DEPLOYMENTS}/d");
    world.until(&path, "three available", is_available(3)).await;
    for image in ["nginx:2", "nginx:3"] {
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
        world.act("PATCH", &path, patch).await;
        world.until(&path, "rolled over", is_available(3)).await;
    }
    world
        .act(
            "PATCH",
            &format!("{path}/scale"),
            json!({"spec": {"replicas": 5}}),
        )
        .await;
    world.until(&path, "five available", is_available(5)).await;
    world
        .act(
            "PATCH",
            &format!("{path}/scale"),
            json!({"spec": {"replicas": 2}}),
        )
        .await;
    world.until(&path, "two available", is_available(2)).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}});
    world.act("PATCH", &path, patch).await;
    let last = world
        .until(&path, "back to the first image", is_available(2))
        .await;
    assert_eq!(
        last["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "4",
        "{last:#}"
    );
    let sets = world
        .until(SETS, "history", |sets| {
            sets["items"].as_array().map(Vec::len) == Some(3)
        })
        .await;
    let first = sets["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|set| set["spec"]["replicas"] == 2)
        .unwrap();
    assert_eq!(
        first["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1",
        "{sets:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_when_room_appears() {
    let world = World::with_nodes().await;
    let pod = json!({"metadata": {"name": "big"}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"cpu": "20"}}}]}});
    world.act("POST", PODS, pod).await;
    let path = format!("{PODS}/big");
    let refused = world
        .until(&path, "a reason", |pod| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions.is_some_and(|all| {
                all.iter()
                    .any(|one| one["type"] == "PodScheduled" && one["status"] == "False")
            })
        })
        .await;
    assert_eq!(
        refused["status"]["conditions"][0]["message"],
        "0/3 nodes are available: 3 Insufficient cpu. no new claims to deallocate, preemption: 0/3 nodes are \
         available: 3 Preemption is not helpful for scheduling."
    );
    world.add_node("node-d", "zone-1", "32", "110").await;
    let placed = world
        .until(&path, "placed", |pod| pod["spec"]["nodeName"].is_string())
        .await;
    assert_eq!(placed["spec"]["nodeName"], "node-d");
    let events = "/api/v1/namespaces/default/events";
    world
        .until(events, "both events", |events| {
            let has = |reason: &str| {
                events["items"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|event| event["reason"] == reason))
            };
            has("FailedScheduling") && has("Scheduled")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_lists_its_ready_pods() {
    let world = World::with_nodes().await;
    world
        .act("POST", DEPLOYMENTS, deployment("w", 3, "i"))
        .await;
    let service = json!({"metadata": {"name": "w"}, "spec": {"selector": {"app": "w"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    world
        .act("POST", "/api/v1/namespaces/default/services", service)
        .await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dw";
    let ready = |count: usize| {
        move |slices: &Value| {
            let endpoints = slices["items"][0]["endpoints"].as_array();
            let all_ready =
                |all: &Vec<Value>| all.iter().all(|one| one["conditions"]["ready"] == true);
            endpoints.map_or(count == 0, |all| all.len() == count && all_ready(all))
        }
    };
    let found = world.until(slices, "three ready", ready(3)).await;
    assert_eq!(found["items"][0]["ports"][0]["port"], 8080);
    let endpoints = "/api/v1/namespaces/default/endpoints/w";
    world
        .until(endpoints, "three addresses", |found| {
            found["subsets"][0]["addresses"].as_array().map(Vec::len) == Some(3)
        })
        .await;
    world
        .act(
            "PATCH",
            &format!("{DEPLOYMENTS}/w/scale"),
            json!({"spec": {"replicas": 0}}),
        )
        .await;
    world.until(slices, "none", ready(0)).await;
}
