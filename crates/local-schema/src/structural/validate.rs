//! Objects against the keywords of a schema, worded as upstream's validator words it.

use serde_json::{Map, Value};

use super::format;
use super::schema::{Kind, Limits, ListType, Schema};
use crate::field_error::{FieldError, FieldErrorKind};

/// Collects what is wrong below a value. A value equal to its old self is tolerated.
pub(super) fn validate(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    is_root: bool,
    errors: &mut Vec<FieldError>,
) {
    if old == Some(value) || (value.is_null() && schema.nullable) {
        return;
    }
    if !check_type(schema, value, path, errors) {
        return;
    }
    combinations(schema, value, path, errors);
    match value {
        Value::String(text) => strings(schema, text, path, errors),
        Value::Number(number) => numbers(
            &schema.limits,
            value,
            number.as_f64().unwrap_or_default(),
            path,
            errors,
        ),
        Value::Array(list) => arrays(schema, list, old, path, errors),
        _ => {}
    }
    choices(schema, value, path, errors);
    if let Value::Object(object) = value {
        objects(schema, object, old, path, is_root, errors);
    }
}

fn choices(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if schema.choices.is_empty() || schema.choices.iter().any(|choice| equal(choice, value)) {
        return;
    }
    let supported: Vec<String> = schema.choices.iter().map(ToString::to_string).collect();
    errors.push(FieldError::new(
        FieldErrorKind::NotSupported,
        path,
        value.clone(),
        format!("supported values: {}", supported.join(", ")),
    ));
}

fn objects(
    schema: &Schema,
    object: &Map<String, Value>,
    old: Option<&Value>,
    path: &str,
    is_root: bool,
    errors: &mut Vec<FieldError>,
) {
    const RESOURCE_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];
    let inner_path = |name: &str| {
        if path.is_empty() {
            name.to_string()
        } else {
            format!("{path}.{name}")
        }
    };
    counts(&schema.limits, object.len(), path, errors);
    let embedded = if schema.is_embedded {
        &RESOURCE_FIELDS[..2]
    } else {
        &[]
    };
    let required = schema
        .required
        .iter()
        .map(String::as_str)
        .chain(embedded.iter().copied());
    for name in required.filter(|name| !object.contains_key(*name)) {
        errors.push(FieldError::required(inner_path(name), ""));
    }
    for (name, inner) in object {
        if (is_root || schema.is_embedded) && RESOURCE_FIELDS.contains(&name.as_str()) {
            continue;
        }
        if let Some(field) = schema.field(name) {
            let before = old.and_then(|old| old.get(name));
            validate(field, inner, before, &inner_path(name), false, errors);
        }
    }
}

/// Numbers compare by value: 2 is 2.0.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

fn check_type(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) -> bool {
    let is_whole = value.is_i64()
        || value.is_u64()
        || value.as_f64().is_some_and(|float| float.fract() == 0.0);
    let (fits, wanted) = if schema.is_int_or_string {
        (value.is_string() || is_whole, "integer,string")
    } else {
        match schema.kind {
            Kind::Any => (true, ""),
            Kind::Object => (value.is_object(), "object"),
            Kind::Array => (value.is_array(), "array"),
            Kind::Text => (value.is_string(), "string"),
            Kind::Integer => (is_whole, "integer"),
            Kind::Number => (value.is_number(), "number"),
            Kind::Boolean => (value.is_boolean(), "boolean"),
        }
    };
    if !fits {
        type_error(path, found(value, is_whole), wanted, errors);
    }
    fits
}

fn found(value: &Value, is_whole: bool) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_whole => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn type_error(path: &str, found: &str, wanted: &str, errors: &mut Vec<FieldError>) {
    errors.push(FieldError::new(
        FieldErrorKind::TypeInvalid,
        path,
        found,
        format!("{path} in body must be of type {wanted}: {found:?}"),
    ));
}

fn strings(schema: &Schema, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let length = text.chars().count() as u64;
    if let Some(most) = schema.limits.max_length.filter(|most| length > *most) {
        errors.push(FieldError::new(
            FieldErrorKind::TooLong,
            path,
            text,
            format!("may not be more than {most} bytes"),
        ));
    }
    if let Some(least) = schema.limits.min_length.filter(|least| length < *least) {
        errors.push(FieldError::invalid(
            path,
            text,
            format!("{path} in body should be at least {least} chars long"),
        ));
    }
    if let Some((pattern, regex)) = &schema.pattern
        && !regex.is_match(text)
    {
        errors.push(FieldError::invalid(
            path,
            text,
            format!("{path} in body should match '{pattern}'"),
        ));
    }
    if !format::fits(&schema.format, text) {
        type_error(path, text, &schema.format, errors);
    }
}

fn numbers(limits: &Limits, value: &Value, number: f64, path: &str, errors: &mut Vec<FieldError>) {
    let mut refuse = |detail: String| {
        errors.push(FieldError::invalid(
            path,
            value.clone(),
            format!("{path} in body should be {detail}"),
        ))
    };
    if let Some(factor) = limits.multiple_of {
        let quotient = number / factor;
        if (quotient - quotient.round()).abs() > 1e-9 {
            refuse(format!("a multiple of {factor}"));
        }
    }
    if let Some(most) = limits.maximum {
        if limits.exclusive_maximum && number >= most {
            refuse(format!("less than {most}"));
        } else if number > most {
            refuse(format!("less than or equal to {most}"));
        }
    }
    if let Some(least) = limits.minimum {
        if limits.exclusive_minimum && number <= least {
            refuse(format!("greater than {least}"));
        } else if number < least {
            refuse(format!("greater than or equal to {least}"));
        }
    }
}

fn too_many(path: &str, count: usize, most: u64, errors: &mut Vec<FieldError>) {
    errors.push(FieldError::new(
        FieldErrorKind::TooMany,
        path,
        count,
        format!("{count}: must have at most {most} items"),
    ));
}

fn arrays(
    schema: &Schema,
    list: &[Value],
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let count = list.len() as u64;
    if let Some(items) = &schema.items {
        for (index, inner) in list.iter().enumerate() {
            let before = old_item(schema, inner, old);
            validate(
                items,
                inner,
                before,
                &format!("{path}[{index}]"),
                false,
                errors,
            );
        }
    }
    if let Some(least) = schema.limits.min_items.filter(|least| count < *least) {
        errors.push(FieldError::invalid(
            path,
            list.len(),
            format!("{path} in body should have at least {least} items"),
        ));
    }
    if let Some(most) = schema.limits.max_items.filter(|most| count > *most) {
        too_many(path, list.len(), most, errors);
    }
}

/// The old self of an item, where items can be told apart.
fn old_item<'v>(schema: &Schema, item: &Value, old: Option<&'v Value>) -> Option<&'v Value> {
    let ListType::Map(keys) = &schema.list_type else {
        return None;
    };
    old?.as_array()?
        .iter()
        .find(|one| keys.iter().all(|key| one.get(key) == item.get(key)))
}

fn counts(limits: &Limits, count: usize, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(least) = limits
        .min_properties
        .filter(|least| (count as u64) < *least)
    {
        errors.push(FieldError::invalid(
            path,
            count,
            format!("{path} in body should have at least {least} properties"),
        ));
    }
    if let Some(most) = limits.max_properties.filter(|most| (count as u64) > *most) {
        too_many(path, count, most, errors);
    }
}

fn combinations(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let complaints = |inner: &Schema| {
        let mut found = Vec::new();
        validate(inner, value, None, path, false, &mut found);
        found
    };
    let mut refuse =
        |text: String| errors.push(FieldError::invalid("<nil>", "", format!("{path:?} {text}")));
    let mut more = Vec::new();
    if !schema.any_of.is_empty() {
        let results: Vec<Vec<FieldError>> = schema.any_of.iter().map(complaints).collect();
        if results.iter().all(|found| !found.is_empty()) {
            refuse("must validate at least one schema (anyOf)".to_string());
            more.extend(results.into_iter().next().unwrap_or_default());
        }
    }
    if !schema.one_of.is_empty() {
        let results: Vec<Vec<FieldError>> = schema.one_of.iter().map(complaints).collect();
        match results.iter().filter(|found| found.is_empty()).count() {
            1 => {}
            0 => {
                refuse(
                    "must validate one and only one schema (oneOf). Found none valid".to_string(),
                );
                more.extend(results.into_iter().next().unwrap_or_default());
            }
            count => refuse(format!(
                "must validate one and only one schema (oneOf). Found {count} valid alternatives"
            )),
        }
    }
    if !schema.all_of.is_empty() {
        let found: Vec<FieldError> = schema.all_of.iter().flat_map(complaints).collect();
        if !found.is_empty() {
            refuse("must validate all the schemas (allOf)".to_string());
            more.extend(found);
        }
    }
    if let Some(not) = &schema.not
        && complaints(not).is_empty()
    {
        refuse("must not validate the schema (not)".to_string());
    }
    errors.extend(more);
}
