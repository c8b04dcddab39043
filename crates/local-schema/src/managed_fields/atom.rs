//! What a place of an object is for ownership: a leaf, a map of fields, or a list of items that can be told apart.

use serde_json::{Map, Value};

use crate::types::{ListKind, Scalar, Shape, Struct, Type};

/// How a place is walked.
pub(super) enum Atom<'t> {
    /// Owned as a whole.
    Leaf,
    /// Fields or keys.
    Map(Fields<'t>),
    /// Items with keys of their own.
    List(Items<'t>),
}

pub(super) enum Fields<'t> {
    Struct(&'t Struct, Type<'t>),
    Uniform(Type<'t>),
    /// Nothing is known; the type says the same of everything below.
    Deduced(Type<'t>),
}

pub(super) struct Items<'t> {
    pub(super) item: Type<'t>,
    kind: &'t ListKind,
}

/// The type of one field.
pub(super) struct FieldType<'t> {
    /// `None`: the schema does not know the field.
    pub(super) kind: Option<Type<'t>>,
    /// A named field of a struct, not a key of a map.
    pub(super) named: bool,
}

/// Resolves a place; where nothing is known, the value decides.
pub(super) fn atom<'t>(kind: Option<Type<'t>>, value: Option<&Value>) -> Atom<'t> {
    let Some(kind) = kind else { return Atom::Leaf };
    let node = kind.node();
    if node.atomic {
        return Atom::Leaf;
    }
    match &node.shape {
        Shape::Scalar(_) => Atom::Leaf,
        Shape::Any => match value {
            Some(Value::Object(_)) => Atom::Map(Fields::Deduced(kind)),
            _ => Atom::Leaf,
        },
        Shape::List {
            kind: ListKind::Atomic,
            ..
        } => Atom::Leaf,
        Shape::List { item, kind: list } => Atom::List(Items {
            item: kind.at(*item),
            kind: list,
        }),
        Shape::Map { value } => Atom::Map(Fields::Uniform(kind.at(*value))),
        Shape::Struct(fields) => Atom::Map(Fields::Struct(fields, kind)),
    }
}

impl<'t> Fields<'t> {
    pub(super) fn field(&self, name: &str) -> FieldType<'t> {
        match self {
            Self::Struct(fields, kind) => match fields.field(name) {
                Some(field) => FieldType {
                    kind: Some(kind.at(field.node)),
                    named: true,
                },
                None => FieldType {
                    kind: fields.rest.map(|rest| kind.at(rest)),
                    named: false,
                },
            },
            Self::Uniform(kind) | Self::Deduced(kind) => FieldType {
                kind: Some(*kind),
                named: false,
            },
        }
    }
}

impl Items<'_> {
    /// The path element of an item, or why it has none.
    pub(super) fn element(&self, item: &Value) -> Result<String, String> {
        match self.kind {
            ListKind::Map(keys) => self.keyed(item, keys),
            _ => match item {
                Value::Object(_) | Value::Array(_) => Err(
                    "associative list without keys has an element that's a map type".to_string(),
                ),
                Value::Null => Err(
                    "associative list without keys has an element that's an explicit null"
                        .to_string(),
                ),
                scalar => Ok(format!("v:{scalar}")),
            },
        }
    }

    fn keyed(&self, item: &Value, keys: &[Box<str>]) -> Result<String, String> {
        let fields = match item {
            Value::Object(fields) => fields,
            Value::Null => {
                return Err("associative list with keys may not have a null element".to_string());
            }
            _ => return Err("associative list with keys may not have non-map elements".to_string()),
        };
        let mut found = Map::new();
        for key in keys {
            if let Some(value) = fields.get(&**key).cloned().or_else(|| self.default_of(key)) {
                found.insert(key.to_string(), value);
            }
        }
        if found.is_empty() {
            let names: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                names.join(" ")
            ));
        }
        Ok(format!("k:{}", Value::Object(found)))
    }

    fn default_of(&self, key: &str) -> Option<Value> {
        let field = self.item.fields()?.field(key)?;
        if let Some(default) = &field.default {
            return Some((**default).clone());
        }
        match self.item.at(field.node).node().shape {
            _ if !field.written => None,
            Shape::Scalar(Scalar::String) => Some("".into()),
            Shape::Scalar(Scalar::Int32 | Scalar::Int64) => Some(0.into()),
            Shape::Scalar(Scalar::Boolean) => Some(false.into()),
            _ => None,
        }
    }
}
