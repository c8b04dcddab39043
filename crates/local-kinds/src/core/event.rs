//! Events, in the shape of the core group in which they are stored, and as `events.k8s.io` shows them.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::Value;

use crate::check::names::{invalid, qualified};
use crate::print::{UNKNOWN, column, since, wide};
use crate::rules::{Column, KindRules, NameRule};
use crate::tree::{at, integer, remove, text};

/// The rules of Events in the core group.
pub struct EventRules;

/// The rules of Events in `events.k8s.io`.
pub struct EventsGroupRules;

const COLUMNS: &[Column] = &[
    column("Last Seen"),
    column("Type"),
    column("Reason"),
    column("Object"),
    wide("Subobject"),
    wide("Source"),
    column("Message"),
    wide("First Seen"),
    wide("Count"),
    Column {
        format: "name",
        ..wide("Name")
    },
];

const SELECTABLE: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

const SELECTABLE_REGARDING: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

/// Names in the core group and in `events.k8s.io`.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

const LONGEST_INSTANCE: usize = 128;
const LONGEST_NOTE: usize = 1024;

impl KindRules for EventRules {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        check(object, "reportingComponent")
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        row(object, now)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        SELECTABLE
    }

    fn selectable_field(&self, object: &Value, field: &str) -> String {
        selected(object, field)
    }
}

impl KindRules for EventsGroupRules {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = check(object, "reportingController");
        if object["eventTime"].is_null() {
            errors.push(FieldError::required("eventTime", ""));
        }
        let kind = text(object, "type");
        if kind != "Normal" && kind != "Warning" {
            let words = format!("has invalid value: {kind}");
            errors.push(FieldError::invalid("type", "", words));
        }
        if text(object, "message").len() > LONGEST_NOTE {
            let words = format!("can have at most {LONGEST_NOTE} characters");
            errors.push(FieldError::invalid("message", "", words));
        }
        errors
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check(new, "reportingController")
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        row(object, now)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        SELECTABLE_REGARDING
    }

    fn selectable_field(&self, object: &Value, field: &str) -> String {
        let field = field.replacen("regarding", "involvedObject", 1);
        selected(
            object,
            &field.replace("reportingController", "reportingComponent"),
        )
    }

    fn to_storage(&self, _version: &str, object: &mut Value) {
        for (core, shown) in RENAMED {
            rename(object, shown, core);
        }
    }

    fn to_version(&self, _version: &str, object: &mut Value) {
        for (core, shown) in RENAMED {
            rename(object, core, shown);
        }
    }
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(value) = object.as_object_mut().and_then(|map| map.remove(from)) {
        object[to] = value;
    } else {
        remove(object, to);
    }
}

fn selected(object: &Value, field: &str) -> String {
    if field == "source" {
        return source_parts(object).0.to_string();
    }
    at(object, &format!("/{}", field.replace('.', "/")))
        .as_str()
        .unwrap_or_default()
        .to_string()
}

fn check(event: &Value, controller_field: &str) -> Vec<FieldError> {
    let own = text(&event["metadata"], "namespace");
    let involved = text(&event["involvedObject"], "namespace");
    let agree = match involved {
        "" => own.is_empty() || own == "default",
        involved => involved == own,
    };
    let mut errors = Vec::new();
    if !agree {
        let words = "does not match event.namespace";
        errors.push(FieldError::invalid(
            "involvedObject.namespace",
            involved,
            words,
        ));
    }
    if event["eventTime"].is_null() {
        return errors;
    }
    let controller = text(event, "reportingComponent");
    if controller.is_empty() {
        errors.push(FieldError::required(controller_field, ""));
    }
    errors.extend(
        invalid(controller_field, controller, qualified(controller))
            .into_iter()
            .filter(|_| !controller.is_empty()),
    );
    let instance = text(event, "reportingInstance");
    if instance.is_empty() {
        errors.push(FieldError::required("reportingInstance", ""));
    } else if instance.len() > LONGEST_INSTANCE {
        let words = format!("can have at most {LONGEST_INSTANCE} characters");
        errors.push(FieldError::invalid("reportingInstance", "", words));
    }
    for key in ["action", "reason"] {
        if text(event, key).is_empty() {
            errors.push(FieldError::required(key, ""));
        }
    }
    errors
}

/// The component and the host or instance that reported.
fn source_parts(event: &Value) -> (&str, &str) {
    let source = &event["source"];
    match text(source, "component") {
        "" => (
            text(event, "reportingComponent"),
            text(event, "reportingInstance"),
        ),
        component => (component, text(source, "host")),
    }
}

fn row(event: &Value, now: Timestamp) -> Vec<Value> {
    let first = match since(&event["firstTimestamp"], now) {
        shown if shown == UNKNOWN => since(&event["eventTime"], now),
        shown => shown,
    };
    let series = &event["series"];
    let last = if !series.is_null() {
        since(&series["lastObservedTime"], now)
    } else {
        match since(&event["lastTimestamp"], now) {
            shown if shown == UNKNOWN => first.clone(),
            shown => shown,
        }
    };
    let count = integer(series, "count")
        .or_else(|| integer(event, "count").filter(|count| *count > 0))
        .unwrap_or(1);
    let involved = &event["involvedObject"];
    let kind = text(involved, "kind").to_lowercase();
    let target = match text(involved, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = match source_parts(event) {
        (component, "") => component.to_string(),
        (component, host) => format!("{component}, {host}"),
    };
    vec![
        last.into(),
        text(event, "type").into(),
        text(event, "reason").into(),
        target.into(),
        text(involved, "fieldPath").into(),
        source.into(),
        text(event, "message").trim().into(),
        first.into(),
        count.into(),
        text(&event["metadata"], "name").into(),
    ]
}
