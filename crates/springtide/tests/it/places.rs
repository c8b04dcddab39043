//! Pods on owned and on virtual nodes, with every real controller, real containers and the local cloud: a ResourcePolicy,
//! places that run out of capacity, sources that are no Deployments, and CronJobs.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::busybox;
use crate::cluster::{TestCluster, springtide, wait_for};

/// A pod template that runs until it is stopped.
fn template(name: &str, cpu: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": busybox::REFERENCE, "command": ["sleep", "3600"],
            "resources": {"requests": {"cpu": cpu, "memory": "32Mi"}}
        }]}
    })
}

fn workload(kind: &str, name: &str, replicas: u32, template: &Value) -> String {
    let selector = json!({"matchLabels": {"app": name}});
    let mut object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": selector, "template": template}});
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = json!(name);
    }
    object.to_string()
}

fn start(flags: &[&str]) -> TestCluster {
    let cluster = TestCluster::start(flags);
    cluster.load_image(&busybox::archive(cluster.folder.path()));
    cluster
}

/// Running pods with a label and whether each is on a virtual node, without those that are ending.
fn running(cluster: &TestCluster, label: &str) -> BTreeMap<String, bool> {
    let list = cluster.get(&["pods", "-l", label]);
    let items = list["items"].as_array().unwrap().iter();
    let live = items.filter(|pod| {
        pod.pointer("/metadata/deletionTimestamp").is_none() && pod["status"]["phase"] == "Running"
    });
    live.map(|pod| {
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        let name = pod["metadata"]["name"].as_str().unwrap();
        (name.to_owned(), node.starts_with("virtual-kubelet-"))
    })
    .collect()
}

/// Waits for so many running pods on owned and on virtual nodes.
fn wait_for_pods(
    cluster: &TestCluster,
    label: &str,
    owned: usize,
    serverless: usize,
) -> BTreeMap<String, bool> {
    wait_for(
        &format!("{owned} owned and {serverless} serverless pods"),
        120,
        || {
            let found = running(cluster, label);
            let virtual_pods = found.values().filter(|on_virtual| **on_virtual).count();
            if (found.len() - virtual_pods, virtual_pods) == (owned, serverless) {
                Ok(found)
            } else {
                Err(format!(
                    "{found:?}\n{}",
                    cluster.kubectl(&["get", "pods,events", "-o", "wide"])
                ))
            }
        },
    )
}

#[test]
fn a_resource_policy_overflows_to_the_virtual_node_and_empties_it_first() {
    let mut cluster = start(&["--workers", "1"]);
    let example = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/successors/resource-policy.yaml");
    cluster.apply(&std::fs::read_to_string(example).unwrap());
    wait_for("pods are looked at", 60, || {
        let labels = "--labels=app=shop,pod-template-hash=probe";
        let probe = [
            "run",
            "probe",
            "--image=i:1",
            labels,
            "--dry-run=server",
            "-o",
            "json",
        ];
        let pod = cluster.kubectl(&probe);
        pod.contains("matched-resourcepolicy")
            .then_some(())
            .ok_or(pod)
    });
    cluster.apply(&workload("Deployment", "shop", 6, &template("shop", "10m")));
    wait_for_pods(&cluster, "app=shop", 4, 2);
    cluster.wait_for_value(&["rp", "shop"], "/status/summary", &json!("ecs 4/4, eci 2"));
    wait_for("every pod has its deletion cost", 60, || {
        let list = cluster.get(&["pods", "-l", "app=shop"]).to_string();
        let costs = list
            .matches("\"controller.kubernetes.io/pod-deletion-cost\"")
            .count();
        if costs == 6 { Ok(()) } else { Err(list) }
    });
    // Down: the serverless ones go, the owned ones stay the very same.
    let before = running(&cluster, "app=shop");
    cluster.kubectl(&["scale", "deployment", "shop", "--replicas=4"]);
    let after = wait_for_pods(&cluster, "app=shop", 4, 0);
    assert!(
        after.keys().all(|name| before.get(name) == Some(&false)),
        "{before:?} {after:?}"
    );
    // And up again.
    cluster.kubectl(&["scale", "deployment", "shop", "--replicas=5"]);
    wait_for_pods(&cluster, "app=shop", 4, 1);
    cluster.down();
}

/// What is asked of the source and of each unit.
fn shares(cluster: &TestCluster) -> (Value, Vec<Value>) {
    let object = cluster.get(&["ew", "shop"]);
    let status = &object["status"];
    let units = status["elasticUnitsStatus"].as_array().cloned();
    let asked = |place: &Value| place["desiredReplicas"].clone();
    let mut all = vec![asked(&status["sourceTarget"])];
    all.extend(units.iter().flatten().map(asked));
    (object, all)
}

fn wait_for_shares(cluster: &TestCluster, what: &str, expected: [i32; 3]) -> Value {
    let expected: Vec<Value> = expected.iter().map(|count| json!(count)).collect();
    wait_for(what, 120, || {
        let (object, found) = shares(cluster);
        let ready = object["status"]["readyReplicas"] == object["spec"]["replicas"];
        if found == expected && ready {
            return Ok(object);
        }
        Err(format!(
            "{:#}\n{}",
            object["status"],
            cluster.kubectl(&["get", "pods", "-o", "wide"])
        ))
    })
}

fn fault(cluster: &TestCluster, arguments: &[&str]) {
    let folder = cluster.data_dir().display().to_string();
    let all = [&["cloud", "fault"], arguments, &["--data-dir", &folder]].concat();
    let output = springtide(&all);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn shares_of_places_without_capacity_go_on_to_the_next() {
    let mut cluster = start(&[
        "--workers",
        "2",
        "--worker-cpu",
        "1",
        "--worker-memory",
        "1Gi",
    ]);
    let nodes = cluster.get(&["nodes", "-l", "type!=virtual-kubelet"]);
    for (node, pool) in nodes["items"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["main", "spare"])
    {
        let name = node["metadata"]["name"].as_str().unwrap();
        cluster.kubectl(&["label", "node", name, &format!("pool={pool}")]);
    }
    let in_pool = |name: &str| {
        let mut template = template(name, "400m");
        template["spec"]["nodeSelector"] = json!({"pool": "main"});
        template
    };
    // One of two places on the source's node is taken.
    cluster.apply(&workload("Deployment", "filler", 1, &in_pool("filler")));
    wait_for_pods(&cluster, "app=filler", 1, 0);
    cluster.apply(&workload("Deployment", "shop", 1, &in_pool("shop")));
    let policy = json!({
        "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload", "metadata": {"name": "shop"},
        "spec": {
            "replicas": 3, "rescheduleAfterSeconds": 2, "recoverAfterSeconds": 20,
            "sourceTarget": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "min": 0, "max": 2},
            "elasticUnit": [
                {"name": "cloud", "labels": {"alibabacloud.com/eci": "true"}},
                {"name": "spare", "nodeSelector": {"pool": "spare"}}]
        }
    });
    cluster.apply(&policy.to_string());
    let object = wait_for_shares(&cluster, "the share of full nodes goes on", [1, 2, 0]);
    assert_eq!(
        object.pointer("/status/sourceTarget/shortage/capacity"),
        Some(&json!(1))
    );

    fault(&cluster, &["add", "no-stock"]);
    cluster.kubectl(&["scale", "ew", "shop", "--replicas=5"]);
    let object = wait_for_shares(
        &cluster,
        "the share of the cloud without stock goes on",
        [1, 2, 2],
    );
    assert_eq!(
        object.pointer("/status/elasticUnitsStatus/0/shortage/capacity"),
        Some(&json!(2))
    );
    let events = cluster.get(&["events"]).to_string();
    assert!(events.contains("CapacityShort"), "{events}");

    cluster.down();
}

#[test]
fn stateful_sets_number_on_and_queue_jobs_spread_over_the_virtual_node() {
    let mut cluster = start(&["--workers", "1"]);
    let policy = |name: &str, version: &str, kind: &str| {
        json!({
            "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload", "metadata": {"name": name},
            "spec": {
                "replicas": 4,
                "sourceTarget": {"apiVersion": version, "kind": kind, "name": name, "min": 0, "max": 2},
                "elasticUnit": [{"name": "vk", "labels": {"alibabacloud.com/eci": "true"}}]
            }
        })
        .to_string()
    };
    cluster.apply(&workload(
        "StatefulSet",
        "store",
        1,
        &template("store", "10m"),
    ));
    cluster.apply(&policy("store", "apps/v1", "StatefulSet"));
    let names = |found: BTreeMap<String, bool>| found.into_keys().collect::<Vec<_>>();
    let found = wait_for_pods(&cluster, "app=store", 2, 2);
    assert_eq!(
        names(found),
        ["store-0", "store-1", "store-unit-vk-2", "store-unit-vk-3"]
    );
    cluster.kubectl(&["scale", "ew", "store", "--replicas=3"]);
    let found = wait_for_pods(&cluster, "app=store", 2, 1);
    assert_eq!(names(found), ["store-0", "store-1", "store-unit-vk-2"]);
    cluster.wait_for_value(&["ew", "store"], "/status/unitSummary", &json!("vk 1"));

    let mut pod = template("queue", "10m");
    pod["spec"]["restartPolicy"] = json!("Never");
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "queue"}, "spec": {"parallelism": 1, "template": pod}});
    cluster.apply(&job.to_string());
    cluster.apply(&policy("queue", "batch/v1", "Job"));
    wait_for_pods(&cluster, "app=queue", 2, 2);
    cluster.wait_for_value(&["job", "queue-unit-vk"], "/status/active", &json!(2));
    cluster.kubectl(&["scale", "ew", "queue", "--replicas=2"]);
    wait_for_pods(&cluster, "app=queue", 2, 0);
    let source = cluster.get(&["job", "queue"]);
    assert_eq!(source["spec"]["parallelism"], 2);
    assert_eq!(source["status"]["active"], 2);
    cluster.down();
}

#[test]
fn a_cron_job_makes_jobs_in_its_time_zone_until_it_is_suspended() {
    let mut cluster = start(&["--workers", "1"]);
    let manifest = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "report"},
        "spec": {
            "schedule": "@every 2s", "timeZone": "Asia/Shanghai", "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 1,
            "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [
                {"name": "main", "image": busybox::REFERENCE, "command": ["true"]}]}}}}
        }
    });
    cluster.apply(&manifest.to_string());
    let told = |reasons: &[&str]| {
        wait_for(&format!("events {reasons:?}"), 120, || {
            let events = cluster
                .get(&["events", "--field-selector", "involvedObject.kind=CronJob"])
                .to_string();
            let all = reasons
                .iter()
                .all(|reason| events.contains(&format!("\"{reason}\"")));
            if all {
                Ok(())
            } else {
                Err(format!(
                    "{events}\n{}",
                    cluster.kubectl(&["get", "cronjobs,jobs,pods"])
                ))
            }
        });
    };
    told(&["SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"]);
    let jobs = cluster.get(&["jobs"]);
    let annotations = &jobs["items"][0]["metadata"]["annotations"];
    let made_for = annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"]
        .as_str()
        .unwrap_or_default();
    assert!(made_for.ends_with("+08:00"), "{jobs:#}");
    cluster.kubectl(&[
        "patch",
        "cronjob",
        "report",
        "-p",
        r#"{"spec": {"suspend": true}}"#,
    ]);
    wait_for("running jobs end and the history has its limit", 60, || {
        let cron = cluster.get(&["cronjob", "report"]);
        let jobs = cluster.get(&["jobs"]);
        let count = jobs["items"].as_array().map(Vec::len);
        let idle = cron["status"].get("active").is_none();
        if idle && count == Some(1) {
            Ok(())
        } else {
            Err(format!("{cron:#}\n{jobs:#}"))
        }
    });
    cluster.kubectl(&["delete", "cronjob", "report"]);
    wait_for("its jobs go with it", 60, || {
        let jobs = cluster.get(&["jobs"]);
        if jobs["items"] == json!([]) {
            Ok(())
        } else {
            Err(jobs.to_string())
        }
    });
    cluster.down();
}
