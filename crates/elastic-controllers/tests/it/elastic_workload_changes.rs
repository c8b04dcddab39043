//! Deletion, hand-scaling, rollouts and shortages, against a real API server; the test plays the other controllers.

use std::time::Duration;

use elastic_controllers::return_replicas;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::elastic_workload::{Scene, condition, eventually};

const UNIT: &str = "web-unit-vk";

async fn split(scene: &Scene, total: i32, expected: (i32, Option<i32>)) {
    scene.create_source(4).await;
    scene.create_workload(Some(total)).await;
    is_split(scene, expected).await;
}

async fn is_split(scene: &Scene, expected: (i32, Option<i32>)) {
    let now = async || scene.replicas().await;
    eventually("split", now, |now| *now == expected).await;
}

async fn events(scene: &Scene, reason: &str) -> Vec<String> {
    let events: Api<Event> = Api::default_namespaced(scene.client.clone());
    let list = events.list(&ListParams::default()).await.unwrap();
    let found = list
        .items
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some(reason));
    found.filter_map(|event| event.message).collect()
}

async fn event(scene: &Scene, reason: &str) -> String {
    let look = async || events(scene, reason).await;
    let found = eventually(reason, look, |found| !found.is_empty()).await;
    found[0].clone()
}

async fn patch_spec(scene: &Scene, patch: Value) {
    let patch = Patch::Merge(json!({"spec": patch}));
    let how = PatchParams::default();
    scene.workloads.patch("web-ew", &how, &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_source_within_its_max_is_adopted_without_being_touched() {
    let scene = Scene::start().await;
    scene.create_source(3).await;
    let before = scene.deployments.get("web").await.unwrap();
    scene.create_workload(None).await;
    is_split(&scene, (3, Some(0))).await;
    let marked = async || scene.deployments.get("web").await.unwrap();
    let after = eventually("marked", marked, |source| {
        source
            .labels()
            .contains_key("autoscaling.alibabacloud.com/elastic-source")
    })
    .await;
    assert_eq!(after.spec, before.spec, "a change would restart its pods");
    assert_eq!(after.metadata.generation, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_workload_gives_the_source_its_replicas_back_and_removes_units() {
    let scene = Scene::start().await;
    split(&scene, 10, (4, Some(6))).await;
    scene
        .workloads
        .delete("web-ew", &DeleteParams::default())
        .await
        .unwrap();
    is_split(&scene, (10, None)).await;
    let source = scene.deployments.get("web").await.unwrap();
    assert!(source.annotations().is_empty(), "{source:#?}");
    assert!(source.labels().is_empty(), "{source:#?}");
    let told = event(&scene, "ReplicasReturned").await;
    assert!(told.contains("it has 10 replicas again"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_while_no_controller_ran_is_given_back_by_the_next_one() {
    let scene = Scene::without_controller().await;
    let stop = CancellationToken::new();
    let first = scene.run_controller_until(stop.clone());
    split(&scene, 10, (4, Some(6))).await;
    let marked = async || scene.deployments.get("web").await.unwrap();
    eventually("marked", marked, |source| !source.annotations().is_empty()).await;
    stop.cancel();
    first.await.unwrap();
    // Nothing holds the deletion up.
    scene
        .workloads
        .delete("web-ew", &DeleteParams::default())
        .await
        .unwrap();
    assert!(scene.workloads.get_opt("web-ew").await.unwrap().is_none());
    scene.run_controller();
    is_split(&scene, (10, None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_that_were_orphaned_on_purpose_stay_and_are_not_given_back() {
    let scene = Scene::without_controller().await;
    let stop = CancellationToken::new();
    let first = scene.run_controller_until(stop.clone());
    split(&scene, 10, (4, Some(6))).await;
    let marked = async || scene.deployments.get("web").await.unwrap();
    eventually("marked", marked, |source| !source.annotations().is_empty()).await;
    stop.cancel();
    first.await.unwrap();
    // What the garbage collector does for `--cascade=orphan`.
    let how = PatchParams::default();
    let orphan = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
    scene.deployments.patch(UNIT, &how, &orphan).await.unwrap();
    scene
        .workloads
        .delete("web-ew", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(return_replicas(&scene.client).await.unwrap(), 1);
    assert_eq!(scene.replicas().await, (4, Some(6)));
    assert_eq!(return_replicas(&scene.client).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_named_no_longer_gets_its_replicas_back() {
    let scene = Scene::start().await;
    split(&scene, 10, (4, Some(6))).await;
    let other = json!({
        "metadata": {"name": "other"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "other"}},
            "template": {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": [{"name": "web", "image": "shop:1"}]}}
        }
    });
    let other = serde_json::from_value(other).unwrap();
    scene
        .deployments
        .create(&PostParams::default(), &other)
        .await
        .unwrap();
    let settled = |workload: &Value| condition(workload, "Ready").0 == "True";
    eventually("settled", async || scene.workload().await, settled).await;
    patch_spec(&scene, json!({"sourceTarget": {"name": "other"}})).await;
    let former = async || scene.deployments.get("web").await.unwrap().spec.unwrap();
    eventually("given back", former, |spec| spec.replicas == Some(10)).await;
    let next = async || scene.deployments.get("other").await.unwrap().spec.unwrap();
    eventually("taken", next, |spec| spec.replicas == Some(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_scaling_of_the_source_is_shown_and_put_right() {
    let scene = Scene::start().await;
    split(&scene, 6, (4, Some(2))).await;
    let quiet = |workload: &Value| condition(workload, "HandScaled").0 == "False";
    eventually("quiet", async || scene.workload().await, quiet).await;
    let marked = async || scene.deployments.get("web").await.unwrap();
    eventually("marked", marked, |source| !source.annotations().is_empty()).await;
    let how = PatchParams::apply("somebody");
    let patch = Patch::Merge(json!({"spec": {"replicas": 9}}));
    scene.deployments.patch("web", &how, &patch).await.unwrap();
    let told = event(&scene, "HandScaled").await;
    let expected = "deployment web was scaled from 4 to 9 by somebody; it gets its share again";
    assert!(told.starts_with(expected), "{told}");
    is_split(&scene, (4, Some(2))).await;
    let shown = |workload: &Value| condition(workload, "HandScaled").0 == "True";
    eventually("shown", async || scene.workload().await, shown).await;
    // The controller's own changes are none by hand.
    scene.scale(3).await;
    is_split(&scene, (3, Some(0))).await;
    scene.scale(8).await;
    is_split(&scene, (4, Some(4))).await;
    assert_eq!(events(&scene, "HandScaled").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workloads_on_one_source_do_not_fight() {
    let scene = Scene::start().await;
    split(&scene, 6, (4, Some(2))).await;
    let marked = async || scene.deployments.get("web").await.unwrap();
    eventually("marked", marked, |source| !source.annotations().is_empty()).await;
    let mut second = scene.workloads.get("web-ew").await.unwrap();
    second.metadata = kube::core::ObjectMeta {
        name: Some("second".into()),
        ..Default::default()
    };
    second.status = None;
    scene
        .workloads
        .create(&PostParams::default(), &second)
        .await
        .unwrap();
    let told = event(&scene, "SourceTaken").await;
    assert!(told.contains("by ElasticWorkload web-ew already"), "{told}");
    assert_eq!(scene.replicas().await, (4, Some(2)));
}

/// What a Deployment controller reports of a rollout.
async fn rollout(scene: &Scene, name: &str, replicas: i32, updated: i32) {
    let generation = scene.deployments.get(name).await.unwrap();
    let status = json!({"status": {
        "replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas, "updatedReplicas": updated,
        "observedGeneration": generation.metadata.generation
    }});
    let how = PatchParams::default();
    let patch = Patch::Merge(status);
    scene
        .deployments
        .patch_status(name, &how, &patch)
        .await
        .unwrap();
}

async fn unit_image(scene: &Scene) -> String {
    let unit = scene.deployments.get(UNIT).await.unwrap();
    let pod = unit.spec.unwrap().template.spec.unwrap();
    pod.containers[0].image.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_template_reaches_the_unit_when_the_source_has_rolled_out_and_within_the_budget() {
    let scene = Scene::start().await;
    split(&scene, 10, (4, Some(6))).await;
    rollout(&scene, "web", 4, 4).await;
    rollout(&scene, UNIT, 6, 6).await;
    let rolled = |workload: &Value| condition(workload, "RolledOut").0 == "True";
    eventually("rolled out", async || scene.workload().await, rolled).await;

    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "shop:2"}]}}}});
    let patch = Patch::Strategic(template);
    let how = PatchParams::default();
    scene.deployments.patch("web", &how, &patch).await.unwrap();
    let waits = |workload: &Value| {
        condition(workload, "RolledOut")
            .1
            .contains("unit vk waits until the source has rolled out")
    };
    let workload = eventually("held", async || scene.workload().await, waits).await;
    let unit = &workload["status"]["elasticUnitsStatus"][0]["conditions"][0];
    assert_eq!(unit["reason"], "RolloutHeld", "{workload:#}");
    assert_eq!(unit_image(&scene).await, "shop:1");
    // It can be scaled meanwhile.
    scene.scale(12).await;
    is_split(&scene, (4, Some(8))).await;
    assert_eq!(unit_image(&scene).await, "shop:1");

    rollout(&scene, UNIT, 8, 8).await;
    rollout(&scene, "web", 4, 4).await;
    let image = async || unit_image(&scene).await;
    eventually("followed", image, |image| image == "shop:2").await;
    let unit = scene.deployments.get(UNIT).await.unwrap().spec.unwrap();
    let rolling = serde_json::to_value(unit.strategy.unwrap().rolling_update).unwrap();
    assert_eq!(
        rolling,
        json!({"maxSurge": 3, "maxUnavailable": 3}),
        "a quarter of all 12"
    );
    rollout(&scene, UNIT, 8, 8).await;
    eventually("rolled out", async || scene.workload().await, rolled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_one_write_of_each_object() {
    let scene = Scene::start().await;
    split(&scene, 10, (4, Some(6))).await;
    rollout(&scene, "web", 4, 4).await;
    rollout(&scene, UNIT, 6, 6).await;
    let generation = async |name: &str| {
        scene
            .deployments
            .get(name)
            .await
            .unwrap()
            .metadata
            .generation
    };
    assert_eq!(generation(UNIT).await, Some(1));
    scene.scale(20).await;
    is_split(&scene, (4, Some(16))).await;
    rollout(&scene, UNIT, 16, 16).await;
    let counted = |workload: &Value| workload["status"]["readyReplicas"] == 20;
    eventually("counted", async || scene.workload().await, counted).await;
    assert_eq!(generation(UNIT).await, Some(2));
    assert_eq!(generation("web").await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_that_fits_no_pod_is_told_by_its_field_and_changes_nothing() {
    let scene = Scene::start().await;
    split(&scene, 6, (4, Some(2))).await;
    let broken = json!({"elasticUnit": [{"name": "vk", "container": "db", "image": "x"}]});
    patch_spec(&scene, broken).await;
    let told = event(&scene, "UnitNotDerivable").await;
    assert_eq!(
        told,
        "spec.elasticUnit[0].container: the source has no container \"db\"; it has web"
    );
    assert_eq!(unit_image(&scene).await, "shop:1");
    let right = json!({"elasticUnit": [{"name": "vk", "image": "shop:1-serverless", "env": [{"name": "TIER", "value": "serverless"}], "resources": {"limits": {"cpu": "0.5"}}}]});
    patch_spec(&scene, right).await;
    let image = async || unit_image(&scene).await;
    eventually("mended", image, |image| image == "shop:1-serverless").await;
    // The server writes 0.5 as 500m; that is no reason to write again and again.
    let settled = |workload: &Value| condition(workload, "Ready").0 == "True";
    eventually("settled", async || scene.workload().await, settled).await;
    let before = scene
        .deployments
        .get(UNIT)
        .await
        .unwrap()
        .resource_version();
    scene.report("web", 4).await;
    let counted = |workload: &Value| workload["status"]["readyReplicas"] == 4;
    eventually("counted", async || scene.workload().await, counted).await;
    let after = scene
        .deployments
        .get(UNIT)
        .await
        .unwrap()
        .resource_version();
    assert_eq!(before, after);
}

async fn create_pod(pods: &Api<Pod>, name: &str, status: Value) {
    let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "shop:1"}]}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let patch = Patch::Merge(json!({"status": status}));
    let how = PatchParams::default();
    pods.patch_status(name, &how, &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_without_capacity_passes_its_share_on_and_takes_it_back_when_there_is_room() {
    let scene = Scene::start().await;
    split(&scene, 6, (4, Some(2))).await;
    let pods: Api<Pod> = Api::default_namespaced(scene.client.clone());
    for name in ["web-1", "web-2"] {
        let ready =
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        create_pod(&pods, name, ready).await;
    }
    for name in ["web-3", "web-4"] {
        let waits = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        create_pod(&pods, name, waits).await;
    }
    rollout(&scene, UNIT, 2, 2).await;
    let two_of_four = json!({"status": {"replicas": 4, "readyReplicas": 2, "updatedReplicas": 4, "availableReplicas": 2, "observedGeneration": 1}});
    let how = PatchParams::default();
    scene
        .deployments
        .patch_status("web", &how, &Patch::Merge(two_of_four))
        .await
        .unwrap();
    assert_eq!(scene.replicas().await, (4, Some(2)), "it was not asked for");

    patch_spec(
        &scene,
        json!({"rescheduleAfterSeconds": 1, "recoverAfterSeconds": 3}),
    )
    .await;
    is_split(&scene, (2, Some(4))).await;
    let told = event(&scene, "CapacityShort").await;
    assert_eq!(
        told,
        "the source can get 2 replicas only (Unschedulable); the others go on to the next place"
    );
    let short = |workload: &Value| condition(workload, "Capacity").0 == "False";
    let workload = eventually("short", async || scene.workload().await, short).await;
    assert_eq!(
        workload["status"]["sourceTarget"]["shortage"]["capacity"],
        2
    );
    for name in ["web-3", "web-4"] {
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete(name, &at_once).await.unwrap();
    }
    rollout(&scene, "web", 2, 2).await;
    rollout(&scene, UNIT, 4, 4).await;

    // Tried again: the source is asked, the unit keeps what it has until the source is ready.
    is_split(&scene, (4, Some(4))).await;
    event(&scene, "CapacityTriedAgain").await;
    let kept = |workload: &Value| {
        condition(workload, "Ready")
            .1
            .contains("2 replicas stay until others are ready")
    };
    eventually("kept", async || scene.workload().await, kept).await;
    rollout(&scene, "web", 3, 3).await;
    is_split(&scene, (4, Some(3))).await;
    rollout(&scene, "web", 4, 4).await;
    is_split(&scene, (4, Some(2))).await;
    let enough = |workload: &Value| condition(workload, "Capacity").0 == "True";
    eventually("enough", async || scene.workload().await, enough).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_controllers_come_to_the_same_end_as_one() {
    let scene = Scene::start().await;
    scene.run_controller();
    split(&scene, 10, (4, Some(6))).await;
    for (total, unit) in [(30, 26), (5, 1), (12, 8)] {
        scene.scale(total).await;
        is_split(&scene, (4, Some(unit))).await;
    }
    let settled = |workload: &Value| workload["status"]["sourceTarget"]["wantedReplicas"] == 4;
    eventually("settled", async || scene.workload().await, settled).await;
    tokio::time::timeout(Duration::from_secs(60), is_split(&scene, (4, Some(8))))
        .await
        .unwrap();
}
