//! The chart in `deploy/` is the one the program makes; a real helm renders it to the objects that `addon install` applies,
//! and installs, upgrades and removes it on an API server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use elastic_install::manifests::{self, Options};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use local_apiserver::testing::TestServer;
use serde::Deserialize;
use serde_json::Value;

use crate::helm::Helm;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/charts/ack-virtual-node")
}

fn collect(folder: &Path, below: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            collect(folder, &path, files);
        } else {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            files.insert(path.display().to_string(), text);
        }
    }
}

/// An empty value and none are the same to a cluster; only the chart has to write them.
fn drop_empty_variables(object: &mut Value) {
    let variables = object.pointer_mut("/spec/template/spec/containers/0/env");
    for variable in variables
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if variable["value"] == "" {
            variable.as_object_mut().unwrap().remove("value");
        }
    }
}

#[test]
fn the_chart_is_up_to_date() {
    let mut found = BTreeMap::new();
    collect(&folder(), Path::new(""), &mut found);
    let wanted = elastic_install::chart::files().unwrap();
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        wanted.keys().collect::<Vec<_>>(),
        "run `cargo xtask generate`"
    );
    for (path, text) in &wanted {
        assert_eq!(
            &found[path], text,
            "{path} is old; run `cargo xtask generate`"
        );
    }
}

/// Objects by kind, namespace and name.
fn by_key(objects: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let keyed = objects.into_iter().map(|object| {
        let metadata = &object["metadata"];
        let key = format!(
            "{} {} {}",
            object["kind"], metadata["namespace"], metadata["name"]
        );
        (key, object)
    });
    keyed.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_renders_the_chart_to_what_install_applies() {
    let helm = Helm::install().await;
    let mut options = Options::default();
    for (name, value) in [
        ("ECI_REGION", "cn-hangzhou"),
        ("ECI_VSWITCH", "vsw-\"a\",vsw-'b'"),
    ] {
        options
            .environment
            .insert(name.to_owned(), value.to_owned());
    }
    let values = serde_json::json!({"env": options.environment});
    let values_file = helm.home.path().join("values.json");
    std::fs::write(&values_file, values.to_string()).unwrap();
    let folder = folder();
    let rendered = helm
        .run(&[
            "template",
            "virtual-node",
            folder.to_str().unwrap(),
            "--include-crds",
            "--values",
            values_file.to_str().unwrap(),
        ])
        .await;
    let rendered = serde_yaml::Deserializer::from_str(&rendered).map(|document| {
        let mut object = Value::deserialize(document).unwrap();
        drop_empty_variables(&mut object);
        if object["kind"] == "ConfigMap" {
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.remove("annotations");
        }
        object
    });
    assert_eq!(by_key(rendered), by_key(manifests::objects(&options)));
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_upgrades_and_removes_the_chart_and_keeps_what_users_wrote() {
    let helm = Helm::install().await;
    let server = TestServer::start().await;
    helm.point_at(&server).await;
    let folder = folder();
    let chart = folder.to_str().unwrap();
    let release = ["virtual-node", chart, "--namespace", "kube-system"];
    let with = |verb: &'static str, more: &[&'static str]| {
        let mut arguments = vec![verb];
        arguments.extend(release);
        arguments.extend_from_slice(more);
        arguments
    };
    helm.run(&with("install", &["--set", "env.ECI_REGION=cn-hangzhou"]))
        .await;
    let deployments: Api<Deployment> = Api::namespaced(server.client(), "kube-system");
    let controller = "ack-virtual-node-controller";
    let installed = deployments.get(controller).await.unwrap();
    assert_eq!(installed.spec.unwrap().replicas, Some(2));
    helm.run(&with("upgrade", &["--reuse-values", "--set", "replicas=3"]))
        .await;
    let upgraded = deployments.get(controller).await.unwrap();
    assert_eq!(upgraded.spec.unwrap().replicas, Some(3));
    let listed = helm
        .run(&["list", "--namespace", "kube-system", "--output", "json"])
        .await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&listed[0]["revision"], &listed[0]["status"]),
        (&Value::from("2"), &Value::from("deployed"))
    );
    helm.run(&["uninstall", "virtual-node", "--namespace", "kube-system"])
        .await;
    assert!(deployments.get_opt(controller).await.unwrap().is_none());
    let config_maps: Api<ConfigMap> = Api::namespaced(server.client(), "kube-system");
    assert!(config_maps.get_opt("eci-profile").await.unwrap().is_some());
}
