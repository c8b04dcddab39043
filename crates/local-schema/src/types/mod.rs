//! A compact table of types: what every field of a kind holds, how Go writes it, how lists and maps merge.
//!
//! Built-in kinds share one table read from the crate's data; a custom resource brings a table of its own, built from its
//! structural schema. It refuses values: walking objects along a table is the business of the other modules.

mod builtin;
mod custom;

use std::sync::{Arc, OnceLock};

pub use custom::custom_type;

/// Index of a node inside its table.
pub(crate) type NodeId = u32;

/// What a leaf holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A string.
    String,
    /// True or false.
    Boolean,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating point number.
    Float,
    /// Bytes, base64 in JSON.
    Bytes,
    /// `metav1.Time`, seconds.
    Time,
    /// `metav1.MicroTime`, microseconds.
    MicroTime,
    /// `metav1.Duration`, Go's duration text.
    Duration,
    /// `resource.Quantity`.
    Quantity,
    /// A 32-bit integer or a string.
    IntOrString,
}

/// How items of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Replaced as a whole.
    Atomic,
    /// Unique scalars.
    Set,
    /// Unique by these fields.
    Map(Box<[Box<str>]>),
}

/// What a node of the table describes.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// A leaf.
    Scalar(Scalar),
    /// Any JSON; nothing is known.
    Any,
    /// A list.
    List { item: NodeId, kind: ListKind },
    /// String keys, one type of value.
    Map { value: NodeId },
    /// Named fields.
    Struct(Arc<Struct>),
}

/// One node: a shape, and whether it is owned and merged only as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) shape: Shape,
    pub(crate) atomic: bool,
}

/// Named fields.
#[derive(Debug, Default)]
pub(crate) struct Struct {
    /// Full definition name, `io.k8s.api.core.v1.Container`; empty for anonymous ones.
    pub(crate) name: Box<str>,
    /// Sorted by name.
    pub(crate) fields: Box<[Field]>,
    /// What fields beyond the named ones hold; `None` = they are unknown.
    pub(crate) rest: Option<NodeId>,
}

/// How strategic merge treats a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PatchRule {
    /// `merge` was named: lists merge by key or as sets.
    pub(crate) merge: bool,
    /// `retainKeys` was named.
    pub(crate) retain_keys: bool,
    /// The merge key of a list of objects.
    pub(crate) key: Option<Box<str>>,
}

/// One field of a struct.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: Box<str>,
    pub(crate) node: NodeId,
    /// Go writes the field even when it is empty.
    pub(crate) written: bool,
    /// A pointer in Go: an explicit zero is kept.
    pub(crate) pointer: bool,
    pub(crate) patch: Option<Box<PatchRule>>,
    /// The default of the schema, which stands in for a list-map key that is left out.
    pub(crate) default: Option<Box<serde_json::Value>>,
}

impl Struct {
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields
            .binary_search_by(|field| (*field.name).cmp(name))
            .ok()
            .map(|index| &self.fields[index])
    }

    /// `Container`
    pub(crate) fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// `v1.Container`, as Go prints the type.
    pub(crate) fn go_name(&self) -> String {
        let mut parts = self.name.rsplitn(3, '.');
        let short = parts.next().unwrap_or_default();
        match parts.next() {
            Some(package) => format!("{package}.{short}"),
            None => short.to_string(),
        }
    }
}

/// All nodes of one or more kinds.
#[derive(Debug, Default)]
pub(crate) struct TypeTable {
    pub(crate) nodes: Vec<Node>,
}

impl TypeTable {
    pub(crate) fn push(&mut self, shape: Shape, atomic: bool) -> NodeId {
        self.nodes.push(Node { shape, atomic });
        NodeId::try_from(self.nodes.len() - 1).unwrap_or(NodeId::MAX)
    }
}

/// A type of a kind or of a part of it; cheap to clone.
#[derive(Clone, Debug)]
pub struct TypeRef {
    pub(crate) table: Arc<TypeTable>,
    pub(crate) id: NodeId,
}

/// A borrowed place in a table.
#[derive(Clone, Copy)]
pub(crate) struct Type<'a> {
    pub(crate) table: &'a TypeTable,
    pub(crate) id: NodeId,
}

impl TypeRef {
    /// The type of objects nothing is known about: maps are granular, lists atomic.
    pub fn deduced() -> Self {
        static DEDUCED: OnceLock<TypeRef> = OnceLock::new();
        DEDUCED
            .get_or_init(|| {
                let mut table = TypeTable::default();
                let id = table.push(Shape::Any, false);
                TypeRef {
                    table: Arc::new(table),
                    id,
                }
            })
            .clone()
    }

    /// The type of a built-in kind, `None` when it is not shipped.
    pub fn builtin(group: &str, version: &str, kind: &str) -> Option<Self> {
        builtin::builtin(group, version, kind)
    }

    /// The type of a shared definition, for example `io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta`.
    pub fn definition(name: &str) -> Option<Self> {
        builtin::definition(name)
    }

    /// True when nothing is known about the objects.
    pub(crate) fn is_deduced(&self) -> bool {
        matches!(self.walk().node().shape, Shape::Any)
    }

    pub(crate) fn walk(&self) -> Type<'_> {
        Type {
            table: &self.table,
            id: self.id,
        }
    }
}

impl<'a> Type<'a> {
    pub(crate) fn node(self) -> &'a Node {
        &self.table.nodes[self.id as usize]
    }

    pub(crate) fn at(self, id: NodeId) -> Type<'a> {
        Type { id, ..self }
    }

    /// The struct here, if it is one.
    pub(crate) fn fields(self) -> Option<&'a Struct> {
        match &self.node().shape {
            Shape::Struct(fields) => Some(fields),
            _ => None,
        }
    }

    /// What Go calls the type in messages.
    pub(crate) fn go_name(self) -> String {
        match &self.node().shape {
            Shape::Scalar(scalar) => match scalar {
                Scalar::String => "string",
                Scalar::Boolean => "bool",
                Scalar::Int32 => "int32",
                Scalar::Int64 => "int64",
                Scalar::Float => "float64",
                Scalar::Bytes => "[]uint8",
                Scalar::Time => "v1.Time",
                Scalar::MicroTime => "v1.MicroTime",
                Scalar::Duration => "v1.Duration",
                Scalar::Quantity => "resource.Quantity",
                Scalar::IntOrString => "intstr.IntOrString",
            }
            .to_string(),
            Shape::Any => "runtime.RawExtension".to_string(),
            Shape::List { item, .. } => format!("[]{}", self.at(*item).go_name()),
            Shape::Map { value } => match self.at(*value).node().shape {
                Shape::Scalar(Scalar::Quantity) => "v1.ResourceList".to_string(),
                _ => format!("map[string]{}", self.at(*value).go_name()),
            },
            Shape::Struct(fields) => fields.go_name(),
        }
    }
}
