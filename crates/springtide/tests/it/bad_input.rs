//! Each mistake gets one clear sentence with its cause and the remedy, where the user looks, and nothing is half done.

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::json;

use crate::busybox;
use crate::cluster::{PROGRAM, TestCluster, refusal, wait_for};

#[test]
fn a_port_in_use_is_named_with_the_flag_and_nothing_is_left() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("c").display().to_string();
    let said = refusal(&["up", "--data-dir", &data_dir, "--listen", &address]);
    assert!(
        said.contains(&address) && said.contains("--listen"),
        "{said}"
    );
    let down = crate::cluster::springtide(&["down", "--data-dir", &data_dir, "--purge"]);
    assert!(
        down.status.success(),
        "{}",
        String::from_utf8_lossy(&down.stderr)
    );
}

#[test]
fn another_version_of_the_data_directory_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("version"), "77").unwrap();
    let said = refusal(&["up", "--data-dir", &folder.path().display().to_string()]);
    assert!(said.contains("77") && said.contains("--data-dir"), "{said}");
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(
        names.iter().all(|name| name == "version" || name == "lock"),
        "{names:?}"
    );
}

#[test]
fn without_root_the_remedy_is_said() {
    // The program may lie where only root may look; a copy does not.
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let copy = folder.path().join("springtide");
    std::fs::copy(PROGRAM, &copy).unwrap();
    let output = Command::new(&copy)
        .args(["up", "--data-dir", "/nonexistent/x"])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("root") && said.contains("sudo"),
        "{said}"
    );
}

#[test]
fn asking_a_directory_that_nobody_serves_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let said = refusal(&[
        "status",
        "--data-dir",
        &folder.path().join("none").display().to_string(),
    ]);
    assert!(said.contains("springtide up"), "{said}");
}

#[test]
fn mistakes_in_a_running_cluster_are_told_where_the_user_looks() {
    let mut cluster = TestCluster::start(&["--workers", "1"]);
    let data_dir = cluster.data_dir().display().to_string();

    let said = refusal(&["up", "--data-dir", &data_dir]);
    assert!(
        said.contains("in use") && said.contains("springtide down"),
        "{said}"
    );

    let corrupt = cluster.folder.path().join("corrupt.tar");
    std::fs::write(&corrupt, b"this is no archive").unwrap();
    let said = refusal(&[
        "image",
        "--data-dir",
        &data_dir,
        "load",
        &corrupt.display().to_string(),
    ]);
    assert!(said.contains("corrupt.tar"), "{said}");

    let invalid = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"c"}},"spec":{"containers":[{"name":"m","image":"i"}]}}}}"#;
    let said = cluster
        .try_kubectl(&["apply", "-f", "-"], Some(invalid))
        .unwrap_err();
    assert!(said.contains("spec.template.metadata.labels"), "{said}");
    assert!(
        cluster
            .try_kubectl(&["get", "deployment", "x"], None)
            .is_err(),
        "nothing is half done"
    );

    cluster.kubectl(&["run", "unknown", "--image=127.0.0.1:1/none:1"]);
    wait_for("the unknown image's reason", 60, || {
        let pod = cluster.get(&["pod", "unknown"]);
        let reason = pod
            .pointer("/status/containerStatuses/0/state/waiting/reason")
            .cloned()
            .unwrap_or_default();
        if reason == "ErrImagePull" || reason == "ImagePullBackOff" {
            Ok(())
        } else {
            Err(format!("{pod:#}"))
        }
    });

    cluster.apply(
        &json!({
            "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload",
            "metadata": {"name": "orphan", "namespace": "default"},
            "spec": {"replicas": 1, "sourceTarget": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "missing", "min": 0, "max": 1}, "elasticUnit": [{"name": "u"}]},
        })
        .to_string(),
    );
    wait_for("the missing source's condition", 30, || {
        let workload = cluster.get(&["elasticworkload", "orphan"]);
        let conditions = workload
            .pointer("/status/conditions")
            .cloned()
            .unwrap_or_default()
            .to_string();
        if conditions.contains("missing") && conditions.contains("False") {
            Ok(())
        } else {
            Err(format!("{workload:#}"))
        }
    });
    cluster.down();
}

#[test]
fn a_wrong_signature_is_refused_by_the_cloud() {
    let mut cluster = TestCluster::start(&["--workers", "0", "--simulated"]);
    let status = cluster.status();
    let endpoint = status["cloud"]["eci"]["endpoint"]
        .as_str()
        .unwrap()
        .to_string();
    assert_eq!(status["cloud"]["simulated"], true);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(async {
        let credentials =
            cloud_api::Credentials::new(status["cloud"]["accessKeyId"].as_str().unwrap(), "wrong");
        let config =
            cloud_api::EciConfig::new(format!("http://{endpoint}"), "cn-hangzhou", credentials);
        let client = cloud_api::EciClient::new(config, cloud_api::ClientSources::system()).unwrap();
        client
            .all_container_groups(Default::default())
            .await
            .unwrap_err()
    });
    assert!(
        format!("{error:?}").contains("SignatureDoesNotMatch"),
        "{error:?}"
    );
    cluster.down();
}

#[test]
fn busybox_archives_load_and_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let archive = busybox::archive(folder.path());
    let data_dir = folder.path().join("c").display().to_string();
    let loaded = crate::cluster::springtide(&[
        "image",
        "--data-dir",
        &data_dir,
        "load",
        &archive.display().to_string(),
    ]);
    assert!(
        loaded.status.success(),
        "{}",
        String::from_utf8_lossy(&loaded.stderr)
    );
    let listed = crate::cluster::springtide(&["image", "--data-dir", &data_dir, "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(busybox::REFERENCE));
}
