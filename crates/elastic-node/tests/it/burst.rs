//! Many pods at once. The figures are printed; `SPRINGTIDE_BURST` sets another number of pods than the quick 100.

use std::collections::BTreeMap;
use std::time::Instant;

use elastic_core::names::POD_MOMENTS_ANNOTATION;
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};

use crate::support::{Scene, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_runs_and_is_gone_again_with_nothing_left() {
    let count = std::env::var("SPRINGTIDE_BURST")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(100);
    let scene = Scene::start().await;
    scene.create_pod("warm-up", |_| {}).await;
    scene.runs("warm-up").await;
    let started = Instant::now();
    let began = jiff::Timestamp::now();
    let names: Vec<String> = (0..count).map(|index| format!("web-{index}")).collect();
    let creates = names.iter().map(|name| scene.create_pod(name, |_| {}));
    futures::stream::iter(creates)
        .buffer_unordered(32)
        .collect::<Vec<_>>()
        .await;
    let created = started.elapsed();
    let running = async || {
        let list = scene.pods.list(&ListParams::default()).await.unwrap();
        let phase = |pod: &k8s_openapi::api::core::v1::Pod| {
            pod.status.as_ref().and_then(|status| status.phase.clone())
        };
        list.items
            .iter()
            .filter(|pod| phase(pod).as_deref() == Some("Running"))
            .count()
    };
    // Looking costs the same two cores, so the end is watched for where it is cheap.
    let listed = async || scene.cloud.group_ids().len();
    eventually("all created", listed, |groups| *groups == count + 1).await;
    eventually("all run", running, |running| *running == count + 1).await;
    let ran = started.elapsed();
    print_moments(&scene, began).await;
    assert_eq!(scene.cloud.group_ids().len(), count + 1);
    let stopped = Instant::now();
    let deletes = names.iter().map(|name| async {
        scene
            .pods
            .delete(name, &DeleteParams::default())
            .await
            .unwrap()
    });
    futures::stream::iter(deletes)
        .buffer_unordered(32)
        .collect::<Vec<_>>()
        .await;
    let deleted = stopped.elapsed();
    eventually(
        "all gone",
        async || scene.pod_names().await.len(),
        |left| *left == 1,
    )
    .await;
    println!(
        "{count} pods: created {created:?}, running {ran:?}; deleted {deleted:?}, gone {:?}",
        stopped.elapsed()
    );
    assert_eq!(scene.cloud.group_ids().len(), 1);
}

/// When the last pod had taken each step, which shows where the time goes.
async fn print_moments(scene: &Scene, began: jiff::Timestamp) {
    let pods = scene.pods.list(&ListParams::default()).await.unwrap().items;
    let mut latest: BTreeMap<String, i64> = BTreeMap::new();
    for pod in pods {
        let text = pod
            .annotations()
            .get(POD_MOMENTS_ANNOTATION)
            .cloned()
            .unwrap_or_default();
        let moments: BTreeMap<String, jiff::Timestamp> =
            serde_json::from_str(&text).unwrap_or_default();
        for (step, at) in moments {
            let after = at.as_millisecond() - began.as_millisecond();
            let latest = latest.entry(step).or_default();
            *latest = after.max(*latest);
        }
    }
    println!("last pod, milliseconds after the start: {latest:?}");
}
