//! The fast path against a real API server, with metrics that the test plays and no other autoscaler's controller.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use elastic_controllers::{FastAutoscalerConfig, run_fast_horizontal_pod_autoscaler};
use elastic_core::names::{FAST_DIRECTION, FAST_SCALINGS, FAST_SYNC_PERIOD};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Event;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use local_apiserver::testing::{PlayedMetrics, TestServer};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);
const QUEUE: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue";

struct Scene {
    metrics: Arc<PlayedMetrics>,
    deployments: Api<Deployment>,
    autoscalers: Api<HorizontalPodAutoscaler>,
    events: Api<Event>,
    client: Client,
    running: Option<tokio::task::JoinHandle<()>>,
    shutdown: CancellationToken,
    _server: TestServer,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Scene {
    /// A Deployment of two replicas, a queue of 60, and the fast path.
    async fn start() -> Self {
        Self::start_with(FastAutoscalerConfig::default()).await
    }

    async fn start_with(config: FastAutoscalerConfig) -> Self {
        let server = TestServer::start().await;
        let metrics = Arc::new(PlayedMetrics::default());
        let client = metrics.client(server.client());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run_fast_horizontal_pod_autoscaler(
            client.clone(),
            config,
            shutdown.clone(),
        ));
        let scene = Scene {
            metrics,
            deployments: Api::default_namespaced(client.clone()),
            autoscalers: Api::default_namespaced(client.clone()),
            events: Api::default_namespaced(client.clone()),
            client,
            running: Some(running),
            shutdown,
            _server: server,
        };
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "shop:1"}]}}},
        }))
        .unwrap();
        let deployments = &scene.deployments;
        deployments
            .create(&PostParams::default(), &deployment)
            .await
            .unwrap();
        scene.report(2).await;
        scene.queue(60);
        scene
    }

    /// What the Deployment's controller would report.
    async fn report(&self, replicas: i32) {
        let status = Patch::Merge(json!({"status": {"replicas": replicas}}));
        self.deployments
            .patch_status("web", &PatchParams::default(), &status)
            .await
            .unwrap();
    }

    fn queue(&self, value: i32) {
        let series = json!({"metricName": "queue", "timestamp": "2026-11-21T11:00:00Z", "value": value.to_string()});
        self.metrics.set(QUEUE, &json!({"items": [series]}));
    }

    /// An autoscaler that wants 30 of the queue for each replica.
    async fn autoscaler(&self, annotations: Value) {
        let autoscaler = serde_json::from_value(json!({
            "metadata": {"name": "h", "annotations": annotations},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 1, "maxReplicas": 20,
                "metrics": [{"type": "External", "external": {"metric": {"name": "queue"},
                    "target": {"type": "AverageValue", "averageValue": "30"}}}],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0},
                    "scaleUp": {"policies": [{"type": "Pods", "value": 100, "periodSeconds": 1}]}}},
        }))
        .unwrap();
        self.autoscalers
            .create(&PostParams::default(), &autoscaler)
            .await
            .unwrap();
    }

    async fn behave(&self, behavior: Value) {
        let patch = Patch::Merge(json!({"spec": {"behavior": behavior}}));
        self.autoscalers
            .patch("h", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Ends the fast path and begins it anew, as another replica does that takes over.
    async fn restart(&mut self) {
        self.shutdown.cancel();
        self.running.take().unwrap().await.unwrap();
        self.shutdown = CancellationToken::new();
        self.running = Some(tokio::spawn(run_fast_horizontal_pod_autoscaler(
            self.client.clone(),
            FastAutoscalerConfig::default(),
            self.shutdown.clone(),
        )));
    }

    async fn annotate(&self, annotations: Value) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        self.autoscalers
            .patch("h", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    async fn replicas(&self) -> i32 {
        let deployment = self.deployments.get("web").await.unwrap();
        deployment.spec.unwrap().replicas.unwrap()
    }

    async fn until_replicas(&self, wanted: i32) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let replicas = self.replicas().await;
            if replicas == wanted {
                return;
            }
            let asked = self.metrics.times_asked(QUEUE);
            assert!(
                tokio::time::Instant::now() < deadline,
                "wanted {wanted} replicas, last {replicas}, asked {asked} times"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the metric was asked for some more times, so that what was set before has been decided on.
    async fn until_looked_at(&self, times: u64) {
        self.until_asked(self.metrics.times_asked(QUEUE) + times)
            .await;
    }

    /// Waits until the metric was asked for so many times in all.
    async fn until_asked(&self, times: u64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.metrics.times_asked(QUEUE) < times {
            let asked = self.metrics.times_asked(QUEUE);
            assert!(
                tokio::time::Instant::now() < deadline,
                "asked {asked} times, wanted {times}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The messages of events of that reason, all of which come from the fast path.
    async fn messages(&self, reason: &str) -> Vec<String> {
        let list = self.events.list(&Default::default()).await.unwrap();
        let ours = list.items.into_iter().filter(|event| {
            let source = event.source.clone().unwrap_or_default();
            event.reason.as_deref() == Some(reason)
                && source.component.as_deref() == Some("fast-horizontal-pod-autoscaler")
        });
        ours.filter_map(|event| event.message).collect()
    }

    async fn until_message(&self, reason: &str, part: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let messages = self.messages(reason).await;
            if messages.iter().any(|message| message.contains(part)) {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "no {reason} with {part:?}, last {messages:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn fast() -> Value {
    json!({FAST_SYNC_PERIOD: "100ms"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metric_above_its_target_raises_at_once_and_below_it_lowers_nothing() {
    let scene = Scene::start().await;
    scene.autoscaler(fast()).await;
    scene.until_looked_at(2).await;
    assert_eq!(scene.replicas().await, 2);
    scene.queue(180);
    scene.until_replicas(6).await;
    let wanted = "New size: 6; reason: external metric queue(nil) above target";
    scene.until_message("SuccessfulRescale", wanted).await;
    scene.report(6).await;
    scene.queue(30);
    scene.until_looked_at(5).await;
    assert_eq!(
        scene.replicas().await,
        6,
        "lowering is the ordinary controller's"
    );
    // The status is the ordinary controller's as well.
    let autoscaler = scene.autoscalers.get("h").await.unwrap();
    let status = autoscaler.status.unwrap_or_default();
    assert!(status.conditions.unwrap_or_default().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_are_taken_on_request() {
    let scene = Scene::start().await;
    let annotations = json!({FAST_SYNC_PERIOD: "100ms", FAST_DIRECTION: "both"});
    scene.autoscaler(annotations).await;
    scene.queue(180);
    scene.until_replicas(6).await;
    scene.report(6).await;
    scene.queue(30);
    scene.until_replicas(1).await;
    let wanted = "New size: 1; reason: All metrics below target";
    scene.until_message("SuccessfulRescale", wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ordinary_controller_lowers_is_not_raised_again_without_need() {
    let scene = Scene::start().await;
    scene.autoscaler(fast()).await;
    scene.queue(180);
    scene.until_replicas(6).await;
    scene.report(6).await;
    scene.queue(90);
    scene.until_looked_at(3).await;
    let lower = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let params = PatchParams::default();
    let lowered = scene.deployments.patch_scale("web", &params, &lower);
    lowered.await.unwrap();
    scene.report(3).await;
    scene.queue(91);
    scene.until_looked_at(5).await;
    assert_eq!(scene.replicas().await, 3);
    scene.queue(150);
    scene.until_replicas(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_ask_is_left_alone_and_may_ask_later() {
    let scene = Scene::start().await;
    scene.queue(180);
    scene.autoscaler(json!({})).await;
    // The order of the watch: when the second is followed, the first has been seen.
    scene.annotate(json!({FAST_SYNC_PERIOD: "soon"})).await;
    scene
        .until_message("FastPathRefused", "expected a time from 100ms to 15s")
        .await;
    assert_eq!(scene.metrics.times_asked(QUEUE), 0);
    scene.annotate(fast()).await;
    scene.until_replicas(6).await;
    scene
        .autoscalers
        .delete("h", &DeleteParams::default())
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let before = scene.metrics.times_asked(QUEUE);
        tokio::time::sleep(Duration::from_millis(500)).await;
        if scene.metrics.times_asked(QUEUE) == before {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "still looking");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_metric_is_told_once_and_changes_nothing() {
    let scene = Scene::start().await;
    scene.metrics.refuse(QUEUE, 503, "the queue is down");
    scene.autoscaler(fast()).await;
    scene
        .until_message("FastPathBlind", "the queue is down")
        .await;
    scene.until_looked_at(5).await;
    assert_eq!(scene.messages("FastPathBlind").await.len(), 1);
    assert_eq!(scene.replicas().await, 2);
    scene.queue(180);
    scene.until_replicas(6).await;
}

/// Sizes that follow from a seed, each further from the one before than what is tolerated.
fn sizes(mut seed: u32, count: usize) -> Vec<i32> {
    let mut sizes = Vec::new();
    let mut last = 2;
    while sizes.len() < count {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = 1 + (seed >> 24) as i32 % 20;
        if (size - last).abs() * 10 > last {
            sizes.push(size);
            last = size;
        }
    }
    sizes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_change_alone_moves_the_replicas_and_nothing_is_asked_in_between() {
    let (pushes, _) = tokio::sync::broadcast::channel::<Arc<BTreeSet<String>>>(4);
    // Nothing but a push makes it look: the period is longer than the test.
    let config = FastAutoscalerConfig {
        resync_period: Duration::from_secs(3_600),
        scale_freshness: Duration::from_secs(3_600),
        pushes: Some(pushes.clone()),
        ..FastAutoscalerConfig::default()
    };
    let scene = Scene::start_with(config).await;
    let annotations = json!({FAST_SYNC_PERIOD: "pushed", FAST_DIRECTION: "both"});
    scene.autoscaler(annotations).await;
    scene.until_asked(1).await;
    let names = |name: &str| Arc::new(BTreeSet::from([name.to_owned()]));
    for size in sizes(7, 12) {
        scene.queue(30 * size);
        let before = scene.metrics.times_asked(QUEUE);
        // Somebody else's metric is nobody's business here.
        pushes.send(names("other")).unwrap();
        pushes.send(names("queue")).unwrap();
        scene.until_replicas(size).await;
        scene.report(size).await;
        let asked = scene.metrics.times_asked(QUEUE) - before;
        assert!(asked <= 2, "asked {asked} times for one push of {size}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_policies_count_what_was_done_before_a_restart() {
    let mut scene = Scene::start().await;
    scene.autoscaler(json!({})).await;
    let slowly =
        json!({"scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 1800}]}});
    scene.behave(slowly).await;
    scene.annotate(fast()).await;
    scene.queue(3_000);
    scene.until_replicas(6).await;
    scene.report(6).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let autoscaler = scene.autoscalers.get("h").await.unwrap();
        let annotations = autoscaler.metadata.annotations.unwrap_or_default();
        if let Some(record) = annotations.get(FAST_SCALINGS) {
            assert!(record.contains("\"to\":6"), "{record}");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{annotations:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    scene.restart().await;
    scene.until_looked_at(5).await;
    assert_eq!(
        scene.replicas().await,
        6,
        "four in half an hour, and they are used up"
    );
}
