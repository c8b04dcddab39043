//! Names, label keys and values, annotation limits: what upstream's `apimachinery/validation` accepts, in its words.

use local_kinds::NameRule;
use local_schema::FieldError;
use serde_json::{Map, Value};

const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const QUALIFIED: &str = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
/// All annotations of an object together.
const ANNOTATION_BYTES: usize = 256 << 10;

fn label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge =
        |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn qualified_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// RFC 1123 subdomain.
pub fn subdomain_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push("must be no more than 253 bytes".to_string());
    }
    if !text.split('.').all(label_text) {
        errors.push(SUBDOMAIN.to_string());
    }
    errors
}

/// RFC 1123 label.
pub fn label_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push("must be no more than 63 bytes".to_string());
    }
    if !label_text(text) {
        if text.split('.').all(label_text) {
            errors.push("must not contain dots".to_string());
        } else {
            errors.push(LABEL.to_string());
        }
    }
    errors
}

fn label_1035_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push("must be no more than 63 bytes".to_string());
    }
    if !label_text(text) || text.as_bytes()[0].is_ascii_digit() {
        errors.push(LABEL_1035.to_string());
    }
    errors
}

fn path_segment_errors(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|bad| text.contains(**bad))
        .map(|bad| format!("may not contain '{bad}'"))
        .collect()
}

/// What is wrong with a name under a rule.
pub fn name_errors(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    // A prefix may end in a dash because characters follow it.
    let masked;
    let mut text = name;
    if prefix && name.ends_with('-') && name.len() > 1 {
        masked = format!("{}a", &name[..name.len() - 1]);
        text = &masked;
    }
    match rule {
        NameRule::Subdomain => subdomain_errors(text),
        NameRule::Label => label_errors(text),
        NameRule::Rfc1035Label => label_1035_errors(text),
        NameRule::PathSegment => path_segment_errors(name),
        #[allow(unreachable_patterns)]
        _ => Vec::new(),
    }
}

/// What is wrong with a label or annotation key.
pub fn qualified_name_errors(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_string());
            } else {
                errors.extend(
                    subdomain_errors(prefix)
                        .into_iter()
                        .map(|error| format!("prefix part {error}")),
                );
            }
            name
        }
        _ => return vec![QUALIFIED.to_string()],
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_string());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_string());
    }
    if !qualified_text(name) {
        errors.push(NAME_PART.to_string());
    }
    errors
}

/// What is wrong with a label value.
pub fn label_value_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push("must be no more than 63 bytes".to_string());
    }
    if !value.is_empty() && !qualified_text(value) {
        errors.push(LABEL_VALUE.to_string());
    }
    errors
}

/// `metadata.labels` or a selector's labels at `path`.
pub fn labels(labels: &Map<String, Value>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels {
        for error in qualified_name_errors(key) {
            errors.push(FieldError::invalid(path, key.as_str(), error));
        }
        let text = value.as_str().unwrap_or_default();
        for error in label_value_errors(text) {
            errors.push(FieldError::invalid(path, text, error));
        }
    }
    errors
}

/// `metadata.annotations` at `path`.
pub fn annotations(annotations: &Map<String, Value>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    for (key, value) in annotations {
        // Annotation keys are checked in lower case, as upstream does.
        for error in qualified_name_errors(&key.to_lowercase()) {
            errors.push(FieldError::invalid(path, key.as_str(), error));
        }
        bytes += key.len() + value.as_str().unwrap_or_default().len();
    }
    if bytes > ANNOTATION_BYTES {
        let detail = format!("may not be more than {ANNOTATION_BYTES} bytes");
        errors.push(FieldError::new(
            local_schema::FieldErrorKind::TooLong,
            path,
            Value::Null,
            detail,
        ));
    }
    errors
}
