//! Label selectors in their object form: checked, matched, and written as text.

use local_schema::FieldError;
use serde_json::Value;

use super::labels::{label_key, labels};
use super::names::{label_value, qualified};
use crate::tree::{child, entries, index, is_empty, list, text};

/// Values are missing where the operator needs them.
pub const VALUES_NEEDED: &str = "must be specified when `operator` is 'In' or 'NotIn'";
/// Values are given where the operator takes none.
pub const VALUES_REFUSED: &str =
    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";

/// A label selector object.
pub fn check(selector: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = labels(selector, "matchLabels", path);
    let path = child(path, "matchExpressions");
    for (position, expression) in list(selector, "matchExpressions").iter().enumerate() {
        errors.extend(requirement(expression, &index(&path, position)));
    }
    errors
}

fn requirement(expression: &Value, path: &str) -> Vec<FieldError> {
    let values = list(expression, "values");
    let mut errors = Vec::new();
    match text(expression, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(FieldError::required(child(path, "values"), VALUES_NEEDED));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(FieldError::forbidden(child(path, "values"), VALUES_REFUSED));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        operator => errors.push(FieldError::invalid(
            child(path, "operator"),
            operator,
            "not a valid selector operator",
        )),
    }
    errors.extend(label_key(text(expression, "key"), &child(path, "key")));
    let path = child(path, "values");
    for (position, value) in values.iter().filter_map(Value::as_str).enumerate() {
        errors.extend(super::names::invalid(
            &index(&path, position),
            value,
            label_value(value),
        ));
    }
    errors
}

/// Whether the selector can be used for matching at all; upstream says so separately from its parts.
pub fn is_usable(selector: &Value) -> bool {
    let labels_fine = entries(selector, "matchLabels").all(|(key, value)| {
        qualified(key).is_empty() && label_value(value.as_str().unwrap_or_default()).is_empty()
    });
    labels_fine
        && list(selector, "matchExpressions")
            .iter()
            .all(|one| requirement(one, "").is_empty())
}

/// The selector as upstream shows it inside a sentence: labels before expressions.
pub fn shown(selector: &Value) -> String {
    let fields: Vec<super::show::Field<'_>> = ["matchLabels", "matchExpressions"]
        .into_iter()
        .filter(|key| !is_empty(&selector[*key]))
        .map(|key| (key, selector[key].to_string()))
        .collect();
    if selector.is_null() {
        "null".to_string()
    } else {
        super::show::structure(&fields)
    }
}

/// A selector that must not change.
pub fn immutable(new: &Value, old: &Value, path: &str) -> Vec<FieldError> {
    super::metadata::immutable(new, old, path)
        .into_iter()
        .map(|error| error.showing(shown(new)))
        .collect()
}

/// True when it has no requirement, so that it matches everything.
pub fn is_unlimited(selector: &Value) -> bool {
    is_empty(&selector["matchLabels"]) && is_empty(&selector["matchExpressions"])
}

/// Whether a map of labels satisfies the selector. `null` selects nothing.
pub fn matches(selector: &Value, labels: &Value) -> bool {
    if selector.is_null() {
        return false;
    }
    let value_of = |key: &str| labels.get(key).and_then(Value::as_str);
    entries(selector, "matchLabels").all(|(key, value)| value_of(key) == value.as_str())
        && list(selector, "matchExpressions").iter().all(|one| {
            let value = value_of(text(one, "key"));
            let among = value.is_some_and(|value| {
                list(one, "values")
                    .iter()
                    .any(|other| other.as_str() == Some(value))
            });
            match text(one, "operator") {
                "In" => among,
                "NotIn" => !among,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// The selector as text, `app=x,tier in (a,b),!old`; requirements stand in the order of their keys.
/// `null` is `<none>`.
pub fn display(selector: &Value) -> String {
    if selector.is_null() || is_unlimited(selector) {
        return "<none>".to_string();
    }
    format_requirements(selector)
}

/// As [`display`], but empty for a selector that matches everything: the form of `/scale`'s `status.selector`.
pub fn format_requirements(selector: &Value) -> String {
    let mut parts: Vec<(&str, String)> = entries(selector, "matchLabels")
        .map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            (key.as_str(), format!("{key}={value}"))
        })
        .collect();
    for one in list(selector, "matchExpressions") {
        let key = text(one, "key");
        let mut values: Vec<&str> = list(one, "values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let shown = match text(one, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_string(),
        };
        parts.push((key, shown));
    }
    parts.sort_by(|left, right| left.0.cmp(right.0));
    let shown: Vec<String> = parts.into_iter().map(|(_, shown)| shown).collect();
    shown.join(",")
}

/// A map of labels as text, `a=b,c=d`; `<none>` when empty.
pub fn display_labels(labels: &Value) -> String {
    match labels.as_object() {
        Some(map) if !map.is_empty() => {
            let parts: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            parts.join(",")
        }
        _ => "<none>".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn selector() -> impl Strategy<Value = Value> {
        let labels = prop::collection::btree_map("[ab]", "[xy]", 0..3);
        let operators = prop::sample::select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
        let expressions = prop::collection::vec(
            ("[abc]", operators, prop::collection::vec("[xyz]", 1..3)),
            0..3,
        );
        (labels, expressions).prop_map(|(labels, expressions)| {
            let expressions: Vec<Value> = expressions
                .into_iter()
                .map(|(key, operator, values)| {
                    let takes_values = operator.ends_with("In");
                    json!({"key": key, "operator": operator, "values": if takes_values { values } else { vec![] }})
                })
                .collect();
            json!({"matchLabels": labels, "matchExpressions": expressions})
        })
    }

    proptest! {
        #[test]
        fn valid_selectors_are_usable_and_a_requirement_and_its_opposite_never_both_match(
            selector in selector(), labels in prop::collection::btree_map("[abc]", "[xyz]", 0..3),
        ) {
            prop_assert!(check(&selector, "s").is_empty());
            prop_assert!(is_usable(&selector));
            let labels = json!(labels);
            for one in list(&selector, "matchExpressions") {
                let mut opposite = one.clone();
                opposite["operator"] = json!(match text(one, "operator") {
                    "In" => "NotIn", "NotIn" => "In", "Exists" => "DoesNotExist", _ => "Exists",
                });
                let alone = |one: &Value| matches(&json!({"matchExpressions": [one]}), &labels);
                prop_assert_ne!(alone(one), alone(&opposite));
            }
        }

        #[test]
        fn a_selector_of_labels_matches_exactly_the_labels_that_contain_it(
            wanted in prop::collection::btree_map("[abc]", "[xy]", 0..3),
            labels in prop::collection::btree_map("[abc]", "[xy]", 0..4),
        ) {
            let expected = wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
            prop_assert_eq!(matches(&json!({"matchLabels": wanted}), &json!(labels)), expected);
        }
    }

    #[test]
    fn the_text_form_is_sorted_by_key() {
        let selector = json!({"matchLabels": {"c": "d"}, "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["z", "y"]}, {"key": "a", "operator": "DoesNotExist"}]});
        assert_eq!(display(&selector), "!a,b in (y,z),c=d");
        assert_eq!(display(&Value::Null), "<none>");
    }
}
