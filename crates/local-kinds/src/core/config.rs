//! ConfigMaps and Secrets: maps of keys to data.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use local_schema::{FieldError, FieldErrorKind};
use serde_json::{Map, Value};

use crate::check::metadata::{annotation, immutable};
use crate::check::names::{config_key, invalid};
use crate::print::{NAME, age, column, name, typed};
use crate::rules::{Column, KindRules};
use crate::tree::{entries, fill_zero, index, object_mut, remove, restore, same, text, truth};

/// The rules of ConfigMaps.
pub struct ConfigMapRules;

/// The rules of Secrets.
pub struct SecretRules;

/// All values together may take this much.
const LIMIT_BYTES: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";
const REDACTED: &str = "<secret contents redacted>";
const ACCOUNT_ANNOTATION: &str = "kubernetes.io/service-account.name";

impl KindRules for ConfigMapRules {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (key, _) in entries(object, "data") {
            let path = index("data", key);
            errors.extend(invalid(&path, key, config_key(key)));
            if object["binaryData"].get(key).is_some() {
                let words = "duplicate of key present in binaryData";
                errors.push(FieldError::invalid(path, key.as_str(), words));
            }
        }
        for (key, _) in entries(object, "binaryData") {
            errors.extend(invalid(&index("binaryData", key), key, config_key(key)));
        }
        errors.extend(too_large(object, &["data", "binaryData"], ""));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = frozen(new, old, &["data", "binaryData"]);
        errors.extend(self.validate_create(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, column("Data"), column("Age")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let keys = entries(object, "data").count() + entries(object, "binaryData").count();
        vec![name(object), keys.into(), age(object, now)]
    }
}

fn frozen(new: &Value, old: &Value, keys: &[&str]) -> Vec<FieldError> {
    if !truth(old, "immutable") {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if !truth(new, "immutable") {
        errors.push(FieldError::forbidden("immutable", FROZEN));
    }
    for key in keys {
        if !same(&new[*key], &old[*key]) {
            errors.push(FieldError::forbidden(*key, FROZEN));
        }
    }
    errors
}

fn too_large(object: &Value, keys: &[&str], path: &str) -> Option<FieldError> {
    let total: usize = keys
        .iter()
        .flat_map(|key| entries(object, key))
        .map(|(_, value)| value.as_str().map_or(0, str::len))
        .sum();
    (total > LIMIT_BYTES).then(|| {
        let words = format!("may not be more than {LIMIT_BYTES} bytes");
        FieldError::new(FieldErrorKind::TooLong, path, Value::Null, words)
    })
}

impl KindRules for SecretRules {
    fn default(&self, _version: &str, object: &mut Value) {
        encode_plain_texts(object);
        fill_zero(object, "type", "Opaque");
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        // A patch cannot leave the type out, a client can.
        if text(new, "type").is_empty() {
            restore(new, old, "type");
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = entries(object, "data")
            .flat_map(|(key, _)| invalid(&index("data", key), key, config_key(key)))
            .collect();
        errors.extend(too_large(object, &["data"], "data"));
        errors.extend(of_type(object));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = immutable(&new["type"], &old["type"], "type");
        errors.extend(frozen(new, old, &["data"]));
        // The keys that a type asks for are checked against the type that cannot change.
        if errors.is_empty() {
            errors.extend(self.validate_create(new));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, column("Type"), typed("Data", "string"), column("Age")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            name(object),
            text(object, "type").into(),
            entries(object, "data").count().into(),
            age(object, now),
        ]
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn selectable_field(&self, object: &Value, _field: &str) -> String {
        text(object, "type").to_string()
    }
}

/// `stringData` is write-only: its texts overwrite `data`.
fn encode_plain_texts(object: &mut Value) {
    let plain: Map<String, Value> = match object["stringData"].as_object() {
        Some(plain) => plain.clone(),
        None => return,
    };
    let data = object_mut(object, "data");
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        data[key.as_str()] = STANDARD.encode(text).into();
    }
    remove(object, "stringData");
}

fn of_type(secret: &Value) -> Vec<FieldError> {
    let missing = |key: &str| secret["data"].get(key).is_none();
    let required = |key: &str| FieldError::required(index("data", key), "");
    match text(secret, "type") {
        "kubernetes.io/service-account-token" => {
            if annotation(secret, ACCOUNT_ANNOTATION).is_empty() {
                let path = index("metadata.annotations", ACCOUNT_ANNOTATION);
                return vec![FieldError::required(path, "")];
            }
            Vec::new()
        }
        "kubernetes.io/dockercfg" => json_key(secret, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_key(secret, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if missing("username") && missing("password") => {
            vec![required("username"), required("password")]
        }
        "kubernetes.io/ssh-auth" => all_of(secret, &["ssh-privatekey"]),
        "kubernetes.io/tls" => all_of(secret, &["tls.crt", "tls.key"]),
        _ => Vec::new(),
    }
}

fn all_of(secret: &Value, keys: &[&str]) -> Vec<FieldError> {
    keys.iter()
        .filter(|key| secret["data"].get(**key).is_none())
        .map(|key| FieldError::required(index("data", key), ""))
        .collect()
}

fn json_key(secret: &Value, key: &str) -> Vec<FieldError> {
    let path = index("data", key);
    let Some(encoded) = secret["data"][key].as_str() else {
        return vec![FieldError::required(path, "")];
    };
    let decoded = STANDARD.decode(encoded).unwrap_or_default();
    match local_schema::decode::parse(&decoded) {
        Ok(_) => Vec::new(),
        Err(error) => vec![FieldError::invalid(path, REDACTED, error.to_string())],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_texts_win_over_data_and_are_never_shown() {
        let mut secret = json!({"data": {"a": "b2xk", "b": "Yg=="}, "stringData": {"a": "new"}});
        SecretRules.default("v1", &mut secret);
        assert_eq!(
            secret,
            json!({"data": {"a": "bmV3", "b": "Yg=="}, "type": "Opaque"})
        );
    }
}
