//! Walks a deserializer along a type, so that keys are seen in the order in which they stand.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{scalar, zero};
use crate::types::{Scalar, Shape, Struct, Type};

/// Where the walk stands and what it has found.
#[derive(Default)]
pub(super) struct Context<'t> {
    path: Vec<Segment<'t>>,
    /// Short names of the structs around the current value.
    structs: Vec<&'t str>,
    pub(super) problems: Vec<String>,
    pub(super) error: Option<String>,
    /// Complain as upstream's converter from unstructured trees does.
    pub(super) unstructured: bool,
}

enum Segment<'t> {
    Field(&'t str),
    Key(String),
    Index(usize),
}

impl Context<'_> {
    fn path(&self, last: &str) -> String {
        let mut text = String::new();
        for segment in &self.path {
            match segment {
                Segment::Field(name) => push_name(&mut text, name),
                Segment::Key(name) => push_name(&mut text, name),
                Segment::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        push_name(&mut text, last);
        text
    }

    fn problem(&mut self, what: &str, name: &str) {
        let path = self.path(name);
        self.problems.push(format!("{what} field \"{path}\""));
    }

    fn fail(&mut self, message: String) {
        if self.error.is_none() {
            self.error = Some(message);
        }
    }

    /// Go's sentence about a value of the wrong type.
    fn mismatch(&mut self, found: &str, wanted: &str) {
        let fields: Vec<&str> = self
            .path
            .iter()
            .filter_map(|segment| match segment {
                Segment::Field(name) => Some(*name),
                _ => None,
            })
            .collect();
        let place = match self.structs.last() {
            Some(name) if !fields.is_empty() => {
                format!("struct field {name}.{} of type {wanted}", fields.join("."))
            }
            _ => format!("value of type {wanted}"),
        };
        self.fail(format!("json: cannot unmarshal {found} into Go {place}"));
    }
}

fn push_name(text: &mut String, name: &str) {
    if !text.is_empty() {
        text.push('.');
    }
    text.push_str(name);
}

/// One value of a known type; `None` for null and for what did not fit.
pub(super) struct Seed<'t, 'c> {
    kind: Type<'t>,
    context: &'c mut Context<'t>,
}

impl<'t, 'c> Seed<'t, 'c> {
    pub(super) fn new(kind: Type<'t>, context: &'c mut Context<'t>) -> Self {
        Self { kind, context }
    }

    fn wrong(self, found: &str) -> Option<Value> {
        if self.context.unstructured {
            let message = self.unstructured_complaint(found);
            self.context.fail(message);
            return None;
        }
        let wanted = match self.kind.node().shape {
            // These decode through another Go type, which the message names.
            Shape::Scalar(Scalar::Time | Scalar::MicroTime | Scalar::Duration) => "string".into(),
            Shape::Scalar(Scalar::IntOrString) => "int32".into(),
            _ => self.kind.go_name(),
        };
        self.context.mismatch(found, &wanted);
        None
    }

    fn unstructured_complaint(&self, found: &str) -> String {
        let found = match found.split(' ').next() {
            Some("object") => "map",
            Some("array") => "slice",
            Some("number") => "int64",
            _ => found,
        };
        match &self.kind.node().shape {
            Shape::List { .. } => format!("cannot restore slice from {found}"),
            Shape::Map { .. } => format!("cannot restore map from {found}"),
            Shape::Struct(_) => format!("cannot restore struct from: {found}"),
            _ => format!("unrecognized type: {}", self.kind.go_name()),
        }
    }

    fn number(self, number: Number) -> Option<Value> {
        match self.kind.node().shape {
            Shape::Any => Some(Value::Number(number)),
            Shape::Scalar(Scalar::Float) => Some(Value::Number(number)),
            Shape::Scalar(Scalar::Int32 | Scalar::IntOrString) => match number.as_i64() {
                Some(value) if i32::try_from(value).is_ok() => Some(value.into()),
                _ => self.wrong(&format!("number {number}")),
            },
            Shape::Scalar(Scalar::Int64) => match number.as_i64() {
                Some(value) => Some(value.into()),
                None => self.wrong(&format!("number {number}")),
            },
            Shape::Scalar(Scalar::Quantity) => self.scalar(&number.to_string(), Scalar::Quantity),
            _ => self.wrong("number"),
        }
    }

    fn scalar(self, text: &str, scalar: Scalar) -> Option<Value> {
        match scalar::canonical(text, scalar) {
            Ok(value) => Some(Value::String(value)),
            Err(message) => {
                self.context.fail(message);
                None
            }
        }
    }

    fn fields<'de, A: MapAccess<'de>>(
        self,
        fields: &'t Struct,
        mut access: A,
    ) -> Result<Option<Value>, A::Error> {
        let Seed { kind, context } = self;
        let mut object = Map::new();
        context.structs.push(fields.short_name());
        while let Some(key) = access.next_key::<String>()? {
            let Some(field) = fields.field(&key) else {
                match fields.rest {
                    Some(rest) => {
                        context.path.push(Segment::Key(key.clone()));
                        let value = access.next_value_seed(Seed::new(kind.at(rest), context))?;
                        context.path.pop();
                        object.insert(key, value.unwrap_or(Value::Null));
                    }
                    None => {
                        context.problem("unknown", &key);
                        access.next_value::<IgnoredAny>()?;
                    }
                }
                continue;
            };
            let before = object.remove(&key);
            if before.is_some() {
                context.problem("duplicate", &key);
            }
            context.path.push(Segment::Field(&field.name));
            let value = access.next_value_seed(Seed::new(kind.at(field.node), context))?;
            context.path.pop();
            let value = match (before, value) {
                (Some(before), Some(value)) => Some(over(before, value)),
                (before, value) => value.or(before),
            };
            if let Some(value) = value {
                object.insert(key, value);
            }
        }
        context.structs.pop();
        zero::finish_struct(kind, fields, &mut object);
        Ok(Some(Value::Object(object)))
    }

    fn entries<'de, A: MapAccess<'de>>(
        self,
        value_kind: Type<'t>,
        mut access: A,
    ) -> Result<Option<Value>, A::Error> {
        let context = self.context;
        let mut object = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let before = object.remove(&key);
            if before.is_some() {
                context.problem("duplicate", &key);
            }
            context.path.push(Segment::Key(key.clone()));
            let value = access.next_value_seed(Seed::new(value_kind, context))?;
            context.path.pop();
            object.insert(key, value.unwrap_or_else(|| zero::zero(value_kind)));
        }
        Ok(Some(Value::Object(object)))
    }
}

/// A duplicate decodes on top of what stood before: objects merge, everything else is replaced.
fn over(before: Value, value: Value) -> Value {
    match (before, value) {
        (Value::Object(mut before), Value::Object(value)) => {
            for (key, value) in value {
                let merged = match before.remove(&key) {
                    Some(earlier) => over(earlier, value),
                    None => value,
                };
                before.insert(key, merged);
            }
            Value::Object(before)
        }
        (_, value) => value,
    }
}

impl<'de, 't> DeserializeSeed<'de> for Seed<'t, '_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, 't> Visitor<'de> for Seed<'t, '_> {
    type Value = Option<Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(match self.kind.node().shape {
            Shape::Any | Shape::Scalar(Scalar::Boolean) => Some(Value::Bool(value)),
            _ => self.wrong("bool"),
        })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(value).and_then(|number| self.number(number)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(match self.kind.node().shape {
            Shape::Any | Shape::Scalar(Scalar::String | Scalar::IntOrString) => {
                Some(Value::String(value.to_string()))
            }
            Shape::Scalar(
                scalar @ (Scalar::Bytes
                | Scalar::Time
                | Scalar::MicroTime
                | Scalar::Duration
                | Scalar::Quantity),
            ) => self.scalar(value, scalar),
            _ => self.wrong("string"),
        })
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Self::Value, E> {
        match self.kind.node().shape {
            Shape::Any | Shape::Scalar(Scalar::String | Scalar::IntOrString) => {
                Ok(Some(Value::String(value)))
            }
            _ => self.visit_str(&value),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        match &self.kind.node().shape {
            Shape::Any => Loose::new(self.context).visit_seq(access).map(Some),
            Shape::List { item, .. } => {
                let Seed { kind, context } = self;
                let item = kind.at(*item);
                let mut list = Vec::new();
                loop {
                    context.path.push(Segment::Index(list.len()));
                    let next = access.next_element_seed(Seed::new(item, context))?;
                    context.path.pop();
                    match next {
                        Some(value) => list.push(value.unwrap_or_else(|| zero::zero(item))),
                        None => return Ok(Some(Value::Array(list))),
                    }
                }
            }
            _ => {
                while access.next_element::<IgnoredAny>()?.is_some() {}
                Ok(self.wrong("array"))
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        match &self.kind.node().shape {
            Shape::Any => Loose::new(self.context).visit_map(access).map(Some),
            Shape::Struct(fields) => self.fields(fields, access),
            Shape::Map { value } => {
                let value = self.kind.at(*value);
                self.entries(value, access)
            }
            _ => {
                while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(self.wrong("object"))
            }
        }
    }
}

/// One value of which nothing is known.
pub(super) struct Loose<'t, 'c> {
    context: &'c mut Context<'t>,
}

impl<'t, 'c> Loose<'t, 'c> {
    pub(super) fn new(context: &'c mut Context<'t>) -> Self {
        Self { context }
    }
}

impl<'de> DeserializeSeed<'de> for Loose<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Loose<'_, '_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            self.context.path.push(Segment::Index(list.len()));
            let next = access.next_element_seed(Loose::new(self.context))?;
            self.context.path.pop();
            match next {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let before = object.remove(&key);
            if before.is_some() {
                self.context.problem("duplicate", &key);
            }
            self.context.path.push(Segment::Key(key.clone()));
            let value = access.next_value_seed(Loose::new(self.context))?;
            self.context.path.pop();
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}
