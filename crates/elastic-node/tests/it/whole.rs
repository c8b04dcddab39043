//! Pods in full: annotations, effects of rules, what is written back, sidecars, updates in place, and what is refused.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloud_api::model::describe::{ContainerGroup, DescribeContainerGroupsRequest};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::profile::{profile_events, write};
use crate::support::{Scene, ZONES, eventually};

const PREFIX: &str = "k8s.aliyun.com/";

fn annotation<'p>(pod: &'p Value, name: &str) -> &'p Value {
    &pod["metadata"]["annotations"][format!("{PREFIX}{name}")]
}

async fn group(scene: &Scene) -> ContainerGroup {
    let all = scene
        .eci
        .all_container_groups(DescribeContainerGroupsRequest::default())
        .await;
    all.unwrap().pop().unwrap()
}

async fn told(scene: &Scene, reason: &str, words: &str) {
    let is = |events: &Vec<(String, String)>| {
        events
            .iter()
            .any(|(found, message)| found == reason && message.contains(words))
    };
    eventually(words, async || scene.events().await, is).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_gpus_gets_a_machine_that_has_them_and_is_billed_for_it() {
    let scene = Scene::start().await;
    let specs = "ecs.gn6i-c4g1.xlarge,ecs.gn6i-c8g1.2xlarge";
    let ask = |pod: &mut Value| {
        pod["metadata"]["annotations"][format!("{PREFIX}eci-use-specs")] = json!(specs);
        let limits = json!({"nvidia.com/gpu": "1", "cpu": "2", "memory": "4Gi"});
        pod["spec"]["containers"][0]["resources"] = json!({"limits": limits});
    };
    scene.create_pod("train", ask).await;
    scene.runs("train").await;
    let nodes: Api<Node> = Api::all(scene.client.clone());
    let node = nodes.get(&format!("virtual-kubelet-{}", ZONES[0])).await;
    let amounts = node.unwrap().status.unwrap().allocatable.unwrap();
    // As Kubernetes writes a thousand.
    assert_eq!(amounts["nvidia.com/gpu"].0, "1k");
    let group = group(&scene).await;
    assert_eq!(group.containers[0].gpu, 1);
    let machine = "ecs.gn6i-c4g1.xlarge";
    assert_eq!(group.instance_type.as_deref(), Some(machine));
    assert_eq!((group.cpu, group.memory), (4.0, 15.0));
    let look = async || scene.pod("train").await;
    let billed = |pod: &Value| annotation(pod, "eci-instance-mem") == "15.0";
    let pod = eventually("the machine is written back", look, billed).await;
    assert_eq!(annotation(&pod, "eci-instance-spec"), machine);
    assert_eq!(annotation(&pod, "eci-instance-cpu"), "4.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cloud_tells_is_written_back_and_then_nothing_more_is_written() {
    let scene = Scene::start().await;
    scene.create_pod("web-1", |_| {}).await;
    scene.runs("web-1").await;
    let look = async || scene.pod("web-1").await;
    let described = |pod: &Value| annotation(pod, "eci-vpc").is_string();
    let pod = eventually("described", look, described).await;
    let group = group(&scene).await;
    let expected = [
        ("eci-instance-zone", group.zone_id.clone()),
        ("eci-vswitch", group.v_switch_id.clone()),
        ("eci-security-group", group.security_group_id.clone()),
        ("eci-vpc", group.vpc_id.clone()),
        ("eci-instance-spec", "0.25-0.5Gi".to_owned()),
        (
            "eci-client-token",
            pod["metadata"]["uid"].as_str().unwrap().to_owned(),
        ),
        ("eci-schedule-result", "finished".to_owned()),
        ("eci-kube-proxy-enabled", "true".to_owned()),
        ("cluster-domain", "cluster.local".to_owned()),
    ];
    for (name, value) in expected {
        assert_eq!(annotation(&pod, name), &json!(value), "{name} in {pod:#}");
    }
    assert_eq!(pod["metadata"]["annotations"]["ProviderCreate"], "done");

    // Other pods come and go, the cloud is looked at again and again: the idle one is not written.
    for name in ["a", "b", "c"] {
        scene.create_pod(name, |_| {}).await;
        scene.runs(name).await;
        scene
            .pods
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
        eventually("gone", async || scene.pod(name).await, Value::is_null).await;
    }
    let after = scene.pod("web-1").await;
    assert_eq!(
        after["metadata"]["resourceVersion"], pod["metadata"]["resourceVersion"],
        "{after:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_add_to_pods_that_come_here_and_the_pods_own_words_win() {
    let scene = Scene::start().await;
    let selectors = json!([
        {"name": "size", "objectSelector": {"matchLabels": {"app": "web"}},
         "effect": {"annotations": {"k8s.aliyun.com/eci-use-specs": "1-2Gi", "own": "rule"}}},
        {"name": "all", "effect": {"labels": {"via": "profile"}, "annotations": {"k8s.aliyun.com/eci-use-specs": "4-8Gi"}}}
    ]);
    write(&scene, &[("selectors", &selectors.to_string())]).await;
    let accepted = |events: &Vec<(String, String)>| {
        events.iter().any(|(reason, _)| reason == "ProfileAccepted")
    };
    eventually("accepted", async || profile_events(&scene).await, accepted).await;
    scene
        .create_pod("web-1", |pod| {
            pod["metadata"]["annotations"] = json!({"own": "pod"})
        })
        .await;
    let pod = scene.runs("web-1").await;
    assert_eq!(annotation(&pod, "eci-instance-spec"), "1.0-2.0Gi");
    assert_eq!(annotation(&pod, "eci-use-specs"), "1-2Gi");
    assert_eq!(pod["metadata"]["annotations"]["own"], "pod");
    assert_eq!(pod["metadata"]["labels"]["via"], "profile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_image_is_brought_into_the_group_and_the_address_stays() {
    let scene = Scene::start().await;
    scene.create_pod("web-1", |_| {}).await;
    let before = scene.runs("web-1").await;
    let patch =
        Patch::Strategic(json!({"spec": {"containers": [{"name": "web", "image": "shop:2"}]}}));
    scene
        .pods
        .patch("web-1", &PatchParams::default(), &patch)
        .await
        .unwrap();
    told(&scene, "ProviderUpdateSuccess", "web=shop:2").await;
    let image = async || group(&scene).await.containers[0].image.clone();
    eventually("image", image, |image| image == "shop:2").await;
    let after = scene.runs("web-1").await;
    assert_eq!(after["status"]["podIP"], before["status"]["podIP"]);
    assert_eq!(
        annotation(&after, "eci-instance-id"),
        annotation(&before, "eci-instance-id")
    );
    let applied = "autoscaling.alibabacloud.com/applied-images";
    // Written after the event was told.
    let written = async || {
        let pod = scene.runs("web-1").await;
        pod["metadata"]["annotations"][applied].clone()
    };
    eventually("written", written, |images| *images == "web=shop:2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn annotations_that_cannot_be_followed_are_refused_and_misspelt_ones_are_told() {
    let scene = Scene::start().await;
    let annotated = |name: &'static str, value: &'static str| {
        move |pod: &mut Value| {
            pod["metadata"]["annotations"] = json!({format!("{PREFIX}{name}"): value})
        }
    };
    scene
        .create_pod("family", annotated("eci-instance-family", "ecs.c6"))
        .await;
    told(
        &scene,
        "ProviderCreateFailed",
        "eci-instance-family: is not supported",
    )
    .await;
    scene
        .create_pod("tags", annotated("eci-custom-tags", "a:1,b:2,c:3,d:4"))
        .await;
    told(&scene, "ProviderCreateFailed", "eci-custom-tags: at most 3").await;
    assert_eq!(scene.cloud.group_ids(), Vec::<String>::new());
    scene
        .create_pod("typo", annotated("eci-vswitchs", "vsw-1"))
        .await;
    told(&scene, "UnknownAnnotation", "eci-vswitchs").await;
    scene.runs("typo").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_pod_ends_at_once_instead_of_hanging() {
    let scene = Scene::start().await;
    scene
        .create_pod("proxy", |pod| {
            pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet",
                "name": "proxy", "uid": "d-1", "controller": true}]);
        })
        .await;
    let failed = |pod: &Value| pod["status"]["phase"] == "Failed";
    let pod = eventually("failed", async || scene.pod("proxy").await, failed).await;
    assert_eq!(pod["status"]["reason"], "ProviderFailed");
    told(
        &scene,
        "ProviderCreateFailed",
        "DaemonSet pods do not run on virtual nodes",
    )
    .await;
    assert_eq!(scene.cloud.group_ids(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_wants_to_fail_fast_says_so_at_the_first_refusal() {
    let scene = Scene::start().await;
    for zone in ZONES {
        scene.cloud.set_stock(zone, Some(0.0));
    }
    scene
        .create_pod("web-1", |pod| {
            pod["metadata"]["annotations"] =
                json!({"k8s.aliyun.com/eci-fail-strategy": "fail-fast"});
            pod["spec"]["restartPolicy"] = json!("Never");
        })
        .await;
    let failed = |pod: &Value| pod["status"]["phase"] == "Failed";
    let pod = eventually("failed", async || scene.pod("web-1").await, failed).await;
    assert_eq!(pod["status"]["reason"], "ProviderFailed");
    for zone in ZONES {
        scene.cloud.set_stock(zone, None);
    }
    scene.create_pod("later", |_| {}).await;
    scene.runs("later").await;
    assert_eq!(
        scene.cloud.group_ids().len(),
        1,
        "what failed is not tried again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_waited_for_until_it_is_bound() {
    let scene = Scene::start().await;
    scene
        .create_pod("web-1", |pod| {
            pod["spec"]["volumes"] =
                json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        })
        .await;
    told(
        &scene,
        "FailedToResolve",
        "PersistentVolumeClaim data, which does not exist",
    )
    .await;
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(scene.client.clone());
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let claim = serde_json::from_value(claim).unwrap();
    claims.create(&PostParams::default(), &claim).await.unwrap();
    told(
        &scene,
        "FailedToResolve",
        "data, which is not bound to a volume",
    )
    .await;
    assert_eq!(scene.cloud.group_ids(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_token_is_bound_to_its_pod() {
    let scene = Scene::start().await;
    let accounts: Api<ServiceAccount> = Api::default_namespaced(scene.client.clone());
    let account = json!({"metadata": {"name": "worker"}});
    let account = serde_json::from_value(account).unwrap();
    accounts
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
    let pod = scene
        .create_pod("web-1", |pod| {
            pod["spec"]["serviceAccountName"] = json!("worker");
            pod["spec"]["automountServiceAccountToken"] = json!(false);
            pod["spec"]["volumes"] = json!([{"name": "token", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "audience": "vault"}}]}}]);
        })
        .await;
    scene.runs("web-1").await;
    let group = group(&scene).await;
    let file = &group.volumes[0].config_file_volume_config_file_to_paths[0];
    let token = String::from_utf8(STANDARD.decode(&file.content).unwrap()).unwrap();
    let claims = token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["aud"], json!(["vault"]));
    let bound = &claims["kubernetes.io"]["pod"];
    assert_eq!(bound["uid"], json!(pod.metadata.uid), "{claims:#}");
}
