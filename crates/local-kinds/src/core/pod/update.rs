//! What may change in a pod that exists: hardly anything.

use local_schema::FieldError;
use serde_json::Value;

use super::{same_spec, spec};
use crate::check::numbers::range_words;
use crate::tree::{child, index, integer, list, remove, restore, same, text};

const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update through the main resource.
pub fn check(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = spec::check_pod(new);
    let (after, before) = (&new["spec"], &old["spec"]);
    for key in ["containers", "initContainers"] {
        let found = containers(list(after, key), list(before, key), &child("spec", key));
        if !found.is_empty() {
            errors.extend(found);
            return errors;
        }
    }
    if let Some(error) = deadline(after, before) {
        errors.push(error);
        return errors;
    }
    errors.extend(tolerations(after, before));
    errors.extend(gates(after, before));
    if same_spec(after, before) || same_spec(&with_changeable_of(after, before), before) {
        return errors;
    }
    errors.push(FieldError::forbidden("spec", CHANGEABLE));
    errors
}

fn containers(new: &[Value], old: &[Value], path: &str) -> Vec<FieldError> {
    if new.len() != old.len() {
        let words = "pod updates may not add or remove containers";
        return vec![FieldError::forbidden(path, words)];
    }
    new.iter()
        .enumerate()
        .filter(|(_, one)| text(one, "image").trim().is_empty())
        .map(|(position, _)| FieldError::required(child(&index(path, position), "image"), ""))
        .collect()
}

fn deadline(new: &Value, old: &Value) -> Option<FieldError> {
    let path = "spec.activeDeadlineSeconds";
    let before = integer(old, "activeDeadlineSeconds");
    let Some(after) = integer(new, "activeDeadlineSeconds") else {
        let words = "must not update from a positive integer to nil value";
        return before.map(|_| FieldError::invalid(path, Value::Null, words));
    };
    if !(0..=spec::LARGEST_SECONDS).contains(&after) {
        let words = range_words(0, spec::LARGEST_SECONDS);
        return Some(FieldError::invalid(path, after, words));
    }
    (before.is_some_and(|before| before < after))
        .then(|| FieldError::invalid(path, after, "must be less than or equal to previous value"))
}

fn tolerations(new: &Value, old: &Value) -> Option<FieldError> {
    let bare = |one: &Value| {
        let mut one = one.clone();
        remove(&mut one, "tolerationSeconds");
        one
    };
    let kept = list(old, "tolerations").iter().all(|before| {
        list(new, "tolerations")
            .iter()
            .any(|after| same(&bare(after), &bare(before)))
    });
    (!kept).then(|| {
        FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        )
    })
}

fn gates(new: &Value, old: &Value) -> Vec<FieldError> {
    list(new, "schedulingGates")
        .iter()
        .enumerate()
        .filter(|(_, gate)| !list(old, "schedulingGates").contains(gate))
        .map(|(position, gate)| {
            FieldError::forbidden(
                index("spec.schedulingGates", position),
                format!(
                    "only deletion is allowed, but found new scheduling gate '{}'",
                    text(gate, "name")
                ),
            )
        })
        .collect()
}

/// The new spec with everything that may change taken from the old one.
fn with_changeable_of(new: &Value, old: &Value) -> Value {
    let mut munged = new.clone();
    for key in ["containers", "initContainers"] {
        for (position, before) in list(old, key).iter().enumerate() {
            restore(&mut munged[key][position], before, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        restore(&mut munged, old, key);
    }
    let negative = |spec: &Value| {
        integer(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
    };
    if negative(old) && integer(new, "terminationGracePeriodSeconds") == Some(1) {
        restore(&mut munged, old, "terminationGracePeriodSeconds");
    }
    // A pod that waits behind gates may still narrow where it can go.
    if !list(old, "schedulingGates").is_empty() {
        restore(&mut munged, old, "nodeSelector");
        restore(&mut munged, old, "affinity");
    }
    munged
}

/// A write through `/status`.
pub fn check_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let node = text(&new["spec"], "nodeName");
    if node != text(&old["spec"], "nodeName") {
        let words = "may not be changed directly";
        errors.push(FieldError::forbidden("spec.nodeName", words));
    }
    for (position, one) in list(&new["status"], "podIPs").iter().enumerate() {
        let ip = text(one, "ip");
        if crate::check::names::address(ip).is_none() {
            let path = index("status.podIPs", position);
            errors.push(FieldError::invalid(path, ip, crate::check::names::IP_WORDS));
        }
    }
    errors
}

/// Leaves of `new` only what the subresource is for.
pub fn keep_but(subresource: &str, new: &mut Value, old: &Value) {
    if subresource == "binding" {
        // The registry itself sets the node and its condition.
        return;
    }
    let sent = new["spec"].clone();
    restore(new, old, "status");
    restore(new, old, "spec");
    match subresource {
        "ephemeralcontainers" => restore(&mut new["spec"], &sent, "ephemeralContainers"),
        "resize" => {
            for key in ["containers", "initContainers"] {
                for (position, one) in list(&sent, key).iter().enumerate() {
                    if let Some(own) = new["spec"][key].get_mut(position) {
                        restore(own, one, "resources");
                        restore(own, one, "resizePolicy");
                    }
                }
            }
        }
        _ => {}
    }
}

/// A write through `/ephemeralcontainers` or `/resize`.
pub fn check_subresource(subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    if subresource == "binding" {
        return Vec::new();
    }
    let mut errors = spec::check(&new["spec"], "spec");
    if subresource == "ephemeralcontainers" {
        let path = "spec.ephemeralContainers";
        let after = list(&new["spec"], "ephemeralContainers");
        for before in list(&old["spec"], "ephemeralContainers") {
            let name = text(before, "name");
            match after.iter().find(|one| text(one, "name") == name) {
                None => errors.push(FieldError::forbidden(
                    path,
                    format!("existing ephemeral containers {name:?} may not be removed\n"),
                )),
                Some(one) if !same(one, before) => errors.push(FieldError::forbidden(
                    path,
                    format!("existing ephemeral containers {name:?} may not be changed\n"),
                )),
                Some(_) => {}
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}});
        crate::rules::KindRules::default(&super::super::PodRules, "v1", &mut pod);
        pod
    }

    #[test]
    fn an_image_may_change_and_a_command_may_not() {
        let old = pod();
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = json!("a:2");
        assert_eq!(check(&new, &old), []);
        new["spec"]["containers"][0]["command"] = json!(["x"]);
        assert_eq!(check(&new, &old)[0].path, "spec");
    }

    #[test]
    fn tolerations_are_only_added() {
        let mut old = pod();
        old["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
        let mut new = old.clone();
        new["spec"]["tolerations"] =
            json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]);
        assert_eq!(check(&new, &old), []);
        assert_eq!(check(&old, &new)[0].path, "spec.tolerations");
    }
}
