//! Node selector terms: adding one to a pod, and asking whether a node fits one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

type Labels = BTreeMap<String, String>;

/// Requires one of `alternatives` besides everything the pod requires already.
///
/// Terms are alternatives of each other, so each of the pod's own is combined with each of the new ones.
pub fn require_one_of(spec: &mut PodSpec, alternatives: &[NodeSelectorTerm]) {
    if alternatives.is_empty() {
        return;
    }
    let affinity = spec.affinity.get_or_insert_default();
    let required = affinity
        .node_affinity
        .get_or_insert_default()
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(NodeSelector::default);
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms = alternatives.to_vec();
        return;
    }
    let own = std::mem::take(&mut required.node_selector_terms);
    for term in &own {
        for alternative in alternatives {
            required.node_selector_terms.push(both(term, alternative));
        }
    }
}

fn both(one: &NodeSelectorTerm, other: &NodeSelectorTerm) -> NodeSelectorTerm {
    let joined = |one: &Option<Vec<NodeSelectorRequirement>>,
                  other: &Option<Vec<NodeSelectorRequirement>>| {
        let mut all = one.clone().unwrap_or_default();
        for requirement in other.iter().flatten() {
            if !all.contains(requirement) {
                all.push(requirement.clone());
            }
        }
        (!all.is_empty()).then_some(all)
    };
    NodeSelectorTerm {
        match_expressions: joined(&one.match_expressions, &other.match_expressions),
        match_fields: joined(&one.match_fields, &other.match_fields),
    }
}

/// Requirements that say the same as a node selector.
pub fn from_labels(labels: &Labels) -> Vec<NodeSelectorRequirement> {
    labels
        .iter()
        .map(|(key, value)| requirement(key, "In", &[value]))
        .collect()
}

/// One requirement.
pub fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: (!values.is_empty()).then(|| values.iter().map(|one| (*one).to_owned()).collect()),
    }
}

/// Whether a node fits a term. As upstream has it, a term without requirements fits none.
pub fn fits(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| (key == "metadata.name").then_some(name);
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|one| holds(one, labels.get(&one.key).map(String::as_str)))
        && fields.iter().all(|one| holds(one, field(&one.key)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let compared = || {
        let bound: i64 = values.first()?.parse().ok()?;
        Some(value?.parse::<i64>().ok()?.cmp(&bound))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared() == Some(std::cmp::Ordering::Greater),
        "Lt" => compared() == Some(std::cmp::Ordering::Less),
        _ => false,
    }
}

/// Whether pods with these tolerations may be put on a node with these taints.
pub fn tolerated(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    let keeps_off = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    taints
        .iter()
        .filter(keeps_off)
        .all(|taint| tolerations.iter().any(|one| tolerates(one, taint)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let same_value = toleration.value.as_deref().unwrap_or_default()
        == taint.value.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists || same_value)
}

/// What is wrong with a term, with the path below it; `None` when nothing is.
pub fn problem(term: &NodeSelectorTerm) -> Option<(String, String)> {
    let all = term.match_expressions.iter().flatten();
    for (index, one) in all.enumerate() {
        let values = one.values.as_ref().map_or(0, Vec::len);
        let right = match one.operator.as_str() {
            "In" | "NotIn" => values > 0,
            "Exists" | "DoesNotExist" => values == 0,
            "Gt" | "Lt" => values == 1,
            _ => false,
        };
        if !right {
            let path = format!("matchExpressions[{index}]");
            let cause = format!(
                "{} with {values} values; expected In or NotIn with values, Exists or DoesNotExist without, Gt or Lt with one",
                one.operator
            );
            return Some((path, cause));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn term(requirements: &[NodeSelectorRequirement]) -> NodeSelectorTerm {
        NodeSelectorTerm {
            match_expressions: Some(requirements.to_vec()),
            match_fields: None,
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn own_alternatives_are_kept_and_each_is_narrowed() {
        let mut spec = PodSpec::default();
        let a = term(&[requirement("zone", "In", &["a"])]);
        let b = term(&[requirement("zone", "In", &["b"])]);
        require_one_of(&mut spec, &[a, b]);
        let owned = term(&[requirement("type", "NotIn", &["virtual-kubelet"])]);
        require_one_of(&mut spec, std::slice::from_ref(&owned));
        require_one_of(&mut spec, &[]);
        let affinity = spec.affinity.unwrap().node_affinity.unwrap();
        let terms = affinity
            .required_during_scheduling_ignored_during_execution
            .unwrap()
            .node_selector_terms;
        assert_eq!(terms.len(), 2);
        for (term, zone) in terms.iter().zip(["a", "b"]) {
            assert!(fits(term, "n", &labels(&[("zone", zone)])));
            let virtual_node = labels(&[("zone", zone), ("type", "virtual-kubelet")]);
            assert!(!fits(term, "n", &virtual_node));
        }
    }

    #[test]
    fn every_operator_is_understood_and_an_empty_term_fits_nothing() {
        let node = labels(&[("cores", "8"), ("pool", "owned")]);
        let cases = [
            (requirement("pool", "In", &["owned", "x"]), true),
            (requirement("pool", "NotIn", &["owned"]), false),
            (requirement("gone", "NotIn", &["x"]), true),
            (requirement("pool", "Exists", &[]), true),
            (requirement("gone", "DoesNotExist", &[]), true),
            (requirement("cores", "Gt", &["4"]), true),
            (requirement("cores", "Lt", &["8"]), false),
            (requirement("pool", "Gt", &["4"]), false),
            (requirement("pool", "Like", &["o"]), false),
        ];
        for (one, expected) in cases {
            assert_eq!(
                fits(&term(std::slice::from_ref(&one)), "n", &node),
                expected,
                "{one:?}"
            );
        }
        assert!(!fits(&NodeSelectorTerm::default(), "n", &node));
        let by_name = NodeSelectorTerm {
            match_fields: Some(vec![requirement("metadata.name", "In", &["n"])]),
            match_expressions: None,
        };
        assert!(fits(&by_name, "n", &node) && !fits(&by_name, "m", &node));
        let wrong = term(&[requirement("a", "In", &[])]);
        assert_eq!(problem(&wrong).unwrap().0, "matchExpressions[0]");
        assert_eq!(problem(&term(&[requirement("a", "Exists", &[])])), None);
    }

    #[test]
    fn taints_keep_pods_off_unless_tolerated() {
        let taint: Taint = serde_json::from_value(
            json!({"key": "virtual-kubelet.io/provider", "value": "alibabacloud", "effect": "NoSchedule"}),
        )
        .unwrap();
        let toleration =
            |value: serde_json::Value| -> Toleration { serde_json::from_value(value).unwrap() };
        let cases = [
            (json!({"operator": "Exists"}), true),
            (
                json!({"key": "virtual-kubelet.io/provider", "operator": "Exists"}),
                true,
            ),
            (
                json!({"key": "virtual-kubelet.io/provider", "value": "alibabacloud"}),
                true,
            ),
            (
                json!({"key": "virtual-kubelet.io/provider", "value": "other"}),
                false,
            ),
            (
                json!({"key": "virtual-kubelet.io/provider", "operator": "Exists", "effect": "NoExecute"}),
                false,
            ),
        ];
        for (value, expected) in cases {
            let found = tolerated(std::slice::from_ref(&taint), &[toleration(value.clone())]);
            assert_eq!(found, expected, "{value}");
        }
        let soft = Taint {
            effect: "PreferNoSchedule".into(),
            ..taint
        };
        assert!(tolerated(&[soft], &[]));
    }
}
