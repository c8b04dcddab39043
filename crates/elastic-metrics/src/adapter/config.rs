//! The file as it is written: strict about unknown fields, and every mistake is told with its place.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::resource_rules::ResourceRules;
use super::rule::Rule;

/// Most rules of one file.
const MAX_RULES: usize = 1_000;

/// A configuration file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metrics configuration: {field}: {reason}")]
pub struct ConfigError {
    /// Such as `rules[2].metricsQuery`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl ConfigError {
    pub(super) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    rules: Option<Vec<RawRule>>,
    #[serde(default)]
    external_rules: Option<Vec<RawRule>>,
    #[serde(default)]
    resource_rules: Option<RawResourceRules>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawRule {
    #[serde(default)]
    pub(super) series_query: String,
    #[serde(default)]
    pub(super) series_filters: Option<Vec<RawFilter>>,
    #[serde(default)]
    pub(super) resources: Option<RawResources>,
    #[serde(default)]
    pub(super) name: Option<RawName>,
    #[serde(default)]
    pub(super) metrics_query: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawFilter {
    pub(super) is: Option<String>,
    pub(super) is_not: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawResources {
    pub(super) template: Option<String>,
    pub(super) overrides: Option<BTreeMap<String, RawResource>>,
    pub(super) namespaced: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResource {
    #[serde(default)]
    pub(super) group: String,
    pub(super) resource: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawName {
    pub(super) matches: Option<String>,
    #[serde(rename = "as")]
    pub(super) as_: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResourceRules {
    pub(super) cpu: Option<RawResourceRule>,
    pub(super) memory: Option<RawResourceRule>,
    pub(super) window: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawResourceRule {
    #[serde(default)]
    pub(super) container_query: String,
    #[serde(default)]
    pub(super) node_query: String,
    #[serde(default)]
    pub(super) resources: Option<RawResources>,
    #[serde(default)]
    pub(super) container_label: String,
}

/// The rules of a configuration file of prometheus-adapter.
#[derive(Clone, Debug, Default)]
pub struct AdapterConfig {
    pub(crate) rules: Vec<Rule>,
    pub(crate) external_rules: Vec<Rule>,
    pub(crate) resource_rules: Option<ResourceRules>,
}

impl AdapterConfig {
    /// Whether the file says how `metrics.k8s.io` is read from Prometheus.
    pub fn has_resource_rules(&self) -> bool {
        self.resource_rules.is_some()
    }

    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: Option<File> = serde_yaml::from_str(text)
            .map_err(|error| ConfigError::new("the file", error.to_string()))?;
        let Some(file) = file else {
            return Ok(Self::default());
        };
        Ok(Self {
            rules: compiled("rules", file.rules, false)?,
            external_rules: compiled("externalRules", file.external_rules, true)?,
            resource_rules: file
                .resource_rules
                .map(ResourceRules::compile)
                .transpose()?,
        })
    }
}

fn compiled(
    list: &str,
    rules: Option<Vec<RawRule>>,
    external: bool,
) -> Result<Vec<Rule>, ConfigError> {
    let rules = rules.unwrap_or_default();
    if rules.len() > MAX_RULES {
        return Err(ConfigError::new(
            list,
            format!("has {} rules, at most {MAX_RULES} are taken", rules.len()),
        ));
    }
    let rules = rules.into_iter().enumerate();
    rules
        .map(|(index, raw)| Rule::compile(raw, &format!("{list}[{index}]"), external))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_every_section_is_read() {
        let config = AdapterConfig::parse(include_str!("sample.yaml")).unwrap();
        assert_eq!((config.rules.len(), config.external_rules.len()), (5, 2));
        assert!(config.has_resource_rules());
        assert!(AdapterConfig::parse("").unwrap().rules.is_empty());
        assert!(AdapterConfig::parse("rules: []").is_ok());
    }

    /// Texts, each with the field that is named and a part of the reason.
    fn refused(cases: &[(&str, &str, &str)]) {
        for (text, field, reason) in cases {
            let error = AdapterConfig::parse(text).unwrap_err();
            assert_eq!(error.field, *field, "{text}: {error}");
            assert!(error.reason.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let cases = [
            (
                "rules: [{seriesQuery: x, metricQuery: y}]",
                "the file",
                "metricQuery",
            ),
            (
                "rules: [{seriesQuery: x}]",
                "rules[0].metricsQuery",
                "missing",
            ),
            (
                "rules: [{metricsQuery: x}]",
                "rules[0].seriesQuery",
                "missing",
            ),
            (
                "rules: [{seriesQuery: x, metricsQuery: '<<.Nope>>'}]",
                "rules[0].metricsQuery",
                ".Nope",
            ),
            (
                "rules: [{seriesQuery: x, metricsQuery: y, name: {matches: '('}}]",
                "rules[0].name.matches",
                "(",
            ),
            (
                "rules: [{seriesQuery: x, metricsQuery: y, name: {matches: '(a)(b)'}}]",
                "rules[0].name.as",
                "2 groups",
            ),
            (
                "rules: [{seriesQuery: x, metricsQuery: y, seriesFilters: [{is: a, isNot: b}]}]",
                "rules[0].seriesFilters[0]",
                "is or isNot",
            ),
            (
                "rules: [{seriesQuery: x, metricsQuery: y, resources: {template: '<<.Kind>>'}}]",
                "rules[0].resources.template",
                ".Kind",
            ),
            (
                "externalRules: [{seriesQuery: x, resources: {overrides: {a: {resource: ''}}}}]",
                "externalRules[0].resources.overrides.a",
                "resource",
            ),
        ];
        refused(&cases);
    }

    #[test]
    fn mistakes_in_resource_rules_are_told_with_their_place() {
        let cases = [
            (
                "resourceRules: {cpu: {containerQuery: x, nodeQuery: '<<x>>'}}",
                "resourceRules.cpu.nodeQuery",
                "x",
            ),
            (
                "resourceRules: {cpu: {containerQuery: x, nodeQuery: y, containerLabel: c}}",
                "resourceRules.memory",
                "missing",
            ),
            (
                "resourceRules: {cpu: {containerQuery: x, nodeQuery: y}}",
                "resourceRules.cpu.containerLabel",
                "missing",
            ),
            (
                "resourceRules: {cpu: {nodeQuery: y, containerLabel: c}}",
                "resourceRules.cpu.containerQuery",
                "missing",
            ),
            (
                "resourceRules: {window: soon, cpu: {containerQuery: x, nodeQuery: y, containerLabel: c}, memory: {containerQuery: x, nodeQuery: y, containerLabel: c}}",
                "resourceRules.window",
                "3m",
            ),
        ];
        refused(&cases);
    }
}
