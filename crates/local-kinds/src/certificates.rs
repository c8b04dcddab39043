//! Certificate signing requests.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use crate::print::{NAME, NONE, age, column, name, or_none};
use crate::rules::{Column, KindRules};
use crate::tree::{integer, list, present, restore, text};

/// Shortest life that may be asked for.
const SHORTEST_SECONDS: i64 = 600;

/// The rules of CertificateSigningRequests.
pub struct SigningRequestRules;

/// Conditions that only the approval subresource writes.
fn is_decision(condition: &Value) -> bool {
    matches!(text(condition, "type"), "Approved" | "Denied")
}

fn has(object: &Value, kind: &str) -> bool {
    let mut conditions = list(&object["status"], "conditions").iter();
    conditions.any(|condition| text(condition, "type") == kind)
}

/// Conditions of the one kind from `new`, of the other from `old`.
fn merged(new: &Value, old: &Value, decisions_from_new: bool) -> Value {
    let of = |object: &Value, wanted: bool| -> Vec<Value> {
        let all = list(&object["status"], "conditions").iter();
        all.filter(|condition| is_decision(condition) == wanted)
            .cloned()
            .collect()
    };
    let mut conditions = of(if decisions_from_new { new } else { old }, true);
    conditions.extend(of(if decisions_from_new { old } else { new }, false));
    json!(conditions)
}

fn set_conditions(object: &mut Value, conditions: Value) {
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    if conditions.as_array().is_some_and(Vec::is_empty) {
        if let Some(status) = object["status"].as_object_mut() {
            status.remove("conditions");
        }
    } else {
        object["status"]["conditions"] = conditions;
    }
}

impl KindRules for SigningRequestRules {
    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        restore(new, old, "spec");
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        let conditions = merged(new, old, false);
        set_conditions(new, conditions);
    }

    fn prepare_for_subresource_update(&self, _subresource: &str, new: &mut Value, old: &Value) {
        let conditions = merged(new, old, true);
        restore(new, old, "spec");
        restore(new, old, "status");
        set_conditions(new, conditions);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let spec = &object["spec"];
        let mut errors = Vec::new();
        if text(spec, "request").is_empty() {
            errors.push(FieldError::required("spec.request", ""));
        }
        if list(spec, "usages").is_empty() {
            errors.push(FieldError::required("spec.usages", ""));
        }
        let signer = text(spec, "signerName");
        if signer.is_empty() {
            errors.push(FieldError::required("spec.signerName", ""));
        } else if !signer.contains('/') {
            let rule =
                "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(FieldError::invalid("spec.signerName", signer, rule));
        }
        if let Some(seconds) = integer(spec, "expirationSeconds")
            && seconds < SHORTEST_SECONDS
        {
            let rule = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid("spec.expirationSeconds", seconds, rule));
        }
        errors
    }

    fn validate_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_subresource_update(
        &self,
        _subresource: &str,
        new: &Value,
        old: &Value,
    ) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if has(new, "Approved") && has(new, "Denied") {
            let rule = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid("status.conditions", "Denied", rule));
        }
        for kind in ["Approved", "Denied"] {
            if has(old, kind) && !has(new, kind) {
                let rule = "updates may not remove a condition of this type";
                errors.push(FieldError::invalid("status.conditions", kind, rule));
            }
        }
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn selectable_field(&self, object: &Value, field: &str) -> String {
        match field {
            "spec.signerName" => text(&object["spec"], "signerName").to_owned(),
            _ => String::new(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Age"),
            column("SignerName"),
            column("Requestor"),
            column("RequestedDuration"),
            column("Condition"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let duration = integer(spec, "expirationSeconds");
        let duration = duration.map_or_else(|| NONE.to_owned(), |seconds| format!("{seconds}s"));
        let mut condition = if has(object, "Denied") {
            "Denied"
        } else if has(object, "Approved") {
            "Approved"
        } else {
            "Pending"
        }
        .to_owned();
        if has(object, "Failed") {
            condition.push_str(",Failed");
        }
        if present(&object["status"], "certificate") {
            condition.push_str(",Issued");
        }
        vec![
            name(object),
            age(object, now),
            or_none(text(spec, "signerName")),
            or_none(text(spec, "username")),
            duration.into(),
            condition.into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str) -> Value {
        json!({"type": kind, "status": "True"})
    }

    #[test]
    fn decisions_are_written_by_approval_and_the_rest_by_status() {
        let old = json!({"spec": {"request": "a"}, "status": {}});
        let mut approved = json!({
            "spec": {"request": "b"},
            "status": {"conditions": [condition("Approved"), condition("Failed")], "certificate": "c"}
        });
        SigningRequestRules.prepare_for_subresource_update("approval", &mut approved, &old);
        assert_eq!(approved["spec"], old["spec"]);
        assert_eq!(
            approved["status"],
            json!({"conditions": [condition("Approved")]})
        );
        let mut issued = json!({
            "spec": {"request": "a"}, "status": {"conditions": [condition("Denied")], "certificate": "c"}
        });
        SigningRequestRules.prepare_for_status_update(&mut issued, &approved);
        let expected = json!({"conditions": [condition("Approved")], "certificate": "c"});
        assert_eq!(issued["status"], expected);
    }

    #[test]
    fn a_decision_stays() {
        let old = json!({"status": {"conditions": [condition("Approved")]}});
        let both = json!({"status": {"conditions": [condition("Approved"), condition("Denied")]}});
        let check =
            |new: &Value| SigningRequestRules.validate_subresource_update("approval", new, &old);
        assert_eq!(check(&both).len(), 1);
        assert_eq!(check(&json!({"status": {}})).len(), 1);
        assert!(check(&old).is_empty());
    }

    #[test]
    fn what_is_needed_is_asked_for() {
        let errors =
            SigningRequestRules.validate_create(&json!({"spec": {"expirationSeconds": 5}}));
        let fields: Vec<String> = errors.iter().map(|error| error.path.to_string()).collect();
        let expected = [
            "spec.request",
            "spec.usages",
            "spec.signerName",
            "spec.expirationSeconds",
        ];
        assert_eq!(fields, expected);
    }
}
