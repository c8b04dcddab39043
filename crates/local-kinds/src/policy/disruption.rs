//! PodDisruptionBudgets.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use crate::check::numbers::{at_most_all, count_or_percent};
use crate::check::selector;
use crate::print::{NAME, age, column, name, typed};
use crate::rules::{Column, KindRules, NameRule};
use crate::tree::{number, present, text};

/// The rules of PodDisruptionBudgets.
pub struct DisruptionBudgetRules;

impl KindRules for DisruptionBudgetRules {
    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({
            "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
        });
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let (spec, path) = (&object["spec"], "spec");
        let mut errors = Vec::new();
        if present(spec, "minAvailable") && present(spec, "maxUnavailable") {
            let words = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid(path, spec.clone(), words));
        }
        for key in ["minAvailable", "maxUnavailable"] {
            errors.extend(count_or_percent(spec, key, path));
            errors.extend(at_most_all(spec, key, path));
        }
        errors.extend(selector::check(&spec["selector"], "spec.selector"));
        let policies = &["AlwaysAllow", "IfHealthyBudget"];
        let policy = text(spec, "unhealthyPodEvictionPolicy");
        if !policy.is_empty() && !policies.contains(&policy) {
            let path = "spec.unhealthyPodEvictionPolicy";
            errors.push(FieldError::not_supported(path, policy, policies));
        }
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Min Available"),
            column("Max Unavailable"),
            typed("Allowed Disruptions", "integer"),
            column("Age"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let shown = |key: &str| match &spec[key] {
            Value::Null => Value::from("N/A"),
            Value::String(share) => share.as_str().into(),
            count => count.to_string().into(),
        };
        vec![
            name(object),
            shown("minAvailable"),
            shown("maxUnavailable"),
            number(&object["status"], "disruptionsAllowed").into(),
            age(object, now),
        ]
    }
}
