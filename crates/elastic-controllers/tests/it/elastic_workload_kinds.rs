//! Sources that are no Deployments: StatefulSets number on, Jobs share a queue.

use elastic_core::ElasticWorkload;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::elastic_workload::{Scene, condition, eventually};

async fn create_workload(scene: &Scene, version: &str, kind: &str) {
    let workload: ElasticWorkload = serde_json::from_value(json!({
        "metadata": {"name": "web-ew"},
        "spec": {
            "replicas": 7,
            "sourceTarget": {"apiVersion": version, "kind": kind, "name": "web", "min": 0, "max": 3},
            "elasticUnit": [{"name": "spot", "max": 2, "nodeSelector": {"pool": "spot"}}, {"name": "vk", "labels": {"alibabacloud.com/eci": "true"}}]
        }
    }))
    .unwrap();
    scene
        .workloads
        .create(&PostParams::default(), &workload)
        .await
        .unwrap();
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"restartPolicy": "Always", "containers": [{"name": "web", "image": "shop:1"}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_of_a_statefulset_number_on_where_the_place_before_ends() {
    let scene = Scene::start().await;
    let sets: Api<StatefulSet> = Api::default_namespaced(scene.client.clone());
    let source = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}}, "template": template()}});
    let source = serde_json::from_value(source).unwrap();
    sets.create(&PostParams::default(), &source).await.unwrap();
    create_workload(&scene, "apps/v1", "StatefulSet").await;
    let placed = async || {
        let mut found = Vec::new();
        for name in ["web", "web-unit-spot", "web-unit-vk"] {
            let set = sets.get_opt(name).await.unwrap();
            let spec = set.and_then(|set| set.spec).unwrap_or_default();
            let first = spec.ordinals.and_then(|ordinals| ordinals.start);
            found.push((spec.replicas.unwrap_or_default(), first.unwrap_or_default()));
        }
        found
    };
    let expected = vec![(3, 0), (2, 3), (2, 5)];
    eventually("numbered on", placed, |found| *found == expected).await;
    let settled = |workload: &Value| condition(workload, "Ready").0 == "True";
    let workload = eventually("settled", async || scene.workload().await, settled).await;
    assert_eq!(workload["status"]["selector"], "app=web");
    assert_eq!(workload["status"]["unitSummary"], "spot 2, vk 2");
    scene.scale(4).await;
    let expected = vec![(3, 0), (1, 3), (0, 5)];
    eventually("the last unit first", placed, |found| *found == expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parallelism_of_a_queue_job_is_spread_over_jobs() {
    let scene = Scene::start().await;
    let jobs: Api<Job> = Api::default_namespaced(scene.client.clone());
    let mut pod = template();
    pod["spec"]["restartPolicy"] = json!("Never");
    let source = json!({"metadata": {"name": "web"}, "spec": {"parallelism": 1, "template": pod}});
    let source = serde_json::from_value(source).unwrap();
    jobs.create(&PostParams::default(), &source).await.unwrap();
    create_workload(&scene, "batch/v1", "Job").await;
    let placed = async || {
        let mut found = Vec::new();
        for name in ["web", "web-unit-spot", "web-unit-vk"] {
            let job = jobs.get_opt(name).await.unwrap();
            let spec = job.and_then(|job| job.spec).unwrap_or_default();
            found.push((spec.parallelism.unwrap_or_default(), spec.completions));
        }
        found
    };
    let expected = vec![(3, None), (2, None), (2, None)];
    eventually("spread", placed, |found| *found == expected).await;
    let settled = |workload: &Value| condition(workload, "Ready").0 == "True";
    let workload = eventually("settled", async || scene.workload().await, settled).await;
    assert_eq!(
        workload["status"]["selector"],
        "batch.kubernetes.io/job-name in (web,web-unit-spot,web-unit-vk)"
    );
    scene.scale(3).await;
    let expected = vec![(3, None), (0, None), (0, None)];
    eventually("the source last", placed, |found| *found == expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_counts_completions_is_refused_with_the_reason() {
    let scene = Scene::start().await;
    let jobs: Api<Job> = Api::default_namespaced(scene.client.clone());
    let mut pod = template();
    pod["spec"]["restartPolicy"] = json!("Never");
    let source = json!({"metadata": {"name": "web"}, "spec": {"parallelism": 2, "completions": 9, "template": pod}});
    let source = serde_json::from_value(source).unwrap();
    jobs.create(&PostParams::default(), &source).await.unwrap();
    create_workload(&scene, "batch/v1", "Job").await;
    let told = |workload: &Value| {
        condition(workload, "Ready")
            .1
            .contains("its spec.completions is set")
    };
    eventually("told", async || scene.workload().await, told).await;
    assert_eq!(
        jobs.get("web").await.unwrap().spec.unwrap().parallelism,
        Some(2)
    );
}
