//! Tables for custom resources, built from the structural schema of one CRD version.

use std::sync::Arc;

use serde_json::Value;

use super::{Field, ListKind, NodeId, Scalar, Shape, Struct, TypeRef, TypeTable, builtin};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The type of a custom resource, from the `openAPIV3Schema` of one of its versions.
///
/// `apiVersion`, `kind` and `metadata` are those of every object, whatever the schema says of them.
pub fn custom_type(schema: &Value) -> TypeRef {
    let mut builder = Builder::default();
    let id = builder.node(schema, true);
    TypeRef {
        table: Arc::new(builder.table),
        id,
    }
}

#[derive(Default)]
struct Builder {
    table: TypeTable,
    object_meta: Option<NodeId>,
}

impl Builder {
    fn node(&mut self, schema: &Value, root: bool) -> NodeId {
        let shape = self.shape(schema, root);
        let atomic = schema["x-kubernetes-map-type"] == "atomic"
            || (schema["type"] == "array" && !is_keyed(schema));
        self.table.push(shape, atomic)
    }

    fn shape(&mut self, schema: &Value, root: bool) -> Shape {
        if schema["x-kubernetes-int-or-string"] == true {
            return Shape::Scalar(Scalar::IntOrString);
        }
        match schema["type"].as_str() {
            Some("string") => Shape::Scalar(Scalar::String),
            Some("boolean") => Shape::Scalar(Scalar::Boolean),
            Some("integer") => Shape::Scalar(Scalar::Int64),
            Some("number") => Shape::Scalar(Scalar::Float),
            Some("array") => self.list(schema),
            Some("object") => self.object(schema, root),
            _ if root => self.object(schema, root),
            _ => Shape::Any,
        }
    }

    fn list(&mut self, schema: &Value) -> Shape {
        let item = self.node(&schema["items"], false);
        let kind = match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => ListKind::Set,
            Some("map") => ListKind::Map(
                schema["x-kubernetes-list-map-keys"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(Box::from)
                    .collect(),
            ),
            _ => ListKind::Atomic,
        };
        Shape::List { item, kind }
    }

    fn object(&mut self, schema: &Value, root: bool) -> Shape {
        let embedded = schema["x-kubernetes-embedded-resource"] == true;
        let properties = schema["properties"].as_object();
        let additional = &schema["additionalProperties"];
        let preserves = schema["x-kubernetes-preserve-unknown-fields"] == true;
        if properties.is_none() && !root && !embedded {
            if additional.is_object() {
                let value = self.node(additional, false);
                return Shape::Map { value };
            }
            if preserves || *additional == true {
                return Shape::Any;
            }
        }
        let rest = if preserves || *additional == true {
            Some(self.table.push(Shape::Any, false))
        } else if additional.is_object() {
            Some(self.node(additional, false))
        } else {
            None
        };
        let mut fields = Vec::new();
        if root || embedded {
            self.push_resource_fields(&mut fields);
        }
        for (name, property) in properties.into_iter().flatten() {
            if fields.iter().any(|field: &Field| *field.name == **name) {
                continue;
            }
            let node = self.node(property, false);
            let mut field = plain_field(name, node);
            field.default = property.get("default").cloned().map(Box::new);
            fields.push(field);
        }
        fields.sort_by(|one, other| one.name.cmp(&other.name));
        Shape::Struct(Arc::new(Struct {
            name: Box::from(""),
            fields: fields.into(),
            rest,
        }))
    }

    fn push_resource_fields(&mut self, fields: &mut Vec<Field>) {
        let text = self.table.push(Shape::Scalar(Scalar::String), false);
        fields.push(plain_field("apiVersion", text));
        fields.push(plain_field("kind", text));
        let meta = match self.object_meta {
            Some(meta) => meta,
            None => {
                let meta = self.import_object_meta();
                self.object_meta = Some(meta);
                meta
            }
        };
        fields.push(plain_field("metadata", meta));
    }

    /// Copies `ObjectMeta` and what it refers to into this table.
    fn import_object_meta(&mut self) -> NodeId {
        match builtin::definition(OBJECT_META) {
            Some(meta) => self.import(meta.id),
            None => self.table.push(Shape::Any, false),
        }
    }

    fn import(&mut self, id: NodeId) -> NodeId {
        let source = &builtin::table().nodes[id as usize];
        let shape = match &source.shape {
            Shape::List { item, kind } => Shape::List {
                item: self.import(*item),
                kind: kind.clone(),
            },
            Shape::Map { value } => Shape::Map {
                value: self.import(*value),
            },
            Shape::Struct(fields) => Shape::Struct(Arc::new(Struct {
                name: fields.name.clone(),
                fields: fields
                    .fields
                    .iter()
                    .map(|field| Field {
                        name: field.name.clone(),
                        node: self.import(field.node),
                        written: field.written,
                        pointer: field.pointer,
                        patch: field.patch.clone(),
                        default: field.default.clone(),
                    })
                    .collect(),
                rest: None,
            })),
            other => other.clone(),
        };
        self.table.push(shape, source.atomic)
    }
}

fn is_keyed(schema: &Value) -> bool {
    matches!(
        schema["x-kubernetes-list-type"].as_str(),
        Some("set" | "map")
    )
}

fn plain_field(name: &str, node: NodeId) -> Field {
    Field {
        name: name.into(),
        node,
        written: false,
        pointer: true,
        patch: None,
        default: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_custom_type_carries_object_meta_and_its_own_lists() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                "items": {"type": "object", "properties": {"port": {"type": "integer"}}}}}}}});
        let custom = custom_type(&schema);
        let root = custom.walk().fields().unwrap();
        let meta = custom.walk().at(root.field("metadata").unwrap().node);
        assert!(meta.fields().unwrap().field("ownerReferences").is_some());
        let spec = custom.walk().at(root.field("spec").unwrap().node);
        let ports = spec.at(spec.fields().unwrap().field("ports").unwrap().node);
        assert!(matches!(
            &ports.node().shape,
            Shape::List { kind: ListKind::Map(keys), .. } if keys.len() == 1
        ));
    }
}
