//! Every annotation from the pod to the cloud: what its group is described with, what it was asked for with, or what the
//! pod's events say. The table below, the crate's own table and the page for users hold the same names.

use std::collections::{BTreeMap, BTreeSet};

use cloud_api::model::describe::{ContainerGroup, DescribeContainerGroupsRequest};
use cloud_api::model::image_cache::{CreateImageCacheRequest, DescribeImageCachesRequest};
use elastic_core::eci_annotations::{HONOURED, REFUSED};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::support::{Scene, ZONES, eventually};

const PAGE: &str = include_str!("../../../../docs/annotations.md");

/// What must be seen of an annotation.
enum Seen {
    /// In the group's description.
    Group(&'static str, fn() -> Value),
    /// In what the group was asked for with, because no description tells it.
    Asked(&'static str, fn() -> Value),
    /// On the pod.
    Pod(&'static str, &'static str),
    /// An event of the pod with this reason and these words; there is no group.
    Told(&'static str, &'static str),
}

use Seen::{Asked, Group, Pod, Told};

/// The annotation with its value and what it needs besides, and what must be seen.
type Row = (&'static [(&'static str, &'static str)], Seen);

const SPOT: (&str, &str) = ("eci-spot-strategy", "SpotWithPriceLimit");
const DEAR: (&str, &str) = ("eci-spot-price-limit", "9.5");
/// Nobody sells at this price, which is the same as no stock anywhere.
const CHEAP: (&str, &str) = ("eci-spot-price-limit", "0.001");
const EIP: (&str, &str) = ("eci-with-eip", "true");
const ACR: (&str, &str) = ("acr-instance-ids", "cn-beijing:cri-1");
const BOTH_WAYS: (&str, &str) = ("eci-vswitch", "vsw-cn-hangzhou-i,vsw-cn-hangzhou-h");
const REFUSAL: &str = "ProviderCreateFailed";
const CLOUD_REFUSAL: &str = "ProviderInvokeFailed";

fn rows() -> Vec<Row> {
    let mut rows = size();
    rows.extend(place());
    rows.extend(spot());
    rows.extend(terms());
    rows.extend(images());
    rows.extend(data());
    rows.extend(network());
    rows
}

fn size() -> Vec<Row> {
    vec![
        (&[("eci-use-specs", "4-8Gi")], Group("/Cpu", || json!(4.0))),
        (
            &[("eci-use-specs", "ecs.c6.xlarge")],
            Group("/InstanceType", || json!("ecs.c6.xlarge")),
        ),
        (
            &[("eci-cpu", "4"), ("eci-memory", "8Gi")],
            Group("/Cpu", || json!(4.0)),
        ),
        (&[("eci-memory", "16Gi")], Group("/Memory", || json!(16.0))),
        (
            &[("eci-compute-category", "economy")],
            Group("/ComputeCategory", || json!("economy")),
        ),
        (
            &[("eci-cpu-option-core", "2")],
            Asked("/CpuOptionsCore", || json!(2)),
        ),
        (
            &[("eci-cpu-option-ht", "1")],
            Asked("/CpuOptionsThreadsPerCore", || json!(1)),
        ),
        (
            &[("eci-gpu-driver-version", "tesla=535")],
            Asked("/GpuDriverVersion", || json!("tesla=535")),
        ),
    ]
}

fn place() -> Vec<Row> {
    vec![
        (
            &[("eci-vswitch", "vsw-cn-hangzhou-i")],
            Group("/VSwitchId", || json!("vsw-cn-hangzhou-i")),
        ),
        (
            &[("eci-schedule-strategy", "VSwitchOrdered"), BOTH_WAYS],
            Group("/ZoneId", || json!(ZONES[1])),
        ),
        (
            &[("eci-schedule-strategy", "VSwitchRandom"), BOTH_WAYS],
            Group("/ZoneId", || json!(ZONES[0])),
        ),
        (
            &[("eci-security-group", "sg-other")],
            Group("/SecurityGroupId", || json!("sg-other")),
        ),
        (
            &[("eci-resource-group-id", "rg-7")],
            Group("/ResourceGroupId", || json!("rg-7")),
        ),
        (
            &[("eci-extra-ephemeral-storage", "50Gi")],
            Group("/EphemeralStorage", || json!(50)),
        ),
        (
            &[("eci-instance-family", "ecs.c6")],
            Told(REFUSAL, "list instance types in eci-use-specs"),
        ),
        (
            &[("eci-instance-generation", "6")],
            Told(REFUSAL, "list instance types in eci-use-specs"),
        ),
        (
            &[("eci-privatepool-matchcriteria", "Open")],
            Told(REFUSAL, "no capacity reservations; remove it"),
        ),
        (
            &[("eci-privatepool-id", "eap-1")],
            Told(REFUSAL, "no capacity reservations; remove it"),
        ),
        (
            &[("eci-ephemeral-storage-options", "{}")],
            Told(REFUSAL, "no options for scratch space; remove it"),
        ),
        (
            &[("eci-eviction-enable", "true")],
            Told(REFUSAL, "cannot switch eviction; remove it"),
        ),
    ]
}

fn spot() -> Vec<Row> {
    vec![
        (
            &[("eci-spot-strategy", "SpotAsPriceGo")],
            Group("/SpotStrategy", || json!("SpotAsPriceGo")),
        ),
        (&[DEAR, SPOT], Group("/SpotPriceLimit", || json!(9.5))),
        (
            &[
                ("eci-spot-duration", "0"),
                ("eci-spot-strategy", "SpotAsPriceGo"),
            ],
            Asked("/SpotDuration", || json!(0)),
        ),
        // At list price, after no spot group was to be had.
        (
            &[("eci-spot-fallback", "true"), SPOT, CHEAP],
            Asked("/SpotStrategy", || Value::Null),
        ),
        (
            &[("eci-fail-strategy", "fail-fast"), SPOT, CHEAP],
            Told(REFUSAL, "could take the pod"),
        ),
        (
            &[("eci-fail-strategy", "fail-back"), SPOT, CHEAP],
            Told("NoStock", "could take the pod"),
        ),
        (
            &[("eci-fail-strategy", "fail-over"), SPOT, CHEAP],
            Told("NoStock", "could take the pod"),
        ),
        (
            &[("eci-reschedule-enable", "false"), SPOT, CHEAP],
            Told(REFUSAL, "could take the pod"),
        ),
        (
            &[("eci-reschedule-enable", "true"), SPOT, CHEAP],
            Told("NoStock", "could take the pod"),
        ),
        (
            &[("pod-fail-on-create-err", "true"), SPOT, CHEAP],
            Told(REFUSAL, "could take the pod"),
        ),
    ]
}

fn terms() -> Vec<Row> {
    vec![
        (
            &[("eci-max-pending-minute", "30")],
            Asked("/MaxPendingMinute", || json!(30)),
        ),
        (
            &[("eci-custom-tags", "env:test")],
            Group("/Tags", || json!({"Key": "env", "Value": "test"})),
        ),
        (
            &[("eci-ram-role-name", "reader")],
            Group("/RamRoleName", || json!("reader")),
        ),
        (
            &[("eci-ntp-server", "10.0.0.1")],
            Asked("/NtpServer", || json!(["10.0.0.1"])),
        ),
        (
            &[("eci-core-pattern", "/tmp/core.%p")],
            Asked("/CorePattern", || json!("/tmp/core.%p")),
        ),
        (
            &[("eci-sls-enable", "true")],
            Told(REFUSAL, "collects no logs"),
        ),
        (
            &[("eci-wait-clusterip-ready", "*")],
            Told(REFUSAL, "use an init container"),
        ),
    ]
}

fn images() -> Vec<Row> {
    vec![
        (
            &[("eci-auto-imc", "true")],
            Asked("/AutoMatchImageCache", || json!(true)),
        ),
        (
            &[("eci-image-cache", "true")],
            Asked("/AutoMatchImageCache", || json!(true)),
        ),
        // What names the cache reaches the cloud, which knows it or not.
        (
            &[("eci-imc-id", "imc-none")],
            Told(CLOUD_REFUSAL, "imc-none"),
        ),
        (
            &[("eci-image-snapshot-id", "imc-old")],
            Told(CLOUD_REFUSAL, "imc-old"),
        ),
        (
            &[("imc-perfect-match", "true")],
            Told(REFUSAL, "name one by eci-imc-id"),
        ),
        (
            &[("imc-match-count-request", "2")],
            Told(REFUSAL, "name one by eci-imc-id"),
        ),
        (
            &[("acr-instance-ids", "cn-beijing:cri-1")],
            Asked("/AcrRegistryInfo/0/RegionId", || json!("cn-beijing")),
        ),
        (
            &[("acr-instance-id", "cri-2")],
            Asked("/AcrRegistryInfo/0/InstanceId", || json!("cri-2")),
        ),
        (
            &[("acr-service-arns", "acs:ram::1:role/s"), ACR],
            Asked("/AcrRegistryInfo/0/ArnService", || {
                json!("acs:ram::1:role/s")
            }),
        ),
        (
            &[("acr-user-arns", "acs:ram::1:role/u"), ACR],
            Asked("/AcrRegistryInfo/0/ArnUser", || json!("acs:ram::1:role/u")),
        ),
        (
            &[("plain-http-registry", "10.0.0.2:5000")],
            Asked("/PlainHttpRegistry", || json!("10.0.0.2:5000")),
        ),
        (
            &[("insecure-registry", "10.0.0.3:5000")],
            Asked("/InsecureRegistry", || json!("10.0.0.3:5000")),
        ),
    ]
}

fn data() -> Vec<Row> {
    vec![
        (
            &[("eci-data-cache-bucket", "models")],
            Asked("/DataCacheBucket", || json!("models")),
        ),
        (
            &[("eci-data-cache-pl", "PL1")],
            Asked("/DataCachePL", || json!("PL1")),
        ),
        (
            &[("eci-data-cache-provisionedIops", "40000")],
            Asked("/DataCacheProvisionedIops", || json!(40_000)),
        ),
        (
            &[("eci-data-cache-burstingEnabled", "true")],
            Asked("/DataCacheBurstingEnabled", || json!(true)),
        ),
    ]
}

fn network() -> Vec<Row> {
    let hosts = r#"[{"host": "db", "ip": "10.0.0.9"}]"#;
    let dns = r#"{"nameservers": ["10.0.0.8"], "searches": ["shop"], "options": [{"name": "ndots", "value": "2"}]}"#;
    let hosts: Row = (
        Box::leak(Box::new([("eci-custom-hosts", hosts)])),
        Group(
            "/HostAliases",
            || json!({"Ip": "10.0.0.9", "Hostnames": ["db"]}),
        ),
    );
    let dns: Row = (
        Box::leak(Box::new([("eci-custom-dnsconfig", dns)])),
        Group("/DnsConfig/NameServers", || json!("10.0.0.8")),
    );
    vec![
        hosts,
        dns,
        (&[EIP], Pod("allocated-eipAddress", "198.")),
        (
            &[("eip-bandwidth", "20"), EIP],
            Asked("/EipBandwidth", || json!(20)),
        ),
        (
            &[("eip-isp", "BGP_PRO"), EIP],
            Asked("/EipISP", || json!("BGP_PRO")),
        ),
        (
            &[("eip-common-bandwidth-package-id", "cbwp-1"), EIP],
            Asked("/EipCommonBandwidthPackage", || json!("cbwp-1")),
        ),
        (
            &[("eci-eip-instanceid", "eip-none")],
            Told(CLOUD_REFUSAL, "EipInstanceId"),
        ),
        (
            &[("eip-internet-charge-type", "PayByTraffic"), EIP],
            Told(REFUSAL, "eci-eip-instanceid"),
        ),
        (
            &[("eip-public-ip-address-pool-id", "pool-1"), EIP],
            Told(REFUSAL, "eci-eip-instanceid"),
        ),
        (
            &[("eci-private-ip-address", "10.4.0.77")],
            Group("/IntranetIp", || json!("10.4.0.77")),
        ),
        (
            &[("eci-fixed-ip", "true")],
            Asked("/FixedIp", || json!("true")),
        ),
        (
            &[("eci-fixed-ip-retain-hour", "24"), ("eci-fixed-ip", "true")],
            Asked("/FixedIpRetainHour", || json!(24)),
        ),
        (
            &[("kubernetes.io/ingress-bandwidth", "40M")],
            Asked("/IngressBandwidth", || json!(40_000_000)),
        ),
        (
            &[("kubernetes.io/egress-bandwidth", "8M")],
            Asked("/EgressBandwidth", || json!(8_000_000)),
        ),
    ]
}

/// Rows of annotations whose words reach the cloud, whatever it makes of them.
fn sent() -> Vec<(&'static [(&'static str, &'static str)], &'static str)> {
    let ipv6 = ("eci-enable-ipv6", "true");
    let enabled = ("eci-ipv6-bandwidth-enable", "true");
    vec![
        (Box::leak(Box::new([ipv6])), "Ipv6"),
        (Box::leak(Box::new([enabled, ipv6])), "Ipv6"),
        (
            Box::leak(Box::new([("eci-ipv6-bandwidth", "5"), ipv6, enabled])),
            "Ipv6",
        ),
    ]
}

fn key(name: &str) -> String {
    if name.contains('/') {
        name.to_owned()
    } else {
        format!("k8s.aliyun.com/{name}")
    }
}

async fn bind(scene: &Scene, pod: &str, annotations: &[(&str, &str)]) {
    let written: BTreeMap<String, &str> = annotations
        .iter()
        .map(|(name, value)| (key(name), *value))
        .collect();
    scene
        .create_pod(pod, |object| {
            object["metadata"]["annotations"] = json!(written);
            object["spec"]["containers"][0]["resources"]["requests"] =
                json!({"cpu": "2", "memory": "4Gi"});
        })
        .await;
}

async fn events_of(scene: &Scene, pod: &str) -> Vec<(String, String)> {
    let events: Api<Event> = Api::default_namespaced(scene.client.clone());
    let all = events.list(&ListParams::default()).await.unwrap().items;
    let own = all
        .into_iter()
        .filter(|event| event.involved_object.name.as_deref() == Some(pod));
    own.map(|event| {
        (
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default(),
        )
    })
    .collect()
}

async fn told(scene: &Scene, pod: &str, reason: &str, words: &str, what: &str) {
    let is = |events: &Vec<(String, String)>| {
        events
            .iter()
            .any(|(found, message)| found == reason && message.contains(words))
    };
    eventually(what, async || events_of(scene, pod).await, is).await;
}

async fn group_of(scene: &Scene, pod: &str) -> (ContainerGroup, Value) {
    let pod = scene.runs(pod).await;
    let id = pod["metadata"]["annotations"]["k8s.aliyun.com/eci-instance-id"]
        .as_str()
        .unwrap()
        .to_owned();
    let question = DescribeContainerGroupsRequest {
        container_group_ids: vec![id.clone()],
        ..DescribeContainerGroupsRequest::default()
    };
    let group = scene
        .eci
        .all_container_groups(question)
        .await
        .unwrap()
        .pop()
        .unwrap();
    let asked = scene.cloud.request_of(&id).unwrap();
    (group, serde_json::to_value(&*asked).unwrap())
}

/// Whether a value is there, or among others.
fn shows(found: &Value, wanted: &Value) -> bool {
    found == wanted || found.as_array().is_some_and(|all| all.contains(wanted))
}

async fn check(scene: &Scene, pod: &str, what: &str, seen: &Seen) {
    match seen {
        Group(pointer, wanted) => {
            let described = serde_json::to_value(group_of(scene, pod).await.0).unwrap();
            let found = described.pointer(pointer).unwrap_or(&Value::Null);
            assert!(
                shows(found, &wanted()),
                "{what}: {pointer} of {described:#}"
            );
        }
        Asked(pointer, wanted) => {
            let asked = group_of(scene, pod).await.1;
            let found = asked.pointer(pointer).unwrap_or(&Value::Null);
            assert!(shows(found, &wanted()), "{what}: {pointer} of {asked:#}");
        }
        Pod(name, beginning) => {
            let noted = |pod: &Value| {
                pod["metadata"]["annotations"][key(name)]
                    .as_str()
                    .is_some_and(|found| found.starts_with(beginning))
            };
            eventually(what, async || scene.pod(pod).await, noted).await;
        }
        Told(reason, words) => {
            told(scene, pod, reason, words, what).await;
            let pod = scene.pod(pod).await;
            assert!(
                pod["metadata"]["annotations"][key("eci-instance-id")].is_null(),
                "{what}: {pod:#}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_annotation_reaches_the_cloud_or_is_refused_with_the_remedy() {
    let scene = Scene::start().await;
    let (rows, sent) = (rows(), sent());
    for (number, (annotations, _)) in rows.iter().enumerate() {
        bind(&scene, &format!("row-{number}"), annotations).await;
    }
    for (number, (annotations, _)) in sent.iter().enumerate() {
        bind(&scene, &format!("sent-{number}"), annotations).await;
    }
    for (number, (annotations, seen)) in rows.iter().enumerate() {
        check(
            &scene,
            &format!("row-{number}"),
            &format!("{annotations:?}"),
            seen,
        )
        .await;
    }
    for (number, (annotations, words)) in sent.iter().enumerate() {
        let pod = format!("sent-{number}");
        let arrived = async || {
            let shown = scene.pod(&pod).await["metadata"]["annotations"][key("eci-instance-id")]
                .is_string();
            shown
                || events_of(&scene, &pod)
                    .await
                    .iter()
                    .any(|(_, message)| message.contains(words))
        };
        eventually(&format!("{annotations:?}"), arrived, |arrived| *arrived).await;
    }
}

/// Names in backticks, as they stand.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_rows_the_crate_and_the_page_name_the_same_annotations() {
    let rows = rows();
    let sent = sent();
    let first = |annotations: &[(&'static str, &str)]| annotations[0].0;
    let mut tested: BTreeSet<&str> = rows
        .iter()
        .map(|(annotations, _)| first(annotations))
        .collect();
    tested.extend(sent.iter().map(|(annotations, _)| first(annotations)));
    let refused: BTreeSet<&str> = REFUSED.iter().map(|(name, _)| *name).collect();
    let known: BTreeSet<&str> = HONOURED
        .iter()
        .copied()
        .chain(refused.iter().copied())
        .collect();
    assert_eq!(tested, known, "each annotation has its row");
    let mut page = BTreeSet::new();
    for line in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.split('|').skip(1);
        let (names, standing) = (cells.next().unwrap(), cells.next().unwrap().trim());
        for name in quoted(names) {
            assert_eq!(
                standing == "refused",
                refused.contains(name),
                "{name} on the page"
            );
            page.insert(name);
        }
    }
    assert_eq!(page, known, "the page lists each annotation");
    for (annotations, seen) in &rows {
        let is_refused = matches!(seen, Told(REFUSAL, words) if !words.starts_with("could take"));
        assert_eq!(
            is_refused,
            refused.contains(first(annotations)),
            "{annotations:?}"
        );
    }
}

/// From the group and the pod.
type Expected = fn(&ContainerGroup, &Value) -> Option<String>;

/// What is written back, with what it must be.
const WRITTEN: &[(&str, Expected)] = &[
    ("eci-instance-id", |group, _| {
        Some(group.container_group_id.clone())
    }),
    ("eci-instance-spec", |_, _| Some("2.0-4.0Gi".to_owned())),
    ("eci-instance-cpu", |_, _| Some("2.0".to_owned())),
    ("eci-instance-mem", |_, _| Some("4.0".to_owned())),
    ("eci-instance-zone", |group, _| Some(group.zone_id.clone())),
    ("eci-vswitch", |group, _| Some(group.v_switch_id.clone())),
    ("eci-security-group", |group, _| {
        Some(group.security_group_id.clone())
    }),
    ("eci-request-id", |_, pod| {
        pod["metadata"]["annotations"][key("eci-request-id")]
            .as_str()
            .filter(|id| id.len() == 36)
            .map(str::to_owned)
    }),
    ("eci-client-token", |_, pod| {
        pod["metadata"]["uid"].as_str().map(str::to_owned)
    }),
    ("eci-schedule-result", |_, _| Some("finished".to_owned())),
    ("eci-kube-proxy-enabled", |_, _| Some("true".to_owned())),
    ("cluster-dns", |_, _| Some("10.96.0.10".to_owned())),
    ("cluster-domain", |_, _| Some("cluster.local".to_owned())),
    ("vk-version", |_, _| {
        Some(format!("v{}", env!("CARGO_PKG_VERSION")))
    }),
    ("ProviderCreate: done", |_, _| Some("done".to_owned())),
    ("eci-vpc", |group, _| Some(group.vpc_id.clone())),
    ("eni-instance-id", |group, _| group.eni_instance_id.clone()),
    ("eci-instance-compute-category", |group, _| {
        group.compute_category.clone()
    }),
    ("eci-matched-image-cache", |_, pod| {
        pod["metadata"]["annotations"][key("eci-matched-image-cache")]
            .as_str()
            .filter(|id| id.starts_with("imc-"))
            .map(str::to_owned)
    }),
    ("allocated-eipAddress", |group, _| group.internet_ip.clone()),
    // The local cloud gives no IPv6 addresses; that one is noted is tested beside the code.
    ("allocated-ipv6Address", |group, _| {
        group.ipv6_address.clone()
    }),
];
/// What the cloud does not tell.
const NOT_WRITTEN: [&str; 4] = [
    "eci-created-by-template",
    "eci-drop-apiserver-interactive-caps",
    "k8s-version",
    "allocated-eipInstanceId",
];

async fn make_image_cache(scene: &Scene) {
    let request = CreateImageCacheRequest {
        image_cache_name: "shop".to_owned(),
        image: vec!["shop:1".to_owned()],
        security_group_id: Some("sg-local".to_owned()),
        v_switch_id: Some("vsw-cn-hangzhou-h".to_owned()),
        ..CreateImageCacheRequest::default()
    };
    scene.eci.call(&request).await.unwrap();
    let look = async || {
        scene
            .eci
            .call(&DescribeImageCachesRequest::default())
            .await
            .unwrap()
    };
    eventually("image cache is made", look, |answer| {
        answer
            .image_caches
            .iter()
            .any(|cache| cache.status == "Ready")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_the_page_says_is_written_back() {
    let scene = Scene::start().await;
    make_image_cache(&scene).await;
    bind(
        &scene,
        "web",
        &[
            ("eci-compute-category", "economy"),
            ("eci-auto-imc", "true"),
            EIP,
        ],
    )
    .await;
    scene.runs("web").await;
    let complete = |pod: &Value| {
        ["eci-vpc", "allocated-eipAddress", "eci-matched-image-cache"]
            .iter()
            .all(|name| pod["metadata"]["annotations"][key(name)].is_string())
    };
    let pod = eventually("described", async || scene.pod("web").await, complete).await;
    let (group, _) = group_of(&scene, "web").await;
    for (name, wanted) in WRITTEN {
        let full = if *name == "ProviderCreate: done" {
            "ProviderCreate".to_owned()
        } else {
            key(name)
        };
        let found = pod["metadata"]["annotations"][full].as_str();
        assert_eq!(found, wanted(&group, &pod).as_deref(), "{name} in {pod:#}");
    }
    for name in NOT_WRITTEN {
        assert!(
            pod["metadata"]["annotations"][key(name)].is_null(),
            "{name}"
        );
    }
    assert_eq!(
        pod["metadata"]["labels"]["serverless.alibabacloud.com/virtual-node"],
        "true"
    );
    let (_, section) = PAGE.split_once("## Written back to the pod").unwrap();
    let (written, not_written) = section.split_once("Not written").unwrap();
    let names = |text: &'static str| -> BTreeSet<&str> {
        quoted(text)
            .filter(|name| !name.starts_with("serverless."))
            .collect()
    };
    assert_eq!(
        names(written),
        WRITTEN.iter().map(|(name, _)| *name).collect()
    );
    assert_eq!(names(not_written), NOT_WRITTEN.into());
}
