//! Go's zero values: which empty fields an object shows and which it leaves out.

use serde_json::{Map, Value};

use crate::types::{Field, Scalar, Shape, Struct, Type, TypeRef};

/// Brings an object into the form in which Go would print it: empty optional fields go, fields that are always written come.
/// Needed after defaulting or merging changed a tree that was decoded before.
pub fn normalize(kind: &TypeRef, object: &mut Value) {
    normalize_at(kind.walk(), object);
}

fn normalize_at(kind: Type<'_>, value: &mut Value) {
    match (&kind.node().shape, value) {
        (Shape::Struct(fields), Value::Object(object)) => {
            for (key, value) in object.iter_mut() {
                if let Some(field) = fields.field(key) {
                    normalize_at(kind.at(field.node), value);
                }
            }
            finish_struct(kind, fields, object);
        }
        (Shape::List { item, .. }, Value::Array(list)) => {
            for value in list {
                normalize_at(kind.at(*item), value);
            }
        }
        (Shape::Map { value: inner }, Value::Object(object)) => {
            for value in object.values_mut() {
                normalize_at(kind.at(*inner), value);
            }
        }
        _ => {}
    }
}

/// Drops what `omitempty` drops and adds what is always written.
pub(super) fn finish_struct(kind: Type<'_>, fields: &Struct, object: &mut Map<String, Value>) {
    if fields.name.is_empty() {
        return;
    }
    object.retain(|key, value| match fields.field(key) {
        Some(field) => field.written || !is_empty(kind, field, value),
        None => true,
    });
    for field in fields.fields.iter().filter(|field| field.written) {
        if !object.contains_key(&*field.name) {
            object.insert(field.name.to_string(), zero(kind.at(field.node)));
        }
    }
}

fn is_empty(kind: Type<'_>, field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag && !field.pointer,
        Value::String(text) => text.is_empty() && !field.pointer,
        Value::Number(number) => {
            !field.pointer
                && number.as_f64() == Some(0.0)
                && matches!(
                    kind.at(field.node).node().shape,
                    Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Float)
                )
        }
        // An explicit empty list means something in one place only: it forgets the managed fields.
        Value::Array(list) => list.is_empty() && !field.pointer,
        Value::Object(object) => {
            object.is_empty() && matches!(kind.at(field.node).node().shape, Shape::Map { .. })
        }
    }
}

/// What Go prints for a value that was never set.
pub(super) fn zero(kind: Type<'_>) -> Value {
    match &kind.node().shape {
        Shape::Scalar(scalar) => match scalar {
            Scalar::String => Value::String(String::new()),
            Scalar::Boolean => Value::Bool(false),
            Scalar::Int32 | Scalar::Int64 | Scalar::Float | Scalar::IntOrString => 0.into(),
            Scalar::Quantity => "0".into(),
            Scalar::Duration => "0s".into(),
            Scalar::Bytes | Scalar::Time | Scalar::MicroTime => Value::Null,
        },
        Shape::Struct(fields) => {
            let mut object = Map::new();
            finish_struct(kind, fields, &mut object);
            Value::Object(object)
        }
        Shape::Any | Shape::List { .. } | Shape::Map { .. } => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::type_of;
    use serde_json::json;

    #[test]
    fn normalizing_drops_empties_and_adds_what_is_always_written() {
        let mut object = json!({"metadata": {"name": "r", "labels": {}}, "rules": null});
        normalize(
            &type_of("rbac.authorization.k8s.io", "v1", "Role").unwrap(),
            &mut object,
        );
        assert_eq!(object, json!({"metadata": {"name": "r"}, "rules": null}));
        let mut lease = json!({"spec": {"holderIdentity": "", "leaseTransitions": 0}});
        normalize(
            &type_of("coordination.k8s.io", "v1", "Lease").unwrap(),
            &mut lease,
        );
        assert_eq!(
            lease,
            json!({"metadata": {}, "spec": {"holderIdentity": "", "leaseTransitions": 0}})
        );
    }
}
