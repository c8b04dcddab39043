//! ElasticMetrics over a real Prometheus and over the endpoints of a Service, with everything that goes wrong with a source.

use std::time::Duration;

use elastic_metrics::PrometheusOptions;
use serde_json::{Value, json};

use crate::cluster::{Cluster, METRICS};
use crate::prometheus::{Exporter, Prometheus};

const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop";

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "name": "nginx"})
}

async fn with_prometheus(text: &str) -> (Exporter, Prometheus, Cluster) {
    let exporter = Exporter::start(text).await;
    let prometheus = Prometheus::start(&exporter).await;
    let url = prometheus.url.clone();
    let cluster = Cluster::start(|config| {
        config.prometheus = Some(PrometheusOptions {
            url,
            ..PrometheusOptions::default()
        });
    })
    .await;
    (exporter, prometheus, cluster)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_becomes_a_metric_of_an_object_and_an_external_one() {
    let (_exporter, _prometheus, cluster) =
        with_prometheus("devices{kind=\"a\"} 2000\ndevices{kind=\"b\"} 721\n").await;
    let every = json!({"query": "sum(devices)", "metric": "active_devices", "target": service(), "intervalSeconds": 1, "windowSeconds": 30});
    cluster.apply_metric("devices", every).await;
    cluster
        .apply_metric("by-kind", json!({"query": "devices", "intervalSeconds": 1}))
        .await;
    let answer = cluster
        .wait_for_value(&format!("{CUSTOM}/services/nginx/active_devices"), "2721")
        .await;
    assert_eq!(answer["items"][0]["windowSeconds"], 30);
    let metric = cluster.wait_for_reason("devices", "Read").await;
    let path = metric["status"]["path"].as_str().unwrap();
    assert_eq!(cluster.get(path).await["items"][0]["value"], "2721");
    assert_eq!(
        (&metric["status"]["value"], &metric["status"]["series"]),
        (&json!("2721"), &json!(1))
    );
    cluster.wait_for_reason("by-kind", "Read").await;
    let both = cluster.get(&format!("{EXTERNAL}/by-kind")).await;
    assert_eq!(both["items"].as_array().unwrap().len(), 2, "{both:#}");
    let one = cluster
        .get(&format!("{EXTERNAL}/by-kind?labelSelector=kind%3Db"))
        .await;
    assert_eq!(one["items"][0]["value"], "721", "{one:#}");
    let list = cluster.get("/apis/custom.metrics.k8s.io/v1beta1").await;
    assert_eq!(list["resources"][0]["name"], "services/active_devices");
    // Another one cannot take the metric over.
    cluster.apply_metric("thief", json!({"query": "vector(1)", "metric": "active_devices", "target": service(), "intervalSeconds": 1})).await;
    cluster.wait_for_reason("thief", "Conflict").await;
    assert_eq!(cluster.get(path).await["items"][0]["value"], "2721");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_fails_is_told_and_gives_no_value() {
    let (exporter, mut prometheus, cluster) = with_prometheus("devices 5\nbroken NaN\n").await;
    let spec = |query: &str| json!({"query": query, "target": service(), "intervalSeconds": 1, "maxAgeSeconds": 3});
    cluster.apply_metric("devices", spec("devices")).await;
    let path = format!("{CUSTOM}/services/nginx/devices");
    cluster.wait_for_value(&path, "5").await;
    for (name, query, reason) in [
        ("nan", "broken", "NotANumber"),
        ("divided", "devices / 0 * 0", "NotANumber"),
        ("none", "nothing_like_this", "NoSeries"),
        ("wrong", "sum(", "QueryFailed"),
        ("matrix", "devices[1m]", "QueryFailed"),
    ] {
        cluster.apply_metric(name, spec(query)).await;
        let metric = cluster.wait_for_reason(name, reason).await;
        assert_eq!(metric["status"]["conditions"][0]["status"], "False");
        assert!(metric["status"]["value"].is_null(), "{metric:#}");
        let answer = cluster
            .get(&format!("{CUSTOM}/services/nginx/{name}"))
            .await;
        assert_eq!(answer["code"], 500, "{answer:#}");
        assert!(
            answer["message"].as_str().unwrap().contains(reason),
            "{answer:#}"
        );
    }
    exporter.set(Some("other 1\n"));
    cluster.wait_for_reason("devices", "NoSeries").await;
    assert_eq!(cluster.get(&path).await["code"], 500);
    exporter.set(Some("devices 6\n"));
    cluster.wait_for_value(&path, "6").await;
    prometheus.kill();
    cluster
        .wait_for_reason("devices", "SourceUnavailable")
        .await;
    assert_eq!(cluster.get(&path).await["code"], 500);
    let events = cluster
        .get("/api/v1/namespaces/shop/events?fieldSelector=involvedObject.name%3Ddevices")
        .await;
    let reasons: Vec<&str> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["reason"].as_str())
        .collect();
    for reason in ["Read", "NoSeries", "SourceUnavailable"] {
        assert!(reasons.contains(&reason), "{reasons:?}");
    }
}

async fn shop_endpoints(cluster: &Cluster, endpoints: &[(&str, &Exporter)]) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "nginx", "namespace": "shop"},
        "spec": {"ports": [{"name": "metrics", "port": 9100}]}
    });
    cluster
        .apply("/api/v1/namespaces/shop/services/nginx", service)
        .await;
    for (name, exporter) in endpoints {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "nginx"}},
            "endpoints": [{"addresses": ["10.30.1.7"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": name, "namespace": "shop"}}],
            "ports": [{"name": "metrics", "port": exporter.port, "protocol": "TCP"}]
        });
        cluster
            .apply(
                &format!("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/{name}"),
                slice,
            )
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_prometheus_the_endpoints_of_a_service_are_read() {
    let cluster = Cluster::start(|_| {}).await;
    let (first, second) = (
        Exporter::start("sessions{k=\"a\"} 3\n").await,
        Exporter::start("sessions{k=\"a\"} 4\nsessions{k=\"b\"} 9\n").await,
    );
    let scrape =
        json!({"service": "nginx", "port": "metrics", "metric": "sessions", "labels": {"k": "a"}});
    let spec = |target: Value| json!({"scrape": scrape, "target": target, "intervalSeconds": 1, "maxAgeSeconds": 3});
    cluster.apply_metric("sessions", spec(service())).await;
    cluster
        .apply_metric("each", spec(json!({"apiVersion": "v1", "kind": "Pod"})))
        .await;
    cluster
        .apply_metric("asked", json!({"query": "up", "intervalSeconds": 1}))
        .await;
    cluster.wait_for_reason("sessions", "NoEndpoints").await;
    cluster.wait_for_reason("asked", "NoPrometheus").await;
    shop_endpoints(&cluster, &[("web-1", &first), ("web-2", &second)]).await;
    let path = format!("{CUSTOM}/services/nginx/sessions");
    cluster.wait_for_value(&path, "7").await;
    cluster
        .wait_for_value(&format!("{CUSTOM}/pods/web-2/each"), "4")
        .await;
    // An endpoint that stops answering keeps its value for a while; then the sum is unknown, not smaller.
    second.set(None);
    let seen = std::sync::Mutex::new(Vec::new());
    cluster
        .wait_for("the sum becomes unknown", async || {
            let answer = cluster.get(&path).await;
            seen.lock()
                .unwrap()
                .push(answer["items"][0]["value"].clone());
            if answer["code"] == 500 {
                Ok(())
            } else {
                Err(answer)
            }
        })
        .await;
    let values = seen.into_inner().unwrap();
    assert!(
        values.iter().all(|value| value.is_null() || value == "7"),
        "{values:?}"
    );
    let metric = cluster.wait_for("the object tells", async || {
        let metric = cluster.get(&format!("{METRICS}/sessions")).await;
        if metric["status"]["conditions"][0]["status"] == "False" {
            Ok(metric)
        } else {
            Err(metric)
        }
    });
    let metric = metric.await;
    assert!(
        ["ScrapeFailed", "Stale"].contains(
            &metric["status"]["conditions"][0]["reason"]
                .as_str()
                .unwrap()
        ),
        "{metric:#}"
    );
    second.set(Some("sessions{k=\"a\"} 1\n"));
    cluster.wait_for_value(&path, "4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_and_changed_metrics_are_followed() {
    let (_exporter, _prometheus, cluster) = with_prometheus("devices 5\n").await;
    let spec = |query: &str, kind: &str| json!({"query": query, "target": {"apiVersion": "v1", "kind": kind}, "intervalSeconds": 1});
    cluster
        .apply_metric("load", spec("devices", "Namespace"))
        .await;
    let path = format!("{CUSTOM}/metrics/load");
    cluster.wait_for_value(&path, "5").await;
    cluster
        .apply_metric("load", spec("devices * 2", "Namespace"))
        .await;
    cluster.wait_for_value(&path, "10").await;
    cluster
        .apply_metric("load", spec("devices", "Unheard"))
        .await;
    cluster.wait_for_reason("load", "UnknownKind").await;
    let request = http::Request::delete(format!("{METRICS}/load"))
        .body(Vec::new())
        .unwrap();
    cluster.client().request::<Value>(request).await.unwrap();
    cluster
        .wait_for("the metric is gone", async || {
            let list = cluster.get("/apis/custom.metrics.k8s.io/v1beta2").await;
            if list["resources"] == json!([]) {
                Ok(())
            } else {
                Err(list)
            }
        })
        .await;
    assert_eq!(cluster.get(&path).await["code"], 404);
    tokio::time::timeout(
        Duration::from_secs(30),
        cluster.apply_metric("load", spec("devices", "Namespace")),
    )
    .await
    .unwrap();
    cluster.wait_for_value(&path, "5").await;
}
