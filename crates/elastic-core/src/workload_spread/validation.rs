//! Checks of a WorkloadSpread; each failure names the field, what is wrong and what would be right.

use serde_json::json;

use super::{SpreadSubset, TargetReference, WorkloadSpreadSpec};
use crate::elastic_workload::FieldError;
use crate::names::{AUTOSCALING_GROUP, KRUISE_GROUP};
use crate::node_term;
use crate::strategic_merge::merge_pod;
use crate::united_deployment::{Amount, amount};

type Fail<'a> = dyn FnMut(String, String) + 'a;

/// Every problem of `spec`, in the order of its fields.
pub fn validate(spec: &WorkloadSpreadSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut fail = |field: String, reason: String| errors.push(FieldError { field, reason });
    target(&spec.target_ref, &mut fail);
    for (index, path) in spec
        .target_filter
        .iter()
        .flat_map(|filter| &filter.replicas_path_list)
        .enumerate()
    {
        if path.split('.').any(str::is_empty) {
            let reason = format!("{path:?} is no path such as spec.roles.worker.replicas");
            fail(
                format!("spec.targetFilter.replicasPathList[{index}]"),
                reason,
            );
        }
    }
    if spec.subsets.is_empty() {
        fail(
            "spec.subsets".into(),
            "must have at least one subset".into(),
        );
    }
    for (index, one) in spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        if spec.subsets[..index]
            .iter()
            .any(|other| other.name == one.name)
        {
            let reason = format!("subset {:?} appears twice, names must differ", one.name);
            fail(format!("{path}.name"), reason);
        }
        subset(one, &path, &mut fail);
    }
    strategy(spec, &mut fail);
    errors
}

/// What is wrong with it beside others in its namespace: each workload is spread by one only, the oldest.
pub fn validate_against(
    target: &TargetReference,
    older: &[(String, TargetReference)],
) -> Option<FieldError> {
    let same = |other: &TargetReference| {
        other.group() == target.group() && other.kind == target.kind && other.name == target.name
    };
    let (name, _) = older.iter().find(|(_, other)| same(other))?;
    Some(FieldError {
        field: "spec.targetRef".into(),
        reason: format!(
            "{} {} is spread by WorkloadSpread {name} already; delete one",
            target.kind, target.name
        ),
    })
}

fn target(target: &TargetReference, fail: &mut Fail<'_>) {
    if target.api_version.is_empty() || target.kind.is_empty() || target.name.is_empty() {
        let reason = "must name apiVersion, kind and name of a workload in the same namespace";
        fail("spec.targetRef".into(), reason.into());
    } else if target.group() == AUTOSCALING_GROUP && target.kind == "ElasticWorkload" {
        let reason =
            "an ElasticWorkload spreads its pods itself; name a Deployment, or use its units";
        fail("spec.targetRef.kind".into(), reason.into());
    } else if target.group() == KRUISE_GROUP {
        let reason = format!(
            "{} is a kind that only OpenKruise serves; name a Deployment, ReplicaSet, StatefulSet or another workload with a scale subresource",
            target.kind
        );
        fail("spec.targetRef.kind".into(), reason);
    }
}

fn subset(subset: &SpreadSubset, path: &str, fail: &mut Fail<'_>) {
    if subset.name.is_empty() {
        fail(format!("{path}.name"), "is missing".into());
    }
    let required = subset.required_node_selector_term.as_ref();
    if let Some((below, reason)) = required.and_then(node_term::problem) {
        fail(format!("{path}.requiredNodeSelectorTerm.{below}"), reason);
    }
    for (index, preferred) in subset.preferred_node_selector_terms.iter().enumerate() {
        let path = format!("{path}.preferredNodeSelectorTerms[{index}]");
        if !(1..=100).contains(&preferred.weight) {
            fail(format!("{path}.weight"), "must be 1 to 100".into());
        }
        if let Some((below, reason)) = node_term::problem(&preferred.preference) {
            fail(format!("{path}.preference.{below}"), reason);
        }
    }
    let mut read = |name: &str, written: &Option<_>| match amount(written.as_ref()?) {
        Ok(amount) => Some(amount),
        Err(reason) => {
            fail(format!("{path}.{name}"), reason);
            None
        }
    };
    let min = read("minReplicas", &subset.min_replicas);
    let max = read("maxReplicas", &subset.max_replicas);
    if let (Some(Amount::Count(min)), Some(Amount::Count(max))) = (min, max)
        && min > max
    {
        let reason = format!("must not be above maxReplicas, {min} > {max}");
        fail(format!("{path}.minReplicas"), reason);
    }
    patch(subset, path, fail);
}

/// A pod's identity is not for a patch.
fn patch(subset: &SpreadSubset, path: &str, fail: &mut Fail<'_>) {
    let Some(patch) = &subset.patch else {
        return;
    };
    if let Err(error) = merge_pod(&json!({}), patch) {
        fail(format!("{path}.patch"), error.to_string());
    }
    let members = patch.as_object();
    for member in members.into_iter().flat_map(|members| members.keys()) {
        if !matches!(member.as_str(), "metadata" | "spec") {
            let reason = "cannot be patched; expected metadata or spec";
            fail(format!("{path}.patch.{member}"), reason.into());
        }
    }
    for member in patch["metadata"].as_object().into_iter().flatten() {
        if !matches!(member.0.as_str(), "labels" | "annotations") {
            let reason = "cannot be patched; expected labels or annotations";
            fail(format!("{path}.patch.metadata.{}", member.0), reason.into());
        }
    }
}

fn strategy(spec: &WorkloadSpreadSpec, fail: &mut Fail<'_>) {
    let path = "spec.scheduleStrategy";
    match spec.schedule_strategy.type_.as_deref() {
        None | Some("" | "Fixed") => {}
        Some("Adaptive") => {
            if let Some(last) = spec.subsets.last()
                && last.max_replicas.is_some()
            {
                let reason = "must be absent in the last subset with scheduleStrategy Adaptive, which has to take what others do not";
                let index = spec.subsets.len() - 1;
                fail(format!("spec.subsets[{index}].maxReplicas"), reason.into());
            }
        }
        Some(other) => fail(
            format!("{path}.type"),
            format!("{other:?} is neither Fixed nor Adaptive"),
        ),
    }
    let adaptive = spec.schedule_strategy.adaptive.as_ref();
    if adaptive
        .and_then(|adaptive| adaptive.reschedule_critical_seconds)
        .is_some_and(|seconds| seconds < 0)
    {
        fail(
            format!("{path}.adaptive.rescheduleCriticalSeconds"),
            "must be 0 or more".into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn fields(spec: Value) -> Vec<String> {
        let spec: WorkloadSpreadSpec = serde_json::from_value(spec).unwrap();
        validate(&spec)
            .into_iter()
            .map(|error| error.field)
            .collect()
    }

    #[test]
    fn every_problem_names_its_field() {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        let right = json!({"targetRef": target, "subsets": [{"name": "ecs", "maxReplicas": 4}, {"name": "vk"}],
            "scheduleStrategy": {"type": "Adaptive", "adaptive": {"rescheduleCriticalSeconds": 30}}});
        assert_eq!(fields(right), Vec::<String>::new());
        let wrong = json!({
            "targetRef": {"apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload", "name": "web"},
            "targetFilter": {"replicasPathList": ["spec..replicas"]},
            "subsets": [
                {"name": "a", "minReplicas": 3, "maxReplicas": 2, "patch": {"status": {}, "metadata": {"name": "x"}}},
                {"name": "a", "maxReplicas": "few", "preferredNodeSelectorTerms": [{"weight": 0, "preference": {}}]},
                {"name": "", "maxReplicas": 1, "requiredNodeSelectorTerm": {"matchExpressions": [{"key": "a", "operator": "In"}]}}],
            "scheduleStrategy": {"type": "Adaptive", "adaptive": {"rescheduleCriticalSeconds": -1}}});
        assert_eq!(
            fields(wrong),
            [
                "spec.targetRef.kind",
                "spec.targetFilter.replicasPathList[0]",
                "spec.subsets[0].minReplicas",
                "spec.subsets[0].patch.status",
                "spec.subsets[0].patch.metadata.name",
                "spec.subsets[1].name",
                "spec.subsets[1].preferredNodeSelectorTerms[0].weight",
                "spec.subsets[1].maxReplicas",
                "spec.subsets[2].name",
                "spec.subsets[2].requiredNodeSelectorTerm.matchExpressions[0]",
                "spec.subsets[2].maxReplicas",
                "spec.scheduleStrategy.adaptive.rescheduleCriticalSeconds",
            ]
        );
        assert_eq!(fields(json!({})), ["spec.targetRef", "spec.subsets"]);
        let clone_set =
            json!({"apiVersion": "apps.kruise.io/v1alpha1", "kind": "CloneSet", "name": "a"});
        assert_eq!(
            fields(
                json!({"targetRef": clone_set, "subsets": [{"name": "a"}], "scheduleStrategy": {"type": "Best"}})
            ),
            ["spec.targetRef.kind", "spec.scheduleStrategy.type"]
        );
    }

    #[test]
    fn a_workload_is_spread_by_the_oldest_only() {
        let target = |version: &str, name: &str| TargetReference {
            api_version: version.into(),
            kind: "Deployment".into(),
            name: name.into(),
        };
        let older = [("first".to_owned(), target("apps/v1", "web"))];
        let error = validate_against(&target("apps/v1beta1", "web"), &older).unwrap();
        assert!(
            error
                .to_string()
                .contains("by WorkloadSpread first already")
        );
        assert_eq!(validate_against(&target("apps/v1", "api"), &older), None);
    }
}
