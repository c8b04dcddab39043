//! Metrics that are pushed: by a real Prometheus and by hand, through the API server, up to the replicas.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use elastic_controllers::{FastAutoscalerConfig, run_fast_horizontal_pod_autoscaler};
use elastic_core::names::{FAST_DIRECTION, FAST_SYNC_PERIOD};
use elastic_metrics::{CustomMetricsConfig, PushedMetrics, RelayOptions, write_request};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, DEADLINE, PUSHERS_TOKEN, get};
use crate::prometheus::{Exporter, Prometheus};

const PUSH: &str = "/apis/pushed.autoscaling.alibabacloud.com/v1";
const QUEUE: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue_depth";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop";
const STALE_NAN: u64 = 0x7ff0_0000_0000_0002;

/// A WriteRequest of one sample for each series.
fn message(series: &[(&[(&str, &str)], f64)], now: Timestamp) -> Vec<u8> {
    let mut all = Vec::new();
    for (labels, value) in series {
        let mut labels: BTreeMap<String, String> = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let metric = labels.remove("__name__").unwrap();
        all.push((metric, labels, *value));
    }
    let all: Vec<_> = all
        .iter()
        .map(|(metric, labels, value)| (metric.as_str(), labels, *value))
        .collect();
    write_request(&all, now)
}

/// The code of the answer and what it says.
async fn push_as(client: &Client, path: &str, body: Vec<u8>) -> (u16, String) {
    let request = http::Request::post(format!("{PUSH}{path}"))
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy")
        .header("x-prometheus-remote-write-version", "0.1.0")
        .body(body)
        .unwrap();
    match client.request_text(request).await {
        Ok(text) => (200, text),
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        Err(error) => panic!("{path}: {error}"),
    }
}

async fn allow_pusher(cluster: &Cluster) {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "pusher"},
        "rules": [{"apiGroups": ["pushed.autoscaling.alibabacloud.com"], "resources": ["pushedmetrics"], "verbs": ["create"]}]
    });
    cluster.apply(&format!("{RBAC}/roles/pusher"), role).await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "pusher"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pusher"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "pusher"}]
    });
    cluster
        .apply(&format!("{RBAC}/rolebindings/pusher"), binding)
        .await;
}

async fn until_served(cluster: &Cluster) {
    cluster
        .wait_for("the push API is served", async || {
            let list = cluster.get(PUSH).await;
            if list["resources"][0]["name"] == "pushedmetrics" {
                Ok(())
            } else {
                Err(list)
            }
        })
        .await;
}

async fn create_pods(cluster: &Cluster) {
    for pod in ["web-1", "web-2"] {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web:1"}]}
        });
        cluster
            .apply(&format!("/api/v1/namespaces/shop/pods/{pod}"), object)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushed_values_are_served_for_objects_and_as_external_metrics_until_they_end() {
    let cluster = Cluster::start(|_| ()).await;
    until_served(&cluster).await;
    let (client, now) = (cluster.client(), Timestamp::now());
    create_pods(&cluster).await;
    let rps = |pod, path| [("__name__", "rps"), ("pod", pod), ("path", path)];
    let body: [(&[(&str, &str)], f64); 4] = [
        (&rps("web-1", "/"), 1.5),
        (&rps("web-1", "/cart"), 2.0),
        (&rps("web-2", "/"), f64::NAN),
        (&[("__name__", "queue_depth"), ("queue", "orders")], 7.0),
    ];
    let body = message(&body, now);
    let (code, text) = push_as(&client, "/namespaces/shop/pushedmetrics", body).await;
    assert_eq!((code, text.as_str()), (200, ""));
    let list = cluster.get("/apis/custom.metrics.k8s.io/v1beta2").await;
    let names = list["resources"].as_array().unwrap();
    let names: Vec<&str> = names
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(
        names,
        ["namespaces/queue_depth", "namespaces/rps", "pods/rps"]
    );
    let pods = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods";
    let all = cluster
        .wait_for_value(&format!("{pods}/*/rps?labelSelector=app%3Dweb"), "3500m")
        .await;
    assert_eq!(
        all["items"].as_array().map(Vec::len),
        Some(1),
        "no number is no value: {all:#}"
    );
    let one = cluster.get(&format!("{pods}/web-2/rps")).await;
    assert_eq!(one["code"], 500);
    assert!(one["message"].as_str().unwrap().contains("NaN"), "{one:#}");
    let depth = cluster
        .get(&format!("{QUEUE}?labelSelector=queue%3Dorders"))
        .await;
    assert_eq!(depth["items"][0]["value"], "7", "{depth:#}");
    let old = now - jiff::SignedDuration::from_secs(90);
    let late = message(&[(&[("__name__", "late")], 1.0)], old);
    assert_eq!(
        push_as(&client, "/namespaces/shop/pushedmetrics", late)
            .await
            .0,
        200
    );
    let late = cluster.get(&QUEUE.replace("queue_depth", "late")).await;
    assert!(
        late["message"]
            .as_str()
            .unwrap()
            .contains("s old, 60 s is the most"),
        "{late:#}"
    );
    let ended = [("__name__", "queue_depth"), ("queue", "orders")];
    let ended = message(&[(&ended, f64::from_bits(STALE_NAN))], now);
    assert_eq!(
        push_as(&client, "/namespaces/shop/pushedmetrics", ended)
            .await
            .0,
        200
    );
    assert_eq!(cluster.get(QUEUE).await["code"], 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_push_where_is_decided_by_the_clusters_rules_and_bad_bodies_change_nothing() {
    let cluster = Cluster::start(|_| ()).await;
    until_served(&cluster).await;
    let pusher = cluster.api.server.client_as("pusher", &[]);
    let now = Timestamp::now();
    let of = |namespace| {
        let labels = [("__name__", "queue_depth"), ("namespace", namespace)];
        message(&[(&labels, 7.0)], now)
    };
    let (code, why) = push_as(&pusher, "/namespaces/shop/pushedmetrics", of("shop")).await;
    assert_eq!(code, 403, "{why}");
    allow_pusher(&cluster).await;
    cluster
        .wait_for("pusher may push", async || {
            match push_as(&pusher, "/namespaces/shop/pushedmetrics", of("shop")).await {
                (200, _) => Ok(()),
                refused => Err(json!(refused)),
            }
        })
        .await;
    let (code, why) = push_as(&pusher, "/namespaces/shop/pushedmetrics", of("other")).await;
    assert!(code == 400 && why.contains("\"other\""), "{code} {why}");
    let (code, why) = push_as(&pusher, "/pushedmetrics", of("shop")).await;
    assert_eq!(code, 403, "the right is one of a namespace: {why}");
    let mut long = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    long.extend([0; 10]);
    for (body, part) in [
        (long, "longer than"),
        (vec![5, 1], "no snappy block"),
        (vec![3, 8, 9, 9, 9], "WriteRequest"),
    ] {
        let (code, why) = push_as(&pusher, "/namespaces/shop/pushedmetrics", body).await;
        assert!(code == 400 && why.contains(part), "{code} {why}");
    }
    let (code, _) = push_as(&pusher, "/namespaces/shop/pushedmetrics", vec![0; 5 << 20]).await;
    assert_eq!(code, 413);
    cluster.wait_for_value(QUEUE, "7").await;
}

/// A Deployment of two replicas and an autoscaler that looks at the queue only when it was pushed.
async fn create_autoscaled(cluster: &Cluster) {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}}
    });
    cluster
        .apply("/apis/apps/v1/namespaces/shop/deployments/web", deployment)
        .await;
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "annotations": {FAST_SYNC_PERIOD: "pushed", FAST_DIRECTION: "both"}},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 30,
            "metrics": [{"type": "External", "external": {"metric": {"name": "queue_depth"},
                "target": {"type": "AverageValue", "averageValue": "10"}}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0},
                "scaleUp": {"policies": [{"type": "Pods", "value": 100, "periodSeconds": 1}]}}}
    });
    cluster
        .apply(
            "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web",
            autoscaler,
        )
        .await;
}

async fn until_replicas(cluster: &Cluster, wanted: i32, prometheus: &Prometheus) {
    let path = "/apis/apps/v1/namespaces/shop/deployments/web";
    cluster
        .wait_for(&format!("{wanted} replicas"), async || {
            let web = cluster.get(path).await;
            let events = cluster.get("/api/v1/namespaces/shop/events").await;
            let last: Vec<&Value> = events["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| &one["message"])
                .collect();
            if web["spec"]["replicas"] == wanted {
                Ok(())
            } else {
                Err(json!([
                    web["spec"]["replicas"],
                    cluster.get(QUEUE).await,
                    last,
                    prometheus.log()
                ]))
            }
        })
        .await;
}

/// What the Deployment's controller would report.
async fn report(cluster: &Cluster, size: i32) {
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {"replicas": size}});
    let path = "/apis/apps/v1/namespaces/shop/deployments/web/status";
    let patch = http::Request::patch(format!("{path}?fieldManager=test"))
        .header("content-type", "application/merge-patch+json")
        .body(status.to_string().into_bytes())
        .unwrap();
    cluster.client().request::<Value>(patch).await.unwrap();
}

/// Serves the API on a port, and says how a Prometheus pushes there.
async fn remote_write(cluster: &Cluster, folder: &Path) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    cluster.api.server.serve(listener);
    let authority = folder.join("ca.pem");
    std::fs::write(&authority, cluster.api.server.credentials().ca_pem).unwrap();
    json!([{
        "url": format!("https://{address}{PUSH}/namespaces/shop/pushedmetrics"),
        "authorization": {"credentials": PUSHERS_TOKEN},
        "tls_config": {"ca_file": authority},
        "queue_config": {"batch_send_deadline": "100ms"},
        "write_relabel_configs": [{"source_labels": ["__name__"], "regex": "queue_depth", "action": "keep"}]
    }])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_real_prometheus_pushes_moves_the_replicas_and_what_it_loses_does_not() {
    let pushed = PushedMetrics::default();
    let cluster = Cluster::start(|config| config.pushed = pushed.clone()).await;
    until_served(&cluster).await;
    allow_pusher(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let exporter = Exporter::start("queue_depth{queue=\"orders\"} 20\n").await;
    let remote_write = remote_write(&cluster, folder.path()).await;
    let prometheus = Prometheus::start_with(&exporter, remote_write).await;
    let waited = cluster.wait_for_value(QUEUE, "20").await;
    assert_eq!(
        waited["items"][0]["metricLabels"]["namespace"], "shop",
        "{waited:#}"
    );
    create_autoscaled(&cluster).await;
    // Nothing but a push makes it look: its own period is longer than the test.
    let config = FastAutoscalerConfig {
        resync_period: Duration::from_secs(3_600),
        pushes: Some(pushed.pushes()),
        ..FastAutoscalerConfig::default()
    };
    let stop = CancellationToken::new();
    let running = run_fast_horizontal_pod_autoscaler(cluster.client(), config, stop.clone());
    let running = tokio::spawn(running);
    let mut seed: u32 = 11;
    let mut last = 2;
    for _ in 0..6 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Far enough from the one before that no tolerance hides it.
        let size = 1 + (last + 6 + (seed >> 24) as i32 % 14) % 28;
        exporter.set(Some(&format!(
            "queue_depth{{queue=\"orders\"}} {}\n",
            10 * size
        )));
        until_replicas(&cluster, size, &prometheus).await;
        report(&cluster, size).await;
        last = size;
    }
    // The exporter fails: its series end, which is told on the autoscaler and lowers nothing.
    exporter.set(None);
    cluster
        .wait_for("the loss is told", async || {
            let events = cluster.get("/api/v1/namespaces/shop/events").await;
            let told = |event: &Value| {
                event["reason"] == "FastPathBlind"
                    && event["message"]
                        .as_str()
                        .is_some_and(|text| text.contains("queue_depth"))
            };
            if events["items"].as_array().unwrap().iter().any(told) {
                Ok(())
            } else {
                Err(events)
            }
        })
        .await;
    let web = get(
        &cluster.client(),
        "/apis/apps/v1/namespaces/shop/deployments/web",
    )
    .await;
    assert_eq!(web["spec"]["replicas"], last);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_of_one_prometheus_count_once_and_one_that_loses_its_target_ends_nothing() {
    let cluster = Cluster::start(|_| ()).await;
    until_served(&cluster).await;
    allow_pusher(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let remote_write = remote_write(&cluster, folder.path()).await;
    // The same series, of which each sees another value, so that both can be told to have come.
    let exporters = [
        Exporter::start("queue_depth{queue=\"orders\",instance=\"app\"} 20\n").await,
        Exporter::start("queue_depth{queue=\"orders\",instance=\"app\"} 30\n").await,
    ];
    let start = async |index: usize| {
        // As the operator names them, and as those do who write to several stores.
        let label = ["prometheus_replica", "__replica__"][index];
        let who = json!({"cluster": "shop", label: format!("prometheus-{index}")});
        Prometheus::start_as(&exporters[index], remote_write.clone(), who).await
    };
    let _both = [start(0).await, start(1).await];
    let labels = json!({"cluster": "shop", "instance": "app", "job": "app", "namespace": "shop", "queue": "orders"});
    let once = async || {
        let answer = cluster.get(QUEUE).await;
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        assert!(items.len() <= 1, "counted twice: {answer:#}");
        assert!(
            items.iter().all(|item| item["metricLabels"] == labels),
            "{answer:#}"
        );
        answer["items"][0]["value"].clone()
    };
    for value in ["20", "30", "20", "30"] {
        cluster
            .wait_for(&format!("{value} is the newest"), async || {
                let found = once().await;
                if found == value { Ok(()) } else { Err(found) }
            })
            .await;
    }
    // One loses its target and ends its series; the other still knows the value, and there is no gap.
    exporters[0].set(None);
    let mut in_a_row = 0;
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while in_a_row < 40 {
        let found = once().await;
        assert!(found == "20" || found == "30", "a gap: {found}");
        in_a_row = if found == "30" { in_a_row + 1 } else { 0 };
        assert!(tokio::time::Instant::now() < deadline, "{found}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_learns_what_one_of_them_was_pushed() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, PUSHERS_TOKEN).unwrap();
    let boards = [PushedMetrics::default(), PushedMetrics::default()];
    let replica = |index: usize| {
        let (pushed, token_file) = (boards[index].clone(), token_file.clone());
        move |config: &mut CustomMetricsConfig| {
            config.pushed = pushed;
            config.relay = Some(RelayOptions {
                identity: format!("replica-{index}"),
                token_file,
            });
        }
    };
    let cluster = Cluster::start(replica(0)).await;
    until_served(&cluster).await;
    allow_pusher(&cluster).await;
    let mut told = boards.each_ref().map(|board| board.pushes().subscribe());
    cluster
        .serve_at([10, 10, 0, 2].into(), false, replica(1))
        .await;
    // The second one is found within seconds; from then on nothing gets lost, whichever the API server picks.
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let (mut value, mut in_a_row) = (0.0, 0);
    while in_a_row < 6 {
        value += 1.0;
        let body = message(&[(&[("__name__", "queue_depth")], value)], Timestamp::now());
        let pushed = push_as(&cluster.client(), "/namespaces/shop/pushedmetrics", body).await;
        let names = told.each_mut().map(|told| told.try_recv().is_ok());
        in_a_row = if names == [true, true] {
            in_a_row + 1
        } else {
            0
        };
        let is_late = tokio::time::Instant::now() > deadline;
        assert!(!is_late, "{pushed:?}, told: {names:?} at {value}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
