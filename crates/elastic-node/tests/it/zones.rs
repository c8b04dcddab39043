//! Zones without stock.

use serde_json::{Value, json};

use crate::support::{Scene, ZONES, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_zone_takes_the_pod_when_the_first_has_no_stock() {
    let scene = Scene::start().await;
    assert!(scene.cloud.set_stock(ZONES[0], Some(0.0)));
    scene.create_pod("web-1", |_| {}).await;
    let pod = scene.runs("web-1").await;
    assert_eq!(
        pod["metadata"]["annotations"]["k8s.aliyun.com/eci-instance-zone"],
        ZONES[1]
    );
    assert!(
        pod["status"]["podIP"]
            .as_str()
            .unwrap()
            .starts_with("10.5."),
        "{pod:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_stock_anywhere_the_pod_says_so_and_runs_as_soon_as_there_is_some() {
    let scene = Scene::start().await;
    for zone in ZONES {
        scene.cloud.set_stock(zone, Some(0.0));
    }
    scene.create_pod("web-1", |_| {}).await;
    let told = |pod: &Value| {
        let conditions = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions.iter().any(|found| {
            found["type"] == "ContainerInstanceCreated" && found["reason"] == "NoStock"
        })
    };
    let pod = eventually("told", async || scene.pod("web-1").await, told).await;
    assert_eq!(pod["status"]["phase"], "Pending");
    let events = async || scene.events().await;
    eventually("event", events, |events| {
        events.iter().any(|(reason, _)| reason == "NoStock")
    })
    .await;
    scene.cloud.set_stock(ZONES[1], None);
    let pod = scene.runs("web-1").await;
    assert!(pod["status"]["reason"].is_null(), "{pod:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_names_its_zone_waits_for_it() {
    let scene = Scene::start().await;
    scene.cloud.set_stock(ZONES[0], Some(0.0));
    scene
        .create_pod("web-1", |pod| {
            pod["spec"]["nodeSelector"] = json!({"topology.kubernetes.io/zone": ZONES[0]});
        })
        .await;
    let told =
        |events: &Vec<(String, String)>| events.iter().any(|(reason, _)| reason == "NoStock");
    eventually("event", async || scene.events().await, told).await;
    assert_eq!(scene.cloud.group_ids(), Vec::<String>::new());
    scene.cloud.set_stock(ZONES[0], None);
    scene.runs("web-1").await;
}
