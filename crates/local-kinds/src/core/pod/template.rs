//! Pod templates: a pod's labels and spec inside a workload.

use local_schema::FieldError;
use serde_json::Value;

use super::{default_spec, spec};
use crate::check::labels::{annotations, labels};
use crate::tree::{child, list, object_mut};

/// Fills a template; `owner` is the spec that contains it.
pub fn default_template(owner: &mut Value) {
    let template = object_mut(owner, "template");
    object_mut(template, "metadata");
    default_spec(object_mut(template, "spec"));
}

/// Checks a template.
pub fn check_template(template: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = labels(&template["metadata"], "labels", path);
    errors.extend(annotations(&template["metadata"], path));
    let path = child(path, "spec");
    errors.extend(spec::check(&template["spec"], &path));
    if !list(&template["spec"], "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(
            child(&path, "ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
    errors
}
