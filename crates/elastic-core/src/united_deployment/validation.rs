//! Checks of a UnitedDeployment; each failure names the field, what is wrong and what would be right.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::child::ChildKind;
use super::shares::{Amount, amount};
use super::{Subset, UnitedDeploymentSpec};
use crate::elastic_workload::FieldError;
use crate::node_term;
use crate::patch_containers::strangers;
use crate::strategic_merge::merge_pod;

/// Length of the suffix and the dashes of a child's name, and of the longest name that pods can be made from.
const MAX_SUBSET_NAME_LENGTH: usize = 32;

type Fail<'a> = dyn FnMut(String, String) + 'a;

/// Every problem of `spec`, in the order of its fields.
pub fn validate(spec: &UnitedDeploymentSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut fail = |field: String, reason: String| errors.push(FieldError { field, reason });
    if spec.replicas.is_some_and(|replicas| replicas < 0) {
        fail("spec.replicas".into(), "must be 0 or more".into());
    }
    let labels = spec.selector.match_labels.as_ref();
    let expressions = spec.selector.match_expressions.as_ref();
    if labels.is_none_or(|all| all.is_empty()) && expressions.is_none_or(Vec::is_empty) {
        fail(
            "spec.selector".into(),
            "is empty and would select every pod; give the labels of the pod template".into(),
        );
    }
    let kind = template(spec, &mut fail);
    if spec.topology.subsets.is_empty() {
        fail(
            "spec.topology.subsets".into(),
            "must have at least one subset".into(),
        );
    }
    for index in 0..spec.topology.subsets.len() {
        subset(spec, index, &mut fail);
    }
    mixture(spec, &mut fail);
    strategy(spec, &mut fail);
    update(spec, kind, &mut fail);
    if spec.revision_history_limit.is_some_and(|limit| limit < 0) {
        fail(
            "spec.revisionHistoryLimit".into(),
            "must be 0 or more".into(),
        );
    }
    errors
}

fn template(spec: &UnitedDeploymentSpec, fail: &mut Fail<'_>) -> Option<ChildKind> {
    let template = &spec.template;
    for (name, value) in [
        ("cloneSetTemplate", &template.clone_set_template),
        (
            "advancedStatefulSetTemplate",
            &template.advanced_stateful_set_template,
        ),
    ] {
        if value.is_some() {
            let reason = "needs a kind that only OpenKruise serves; use deploymentTemplate or statefulSetTemplate";
            fail(format!("spec.template.{name}"), reason.into());
            return None;
        }
    }
    match (
        &template.deployment_template,
        &template.stateful_set_template,
    ) {
        (Some(_), None) => Some(ChildKind::Deployment),
        (None, Some(_)) => Some(ChildKind::StatefulSet),
        _ => {
            let reason = "must have exactly one of deploymentTemplate and statefulSetTemplate";
            fail("spec.template".into(), reason.into());
            None
        }
    }
}

fn subset(spec: &UnitedDeploymentSpec, index: usize, fail: &mut Fail<'_>) {
    let subsets = &spec.topology.subsets;
    let subset = &subsets[index];
    let path = format!("spec.topology.subsets[{index}]");
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edges = [subset.name.bytes().next(), subset.name.bytes().last()];
    let named = subset.name.bytes().all(letters)
        && subset.name.len() <= MAX_SUBSET_NAME_LENGTH
        && edges
            .iter()
            .all(|edge| edge.is_some_and(|byte| byte != b'-'));
    if !named {
        let reason = format!(
            "{:?} must be 1 to {MAX_SUBSET_NAME_LENGTH} lower-case letters, digits or '-', and start and end with a letter or digit",
            subset.name
        );
        fail(format!("{path}.name"), reason);
    }
    if subsets[..index]
        .iter()
        .any(|other| other.name == subset.name)
    {
        let reason = format!("subset {:?} appears twice, names must differ", subset.name);
        fail(format!("{path}.name"), reason);
    }
    if let Some((below, reason)) = subset
        .node_selector_term
        .as_ref()
        .and_then(node_term::problem)
    {
        fail(format!("{path}.nodeSelectorTerm.{below}"), reason);
    }
    amounts(subset, &path, fail);
    let tried = subset
        .patch
        .as_ref()
        .map(|patch| merge_pod(&json!({}), patch));
    if let Some(Err(error)) = tried {
        fail(format!("{path}.patch"), error.to_string());
    }
    let template = &spec.template;
    let child = template.deployment_template.as_ref();
    let child = child.or(template.stateful_set_template.as_ref());
    let pods = child.map(|child| &child["spec"]["template"]);
    // A template without containers has a problem of its own.
    let pods = pods.filter(|pods| pods["spec"]["containers"].is_array());
    for (patch, pods) in subset.patch.iter().zip(pods) {
        for stranger in strangers(pods, patch) {
            let reason = stranger.reason("the pod template");
            fail(format!("{path}.patch.{}", stranger.path), reason);
        }
    }
}

fn amounts(subset: &Subset, path: &str, fail: &mut Fail<'_>) {
    let mut read = |name: &str, written: &Option<IntOrString>| match amount(written.as_ref()?) {
        Ok(amount) => Some(amount),
        Err(reason) => {
            fail(format!("{path}.{name}"), reason);
            None
        }
    };
    let own = read("replicas", &subset.replicas);
    let min = read("minReplicas", &subset.min_replicas);
    let max = read("maxReplicas", &subset.max_replicas);
    if own.is_some() && (min.is_some() || max.is_some()) {
        let reason = "cannot be combined with minReplicas and maxReplicas; remove one";
        fail(format!("{path}.replicas"), reason.into());
    }
    let crossed = match (min, max) {
        (Some(Amount::Count(min)), Some(Amount::Count(max))) => min > max,
        (Some(Amount::Percent(min)), Some(Amount::Percent(max))) => min > max,
        _ => false,
    };
    if crossed {
        let reason = "must not be above maxReplicas";
        fail(format!("{path}.minReplicas"), reason.into());
    }
}

/// Fixed shares of some and bounds of others do not go together, nor do fixed shares and a choice by capacity.
fn mixture(spec: &UnitedDeploymentSpec, fail: &mut Fail<'_>) {
    let subsets = &spec.topology.subsets;
    let bounded = |subset: &Subset| subset.min_replicas.is_some() || subset.max_replicas.is_some();
    let any_bounded = subsets.iter().any(bounded);
    for (index, subset) in subsets.iter().enumerate() {
        let path = format!("spec.topology.subsets[{index}].replicas");
        if subset.replicas.is_none() || bounded(subset) {
            continue;
        }
        if any_bounded {
            let reason = "cannot be combined with minReplicas or maxReplicas of another subset";
            fail(path, reason.into());
        } else if spec.adaptive().is_some() {
            let reason = "cannot be combined with scheduleStrategy Adaptive; use minReplicas and maxReplicas";
            fail(path, reason.into());
        }
    }
}

fn strategy(spec: &UnitedDeploymentSpec, fail: &mut Fail<'_>) {
    let Some(strategy) = &spec.topology.schedule_strategy else {
        return;
    };
    let path = "spec.topology.scheduleStrategy";
    match strategy.type_.as_deref() {
        None | Some("" | "Fixed" | "Adaptive") => {}
        Some(other) => fail(
            format!("{path}.type"),
            format!("{other:?} is neither Fixed nor Adaptive"),
        ),
    }
    let given = strategy.adaptive.clone().unwrap_or_default();
    for (name, seconds) in [
        (
            "rescheduleCriticalSeconds",
            given.reschedule_critical_seconds,
        ),
        ("unschedulableDuration", given.unschedulable_duration),
        ("unschedulableLastSeconds", given.unschedulable_last_seconds),
    ] {
        if seconds.is_some_and(|seconds| seconds < 0) {
            fail(
                format!("{path}.adaptive.{name}"),
                "must be 0 or more".into(),
            );
        }
    }
}

fn update(spec: &UnitedDeploymentSpec, kind: Option<ChildKind>, fail: &mut Fail<'_>) {
    let Some(strategy) = &spec.update_strategy else {
        return;
    };
    match strategy.type_.as_deref() {
        None | Some("" | "Manual") => {}
        Some(other) => fail(
            "spec.updateStrategy.type".into(),
            format!("{other:?} is not supported; the only strategy is Manual"),
        ),
    }
    let partitions = strategy
        .manual_update
        .iter()
        .flat_map(|manual| &manual.partitions);
    for (name, partition) in partitions {
        let path = format!("spec.updateStrategy.manualUpdate.partitions.{name}");
        if !spec
            .topology
            .subsets
            .iter()
            .any(|subset| subset.name == *name)
        {
            fail(path, "is not a subset of spec.topology.subsets".into());
        } else if *partition < 0 {
            fail(path, "must be 0 or more".into());
        } else if *partition > 0 && kind == Some(ChildKind::Deployment) {
            let reason =
                "a Deployment cannot be updated in part; use statefulSetTemplate, or set it to 0";
            fail(path, reason.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn fields(spec: Value) -> Vec<String> {
        let spec: UnitedDeploymentSpec = serde_json::from_value(spec).unwrap();
        validate(&spec)
            .into_iter()
            .map(|error| error.field)
            .collect()
    }

    #[test]
    fn a_usual_manifest_has_no_errors() {
        let found = fields(json!({
            "replicas": 6, "revisionHistoryLimit": 5, "selector": {"matchLabels": {"app": "web"}},
            "template": {"deploymentTemplate": {"spec": {}}},
            "topology": {
                "subsets": [
                    {"name": "ecs", "maxReplicas": 4, "nodeSelectorTerm": {"matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}]}},
                    {"name": "vk", "tolerations": [{"operator": "Exists"}], "patch": {"metadata": {}}}],
                "scheduleStrategy": {"type": "Adaptive", "adaptive": {"rescheduleCriticalSeconds": 10, "unschedulableLastSeconds": 3600}}},
            "updateStrategy": {"type": "Manual", "manualUpdate": {"partitions": {"ecs": 0}}}
        }));
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn every_problem_names_its_field() {
        let found = fields(json!({
            "replicas": -1, "selector": {}, "revisionHistoryLimit": -1,
            "template": {"cloneSetTemplate": {}},
            "topology": {
                "subsets": [
                    {"name": "A", "replicas": 1, "nodeSelectorTerm": {"matchExpressions": [{"key": "a", "operator": "Like"}]}},
                    {"name": "b", "replicas": 1, "maxReplicas": "x"},
                    {"name": "b", "minReplicas": 3, "maxReplicas": 2, "patch": "text"}],
                "scheduleStrategy": {"type": "Random", "adaptive": {"rescheduleCriticalSeconds": -1}}},
            "updateStrategy": {"type": "Auto", "manualUpdate": {"partitions": {"c": 1}}}
        }));
        assert_eq!(
            found,
            [
                "spec.replicas",
                "spec.selector",
                "spec.template.cloneSetTemplate",
                "spec.topology.subsets[0].name",
                "spec.topology.subsets[0].nodeSelectorTerm.matchExpressions[0]",
                "spec.topology.subsets[1].maxReplicas",
                "spec.topology.subsets[2].name",
                "spec.topology.subsets[2].minReplicas",
                "spec.topology.subsets[2].patch",
                "spec.topology.subsets[0].replicas",
                "spec.topology.scheduleStrategy.type",
                "spec.topology.scheduleStrategy.adaptive.rescheduleCriticalSeconds",
                "spec.updateStrategy.type",
                "spec.updateStrategy.manualUpdate.partitions.c",
                "spec.revisionHistoryLimit",
            ]
        );
    }

    #[test]
    fn patches_for_containers_that_the_template_lacks_are_refused_by_name() {
        let spec = |kind: &str, patch: Value| {
            json!({
                "selector": {"matchLabels": {"app": "web"}},
                "template": {kind: {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "w:1"}]}}}}},
                "topology": {"subsets": [{"name": "ecs"}, {"name": "vk", "patch": {"spec": {"containers": [patch]}}}]}
            })
        };
        for kind in ["deploymentTemplate", "statefulSetTemplate"] {
            assert_eq!(
                fields(spec(kind, json!({"name": "wbe", "env": []}))),
                ["spec.topology.subsets[1].patch.spec.containers[0]"]
            );
            for right in [
                json!({"name": "web", "env": []}),
                json!({"name": "more", "image": "m:1"}),
            ] {
                assert_eq!(fields(spec(kind, right)), Vec::<String>::new());
            }
        }
    }

    #[test]
    fn what_a_deployment_cannot_do_is_refused_by_name() {
        let found = fields(json!({
            "selector": {"matchLabels": {"app": "web"}}, "template": {"deploymentTemplate": {"spec": {}}},
            "topology": {"subsets": [{"name": "a", "replicas": 1}], "scheduleStrategy": {"type": "Adaptive"}},
            "updateStrategy": {"manualUpdate": {"partitions": {"a": 1}}}
        }));
        assert_eq!(
            found,
            [
                "spec.topology.subsets[0].replicas",
                "spec.updateStrategy.manualUpdate.partitions.a"
            ]
        );
        let both = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"deploymentTemplate": {}, "statefulSetTemplate": {}}, "topology": {"subsets": [{"name": "a"}]}});
        assert_eq!(fields(both), ["spec.template"]);
    }
}
