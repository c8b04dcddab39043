//! The parameters as a tree, cut at the dots of their names.

use super::ParameterError;
use std::collections::BTreeMap;

/// Deepest nesting: the interface's own deepest name has six levels.
pub const MAX_DEPTH: usize = 16;
/// Largest index of a list item.
pub const MAX_INDEX: usize = 1_000;

/// One name with its own value, its nested names, or both.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) value: Option<String>,
    pub(super) children: BTreeMap<String, Node>,
}

impl Node {
    pub(super) fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ParameterError> {
        let mut root = Node::default();
        for (name, value) in pairs {
            let mut node = &mut root;
            for (depth, part) in name.split('.').enumerate() {
                if depth == MAX_DEPTH {
                    let name = name
                        .split('.')
                        .take(MAX_DEPTH)
                        .collect::<Vec<_>>()
                        .join(".");
                    return Err(ParameterError::TooDeep { name });
                }
                node = node.children.entry(part.to_owned()).or_default();
            }
            if node.value.replace(value.to_owned()).is_some() {
                return Err(ParameterError::Duplicate {
                    name: name.to_owned(),
                });
            }
        }
        Ok(root)
    }

    /// The list items in the order of their indices.
    pub(super) fn items(&self, path: &str) -> Result<Vec<(usize, &Node)>, ParameterError> {
        if self.value.as_deref().is_some_and(|value| !value.is_empty()) {
            let expected = "a list, with items numbered from 1 after a dot";
            return Err(ParameterError::invalid(path, expected));
        }
        let mut items = Vec::with_capacity(self.children.len());
        for (key, node) in &self.children {
            let index = key
                .parse::<usize>()
                .ok()
                .filter(|index| (1..=MAX_INDEX).contains(index));
            let canonical = index.filter(|index| index.to_string() == *key);
            let Some(index) = canonical else {
                let expected = format!("numbered from 1 to {MAX_INDEX}");
                return Err(ParameterError::invalid(format!("{path}.{key}"), expected));
            };
            items.push((index, node));
        }
        items.sort_unstable_by_key(|(index, _)| *index);
        Ok(items)
    }

    /// The leaves below, with the rest of their names as written (a map key may itself hold dots).
    pub(super) fn leaves(&self) -> Vec<(String, &str)> {
        let mut leaves = Vec::new();
        for (key, node) in &self.children {
            node.collect_leaves(key.clone(), &mut leaves);
        }
        leaves
    }

    fn collect_leaves<'a>(&'a self, path: String, leaves: &mut Vec<(String, &'a str)>) {
        for (key, node) in &self.children {
            node.collect_leaves(format!("{path}.{key}"), leaves);
        }
        if let Some(value) = &self.value {
            leaves.push((path, value));
        }
    }
}
