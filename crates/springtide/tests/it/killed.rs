//! `kill -9` at random moments of a burst, then a restart: nothing lost, doubled or leaked.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cluster::{TestCluster, wait_for};

/// Moments after the scale call at which the process is killed, in milliseconds; the first is drawn anew for each run.
fn moments() -> Vec<u64> {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .subsec_nanos();
    let drawn = u64::from(seed) % 900;
    println!("drawn moment: {drawn} ms (repeat with this number to see the same)");
    vec![drawn, 120]
}

fn manifests() -> [String; 2] {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": "default"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    "containers": [{
                        "name": "shop", "image": "springtide.local/sample-shop:demo", "imagePullPolicy": "IfNotPresent",
                        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}},
                        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
                    }],
                },
            },
        },
    });
    let workload = json!({
        "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload", "metadata": {"name": "shop", "namespace": "default"},
        "spec": {
            "replicas": 1,
            "sourceTarget": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "min": 1, "max": 2},
            "elasticUnit": [{"name": "cloud", "labels": {"alibabacloud.com/eci": "true"}}],
        },
    });
    [deployment.to_string(), workload.to_string()]
}

fn live_pods(list: &Value) -> Vec<&Value> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none())
        .filter(|pod| {
            !matches!(
                pod["status"]["phase"].as_str(),
                Some("Failed" | "Succeeded")
            )
        })
        .collect()
}

fn groups(status: &Value) -> BTreeMap<String, String> {
    let text = |pointer: &str| {
        status
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap()
            .to_string()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let list = runtime.block_on(async {
        let credentials =
            cloud_api::Credentials::new(text("/cloud/accessKeyId"), text("/cloud/accessKeySecret"));
        let config = cloud_api::EciConfig::new(
            format!("http://{}", text("/cloud/eci/endpoint")),
            text("/cloud/region"),
            credentials,
        );
        let client = cloud_api::EciClient::new(config, cloud_api::ClientSources::system()).unwrap();
        client
            .all_container_groups(Default::default())
            .await
            .unwrap()
    });
    list.into_iter()
        .filter(|group| {
            !matches!(
                format!("{:?}", group.status).as_str(),
                "Succeeded" | "Failed" | "Terminating"
            )
        })
        .map(|group| (group.container_group_id, group.container_group_name))
        .collect()
}

#[test]
fn a_burst_survives_the_death_of_the_process() {
    let mut cluster = TestCluster::start(&["--workers", "1"]);
    cluster.build_sample();
    for manifest in manifests() {
        cluster.apply(&manifest);
    }
    cluster.wait_for_value(&["deployment", "shop"], "/status/readyReplicas", &json!(1));
    for (round, moment) in moments().into_iter().enumerate() {
        let replicas = if round % 2 == 0 { 6 } else { 3 };
        cluster.kubectl(&[
            "scale",
            "elasticworkload/shop",
            &format!("--replicas={replicas}"),
        ]);
        // The moment itself is what this test is about, so this is no wait for a condition.
        std::thread::sleep(std::time::Duration::from_millis(moment));
        cluster.kill();
        cluster.up();
        let workload = cluster.get(&["elasticworkload", "shop"]);
        assert_eq!(
            workload["spec"]["replicas"], replicas,
            "an acknowledged write is lost"
        );
        wait_until_whole(&cluster, replicas);
    }
    cluster.kubectl(&["scale", "elasticworkload/shop", "--replicas=1"]);
    wait_for("all groups' end", 60, || {
        let groups = groups(&cluster.status());
        if groups.is_empty() {
            Ok(())
        } else {
            Err(format!("{groups:?}"))
        }
    });
    // Killed once more, and taken down without ever being started again: nothing may be left.
    cluster.kill();
    cluster.down();
}

#[test]
fn a_pod_whose_shim_died_with_the_program_comes_back() {
    let mut cluster = TestCluster::start(&["--workers", "1"]);
    cluster.build_sample();
    let [deployment, _] = manifests();
    cluster.apply(&deployment);
    cluster.wait_for_value(&["deployment", "shop"], "/status/readyReplicas", &json!(1));
    cluster.kill();
    assert_eq!(kill_shims(&cluster), 1);
    cluster.up();
    cluster.kubectl(&["scale", "deployment/shop", "--replicas=2"]);
    cluster.wait_for_value(&["deployment", "shop"], "/status/readyReplicas", &json!(2));
    cluster.down();
}

/// Ends the shims of a cluster's sandboxes: this program, too, with their folders in the cluster's among its arguments.
fn kill_shims(cluster: &TestCluster) -> usize {
    let folder = cluster.data_dir().display().to_string();
    let is_shim = |process: &String| {
        let arguments = std::fs::read_to_string(format!("/proc/{process}/cmdline"));
        let arguments = arguments.unwrap_or_default();
        arguments.contains("runtime-shim") && arguments.contains(&folder)
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let processes = processes.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let shims: Vec<String> = processes.filter(is_shim).collect();
    for shim in &shims {
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args(["-9", shim]).status().unwrap().success());
    }
    shims.len()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// So many ready pods, all but two of them serverless, each of those with exactly one group.
fn wait_until_whole(cluster: &TestCluster, replicas: usize) {
    wait_for(
        &format!("{replicas} ready pods, each with one group"),
        90,
        || {
            let pods = cluster.get(&["pods"]);
            let live = live_pods(&pods);
            let ready = live.iter().filter(|pod| is_ready(pod)).count();
            let serverless = live
                .iter()
                .filter(|pod| pod["metadata"]["name"].as_str().unwrap().contains("-unit-"))
                .count();
            let groups = groups(&cluster.status());
            if live.len() == replicas
                && ready == replicas
                && groups.len() == serverless
                && serverless == replicas - 2
            {
                Ok(())
            } else {
                let names: Vec<_> = pods["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|pod| {
                        format!(
                            "{} {} {}",
                            pod["metadata"]["name"],
                            pod["status"]["phase"],
                            pod.pointer("/metadata/deletionTimestamp").is_some()
                        )
                    })
                    .collect();
                Err(format!(
                    "{ready} ready of {names:?}; groups {groups:?}\n{}",
                    cluster.log()
                ))
            }
        },
    );
}
