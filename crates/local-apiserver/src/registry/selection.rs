//! Which objects a list, watch or deletecollection is about.

use super::context::Call;
use super::resource::Served;
use super::selectors::{FieldSelector, LabelSelector};
use crate::status::{ApiError, ApiResult};
use serde_json::Value;

/// The selectors of a request, checked against what the kind can select by.
#[derive(Clone)]
pub struct Selection {
    served: Served,
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selection {
    /// From the query and, for a path that names an object, its name.
    pub fn parse(call: &Call) -> ApiResult<Self> {
        let labels = LabelSelector::parse(call.query.text("labelSelector"))
            .map_err(ApiError::bad_request)?;
        let fields = FieldSelector::parse(call.query.text("fieldSelector"))
            .map_err(ApiError::bad_request)?;
        for term in &fields.terms {
            supported(&call.served, &term.field)?;
        }
        Ok(Self {
            served: call.served.clone(),
            labels,
            fields,
        })
    }

    /// True when everything is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether a stored object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object["metadata"]["labels"].as_object();
        (self.labels.is_empty() || self.labels.matches(labels))
            && (self.fields.is_empty() || self.fields.matches(|field| self.value(object, field)))
    }

    fn value(&self, object: &Value, field: &str) -> String {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        match field {
            "metadata.name" => text(&object["metadata"]["name"]),
            "metadata.namespace" => text(&object["metadata"]["namespace"]),
            other => match self.served.custom() {
                Some(custom) => custom.selectable_value(object, other),
                None => self.served.rules.selectable_field(object, other),
            },
        }
    }
}

fn supported(served: &Served, field: &str) -> ApiResult<()> {
    if matches!(field, "metadata.name" | "metadata.namespace") {
        return Ok(());
    }
    let known = match served.custom() {
        Some(custom) => custom.selectable_fields.iter().any(|one| one == field),
        None => served.rules.selectable_fields().contains(&field),
    };
    if known {
        return Ok(());
    }
    let message = if served.is_custom() {
        format!("field label not supported: {field}")
    } else if served.kind.as_ref() == "Job" {
        format!("field label {field:?} not supported for Job")
    } else if served.rules.selectable_fields().is_empty() && !served.group.is_empty()
        || matches!(
            served.kind.as_ref(),
            "ConfigMap"
                | "PersistentVolumeClaim"
                | "PersistentVolume"
                | "Endpoints"
                | "LimitRange"
                | "ResourceQuota"
                | "ServiceAccount"
                | "PodTemplate"
        )
    {
        format!(
            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        )
    } else {
        format!("field label not supported: {field}")
    };
    Err(ApiError::bad_request(message))
}
