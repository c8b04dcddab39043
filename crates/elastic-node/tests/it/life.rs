//! One pod from its creation to its end.

use cloud_api::model::describe::DescribeContainerGroupsRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use local_cloud::Fault;
use serde_json::{Value, json};

use crate::support::{Scene, ZONES, eventually, node};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn virtual_nodes_are_ready_with_label_taint_and_lease() {
    let scene = Scene::start().await;
    let nodes: Api<Node> = Api::all(scene.client.clone());
    let name = node(ZONES[1]);
    let look = async || serde_json::to_value(nodes.get_opt(&name).await.unwrap()).unwrap();
    let ready = |node: &Value| {
        let conditions = node["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let node = eventually("node is ready", look, ready).await;
    assert_eq!(node["metadata"]["labels"]["type"], "virtual-kubelet");
    let taint = |taint: &Value| {
        taint["key"] == "virtual-kubelet.io/provider" && taint["effect"] == "NoSchedule"
    };
    assert!(
        node["spec"]["taints"].as_array().unwrap().iter().any(taint),
        "{node:#}"
    );
    assert_eq!(
        node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"],
        10250
    );
    let leases: Api<Lease> = Api::namespaced(scene.client.clone(), "kube-node-lease");
    eventually(
        "lease",
        async || leases.get_opt(&name).await.unwrap(),
        Option::is_some,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_shows_its_group_and_goes_with_it() {
    let scene = Scene::start().await;
    scene.create_pod("web-1", |_| {}).await;
    let pod = scene.runs("web-1").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert!(
        pod["status"]["podIP"]
            .as_str()
            .unwrap()
            .starts_with("10.4."),
        "{pod:#}"
    );
    let annotations = &pod["metadata"]["annotations"];
    assert!(
        annotations["k8s.aliyun.com/eci-instance-id"]
            .as_str()
            .unwrap()
            .starts_with("eci-"),
        "{pod:#}"
    );
    assert_eq!(
        annotations["k8s.aliyun.com/eci-instance-spec"],
        "0.25-0.5Gi"
    );
    assert_eq!(annotations["k8s.aliyun.com/eci-instance-zone"], ZONES[0]);
    let moments: Value = serde_json::from_str(
        annotations["autoscaling.alibabacloud.com/moments"]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    for moment in ["created", "bound", "requested", "accepted", "running"] {
        assert!(moments[moment].is_string(), "{moment} in {moments}");
    }
    assert_eq!(
        pod["metadata"]["labels"]["serverless.alibabacloud.com/virtual-node"],
        "true"
    );
    let groups = scene
        .eci
        .all_container_groups(DescribeContainerGroupsRequest::default())
        .await
        .unwrap();
    assert_eq!(groups.len(), 1);
    assert!(
        groups[0]
            .tags
            .iter()
            .any(|tag| tag.key == "springtide/pod" && tag.value == "web-1")
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
    assert_eq!(scene.cloud.group_ids(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_made_anew_under_its_name_gets_a_group_of_its_own() {
    let scene = Scene::start().await;
    scene.create_pod("web-1", |_| {}).await;
    let first = scene.runs("web-1").await;
    // Without grace the pod is out of the API at once, long before its group is gone.
    scene
        .pods
        .delete("web-1", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    eventually(
        "first pod is gone",
        async || scene.pod("web-1").await,
        Value::is_null,
    )
    .await;
    scene.create_pod("web-1", |_| {}).await;
    let second = scene.runs("web-1").await;
    let id = |pod: &Value| pod["metadata"]["annotations"]["k8s.aliyun.com/eci-instance-id"].clone();
    assert_ne!(id(&first), id(&second));
    eventually(
        "first group is swept",
        async || scene.cloud.group_ids(),
        |ids| ids.len() == 1,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_never_makes_a_second_group() {
    let scene = Scene::start().await;
    scene
        .cloud
        .arrange_fault("CreateContainerGroup", Fault::LoseAnswer, 2);
    scene.create_pod("web-1", |_| {}).await;
    scene.runs("web-1").await;
    assert_eq!(scene.cloud.group_ids().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_config_map_is_told_and_waited_for() {
    let scene = Scene::start().await;
    scene
        .create_pod("web-1", |pod| {
            pod["spec"]["containers"][0]["envFrom"] =
                json!([{"configMapRef": {"name": "settings"}}]);
        })
        .await;
    let told = |events: &Vec<(String, String)>| {
        events.iter().any(|(_, message)| {
            message.contains("refers to ConfigMap settings, which does not exist")
        })
    };
    eventually("told", async || scene.events().await, told).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(scene.client.clone());
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"A": "1"}}))
            .unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let pod = scene.runs("web-1").await;
    assert!(pod["status"]["reason"].is_null(), "{pod:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_run_here_is_refused_in_words_and_can_be_deleted() {
    let scene = Scene::start().await;
    scene
        .create_pod("web-1", |pod| {
            pod["spec"]["volumes"] = json!([{"name": "host", "hostPath": {"path": "/etc"}}]);
        })
        .await;
    let told = |events: &Vec<(String, String)>| {
        let wanted = "spec.volumes[host]: hostPath needs a worker";
        events.iter().any(|(reason, message)| {
            reason == "ProviderCreateFailed" && message.starts_with(wanted)
        })
    };
    eventually("told", async || scene.events().await, told).await;
    let pod = scene.pod("web-1").await;
    assert_eq!(
        (&pod["status"]["phase"], &pod["status"]["reason"]),
        (&json!("Pending"), &json!("ProviderFailed"))
    );
    assert_eq!(scene.cloud.group_ids(), Vec::<String>::new());
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
