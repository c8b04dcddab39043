//! Both lists are compared all the time: nothing leaks, nothing is pretended, a restart changes nothing.

use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest};
use cloud_api::model::describe::Tag;
use cloud_api::model::manage::DeleteContainerGroupRequest;
use kube::api::DeleteParams;
use serde_json::Value;

use crate::support::{CLUSTER, Scene, eventually};

fn group(cluster: &str) -> CreateContainerGroupRequest {
    let tag = |key: &str, value: &str| Tag {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    CreateContainerGroupRequest {
        container_group_name: "orphan".to_owned(),
        container: vec![ContainerSpec {
            name: "c".into(),
            image: "i:1".into(),
            ..ContainerSpec::default()
        }],
        tag: vec![
            tag("springtide/cluster", cluster),
            tag("springtide/uid", "nobody"),
        ],
        ..CreateContainerGroupRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_a_pod_is_deleted_and_other_clusters_groups_are_left_alone() {
    let scene = Scene::start().await;
    let orphan = scene
        .eci
        .call(&group(CLUSTER))
        .await
        .unwrap()
        .container_group_id;
    let foreign = scene
        .eci
        .call(&group("another"))
        .await
        .unwrap()
        .container_group_id;
    eventually(
        "orphan is swept",
        async || scene.cloud.group_ids(),
        |ids| !ids.contains(&orphan),
    )
    .await;
    assert_eq!(scene.cloud.group_ids(), [foreign]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_whose_group_vanished_is_reported_failed() {
    let scene = Scene::start().await;
    scene.create_pod("web-1", |_| {}).await;
    let pod = scene.runs("web-1").await;
    let id = pod["metadata"]["annotations"]["k8s.aliyun.com/eci-instance-id"]
        .as_str()
        .unwrap();
    let request = DeleteContainerGroupRequest {
        container_group_id: id.to_owned(),
        ..Default::default()
    };
    scene.eci.call(&request).await.unwrap();
    let failed = |pod: &Value| pod["status"]["phase"] == "Failed";
    let pod = eventually("reported", async || scene.pod("web-1").await, failed).await;
    assert_eq!(pod["status"]["reason"], "NotFound");
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        -137
    );
    scene
        .pods
        .delete("web-1", &DeleteParams::default())
        .await
        .unwrap();
    eventually(
        "pod is gone",
        async || scene.pod("web-1").await,
        Value::is_null,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_takes_up_what_is_there() {
    let mut scene = Scene::start().await;
    for name in ["stays", "goes"] {
        scene.create_pod(name, |_| {}).await;
    }
    let before = scene.runs("stays").await;
    scene.runs("goes").await;
    scene.stop_nodes().await;
    scene
        .pods
        .delete("goes", &DeleteParams::default())
        .await
        .unwrap();
    scene.create_pod("new", |_| {}).await;
    scene.start_nodes();
    scene.runs("new").await;
    eventually(
        "deleted while away",
        async || scene.pod("goes").await,
        Value::is_null,
    )
    .await;
    let after = scene.pod("stays").await;
    let id = |pod: &Value| pod["metadata"]["annotations"]["k8s.aliyun.com/eci-instance-id"].clone();
    assert_eq!(id(&before), id(&after));
    assert_eq!(before["status"], after["status"]);
    assert_eq!(scene.cloud.group_ids().len(), 2);
}
