//! Recorded autoscaler cases through the whole controller: real scales, pods, statuses and events in an API server, with
//! the metrics APIs played by the test. The decision itself is compared, case by case, where it lives.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use local_apiserver::testing::{PlayedMetrics, TestServer};
use local_controllers::config::{AutoscalerConfig, AutoscalerFlags};
use local_controllers::horizontal_pod_autoscaler;
use local_controllers::shared::Cluster;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::world::World;

/// Cases with one step whose end is a state of rest.
const CASES: [&str; 24] = [
    "bad-selector",
    "below-min",
    "container-missing",
    "container-utilization",
    "cpu-all-missing",
    "cpu-average-value",
    "cpu-max",
    "cpu-missing-metrics-up",
    "cpu-no-request",
    "cpu-pending",
    "cpu-utilization-up",
    "cpu-within-tolerance-above",
    "external-empty",
    "external-missing",
    "external-zero",
    "memory-average-value",
    "no-selector",
    "object-missing",
    "object-value",
    "one-fails-up",
    "pods-average",
    "pods-missing",
    "replicas-zero",
    "target-missing",
];
const CUSTOM: &str = "/apis/custom.metrics.k8s.io";

fn recorded() -> Vec<Value> {
    let packed = include_bytes!("../../../elastic-core/tests/data/hpa-recorded.json.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The autoscaler's controller alone, between an API server and the test's metrics.
async fn start() -> (World, Arc<PlayedMetrics>) {
    let server = TestServer::start().await;
    let metrics = Arc::new(PlayedMetrics::default());
    let versions = json!([{"version": "v1beta1"}, {"version": "v1beta2"}]);
    metrics.set(CUSTOM, &json!({"versions": versions}));
    let client = metrics.client(server.client());
    let shutdown = CancellationToken::new();
    let cluster = Cluster::new(client.clone(), shutdown.clone());
    let flags = AutoscalerFlags {
        downscale_stabilization: SignedDuration::from_secs(5),
        cpu_initialization_period: SignedDuration::ZERO,
        initial_readiness_delay: SignedDuration::ZERO,
        ..AutoscalerFlags::default()
    };
    let sync_period = Duration::from_millis(100);
    horizontal_pod_autoscaler::start(&cluster, AutoscalerConfig { sync_period, flags });
    (World::around(server, client, shutdown), metrics)
}

async fn define_scalable(world: &World) {
    let definition = json!({
        "metadata": {"name": "scalables.hpat.golden.example.com"},
        "spec": {
            "group": "hpat.golden.example.com", "scope": "Namespaced",
            "names": {"plural": "scalables", "singular": "scalable", "kind": "Scalable", "listKind": "ScalableList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    world.act("POST", definitions, definition).await;
    let all = "/apis/hpat.golden.example.com/v1/scalables";
    world
        .until(all, "served", |found| found["items"].is_array())
        .await;
}

/// One case in its namespace.
struct Case<'a> {
    world: &'a World,
    metrics: &'a PlayedMetrics,
    recorded: &'a Value,
    namespace: String,
}

fn ago(seconds: i64) -> Value {
    let at = Timestamp::now() - SignedDuration::from_secs(seconds);
    let whole = Timestamp::from_second(at.as_second()).unwrap();
    whole.to_string().into()
}

impl Case<'_> {
    async fn prepare(&self) {
        let (world, namespace) = (self.world, &self.namespace);
        world.namespace(namespace).await;
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let account = json!({"metadata": {"name": "default"}});
        world.act("POST", &accounts, account).await;
        let given = &self.recorded["given"];
        let scalables =
            format!("/apis/hpat.golden.example.com/v1/namespaces/{namespace}/scalables");
        let scalable = json!({"apiVersion": "hpat.golden.example.com/v1", "kind": "Scalable", "metadata": {"name": "t"},
            "spec": {"replicas": given["targetSpecReplicas"]}});
        let mut made = world.act("POST", &scalables, scalable).await;
        made["status"] =
            json!({"replicas": given["targetStatusReplicas"], "selector": given["targetSelector"]});
        let status = format!("{scalables}/t/status");
        world.act("PUT", &status, made).await;
        for pod in given["pods"].as_array().unwrap() {
            self.make_pod(pod).await;
        }
        self.answer();
        let autoscalers =
            format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers");
        let autoscaler = json!({"metadata": {"name": "h"}, "spec": given["hpa"]});
        // The store of pods is another watch than that of autoscalers; a first look may come before the last pod's.
        self.world.act("POST", &autoscalers, autoscaler).await;
    }

    async fn make_pod(&self, pod: &Value) {
        let pods = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let containers = pod["containers"].as_array().unwrap().iter().map(|one| {
            json!({"name": one["name"], "image": "i", "resources": {"requests": one["requests"]}})
        });
        let containers: Vec<Value> = containers.collect();
        let body = json!({"metadata": {"name": pod["name"], "labels": {"app": "t"}}, "spec": {"containers": containers}});
        self.world.act("POST", &pods, body).await;
        let mut status = json!({"phase": pod["phase"]});
        if let Some(seconds) = pod["startedSecondsAgo"].as_i64() {
            status["startTime"] = ago(seconds);
        }
        if let Some(seconds) = pod["ready"]["changedSecondsAgo"].as_i64() {
            let ready = &pod["ready"]["status"];
            status["conditions"] =
                json!([{"type": "Ready", "status": ready, "lastTransitionTime": ago(seconds)}]);
        }
        let path = format!("{pods}/{}/status", pod["name"].as_str().unwrap());
        self.world
            .act("PATCH", &path, json!({"status": status}))
            .await;
    }

    fn step(&self) -> &Value {
        &self.recorded["given"]["metrics"][0]
    }

    /// The pods of the case that have metrics, with their positions.
    fn measured(&self) -> Vec<(usize, &Value)> {
        let without = self.step()["podsWithoutMetrics"].as_array();
        let without: Vec<&Value> = without.into_iter().flatten().collect();
        let pods = self.recorded["given"]["pods"].as_array().unwrap();
        let pods = pods.iter().enumerate();
        pods.filter(|(_, pod)| !without.contains(&&pod["name"]))
            .collect()
    }

    /// Plays the metrics APIs as the recording's stub did.
    fn answer(&self) {
        let (step, namespace) = (self.step(), &self.namespace);
        let now = Timestamp::now().to_string();
        let usage = |index: usize, container: &Value| {
            let cpu = match &step["perPodCpu"] {
                _ if container["name"] == "side" => &step["sidecarCpu"],
                Value::Array(each) => &each[index],
                all => all,
            };
            json!({"name": container["name"], "usage": {"cpu": cpu, "memory": step["perPodMemory"]}})
        };
        let rows = self.measured().into_iter().map(|(index, pod)| {
            let containers = pod["containers"].as_array().unwrap().iter();
            let containers: Vec<Value> = containers.map(|one| usage(index, one)).collect();
            json!({"metadata": {"name": pod["name"]}, "timestamp": now, "window": "10s", "containers": containers})
        });
        let rows: Vec<Value> = rows.collect();
        let resource = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        self.metrics.set(
            &format!("{resource}?labelSelector=app%3Dt"),
            &json!({"items": rows}),
        );
        let custom = format!("{CUSTOM}/v1beta2/namespaces/{namespace}");
        let value = |kind: &str, name: &Value, value: &Value| {
            json!({"describedObject": {"kind": kind, "name": name}, "metric": {"name": "m"},
                "timestamp": now, "windowSeconds": 10, "value": value})
        };
        let rps = self.measured().into_iter();
        let rps = rps.map(|(_, pod)| value("Pod", &pod["name"], &step["podsMetric_rps"]));
        let rps: Vec<Value> = rps.collect();
        let pods = format!("{custom}/pods/%2A");
        self.metrics.set(
            &format!("{pods}/rps?labelSelector=app%3Dt"),
            &json!({"items": rps}),
        );
        let words = "the server could not find the metric";
        let unknown = format!("{pods}/unknown?labelSelector=app%3Dt");
        self.metrics
            .refuse(&unknown, 404, &format!("{words} unknown for pods"));
        let services = format!("{custom}/services/svc");
        let hits = value("Service", &json!("svc"), &step["objectMetric_hits"]);
        self.metrics
            .set(&format!("{services}/hits"), &json!({"items": [hits]}));
        self.metrics.refuse(
            &format!("{services}/gone"),
            404,
            &format!("{words} gone for services svc"),
        );
        let external = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}");
        let series = step["externalMetric_queue"]
            .as_array()
            .into_iter()
            .flatten();
        let series =
            series.map(|value| json!({"metricName": "queue", "timestamp": now, "value": value}));
        let series: Vec<Value> = series.collect();
        self.metrics
            .set(&format!("{external}/queue"), &json!({"items": series}));
        self.metrics.refuse(
            &format!("{external}/gone"),
            404,
            "external metric gone not found",
        );
    }

    /// Waits for the recorded status and events; then the requests must have been those recorded.
    async fn compare(&self) {
        let name = self.recorded["name"].as_str().unwrap();
        let path = format!(
            "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers/h",
            self.namespace
        );
        let wanted = masked(&self.recorded["statuses"][0]["status"]);
        let what = format!("{name}: status {wanted}");
        self.world
            .until(&path, &what, |found| masked(&found["status"]) == wanted)
            .await;
        let events = format!("/api/v1/namespaces/{}/events", self.namespace);
        let recorded = self.recorded["events"].as_array().unwrap();
        let what = format!("{name}: events {recorded:?}");
        self.world
            .until(&events, &what, |found| {
                let empty = Vec::new();
                let found = found["items"].as_array().unwrap_or(&empty);
                recorded.iter().all(|wanted| {
                    let is_same = |one: &Value| {
                        ["type", "reason", "message"]
                            .iter()
                            .all(|key| one[*key] == wanted[*key])
                            && one["source"]["component"] == "horizontal-pod-autoscaler"
                    };
                    found.iter().any(is_same)
                })
            })
            .await;
        let requests = self.recorded["metricsRequests"].as_array().unwrap();
        let requests = requests.iter().map(|one| one.as_str().unwrap().to_owned());
        let asked = self.metrics.asked(&format!("/{}/", self.namespace));
        assert_eq!(asked, requests.collect(), "{name}");
    }
}

fn masked(status: &Value) -> Value {
    let mut status = status.clone();
    let Some(object) = status.as_object_mut() else {
        return Value::Null;
    };
    object.retain(|_, value| !value.is_null() && *value != 0);
    if let Some(time) = object.get_mut("lastScaleTime") {
        *time = Value::from("some time");
    }
    let conditions = object.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        condition["lastTransitionTime"] = Value::from("some time");
    }
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_cases_end_as_recorded_and_ask_what_was_asked() {
    let (world, metrics) = start().await;
    define_scalable(&world).await;
    let all = recorded();
    let cases: Vec<Case<'_>> = CASES
        .iter()
        .map(|name| {
            let recorded = all.iter().find(|one| one["name"] == *name).unwrap();
            Case {
                world: &world,
                metrics: &metrics,
                recorded,
                namespace: format!("g-hpa-{name}"),
            }
        })
        .collect();
    for case in &cases {
        case.prepare().await;
    }
    for case in &cases {
        case.compare().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_fast_path_has_raised_is_lowered_after_the_window_only() {
    let (world, metrics) = start().await;
    let queue = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue";
    let series = json!({"metricName": "queue", "timestamp": ago(0), "value": "20"});
    metrics.set(queue, &json!({"items": [series]}));
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "t"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "t"}},
        "template": {"metadata": {"labels": {"app": "t"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    world.act("POST", deployments, deployment).await;
    let reported = json!({"status": {"replicas": 2}});
    world
        .act("PATCH", &format!("{deployments}/t/status"), reported)
        .await;
    let autoscalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let autoscaler = json!({"metadata": {"name": "h"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "t"}, "maxReplicas": 20,
        "metrics": [{"type": "External", "external": {"metric": {"name": "queue"},
            "target": {"type": "AverageValue", "averageValue": "10"}}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}}}});
    world.act("POST", autoscalers, autoscaler).await;
    let path = format!("{autoscalers}/h");
    let condition = |found: &Value, wanted: &str| {
        let all = found["status"]["conditions"].as_array().cloned();
        let mut all = all.unwrap_or_default().into_iter();
        all.any(|one| one["reason"] == wanted)
    };
    world
        .until(&path, "looked at", |found| {
            condition(found, "ValidMetricFound")
        })
        .await;
    // A peak that nobody but the fast path saw.
    let record = json!([{"at": Timestamp::now(), "from": 2, "to": 6}]).to_string();
    let annotated = json!({"metadata": {"annotations": {"autoscaling.alibabacloud.com/fast-scalings": record}}});
    world.act("PATCH", &path, annotated).await;
    let scale = json!({"spec": {"replicas": 6}, "status": {}});
    let raised = world.act("PATCH", &format!("{deployments}/t"), scale).await;
    assert_eq!(raised["spec"]["replicas"], 6);
    let series = json!({"metricName": "queue", "timestamp": ago(0), "value": "5"});
    metrics.set(queue, &json!({"items": [series]}));
    world
        .until(&path, "kept", |found| {
            condition(found, "ScaleDownStabilized")
        })
        .await;
    let kept = world
        .act("GET", &format!("{deployments}/t"), Value::Null)
        .await;
    assert_eq!(kept["spec"]["replicas"], 6);
}
