//! `springtide cloud` on a served cluster whose groups exist on paper.

use serde_json::{Value, json};

use crate::cluster::{TestCluster, refusal, springtide, wait_for};

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
    wait_for("the update is carried out", 30, || {
        let groups = read(&cloud(&cluster, &["groups", "-o", "json"]));
        let group = &groups[0];
        let done = group["Status"] == "Running" && group["Containers"][0]["Image"] == "busybox:2";
        if done { Ok(()) } else { Err(group.to_string()) }
    });
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
