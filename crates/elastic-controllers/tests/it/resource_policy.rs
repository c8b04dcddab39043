//! ResourcePolicies against a real API server that calls the real webhook. The test plays the scheduler and the ReplicaSet
//! controller.

use std::collections::BTreeMap;

use elastic_controllers::{ResourcePolicyConfig, install_definitions, run_resource_policy};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use local_apiserver::testing::TestServer;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::scene::{
    HASH, api_of, condition, create, create_workload, eventually, example, pod_of_set, reasons,
    say_unschedulable, serve_webhook, until_asked_about_policies,
};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const MARK: &str = "scheduling.alibabacloud.com/matched-resourcepolicy";

struct Scene {
    _server: TestServer,
    _running: DropGuard,
    client: Client,
    pods: Api<Pod>,
    set_uid: String,
}

impl Scene {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let client = server.client();
        install_definitions(&client).await.unwrap();
        let shutdown = CancellationToken::new();
        serve_webhook(&client, &shutdown).await;
        let config = ResourcePolicyConfig {
            forgotten: std::time::Duration::from_millis(200),
            ..ResourcePolicyConfig::default()
        };
        tokio::spawn(run_resource_policy(
            client.clone(),
            config,
            shutdown.clone(),
        ));
        let set_uid = create_workload(&client).await;
        Self {
            pods: Api::default_namespaced(client.clone()),
            client,
            set_uid,
            _running: shutdown.drop_guard(),
            _server: server,
        }
    }

    /// A ResourcePolicy whose namespace the API server asks the webhook about.
    async fn policy(&self, spec: Value) {
        let mut object = example("resource-policy.yaml");
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        create(&self.client, object).await;
        until_asked_about_policies(&self.client).await;
        // The API server may take a moment to act on it.
        let probe = async || {
            let pod = self.create_pod("probe").await;
            self.delete(&pod.name_any()).await;
            unit(&pod).is_some()
        };
        eventually("asked", probe, |asked| *asked).await;
        let promised = |object: &Value| {
            let status = object["status"].to_string();
            !status.contains("creatingPods") && status.contains("Reconciled")
        };
        // Promises to pods that went before they were seen end by themselves, in groups of their own.
        eventually(
            "settled",
            async || self.object().await,
            |object| {
                promised(object)
                    || object["status"]["groups"]
                        .get("pod-template-hash=probe")
                        .is_some()
            },
        )
        .await;
    }

    async fn object(&self) -> Value {
        let api = api_of(&self.client, &example("resource-policy.yaml"));
        json!(api.get("shop").await.unwrap())
    }

    async fn try_create(&self, hash: &str) -> Result<Pod, kube::Error> {
        let mut pod = pod_of_set(&self.set_uid, hash);
        if hash.is_empty() {
            pod["metadata"]["labels"] = json!({"app": "shop"});
        }
        let pod = serde_json::from_value(pod).unwrap();
        self.pods.create(&PostParams::default(), &pod).await
    }

    async fn create_pod(&self, hash: &str) -> Pod {
        self.try_create(hash).await.unwrap()
    }

    async fn delete(&self, name: &str) {
        let at_once = DeleteParams::default().grace_period(0);
        self.pods.delete(name, &at_once).await.unwrap();
    }

    async fn costs(&self) -> BTreeMap<String, Option<String>> {
        let list = self.pods.list(&ListParams::default()).await.unwrap().items;
        let cost = |pod: Pod| (pod.name_any(), pod.annotations().get(COST).cloned());
        list.into_iter().map(cost).collect()
    }
}

/// The unit's key; empty while the pod waits.
fn unit(pod: &Pod) -> Option<String> {
    let found: Value = serde_json::from_str(pod.annotations().get(MARK)?).unwrap();
    assert_eq!(found["name"], "shop");
    Some(found["unit"].as_str().unwrap_or_default().to_owned())
}

fn gated(pod: &Pod) -> bool {
    let spec = pod.spec.clone().unwrap();
    !spec.scheduling_gates.unwrap_or_default().is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_created_at_once_fill_owned_nodes_first_and_leave_serverless_first() {
    let scene = Scene::start().await;
    scene.policy(json!({})).await;
    let mut pods = futures::future::join_all((0..6).map(|_| scene.create_pod(HASH))).await;
    pods.sort_by_key(unit);
    pods.reverse();
    let units: Vec<String> = pods.iter().filter_map(unit).collect();
    assert_eq!(units, ["ecs", "ecs", "ecs", "ecs", "eci", "eci"]);
    let spec = pods[5].spec.clone().unwrap();
    let tolerations = spec.tolerations.unwrap();
    assert!(
        tolerations
            .iter()
            .any(|one| one.key.as_deref() == Some("virtual-kubelet.io/provider"))
    );
    assert_eq!(
        pods[5].annotations()["k8s.aliyun.com/eci-use-specs"],
        "1-2Gi"
    );
    assert!(
        !pods[0]
            .annotations()
            .contains_key("k8s.aliyun.com/eci-use-specs")
    );

    let cost = |pod: &Pod| {
        if unit(pod).as_deref() == Some("ecs") {
            "200"
        } else {
            "100"
        }
    };
    let wanted: BTreeMap<String, Option<String>> = pods
        .iter()
        .map(|pod| (pod.name_any(), Some(cost(pod).to_owned())))
        .collect();
    eventually("costs", async || scene.costs().await, |now| *now == wanted).await;
    let counted = |object: &Value| object["status"]["summary"] == "ecs 4/4, eci 2";
    let object = eventually("counted", async || scene.object().await, counted).await;
    assert_eq!(condition(&object, "Ready").0, "True");
    assert_eq!(condition(&object, "Honoured").0, "True");
    // A place that came free is taken before anything else, and another revision finds all places free.
    scene.delete(&pods[0].name_any()).await;
    assert_eq!(unit(&scene.create_pod(HASH).await).as_deref(), Some("ecs"));
    assert_eq!(
        unit(&scene.create_pod("next").await).as_deref(),
        Some("ecs")
    );
    // A pod that cannot be counted is refused, with the label's name.
    let error = scene.try_create("").await.unwrap_err().to_string();
    assert!(
        error.contains("counts pods by label pod-template-hash"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_no_unit_takes_waits_and_goes_when_one_does_or_the_policy_is_gone() {
    let scene = Scene::start().await;
    let units = json!([{"resource": "ecs", "max": 1}, {"resource": "eci", "max": 1}]);
    scene.policy(json!({"units": units})).await;
    let first = scene.create_pod(HASH).await;
    assert_eq!(unit(&first).as_deref(), Some("ecs"));
    let second = scene.create_pod(HASH).await;
    assert_eq!(unit(&second).as_deref(), Some("eci"));
    let third = scene.create_pod(HASH).await;
    assert!(gated(&third) && unit(&third).as_deref() == Some(""));
    let fourth = scene.create_pod(HASH).await;
    let told = |object: &Value| {
        object["status"]["waitingPods"] == 2
            && condition(object, "Placed")
                .1
                .contains("has its maximum (ecs 1, eci 1)")
    };
    eventually("told", async || scene.object().await, told).await;
    assert!(
        reasons(&scene.client)
            .await
            .contains(&"AllUnitsFull".to_owned())
    );

    scene.delete(&second.name_any()).await;
    // Which one is older cannot be told when both were created in the same second.
    let names = [third.name_any(), fourth.name_any()];
    let both = async || {
        let [one, other] = names.each_ref().map(|name| scene.pods.get(name));
        [one.await.unwrap(), other.await.unwrap()]
    };
    let one_went = |pods: &[Pod; 2]| pods.iter().any(|pod| !gated(pod));
    let mut pods = eventually("let go", both, one_went).await;
    pods.sort_by_key(gated);
    let [gone, waiting] = pods;
    assert!(gated(&waiting));
    assert_eq!(unit(&gone).as_deref(), Some("eci"));
    let affinity = gone.spec.unwrap().affinity.unwrap().node_affinity.unwrap();
    let terms = affinity
        .required_during_scheduling_ignored_during_execution
        .unwrap();
    assert_eq!(terms.node_selector_terms.len(), 1);

    let api = api_of(&scene.client, &example("resource-policy.yaml"));
    api.delete("shop", &DeleteParams::default()).await.unwrap();
    let name = waiting.name_any();
    let free = async || scene.pods.get(&name).await.unwrap();
    eventually("free", free, |pod| !gated(pod)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_without_room_is_made_anew_for_the_next_unit() {
    let scene = Scene::start().await;
    scene
        .policy(json!({"whenTryNextUnits": {"policy": "LackResourceOrExceedMax"}}))
        .await;
    let waiting = scene.create_pod(HASH).await;
    assert_eq!(unit(&waiting).as_deref(), Some("ecs"));
    say_unschedulable(&scene.client, &waiting.name_any(), 1).await;
    let name = waiting.name_any();
    let gone = async || scene.pods.get_opt(&name).await.unwrap().is_none();
    eventually("deleted", gone, |gone| *gone).await;
    let object = scene.object().await;
    let condition = &object["status"]["units"][0]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("UnitShort"), &json!("True"))
    );
    assert_eq!(unit(&scene.create_pod(HASH).await).as_deref(), Some("eci"));
    assert!(
        reasons(&scene.client)
            .await
            .contains(&"UnitShort".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_with_a_maximum_is_waited_for_with_exceed_max() {
    let scene = Scene::start().await;
    scene
        .policy(
            json!({"whenTryNextUnits": {"policy": "ExceedMax"}, "preemptPolicy": "AfterAllUnits"}),
        )
        .await;
    let waiting = scene.create_pod(HASH).await;
    say_unschedulable(&scene.client, &waiting.name_any(), 3600).await;
    // Three more fill the unit, so this one is looked at again before the fifth goes on.
    for _ in 0..3 {
        assert_eq!(unit(&scene.create_pod(HASH).await).as_deref(), Some("ecs"));
    }
    assert_eq!(unit(&scene.create_pod(HASH).await).as_deref(), Some("eci"));
    let counted = |object: &Value| object["status"]["summary"] == "ecs 4/4, eci 1";
    let object = eventually("counted", async || scene.object().await, counted).await;
    assert!(
        scene
            .pods
            .get_opt(&waiting.name_any())
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        condition(&object, "Honoured")
            .1
            .starts_with("spec.preemptPolicy: ")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_followed_is_refused_by_name_and_pods_come_in_all_the_same() {
    let scene = Scene::start().await;
    let mut object = example("resource-policy.yaml");
    object["spec"]["units"][1]["maxResources"] = json!({"cpu": "4"});
    object["spec"]["fallback"] = json!("none");
    create(&scene.client, object).await;
    let refused = |object: &Value| {
        let (status, message) = condition(object, "Valid");
        status == "False"
            && message.starts_with("spec.units[1].maxResources: is not supported")
            && message.contains("spec.fallback: is no field that is followed here")
    };
    eventually("refused", async || scene.object().await, refused).await;
    assert_eq!(unit(&scene.create_pod(HASH).await), None);
}
