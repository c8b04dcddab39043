//! The Helm chart, made from the same objects as everything else: texts of the options become values.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::manifests::{self, DEFAULT_IMAGE, Mode, Options};
use crate::names::{ADDON, VERSION};

/// The chart's files: path inside the chart, text.
pub fn files() -> Result<BTreeMap<String, String>, serde_yaml::Error> {
    let (definitions, objects): (Vec<Value>, Vec<Value>) = manifests::objects(&options())
        .into_iter()
        .partition(|object| object["kind"] == "CustomResourceDefinition");
    let mut files = BTreeMap::from([
        ("Chart.yaml".to_owned(), chart()?),
        ("values.yaml".to_owned(), values()?),
    ]);
    for definition in &definitions {
        let kind = definition["spec"]["names"]["singular"].as_str();
        let path = format!("crds/{}.yaml", kind.unwrap_or_default());
        files.insert(path, serde_yaml::to_string(definition)?);
    }
    for mut object in objects {
        if manifests::is_users(&object) {
            // What users wrote outlives the release.
            object["metadata"]["annotations"]["helm.sh/resource-policy"] = json!("keep");
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
        let place = match object["metadata"]["namespace"].as_str() {
            Some("kube-node-lease") => "-node-leases",
            _ => "",
        };
        let begin = format!("templates/{}{place}", text(&object["kind"]));
        let mut path = format!("{begin}.yaml");
        if files.contains_key(&path) {
            path = format!("{begin}-{}.yaml", text(&object["metadata"]["name"]));
        }
        files.insert(path, template(&serde_yaml::to_string(&object)?));
    }
    Ok(files)
}

/// Options whose texts are the places of values.
fn options() -> Options {
    let defaults = Options::default();
    let environment = defaults
        .environment
        .into_keys()
        .map(|name| {
            let place = format!("{{{{ .Values.env.{name} | quote }}}}");
            (name, place)
        })
        .collect();
    Options {
        mode: Mode::InCluster,
        image: "{{ .Values.image | quote }}".to_owned(),
        replicas: "{{ .Values.replicas }}".to_owned(),
        environment,
    }
}

/// YAML puts places of values into quotes, where a value with a quote in it would break out; the template quotes instead.
fn template(yaml: &str) -> String {
    yaml.replace("'{{", "{{").replace("}}'", "}}")
}

fn chart() -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&json!({
        "apiVersion": "v2", "name": ADDON, "version": VERSION, "appVersion": VERSION, "type": "application",
        "kubeVersion": ">=1.28.0-0",
        "description": "Virtual nodes: pods as serverless container groups, billed by the second"
    }))
}

fn values() -> Result<String, serde_yaml::Error> {
    let defaults = Options::default();
    serde_yaml::to_string(&json!({
        "image": DEFAULT_IMAGE,
        "replicas": 2,
        "env": defaults.environment
    }))
}
