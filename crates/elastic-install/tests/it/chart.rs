//! The chart in `deploy/` is the one the program makes, and renders to the objects that `addon install` applies.
//!
//! Rendered by a small renderer for what our templates use (places of values, with and without `quote`): helm is in
//! neither Debian nor PyPI, and nothing else of its language is used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use elastic_install::manifests::{self, Options};
use serde_json::Value;

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

/// Replaces every `{{ .Values.… }}`; anything else between braces is an error.
fn render(template: &str, values: &Value) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        text.push_str(&rest[..start]);
        let end = start + rest[start..].find("}}").unwrap();
        let place = rest[start + 2..end].trim();
        let (path, quoted) = match place.strip_suffix("| quote") {
            Some(path) => (path.trim(), true),
            None => (place, false),
        };
        let path = path
            .strip_prefix(".Values.")
            .unwrap_or_else(|| panic!("not a value: {place}"));
        let value = path.split('.').fold(values, |value, member| &value[member]);
        assert!(!value.is_null(), "no value for {path}");
        let plain = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        if quoted {
            text.push_str(&Value::String(plain).to_string());
        } else {
            text.push_str(&plain);
        }
        rest = &rest[end + 2..];
    }
    text + rest
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

#[test]
fn the_chart_renders_to_what_install_applies() {
    let files = elastic_install::chart::files().unwrap();
    let mut values: Value = serde_yaml::from_str(&files["values.yaml"]).unwrap();
    values["env"]["ECI_REGION"] = "cn-hangzhou".into();
    values["env"]["ECI_VSWITCH"] = "vsw-\"a\",vsw-'b'".into();
    let mut options = Options::default();
    for name in ["ECI_REGION", "ECI_VSWITCH"] {
        let value = values["env"][name].as_str().unwrap().to_owned();
        options.environment.insert(name.to_owned(), value);
    }
    let key = |object: &Value| {
        let metadata = &object["metadata"];
        format!(
            "{} {} {}",
            object["kind"], metadata["namespace"], metadata["name"]
        )
    };
    let wanted: BTreeMap<String, Value> = manifests::objects(&options)
        .into_iter()
        .map(|object| (key(&object), object))
        .collect();
    let mut rendered = BTreeMap::new();
    for (path, text) in &files {
        if path.starts_with("templates/") || path.starts_with("crds/") {
            let text = if path.starts_with("crds/") {
                text.clone()
            } else {
                render(text, &values)
            };
            let mut object: Value = serde_yaml::from_str(&text).unwrap();
            drop_empty_variables(&mut object);
            if object["kind"] == "ConfigMap" {
                object["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .remove("annotations");
            }
            rendered.insert(key(&object), object);
        }
    }
    assert_eq!(rendered, wanted);
}
