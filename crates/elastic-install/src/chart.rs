//! The Helm chart, made from the same objects as everything else: texts of the options become values.
//!
//! Every variable under `env` reaches the controller, listed or not; values that no place takes are refused by the schema.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::manifests::{self, DEFAULT_IMAGE, Mode, Options};
use crate::names::{ADDON, VERSION};

/// Stands where the variables come.
const VARIABLES_MARK: &str = "variables";
/// Writes all variables, as `addon install` does: numbers as they were typed, empty ones without a value.
const VARIABLES: &str = r#"{{- range $name, $value := .Values.env }}
{{- if has $name (list "POD_NAME" "POD_IP") }}
{{- fail (printf "env.%s is set by Kubernetes; remove it" $name) }}
{{- end }}
{{- if not (kindIs "invalid" $value) }}
{{- $text := toString $value }}
{{- if kindIs "float64" $value }}
{{- if eq $value (floor $value) }}
{{- $text = toString (int64 $value) }}
{{- end }}
{{- end }}
- name: {{ $name | quote }}
  {{- if $text }}
  value: {{ $text | quote }}
  {{- end }}
{{- end }}
{{- end }}
"#;

/// The chart could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// As YAML.
    #[error("write the chart's YAML")]
    Yaml(#[from] serde_yaml::Error),
    /// As JSON.
    #[error("write the chart's schema")]
    Json(#[from] serde_json::Error),
}

/// The chart's files: path inside the chart, text.
pub fn files() -> Result<BTreeMap<String, String>, ChartError> {
    let (definitions, objects): (Vec<Value>, Vec<Value>) = manifests::objects(&options())
        .into_iter()
        .partition(|object| object["kind"] == "CustomResourceDefinition");
    let mut files = BTreeMap::from([
        ("Chart.yaml".to_owned(), chart()?),
        ("values.yaml".to_owned(), values()?),
        ("values.schema.json".to_owned(), schema()?),
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
    Options {
        mode: Mode::InCluster,
        image: "{{ .Values.image | quote }}".to_owned(),
        replicas: "{{ .Values.replicas }}".to_owned(),
        environment: BTreeMap::from([(VARIABLES_MARK.to_owned(), String::new())]),
    }
}

/// YAML puts places of values into quotes, where a value with a quote in it would break out; the template quotes instead.
fn template(yaml: &str) -> String {
    let yaml = yaml.replace("'{{", "{{").replace("}}'", "}}");
    let mark = format!("- name: {VARIABLES_MARK}");
    let mut text = String::with_capacity(yaml.len());
    for line in yaml.lines() {
        if line.trim_start() == mark {
            let indentation = &line[..line.len() - mark.len()];
            let lines = VARIABLES
                .lines()
                .map(|line| format!("{indentation}{line}\n"));
            text.extend(lines);
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn chart() -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&json!({
        "apiVersion": "v2", "name": ADDON, "version": VERSION, "appVersion": VERSION, "type": "application",
        "kubeVersion": ">=1.28.0-0",
        "description": "Virtual nodes: pods as serverless container groups, billed by the second"
    }))
}

/// What values there are. Helm itself drops what no template names without a word.
fn schema() -> Result<String, serde_json::Error> {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "env": {
                "type": "object",
                "description": "Variables of the controller; any name",
                "additionalProperties": {"type": ["string", "number", "boolean", "null"]}
            },
            "global": {"type": "object"},
            "image": {"type": "string", "minLength": 1},
            "replicas": {"type": "integer", "minimum": 0}
        }
    });
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}

fn values() -> Result<String, serde_yaml::Error> {
    let defaults = Options::default();
    serde_yaml::to_string(&json!({
        "image": DEFAULT_IMAGE,
        "replicas": 2,
        "env": defaults.environment
    }))
}
