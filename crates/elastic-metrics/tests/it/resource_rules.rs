//! `metrics.k8s.io` from a real Prometheus by `resourceRules`, asked through the API server as `kubectl top` does.

use elastic_metrics::{AdapterConfig, PrometheusOptions};
use serde_json::{Value, json};

use crate::cluster::{Cluster, get};
use crate::prometheus::{Exporter, Prometheus};
use crate::rules::create_pods;

/// As prometheus-adapter's own chart has them, with a shorter window.
const RULES: &str = r#"
resourceRules:
  cpu:
    containerQuery: 'sum by (<<.GroupBy>>) (rate(container_cpu_usage_seconds_total{container!="",<<.LabelMatchers>>}[10s]))'
    nodeQuery: 'sum by (<<.GroupBy>>) (node_cores_used{<<.LabelMatchers>>})'
    resources: {overrides: {instance: {resource: node}, namespace: {resource: namespace}, pod: {resource: pod}}}
    containerLabel: container
  memory:
    containerQuery: 'sum by (<<.GroupBy>>) (container_memory_working_set_bytes{container!="",<<.LabelMatchers>>})'
    nodeQuery: 'sum by (<<.GroupBy>>) (node_memory_used_bytes{<<.LabelMatchers>>})'
    resources: {overrides: {instance: {resource: node}, namespace: {resource: namespace}, pod: {resource: pod}}}
    containerLabel: container
  window: 10s
"#;

const GROUP: &str = "/apis/metrics.k8s.io/v1beta1";

/// Half a core of `web-1`, whose counter grows with the time; `other` has memory alone.
fn text(seconds: f64) -> String {
    let container = |pod: &str| format!("{{namespace=\"shop\",pod=\"{pod}\",container=\"web\"}}");
    format!(
        "container_cpu_usage_seconds_total{web} {cpu}\ncontainer_memory_working_set_bytes{web} 4096\n\
         container_memory_working_set_bytes{other} 4096\n\
         node_cores_used{{instance=\"worker-1\"}} 1.5\nnode_memory_used_bytes{{instance=\"worker-1\"}} 8192\n",
        web = container("web-1"),
        other = container("other"),
        cpu = seconds / 2.0,
    )
}

/// Keeps the counters growing until dropped.
struct Growing(tokio::task::JoinHandle<()>);

impl Drop for Growing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn grow(exporter: Exporter) -> Growing {
    let started = tokio::time::Instant::now();
    Growing(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            ticks.tick().await;
            exporter.set(Some(&text(started.elapsed().as_secs_f64())));
        }
    }))
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect()
}

fn cpu_millis(list: &Value) -> i64 {
    let cpu = &list["items"][0]["containers"][0]["usage"]["cpu"];
    let millis = elastic_core::quantity::millis(cpu.as_str().unwrap_or("0"));
    millis.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_and_nodes_are_read_from_prometheus_and_its_failure_is_told() {
    let exporter = Exporter::start(&text(0.0)).await;
    let growing = grow(exporter.clone());
    let mut prometheus = Prometheus::start(&exporter).await;
    let url = prometheus.url.clone();
    let cluster = Cluster::start(|config| {
        config.groups.resource = true;
        config.prometheus = Some(PrometheusOptions {
            url,
            ..PrometheusOptions::default()
        });
        config.rules = Some(AdapterConfig::parse(RULES).unwrap());
    })
    .await;
    create_pods(&cluster, &[("web-1", "web"), ("other", "web")]).await;
    let of_web = format!("{GROUP}/namespaces/shop/pods?labelSelector=app%3Dweb");
    let list = cluster
        .wait_for("web-1 is shown with half a core", async || {
            let list = cluster.get(&of_web).await;
            // Over its first samples Prometheus extrapolates wildly.
            let steady = (400..=600).contains(&cpu_millis(&list));
            if steady {
                Ok(list)
            } else {
                Err(json!([list, prometheus.log()]))
            }
        })
        .await;
    assert_eq!(names(&list), ["web-1"], "a pod without a CPU is not shown");
    let container = &list["items"][0]["containers"][0];
    assert_eq!(
        (&container["name"], &container["usage"]["memory"]),
        (&json!("web"), &json!("4Ki"))
    );
    assert_eq!(list["items"][0]["window"], "10s");
    let all = cluster.get(&format!("{GROUP}/pods")).await;
    assert_eq!(names(&all), ["web-1"], "{all:#}");
    let node = cluster.get(&format!("{GROUP}/nodes/worker-1")).await;
    assert_eq!(
        node["usage"],
        json!({"cpu": "1500000000n", "memory": "8Ki"}),
        "{node:#}"
    );
    let nobody = cluster.api.server.client_as(
        "system:serviceaccount:shop:default",
        &["system:authenticated"],
    );
    assert_eq!(get(&nobody, &of_web).await["code"], 403);
    drop(growing);
    prometheus.kill();
    let failed = cluster
        .wait_for("the failure is told", async || {
            let answer = cluster.get(&of_web).await;
            if answer["code"] == 500 {
                Ok(answer)
            } else {
                Err(answer)
            }
        })
        .await;
    let message = failed["message"].as_str().unwrap();
    assert!(
        message.contains("unable to fetch metrics") && message.contains("Prometheus"),
        "{message}"
    );
}
