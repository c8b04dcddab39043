//! `examples/tidal-cron` through a simulated Friday: schedule, overflow and autoscaler on one service, without a fight. The test
//! plays the autoscaler, which needs pods with metrics, by its one rule: the load, kept within its bounds.

use std::sync::Arc;
use std::time::Duration;

use elastic_controllers::{
    ControllersConfig, CronHorizontalPodAutoscalerConfig, install_definitions, run_controllers,
};
use elastic_core::{CronHorizontalPodAutoscaler, ElasticWorkload};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use local_apiserver::testing::TestServer;
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

struct Day {
    client: Client,
    clock: Arc<SimulatedClock>,
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

    /// The autoscaler's round.
    async fn autoscale(&self, load: i32) -> i32 {
        let (min, max) = self.bounds().await;
        let api: Api<ElasticWorkload> = Api::namespaced(self.client.clone(), NAMESPACE);
        let patch = Patch::Merge(json!({"spec": {"replicas": load.clamp(min, max)}}));
        api.patch_scale("vision", &PatchParams::default(), &patch)
            .await
            .unwrap();
        self.replicas().await
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
    let server = TestServer::start().await;
    let client = server.client();
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
    let day = Day { client, clock };
    day.until_said("night", "Submitted").await;
    assert_eq!(day.autoscale(2).await, 2);

    day.clock.set("2026-11-19T23:45:00Z");
    day.until_said(
        "before-the-morning-peak",
        "current replicas:2, desired replicas:8.",
    )
    .await;
    assert_eq!((day.bounds().await, day.replicas().await), ((8, 16), 8));
    day.until(
        "overflow",
        async || day.shares().await,
        |shares| *shares == (4, 4),
    )
    .await;

    // The peak itself is the autoscaler's; at lunch it may not go below the morning's minimum.
    assert_eq!(day.autoscale(14).await, 14);
    day.until(
        "peak",
        async || day.shares().await,
        |shares| *shares == (4, 10),
    )
    .await;
    assert_eq!(day.autoscale(5).await, 8);

    // In the evening the schedule takes nothing away, it lets go.
    day.clock.set("2026-11-20T12:00:00Z");
    day.until_said("evening", "Skip scale replicas because HPA vision in namespace tidal current replicas:8 >= desired replicas:3.").await;
    assert_eq!((day.bounds().await, day.replicas().await), ((3, 16), 8));
    assert_eq!(day.autoscale(5).await, 5);

    day.clock.set("2026-11-20T15:00:00Z");
    day.until_said("night", "Succeed").await;
    assert_eq!(day.autoscale(1).await, 1);

    // On Saturday nothing rises in the morning.
    day.clock.set("2026-11-21T00:30:00Z");
    day.clock.set("2026-11-21T12:00:00Z");
    day.until_said("evening", "current replicas:1, desired replicas:3.")
        .await;
    assert!(
        day.message("before-the-morning-peak")
            .await
            .contains("current replicas:2")
    );
    stop.cancel();
}
