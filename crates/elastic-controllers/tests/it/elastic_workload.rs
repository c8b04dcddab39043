//! The overflow controller against a real API server; the test plays the Deployment controller.

use std::fmt::Debug;
use std::time::Duration;

use elastic_controllers::{ElasticWorkloadConfig, install_definitions, run_elastic_workload};
use elastic_core::ElasticWorkload;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use local_apiserver::testing::TestServer;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Scene {
    _server: TestServer,
    pub(crate) client: Client,
    pub(crate) deployments: Api<Deployment>,
    pub(crate) workloads: Api<ElasticWorkload>,
    pub(crate) shutdown: CancellationToken,
}

impl Scene {
    pub(crate) async fn start() -> Self {
        let scene = Self::without_controller().await;
        scene.run_controller();
        scene
    }

    pub(crate) async fn without_controller() -> Self {
        let server = TestServer::start().await;
        let client = server.client();
        install_definitions(&client).await.unwrap();
        Self {
            deployments: Api::default_namespaced(client.clone()),
            workloads: Api::default_namespaced(client.clone()),
            client,
            shutdown: CancellationToken::new(),
            _server: server,
        }
    }

    /// Runs one until the scene's end; with another token it can be stopped before.
    pub(crate) fn run_controller(&self) {
        self.run_controller_until(self.shutdown.clone());
    }

    pub(crate) fn run_controller_until(
        &self,
        shutdown: CancellationToken,
    ) -> tokio::task::JoinHandle<()> {
        let config = ElasticWorkloadConfig {
            shortage_interval: Duration::from_millis(50),
            ..ElasticWorkloadConfig::default()
        };
        tokio::spawn(run_elastic_workload(self.client.clone(), config, shutdown))
    }

    pub(crate) async fn create_source(&self, replicas: i32) {
        let source: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "shop:1"}]}
                }
            }
        }))
        .unwrap();
        self.deployments
            .create(&PostParams::default(), &source)
            .await
            .unwrap();
    }

    pub(crate) async fn create_workload(&self, replicas: Option<i32>) {
        let mut workload: ElasticWorkload = serde_json::from_value(json!({
            "metadata": {"name": "web-ew"},
            "spec": {
                "sourceTarget": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "min": 2, "max": 4},
                "elasticUnit": [{"name": "vk", "labels": {"alibabacloud.com/eci": "true"}}]
            }
        }))
        .unwrap();
        workload.spec.replicas = replicas;
        self.workloads
            .create(&PostParams::default(), &workload)
            .await
            .unwrap();
    }

    pub(crate) async fn scale(&self, replicas: i32) {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.workloads
            .patch_scale("web-ew", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// What the Deployment controller would report.
    pub(crate) async fn report(&self, name: &str, replicas: i32) {
        let status = json!({"status": {"replicas": replicas, "readyReplicas": replicas, "observedGeneration": 1}});
        self.deployments
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    pub(crate) async fn replicas(&self) -> (i32, Option<i32>) {
        let of = |deployment: Deployment| deployment.spec.unwrap().replicas.unwrap();
        let unit = self.deployments.get_opt("web-unit-vk").await.unwrap();
        (of(self.deployments.get("web").await.unwrap()), unit.map(of))
    }

    pub(crate) async fn workload(&self) -> Value {
        serde_json::to_value(self.workloads.get("web-ew").await.unwrap()).unwrap()
    }

    pub(crate) async fn reasons(&self) -> Vec<String> {
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        let list = events.list(&Default::default()).await.unwrap();
        list.items
            .into_iter()
            .filter_map(|event| event.reason)
            .collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Looks again and again until `done`; shows the last state when it never is.
pub(crate) async fn eventually<T: Debug>(
    what: &str,
    look: impl AsyncFn() -> T,
    done: impl Fn(&T) -> bool,
) -> T {
    let started = tokio::time::Instant::now();
    loop {
        let state = look().await;
        if done(&state) {
            return state;
        }
        assert!(started.elapsed() < DEADLINE, "{what}: {state:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn condition(workload: &Value, kind: &str) -> (String, String) {
    let conditions = workload["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind)
        .cloned()
        .unwrap_or_default();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("message"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_adopted_split_scaled_and_given_back_in_the_right_order() {
    let scene = Scene::start().await;
    scene.create_source(6).await;
    scene.create_workload(None).await;
    eventually(
        "adopted",
        async || scene.replicas().await,
        |now| *now == (4, Some(2)),
    )
    .await;
    let unit = scene.deployments.get("web-unit-vk").await.unwrap();
    assert_eq!(unit.owner_references()[0].name, "web-ew");
    let pod = unit.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.node_selector.unwrap()["type"], "virtual-kubelet");

    scene.report("web", 4).await;
    scene.report("web-unit-vk", 2).await;
    let workload = eventually(
        "counted",
        async || scene.workload().await,
        |workload| workload["status"]["replicas"] == 6,
    )
    .await;
    assert_eq!(workload["spec"]["replicas"], 6);
    assert_eq!(workload["status"]["selector"], "app=web");
    assert_eq!(workload["status"]["sourceTarget"]["desiredReplicas"], 4);
    assert_eq!(
        workload["status"]["elasticUnitsStatus"][0]["desiredReplicas"],
        2
    );
    assert!(workload["status"]["lastScale"]["writtenAt"].is_string());
    let scale = scene.workloads.get_scale("web-ew").await.unwrap();
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=web"));

    scene.scale(10).await;
    eventually(
        "scaled up",
        async || scene.replicas().await,
        |now| *now == (4, Some(6)),
    )
    .await;
    let pods: Api<Pod> = Api::default_namespaced(scene.client.clone());
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web-unit-vk-1", "annotations": {"autoscaling.alibabacloud.com/moments": "{\"ready\":\"2026-01-01T00:00:01.5Z\"}"}, "labels": {"app": "web", "autoscaling.alibabacloud.com/elastic-unit": "vk"}},
        "spec": {"containers": [{"name": "web", "image": "shop:1"}]}
    }))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    scene.report("web-unit-vk", 6).await;
    let kept = |workload: &Value| workload["status"]["lastBurst"]["pods"][0]["ready"].is_string();
    let workload = eventually("burst kept", async || scene.workload().await, kept).await;
    assert!(
        workload["status"]["lastBurst"]["scaled"].is_string(),
        "{workload:#}"
    );

    // Down: the unit first, the source only when the last serverless pod is gone for real.
    scene.scale(2).await;
    eventually(
        "unit emptied",
        async || scene.replicas().await,
        |now| now.1 == Some(0),
    )
    .await;
    scene.report("web-unit-vk", 0).await;
    let waiting = |workload: &Value| {
        condition(workload, "Ready")
            .1
            .contains("until 1 serverless pods are gone")
    };
    eventually("held", async || scene.workload().await, waiting).await;
    assert_eq!(scene.replicas().await, (4, Some(0)));
    pods.delete("web-unit-vk-1", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    eventually(
        "source lowered",
        async || scene.replicas().await,
        |now| *now == (2, Some(0)),
    )
    .await;
    let reasons = scene.reasons().await;
    for reason in ["UnitCreation", "ElasticWorkloadUpdate", "UnitUpdate"] {
        assert!(
            reasons.iter().any(|found| found == reason),
            "{reason} in {reasons:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unit_follows_the_sources_template_and_hand_scaling_is_put_right() {
    let scene = Scene::start().await;
    scene.create_source(4).await;
    scene.create_workload(Some(5)).await;
    eventually(
        "split",
        async || scene.replicas().await,
        |now| *now == (4, Some(1)),
    )
    .await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "shop:2"}]}}}});
    scene
        .deployments
        .patch("web", &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .unwrap();
    let image = async || {
        let unit = scene.deployments.get("web-unit-vk").await.unwrap();
        unit.spec.unwrap().template.spec.unwrap().containers[0]
            .image
            .clone()
            .unwrap()
    };
    eventually("template followed", image, |image| image == "shop:2").await;
    let patch = json!({"spec": {"replicas": 9}});
    scene
        .deployments
        .patch("web", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    eventually(
        "put right",
        async || scene.replicas().await,
        |now| *now == (4, Some(1)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_source_is_told_with_the_remedy_and_heals() {
    let scene = Scene::start().await;
    scene.create_workload(Some(3)).await;
    let told = |workload: &Value| condition(workload, "SourceFound").0 == "False";
    let workload = eventually("told", async || scene.workload().await, told).await;
    let message = condition(&workload, "SourceFound").1;
    assert_eq!(
        message,
        "deployment web does not exist in namespace default; create it or correct spec.sourceTarget.name"
    );
    let events = async || scene.reasons().await;
    eventually("event", events, |reasons| {
        reasons.iter().any(|reason| reason == "SourceMissing")
    })
    .await;
    assert!(
        scene
            .deployments
            .list(&Default::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    scene.create_source(1).await;
    eventually(
        "healed",
        async || scene.replicas().await,
        |now| *now == (3, Some(0)),
    )
    .await;
    let ready = |workload: &Value| condition(workload, "Ready").0 == "True";
    eventually("ready", async || scene.workload().await, ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_deployment_is_never_taken_over() {
    let scene = Scene::start().await;
    scene.create_source(1).await;
    let mut other = scene.deployments.get("web").await.unwrap();
    other.metadata = kube::core::ObjectMeta {
        name: Some("web-unit-vk".into()),
        ..Default::default()
    };
    other.status = None;
    scene
        .deployments
        .create(&PostParams::default(), &other)
        .await
        .unwrap();
    scene.create_workload(Some(6)).await;
    let told = |workload: &Value| {
        condition(workload, "Ready")
            .1
            .contains("does not belong to this elastic workload")
    };
    eventually("told", async || scene.workload().await, told).await;
    let other = scene.deployments.get("web-unit-vk").await.unwrap();
    assert!(other.owner_references().is_empty());
    assert_eq!(other.spec.unwrap().replicas, Some(1));
}
