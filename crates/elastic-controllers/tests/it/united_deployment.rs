//! UnitedDeployments as users have them against a real API server; the test plays the workload controllers.

use std::collections::BTreeMap;

use elastic_controllers::{UnitedDeploymentConfig, install_definitions, run_united_deployment};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use local_apiserver::testing::TestServer;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::scene::{api_of, condition, create, eventually, example, reasons, say_unschedulable};

struct Scene {
    _server: TestServer,
    _running: DropGuard,
    client: Client,
    deployments: Api<Deployment>,
}

const SUBSET: &str = "apps.kruise.io/subset-name";

impl Scene {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let client = server.client();
        install_definitions(&client).await.unwrap();
        let shutdown = CancellationToken::new();
        let config = UnitedDeploymentConfig::default();
        tokio::spawn(run_united_deployment(
            client.clone(),
            config,
            shutdown.clone(),
        ));
        Self {
            deployments: Api::default_namespaced(client.clone()),
            client,
            _running: shutdown.drop_guard(),
            _server: server,
        }
    }

    async fn change(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        api_of(&self.client, &example("united-deployment.yaml"))
            .patch("shop", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    async fn object(&self) -> Value {
        let api = api_of(&self.client, &example("united-deployment.yaml"));
        json!(api.get("shop").await.unwrap())
    }

    async fn children(&self) -> BTreeMap<String, Deployment> {
        let list = self.deployments.list(&ListParams::default()).await.unwrap();
        let named = list.items.into_iter();
        named
            .map(|child| (child.labels()[SUBSET].clone(), child))
            .collect()
    }

    async fn shares(&self) -> Vec<(String, i32)> {
        let children = self.children().await.into_iter();
        children
            .map(|(subset, child)| (subset, child.spec.unwrap().replicas.unwrap()))
            .collect()
    }

    async fn until_shares(&self, wanted: &[(&str, i32)]) {
        let wanted: Vec<(String, i32)> = wanted
            .iter()
            .map(|(subset, count)| ((*subset).to_owned(), *count))
            .collect();
        eventually("shares", async || self.shares().await, |now| *now == wanted).await;
    }

    /// What the Deployment controller would report.
    async fn report(&self, subset: &str, replicas: i32) {
        let child = self.children().await.remove(subset).unwrap();
        let status = json!({"status": {"replicas": replicas, "readyReplicas": replicas, "updatedReplicas": replicas,
            "observedGeneration": child.metadata.generation}});
        self.deployments
            .patch_status(
                &child.name_any(),
                &PatchParams::default(),
                &Patch::Merge(status),
            )
            .await
            .unwrap();
    }

    async fn create_pod(&self, subset: &str, name: &str) {
        let pod = json!({"metadata": {"name": name, "labels": {"app": "shop", SUBSET: subset}},
            "spec": {"containers": [{"name": "shop", "image": "i:1"}]}});
        let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
        let pod = serde_json::from_value(pod).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }

    async fn say_ready(&self, name: &str) {
        let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
        let status = json!({"status": {"phase": "Running", "conditions": [
            {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(status))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_manifest_fills_owned_nodes_first_follows_its_template_and_scales() {
    let scene = Scene::start().await;
    create(&scene.client, example("united-deployment.yaml")).await;
    scene.until_shares(&[("ecs", 4), ("vk", 2)]).await;
    let children = scene.children().await;
    let vk = &children["vk"];
    assert!(vk.name_any().starts_with("shop-vk-"), "{}", vk.name_any());
    assert_eq!(vk.owner_references()[0].kind, "UnitedDeployment");
    let template = vk.spec.clone().unwrap().template;
    let annotations = template.metadata.unwrap().annotations.unwrap();
    assert_eq!(annotations["k8s.aliyun.com/eci-use-specs"], "1-2Gi");
    scene.report("ecs", 4).await;
    scene.report("vk", 2).await;
    let counted = |object: &Value| {
        object["status"]["replicas"] == 6 && object["status"]["updatedReplicas"] == 6
    };
    let object = eventually("counted", async || scene.object().await, counted).await;
    assert_eq!(object["status"]["labelSelector"], "app=shop");
    assert_eq!(
        object["status"]["subsetReplicas"],
        json!({"ecs": 4, "vk": 2})
    );
    assert_eq!(condition(&object, "Ready").0, "True");
    let api = api_of(&scene.client, &object);
    let scale = api.get_scale("shop").await.unwrap();
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=shop"));

    let template = json!({"template": {"deploymentTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "shop", "image": "nginx:1.28"}]}}}}}});
    scene.change(template).await;
    let images = async || {
        let children = scene.children().await.into_values();
        let image = |child: Deployment| {
            let pod = child.spec.unwrap().template.spec.unwrap();
            pod.containers[0].image.clone().unwrap()
        };
        children.map(image).collect::<Vec<_>>()
    };
    eventually("followed", images, |now| {
        *now == ["nginx:1.28", "nginx:1.28"]
    })
    .await;
    let patch = Patch::Merge(json!({"spec": {"replicas": 9}}));
    api.patch_scale("shop", &PatchParams::default(), &patch)
        .await
        .unwrap();
    scene.until_shares(&[("ecs", 4), ("vk", 5)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_subset_is_lowered_only_when_the_last_has_gone() {
    let scene = Scene::start().await;
    let mut object = example("united-deployment.yaml");
    object["spec"]["topology"]["scheduleStrategy"] = json!({"type": "Fixed"});
    create(&scene.client, object).await;
    scene.until_shares(&[("ecs", 4), ("vk", 2)]).await;
    scene.report("ecs", 4).await;
    scene.report("vk", 2).await;
    scene.create_pod("vk", "last").await;
    scene.change(json!({"replicas": 3})).await;
    scene.until_shares(&[("ecs", 4), ("vk", 0)]).await;
    let waits = |object: &Value| condition(object, "Ready").1.contains("until 1 pods");
    eventually("held", async || scene.object().await, waits).await;
    let pods: Api<Pod> = Api::default_namespaced(scene.client.clone());
    let at_once = kube::api::DeleteParams::default().grace_period(0);
    pods.delete("last", &at_once).await.unwrap();
    scene.until_shares(&[("ecs", 3), ("vk", 0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_without_a_place_go_on_for_good() {
    let scene = Scene::start().await;
    create(&scene.client, example("united-deployment.yaml")).await;
    scene.until_shares(&[("ecs", 4), ("vk", 2)]).await;
    for name in ["a", "b", "c", "d"] {
        scene.create_pod("ecs", name).await;
    }
    scene.say_ready("a").await;
    for name in ["b", "c"] {
        say_unschedulable(&scene.client, name, 20).await;
    }
    scene.until_shares(&[("ecs", 2), ("vk", 4)]).await;
    // The test plays a ReplicaSet, which removes waiting pods first.
    let pods: Api<Pod> = Api::default_namespaced(scene.client.clone());
    for name in ["b", "c"] {
        pods.delete(name, &Default::default()).await.unwrap();
    }
    let closed = |object: &Value| {
        let subset = &object["status"]["subsetStatuses"][0];
        subset["name"] == "ecs" && subset["conditions"][0]["status"] == "False"
    };
    eventually("closed", async || scene.object().await, closed).await;
    let told = async || reasons(&scene.client).await;
    eventually("told", told, |all| {
        all.contains(&"SubsetUnschedulable".to_owned())
    })
    .await;
    scene.change(json!({"replicas": 8})).await;
    scene.until_shares(&[("ecs", 2), ("vk", 6)]).await;
    // Its time is over.
    let soon =
        json!({"topology": {"scheduleStrategy": {"adaptive": {"unschedulableLastSeconds": 0}}}});
    scene.change(soon).await;
    scene.change(json!({"replicas": 10})).await;
    scene.until_shares(&[("ecs", 4), ("vk", 6)]).await;
    eventually("told", told, |all| {
        all.contains(&"RecoverSchedulable".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reserved_pod_keeps_waiting_while_another_stands_in() {
    let scene = Scene::start().await;
    let mut object = example("united-deployment.yaml");
    object["spec"]["replicas"] = json!(2);
    object["spec"]["topology"]["scheduleStrategy"]["adaptive"]["reserveUnschedulablePods"] =
        json!(true);
    create(&scene.client, object).await;
    scene.until_shares(&[("ecs", 2), ("vk", 0)]).await;
    for name in ["a", "b"] {
        scene.create_pod("ecs", name).await;
    }
    scene.say_ready("a").await;
    say_unschedulable(&scene.client, "b", 20).await;
    scene.until_shares(&[("ecs", 2), ("vk", 1)]).await;
    let reserved = |object: &Value| object["status"]["reservedPods"] == 1;
    eventually("reserved", async || scene.object().await, reserved).await;
    scene.say_ready("b").await;
    scene.until_shares(&[("ecs", 2), ("vk", 0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_honoured_is_refused_by_name_and_stateful_sets_take_partitions() {
    let scene = Scene::start().await;
    let mut object = example("united-deployment.yaml");
    let template = object["spec"]["template"]["deploymentTemplate"].take();
    object["spec"]["template"] = json!({"cloneSetTemplate": template});
    create(&scene.client, object).await;
    let refused = |object: &Value| {
        condition(object, "Valid")
            .1
            .starts_with("spec.template.cloneSetTemplate: needs a kind that only OpenKruise serves")
    };
    eventually("refused", async || scene.object().await, refused).await;
    assert!(scene.children().await.is_empty());
    scene
        .change(json!({
            "template": {"cloneSetTemplate": null, "statefulSetTemplate": template},
            "updateStrategy": {"type": "Manual", "manualUpdate": {"partitions": {"ecs": 1}}}
        }))
        .await;
    let sets: Api<StatefulSet> = Api::default_namespaced(scene.client.clone());
    let partitions = async || {
        let list = sets.list(&ListParams::default()).await.unwrap().items;
        let partition = |set: StatefulSet| {
            let strategy = set.spec?.update_strategy?;
            strategy.rolling_update?.partition
        };
        let mut all: Vec<_> = list.into_iter().map(partition).collect();
        all.sort();
        all
    };
    eventually("partitions", partitions, |all| {
        all.len() == 2 && all[1] == Some(1)
    })
    .await;
}
