//! Every key of `eci-profile` from the ConfigMap to what new pods get, or to the event that says why it is refused or
//! changes nothing. The table below and the page for users hold the same keys.

use std::collections::BTreeSet;

use cloud_api::model::describe::{ContainerGroup, DescribeContainerGroupsRequest};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::{Value, json};

use crate::profile::{profile_events, write};
use crate::support::{Scene, ZONES, eventually, node};

const PAGE: &str = include_str!("../../../../docs/eci-profile.md");

/// What must be seen of a key.
enum Seen {
    /// In the group of a new pod.
    Group(fn(&ContainerGroup) -> bool),
    /// On a new pod that runs.
    Pod(fn(&Value) -> bool),
    /// A node with this name.
    Node(&'static str),
    /// An event of the profile with this reason and these words.
    Told(&'static str, &'static str),
}

use Seen::{Group, Pod, Told};

type Row = (&'static [(&'static str, &'static str)], Seen);

const BOTH: (&str, &str) = ("vSwitchIds", "vsw-cn-hangzhou-i,vsw-cn-hangzhou-h");
const RULE: &str = r#"[{"name": "all", "effect": {"labels": {"via": "profile"}}}]"#;
const IGNORED: &str = "ProfileKeyIgnored";
const REFUSED: &str = "ProfileRefused";

const ROWS: &[Row] = &[
    (
        &[("vpcId", "vpc-local")],
        Pod(|pod| noted(pod, "eci-vpc") == "vpc-local"),
    ),
    // The pods of this test want the list's order kept.
    (&[BOTH], Group(|group| group.zone_id == ZONES[1])),
    (
        &[("vSwitchIds", "vsw-cn-hangzhou-h")],
        Group(|group| group.zone_id == ZONES[0]),
    ),
    (
        &[
            ("vSwitchZones", "vsw-far=cn-hangzhou-z"),
            ("vSwitchIds", "vsw-far"),
        ],
        Told(REFUSED, "vSwitchIds: the cloud refuses it"),
    ),
    (
        &[("securityGroupId", "sg-other")],
        Group(|group| group.security_group_id == "sg-other"),
    ),
    (
        &[("resourceGroupId", "rg-9")],
        Group(|group| group.resource_group_id.as_deref() == Some("rg-9")),
    ),
    (
        &[("enableClusterIp", "false")],
        Pod(|pod| noted(pod, "eci-kube-proxy-enabled") == "false"),
    ),
    (
        &[("enableLinuxArm64Node", "true")],
        Seen::Node("virtual-kubelet-cn-hangzhou-h-arm64"),
    ),
    (
        &[("enablePrivateZone", "true")],
        Pod(|pod| noted(pod, "cluster-dns").is_null()),
    ),
    (
        &[("selectors", RULE)],
        Pod(|pod| pod["metadata"]["labels"]["via"] == "profile"),
    ),
    (
        &[("featureGates", "WaitForFirstConsumer=true")],
        Pod(|pod| !noted(pod, "eci-instance-id").is_null()),
    ),
    (
        &[("featureGates", "Unheard=true")],
        Told(IGNORED, "featureGates: Unheard is not a known gate"),
    ),
    (
        &[("enableHybridMode", "true")],
        Told(IGNORED, "enableHybridMode: there is no hybrid mode"),
    ),
    (
        &[("enableLogController", "true"), ("slsMachineGroup", "g")],
        Told(IGNORED, "enableLogController: logs are not collected"),
    ),
    (
        &[("slsMachineGroup", ""), ("enableLogController", "true")],
        Told(REFUSED, "slsMachineGroup: is needed"),
    ),
    (
        &[("enablePVCController", "true")],
        Told(IGNORED, "enablePVCController: disks cannot be grown"),
    ),
    (
        &[("enableReuseSSLKey", "true")],
        Told(IGNORED, "enableReuseSSLKey: pods get no TLS key"),
    ),
    (&[("typo", "x")], Told(IGNORED, "typo")),
    (&[("vpcId", "x")], Told(REFUSED, "vpcId")),
    (
        &[("vSwitchIds", "vsw-nowhere")],
        Told(REFUSED, "vSwitchIds: vsw-nowhere"),
    ),
    (&[("vSwitchZones", "vsw-a")], Told(REFUSED, "vSwitchZones")),
    (
        &[("securityGroupId", "sg-nowhere")],
        Told(REFUSED, "securityGroupId: the cloud refuses it"),
    ),
    (
        &[("resourceGroupId", "x")],
        Told(REFUSED, "resourceGroupId"),
    ),
    (
        &[("enableClusterIp", "perhaps")],
        Told(REFUSED, "enableClusterIp"),
    ),
    (
        &[("enableLinuxArm64Node", "perhaps")],
        Told(REFUSED, "enableLinuxArm64Node"),
    ),
    (
        &[("enablePrivateZone", "perhaps")],
        Told(REFUSED, "enablePrivateZone"),
    ),
    (
        &[("enableHybridMode", "perhaps")],
        Told(REFUSED, "enableHybridMode"),
    ),
    (
        &[("enableLogController", "perhaps")],
        Told(REFUSED, "enableLogController"),
    ),
    (
        &[("enablePVCController", "perhaps")],
        Told(REFUSED, "enablePVCController"),
    ),
    (
        &[("enableReuseSSLKey", "perhaps")],
        Told(REFUSED, "enableReuseSSLKey"),
    ),
    (
        &[("featureGates", "WaitForFirstConsumer")],
        Told(REFUSED, "featureGates"),
    ),
    (
        &[("selectors", "[{")],
        Told(REFUSED, "selectors: is not a JSON array"),
    ),
];

fn noted<'p>(pod: &'p Value, name: &str) -> &'p Value {
    &pod["metadata"]["annotations"][format!("k8s.aliyun.com/{name}")]
}

async fn group_of(scene: &Scene, pod: &Value) -> ContainerGroup {
    let question = DescribeContainerGroupsRequest {
        container_group_ids: vec![noted(pod, "eci-instance-id").as_str().unwrap().to_owned()],
        ..DescribeContainerGroupsRequest::default()
    };
    scene
        .eci
        .all_container_groups(question)
        .await
        .unwrap()
        .pop()
        .unwrap()
}

/// What the engine has said of the profile so far.
async fn verdicts(scene: &Scene) -> usize {
    let events = profile_events(scene).await;
    events
        .iter()
        .filter(|(reason, _)| reason == "ProfileAccepted" || reason == REFUSED)
        .count()
}

async fn check(scene: &Scene, number: usize, data: &[(&str, &str)], seen: &Seen) {
    let what = format!("{data:?}");
    let before = verdicts(scene).await;
    write(scene, data).await;
    eventually(&what, async || verdicts(scene).await, |now| *now > before).await;
    match seen {
        Told(reason, words) => {
            let told = |events: &Vec<(String, String)>| {
                events
                    .iter()
                    .any(|(found, message)| found == reason && message.contains(words))
            };
            eventually(&what, async || profile_events(scene).await, told).await;
        }
        Seen::Node(name) => {
            let nodes: Api<Node> = Api::all(scene.client.clone());
            eventually(
                &what,
                async || nodes.get_opt(name).await.unwrap(),
                Option::is_some,
            )
            .await;
        }
        Group(_) | Pod(_) => {
            let name = format!("pod-{number}");
            let ordered = json!({"k8s.aliyun.com/eci-schedule-strategy": "VSwitchOrdered"});
            scene
                .create_pod(&name, |pod| pod["metadata"]["annotations"] = ordered)
                .await;
            let pod = scene.runs(&name).await;
            match seen {
                Group(holds) => {
                    let group = group_of(scene, &pod).await;
                    assert!(holds(&group), "{what}: {group:#?}");
                }
                Pod(holds) => assert!(holds(&pod), "{what}: {pod:#}"),
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_acts_on_new_pods_or_says_why_not_and_old_pods_keep_what_they_have() {
    let scene = Scene::start().await;
    scene.create_pod("before", |_| {}).await;
    let before = scene.runs("before").await;
    let group = group_of(&scene, &before).await;
    for (number, (data, seen)) in ROWS.iter().enumerate() {
        check(&scene, number, data, seen).await;
    }
    // The last words were wrong ones, so what was accepted last is in force: new pods run.
    scene
        .create_pod("after", |pod| {
            pod["spec"]["nodeName"] = json!(node(ZONES[0]))
        })
        .await;
    scene.runs("after").await;
    let after = scene.pod("before").await;
    assert_eq!(
        noted(&after, "eci-instance-id"),
        noted(&before, "eci-instance-id")
    );
    let now = group_of(&scene, &after).await;
    assert_eq!(
        (now.security_group_id, now.zone_id),
        (group.security_group_id, group.zone_id)
    );
    assert_eq!(after["metadata"]["labels"]["via"], Value::Null);
}

#[test]
fn the_page_lists_the_same_keys() {
    let tested: BTreeSet<&str> = ROWS
        .iter()
        .map(|(data, _)| data[0].0)
        .filter(|key| *key != "typo")
        .collect();
    let (_, keys) = PAGE.split_once("## Keys").unwrap();
    let (keys, _) = keys.split_once("Environment variables").unwrap();
    let mut page = BTreeSet::new();
    for line in keys.lines().filter(|line| line.starts_with("| `")) {
        let cell = line.split('|').nth(1).unwrap();
        page.extend(cell.split('`').skip(1).step_by(2));
    }
    assert_eq!(page, tested);
}
