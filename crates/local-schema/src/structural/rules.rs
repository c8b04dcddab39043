//! Validation rules (`x-kubernetes-validations`) of a schema, evaluated over an object.

use serde_json::Value;

use super::schema::{Kind, ListType, Schema};
use crate::cel::{CelValue, Program, Variables};
use crate::field_error::{FieldError, FieldErrorKind};

/// One compiled rule.
#[derive(Debug)]
pub(super) struct Rule {
    text: String,
    program: Result<Program, String>,
    message: Option<String>,
    message_expression: Option<Program>,
    kind: FieldErrorKind,
    field_path: String,
    optional_old: bool,
}

/// Compiles the rules of one schema node.
pub(super) fn compile(rules: &Value) -> Vec<Rule> {
    let text = |value: &Value| {
        value
            .as_str()
            .filter(|text| !text.trim().is_empty())
            .map(str::to_string)
    };
    let rule = |rule: &Value| Rule {
        text: rule["rule"].as_str().unwrap_or_default().trim().to_string(),
        program: Program::parse(rule["rule"].as_str().unwrap_or_default()),
        message: text(&rule["message"]),
        message_expression: rule["messageExpression"]
            .as_str()
            .and_then(|text| Program::parse(text).ok()),
        kind: match rule["reason"].as_str() {
            Some("FieldValueRequired") => FieldErrorKind::Required,
            Some("FieldValueForbidden") => FieldErrorKind::Forbidden,
            Some("FieldValueDuplicate") => FieldErrorKind::Duplicate,
            _ => FieldErrorKind::Invalid,
        },
        field_path: rule["fieldPath"].as_str().unwrap_or_default().to_string(),
        optional_old: rule["optionalOldSelf"] == true,
    };
    rules.as_array().into_iter().flatten().map(rule).collect()
}

/// Evaluates every rule below a value. Values that did not change are tolerated.
pub(super) fn validate(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if !schema.has_rules || old == Some(value) || value.is_null() {
        return;
    }
    for rule in &schema.rules {
        errors.extend(rule.check(schema, value, old, path));
    }
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                let inner_path = match (schema.properties.contains_key(name), path) {
                    (true, "") => name.clone(),
                    (true, _) => format!("{path}.{name}"),
                    (false, _) => format!("{path}[{name}]"),
                };
                if let Some(field) = schema.field(name) {
                    validate(
                        field,
                        inner,
                        old.and_then(|old| old.get(name)),
                        &inner_path,
                        errors,
                    );
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, inner) in list.iter().enumerate() {
                    let before = match &schema.list_type {
                        ListType::Map(keys) => old.and_then(Value::as_array).and_then(|old| {
                            old.iter()
                                .find(|one| keys.iter().all(|key| one.get(key) == inner.get(key)))
                        }),
                        _ => None,
                    };
                    validate(items, inner, before, &format!("{path}[{index}]"), errors);
                }
            }
        }
        _ => {}
    }
}

impl Rule {
    fn check(
        &self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
    ) -> Option<FieldError> {
        let variables = Variables {
            this: value,
            old,
            optional_old: self.optional_old,
            named: None,
        };
        let detail = match &self.program {
            Err(reason) => format!("rule compile error: {reason}"),
            Ok(program) if program.uses_old_self() && old.is_none() && !self.optional_old => {
                return None;
            }
            Ok(program) => match program.run(variables) {
                Ok(CelValue::Bool(true)) => return None,
                Ok(CelValue::Bool(false)) => self.explain(variables),
                Ok(_) => "cel expression must evaluate to a bool".to_string(),
                Err(reason) => {
                    let shown = self.message.as_ref().unwrap_or(&self.text);
                    return Some(self.error(
                        path,
                        type_name(schema),
                        format!("{reason} evaluating rule: {shown}"),
                    ));
                }
            },
        };
        Some(self.error(
            &format!("{path}{}", self.field_path),
            type_name(schema),
            detail,
        ))
    }

    fn error(&self, path: &str, shown: &str, detail: String) -> FieldError {
        FieldError::new(self.kind, path, shown, detail)
    }

    fn explain(&self, variables: Variables<'_>) -> String {
        let computed = self
            .message_expression
            .as_ref()
            .and_then(|program| program.run(variables).ok());
        if let Some(CelValue::Text(text)) = computed
            && !text.trim().is_empty()
            && !text.contains(['\n', '\r'])
        {
            return text;
        }
        match &self.message {
            Some(message) => message.clone(),
            None => format!("failed rule: {}", self.text),
        }
    }
}

fn type_name(schema: &Schema) -> &'static str {
    match schema.kind {
        Kind::Any => "",
        Kind::Object => "object",
        Kind::Array => "array",
        Kind::Text => "string",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
    }
}
