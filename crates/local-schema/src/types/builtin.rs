//! The table of the built-in kinds, read once from `data/types.txt.gz` (written by `data/generate.py`).

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, OnceLock};

use super::{Field, ListKind, Node, NodeId, PatchRule, Scalar, Shape, Struct, TypeRef, TypeTable};

const DATA: &[u8] = include_bytes!("../../data/types.txt.gz");

/// Group, version, kind.
type KindKey = (Box<str>, Box<str>, Box<str>);

struct Builtin {
    table: Arc<TypeTable>,
    kinds: HashMap<KindKey, NodeId>,
    definitions: HashMap<Box<str>, NodeId>,
}

fn shared() -> &'static Builtin {
    static BUILTIN: OnceLock<Builtin> = OnceLock::new();
    BUILTIN.get_or_init(|| {
        let mut text = String::new();
        flate2::read::GzDecoder::new(DATA)
            .read_to_string(&mut text)
            .expect("the committed type table is well-formed gzip; a test reads it");
        Reader::default().read(&text)
    })
}

pub(super) fn builtin(group: &str, version: &str, kind: &str) -> Option<TypeRef> {
    let builtin = shared();
    let key = (group.into(), version.into(), kind.into());
    builtin.kinds.get(&key).map(|id| reference(builtin, *id))
}

pub(super) fn definition(name: &str) -> Option<TypeRef> {
    let builtin = shared();
    builtin
        .definitions
        .get(name)
        .map(|id| reference(builtin, *id))
}

fn reference(builtin: &Builtin, id: NodeId) -> TypeRef {
    TypeRef {
        table: Arc::clone(&builtin.table),
        id,
    }
}

/// Table and indexes, shared with the custom tables that embed `ObjectMeta`.
pub(super) fn table() -> &'static TypeTable {
    &shared().table
}

#[derive(Default)]
struct Reader<'t> {
    table: TypeTable,
    /// Plain nodes by their text (`s`, `[#Name` without a list type), so that equal ones are shared.
    plain: HashMap<&'t str, NodeId>,
}

/// Definition line: name and whether it is atomic, then its field lines.
struct Definition<'t> {
    name: &'t str,
    atomic: bool,
    lines: Vec<&'t str>,
}

impl<'t> Reader<'t> {
    fn read(mut self, text: &'t str) -> Builtin {
        let mut kinds_by_name = Vec::new();
        let mut definitions: Vec<Definition<'t>> = Vec::new();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("K ") {
                kinds_by_name.push(kind);
            } else if let Some(head) = line.strip_prefix("S ") {
                let (name, atomic) = match head.split_once(' ') {
                    Some((name, _)) => (name, true),
                    None => (head, false),
                };
                definitions.push(Definition {
                    name,
                    atomic,
                    lines: Vec::new(),
                });
            } else if let Some(last) = definitions.last_mut() {
                last.lines.push(line);
            }
        }
        let mut ids: HashMap<&'t str, NodeId> = HashMap::new();
        for definition in &definitions {
            let id = self.table.push(Shape::Any, definition.atomic);
            ids.insert(definition.name, id);
        }
        for definition in &definitions {
            let fields = self.fields(definition, &ids);
            let id = ids[definition.name];
            self.table.nodes[id as usize].shape = Shape::Struct(Arc::new(fields));
        }
        self.copy_atomic_uses();
        let mut kinds = HashMap::new();
        for line in kinds_by_name {
            let mut parts = line.splitn(4, '|');
            let mut next = || parts.next().unwrap_or_default();
            let (group, version, kind, name) = (next(), next(), next(), next());
            if let Some(id) = ids.get(name) {
                kinds.insert((group.into(), version.into(), kind.into()), *id);
            }
        }
        self.table.nodes.shrink_to_fit();
        Builtin {
            table: Arc::new(self.table),
            kinds,
            definitions: ids
                .into_iter()
                .map(|(name, id)| (Box::from(name), id))
                .collect(),
        }
    }

    fn fields(&mut self, definition: &Definition<'t>, ids: &HashMap<&'t str, NodeId>) -> Struct {
        let mut fields: Vec<Field> = Vec::with_capacity(definition.lines.len());
        for line in &definition.lines {
            let mut parts = line.split('|');
            let mut next = || parts.next().unwrap_or_default();
            let (name, kind, flags, list_type, patch) = (next(), next(), next(), next(), next());
            let default = next();
            fields.push(Field {
                name: name.into(),
                node: self.node(kind, list_type, ids),
                written: flags.contains('e'),
                pointer: flags.contains('p'),
                patch: patch_rule(patch),
                default: (!default.is_empty()).then(|| Box::new(default.into())),
            });
        }
        fields.sort_by(|one, other| one.name.cmp(&other.name));
        Struct {
            name: definition.name.into(),
            fields: fields.into(),
            rest: None,
        }
    }

    fn node(&mut self, kind: &'t str, list_type: &str, ids: &HashMap<&'t str, NodeId>) -> NodeId {
        if list_type.is_empty()
            && let Some(id) = self.plain.get(kind)
        {
            return *id;
        }
        if list_type.is_empty()
            && let Some(name) = kind.strip_prefix('#')
        {
            return ids.get(name).copied().unwrap_or_default();
        }
        let shape = self.shape(kind, list_type, ids);
        let atomic = list_type == "atomic" || kind == "any";
        let id = self.table.push(shape, atomic);
        if list_type.is_empty() {
            self.plain.insert(kind, id);
        }
        id
    }

    fn shape(&mut self, kind: &'t str, list_type: &str, ids: &HashMap<&'t str, NodeId>) -> Shape {
        if let Some(item) = kind.strip_prefix('[') {
            let item = self.node(item, "", ids);
            let kind = match list_type.split_once(':') {
                Some((_, keys)) => ListKind::Map(keys.split(',').map(Box::from).collect()),
                None if list_type == "set" => ListKind::Set,
                None => ListKind::Atomic,
            };
            return Shape::List { item, kind };
        }
        if let Some(value) = kind.strip_prefix('{') {
            let value = self.node(value, "", ids);
            return Shape::Map { value };
        }
        if let Some(name) = kind.strip_prefix('#') {
            // Resolved by `copy_atomic_uses`, when every definition is known.
            return Shape::Map {
                value: ids.get(name).copied().unwrap_or_default() | UNRESOLVED,
            };
        }
        match scalar(kind) {
            Some(scalar) => Shape::Scalar(scalar),
            None => Shape::Any,
        }
    }

    /// Fields that use a struct atomically though the struct itself is not: a node of their own over the same fields.
    fn copy_atomic_uses(&mut self) {
        for index in 0..self.table.nodes.len() {
            let Node {
                shape: Shape::Map { value },
                ..
            } = self.table.nodes[index]
            else {
                continue;
            };
            if value & UNRESOLVED != 0 {
                let shape = self.table.nodes[(value & !UNRESOLVED) as usize]
                    .shape
                    .clone();
                self.table.nodes[index].shape = shape;
            }
        }
    }
}

const UNRESOLVED: NodeId = 1 << 31;

fn scalar(text: &str) -> Option<Scalar> {
    Some(match text {
        "s" => Scalar::String,
        "b" => Scalar::Boolean,
        "i32" => Scalar::Int32,
        "i64" => Scalar::Int64,
        "d" => Scalar::Float,
        "y" => Scalar::Bytes,
        "time" => Scalar::Time,
        "micro" => Scalar::MicroTime,
        "dur" => Scalar::Duration,
        "q" => Scalar::Quantity,
        "ios" => Scalar::IntOrString,
        _ => return None,
    })
}

fn patch_rule(text: &str) -> Option<Box<PatchRule>> {
    if text.is_empty() {
        return None;
    }
    let (strategies, key) = match text.split_once(':') {
        Some((strategies, key)) => (strategies, Some(Box::from(key))),
        None => (text, None),
    };
    Some(Box::new(PatchRule {
        merge: strategies.split('+').any(|one| one == "merge"),
        retain_keys: strategies.split('+').any(|one| one == "retainKeys"),
        key,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_knows_list_map_keys_and_patch_rules() {
        let pod = builtin("", "v1", "Pod").unwrap();
        let spec = pod.walk().fields().unwrap().field("spec").unwrap();
        let spec = pod.walk().at(spec.node).fields().unwrap();
        let containers = spec.field("containers").unwrap();
        assert_eq!(
            containers.patch.as_deref(),
            Some(&PatchRule {
                merge: true,
                retain_keys: false,
                key: Some("name".into())
            })
        );
        let Shape::List { kind, .. } = &pod.walk().at(containers.node).node().shape else {
            panic!("containers is a list");
        };
        assert_eq!(*kind, ListKind::Map(["name".into()].into()));
        assert!(
            pod.walk()
                .at(spec.field("nodeSelector").unwrap().node)
                .node()
                .atomic
        );
    }

    #[test]
    fn an_unknown_kind_has_no_type() {
        assert!(builtin("", "v1", "Nothing").is_none());
        assert!(definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").is_some());
    }
}
