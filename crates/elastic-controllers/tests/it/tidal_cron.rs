//! `examples/tidal-cron` through a simulated Friday: schedule, overflow and autoscaler on one service, without a fight. The
//! autoscaler is the local cluster's own; the test plays four pods and their use of CPU.

use std::sync::Arc;
use std::time::Duration;

use elastic_controllers::{
    ControllersConfig, CronHorizontalPodAutoscalerConfig, install_definitions, run_controllers,
};
use elastic_core::{CronHorizontalPodAutoscaler, ElasticWorkload};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use local_apiserver::testing::{PlayedMetrics, TestServer};
use local_controllers::config::{AutoscalerConfig, AutoscalerFlags};
use local_controllers::horizontal_pod_autoscaler;
use local_controllers::shared::Cluster;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::simulated_clock::SimulatedClock;

const DEADLINE: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "tidal";

/// Applies every manifest of the example, strictly, as `kubectl apply -f` would.
async fn apply_example(client: &Client) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tidal-cron");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|end| end == "yaml"))
    {
        let text = std::fs::read_to_string(file).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let value = Value::deserialize(document).unwrap();
            let object: DynamicObject = serde_json::from_value(value).unwrap();
            let kind = object.types.clone().unwrap();
            let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&kind).unwrap());
            let api: Api<DynamicObject> = match object.namespace() {
                Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            let mut params = PatchParams::apply("test").force();
            params = params.validation_strict();
            let name = object.name_any();
            let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
            applied.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }
}

/// Pods that the autoscaler looks at, however many there ought to be: what it wants follows from their use alone.
const PODS: i32 = 4;
/// Millicores at the autoscaler's target: 70 % of 100.
const TARGET: i32 = 70;

struct Day {
    client: Client,
    metrics: Arc<PlayedMetrics>,
    clock: Arc<SimulatedClock>,
    cluster: Cluster,
    stop: CancellationToken,
    _server: TestServer,
}

impl Day {
    async fn bounds(&self) -> (i32, i32) {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), NAMESPACE);
        let spec = api.get("vision").await.unwrap().spec.unwrap();
        (spec.min_replicas.unwrap(), spec.max_replicas)
    }

    async fn replicas(&self) -> i32 {
        let api: Api<ElasticWorkload> = Api::namespaced(self.client.clone(), NAMESPACE);
        api.get("vision").await.unwrap().spec.replicas.unwrap()
    }

    /// Replicas on owned nodes and serverless.
    async fn shares(&self) -> (i32, i32) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), NAMESPACE);
        let of =
            |found: Option<Deployment>| found.and_then(|found| found.spec?.replicas).unwrap_or(0);
        let unit = api.get_opt("vision-unit-virtual-kubelet").await.unwrap();
        (of(api.get_opt("vision").await.unwrap()), of(unit))
    }

    async fn message(&self, job: &str) -> String {
        let api: Api<CronHorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), NAMESPACE);
        let status = api.get("vision").await.unwrap().status.unwrap_or_default();
        let found = status.conditions.into_iter().find(|one| one.name == job);
        found
            .map(|one| format!("{:?} {}", one.state, one.message))
            .unwrap_or_default()
    }

    /// Friday morning, with everything running and a load for two.
    async fn start() -> Self {
        let server = TestServer::start().await;
        let metrics = Arc::new(PlayedMetrics::default());
        let client = metrics.client(server.client());
        install_definitions(&client).await.unwrap();
        apply_example(&client).await;
        let clock = Arc::new(SimulatedClock::at("2026-11-19T23:00:00Z")); // Friday, 07:00 in Shanghai
        let stop = CancellationToken::new();
        let mut config = ControllersConfig::default();
        config.cron_horizontal_pod_autoscaler = CronHorizontalPodAutoscalerConfig {
            clock: clock.clone(),
            ..config.cron_horizontal_pod_autoscaler
        };
        tokio::spawn(run_controllers(client.clone(), config, stop.clone()));
        let day = Day {
            cluster: Cluster::new(client.clone(), stop.clone()),
            client,
            metrics,
            clock,
            stop,
            _server: server,
        };
        day.until_said("night", "Submitted").await;
        day.create_pods().await;
        day.load(2);
        let autoscaler = AutoscalerConfig {
            sync_period: Duration::from_millis(100),
            flags: AutoscalerFlags {
                downscale_stabilization: jiff::SignedDuration::ZERO,
                ..AutoscalerFlags::default()
            },
        };
        horizontal_pod_autoscaler::start(&day.cluster, autoscaler);
        day
    }

    async fn create_pods(&self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let long_ago = "2026-01-01T00:00:00Z";
        for index in 0..PODS {
            let name = format!("played-{index}");
            let pod = json!({
                "metadata": {"name": name, "labels": {"app": "vision"}},
                "spec": {"containers": [{"name": "vision", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]}
            });
            let pod = serde_json::from_value(pod).unwrap();
            pods.create(&PostParams::default(), &pod).await.unwrap();
            let status = Patch::Strategic(
                json!({"status": {"phase": "Running", "startTime": long_ago,
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}]}}),
            );
            pods.patch_status(&name, &PatchParams::default(), &status)
                .await
                .unwrap();
        }
    }

    /// So much load that the autoscaler wants this many replicas.
    fn load(&self, replicas: i32) {
        let usage = format!("{}m", replicas * TARGET / PODS);
        let row = |index: i32| {
            json!({"metadata": {"name": format!("played-{index}")}, "timestamp": jiff::Timestamp::now(), "window": "15s",
                "containers": [{"name": "vision", "usage": {"cpu": usage, "memory": "20Mi"}}]})
        };
        let rows: Vec<Value> = (0..PODS).map(row).collect();
        let path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods?labelSelector=app%3Dvision"
        );
        self.metrics.set(&path, &json!({"items": rows}));
    }

    async fn until_replicas(&self, wanted: i32) {
        let asked = || self.metrics.asked("metrics.k8s.io");
        let look = async || (self.replicas().await, asked());
        self.until("replicas", look, |(replicas, _)| *replicas == wanted)
            .await;
    }

    async fn until<T: std::fmt::Debug>(
        &self,
        what: &str,
        look: impl AsyncFn() -> T,
        done: impl Fn(&T) -> bool,
    ) {
        let started = tokio::time::Instant::now();
        loop {
            let state = look().await;
            if done(&state) {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "{what}: {state:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_said(&self, job: &str, wanted: &str) {
        let look = async || self.message(job).await;
        self.until(job, look, |message| message.contains(wanted))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_minimum_rises_before_the_peak_and_falls_at_night_and_the_autoscaler_stays_free() {
    let day = Day::start().await;
    day.until_replicas(2).await;

    day.clock.set("2026-11-19T23:45:00Z");
    day.until_said("before-the-morning-peak", "desired replicas:8.")
        .await;
    assert_eq!(day.bounds().await, (8, 16));
    day.until_replicas(8).await;
    day.until(
        "overflow",
        async || day.shares().await,
        |shares| *shares == (4, 4),
    )
    .await;

    let morning = day.message("before-the-morning-peak").await;
    // The peak itself is the autoscaler's; at lunch it may not go below the morning's minimum.
    day.load(14);
    day.until_replicas(14).await;
    day.until(
        "peak",
        async || day.shares().await,
        |shares| *shares == (4, 10),
    )
    .await;
    day.load(5);
    day.until_replicas(8).await;

    // In the evening the schedule takes nothing away, it lets go.
    day.clock.set("2026-11-20T12:00:00Z");
    day.until_said("evening", "Skip scale replicas because HPA vision in namespace tidal current replicas:8 >= desired replicas:3.").await;
    assert_eq!(day.bounds().await, (3, 16));
    day.until_replicas(5).await;

    day.clock.set("2026-11-20T15:00:00Z");
    day.until_said("night", "Succeed").await;
    day.load(1);
    day.until_replicas(1).await;

    // On Saturday nothing rises in the morning.
    day.clock.set("2026-11-21T00:30:00Z");
    day.clock.set("2026-11-21T12:00:00Z");
    // Whoever is first, schedule or autoscaler with the new minimum, the size is the same.
    day.until_replicas(3).await;
    let morning_of_saturday = day.message("before-the-morning-peak").await;
    assert_eq!(morning_of_saturday, morning, "it has not run again");
    day.stop.cancel();
    day.cluster.finish().await;
}
