//! A real kubectl against the built program, with real containers on both tiers.

use serde_json::json;

use crate::busybox;
use crate::cluster::{TestCluster, wait_for};

fn pod(name: &str, labels: serde_json::Value, script: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": busybox::REFERENCE, "command": ["sh", "-c", script]}],
        },
    })
    .to_string()
}

const SERVE: &str = "echo started; sleep 1000";

/// A pod of the sample shop, whose image holds this very program: it serves on 8080, and `springtide load` in it asks others.
fn shop(name: &str, labels: serde_json::Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "containers": [{"name": "main", "image": "springtide.local/sample-shop:demo", "imagePullPolicy": "IfNotPresent"}],
        },
    })
    .to_string()
}

#[test]
fn both_tiers_run_pods_that_kubectl_can_look_into() {
    let mut cluster = TestCluster::start(&["--workers", "2"]);
    cluster.load_image(&busybox::archive(cluster.folder.path()));
    let nodes = cluster.kubectl(&["get", "nodes"]);
    assert!(
        nodes.contains("virtual-kubelet-cn-hangzhou-k") && nodes.contains("agent"),
        "{nodes}"
    );
    cluster.apply(&pod("owned", json!({}), SERVE));
    cluster.apply(&pod(
        "cloud",
        json!({"alibabacloud.com/eci": "true"}),
        SERVE,
    ));
    for (name, node) in [("owned", "worker-"), ("cloud", "virtual-kubelet-")] {
        cluster.wait_for_value(&["pod", name], "/status/phase", &json!("Running"));
        let pod = cluster.get(&["pod", name]);
        assert!(
            pod["spec"]["nodeName"].as_str().unwrap().starts_with(node),
            "{pod:#}"
        );
        wait_for("the log's first line", 10, || {
            let logs = cluster.kubectl(&["logs", name]);
            if logs.contains("started") {
                Ok(())
            } else {
                Err(logs)
            }
        });
        assert_eq!(
            cluster
                .kubectl(&["exec", name, "--", "echo", "inside"])
                .trim(),
            "inside"
        );
        let failed = cluster
            .try_kubectl(&["exec", name, "--", "sh", "-c", "exit 7"], None)
            .unwrap_err();
        assert!(failed.contains("exit code 7"), "{failed}");
    }
    cluster.down();
}

#[test]
fn pods_of_both_tiers_reach_each_other_by_address_and_services_by_name() {
    let mut cluster = TestCluster::start(&["--workers", "1"]);
    cluster.build_sample();
    cluster.apply(&shop("owned", json!({"app": "web"})));
    cluster.apply(&shop(
        "cloud",
        json!({"app": "web", "alibabacloud.com/eci": "true"}),
    ));
    cluster.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]);
    for name in ["owned", "cloud"] {
        cluster.wait_for_value(&["pod", name], "/status/phase", &json!("Running"));
    }
    let address = |name: &str| {
        cluster.get(&["pod", name])["status"]["podIP"]
            .as_str()
            .unwrap()
            .to_string()
    };
    let ask = |from: &str, url: &str| {
        let load = [
            "exec",
            from,
            "--",
            "/springtide",
            "load",
            url,
            "--users",
            "1",
            "--duration",
            "300ms",
            "--think-time",
            "50ms",
            "-o",
            "json",
        ];
        cluster.try_kubectl(&load, None)
    };
    for (from, to) in [("owned", "cloud"), ("cloud", "owned")] {
        let url = format!("http://{}:8080/", address(to));
        wait_for(&format!("{from} to reach {to}"), 20, || ask(from, &url));
        wait_for(&format!("{from} to reach the service by name"), 20, || {
            ask(from, "http://web/")
        });
    }
    cluster.down();
}

#[test]
fn a_deployment_rolls_scales_and_goes() {
    let mut cluster = TestCluster::start(&["--workers", "1"]);
    cluster.load_image(&busybox::archive(cluster.folder.path()));
    cluster.kubectl(&[
        "create",
        "deployment",
        "web",
        &format!("--image={}", busybox::REFERENCE),
        "--",
        "sh",
        "-c",
        "exec busybox httpd -f -p 8080",
    ]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.kubectl(&["scale", "deployment/web", "--replicas=3"]);
    cluster.wait_for_value(&["deployment", "web"], "/status/readyReplicas", &json!(3));
    cluster.kubectl(&["set", "env", "deployment/web", "COLOR=blue"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let history = cluster.kubectl(&["rollout", "history", "deployment/web"]);
    assert!(history.contains('2'), "{history}");
    let described = cluster.kubectl(&["describe", "deployment", "web"]);
    assert!(described.contains("ScalingReplicaSet"), "{described}");
    cluster.kubectl(&["delete", "deployment", "web"]);
    wait_for("the pods' end", 60, || {
        let pods = cluster.get(&["pods"]);
        if pods["items"].as_array().unwrap().is_empty() {
            Ok(())
        } else {
            Err(format!("{pods:#}"))
        }
    });
    cluster.down();
}

#[test]
fn configuration_probes_and_limits_reach_the_container() {
    let mut cluster = TestCluster::start(&["--workers", "1"]);
    cluster.load_image(&busybox::archive(cluster.folder.path()));
    cluster.kubectl(&[
        "create",
        "configmap",
        "settings",
        "--from-literal=color=blue",
    ]);
    cluster.kubectl(&[
        "create",
        "secret",
        "generic",
        "keys",
        "--from-literal=token=s3cret",
    ]);
    cluster.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "default"},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "initContainers": [{"name": "prepare", "image": busybox::REFERENCE, "command": ["sh", "-c", "echo made > /data/made"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
                "containers": [{
                    "name": "main", "image": busybox::REFERENCE,
                    "command": ["sh", "-c", "cat /data/made /settings/color; echo $TOKEN; touch /data/ready; sleep 1000"],
                    "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}}],
                    "readinessProbe": {"exec": {"command": ["test", "-e", "/data/ready"]}, "periodSeconds": 1},
                    "resources": {"limits": {"cpu": "100m", "memory": "32Mi"}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "settings", "mountPath": "/settings"}],
                }],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "settings"}}],
            },
        })
        .to_string(),
    );
    cluster.kubectl(&["wait", "pod/one", "--for=condition=Ready", "--timeout=60s"]);
    let logs = cluster.kubectl(&["logs", "one"]);
    for part in ["made", "blue", "s3cret"] {
        assert!(logs.contains(part), "{logs}");
    }
    cluster.down();
}
