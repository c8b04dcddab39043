//! Errors that name a field, worded as upstream's `k8s.io/apimachinery/pkg/util/validation/field` words them,
//! because people and tools read these sentences.

use serde_json::Value;

/// What is wrong with a field; decides the `reason` of the cause in a 422 answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldErrorKind {
    /// A mandatory field is absent: `FieldValueRequired`.
    Required,
    /// The value is malformed or out of range: `FieldValueInvalid`.
    Invalid,
    /// The value is not one of an enumeration: `FieldValueNotSupported`.
    NotSupported,
    /// The value has to be unique and is not: `FieldValueDuplicate`.
    Duplicate,
    /// The field may not be set here: `FieldValueForbidden`.
    Forbidden,
    /// The value has the wrong JSON type: `FieldValueTypeInvalid`.
    TypeInvalid,
    /// Too many items: `FieldValueTooMany`.
    TooMany,
    /// Too many bytes or characters: `FieldValueTooLong`.
    TooLong,
    /// A referenced thing does not exist: `FieldValueNotFound`.
    NotFound,
    /// Something went wrong while looking: `InternalError`.
    Internal,
}

impl FieldErrorKind {
    /// The `reason` of a `StatusCause`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::TooMany => "FieldValueTooMany",
            Self::TooLong => "FieldValueTooLong",
            Self::NotFound => "FieldValueNotFound",
            Self::Internal => "InternalError",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooMany => "Too many",
            Self::TooLong => "Too long",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(
            self,
            Self::Required | Self::Forbidden | Self::TooLong | Self::TooMany | Self::Internal
        )
    }
}

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// The path as upstream writes it: `spec.containers[0].image`, `metadata.labels`.
    pub path: String,
    /// The offending value as Go's `%#v`-like rendering of [`FieldError::message`] shows it.
    pub value: Value,
    /// The explanation after the value.
    pub detail: String,
    /// The value as text, where the order of its keys matters; else [`FieldError::value`] is rendered.
    pub shown: Option<String>,
}

impl FieldError {
    /// Any kind, from its parts.
    pub fn new(
        kind: FieldErrorKind,
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            path: path.into(),
            value: value.into(),
            detail: detail.into(),
            shown: None,
        }
    }

    /// Shows the value as exactly this text: upstream prints structs as JSON in the order of their fields.
    pub fn showing(mut self, text: impl Into<String>) -> Self {
        self.shown = Some(text.into());
        self
    }

    /// A mandatory field is absent.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, Value::Null, detail)
    }

    /// A value is malformed or out of range.
    pub fn invalid(
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(FieldErrorKind::Invalid, path, value, detail)
    }

    /// A value is none of `supported` (named in the given order).
    pub fn not_supported(
        path: impl Into<String>,
        value: impl Into<Value>,
        supported: &[&str],
    ) -> Self {
        let list: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let detail = if list.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", list.join(", "))
        };
        Self::new(FieldErrorKind::NotSupported, path, value, detail)
    }

    /// A value stands twice.
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, value, "")
    }

    /// A field may not be set.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, Value::Null, detail)
    }

    /// The sentence without the path: the `message` of a `StatusCause`.
    pub fn message(&self) -> String {
        let mut text = self.kind.title().to_string();
        if self.kind.shows_value() {
            text.push_str(": ");
            match &self.shown {
                Some(shown) => text.push_str(shown),
                None => text.push_str(&render(&self.value)),
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message())
    }
}

/// Upstream quotes strings, prints numbers and booleans bare, `null` for nil, and trees as JSON.
fn render(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_value_is_quoted_before_its_explanation() {
        let error = FieldError::invalid("metadata.name", "A b", "must be lower case");
        assert_eq!(
            error.to_string(),
            "metadata.name: Invalid value: \"A b\": must be lower case"
        );
    }

    #[test]
    fn an_unsupported_value_lists_what_is_supported() {
        let error = FieldError::not_supported("spec.type", "x", &["A", "B"]);
        assert_eq!(
            error.message(),
            "Unsupported value: \"x\": supported values: \"A\", \"B\""
        );
    }

    #[test]
    fn a_required_value_shows_no_value() {
        assert_eq!(
            FieldError::required("spec.x", "").to_string(),
            "spec.x: Required value"
        );
    }
}
