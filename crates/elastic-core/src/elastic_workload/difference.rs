//! What of a unit in the cluster is not as derived: what cannot be changed, its pods' template, or the rest.
//!
//! Everything derived must be there, and the fingerprints must say that nothing was derived earlier which no longer is;
//! fields the server filled in by itself do not count, and neither do replicas and strategy, which are decided elsewhere.

use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::Value;

use super::SourceKind;
use crate::names::DERIVED_FROM_ANNOTATION;
use crate::quantity;

/// What differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitDifference {
    /// Something that the API lets nobody change.
    pub identity: bool,
    /// The template of the pods.
    pub template: bool,
    /// Anything else.
    pub rest: bool,
}

pub(super) fn difference(
    kind: SourceKind,
    existing: &DynamicObject,
    derived: &DynamicObject,
) -> UnitDifference {
    let (actual, wanted) = (&existing.data["spec"], &derived.data["spec"]);
    let (rest_before, template_before) = fingerprints(existing);
    let (rest_now, template_now) = fingerprints(derived);
    let template = template_before != template_now
        || !contains(&actual["template"], &wanted["template"], false);
    let mut rest_wanted = wanted.clone();
    if let Some(members) = rest_wanted.as_object_mut() {
        members.remove("template");
    }
    let labels = derived
        .labels()
        .iter()
        .all(|(key, value)| existing.labels().get(key) == Some(value));
    let rest = rest_before != rest_now || !contains(actual, &rest_wanted, false);
    let fixed = |name: &&str| !(same_or_absent(&actual[*name], &wanted[*name]));
    let identity = match kind {
        SourceKind::Deployment => ["selector"].iter().any(fixed),
        SourceKind::StatefulSet => [
            "selector",
            "serviceName",
            "podManagementPolicy",
            "volumeClaimTemplates",
        ]
        .iter()
        .any(fixed),
        SourceKind::Job => template || rest,
    };
    UnitDifference {
        identity,
        template,
        rest: rest || !labels,
    }
}

fn same_or_absent(actual: &Value, wanted: &Value) -> bool {
    contains(actual, wanted, false) && (contains(wanted, actual, false) || !wanted.is_object())
}

/// Two fingerprints: of everything but the template, and of the template.
pub(crate) fn fingerprint(spec: &Value) -> String {
    let mut rest = spec.clone();
    let template = rest
        .as_object_mut()
        .and_then(|members| members.remove("template"))
        .unwrap_or_default();
    format!("{}.{}", hash(&rest), hash(&template))
}

fn fingerprints(unit: &DynamicObject) -> (String, String) {
    let text = unit
        .annotations()
        .get(DERIVED_FROM_ANNOTATION)
        .map(String::as_str)
        .unwrap_or_default();
    let (rest, template) = text.split_once('.').unwrap_or_default();
    (rest.to_owned(), template.to_owned())
}

/// Says of `next` that its template is still the one of `existing`.
pub(super) fn keep_template_fingerprint(existing: &DynamicObject, next: &mut DynamicObject) {
    let (_, template) = fingerprints(existing);
    let (rest, _) = fingerprints(next);
    next.annotations_mut().insert(
        DERIVED_FROM_ANNOTATION.to_owned(),
        format!("{rest}.{template}"),
    );
}

/// Whether every member of `wanted` is in `actual` with the same value; lists must be as long. The server leaves out what
/// is empty, and writes quantities in a form of its own.
pub(crate) fn contains(actual: &Value, wanted: &Value, quantities: bool) -> bool {
    match (actual, wanted) {
        (Value::Object(actual), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            let quantities =
                quantities || ["resources", "overhead", "sizeLimit"].contains(&key.as_str());
            contains(actual.get(key).unwrap_or(&Value::Null), value, quantities)
        }),
        (Value::Array(actual), Value::Array(wanted)) => {
            actual.len() == wanted.len()
                && actual
                    .iter()
                    .zip(wanted)
                    .all(|(actual, wanted)| contains(actual, wanted, quantities))
        }
        (_, Value::Null) => true,
        (Value::Null, wanted) => is_empty(wanted),
        (actual, wanted) => actual == wanted || (quantities && same_quantity(actual, wanted)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.values().all(is_empty),
    }
}

fn same_quantity(actual: &Value, wanted: &Value) -> bool {
    let parse = |value: &Value| match value {
        Value::String(text) => quantity::nanos(text).ok(),
        Value::Number(number) => quantity::nanos(&number.to_string()).ok(),
        _ => None,
    };
    parse(actual).is_some_and(|actual| parse(wanted) == Some(actual))
}

/// FNV-1a over the JSON text, whose keys are sorted; stable over releases, and not meant to resist anybody.
fn hash(value: &Value) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = value.to_string().bytes().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_leaves_out_or_rewrites_is_no_difference() {
        let wanted = json!({"env": [{"name": "A", "value": ""}], "hostNetwork": false, "args": [], "securityContext": {},
            "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}}});
        let actual = json!({"env": [{"name": "A"}], "securityContext": {}, "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}, "more": 1});
        assert!(contains(&actual, &wanted, false));
        assert!(!contains(
            &json!({"resources": {"limits": {"cpu": "501m"}}}),
            &json!({"resources": {"limits": {"cpu": "0.5"}}}),
            false
        ));
        // Texts that only look like quantities are texts.
        assert!(!contains(
            &json!({"value": "1"}),
            &json!({"value": "1.0"}),
            false
        ));
        assert!(!contains(&json!([1, 2]), &json!([1]), false));
    }
}
