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

/// Objects that helm makes of the chart.
async fn render(helm: &Helm, more: &[&str]) -> BTreeMap<String, Value> {
    let folder = folder();
    let mut arguments = vec!["template", "virtual-node", folder.to_str().unwrap()];
    arguments.push("--include-crds");
    arguments.extend(more);
    let rendered = helm.run(&arguments).await;
    let objects = serde_yaml::Deserializer::from_str(&rendered).map(|document| {
        let mut object = Value::deserialize(document).unwrap();
        if object["kind"] == "ConfigMap" {
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.remove("annotations");
        }
        object
    });
    by_key(objects)
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_renders_the_chart_to_what_install_applies_with_every_variable_given() {
    let helm = Helm::install().await;
    let mut options = Options::default();
    // Some that the chart lists, some that it does not.
    for (name, value) in [
        ("ECI_REGION", "cn-hangzhou"),
        ("ECI_VSWITCH", "vsw-\"a\",vsw-'b'"),
        ("SPRINGTIDE_LOG", "debug"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20{{x}}"),
        ("PROMETHEUS_VERB", ""),
    ] {
        options
            .environment
            .insert(name.to_owned(), value.to_owned());
    }
    let mut values = serde_json::json!({"env": options.environment});
    // Numbers and switches as people type them.
    for (name, typed, value) in [
        (
            "ECI_TOKEN_LEAST_LIFE_SECONDS",
            serde_json::json!(31_536_000),
            "31536000",
        ),
        ("ECI_QUOTA_CPU", serde_json::json!(0.5), "0.5"),
        ("ECI_KUBE_PROXY", serde_json::json!(false), "false"),
    ] {
        values["env"][name] = typed;
        options
            .environment
            .insert(name.to_owned(), value.to_owned());
    }
    let values_file = helm.home.path().join("values.json");
    std::fs::write(&values_file, values.to_string()).unwrap();
    let rendered = render(&helm, &["--values", values_file.to_str().unwrap()]).await;
    assert_eq!(rendered, by_key(manifests::objects(&options)));
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_drops_nothing_that_it_is_given() {
    let helm = Helm::install().await;
    let endpoint = "env.OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318";
    let life = "env.ECI_TOKEN_LEAST_LIFE_SECONDS=7200";
    let rendered = render(
        &helm,
        &["--set", endpoint, "--set", life, "--set", "env.TZ=null"],
    )
    .await;
    let deployment = &rendered["\"Deployment\" \"kube-system\" \"ack-virtual-node-controller\""];
    let variables = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    let value = |name: &str| {
        let mut all = variables.as_array().unwrap().iter();
        all.find(|variable| variable["name"] == name)
            .map(|variable| variable["value"].clone())
    };
    assert_eq!(
        value("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap(),
        "http://collector:4318"
    );
    assert_eq!(value("ECI_TOKEN_LEAST_LIFE_SECONDS").unwrap(), "7200");
    assert_eq!(value("TZ"), None);
    let folder = folder();
    let template = [
        "template",
        "virtual-node",
        folder.to_str().unwrap(),
        "--set",
    ];
    for (given, told) in [
        ("env.POD_IP=1", "env.POD_IP is set by Kubernetes; remove it"),
        ("env.OTEL.ENDPOINT=x", "env"),
        ("environment.ECI_REGION=x", "environment"),
        ("replicas=two", "replicas"),
    ] {
        let refusal = helm.refuses(&[&template[..], &[given]].concat()).await;
        assert!(refusal.contains(told), "{given}: {refusal}");
    }
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
