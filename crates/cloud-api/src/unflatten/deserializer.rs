//! A serde deserializer over the tree of parameters: every leaf is text and becomes what the type asks for.

use super::ParameterError;
use super::tree::Node;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use std::fmt;

/// Carries our error through serde's trait.
#[derive(Debug)]
pub(super) struct TreeError(pub(super) ParameterError);

impl fmt::Display for TreeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for TreeError {}

impl de::Error for TreeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        // Raised by types that check their own text; the deserializer puts the name in.
        Self(ParameterError::invalid("", message.to_string()))
    }
}

/// One node with the name it was found under.
pub(super) struct NodeDeserializer<'a> {
    node: &'a Node,
    path: String,
}

impl<'a> NodeDeserializer<'a> {
    pub(super) fn new(node: &'a Node, path: String) -> Self {
        Self { node, path }
    }

    fn child(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn wrong(&self, expected: &str) -> TreeError {
        TreeError(ParameterError::invalid(self.path.clone(), expected))
    }

    fn text(&self) -> Result<&'a str, TreeError> {
        match &self.node.value {
            Some(value) if self.node.children.is_empty() => Ok(value),
            _ => Err(self.wrong("one value, without nested parameters")),
        }
    }

    fn integer<T: TryFrom<i128>>(&self) -> Result<T, TreeError> {
        let text = self.text()?.trim();
        // Some clients write whole numbers as `30.0`.
        let whole = match text.split_once('.') {
            Some((whole, fraction)) if fraction.bytes().all(|byte| byte == b'0') => whole,
            _ => text,
        };
        let number = whole
            .parse::<i128>()
            .ok()
            .and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| self.wrong("a whole number in range"))
    }
}

/// Puts the name into an error that a type raised about its own text.
fn named<T>(path: &str, result: Result<T, TreeError>) -> Result<T, TreeError> {
    result.map_err(|TreeError(error)| match error {
        ParameterError::Invalid { name, expected } if name.is_empty() => {
            TreeError(ParameterError::invalid(path, expected))
        }
        other => TreeError(other),
    })
}

macro_rules! integers {
    ($($method:ident => $visit:ident: $type:ty),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TreeError> {
            let number: $type = self.integer()?;
            named(&self.path, visitor.$visit(number))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for NodeDeserializer<'_> {
    type Error = TreeError;

    integers! {
        deserialize_i8 => visit_i8: i8, deserialize_i16 => visit_i16: i16,
        deserialize_i32 => visit_i32: i32, deserialize_i64 => visit_i64: i64,
        deserialize_u8 => visit_u8: u8, deserialize_u16 => visit_u16: u16,
        deserialize_u32 => visit_u32: u32, deserialize_u64 => visit_u64: u64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TreeError> {
        named(&self.path, visitor.visit_str(self.text()?))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TreeError> {
        let text = self.text()?.trim();
        if text.eq_ignore_ascii_case("true") {
            visitor.visit_bool(true)
        } else if text.eq_ignore_ascii_case("false") {
            visitor.visit_bool(false)
        } else {
            Err(self.wrong("true or false"))
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TreeError> {
        let number = self
            .text()?
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite());
        let number = number.ok_or_else(|| self.wrong("a decimal number"))?;
        named(&self.path, visitor.visit_f64(number))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TreeError> {
        // An empty value stands for an unset one.
        match &self.node.value {
            Some(value) if value.is_empty() && self.node.children.is_empty() => {
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TreeError> {
        let items = self.node.items(&self.path).map_err(TreeError)?;
        visitor.visit_seq(Items {
            path: self.path,
            items: items.into_iter(),
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TreeError> {
        let leaves = self
            .node
            .leaves()
            .into_iter()
            .map(|(key, value)| (key, value.to_owned()));
        visitor.visit_map(de::value::MapDeserializer::new(leaves))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TreeError> {
        if self
            .node
            .value
            .as_deref()
            .is_some_and(|value| !value.is_empty())
        {
            return Err(self.wrong("an object, with its members after a dot"));
        }
        visitor.visit_map(Members {
            parent: self,
            fields,
            next: 0,
            current: None,
        })
    }

    forward_to_deserialize_any! {
        i128 u128 f32 char str string bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct
        enum identifier ignored_any
    }
}

/// The members of an object that the type knows.
struct Members<'a> {
    parent: NodeDeserializer<'a>,
    fields: &'static [&'static str],
    next: usize,
    current: Option<(&'static str, &'a Node)>,
}

impl<'de> de::MapAccess<'de> for Members<'_> {
    type Error = TreeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, TreeError> {
        while let Some(field) = self.fields.get(self.next) {
            self.next += 1;
            if let Some(node) = self.parent.node.children.get(*field) {
                self.current = Some((field, node));
                return seed.deserialize((*field).into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, TreeError> {
        let Some((field, node)) = self.current.take() else {
            return Err(de::Error::custom("read after its name"));
        };
        let path = self.parent.child(field);
        named(
            &path,
            seed.deserialize(NodeDeserializer::new(node, path.clone())),
        )
    }
}

/// The items of a list.
struct Items<'a> {
    path: String,
    items: std::vec::IntoIter<(usize, &'a Node)>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = TreeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, TreeError> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let path = format!("{}.{index}", self.path);
        named(
            &path,
            seed.deserialize(NodeDeserializer::new(node, path.clone())),
        )
        .map(Some)
    }
}
