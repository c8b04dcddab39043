//! Which webhooks a write concerns.

use super::super::{Attributes, Operation};
use crate::registry::selectors::LabelSelector;
use serde_json::Value;

/// One webhook as it is called.
pub struct Hook {
    /// Its name.
    pub name: String,
    /// `url` or `service`, `caBundle`.
    pub client: Value,
    /// Seconds it may take.
    pub timeout_seconds: u64,
    /// `failurePolicy: Ignore`.
    pub ignores_failure: bool,
    /// `None`, `NoneOnDryRun` …
    pub side_effects: String,
    /// `matchConditions[].expression`.
    pub conditions: Vec<String>,
}

/// Webhooks of all configurations, in the order of their names, that want to be asked.
pub fn matching(
    attributes: &Attributes<'_>,
    configurations: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Vec<Hook> {
    let stored = attributes.call.core.store.list(configurations, "");
    let mut hooks = Vec::new();
    for (_, configuration) in &stored.objects {
        for hook in configuration.tree["webhooks"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if wants(attributes, hook, object, old) {
                hooks.push(Hook {
                    name: hook["name"].as_str().unwrap_or_default().to_string(),
                    client: hook["clientConfig"].clone(),
                    timeout_seconds: hook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30),
                    ignores_failure: hook["failurePolicy"] == "Ignore",
                    side_effects: hook["sideEffects"].as_str().unwrap_or_default().to_string(),
                    conditions: conditions(hook),
                });
            }
        }
    }
    hooks
}

fn conditions(hook: &Value) -> Vec<String> {
    let conditions = hook["matchConditions"].as_array().into_iter().flatten();
    let expressions = conditions.filter_map(|condition| condition["expression"].as_str());
    expressions.map(str::to_owned).collect()
}

fn wants(
    attributes: &Attributes<'_>,
    hook: &Value,
    object: Option<&Value>,
    old: Option<&Value>,
) -> bool {
    let mut rules = hook["rules"].as_array().into_iter().flatten();
    rules.any(|rule| rule_matches(attributes, rule))
        && namespace_matches(attributes, &hook["namespaceSelector"], object.or(old))
        && object_matches(&hook["objectSelector"], object, old)
}

fn has(list: &Value, wanted: &str) -> bool {
    let mut list = list.as_array().into_iter().flatten();
    list.any(|one| one == "*" || one == wanted)
}

fn rule_matches(attributes: &Attributes<'_>, rule: &Value) -> bool {
    let call = attributes.call;
    let served = &call.served;
    let operation = match attributes.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
    };
    let scope = match rule["scope"].as_str().unwrap_or("*") {
        "Namespaced" => served.namespaced,
        "Cluster" => !served.namespaced,
        _ => true,
    };
    // With matchPolicy Equivalent, the default, any served version of the resource matches.
    let version = served
        .versions
        .iter()
        .any(|one| has(&rule["apiVersions"], &one.name));
    scope
        && has(&rule["operations"], operation)
        && has(&rule["apiGroups"], &served.group)
        && version
        && resource_matches(&rule["resources"], &served.plural, &call.subresource)
}

fn resource_matches(resources: &Value, plural: &str, subresource: &str) -> bool {
    let mut list = resources
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    list.any(|one| match one.split_once('/') {
        None => subresource.is_empty() && (one == "*" || one == plural),
        Some((resource, sub)) => {
            (resource == "*" || resource == plural)
                && (sub == subresource
                    || (sub == "*" && (resource == "*" || !subresource.is_empty() || one == "*/*")))
        }
    })
}

fn namespace_matches(
    attributes: &Attributes<'_>,
    selector: &Value,
    object: Option<&Value>,
) -> bool {
    let selector = LabelSelector::from_object(selector);
    if selector.is_empty() {
        return true;
    }
    let call = attributes.call;
    if call.served.storage_id.as_ref() == "namespaces" {
        return object
            .is_none_or(|object| selector.matches(object["metadata"]["labels"].as_object()));
    }
    if !call.served.namespaced {
        return true;
    }
    let namespace = call.core.store.get("namespaces", &call.namespace);
    namespace
        .is_some_and(|namespace| selector.matches(namespace.tree["metadata"]["labels"].as_object()))
}

fn object_matches(selector: &Value, object: Option<&Value>, old: Option<&Value>) -> bool {
    let selector = LabelSelector::from_object(selector);
    selector.is_empty()
        || [object, old]
            .into_iter()
            .flatten()
            .any(|one| selector.matches(one["metadata"]["labels"].as_object()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn resources_match_with_and_without_subresources() {
        for (rule, subresource, wanted) in [
            ("pods", "", true),
            ("pods", "status", false),
            ("pods/status", "status", true),
            ("pods/*", "status", true),
            ("*", "", true),
            ("*", "status", false),
            ("*/*", "", true),
            ("*/status", "status", true),
            ("nodes", "", false),
        ] {
            assert_eq!(
                resource_matches(&json!([rule]), "pods", subresource),
                wanted,
                "{rule} {subresource}"
            );
        }
    }
}
