//! The CronHPA controller against a real API server, with a clock that the test moves.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use elastic_controllers::{
    CronHorizontalPodAutoscalerConfig, install_definitions, run_cron_horizontal_pod_autoscaler,
};
use elastic_core::CronHorizontalPodAutoscaler;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use local_apiserver::testing::TestServer;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::simulated_clock::SimulatedClock;

const DEADLINE: Duration = Duration::from_secs(60);
const MORNING: &str = "2026-11-20T00:00:00Z"; // 08:00 in Shanghai, a Friday

struct Scene {
    server: TestServer,
    client: Client,
    clock: Arc<SimulatedClock>,
    objects: Api<CronHorizontalPodAutoscaler>,
    deployments: Api<Deployment>,
    autoscalers: Api<HorizontalPodAutoscaler>,
    controllers: Mutex<Vec<CancellationToken>>,
}

impl Scene {
    /// The API server only.
    async fn quiet(at: &str) -> Self {
        let server = TestServer::start().await;
        let client = server.client();
        install_definitions(&client).await.unwrap();
        Self {
            clock: Arc::new(SimulatedClock::at(at)),
            objects: Api::default_namespaced(client.clone()),
            deployments: Api::default_namespaced(client.clone()),
            autoscalers: Api::default_namespaced(client.clone()),
            client,
            controllers: Mutex::default(),
            server,
        }
    }

    async fn start(at: &str) -> Self {
        let scene = Self::quiet(at).await;
        scene.start_controller();
        scene
    }

    fn start_controller(&self) {
        let stop = CancellationToken::new();
        let config = CronHorizontalPodAutoscalerConfig {
            clock: self.clock.clone(),
            default_time_zone: "Asia/Shanghai".to_owned(),
            retry_interval: Duration::from_millis(5),
            retry_window: Duration::from_millis(15),
            ..CronHorizontalPodAutoscalerConfig::default()
        };
        let client = self.client.clone();
        tokio::spawn(run_cron_horizontal_pod_autoscaler(
            client,
            config,
            stop.clone(),
        ));
        self.controllers.lock().unwrap().push(stop);
    }

    fn stop_controllers(&self) {
        for stop in self.controllers.lock().unwrap().drain(..) {
            stop.cancel();
        }
    }

    async fn deployment(&self, replicas: i32) {
        let object: Deployment = serde_json::from_value(json!({
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
        create(&self.deployments, &object).await;
    }

    async fn autoscaler(&self, min: i32, max: i32) {
        let object: HorizontalPodAutoscaler = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": min, "maxReplicas": max,
                "metrics": [
                    {"type": "Object", "object": {
                        "metric": {"name": "queue"},
                        "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"},
                        "target": {"type": "AverageValue", "averageValue": "10"}
                    }},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 77}}
            }
        }))
        .unwrap();
        create(&self.autoscalers, &object).await;
    }

    async fn apply(&self, target: Value, jobs: Value) {
        self.apply_spec(json!({"scaleTargetRef": target, "jobs": jobs}))
            .await;
    }

    async fn apply_spec(&self, spec: Value) {
        let object: CronHorizontalPodAutoscaler =
            serde_json::from_value(json!({"metadata": {"name": "tide"}, "spec": spec})).unwrap();
        create(&self.objects, &object).await;
    }

    async fn replicas(&self) -> i32 {
        let found = self.deployments.get("web").await.unwrap();
        found.spec.unwrap().replicas.unwrap()
    }

    async fn hand_scale(&self, replicas: i32) {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let params = PatchParams::default();
        self.deployments
            .patch("web", &params, &patch)
            .await
            .unwrap();
    }

    async fn bounds(&self) -> (i32, i32) {
        let spec = self.autoscalers.get("web").await.unwrap().spec.unwrap();
        (spec.min_replicas.unwrap(), spec.max_replicas)
    }

    async fn status(&self) -> Value {
        let found = self.objects.get("tide").await.unwrap();
        serde_json::to_value(found.status.unwrap_or_default()).unwrap()
    }

    async fn state(&self, job: &str) -> (String, String) {
        let status = self.status().await;
        let conditions = status["conditions"].as_array().cloned();
        let found = conditions.unwrap_or_default();
        let found = found.iter().find(|condition| condition["name"] == job);
        let text = |key: &str| {
            let value = found.map(|found| found[key].clone());
            value
                .unwrap_or_default()
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        (text("state"), text("message"))
    }

    async fn until_state(&self, job: &str, wanted: &str) -> String {
        let look = async || self.state(job).await;
        let (_, message) = eventually(wanted, look, |(state, _)| state == wanted).await;
        message
    }

    async fn until_submitted(&self) {
        let look = async || self.status().await;
        eventually("taken up", look, |status| {
            status["conditions"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        })
        .await;
    }

    async fn events(&self) -> Vec<(String, String, String, i32)> {
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        let list = events.list(&Default::default()).await.unwrap();
        let told = list.items.into_iter().map(|event| {
            (
                event.type_.unwrap_or_default(),
                event.reason.unwrap_or_default(),
                event.message.unwrap_or_default(),
                event.count.unwrap_or_default(),
            )
        });
        told.collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop_controllers();
    }
}

async fn create<K>(api: &Api<K>, object: &K)
where
    K: Clone + Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    api.create(&PostParams::default(), object).await.unwrap();
}

/// Looks again and again until `done`; shows the last state when it never is.
async fn eventually<T: Debug>(
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

fn on_deployment() -> Value {
    json!({"apiVersion": "apps/v1beta2", "kind": "Deployment", "name": "web"})
}

fn on_autoscaler() -> Value {
    json!({"apiVersion": "autoscaling/v2beta1", "kind": "HorizontalPodAutoscaler", "name": "web"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_goes_up_and_down_with_the_documented_states_messages_and_events() {
    let scene = Scene::start(MORNING).await;
    scene.deployment(1).await;
    // The version is not served; only the group counts.
    let jobs = json!([
        {"name": "scale-up", "schedule": "0 30 8 * * *", "targetSize": 7},
        {"name": "scale-down", "schedule": "0 30 22 * * *", "targetSize": 2, "runOnce": true}
    ]);
    scene.apply(on_deployment(), jobs).await;
    scene.until_submitted().await;
    let status = scene.status().await;
    let first = &status["conditions"][0];
    assert_eq!(first["state"], "Submitted");
    assert_eq!(first["runOnce"], false);
    assert_eq!(first["jobId"].as_str().unwrap().len(), 36);
    assert_eq!(status["scaleTargetRef"]["name"], "web");
    assert_eq!(
        status["nextRuns"][0]["localTime"],
        "2026-11-20 08:30:00 Asia/Shanghai"
    );

    scene.clock.set("2026-11-20T00:30:00Z");
    let message = scene.until_state("scale-up", "Succeed").await;
    assert_eq!(
        message,
        "cron hpa job scale-up executed successfully. current replicas:1, desired replicas:7."
    );
    assert_eq!(scene.replicas().await, 7);
    assert_eq!(scene.state("scale-down").await.0, "Submitted");
    let told = |events: &Vec<(String, String, String, i32)>| {
        events.iter().any(|event| {
            (event.0.as_str(), event.1.as_str()) == ("Normal", "Succeed") && event.2 == message
        })
    };
    eventually("event", async || scene.events().await, told).await;

    scene.clock.set("2026-11-20T14:30:00Z");
    scene.until_state("scale-down", "Succeed").await;
    assert_eq!(scene.replicas().await, 2);
    // It runs once: the next evening nothing comes.
    scene.clock.set("2026-11-21T00:30:00Z");
    eventually("up again", async || scene.replicas().await, |now| *now == 7).await;
    scene.clock.set("2026-11-21T15:00:00Z");
    scene.clock.set("2026-11-22T00:00:00Z");
    let next = scene.status().await["nextRuns"].clone();
    assert!(
        next.as_array()
            .unwrap()
            .iter()
            .all(|run| run["job"] == "scale-up"),
        "{next}"
    );
    assert_eq!(scene.replicas().await, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_keeps_all_it_has_but_its_bounds() {
    let scene = Scene::start(MORNING).await;
    scene.deployment(3).await;
    scene.autoscaler(2, 10).await;
    let jobs = json!([
        {"name": "same", "schedule": "0 10 8 * * *", "targetSize": 3},
        {"name": "peak", "schedule": "0 20 8 * * *", "targetSize": 12},
        {"name": "night", "schedule": "0 0 22 * * *", "targetSize": 2},
        {"name": "off", "schedule": "0 0 23 * * *", "targetSize": 0}
    ]);
    scene.apply(on_autoscaler(), jobs).await;
    scene.until_submitted().await;
    let metrics = scene.autoscalers.get("web").await.unwrap().spec.unwrap();

    scene.clock.set("2026-11-20T00:10:00Z");
    let message = scene.until_state("same", "Succeed").await;
    assert!(
        message.ends_with("Skip scale replicas because HPA web in namespace default current replicas:3 >= desired replicas:3."),
        "{message}"
    );
    assert_eq!(scene.bounds().await, (3, 10), "at least three from now on");

    scene.clock.set("2026-11-20T00:20:00Z");
    scene.until_state("peak", "Succeed").await;
    assert_eq!(
        (scene.bounds().await, scene.replicas().await),
        ((12, 12), 12)
    );

    scene.clock.set("2026-11-20T14:00:00Z");
    scene.until_state("night", "Succeed").await;
    assert_eq!(
        (scene.bounds().await, scene.replicas().await),
        ((2, 12), 12)
    );

    scene.clock.set("2026-11-20T15:00:00Z");
    scene.until_state("off", "Succeed").await;
    assert_eq!((scene.bounds().await, scene.replicas().await), ((2, 12), 0));

    let after = scene.autoscalers.get("web").await.unwrap().spec.unwrap();
    assert_eq!(after.metrics, metrics.metrics);
    assert_eq!(after.behavior, metrics.behavior);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_do_each_run_once_and_a_restart_neither_repeats_nor_loses_one() {
    let scene = Scene::start(MORNING).await;
    scene.start_controller();
    scene.deployment(1).await;
    let jobs = json!([{"name": "up", "schedule": "0 0 9 * * *", "targetSize": 5}]);
    scene.apply(on_deployment(), jobs).await;
    scene.until_submitted().await;
    let id = scene.status().await["conditions"][0]["jobId"].clone();
    scene.clock.set("2026-11-20T01:00:00Z");
    scene.until_state("up", "Succeed").await;
    let runs = async || {
        let events = scene.events().await;
        let runs = events.iter().filter(|event| event.1 == "Succeed");
        runs.map(|event| event.3).sum::<i32>()
    };
    eventually("event", &runs, |runs| *runs == 1).await;
    // Scaled by hand, then both replicas restart: the run of today is not repeated.
    scene.hand_scale(3).await;
    scene.stop_controllers();
    scene.start_controller();
    scene.apply_second().await;
    assert_eq!(scene.replicas().await, 3);
    assert_eq!(runs().await, 1);
    // Down over the next run and back within the deadline: it is made up for, and said.
    scene.stop_controllers();
    tokio::task::yield_now().await;
    scene.clock.set("2026-11-21T01:40:00Z");
    scene.start_controller();
    eventually(
        "made up for",
        async || scene.replicas().await,
        |now| *now == 5,
    )
    .await;
    let told = |events: &Vec<(String, String, String, i32)>| {
        events
            .iter()
            .any(|event| event.1 == "OutOfDate" && event.2.starts_with("rerun out of date job: up"))
    };
    eventually("told", async || scene.events().await, told).await;
    assert_eq!(scene.status().await["conditions"][0]["jobId"], id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_claimed_ahead_by_one_of_two_replicas_and_scales_at_its_moment() {
    let scene = Scene::start(MORNING).await;
    scene.start_controller();
    scene.deployment(1).await;
    let jobs = json!([
        {"name": "up", "schedule": "0 0 9 * * *", "targetSize": 5},
        {"name": "off", "schedule": "0 0 10 * * *", "targetSize": 0}
    ]);
    scene.apply(on_deployment(), jobs).await;
    scene.until_submitted().await;
    let claimed = async |job: usize| {
        let look = async || scene.status().await["conditions"][job]["pending"].clone();
        eventually("claimed", look, |pending| pending.is_object()).await
    };
    scene.clock.set("2026-11-20T00:59:56Z");
    let claim = claimed(0).await;
    assert_eq!(claim["scheduleTime"], "2026-11-20T01:00:00Z");
    scene.clock.settled().await;
    assert_eq!(scene.status().await["conditions"][0]["pending"], claim);
    assert_eq!(scene.replicas().await, 1, "it is not due yet");
    // What was seen of the target with the claim is old when the run begins.
    scene.hand_scale(3).await;
    scene.clock.set("2026-11-20T01:00:00Z");
    let message = scene.until_state("up", "Succeed").await;
    assert!(
        message.ends_with("current replicas:3, desired replicas:5."),
        "{message}"
    );
    assert_eq!(scene.replicas().await, 5);
    // Who stops gives its claim back, so that the next one need not wait for its end.
    scene.clock.set("2026-11-20T01:59:56Z");
    let claim = claimed(1).await;
    scene.stop_controllers();
    let look = async || scene.status().await["conditions"][1]["pending"].clone();
    eventually("given back", look, |pending| pending.is_null()).await;
    scene.start_controller();
    let again = claimed(1).await;
    assert_ne!(again["holder"], claim["holder"]);
    // Paused after the claim: nothing runs.
    let pause = Patch::Merge(json!({"spec": {"suspend": true}}));
    let params = PatchParams::default();
    scene.objects.patch("tide", &params, &pause).await.unwrap();
    let look = async || scene.status().await["conditions"][1].clone();
    let paused = eventually("paused", look, |one| one["suspended"] == true).await;
    assert!(paused["pending"].is_null(), "{paused}");
    scene.clock.set("2026-11-20T02:00:00Z");
    scene.clock.settled().await;
    assert_eq!(scene.replicas().await, 5);
    let succeeded = scene.events().await.into_iter();
    let succeeded: Vec<_> = succeeded.filter(|event| event.1 == "Succeed").collect();
    assert_eq!(succeeded.len(), 1, "{succeeded:?}");
    assert_eq!(succeeded[0].3, 1, "one of the two ran it");
}

impl Scene {
    /// Another object, whose being taken up shows that the controller works.
    async fn apply_second(&self) {
        let object: CronHorizontalPodAutoscaler = serde_json::from_value(json!({
            "metadata": {"name": "other"},
            "spec": {"scaleTargetRef": on_deployment(), "jobs": [{"name": "x", "schedule": "@yearly", "targetSize": 1}]}
        }))
        .unwrap();
        create(&self.objects, &object).await;
        let look = async || self.objects.get("other").await.unwrap().status;
        eventually("other taken up", look, Option::is_some).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_raises_holds_and_restores() {
    let scene = Scene::start(MORNING).await;
    scene.deployment(3).await;
    let jobs = json!([{"name": "open", "schedule": "0 0 9 * * *", "until": "0 0 18 * * *", "targetSize": 6}]);
    scene.apply(on_deployment(), jobs).await;
    scene.until_submitted().await;
    scene.clock.set("2026-11-20T01:00:00Z");
    scene.until_state("open", "Succeed").await;
    assert_eq!(scene.replicas().await, 6);
    // Lowered by hand in between: raised again, and that number is what comes back.
    scene.hand_scale(2).await;
    scene.clock.set("2026-11-20T01:00:30Z");
    eventually("held", async || scene.replicas().await, |now| *now == 6).await;
    scene.clock.set("2026-11-20T10:00:00Z");
    eventually("restored", async || scene.replicas().await, |now| *now == 2).await;
    let ended = async || scene.status().await;
    let status = eventually("ended", ended, |status| status["floor"].is_null()).await;
    let message = status["conditions"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("its window has ended, restored replicas:2."),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_told_in_the_documented_words_and_nothing_falls_over() {
    let scene = Scene::start(MORNING).await;
    // No slash in apiVersion once took the whole original controller down.
    let target = json!({"apiVersion": "v1", "kind": "Deployment", "name": "web"});
    let jobs = json!([
        {"name": "bad", "schedule": "every now and then", "targetSize": 1},
        {"name": "lost", "schedule": "0 0 9 * * *", "targetSize": 4}
    ]);
    scene.apply(target, jobs).await;
    let message = scene.until_state("bad", "Failed").await;
    assert!(
        message.starts_with("Failed to update cron hpa job bad,because of "),
        "{message}"
    );
    scene.clock.set("2026-11-20T01:00:00Z");
    let message = scene.until_state("lost", "Failed").await;
    assert!(
        message.starts_with("cron hpa failed to execute, because of failed to scale Deployment web in default namespace to 4 after retrying "),
        "{message}"
    );
    assert!(message.contains("times and exit,because of "), "{message}");
    // Mended, it runs the next day.
    scene.deployment(1).await;
    let patch = Patch::Merge(json!({"spec": {"scaleTargetRef": on_deployment()}}));
    let params = PatchParams::default();
    scene.objects.patch("tide", &params, &patch).await.unwrap();
    scene.until_state("lost", "Submitted").await;
    scene.clock.set("2026-11-21T01:00:00Z");
    scene.until_state("lost", "Succeed").await;
    assert_eq!(scene.replicas().await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_elastic_workload_goes_to_sleep_and_an_excluded_day_is_left_out() {
    let scene = Scene::start(MORNING).await;
    let workloads: Api<elastic_core::ElasticWorkload> =
        Api::default_namespaced(scene.client.clone());
    let workload = serde_json::from_value(json!({
        "metadata": {"name": "web-ew"},
        "spec": {"replicas": 4, "sourceTarget": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}
    }))
    .unwrap();
    create(&workloads, &workload).await;
    scene
        .apply_spec(json!({
            "scaleTargetRef": {"apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload", "name": "web-ew"},
            "excludeDates": ["* * * 21 11 *"],
            "jobs": [
                {"name": "up", "schedule": "0 0 9 * * *", "targetSize": 8},
                {"name": "sleep", "schedule": "0 0 20 20 11 *", "targetSize": 0}
            ]
        }))
        .await;
    scene.until_submitted().await;
    let replicas = async || workloads.get("web-ew").await.unwrap().spec.replicas;
    scene.clock.set("2026-11-20T12:00:00Z");
    eventually("asleep", &replicas, |now| *now == Some(0)).await;
    scene.clock.set("2026-11-21T01:00:00Z");
    let look = async || scene.state("up").await.1;
    let skipped = "cron hpa job up executed successfully. skip scaling activity,because of excludeDate (* * * 21 11 *).";
    eventually("skipped", look, |message| message == skipped).await;
    assert_eq!(replicas().await, Some(0));
    scene.clock.set("2026-11-22T01:00:00Z");
    eventually("awake", &replicas, |now| *now == Some(8)).await;
    assert_eq!(workloads.get("web-ew").await.unwrap().name_any(), "web-ew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_on_the_same_workload_is_warned_of() {
    let scene = Scene::start(MORNING).await;
    scene.deployment(1).await;
    scene.autoscaler(1, 5).await;
    let jobs = json!([{"name": "up", "schedule": "0 0 9 * * *", "targetSize": 5}]);
    scene.apply(on_deployment(), jobs).await;
    let told = |events: &Vec<(String, String, String, i32)>| {
        let warning = "point scaleTargetRef at web instead";
        events
            .iter()
            .any(|event| event.1 == "ScaledByAutoscaler" && event.2.ends_with(warning))
    };
    eventually("warned", async || scene.events().await, told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_runs_no_object_is_looked_at() {
    let scene = Scene::start(MORNING).await;
    scene.deployment(1).await;
    let object = |number: usize| {
        let hour = 9 + number % 3;
        serde_json::from_value::<CronHorizontalPodAutoscaler>(json!({
            "metadata": {"name": format!("tide-{number}")},
            "spec": {"scaleTargetRef": on_deployment(), "jobs": [
                {"name": "up", "schedule": format!("0 0 {hour} * * *"), "targetSize": 2},
                {"name": "down", "schedule": "0 30 22 * * *", "targetSize": 1}
            ]}
        }))
        .unwrap()
    };
    for number in 0..60 {
        create(&scene.objects, &object(number)).await;
    }
    let in_state = async |state: &str| {
        let all = scene.objects.list(&Default::default()).await.unwrap();
        let conditions = all
            .items
            .into_iter()
            .flat_map(|one| one.status.unwrap_or_default().conditions);
        conditions.filter(|one| one.state.word() == state).count()
    };
    eventually(
        "taken up",
        async || in_state("Submitted").await,
        |count| *count == 120,
    )
    .await;
    // A minute at a time up to nine o'clock: the clock is asked when an alarm rings or a pass runs, and neither happens.
    scene.clock.settled().await;
    let before = scene.clock.asked();
    for minute in 1..60 {
        scene.clock.move_to(
            MORNING.parse::<jiff::Timestamp>().unwrap() + jiff::SignedDuration::from_mins(minute),
        );
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.clock.asked(), before);
    scene.clock.set("2026-11-20T01:00:00Z");
    eventually(
        "a third ran",
        async || in_state("Succeed").await,
        |count| *count == 20,
    )
    .await;
    assert_eq!(in_state("Submitted").await, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_shows_and_describes_it_as_documented() {
    let scene = Scene::start(MORNING).await;
    scene.deployment(3).await;
    let jobs = json!([
        {"name": "scale-down", "schedule": "30 0 9 * * *", "targetSize": 1},
        {"name": "scale-up", "schedule": "0 0 10 * * *", "targetSize": 3}
    ]);
    scene.apply(on_deployment(), jobs).await;
    scene.until_submitted().await;
    scene.clock.set("2026-11-20T01:00:30Z");
    scene.until_state("scale-down", "Succeed").await;
    let told = |events: &Vec<(String, String, String, i32)>| !events.is_empty();
    eventually("event", async || scene.events().await, told).await;
    let folder = tempfile::tempdir().unwrap();
    let server = Served::start(&scene.server, folder.path()).await;
    let shown = tokio::task::block_in_place(|| server.kubectl(&["get", "cronhpa"]));
    assert!(
        shown[0].starts_with("NAME TARGET NEXT JOB SIZE AGE"),
        "{shown:#?}"
    );
    assert!(
        shown[1].starts_with("tide web 2026-11-20 10:00:00 Asia/Shanghai scale-up 3"),
        "{shown:#?}"
    );
    let described =
        tokio::task::block_in_place(|| server.kubectl(&["describe", "cronhpa", "tide"]));
    for line in [
        "Kind: CronHorizontalPodAutoscaler",
        "Scale Target Ref:",
        "Last Probe Time: 2026-11-20T01:00:30Z",
        "Message: cron hpa job scale-down executed successfully. current replicas:3, desired replicas:1.",
        "Run Once: false",
        "State: Succeed",
        "State: Submitted",
        "Target Size: 1",
    ] {
        assert!(
            described.iter().any(|shown| shown == line),
            "{line} in {described:#?}"
        );
    }
    let event = "CronHorizontalPodAutoscaler cron hpa job scale-down executed successfully. current replicas:3, desired replicas:1.";
    assert!(
        described
            .iter()
            .any(|line| line.starts_with("Normal Succeed") && line.ends_with(event)),
        "{described:#?}"
    );
}

/// The API server on a port, for programs.
struct Served<'f> {
    url: String,
    token: String,
    folder: &'f std::path::Path,
}

impl<'f> Served<'f> {
    async fn start(server: &TestServer, folder: &'f std::path::Path) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        server.server.serve(listener);
        let credentials = server.server.credentials();
        std::fs::write(folder.join("ca.pem"), &credentials.ca_pem).unwrap();
        Self {
            url,
            token: credentials.admin_token.clone(),
            folder,
        }
    }

    /// What kubectl prints, with single spaces.
    fn kubectl(&self, arguments: &[&str]) -> Vec<String> {
        let output = std::process::Command::new("kubectl")
            .args(["--server", &self.url, "--token", &self.token])
            .arg("--certificate-authority")
            .arg(self.folder.join("ca.pem"))
            .args(arguments)
            .env("HOME", self.folder)
            .output()
            .expect("kubectl is on the PATH (Debian: kubernetes-client)");
        let refused = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{refused}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect()
    }
}
