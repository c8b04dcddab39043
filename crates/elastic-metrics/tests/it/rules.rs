//! Rules of prometheus-adapter over a real Prometheus, asked through the API server as autoscalers do.

use elastic_metrics::{AdapterConfig, PrometheusOptions};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::{Value, json};

use crate::cluster::{Cluster, get};
use crate::prometheus::{Exporter, Prometheus};

const RULES: &str = r#"
rules:
  - seriesQuery: 'active_devices{namespace!="",service!=""}'
    resources:
      overrides:
        namespace: {resource: namespace}
        service: {resource: service}
    metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
  - seriesQuery: '{__name__=~"^http_.*_total$",namespace!=""}'
    resources: {template: "<<.Resource>>"}
    name: {matches: "^(.*)_total$", as: "${1}_now"}
    metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
externalRules:
  - seriesQuery: '{__name__=~"^queue_.*"}'
    resources: {overrides: {namespace: {resource: namespace}}}
    metricsQuery: 'max(<<.Series>>{<<.LabelMatchers>>}) by (queue)'
"#;

const DEVICES: &str = "active_devices{namespace=\"shop\",service=\"nginx\",job=\"x\"} 2721\n";

fn pods(text: &mut String, count: usize) {
    for number in 0..count {
        text.push_str(&format!(
            "http_requests_total{{namespace=\"shop\",pod=\"web-{number}\"}} {number}.5\n"
        ));
    }
}

async fn started(text: &str) -> (Exporter, Prometheus, Cluster) {
    let exporter = Exporter::start(text).await;
    let prometheus = Prometheus::start(&exporter).await;
    let url = prometheus.url.clone();
    let cluster = Cluster::start(|config| {
        config.prometheus = Some(PrometheusOptions {
            url,
            ..PrometheusOptions::default()
        });
        config.rules = Some(AdapterConfig::parse(RULES).unwrap());
    })
    .await;
    (exporter, prometheus, cluster)
}

/// Pods in `shop`, by name and label `app`.
pub async fn create_pods(cluster: &Cluster, names: &[(&str, &str)]) {
    let api: Api<Pod> = Api::namespaced(cluster.client(), "shop");
    for (name, app) in names {
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": app}},
            "spec": {"containers": [{"name": "web", "image": "web:1"}]}
        });
        api.create(&Default::default(), &serde_json::from_value(pod).unwrap())
            .await
            .unwrap();
    }
}

fn values(answer: &Value) -> Vec<(String, String)> {
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    items
        .iter()
        .map(|item| (text(&item["describedObject"]["name"]), text(&item["value"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_of_the_chat_service_lists_and_reads_its_metric() {
    let (exporter, prometheus, cluster) = started(DEVICES).await;
    let list = cluster
        .wait_for("active_devices is listed", async || {
            let list = cluster.get("/apis/custom.metrics.k8s.io/v1beta1").await;
            let count = list["resources"].as_array().map_or(0, Vec::len);
            if count > 0 {
                Ok(list)
            } else {
                Err(json!([list, prometheus.log()]))
            }
        })
        .await;
    let entry = |name: &str, namespaced: bool| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": "MetricValueList", "verbs": ["get"]});
    let expected = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "custom.metrics.k8s.io/v1beta1",
        "resources": [entry("namespaces/active_devices", false), entry("services/active_devices", true)]
    });
    assert_eq!(list, expected);
    let service = cluster
        .get("/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/services/nginx/active_devices")
        .await;
    assert_eq!(service["kind"], "MetricValueList", "{service:#}");
    let object =
        json!({"kind": "Service", "namespace": "shop", "name": "nginx", "apiVersion": "v1"});
    assert_eq!(service["items"][0]["describedObject"], object);
    assert_eq!(
        service["items"][0]["metric"],
        json!({"name": "active_devices", "selector": null})
    );
    assert_eq!(service["items"][0]["value"], "2721");
    let namespace = cluster
        .get("/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/metrics/active_devices")
        .await;
    assert_eq!(
        values(&namespace),
        [("shop".to_owned(), "2721".to_owned())],
        "{namespace:#}"
    );
    // A series that appears is listed and read without anybody's doing.
    exporter.set(Some(&format!(
        "{DEVICES}queue_depth{{namespace=\"shop\",queue=\"orders\"}} 7\n"
    )));
    let external = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue_depth?labelSelector=queue%3Dorders";
    let depth = cluster.wait_for_value(external, "7").await;
    assert_eq!(
        depth["items"][0]["metricLabels"],
        json!({"queue": "orders"})
    );
    let list = cluster.get("/apis/external.metrics.k8s.io/v1beta1").await;
    assert_eq!(list["resources"][0]["name"], "queue_depth");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_picked_by_selector_also_when_they_are_many() {
    let mut text = String::new();
    pods(&mut text, 60);
    let (_exporter, _prometheus, cluster) = started(&text).await;
    let names: Vec<String> = (0..40).map(|number| format!("web-{number}")).collect();
    let mut wanted: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "many")).collect();
    wanted.extend([("web-50", "few"), ("web-51", "few"), ("quiet", "few")]);
    create_pods(&cluster, &wanted).await;
    let few = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/%2A/http_requests_now?labelSelector=app%3Dfew";
    let answer = cluster.wait_for_value(few, "50500m").await;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        values(&answer),
        [pair("web-50", "50500m"), pair("web-51", "51500m")]
    );
    let many = cluster.get(&few.replace("few", "many")).await;
    assert_eq!(values(&many).len(), 40, "{many:#}");
    let one = cluster
        .get("/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/pods/web-3/http_requests_now")
        .await;
    assert_eq!(
        one["items"][0]["metricName"], "http_requests_now",
        "{one:#}"
    );
    assert_eq!(values(&one), [pair("web-3", "3500m")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_missing_and_unreadable_metrics_are_errors_and_never_zero() {
    let nan = "active_devices{namespace=\"shop\",service=\"broken\"} NaN\nqueue_a{namespace=\"shop\",queue=\"x\"} NaN\n";
    let (_exporter, mut prometheus, cluster) = started(&format!("{DEVICES}{nan}")).await;
    let base = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/services";
    cluster
        .wait_for_value(&format!("{base}/nginx/active_devices"), "2721")
        .await;
    let cases = [
        (
            format!("{base}/nginx/gone"),
            404,
            "the server could not find the metric gone for services",
        ),
        (
            format!("{base}/other/active_devices"),
            404,
            "the server could not find the metric active_devices for services other",
        ),
        (format!("{base}/broken/active_devices"), 500, "not a number"),
        (
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/gone".to_owned(),
            404,
            "the server could not find the metric gone",
        ),
        (
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue_a".to_owned(),
            500,
            "not a number",
        ),
        (
            format!("{base}/nginx/active_devices?metricLabelSelector=a%20b"),
            400,
            "metricLabelSelector",
        ),
        (
            "/apis/custom.metrics.k8s.io/v1beta2/nothing".to_owned(),
            404,
            "could not find the requested resource",
        ),
    ];
    for (path, code, message) in cases {
        let answer = cluster.get(&path).await;
        assert_eq!(answer["code"], code, "{path}: {answer:#}");
        assert!(
            answer["message"].as_str().unwrap().contains(message),
            "{path}: {answer:#}"
        );
    }
    prometheus.kill();
    let answer = cluster.get(&format!("{base}/nginx/active_devices")).await;
    assert_eq!(
        (&answer["code"], &answer["reason"]),
        (&json!(500), &json!("InternalError")),
        "{answer:#}"
    );
    let list = cluster.get("/apis/custom.metrics.k8s.io/v1beta2").await;
    assert_eq!(
        list["resources"].as_array().map(Vec::len),
        Some(2),
        "known metrics stay listed: {list:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clusters_own_rules_decide_who_may_ask() {
    let (_exporter, _prometheus, cluster) = started(DEVICES).await;
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/services/nginx/active_devices";
    cluster.wait_for_value(path, "2721").await;
    let refused = get(&cluster.api.server.client_as("mallory", &[]), path).await;
    assert_eq!(refused["code"], 403, "{refused:#}");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "metrics-reader"},
        "rules": [{"apiGroups": ["custom.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}]
    });
    cluster
        .apply(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/metrics-reader",
            role,
        )
        .await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "metrics-reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "metrics-reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}]
    });
    cluster
        .apply(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/metrics-reader",
            binding,
        )
        .await;
    let alice = cluster.api.server.client_as("alice", &[]);
    cluster
        .wait_for("alice may ask", async || {
            let answer = get(&alice, path).await;
            if answer["items"][0]["value"] == "2721" {
                Ok(())
            } else {
                Err(answer)
            }
        })
        .await;
}
