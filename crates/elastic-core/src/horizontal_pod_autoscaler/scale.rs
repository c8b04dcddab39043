//! What an autoscaler reads of its target's `/scale`, in whichever version of Scale it comes.

use serde_json::Value;

use crate::label_query::LabelQuery;

/// The part of a scale that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleView {
    /// `spec.replicas`.
    pub spec_replicas: i32,
    /// `status.replicas`.
    pub status_replicas: i32,
    /// `status.selector`; empty when there is none.
    pub selector: String,
    /// The same, parsed; nothing when it is empty.
    pub query: Option<LabelQuery>,
}

impl ScaleView {
    /// Reads a scale.
    ///
    /// # Errors
    /// Upstream's sentence about a selector that does not parse.
    pub fn read(scale: &Value) -> Result<Self, String> {
        let count = |part: &str| {
            let replicas = scale[part]["replicas"].as_i64().unwrap_or(0);
            i32::try_from(replicas).unwrap_or(i32::MAX)
        };
        let selector = selector_of(&scale["status"]);
        let query = match selector.as_str() {
            "" => None,
            text => Some(LabelQuery::parse(text).map_err(|error| {
                format!(
                    "received an object from a /scale endpoint which was not convertible to autoscaling Scale: \
                     failed to parse target selector: couldn't parse the selector string \"{text}\": {error}"
                )
            })?),
        };
        Ok(ScaleView {
            spec_replicas: count("spec"),
            status_replicas: count("status"),
            selector,
            query,
        })
    }
}

/// The text form; a plain map is what the oldest version of Scale has.
fn selector_of(status: &Value) -> String {
    match (&status["selector"], status["targetSelector"].as_str()) {
        (Value::String(text), _) => text.clone(),
        (_, Some(text)) => text.to_owned(),
        (Value::Object(labels), None) => labels
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(","),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_version_of_a_selector_is_read() {
        for status in [
            json!({"replicas": 2, "selector": "a=b"}),
            json!({"replicas": 2, "targetSelector": "a=b"}),
            json!({"replicas": 2, "selector": {"a": "b"}}),
        ] {
            let scale = ScaleView::read(&json!({"spec": {"replicas": 3}, "status": status}));
            let scale = scale.unwrap();
            assert_eq!((scale.spec_replicas, scale.status_replicas), (3, 2));
            assert_eq!(scale.query.unwrap().to_string(), "a=b");
        }
        let empty = ScaleView::read(&json!({"spec": {}})).unwrap();
        assert_eq!((empty.spec_replicas, empty.query), (0, None));
    }
}
