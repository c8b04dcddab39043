//! A real autoscaler over every kind of source, while the sources go wrong in every way: it says so and keeps its size.

use std::time::Duration;

use elastic_metrics::{AdapterConfig, PrometheusOptions};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use local_controllers::config::{AutoscalerConfig, AutoscalerFlags};
use local_controllers::horizontal_pod_autoscaler;
use serde_json::{Value, json};

use crate::cluster::{Cluster, METRICS};
use crate::prometheus::{Exporter, Prometheus};
use crate::rules::create_pods;

const RULES: &str = r#"
rules:
  - seriesQuery: '{__name__=~"^(active|rps)$",namespace!=""}'
    resources: {template: "<<.Resource>>"}
    metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
externalRules:
  - seriesQuery: 'depth{namespace!=""}'
    resources: {overrides: {namespace: {resource: namespace}}}
    metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (queue)'
"#;
const REPLICAS: i32 = 4;
/// What the autoscalers are called after, and what each looks at.
const SOURCES: [&str; 5] = [
    "object-by-rule",
    "pods-by-rule",
    "external-by-rule",
    "object-by-query",
    "external-by-scrape",
];

/// The page with the same value everywhere: four replicas are right.
fn page(value: &str) -> String {
    let pods = (0..REPLICAS)
        .map(|index| format!("rps{{namespace=\"shop\",pod=\"pods-by-rule-{index}\"}} {value}\n"));
    let pods: String = pods.collect();
    format!(
        "active{{namespace=\"shop\",service=\"web\"}} {value}\ndepth{{namespace=\"shop\",queue=\"orders\"}} {value}\n\
         sessions {value}\n{pods}"
    )
}

fn metric(source: &str) -> Value {
    let service = json!({"apiVersion": "v1", "kind": "Service", "name": "web"});
    let value = json!({"type": "Value", "value": "12"});
    let object = |name: &str| json!({"type": "Object", "object": {"describedObject": service, "metric": {"name": name}, "target": value}});
    let external = |name: &str| json!({"type": "External", "external": {"metric": {"name": name}, "target": value}});
    match source {
        "object-by-rule" => object("active"),
        "object-by-query" => object("queried"),
        "external-by-rule" => external("depth"),
        "external-by-scrape" => external("scraped"),
        _ => json!({"type": "Pods", "pods": {"metric": {"name": "rps"},
            "target": {"type": "AverageValue", "averageValue": "12"}}}),
    }
}

async fn create(cluster: &Cluster, source: &str) {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": source},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": {"app": source}}, "template": {
            "metadata": {"labels": {"app": source}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}}
    });
    let path = format!("/apis/apps/v1/namespaces/shop/deployments/{source}");
    cluster.apply(&path, deployment).await;
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": source},
        "status": {"replicas": REPLICAS, "readyReplicas": REPLICAS}});
    let patch = http::Request::patch(format!("{path}/status?fieldManager=test"))
        .header("content-type", "application/merge-patch+json")
        .body(status.to_string().into_bytes())
        .unwrap();
    cluster.client().request::<Value>(patch).await.unwrap();
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": source},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": source},
            "minReplicas": 1, "maxReplicas": 10, "metrics": [metric(source)],
            // Nothing but the missing value holds it back.
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}
    });
    let path = format!("/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/{source}");
    cluster.apply(&path, autoscaler).await;
}

/// Pods of a Deployment, running and ready for long.
async fn run_pods(cluster: &Cluster, source: &str) {
    let names: Vec<String> = (0..REPLICAS)
        .map(|index| format!("{source}-{index}"))
        .collect();
    let pods: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), source)).collect();
    create_pods(cluster, &pods).await;
    let api: Api<Pod> = Api::namespaced(cluster.client(), "shop");
    let long_ago = "2026-01-01T00:00:00Z";
    for name in names {
        let status = json!({"status": {"phase": "Running", "startTime": long_ago,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}]}});
        let (params, patch) = (PatchParams::default(), Patch::Strategic(status));
        api.patch_status(&name, &params, &patch).await.unwrap();
    }
}

/// ElasticMetrics: a query, and a look at an endpoint.
async fn create_metrics(cluster: &Cluster, exporter: &Exporter) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"ports": [{"name": "metrics", "port": 9100}]}
    });
    let path = "/api/v1/namespaces/shop/services/web";
    cluster.apply(path, service).await;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.30.1.7"], "conditions": {"ready": true}}],
        "ports": [{"name": "metrics", "port": exporter.port, "protocol": "TCP"}]
    });
    let path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/web";
    cluster.apply(path, slice).await;
    let queried = json!({"query": "sessions", "intervalSeconds": 1, "maxAgeSeconds": 3,
        "target": {"apiVersion": "v1", "kind": "Service", "name": "web"}});
    cluster.apply_metric("queried", queried).await;
    let scraped = json!({"scrape": {"service": "web", "metric": "sessions"}, "intervalSeconds": 1, "maxAgeSeconds": 3});
    cluster.apply_metric("scraped", scraped).await;
}

/// Waits until the autoscalers of `sources` can tell what is wanted, or cannot; gives their reasons.
async fn until_active(cluster: &Cluster, sources: &[&str], wanted: &str, why: &str) -> Vec<Value> {
    let mut reasons = Vec::new();
    for source in sources {
        let path =
            format!("/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/{source}");
        let what = format!("{why}: ScalingActive of {source} is {wanted}");
        let look = async || {
            let autoscaler = cluster.get(&path).await;
            let conditions = autoscaler["status"]["conditions"].as_array().cloned();
            let found = conditions.into_iter().flatten();
            let mut found = found.filter(|one| one["type"] == "ScalingActive");
            match found.next() {
                Some(one) if one["status"] == wanted => Ok(one),
                _ => Err(autoscaler["status"].clone()),
            }
        };
        reasons.push(cluster.wait_for(&what, look).await);
    }
    reasons
}

/// Nobody has touched a Deployment's spec since it was made.
async fn assert_untouched(cluster: &Cluster, why: &str) {
    for source in SOURCES {
        let path = format!("/apis/apps/v1/namespaces/shop/deployments/{source}");
        let found = cluster.get(&path).await;
        let state = (&found["spec"]["replicas"], &found["metadata"]["generation"]);
        assert_eq!(state, (&json!(REPLICAS), &json!(1)), "{why}: {source}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_with_a_source_is_told_by_the_autoscaler_and_shrinks_nothing() {
    let exporter = Exporter::start(&page("12")).await;
    let mut prometheus = Prometheus::start(&exporter).await;
    let url = prometheus.url.clone();
    let cluster = Cluster::start(|config| {
        config.prometheus = Some(PrometheusOptions {
            url,
            ..PrometheusOptions::default()
        });
        config.rules = Some(AdapterConfig::parse(RULES).unwrap());
    })
    .await;
    create_metrics(&cluster, &exporter).await;
    for source in SOURCES {
        run_pods(&cluster, source).await;
        create(&cluster, source).await;
    }
    let controllers =
        local_controllers::shared::Cluster::new(cluster.client(), cluster.shutdown.clone());
    let config = AutoscalerConfig {
        sync_period: Duration::from_millis(200),
        flags: AutoscalerFlags {
            downscale_stabilization: jiff::SignedDuration::ZERO,
            ..AutoscalerFlags::default()
        },
    };
    horizontal_pod_autoscaler::start(&controllers, config);
    until_active(&cluster, &SOURCES, "True", "at first").await;
    for (why, text) in [
        ("no numbers", Some(page("NaN"))),
        ("missing", Some("other 1\n".to_owned())),
        ("infinite", Some(page("+Inf"))),
        ("the exporter fails, so the series end", None),
    ] {
        exporter.set(text.as_deref());
        let told = until_active(&cluster, &SOURCES, "False", why).await;
        for one in &told {
            let reason = one["reason"].as_str().unwrap();
            assert!(reason.starts_with("FailedGet"), "{why}: {one:#}");
        }
        for name in ["queried", "scraped"] {
            let told = async || {
                let metric = cluster.get(&format!("{METRICS}/{name}")).await;
                let ready = &metric["status"]["conditions"][0]["status"];
                if ready == "False" {
                    Ok(())
                } else {
                    Err(metric)
                }
            };
            cluster
                .wait_for(&format!("{why}: {name} tells it"), told)
                .await;
        }
        assert_untouched(&cluster, why).await;
        exporter.set(Some(&page("12")));
        until_active(&cluster, &SOURCES, "True", "mended").await;
        assert_untouched(&cluster, "mended").await;
    }
    prometheus.kill();
    until_active(&cluster, &SOURCES[..4], "False", "Prometheus is gone").await;
    until_active(&cluster, &SOURCES[4..], "True", "asked without Prometheus").await;
    assert_untouched(&cluster, "Prometheus is gone").await;
}
