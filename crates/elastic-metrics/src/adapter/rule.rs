//! One rule, understood: which series it takes, what objects their labels name, what the metric is called, the query.

use std::collections::BTreeMap;

use regex::Regex;

use super::config::{ConfigError, RawFilter, RawName, RawRule};
use super::kinds::{GroupResource, Kinds};
use super::object_labels::ObjectLabels;
use super::template::{Data, Fields, Template, TemplateError};
use crate::selector::{Operator, Requirement, Selector};

const QUERY_FIELDS: [&str; 5] = [
    "Series",
    "LabelMatchers",
    "GroupBy",
    "GroupBySlice",
    "LabelValuesByName",
];
/// From so many names on, all objects of the namespace are asked for and picked out of the answer: a list of thousands of
/// names costs Prometheus more than the series it saves.
const MANY_NAMES: usize = 20;
/// What makes a query depend on which objects are asked for together.
const NOT_BY_OBJECT: [&str; 9] = [
    "topk",
    "bottomk",
    "limitk",
    "limit_ratio",
    "scalar",
    "absent",
    "group_left",
    "group_right",
    "on(",
];

/// A request that a rule cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    #[error("no label names {0} objects; add it to the rule's resources")]
    NoLabel(GroupResource),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("the selector {0:?} has no values")]
    NoValues(String),
}

#[derive(Clone, Debug)]
struct Filter {
    pattern: Regex,
    wanted: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) series_query: String,
    filters: Vec<Filter>,
    pub(crate) objects: ObjectLabels,
    name_pattern: Regex,
    name_as: String,
    query: Template,
    pub(crate) namespaced: bool,
}

/// The objects that are asked about.
pub(crate) enum Names<'a> {
    One(&'a str),
    Many(&'a [String]),
}

impl Rule {
    pub(super) fn compile(raw: RawRule, place: &str, external: bool) -> Result<Self, ConfigError> {
        let at = |field: &str| format!("{place}.{field}");
        if raw.series_query.trim().is_empty() {
            return Err(ConfigError::new(
                at("seriesQuery"),
                "is missing; give the selector of the series",
            ));
        }
        let text = match raw.metrics_query.as_str() {
            "" if external => "<<.Series>>{<<.LabelMatchers>>}",
            "" => {
                return Err(ConfigError::new(
                    at("metricsQuery"),
                    "is missing; give the query's template",
                ));
            }
            text => text,
        };
        let query = Template::parse(text, &QUERY_FIELDS);
        let query =
            query.map_err(|error| ConfigError::new(at("metricsQuery"), error.to_string()))?;
        let resources = raw.resources.unwrap_or_default();
        // An empty pattern is none, as the charts of prometheus-adapter write it.
        let name = raw.name.map(|name| RawName {
            matches: name.matches.filter(|text| !text.is_empty()),
            ..name
        });
        let name = name.as_ref();
        let (name_pattern, name_as) = naming(name, place)?;
        let mut filters = Vec::new();
        for (index, filter) in raw
            .series_filters
            .unwrap_or_default()
            .into_iter()
            .enumerate()
        {
            filters.push(compiled_filter(
                filter,
                &format!("{place}.seriesFilters[{index}]"),
            )?);
        }
        if name.is_some_and(|name| name.matches.is_some()) {
            filters.push(Filter {
                pattern: name_pattern.clone(),
                wanted: true,
            });
        }
        Ok(Self {
            series_query: raw.series_query,
            filters,
            namespaced: resources.namespaced.unwrap_or(true),
            objects: ObjectLabels::compile(resources, place)?,
            name_pattern,
            name_as,
            query,
        })
    }

    /// The metric's name for a series; none when the rule does not take the series.
    pub(crate) fn metric_name(&self, series: &str) -> Option<String> {
        let fits = |filter: &Filter| filter.pattern.is_match(series) == filter.wanted;
        if !self.filters.iter().all(fits) {
            return None;
        }
        let found = self.name_pattern.captures(series)?;
        let mut name = String::new();
        found.expand(&self.name_as, &mut name);
        // A name is one segment of a path.
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }

    /// The query for a metric of objects.
    pub(crate) fn custom_query(
        &self,
        series: &str,
        (resource, namespace, names): (&GroupResource, Option<&str>, Names<'_>),
        selector: &Selector,
        kinds: &Kinds,
    ) -> Result<String, QueryError> {
        let mut matchers = Matchers::default();
        matchers.add_selector(selector)?;
        if let Some(namespace) = namespace {
            let label = self
                .objects
                .label_of(&GroupResource::new("", "namespaces"), kinds)?;
            matchers.add_equal(&label, namespace);
        }
        let label = self.objects.label_of(resource, kinds)?;
        match names {
            Names::One(name) => matchers.add_equal(&label, name),
            Names::Many([name]) => matchers.add_equal(&label, name),
            Names::Many(names) if names.len() > MANY_NAMES && self.is_by_object() => {
                matchers.add_any(&label)
            }
            Names::Many(names) => matchers.add_one_of(&label, names),
        }
        self.render(series, matchers, vec![label])
    }

    /// The query for an external metric.
    pub(crate) fn external_query(
        &self,
        series: &str,
        namespace: &str,
        selector: &Selector,
        kinds: &Kinds,
    ) -> Result<String, QueryError> {
        let mut matchers = Matchers::default();
        matchers.add_selector(selector)?;
        if self.namespaced {
            let label = self
                .objects
                .label_of(&GroupResource::new("", "namespaces"), kinds)?;
            matchers.add_equal(&label, namespace);
        }
        self.render(series, matchers, Vec::new())
    }

    /// Whether each object's answer is the same whoever else is asked about.
    fn is_by_object(&self) -> bool {
        let text = self.query.source();
        let grouped = self.query.uses("GroupBy");
        grouped
            && !self.query.uses("LabelValuesByName")
            && !NOT_BY_OBJECT.iter().any(|word| text.contains(word))
    }

    fn render(
        &self,
        series: &str,
        matchers: Matchers,
        group_by: Vec<String>,
    ) -> Result<String, QueryError> {
        let fields = query_fields(series, matchers, group_by);
        Ok(self.query.render(&fields)?)
    }
}

/// What a query's template sees.
pub(super) fn query_fields(series: &str, matchers: Matchers, group_by: Vec<String>) -> Fields {
    BTreeMap::from([
        ("Series", Data::Text(series.to_owned())),
        ("LabelMatchers", Data::Text(matchers.texts.join(","))),
        ("LabelValuesByName", Data::Map(matchers.values)),
        ("GroupBy", Data::Text(group_by.join(","))),
        ("GroupBySlice", Data::List(group_by)),
    ])
}

/// What a query's series have to have.
#[derive(Default)]
pub(super) struct Matchers {
    texts: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Matchers {
    pub(super) fn add(&mut self, label: &str, operator: &str, value: &str) {
        self.texts
            .push(format!("{label}{operator}{}", quote(value)));
        self.values.insert(label.to_owned(), value.to_owned());
    }

    pub(super) fn add_equal(&mut self, label: &str, value: &str) {
        self.add(label, "=", value);
    }

    fn add_any(&mut self, label: &str) {
        self.add(label, "!=", "");
    }

    fn add_one_of(&mut self, label: &str, values: &[String]) {
        self.add(label, "=~", &joined(values));
    }

    fn add_selector(&mut self, selector: &Selector) -> Result<(), QueryError> {
        for Requirement {
            key,
            operator,
            values,
        } in &selector.0
        {
            match (operator, values.as_slice()) {
                (Operator::Exists, _) => self.add_any(key),
                (Operator::DoesNotExist, _) => self.add(key, "=", ""),
                (_, []) => return Err(QueryError::NoValues(key.clone())),
                (Operator::Equals | Operator::In, [value]) => self.add_equal(key, value),
                (Operator::Equals | Operator::In, values) => self.add_one_of(key, values),
                (Operator::NotEquals | Operator::NotIn, [value]) => self.add(key, "!=", value),
                (Operator::NotEquals | Operator::NotIn, values) => {
                    self.add(key, "!~", &joined(values))
                }
            }
        }
        Ok(())
    }
}

fn joined(values: &[String]) -> String {
    let escaped: Vec<String> = values.iter().map(|value| escape(value)).collect();
    escaped.join("|")
}

/// Names of objects hold nothing that a pattern takes as special but the dot; a dash is special between brackets only.
fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        if "\\.+*?()|[]{}^$".contains(character) {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// A text as PromQL writes it.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            character if character.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(character)))
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

fn pattern(text: &str, place: String) -> Result<Regex, ConfigError> {
    Regex::new(text).map_err(|error| ConfigError::new(place, error.to_string()))
}

fn naming(name: Option<&RawName>, place: &str) -> Result<(Regex, String), ConfigError> {
    let matches = name
        .and_then(|name| name.matches.as_deref())
        .unwrap_or(".*");
    let compiled = pattern(matches, format!("{place}.name.matches"))?;
    let given = name
        .and_then(|name| name.as_.clone())
        .filter(|text| !text.is_empty());
    let name_as = match (given, compiled.captures_len() - 1) {
        (Some(text), _) => text,
        (None, 0) => "$0".to_owned(),
        (None, 1) => "$1".to_owned(),
        (None, groups) => {
            let reason = format!(
                "is missing; name.matches has {groups} groups, so say how the name is made of them"
            );
            return Err(ConfigError::new(format!("{place}.name.as"), reason));
        }
    };
    Ok((compiled, name_as))
}

fn compiled_filter(filter: RawFilter, place: &str) -> Result<Filter, ConfigError> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    match (given(filter.is), given(filter.is_not)) {
        (Some(text), None) => Ok(Filter {
            pattern: pattern(&text, format!("{place}.is"))?,
            wanted: true,
        }),
        (None, Some(text)) => Ok(Filter {
            pattern: pattern(&text, format!("{place}.isNot"))?,
            wanted: false,
        }),
        _ => Err(ConfigError::new(place, "needs exactly one of is or isNot")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::AdapterConfig;
    use super::super::kinds::samples;
    use super::*;

    fn sample() -> AdapterConfig {
        AdapterConfig::parse(include_str!("sample.yaml")).unwrap()
    }

    #[test]
    fn metrics_are_named_as_the_rules_say() {
        let config = sample();
        let name = |rule: usize, series: &str| config.rules[rule].metric_name(series);
        assert_eq!(
            name(0, "container_memory_bytes").as_deref(),
            Some("memory_bytes")
        );
        assert_eq!(name(0, "container_cpu_total"), None, "filtered by isNot");
        assert_eq!(
            name(1, "http_requests_total").as_deref(),
            Some("http_requests_per_second")
        );
        assert_eq!(name(1, "grpc_requests_total"), None, "filtered by is");
        assert_eq!(name(2, "active_devices").as_deref(), Some("active_devices"));
        assert_eq!(name(4, "requests_in_flight").as_deref(), Some("in_flight"));
        assert_eq!(
            config.external_rules[0]
                .metric_name("queue_depth")
                .as_deref(),
            Some("depth")
        );
    }

    /// The charts of prometheus-adapter write every field, also those that say nothing.
    #[test]
    fn empty_fields_mean_the_same_as_absent_ones() {
        let text = |name: &str| {
            format!(
                "rules: [{{seriesQuery: 'x', seriesFilters: [], name: {name}, metricsQuery: 'q',\
                 resources: {{template: '', overrides: {{pod: {{group: '', resource: pod}}}}}}}}]"
            )
        };
        for name in [
            "{matches: '', as: ''}",
            "{matches: ''}",
            "{as: ''}",
            "{}",
            "null",
        ] {
            let config = AdapterConfig::parse(&text(name)).unwrap();
            let named = config.rules[0].metric_name("http_requests");
            assert_eq!(named.as_deref(), Some("http_requests"), "{name}");
        }
        let config = AdapterConfig::parse(&text("{matches: '', as: 'own'}")).unwrap();
        assert_eq!(config.rules[0].metric_name("x").as_deref(), Some("own"));
    }

    fn query(
        rule: usize,
        series: &str,
        resource: &str,
        names: Names<'_>,
        selector: &str,
    ) -> String {
        let (config, kinds) = (sample(), samples());
        let selector = Selector::parse(selector).unwrap();
        let asked = (&GroupResource::parse(resource), Some("shop"), names);
        config.rules[rule]
            .custom_query(series, asked, &selector, &kinds)
            .unwrap()
    }

    #[test]
    fn queries_for_objects_are_built_as_the_adapter_builds_them() {
        let two = ["web-1".to_owned(), "web.2".to_owned()];
        assert_eq!(
            query(0, "container_x", "pods", Names::Many(&two), ""),
            "sum(container_x{namespace=\"shop\",pod=~\"web-1|web\\\\.2\",container!=\"POD\"}) by (pod)"
        );
        assert_eq!(
            query(
                1,
                "http_requests_total",
                "services",
                Names::One("web"),
                "code=200,method in (GET,PUT),!error,path!=/x"
            ),
            "sum(rate(http_requests_total{code=\"200\",method=~\"GET|PUT\",error=\"\",path!=\"/x\",namespace=\"shop\",service=\"web\"}[1m])) by (service)"
        );
        assert_eq!(
            query(
                4,
                "requests_in_flight",
                "deployments.apps",
                Names::One("web"),
                ""
            ),
            "sum(requests_in_flight{ns=\"shop\",deploy=~\"web\"}) by (deploy)"
        );
    }

    #[test]
    fn many_names_are_not_listed_when_the_namespace_suffices() {
        let many: Vec<String> = (0..1_000).map(|number| format!("web-{number}")).collect();
        assert_eq!(
            query(0, "container_x", "pods", Names::Many(&many), ""),
            "sum(container_x{namespace=\"shop\",pod!=\"\",container!=\"POD\"}) by (pod)"
        );
        // The template takes the names apart itself, so it needs them.
        assert!(
            query(
                4,
                "requests_in_flight",
                "deployments.apps",
                Names::Many(&many),
                ""
            )
            .contains("web-999")
        );
    }

    #[test]
    fn external_queries_have_the_namespace_unless_told_otherwise() {
        let (config, kinds) = (sample(), samples());
        let selector = Selector::parse("queue=orders").unwrap();
        let ask = |rule: usize, series: &str| {
            config.external_rules[rule].external_query(series, "shop", &selector, &kinds)
        };
        assert_eq!(
            ask(0, "queue_depth").unwrap(),
            "max(queue_depth{queue=\"orders\",namespace=\"shop\"}) by (queue)"
        );
        assert_eq!(
            ask(1, "sales_total").unwrap(),
            "sum(rate(sales_total{queue=\"orders\"}[2m]))"
        );
    }

    #[test]
    fn texts_are_quoted_for_promql() {
        assert_eq!(quote("a\"b\\c\n\u{1}é"), "\"a\\\"b\\\\c\\n\\u0001é\"");
    }
}
