//! ElasticForecasts as external metrics.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const FORECASTS: &str =
    "/apis/autoscaling.alibabacloud.com/v1beta1/namespaces/shop/elasticforecasts";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// An ElasticForecast whose controller has just written what it found.
async fn forecast(cluster: &Cluster, name: &str, mode: &str, made: Timestamp) {
    let identity = json!({
        "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticForecast",
        "metadata": {"name": name, "namespace": "shop"}
    });
    let mut object = identity.clone();
    object["spec"] = json!({"mode": mode, "capacityPerReplica": "100", "source": {"configMap": {"name": "history"}}});
    cluster.apply(&format!("{FORECASTS}/{name}"), object).await;
    let mut object = identity;
    object["status"] = json!({
        "forecastTime": made.to_string(), "forecastReplicas": 7,
        "forecast": [{"quantile": "0.5", "value": "512500m"}, {"quantile": "0.95", "value": "700"}]
    });
    cluster
        .apply(&format!("{FORECASTS}/{name}/status"), object)
        .await;
}

fn items(answer: &Value) -> Vec<(Value, Value)> {
    let items = answer["items"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer:#}"));
    items
        .iter()
        .map(|item| (item["metricLabels"].clone(), item["value"].clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forecast_that_serves_is_an_external_metric_and_others_are_none() {
    let cluster = Cluster::start(|_| {}).await;
    let now = Timestamp::now();
    forecast(&cluster, "observing", "Observe", now).await;
    forecast(
        &cluster,
        "old",
        "Serve",
        now - jiff::SignedDuration::from_hours(1),
    )
    .await;
    forecast(&cluster, "web", "Serve", now).await;
    let in_shop = format!("{EXTERNAL}/namespaces/shop");
    let replicas = format!("{in_shop}/forecast_replicas");
    let answer = cluster.wait_for_value(&replicas, "7").await;
    assert_eq!(items(&answer), [(json!({"forecast": "web"}), json!("7"))]);
    let median = format!("{in_shop}/forecast?labelSelector=quantile%3D0.5,forecast%3Dweb");
    let answer = cluster.get(&median).await;
    assert_eq!(
        items(&answer),
        [(
            json!({"forecast": "web", "quantile": "0.5"}),
            json!("512500m")
        )]
    );
    let listed = cluster.get(EXTERNAL).await;
    let names = listed["resources"].as_array().unwrap().iter();
    let names: Vec<&str> = names.filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["forecast", "forecast_replicas"]);
    let elsewhere = format!("{EXTERNAL}/namespaces/default/forecast_replicas");
    assert_eq!(cluster.get(&elsewhere).await["code"], 404);
}
