//! Zones without stock.

use local_cloud::{Fault, FaultOrder};
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

fn asking(
    strategy: &'static str,
    more: &'static [(&'static str, &'static str)],
) -> impl FnOnce(&mut Value) {
    move |pod| {
        let mut annotations = json!({"k8s.aliyun.com/eci-schedule-strategy": strategy});
        for (name, value) in more {
            annotations[format!("k8s.aliyun.com/{name}")] = json!(value);
        }
        pod["metadata"]["annotations"] = annotations;
    }
}

fn zone(pod: &Value) -> &Value {
    &pod["metadata"]["annotations"]["k8s.aliyun.com/eci-instance-zone"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_that_had_nothing_rests_for_random_pods_and_never_for_ordered_ones() {
    let scene = Scene::start().await;
    scene.cloud.set_stock(ZONES[0], Some(0.0));
    scene
        .create_pod("first", asking("VSwitchOrdered", &[]))
        .await;
    assert_eq!(zone(&scene.runs("first").await), ZONES[1]);
    scene.cloud.set_stock(ZONES[0], None);
    scene
        .create_pod("random", asking("VSwitchRandom", &[]))
        .await;
    scene
        .create_pod("ordered", asking("VSwitchOrdered", &[]))
        .await;
    assert_eq!(zone(&scene.runs("random").await), ZONES[1]);
    assert_eq!(zone(&scene.runs("ordered").await), ZONES[0]);
}

fn order(scene: &Scene, fault: Fault, action: Option<&str>, times: Option<u64>) {
    let order = FaultOrder {
        fault,
        action: action.map(str::to_owned),
        times,
        seconds: None,
    };
    scene.cloud.order_fault(order).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fails_back_outlives_every_fault() {
    let scene = Scene::start().await;
    order(
        &scene,
        Fault::NoAddresses {
            zone: None,
            v_switch: None,
        },
        None,
        None,
    );
    scene
        .create_pod(
            "back",
            asking("VSwitchOrdered", &[("eci-fail-strategy", "fail-back")]),
        )
        .await;
    let told = |reason: &'static str| {
        move |events: &Vec<(String, String)>| events.iter().any(|(found, _)| found == reason)
    };
    eventually(
        "no addresses",
        async || scene.events().await,
        told("IpNotEnough"),
    )
    .await;
    scene.cloud.clear_faults();
    order(&scene, Fault::SecurityGroup { id: None }, None, None);
    eventually(
        "security group",
        async || scene.events().await,
        told("ProviderInvokeFailed"),
    )
    .await;
    scene.cloud.clear_faults();
    scene.runs("back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fails_fast_outlives_what_is_no_failure_of_its_own() {
    let scene = Scene::start().await;
    let fast = || asking("VSwitchRandom", &[("eci-fail-strategy", "fail-fast")]);
    // To be one call too many, or to hear no answer, is no failure of the pod.
    order(
        &scene,
        Fault::Throttle,
        Some("CreateContainerGroup"),
        Some(6),
    );
    scene.create_pod("throttled", fast()).await;
    scene.runs("throttled").await;
    order(
        &scene,
        Fault::LoseAnswer,
        Some("CreateContainerGroup"),
        Some(2),
    );
    scene.create_pod("unheard", fast()).await;
    scene.runs("unheard").await;
    assert_eq!(scene.cloud.group_ids().len(), 2);
    // With nothing to be had it is, at once and for good.
    order(
        &scene,
        Fault::NoStock {
            zone: None,
            spec: None,
        },
        None,
        None,
    );
    scene.create_pod("fast", fast()).await;
    let failed = |pod: &Value| pod["status"]["reason"] == "ProviderFailed";
    eventually("told", async || scene.pod("fast").await, failed).await;
    scene.cloud.clear_faults();
    scene.create_pod("later", |_| {}).await;
    scene.runs("later").await;
    assert_eq!(scene.cloud.group_ids().len(), 3);
}
