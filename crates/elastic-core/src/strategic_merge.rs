//! Strategic merge patches for pods and pod templates: maps merge, lists merge by their key where pods have one.
//!
//! Only what people write by hand: nested values, `null` to take away, and the directives `$patch: delete` and
//! `$patch: replace`. The other directives are for programs that compute differences, and are refused by name.

use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
/// Deeper nesting is no pod.
const MAX_DEPTH: usize = 32;

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct MergeError {
    /// Where in the patch, from its root.
    pub path: String,
    /// What is wrong, and what is expected.
    pub reason: String,
}

/// The lists of a pod that merge element by element, with the key that tells elements apart. All others are replaced whole.
fn merge_key(field: &str) -> Option<&'static str> {
    Some(match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "schedulingGates"
        | "resourceClaims" => "name",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "ports" => "containerPort",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "ownerReferences" => "uid",
        _ => return None,
    })
}

/// `target`, a pod or a pod template, with `patch` applied.
pub fn merge_pod(target: &Value, patch: &Value) -> Result<Value, MergeError> {
    let mut result = target.clone();
    if !patch.is_object() {
        return Err(wrong("", "must be an object with metadata or spec"));
    }
    merge_value(&mut result, patch, "", 0)?;
    Ok(result)
}

fn wrong(path: &str, reason: impl Into<String>) -> MergeError {
    let path = path.trim_start_matches('.');
    MergeError {
        path: if path.is_empty() { "patch" } else { path }.to_owned(),
        reason: reason.into(),
    }
}

fn merge_value(
    target: &mut Value,
    patch: &Value,
    path: &str,
    depth: usize,
) -> Result<(), MergeError> {
    if depth > MAX_DEPTH {
        return Err(wrong(path, "is nested too deeply for a pod"));
    }
    match patch {
        Value::Object(patch) => merge_object(target, patch, path, depth),
        other => {
            *target = other.clone();
            Ok(())
        }
    }
}

fn merge_object(
    target: &mut Value,
    patch: &Map<String, Value>,
    path: &str,
    depth: usize,
) -> Result<(), MergeError> {
    match directive(patch, path)? {
        Some(Directive::Delete) => {
            *target = Value::Null;
            return Ok(());
        }
        Some(Directive::Replace) => *target = Value::Object(Map::new()),
        None if !target.is_object() => *target = Value::Object(Map::new()),
        None => {}
    }
    let Value::Object(target) = target else {
        return Ok(());
    };
    for (key, value) in patch.iter().filter(|(key, _)| *key != DIRECTIVE) {
        let path = format!("{path}.{key}");
        match (value, merge_key(key)) {
            (Value::Null, _) => {
                target.remove(key);
            }
            (Value::Array(elements), Some(merge_key)) => {
                let list = target.entry(key.clone()).or_insert(Value::Null);
                merge_list(list, elements, merge_key, &path, depth + 1)?;
            }
            (Value::Array(elements), None) => {
                let plain = elements.iter().filter(|element| !is_replace(element));
                target.insert(key.clone(), plain.cloned().collect());
            }
            (value, _) => {
                let member = target.entry(key.clone()).or_insert(Value::Null);
                merge_value(member, value, &path, depth + 1)?;
                if member.is_null() {
                    target.remove(key);
                }
            }
        }
    }
    Ok(())
}

fn merge_list(
    target: &mut Value,
    patch: &[Value],
    key: &str,
    path: &str,
    depth: usize,
) -> Result<(), MergeError> {
    if !target.is_array() || patch.iter().any(is_replace) {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(target) = target else {
        return Ok(());
    };
    for (index, element) in patch
        .iter()
        .enumerate()
        .filter(|(_, element)| !is_replace(element))
    {
        let path = format!("{path}[{index}]");
        let Some(wanted) = element.get(key).filter(|value| !value.is_null()) else {
            return Err(wrong(
                &path,
                format!("needs {key}, by which elements are told apart"),
            ));
        };
        let position = target
            .iter()
            .position(|existing| existing.get(key) == Some(wanted));
        match position {
            Some(position) => {
                merge_value(&mut target[position], element, &path, depth)?;
                if target[position].is_null() {
                    target.remove(position);
                } else if let Some(element) = target[position].as_object_mut() {
                    element.insert(key.to_owned(), wanted.clone());
                }
            }
            None => {
                let mut fresh = Value::Null;
                merge_value(&mut fresh, element, &path, depth)?;
                if !fresh.is_null() {
                    target.push(fresh);
                }
            }
        }
    }
    Ok(())
}

/// An element that only says that the whole list is replaced.
fn is_replace(element: &Value) -> bool {
    element.as_object().is_some_and(|element| {
        element.len() == 1 && element.get(DIRECTIVE) == Some(&"replace".into())
    })
}

enum Directive {
    Delete,
    Replace,
}

fn directive(patch: &Map<String, Value>, path: &str) -> Result<Option<Directive>, MergeError> {
    if let Some(key) = patch
        .keys()
        .find(|key| key.starts_with('$') && *key != DIRECTIVE)
    {
        let reason = "is not supported; use $patch: delete or $patch: replace";
        return Err(wrong(&format!("{path}.{key}"), reason));
    }
    match patch.get(DIRECTIVE).map(Value::as_str) {
        None | Some(Some("merge")) => Ok(None),
        Some(Some("delete")) => Ok(Some(Directive::Delete)),
        Some(Some("replace")) => Ok(Some(Directive::Replace)),
        Some(_) => Err(wrong(
            &format!("{path}.{DIRECTIVE}"),
            "must be delete or replace",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template() -> Value {
        json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [
                    {"name": "web", "image": "shop:1", "args": ["a", "b"],
                     "env": [{"name": "TIER", "value": "owned"}, {"name": "LEVEL", "value": "info"}],
                     "ports": [{"containerPort": 80, "name": "http"}],
                     "volumeMounts": [{"mountPath": "/data", "name": "data"}]},
                    {"name": "sidecar", "image": "log:1"}
                ],
                "volumes": [{"name": "data", "hostPath": {"path": "/srv"}}],
                "tolerations": [{"key": "a"}],
                "nodeSelector": {"disk": "ssd"}
            }
        })
    }

    type Case = (&'static str, Value, &'static str, Value);

    fn web(patch: Value) -> Value {
        json!({"spec": {"containers": [patch]}})
    }

    fn check(cases: &[Case]) {
        for (name, patch, pointer, expected) in cases {
            let merged = merge_pod(&template(), patch).unwrap();
            let found = merged.pointer(pointer).cloned().unwrap_or_default();
            assert_eq!(&found, expected, "{name}");
        }
    }

    #[test]
    fn every_list_of_a_pod_merges_the_way_kubernetes_merges_it() {
        let cases: [Case; 7] = [
            (
                "an image by container name",
                web(json!({"name": "web", "image": "shop:2"})),
                "/spec/containers/0/image",
                json!("shop:2"),
            ),
            (
                "a variable by name, the others stay",
                web(json!({"name": "web", "env": [{"name": "TIER", "value": "serverless"}]})),
                "/spec/containers/0/env",
                json!([{"name": "TIER", "value": "serverless"}, {"name": "LEVEL", "value": "info"}]),
            ),
            (
                "a port by its number",
                web(json!({"name": "web", "ports": [{"containerPort": 80, "protocol": "TCP"}]})),
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "name": "http", "protocol": "TCP"}]),
            ),
            (
                "a mount by its path",
                web(
                    json!({"name": "web", "volumeMounts": [{"mountPath": "/data", "readOnly": true}]}),
                ),
                "/spec/containers/0/volumeMounts",
                json!([{"mountPath": "/data", "name": "data", "readOnly": true}]),
            ),
            (
                "arguments are one value",
                web(json!({"name": "web", "args": ["c"]})),
                "/spec/containers/0/args",
                json!(["c"]),
            ),
            (
                "a new container comes last",
                web(json!({"name": "extra", "image": "x"})),
                "/spec/containers/2/name",
                json!("extra"),
            ),
            (
                "tolerations are one value",
                json!({"spec": {"tolerations": [{"key": "b"}]}}),
                "/spec/tolerations",
                json!([{"key": "b"}]),
            ),
        ];
        check(&cases);
    }

    #[test]
    fn directives_take_away_and_replace() {
        let cases: [Case; 6] = [
            (
                "a container is taken away",
                web(json!({"name": "sidecar", "$patch": "delete"})),
                "/spec/containers/1",
                Value::Null,
            ),
            (
                "a volume is replaced",
                json!({"spec": {"volumes": [{"name": "data", "$patch": "replace", "emptyDir": {}}]}}),
                "/spec/volumes",
                json!([{"name": "data", "emptyDir": {}}]),
            ),
            (
                "a whole list is replaced",
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "only", "image": "o"}]}}),
                "/spec/containers",
                json!([{"name": "only", "image": "o"}]),
            ),
            (
                "a map is replaced",
                json!({"spec": {"nodeSelector": {"$patch": "replace", "zone": "b"}}}),
                "/spec/nodeSelector",
                json!({"zone": "b"}),
            ),
            (
                "null takes away",
                json!({"spec": {"nodeSelector": null}}),
                "/spec/nodeSelector",
                Value::Null,
            ),
            (
                "a map is taken away",
                json!({"spec": {"nodeSelector": {"$patch": "delete"}}}),
                "/spec/nodeSelector",
                Value::Null,
            ),
        ];
        check(&cases);
    }

    #[test]
    fn what_cannot_be_applied_is_refused_by_its_path() {
        let cases = [
            (
                json!({"spec": {"containers": [{"image": "x"}]}}),
                "spec.containers[0]: needs name, by which elements are told apart",
            ),
            (
                json!({"spec": {"$retainKeys": ["a"]}}),
                "spec.$retainKeys: is not supported; use $patch: delete or $patch: replace",
            ),
            (
                json!({"spec": {"$patch": "remove"}}),
                "spec.$patch: must be delete or replace",
            ),
            (
                json!("text"),
                "patch: must be an object with metadata or spec",
            ),
        ];
        for (patch, expected) in cases {
            let error = merge_pod(&template(), &patch).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn an_empty_patch_changes_nothing_and_merging_twice_is_merging_once() {
        assert_eq!(merge_pod(&template(), &json!({})).unwrap(), template());
        let patch = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "web", "env": [{"name": "N", "value": "1"}]}]}});
        let once = merge_pod(&template(), &patch).unwrap();
        assert_eq!(merge_pod(&once, &patch).unwrap(), once);
    }
}
