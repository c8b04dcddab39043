//! WorkloadSpreads as users have them against a real API server with the webhook; the test plays the ReplicaSet controller.

use std::collections::BTreeMap;

use elastic_controllers::{WorkloadSpreadConfig, install_definitions, run_workload_spread};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use local_apiserver::testing::TestServer;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::scene::{
    HASH, api_of, condition, create, create_workload, eventually, example, pod_of_set, reasons,
    say_unschedulable, serve_webhook, until_asked_about_policies,
};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

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
        let config = WorkloadSpreadConfig::default();
        tokio::spawn(run_workload_spread(
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

    /// A WorkloadSpread whose namespace the API server asks the webhook about.
    async fn spread(&self, object: Value) {
        create(&self.client, object).await;
        until_asked_about_policies(&self.client).await;
        // The API server may take a moment to act on it.
        let probe = async || {
            let pod = self.create_pod(HASH).await;
            let placed = subset(&pod).is_some();
            if !placed {
                self.delete(&pod.name_any()).await;
            }
            placed.then(|| pod.name_any())
        };
        let probe = eventually("asked", probe, Option::is_some).await.unwrap();
        // The promise is kept, and then the place is free again.
        self.until_settled(1).await;
        self.delete(&probe).await;
        self.until_settled(0).await;
    }

    async fn until_settled(&self, pods: i32) {
        let settled = |object: &Value| {
            let status = &object["status"];
            let promised = status["versionedSubsetStatuses"]
                .to_string()
                .contains("creatingPods");
            !promised && status["subsetStatuses"][0]["replicas"] == pods
        };
        eventually("settled", async || self.object().await, settled).await;
    }

    async fn object(&self) -> Value {
        let api = api_of(&self.client, &example("workload-spread.yaml"));
        json!(api.get("shop").await.unwrap())
    }

    async fn create_pod(&self, hash: &str) -> Pod {
        let pod = serde_json::from_value(pod_of_set(&self.set_uid, hash)).unwrap();
        self.pods
            .create(&PostParams::default(), &pod)
            .await
            .unwrap()
    }

    async fn delete(&self, name: &str) {
        let at_once = kube::api::DeleteParams::default().grace_period(0);
        self.pods.delete(name, &at_once).await.unwrap();
    }

    /// Deletion costs by pod.
    async fn costs(&self) -> BTreeMap<String, Option<String>> {
        let list = self.pods.list(&ListParams::default()).await.unwrap().items;
        let cost = |pod: Pod| (pod.name_any(), pod.annotations().get(COST).cloned());
        list.into_iter().map(cost).collect()
    }
}

fn subset(pod: &Pod) -> Option<String> {
    let text = pod
        .annotations()
        .get("apps.kruise.io/matched-workloadspread")?;
    let found: Value = serde_json::from_str(text).unwrap();
    assert_eq!(found["name"], "shop");
    Some(found["subset"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_created_at_once_fill_owned_nodes_first_and_leave_serverless_first() {
    let scene = Scene::start().await;
    scene.spread(example("workload-spread.yaml")).await;
    let mut pods = futures::future::join_all((0..6).map(|_| scene.create_pod(HASH))).await;
    pods.sort_by_key(subset);
    let subsets: Vec<String> = pods.iter().filter_map(subset).collect();
    assert_eq!(subsets, ["ecs", "ecs", "ecs", "ecs", "vk", "vk"]);
    let spec = pods[5].spec.clone().unwrap();
    assert_eq!(spec.containers[0].env.clone().unwrap()[0].name, "TIER");
    assert_eq!(spec.containers[0].image.as_deref(), Some("i:1"));
    let affinity = spec.affinity.unwrap().node_affinity.unwrap();
    let required = affinity.required_during_scheduling_ignored_during_execution;
    assert_eq!(required.unwrap().node_selector_terms.len(), 1);
    assert!(
        spec.tolerations
            .unwrap()
            .iter()
            .any(|one| one.key.as_deref() == Some("virtual-kubelet.io/provider"))
    );
    let own = pods[0].annotations();
    assert!(!own.contains_key("k8s.aliyun.com/eci-use-specs"));

    let wanted: BTreeMap<String, Option<String>> = pods
        .iter()
        .map(|pod| {
            let cost = if subset(pod).as_deref() == Some("ecs") {
                "200"
            } else {
                "100"
            };
            (pod.name_any(), Some(cost.to_owned()))
        })
        .collect();
    eventually("costs", async || scene.costs().await, |now| *now == wanted).await;
    let counted = |object: &Value| {
        let all = &object["status"]["subsetStatuses"];
        all[0]["missingReplicas"] == 0 && all[1]["missingReplicas"] == -1 && all[1]["replicas"] == 2
    };
    let object = eventually("counted", async || scene.object().await, counted).await;
    assert_eq!(condition(&object, "Ready").0, "True");
    assert_eq!(object["status"]["observedWorkloadReplicas"], 6);
    // A place that came free is taken before anything else.
    scene.delete(&pods[0].name_any()).await;
    assert_eq!(
        subset(&scene.create_pod(HASH).await).as_deref(),
        Some("ecs")
    );
    // Another revision finds all places free.
    assert_eq!(
        subset(&scene.create_pod("next").await).as_deref(),
        Some("ecs")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_without_a_place_is_made_anew_for_the_next_subset() {
    let scene = Scene::start().await;
    let mut object = example("workload-spread.yaml");
    object["spec"]["scheduleStrategy"]["adaptive"]["rescheduleCriticalSeconds"] = json!(10);
    scene.spread(object).await;
    let waiting = scene.create_pod(HASH).await;
    assert_eq!(subset(&waiting).as_deref(), Some("ecs"));
    say_unschedulable(&scene.client, &waiting.name_any(), 20).await;
    let name = waiting.name_any();
    let gone = async || scene.pods.get_opt(&name).await.unwrap().is_none();
    eventually("deleted", gone, |gone| *gone).await;
    let object = scene.object().await;
    let condition = &object["status"]["subsetStatuses"][0]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("SubsetUnschedulable"), &json!("True"))
    );
    let next = scene.create_pod(HASH).await;
    assert_eq!(subset(&next).as_deref(), Some("vk"));
    assert!(
        reasons(&scene.client)
            .await
            .contains(&"SubsetUnschedulable".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_honoured_is_refused_by_name_and_pods_come_in_all_the_same() {
    let scene = Scene::start().await;
    let mut object = example("workload-spread.yaml");
    object["spec"]["subsets"][1]["maxReplicas"] = json!(3);
    create(&scene.client, object).await;
    let refused = |object: &Value| {
        condition(object, "Valid")
            .1
            .starts_with("spec.subsets[1].maxReplicas: must be absent in the last subset")
    };
    eventually("refused", async || scene.object().await, refused).await;
    assert_eq!(subset(&scene.create_pod(HASH).await), None);
    let api = api_of(&scene.client, &example("workload-spread.yaml"));
    let patch = kube::api::Patch::Merge(json!({"spec": {"targetRef": {"name": "other"}}}));
    let error = api
        .patch("shop", &Default::default(), &patch)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("targetRef cannot be changed"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patch_for_a_container_that_pods_lack_is_told_and_left_out() {
    let scene = Scene::start().await;
    let mut object = example("workload-spread.yaml");
    let patch = &mut object["spec"]["subsets"][0]["patch"];
    *patch = json!({
        "metadata": {"labels": {"tier": "owned"}},
        "spec": {"containers": [{"name": "shp", "env": [{"name": "A", "value": "1"}]}]},
    });
    scene.spread(object).await;
    let pod = scene.create_pod(HASH).await;
    assert_eq!(subset(&pod).as_deref(), Some("ecs"));
    assert_eq!(pod.labels()["tier"], "owned");
    let containers = pod.spec.unwrap().containers;
    assert_eq!((containers.len(), containers[0].env.as_ref()), (1, None));
    let told = |object: &Value| {
        let (status, message) = condition(object, "PatchesApply");
        status == "False"
            && message
                .starts_with("spec.subsets[0].patch.spec.containers[0]: names container \"shp\"")
            && message.ends_with("pods get the rest of the patch")
    };
    eventually("told", async || scene.object().await, told).await;
    let all = async || reasons(&scene.client).await;
    let missing = |all: &Vec<String>| all.contains(&"ContainerMissing".to_owned());
    eventually("an event", all, missing).await;
    let subsets = json!([{"name": "ecs", "maxReplicas": 4}, {"name": "vk"}]);
    let corrected = kube::api::Patch::Merge(json!({"spec": {"subsets": subsets}}));
    let api = api_of(&scene.client, &example("workload-spread.yaml"));
    api.patch("shop", &Default::default(), &corrected)
        .await
        .unwrap();
    let told = |object: &Value| condition(object, "PatchesApply").0 == "True";
    eventually("corrected", async || scene.object().await, told).await;
}
