//! What a source carries about its ElasticWorkload, so that it gets its replicas back whenever that is gone.
//!
//! A mark instead of a finalizer: it holds nothing up. An ElasticWorkload can be deleted while no controller runs, and the
//! next one that does finds the mark and gives back what is due.

use kube::ResourceExt;
use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::names::{SOURCE_ANNOTATION, SOURCE_LABEL, TRUE};

/// The mark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceMark {
    /// Name of the ElasticWorkload, in the source's namespace.
    pub name: String,
    /// Its UID; another one of the same name is not the same.
    pub uid: String,
    /// Replicas of source and units together, which the source gets back.
    pub replicas: u32,
    /// What was last asked of the source; anything else was set by somebody else.
    pub asked: u32,
}

impl SourceMark {
    /// The mark of a source, if it has a readable one.
    pub fn of(source: &DynamicObject) -> Option<Self> {
        serde_json::from_str(source.annotations().get(SOURCE_ANNOTATION)?).ok()
    }

    /// Metadata of a merge patch that puts the mark on.
    pub fn metadata(&self) -> Value {
        let text = serde_json::to_string(self).unwrap_or_default();
        json!({"labels": {SOURCE_LABEL: TRUE}, "annotations": {SOURCE_ANNOTATION: text}})
    }

    /// Metadata of a merge patch that takes the mark off.
    pub fn nothing() -> Value {
        json!({"labels": {SOURCE_LABEL: null}, "annotations": {SOURCE_ANNOTATION: null}})
    }

    /// The source's replicas once the ElasticWorkload is gone; `orphans` are replicas of units that were left behind on
    /// purpose. Somebody who has set the number by hand since knows better.
    pub fn given_back(&self, wanted: u32, orphans: u32) -> u32 {
        if wanted == self.asked {
            self.replicas.saturating_sub(orphans).max(wanted)
        } else {
            wanted
        }
    }
}

/// Who set the source's replicas last, besides `ours`, as far as the API keeps it.
pub fn last_scaler(source: &DynamicObject, field: &str, ours: &str) -> Option<String> {
    let entries = source.metadata.managed_fields.iter().flatten();
    let path = format!("f:{field}");
    let scalers = entries.filter(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        fields.is_some_and(|fields| fields["f:spec"].get(&path).is_some())
    });
    let newest = scalers.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?;
    newest.manager.clone().filter(|manager| manager != ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> SourceMark {
        SourceMark {
            name: "web".into(),
            uid: "u-1".into(),
            replicas: 10,
            asked: 4,
        }
    }

    fn source(metadata: Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    #[test]
    fn a_mark_is_read_as_it_was_put_on() {
        assert_eq!(SourceMark::of(&source(mark().metadata())), Some(mark()));
        assert_eq!(SourceMark::of(&source(json!({}))), None);
        assert_eq!(
            SourceMark::of(&source(
                json!({"annotations": {SOURCE_ANNOTATION: "not ours"}})
            )),
            None
        );
    }

    #[test]
    fn the_source_gets_back_what_the_units_had_and_never_less_than_it_has() {
        assert_eq!(mark().given_back(4, 0), 10);
        assert_eq!(mark().given_back(4, 6), 4);
        assert_eq!(mark().given_back(4, 9), 4);
        // Scaled by hand after the ElasticWorkload was gone.
        assert_eq!(mark().given_back(7, 0), 7);
    }

    #[test]
    fn the_one_who_scaled_is_named_when_the_api_knows() {
        let entry = |manager: &str, time: &str, fields: Value| json!({"manager": manager, "operation": "Update", "apiVersion": "apps/v1", "time": time, "fieldsType": "FieldsV1", "fieldsV1": fields});
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        let by = |entries: Value| {
            last_scaler(
                &source(json!({"managedFields": entries})),
                "replicas",
                "ours",
            )
        };
        let earlier = entry("ours", "2026-01-01T00:00:00Z", replicas.clone());
        let later = entry("kubectl", "2026-01-01T00:00:09Z", replicas.clone());
        let other = entry(
            "helm",
            "2026-01-01T00:00:19Z",
            json!({"f:spec": {"f:template": {}}}),
        );
        assert_eq!(
            by(json!([earlier, later, other])),
            Some("kubectl".to_owned())
        );
        assert_eq!(by(json!([earlier, other])), None);
    }
}
