//! Which autoscalers select which pods: pods that several of them would count stop all of those.

use std::collections::BTreeMap;

use super::decide::SelectorFault;
use super::proposal::PodView;
use crate::label_query::LabelQuery;

/// The selectors that autoscalers were last seen with.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    by_namespace: BTreeMap<String, BTreeMap<String, LabelQuery>>,
}

impl Selectors {
    /// Takes note of what an autoscaler selects.
    pub fn note(&mut self, namespace: &str, name: &str, query: LabelQuery) {
        let known = self.by_namespace.entry(namespace.to_owned()).or_default();
        if known.get(name) != Some(&query) {
            known.insert(name.to_owned(), query);
        }
    }

    /// Forgets an autoscaler that is gone.
    pub fn forget(&mut self, namespace: &str, name: &str) {
        if let Some(known) = self.by_namespace.get_mut(namespace) {
            known.remove(name);
            if known.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
    }

    /// Whether one autoscaler at most selects these pods, which `text` selects.
    ///
    /// # Errors
    /// The fault that names all of them.
    pub fn check(
        &self,
        namespace: &str,
        text: &str,
        pods: &[PodView],
    ) -> Result<(), SelectorFault> {
        let Some(known) = self.by_namespace.get(namespace) else {
            return Ok(());
        };
        let selects_any =
            |query: &LabelQuery| pods.iter().any(|pod| query.matches(pod.labels.as_ref()));
        let rivals: Vec<String> = known
            .iter()
            .filter(|(_, query)| selects_any(query))
            .map(|(name, _)| format!("{namespace}/{name}"))
            .collect();
        if rivals.len() < 2 {
            return Ok(());
        }
        let rivals = rivals.join(" ");
        Err(SelectorFault::Ambiguous(format!(
            "pods by selector {text} are controlled by multiple HPAs: [{rivals}]"
        )))
    }
}
