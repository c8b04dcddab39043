//! StatefulSets.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::{Value, json};

use super::{SCALE, check_selector};
use crate::check::numbers::{at_most_all, count_or_percent, not_negative};
use crate::check::{selector, show};
use crate::core::pod::{check_template, default_claim_spec, default_template};
use crate::print::{self, NAME, age, column, name, wide};
use crate::rules::{Column, KindRules, NameRule, ScalePaths};
use crate::tree::{
    child, fill, fill_zero, list_mut, number, object_mut, present, restore, same, text,
};

/// The rules of StatefulSets.
pub struct StatefulSetRules;

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
];

const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

const UNCHANGEABLE_WORDS: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

impl KindRules for StatefulSetRules {
    fn default(&self, _version: &str, object: &mut Value) {
        let spec = object_mut(object, "spec");
        fill_zero(spec, "podManagementPolicy", "OrderedReady");
        let strategy = object_mut(spec, "updateStrategy");
        fill_zero(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            fill(object_mut(strategy, "rollingUpdate"), "partition", 0);
        }
        let retention = object_mut(spec, "persistentVolumeClaimRetentionPolicy");
        fill_zero(retention, "whenDeleted", "Retain");
        fill_zero(retention, "whenScaled", "Retain");
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        default_template(spec);
        for claim in list_mut(spec, "volumeClaimTemplates") {
            fill_zero(claim, "apiVersion", "v1");
            fill_zero(claim, "kind", "PersistentVolumeClaim");
            object_mut(claim, "metadata");
            default_claim_spec(object_mut(claim, "spec"));
            fill_zero(object_mut(claim, "status"), "phase", "Pending");
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0, "availableReplicas": 0});
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        check_spec(&object["spec"])
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = check_spec(&new["spec"]);
        let mut munged = new["spec"].clone();
        for key in CHANGEABLE {
            restore(&mut munged, &old["spec"], key);
        }
        if !same(&munged, &old["spec"]) {
            errors.push(FieldError::forbidden("spec", UNCHANGEABLE_WORDS));
        }
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let (names, images) = print::containers(&spec["template"]["spec"]);
        vec![
            name(object),
            format!(
                "{}/{}",
                number(status, "readyReplicas"),
                number(spec, "replicas")
            )
            .into(),
            age(object, now),
            names,
            images,
        ]
    }

    fn scale_paths(&self) -> Option<ScalePaths> {
        Some(SCALE)
    }
}

fn check_spec(spec: &Value) -> Vec<FieldError> {
    let path = "spec";
    let mut errors = Vec::new();
    let policy = text(spec, "podManagementPolicy");
    if policy != "OrderedReady" && policy != "Parallel" {
        errors.push(FieldError::invalid(
            child(path, "podManagementPolicy"),
            policy,
            "must be 'OrderedReady' or 'Parallel'",
        ));
    }
    errors.extend(check_strategy(
        &spec["updateStrategy"],
        &child(path, "updateStrategy"),
    ));
    errors.extend(not_negative(spec, "replicas", path));
    errors.extend(not_negative(spec, "minReadySeconds", path));
    errors.extend(not_negative(
        &spec["ordinals"],
        "start",
        &child(path, "ordinals"),
    ));
    errors.extend(check_selector(spec, path, "statefulset"));
    let own = &spec["selector"];
    if !selector::is_usable(own) {
        errors.push(FieldError::invalid(
            child(path, "selector"),
            own.clone(),
            "",
        ));
        return errors;
    }
    let path = child(path, "template");
    let template = &spec["template"];
    errors.extend(super::selected(own, template, &path));
    errors.extend(check_template(template, &path));
    errors.extend(super::endless(template, &path, "StatefulSet"));
    errors
}

fn check_strategy(strategy: &Value, path: &str) -> Vec<FieldError> {
    let rolling = &strategy["rollingUpdate"];
    let rolling_path = child(path, "rollingUpdate");
    let shown = || {
        show::structure(&[
            ("Partition", show::number(rolling, "partition")),
            ("MaxUnavailable", show::pointer(rolling, "maxUnavailable")),
        ])
    };
    match text(strategy, "type") {
        "" => vec![FieldError::required(path, "")],
        "OnDelete" if present(strategy, "rollingUpdate") => {
            let words = "only allowed for updateStrategy 'RollingUpdate'";
            vec![FieldError::invalid(rolling_path, rolling.clone(), words).showing(shown())]
        }
        "OnDelete" => Vec::new(),
        "RollingUpdate" => {
            let mut errors = not_negative(rolling, "partition", &rolling_path);
            errors.extend(count_or_percent(rolling, "maxUnavailable", &rolling_path));
            errors.extend(at_most_all(rolling, "maxUnavailable", &rolling_path));
            errors
        }
        kind => {
            let whole = show::structure(&[
                ("Type", json!(kind).to_string()),
                (
                    "RollingUpdate",
                    show::nested(strategy, "rollingUpdate", |_| shown()),
                ),
            ]);
            let words = "must be 'RollingUpdate' or 'OnDelete'";
            vec![FieldError::invalid(path, strategy.clone(), words).showing(whole)]
        }
    }
}
