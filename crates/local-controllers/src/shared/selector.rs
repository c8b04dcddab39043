//! Label selectors as controllers use them. Refuses nothing: the API server has validated them, and what is not
//! understood matches nothing.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

type Labels = BTreeMap<String, String>;

/// Whether a selector matches; an empty one matches everything.
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, wanted)| value(key) == Some(wanted));
    equal
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|requirement| {
                let values = requirement.values.as_deref().unwrap_or_default();
                matches_requirement(
                    &requirement.operator,
                    values,
                    value(&requirement.key).map(String::as_str),
                )
            })
}

/// Whether a service's plain selector matches; an empty one matches nothing.
pub fn matches_map(selector: Option<&Labels>, labels: Option<&Labels>) -> bool {
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
        return false;
    };
    selector
        .iter()
        .all(|(key, wanted)| labels.and_then(|labels| labels.get(key)) == Some(wanted))
}

/// One requirement on one label; the operators of label selectors and of node selectors.
pub fn matches_requirement(operator: &str, values: &[String], actual: Option<&str>) -> bool {
    let is_listed = || actual.is_some_and(|actual| values.iter().any(|value| value == actual));
    let numbers = || {
        Some((
            actual?.parse::<i64>().ok()?,
            values.first()?.parse::<i64>().ok()?,
        ))
    };
    match operator {
        "In" => is_listed(),
        "NotIn" => !is_listed(),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => numbers().is_some_and(|(actual, bound)| actual > bound),
        "Lt" => numbers().is_some_and(|(actual, bound)| actual < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn requirements_follow_their_operator() {
        let values = ["a".to_owned(), "7".to_owned()];
        for (operator, actual, expected) in [
            ("In", Some("a"), true),
            ("In", Some("b"), false),
            ("In", None, false),
            ("NotIn", Some("a"), false),
            ("NotIn", Some("b"), true),
            ("NotIn", None, true),
            ("Exists", Some(""), true),
            ("Exists", None, false),
            ("DoesNotExist", None, true),
            ("DoesNotExist", Some("a"), false),
            ("Unknown", Some("a"), false),
        ] {
            assert_eq!(
                matches_requirement(operator, &values, actual),
                expected,
                "{operator} {actual:?}"
            );
        }
        assert!(matches_requirement("Gt", &values[1..], Some("8")));
        assert!(!matches_requirement("Lt", &values[1..], Some("8")));
    }

    #[test]
    fn an_empty_selector_matches_everything_and_an_empty_map_nothing() {
        assert!(matches(&LabelSelector::default(), None));
        assert!(!matches_map(
            Some(&Labels::new()),
            Some(&labels(&[("a", "b")]))
        ));
        assert!(matches_map(
            Some(&labels(&[("a", "b")])),
            Some(&labels(&[("a", "b"), ("c", "d")]))
        ));
    }
}
