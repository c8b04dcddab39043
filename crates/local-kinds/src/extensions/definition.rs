//! CustomResourceDefinitions themselves. What a schema may say is `local_schema::structural`'s to know.

use local_schema::FieldError;
use local_schema::structural::{default_crd, validate_crd, validate_crd_update};
use serde_json::{Value, json};

use crate::rules::KindRules;

/// The rules of CustomResourceDefinitions.
pub struct DefinitionRules;

fn storage_version(definition: &Value) -> Option<&Value> {
    let versions = definition["spec"]["versions"].as_array()?;
    versions
        .iter()
        .find(|one| one["storage"] == true)
        .map(|one| &one["name"])
}

impl KindRules for DefinitionRules {
    fn default(&self, _version: &str, definition: &mut Value) {
        default_crd(definition);
    }

    fn prepare_for_create(&self, definition: &mut Value) {
        let stored: Vec<Value> = storage_version(definition).cloned().into_iter().collect();
        definition["status"] = json!({
            "conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored,
        });
    }

    fn prepare_for_update(&self, new: &mut Value, _old: &Value) {
        let Some(storage) = storage_version(new).cloned() else {
            return;
        };
        if let Some(stored) = new["status"]["storedVersions"].as_array_mut()
            && !stored.contains(&storage)
        {
            stored.push(storage);
        }
    }

    fn validate_create(&self, definition: &Value) -> Vec<FieldError> {
        validate_crd(definition)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        validate_crd_update(new, old)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }
}
