//! `springtide cloud` on a served cluster whose groups exist on paper.

use std::process::Command;

use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest};
use cloud_api::model::describe::Tag;
use cloud_api::{ClientSources, Credentials, EciClient, EciConfig};
use elastic_core::names::tags;
use serde_json::{Value, json};

use crate::cluster::{PROGRAM, TestCluster, refusal, springtide, wait_for};

/// Runs `springtide cloud …`; gives what it printed.
fn cloud(cluster: &TestCluster, arguments: &[&str]) -> String {
    let folder = cluster.folder.path().join("cluster");
    let mut all = vec!["cloud", "--data-dir", folder.to_str().unwrap()];
    all.extend(arguments);
    let output = springtide(&all);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{all:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"alibabacloud.com/eci": "true"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox:1"}]},
    })
}

#[test]
fn groups_are_listed_changed_and_compared_with_the_pods() {
    let mut cluster = TestCluster::start(&["--workers", "0", "--simulated"]);
    cluster.apply(&pod("one").to_string());
    cluster.wait_for_value(&["pod", "one"], "/status/phase", &json!("Running"));
    let groups = read(&cloud(&cluster, &["groups", "-o", "json"]));
    let id = groups[0]["ContainerGroupId"].as_str().unwrap().to_string();
    let table = cloud(&cluster, &["groups"]);
    assert!(
        table.starts_with("ID") && table.contains(&id) && table.contains("springtide/pod=one"),
        "{table}"
    );
    assert_eq!(
        read(&cloud(&cluster, &["orphans", "-o", "json"])),
        json!([])
    );

    cloud(
        &cluster,
        &[
            "groups",
            "update",
            &id,
            "--image",
            "main=busybox:2",
            "--tag",
            "team=shop",
        ],
    );
    let cost = |by: &str| read(&cloud(&cluster, &["cost", "--by", by, "-o", "json"]));
    let by_group = wait_for("a second has been charged", 30, || {
        let cost = cost("group");
        if cost["seconds"].as_u64() > Some(0) {
            Ok(cost)
        } else {
            Err(cost.to_string())
        }
    });
    assert_eq!(
        (&by_group["running"], &by_group["rows"][0]["name"]),
        (&json!(1), &json!(id))
    );
    // Nothing was asked for, so it has 2 vCPU and 4 GiB.
    assert_eq!(by_group["perHour"], "0.441072000");
    assert_eq!(cost("namespace")["rows"][0]["name"], "default");
    let table = cloud(&cluster, &["cost", "--by", "zone"]);
    assert!(
        table.starts_with("ZONE") && table.contains("\ntotal"),
        "{table}"
    );
    wait_for("the update is carried out", 30, || {
        let groups = read(&cloud(&cluster, &["groups", "-o", "json"]));
        let group = &groups[0];
        let done = group["Status"] == "Running" && group["Containers"][0]["Image"] == "busybox:2";
        if done { Ok(()) } else { Err(group.to_string()) }
    });
    cluster.down();
}

/// A group of this cluster for a pod that nobody has; its id.
fn orphan(cluster: &TestCluster) -> String {
    let status = cluster.status();
    let text = |pointer: &str| {
        status
            .pointer(pointer)
            .unwrap()
            .as_str()
            .unwrap()
            .to_string()
    };
    let tag = |key: &str, value: String| Tag {
        key: key.to_string(),
        value,
    };
    let request = CreateContainerGroupRequest {
        container_group_name: "left-behind".to_string(),
        tag: vec![
            tag(tags::CLUSTER, text("/clusterId")),
            tag(
                tags::UID,
                "8c0f4c2e-0000-4000-8000-000000000000".to_string(),
            ),
        ],
        container: vec![ContainerSpec {
            name: "main".into(),
            image: "busybox:1".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let config = EciConfig::new(
        format!("http://{}", text("/cloud/eci/endpoint")),
        text("/cloud/region"),
        Credentials::new(text("/cloud/accessKeyId"), text("/cloud/accessKeySecret")),
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let made = runtime.block_on(async {
        let client = EciClient::new(config, ClientSources::system()).unwrap();
        client.call(&request).await
    });
    made.unwrap().container_group_id
}

/// The same question as it is asked about any cluster: by its kubeconfig and the cloud's public interface alone.
fn orphans_elsewhere(cluster: &TestCluster) -> Value {
    let status = cluster.status();
    let text = |pointer: &str| status.pointer(pointer).unwrap().as_str().unwrap();
    let kubeconfig = cluster.data_dir().join("kubeconfig");
    let endpoint = format!("http://{}", text("/cloud/eci/endpoint"));
    let output = Command::new(PROGRAM)
        .args(["cloud", "orphans", "-o", "json", "--kubeconfig"])
        .arg(kubeconfig)
        .args(["--region", text("/cloud/region"), "--endpoint", &endpoint])
        .args(["--cluster-id", text("/clusterId")])
        .env("ECI_ACCESS_KEY", text("/cloud/accessKeyId"))
        .env("ECI_SECRET_KEY", text("/cloud/accessKeySecret"))
        .output()
        .unwrap();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", shown(&output.stderr));
    read(&shown(&output.stdout))
}

#[test]
fn a_group_is_restarted_and_deleted_by_hand_and_what_has_no_pod_is_removed() {
    let mut cluster = TestCluster::start(&["--workers", "0", "--simulated"]);
    cluster.apply(&pod("one").to_string());
    cluster.wait_for_value(&["pod", "one"], "/status/phase", &json!("Running"));
    let listed = || read(&cloud(&cluster, &["groups", "-o", "json"]));
    let own = listed()[0]["ContainerGroupId"]
        .as_str()
        .unwrap()
        .to_string();
    let left = orphan(&cluster);
    let orphans = read(&cloud(&cluster, &["orphans", "-o", "json"]));
    assert_eq!(orphans[0]["ContainerGroupId"], json!(left), "{orphans:#}");
    assert_eq!(orphans.as_array().unwrap().len(), 1, "{orphans:#}");
    assert_eq!(orphans_elsewhere(&cluster), orphans);
    cloud(&cluster, &["orphans", "--delete"]);
    wait_for("only the group with a pod is left", 60, || {
        let groups = listed();
        let ids: Vec<&str> = groups
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|group| group["ContainerGroupId"].as_str())
            .collect();
        if ids == [own.as_str()] {
            Ok(())
        } else {
            Err(groups.to_string())
        }
    });
    cloud(&cluster, &["groups", "restart", &own]);
    wait_for("the group runs again", 60, || {
        let group = listed()[0].clone();
        let restarted = group["Containers"][0]["RestartCount"].as_i64() > Some(0);
        if restarted && group["Status"] == "Running" {
            Ok(())
        } else {
            Err(group.to_string())
        }
    });
    cloud(&cluster, &["groups", "delete", &own]);
    cluster.wait_for_value(&["pod", "one"], "/status/phase", &json!("Failed"));
    cluster.down();
}

#[test]
fn a_fault_hits_until_it_is_cleared_and_a_broken_instance_fails_its_pod() {
    let mut cluster = TestCluster::start(&["--workers", "0", "--simulated"]);
    cluster.apply(&pod("one").to_string());
    cluster.wait_for_value(&["pod", "one"], "/status/phase", &json!("Running"));
    let groups = read(&cloud(&cluster, &["groups", "-o", "json"]));
    let id = groups[0]["ContainerGroupId"].as_str().unwrap().to_string();
    let fault = cloud(
        &cluster,
        &[
            "fault",
            "add",
            "no-stock",
            "--zone",
            "cn-hangzhou-k",
            "--for",
            "10m",
        ],
    );
    let listed = read(&cloud(&cluster, &["fault", "list", "-o", "json"]));
    assert_eq!(
        (&listed[0]["id"], &listed[0]["kind"]),
        (&json!(fault.trim()), &json!("no-stock"))
    );
    cluster.apply(&pod("two").to_string());
    wait_for("the pod meets the fault", 30, || {
        let listed = read(&cloud(&cluster, &["fault", "list", "-o", "json"]));
        if listed[0]["hits"].as_u64() > Some(0) {
            Ok(())
        } else {
            Err(listed.to_string())
        }
    });
    cloud(&cluster, &["fault", "clear"]);
    cluster.wait_for_value(&["pod", "two"], "/status/phase", &json!("Running"));

    cloud(
        &cluster,
        &["fault", "add", "instance-failure", "--group", &id],
    );
    cluster.wait_for_value(&["pod", "one"], "/status/phase", &json!("Failed"));
    cluster.down();
}

#[test]
fn users_shares_and_addresses_are_made_and_mistakes_are_told() {
    let mut cluster = TestCluster::start(&["--workers", "0", "--simulated"]);
    let policy = cluster.folder.path().join("policy.json");
    let text = r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":"eci:Describe*","Resource":"*"}]}"#;
    std::fs::write(&policy, text).unwrap();
    cloud(
        &cluster,
        &["user", "add", "bot", "--policy", policy.to_str().unwrap()],
    );
    let key = read(&cloud(&cluster, &["user", "key", "bot"]));
    assert!(key["accessKeySecret"].is_string(), "{key}");
    let users = read(&cloud(&cluster, &["user", "list"]));
    assert_eq!(users[0]["accessKeys"][0]["accessKeyId"], key["accessKeyId"]);
    let share = read(&cloud(&cluster, &["nas", "add", "--description", "models"]));
    assert!(std::path::Path::new(share["directory"].as_str().unwrap()).is_dir());
    cloud(&cluster, &["nas", "delete", share["id"].as_str().unwrap()]);
    let eip = read(&cloud(&cluster, &["eip", "add"]));
    cloud(&cluster, &["eip", "delete", eip["id"].as_str().unwrap()]);

    let folder = cluster.folder.path().join("cluster");
    let folder = folder.to_str().unwrap();
    let told = |arguments: &[&str]| {
        let mut all = vec!["cloud", "--data-dir", folder];
        all.extend(arguments);
        refusal(&all)
    };
    assert!(told(&["fault", "add", "no-stock", "--zone", "mars"]).contains("cn-hangzhou-k"));
    assert!(told(&["groups", "restart", "eci-none"]).contains("eci-none"));
    assert!(
        told(&["groups", "update", "eci-none", "--tag", "a=b"])
            .contains("there is no container group")
    );
    assert!(told(&["fault", "clear", "flt-none"]).contains("flt-none"));
    cluster.down();
    assert!(refusal(&["cloud", "--data-dir", folder, "groups"]).contains("springtide up"));
}
