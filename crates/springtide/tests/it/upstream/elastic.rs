//! The elastic kinds between upstream's own controllers and scheduler.

use serde_json::{Value, json};

use super::{ANYWHERE, Scene, pod, runs};
use crate::cluster::wait_for;

fn deployment(name: &str, replicas: u32) -> Value {
    let template = pod("template", |_| ());
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
        },
    })
}

fn elastic_workload(replicas: u32) -> Value {
    json!({
        "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {
            "sourceTarget": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "min": 0, "max": 2},
            "replicas": replicas,
            "elasticUnit": [{"name": "serverless", "labels": {"alibabacloud.com/eci": "true"}}],
        },
    })
}

/// A node that somebody owns, as its kubelet would report it.
fn own_node(scene: &Scene) {
    scene.apply(&[json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1"}})]);
    let status = json!({"status": {
        "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": jiff::Timestamp::now()}],
    }});
    let patch = status.to_string();
    scene.kubectl(&[
        "patch",
        "node",
        "worker-1",
        "--subresource=status",
        "-p",
        &patch,
    ]);
}

/// What the owned node's kubelet would say of its pods.
fn own_pods_run(scene: &Scene) -> Result<(), String> {
    let list = scene.get(&["pods", "--field-selector=spec.nodeName=worker-1"]);
    let pods = list["items"].as_array().unwrap();
    for pod in pods {
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let (name, patch) = (
            pod["metadata"]["name"].as_str().unwrap(),
            status.to_string(),
        );
        scene.kubectl(&["patch", "pod", name, "--subresource=status", "-p", &patch]);
    }
    if pods.len() == 2 {
        Ok(())
    } else {
        Err(format!("{list:#}"))
    }
}

#[test]
fn an_elastic_workload_overflows_and_comes_back() {
    let (scene, replica) = Scene::on_paper(ANYWHERE).served();
    // What this old server lacks is said once, and everything else goes on.
    assert_eq!(
        replica.log().matches("serves no autoscaling/v2").count(),
        1,
        "{}",
        replica.log()
    );
    own_node(&scene);
    scene.apply(&[deployment("shop", 2), elastic_workload(5)]);
    wait_for("two own pods", 60, || own_pods_run(&scene));
    let overflow = ["deployment", "shop-unit-serverless"];
    scene.wait_for("three overflow", &overflow, |unit| {
        unit["status"]["readyReplicas"] == 3
    });
    assert_eq!(scene.get(&["deployment", "shop"])["spec"]["replicas"], 2);
    let pods = ["pods", "-l", "app=shop"];
    let on_virtual = |list: &Value| {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|pod| runs(pod))
            .count()
    };
    assert_eq!(on_virtual(&scene.get(&pods)), 3);
    scene.kubectl(&["scale", "elasticworkload/shop", "--replicas=1"]);
    // Own pods end only when their kubelet says so.
    scene.wait_for("serverless first out", &pods, |list| on_virtual(list) == 0);
    let source = ["deployment", "shop"];
    scene.wait_for("then the source shrinks", &source, |source| {
        source["spec"]["replicas"] == 1
    });
    wait_for("its groups are gone", 60, || match scene.groups().len() {
        0 => Ok(()),
        count => Err(format!("{count} groups\n{}", replica.log())),
    });
}

#[test]
fn an_upstream_autoscaler_scales_an_elastic_workload() {
    let (scene, _replica) = Scene::on_paper(ANYWHERE).served();
    scene.apply(&[deployment("shop", 2), elastic_workload(2)]);
    let shop = ["elasticworkload", "shop"];
    scene.wait_for("the workload's status", &shop, |shop| {
        shop["status"]["replicas"] == 2
    });
    // There are no metrics here: the bound alone is what it acts on.
    scene.apply(&[json!({
        "apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {
            "minReplicas": 4, "maxReplicas": 10,
            "scaleTargetRef": {"apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload", "name": "shop"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        },
    })]);
    let overflow = ["deployment", "shop-unit-serverless"];
    scene.wait_for("two overflow", &overflow, |unit| {
        unit["status"]["readyReplicas"] == 2
    });
    assert_eq!(scene.get(&shop)["spec"]["replicas"], 4);
    let events = scene.kubectl(&["get", "events", "-o=jsonpath={.items[*].reason}"]);
    assert!(events.contains("SuccessfulRescale"), "{events}");
}
