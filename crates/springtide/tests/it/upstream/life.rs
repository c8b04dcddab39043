//! From installing to uninstalling.

use serde_json::{Value, json};

use super::{ANYWHERE, NODE, Scene, all_run, labelled, pod, runs};
use crate::cluster::wait_for;

fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"alibabacloud.com/eci": "true"}},
    })
}

fn deployment(replicas: u32) -> Value {
    let template = pod("template", |_| ());
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": "burst"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {"metadata": {"labels": {"app": "shop"}}, "spec": template["spec"]},
        },
    })
}

#[test]
fn pods_of_every_routing_run_and_uninstalling_leaves_nothing() {
    let scene = Scene::on_paper(ANYWHERE);
    let install = ["addon", "install", "ack-virtual-node", "--mode", "managed"];
    let refusal = scene.try_springtide(&install).unwrap_err();
    assert!(
        refusal.contains("v1.20.2; Kubernetes 1.28 or later is needed"),
        "{refusal}"
    );
    let (scene, mut replica) = scene.served();
    let again = scene.springtide(&[&install[..], &["--any-version"]].concat());
    let outcomes = again.lines().filter(|line| !line.ends_with(" unchanged"));
    assert_eq!(
        Vec::from_iter(outcomes),
        ["configmap/eci-profile in kube-system kept as it is"]
    );

    run_by_every_routing(&scene);
    scale_to_50(&scene);

    let refusal = scene
        .try_springtide(&["addon", "upgrade", "ack-virtual-node"])
        .unwrap_err();
    assert!(refusal.contains("1.28 or later"), "{refusal}");
    scene.springtide(&[
        "addon",
        "upgrade",
        "ack-virtual-node",
        "--mode",
        "managed",
        "--any-version",
    ]);
    assert_eq!(scene.groups().len(), 54, "an upgrade touches no pod");

    scene.springtide(&["addon", "uninstall", "ack-virtual-node"]);
    replica.wait_until_ended();
    assert_eq!(scene.groups().len(), 0, "nothing costs money");
    nothing_is_left(&scene);
}

/// A pod by each of the ways, and the node that carries them stays alive.
fn run_by_every_routing(scene: &Scene) {
    scene.apply(&[namespace("burst")]);
    scene.apply(&[
        labelled("by-label", |_| ()),
        pod("by-namespace", |pod| {
            pod["metadata"]["namespace"] = "burst".into()
        }),
        pod("by-selector", |pod| {
            pod["spec"]["nodeSelector"] = json!({"type": "virtual-kubelet"});
            pod["spec"]["tolerations"] =
                json!([{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]);
        }),
        pod("by-name", |pod| pod["spec"]["nodeName"] = NODE.into()),
    ]);
    for (namespace, name) in [
        ("default", "by-label"),
        ("burst", "by-namespace"),
        ("default", "by-selector"),
        ("default", "by-name"),
    ] {
        scene.wait_for("the pod runs", &["-n", namespace, "pod", name], runs);
    }
    let lease = ["-n", "kube-node-lease", "lease", NODE];
    let renewed = |lease: &Value| lease["spec"]["renewTime"].as_str().unwrap().to_owned();
    let before = renewed(&scene.get(&lease));
    scene.wait_for("the node's lease is renewed", &lease, |lease| {
        renewed(lease) > before
    });
}

fn scale_to_50(scene: &Scene) {
    scene.apply(&[deployment(1)]);
    scene.kubectl(&["-n", "burst", "scale", "deployment/shop", "--replicas=50"]);
    scene.kubectl(&[
        "-n",
        "burst",
        "rollout",
        "status",
        "deployment/shop",
        "--timeout=120s",
    ]);
    scene.wait_for(
        "50 pods run",
        &["-n", "burst", "pods", "-l", "app=shop"],
        |list| all_run(list, 50),
    );
    assert_eq!(scene.groups().len(), 54);
}

/// Of what the add-on made in the cluster.
fn nothing_is_left(scene: &Scene) {
    assert_eq!(scene.kubectl(&["get", "nodes", "-o", "name"]), "");
    let kinds =
        "clusterrole,clusterrolebinding,mutatingwebhookconfiguration,customresourcedefinition";
    let left = scene.kubectl(&["get", kinds, "-o", "name"]);
    let system = "role,rolebinding,configmap,secret,lease,serviceaccount,service,deployment";
    let left = left + &scene.kubectl(&["get", system, "-A", "-o", "name"]);
    for ours in [
        "virtual-kubelet",
        "ack-virtual-node",
        "vk-webhook",
        "eci-profile",
        "alibabacloud",
    ] {
        let found: Vec<&str> = left.lines().filter(|name| name.contains(ours)).collect();
        assert_eq!(found, [] as [&str; 0]);
    }
}

#[test]
fn the_profile_is_followed_and_a_deleted_pod_ends_its_group() {
    let (scene, replica) = Scene::on_paper(ANYWHERE).served();
    scene.apply(&[labelled("first", |_| ())]);
    scene.wait_for("the pod runs", &["pod", "first"], runs);
    let patch = r#"{"data":{"securityGroupId":"sg-local-2"}}"#;
    scene.kubectl(&[
        "-n",
        "kube-system",
        "patch",
        "configmap",
        "eci-profile",
        "--type=merge",
        "-p",
        patch,
    ]);
    wait_for("the new profile is in force", 60, || {
        let log = replica.log();
        if log.matches("eci-profile is in force").count() > 1 {
            Ok(())
        } else {
            Err(log)
        }
    });
    scene.apply(&[labelled("second", |_| ())]);
    let second = scene.wait_for("the pod runs", &["pod", "second"], runs);
    let group =
        |pod: &Value| pod["metadata"]["annotations"]["k8s.aliyun.com/eci-security-group"].clone();
    assert_eq!(group(&second), "sg-local-2");
    assert_eq!(
        group(&scene.get(&["pod", "first"])),
        "sg-local",
        "what runs keeps what it has"
    );
    scene.kubectl(&["delete", "pod", "first"]);
    wait_for("its group is gone", 60, || {
        let groups = scene.groups();
        if groups.len() == 1 {
            Ok(())
        } else {
            Err(format!("{groups:?}"))
        }
    });
}
