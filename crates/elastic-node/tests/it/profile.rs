//! `eci-profile` while virtual nodes run: nodes come and go with zones, bad profiles change nothing, selectors have effect.

use std::collections::BTreeMap;

use cloud_api::model::describe::DescribeContainerGroupsRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::{SECURITY_GROUPS, Scene, ZONES, eventually, node};

pub async fn write(scene: &Scene, data: &[(&str, &str)]) {
    let maps: Api<ConfigMap> = Api::namespaced(scene.client.clone(), "kube-system");
    let data: BTreeMap<_, _> = data.iter().copied().collect();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "eci-profile"}, "data": data});
    let apply = PatchParams::apply("test").force();
    maps.patch("eci-profile", &apply, &Patch::Apply(map))
        .await
        .unwrap();
}

async fn nodes(scene: &Scene) -> Vec<Node> {
    let nodes: Api<Node> = Api::all(scene.client.clone());
    nodes.list(&ListParams::default()).await.unwrap().items
}

async fn node_names(scene: &Scene) -> Vec<String> {
    let mut names: Vec<String> = nodes(scene)
        .await
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    names.sort();
    names
}

/// Status and message of the condition that speaks of the profile.
async fn verdict(scene: &Scene, name: &str) -> Option<(String, String)> {
    let found = nodes(scene)
        .await
        .into_iter()
        .find(|node| node.name_any() == name)?;
    let conditions = found.status?.conditions?;
    let condition = conditions
        .into_iter()
        .find(|one| one.type_ == "EciProfileAccepted")?;
    Some((condition.status, condition.message.unwrap_or_default()))
}

pub async fn profile_events(scene: &Scene) -> Vec<(String, String)> {
    let events: Api<Event> = Api::namespaced(scene.client.clone(), "kube-system");
    let list = events.list(&ListParams::default()).await.unwrap().items;
    let text = |event: Event| {
        (
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default(),
        )
    };
    list.into_iter().map(text).collect()
}

fn switch(zone: &str) -> String {
    format!("vsw-{zone}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_that_leaves_the_profile_drains_its_node_and_comes_back() {
    let scene = Scene::start().await;
    let both = ZONES.map(node).to_vec();
    let names = async || node_names(&scene).await;
    eventually("both nodes", names, |names| *names == both).await;
    scene
        .create_pod("stays", |pod| {
            pod["spec"]["nodeName"] = json!(node(ZONES[1]))
        })
        .await;
    scene.runs("stays").await;

    write(&scene, &[("vSwitchIds", &switch(ZONES[0]))]).await;
    let draining = async || {
        let found = nodes(&scene).await;
        let node = found
            .into_iter()
            .find(|one| one.name_any() == node(ZONES[1]));
        node.and_then(|node| node.spec?.unschedulable)
    };
    eventually("node is cordoned", draining, |found| *found == Some(true)).await;
    assert!(crate::support::is_ready(&scene.pod("stays").await));
    scene
        .pods
        .delete("stays", &DeleteParams::default())
        .await
        .unwrap();
    let first = [node(ZONES[0])].to_vec();
    eventually("drained node is gone", names, |names| *names == first).await;

    write(&scene, &[("vSwitchIds", &ZONES.map(switch).join(","))]).await;
    eventually("node is back", names, |names| *names == both).await;
    scene
        .create_pod("again", |pod| {
            pod["spec"]["nodeName"] = json!(node(ZONES[1]))
        })
        .await;
    scene.runs("again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_is_taken_up_by_the_next_life_and_removed_when_empty() {
    let mut scene = Scene::start().await;
    scene
        .create_pod("stays", |pod| {
            pod["spec"]["nodeName"] = json!(node(ZONES[1]))
        })
        .await;
    scene.runs("stays").await;
    scene.stop_nodes().await;
    write(&scene, &[("vSwitchIds", &switch(ZONES[0]))]).await;
    scene.start_nodes();
    scene.create_pod("new", |_| {}).await;
    scene.runs("new").await;
    assert_eq!(
        scene.cloud.group_ids().len(),
        2,
        "the group of the old zone was kept"
    );
    scene
        .pods
        .delete("stays", &DeleteParams::default())
        .await
        .unwrap();
    let names = async || node_names(&scene).await;
    eventually("drained node is gone", names, |names| names.len() == 1).await;
    assert_eq!(scene.cloud.group_ids().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_profile_is_told_and_the_last_good_one_stays_in_force() {
    let scene = Scene::start().await;
    let good = node(ZONES[0]);
    let names = async || node_names(&scene).await;
    // Otherwise one node is seen before the other is there, and the good profile may never have been.
    let both = ZONES.map(node).to_vec();
    eventually("both nodes", names, |names| *names == both).await;
    write(&scene, &[("vSwitchIds", &switch(ZONES[0]))]).await;
    eventually("one node", names, |names| *names == [good.clone()]).await;
    let cases = [
        (("selectors", "[{"), "selectors: is not a JSON array"),
        (
            ("vSwitchIds", "vsw-nowhere"),
            "vSwitchIds: vsw-nowhere is not known",
        ),
        (
            ("enableClusterIp", "maybe"),
            "enableClusterIp: \"maybe\" is neither",
        ),
        (
            ("securityGroupId", "sg-nowhere"),
            "securityGroupId: the cloud refuses it",
        ),
    ];
    for (bad, expected) in cases {
        write(&scene, &[bad]).await;
        let told = |verdict: &Option<(String, String)>| {
            let verdict = verdict.as_ref();
            verdict.is_some_and(|(status, text)| status == "False" && text.starts_with(expected))
        };
        eventually(expected, async || verdict(&scene, &good).await, told).await;
        let event = |events: &Vec<(String, String)>| {
            let is = |(reason, text): &(String, String)| {
                reason == "ProfileRefused" && text.starts_with(expected)
            };
            events.iter().any(is)
        };
        eventually("event", async || profile_events(&scene).await, event).await;
    }
    assert_eq!(node_names(&scene).await, std::slice::from_ref(&good));
    write(&scene, &[("vSwitchIds", &switch(ZONES[0])), ("typo", "x")]).await;
    let accepted = |verdict: &Option<(String, String)>| {
        verdict.as_ref().is_some_and(|(status, _)| status == "True")
    };
    eventually("accepted", async || verdict(&scene, &good).await, accepted).await;
    let ignored = |events: &Vec<(String, String)>| {
        events
            .iter()
            .any(|(reason, text)| reason == "ProfileKeyIgnored" && text.starts_with("typo:"))
    };
    eventually("told", async || profile_events(&scene).await, ignored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arm_node_comes_with_the_profile() {
    let scene = Scene::start().await;
    write(
        &scene,
        &[
            ("vSwitchIds", &switch(ZONES[0])),
            ("enableLinuxArm64Node", "true"),
        ],
    )
    .await;
    let arm = format!("{}-arm64", node(ZONES[0]));
    let names = async || node_names(&scene).await;
    eventually("arm node", names, |names| names.contains(&arm)).await;
    let found = nodes(&scene)
        .await
        .into_iter()
        .find(|one| one.name_any() == arm)
        .unwrap();
    assert_eq!(found.labels()["kubernetes.io/arch"], "arm64");
    let found = serde_json::to_value(found).unwrap();
    let version = found["status"]["nodeInfo"]["kubeletVersion"]
        .as_str()
        .unwrap();
    assert!(
        version.starts_with("v1.") && version.contains("-springtide."),
        "{version}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_security_group_holds_for_new_pods_only() {
    let scene = Scene::start().await;
    scene.create_pod("before", |_| {}).await;
    scene.runs("before").await;
    let [_, other] = SECURITY_GROUPS;
    write(&scene, &[("securityGroupId", other)]).await;
    let accepted = |events: &Vec<(String, String)>| {
        events.iter().any(|(reason, _)| reason == "ProfileAccepted")
    };
    eventually("accepted", async || profile_events(&scene).await, accepted).await;
    scene.create_pod("after", |_| {}).await;
    scene.runs("after").await;
    let found = scene
        .eci
        .all_container_groups(DescribeContainerGroupsRequest::default())
        .await
        .unwrap();
    let of = |name: &str| {
        let found = found
            .iter()
            .find(|group| group.container_group_name.ends_with(name));
        found.unwrap().security_group_id.clone()
    };
    assert_eq!(of("after"), other);
    assert_ne!(of("before"), other);
    let kept: Value = scene.pod("before").await;
    assert!(crate::support::is_ready(&kept));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_finds_a_bad_profile_takes_up_the_last_good_one() {
    let mut scene = Scene::start().await;
    let good = node(ZONES[0]);
    let names = async || node_names(&scene).await;
    let both = ZONES.map(node).to_vec();
    eventually("both nodes", names, |names| *names == both).await;
    write(&scene, &[("vSwitchIds", &switch(ZONES[0]))]).await;
    eventually("one node", names, |names| *names == [good.clone()]).await;
    scene.stop_nodes().await;
    write(&scene, &[("vSwitchIds", "vsw-nowhere")]).await;
    scene.start_nodes();
    let told = |verdict: &Option<(String, String)>| {
        verdict
            .as_ref()
            .is_some_and(|(status, _)| status == "False")
    };
    eventually("told", async || verdict(&scene, &good).await, told).await;
    scene.create_pod("new", |_| {}).await;
    scene.runs("new").await;
    assert_eq!(node_names(&scene).await, [good]);
}
