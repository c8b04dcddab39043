//! `resourceRules`: how `metrics.k8s.io` is asked of Prometheus. CPU and memory each have a query for containers and one for
//! nodes; both kinds of metric are needed, because an autoscaler's pod without one of them counts as missing.

use super::config::{ConfigError, RawResourceRule, RawResourceRules};
use super::kinds::{GroupResource, Kinds};
use super::object_labels::ObjectLabels;
use super::rule::{Matchers, QueryError, query_fields};
use super::template::Template;

const FIELDS: [&str; 4] = [
    "LabelMatchers",
    "LabelValuesByName",
    "GroupBy",
    "GroupBySlice",
];
/// Reported when the file names no window; prometheus-adapter's own default.
const DEFAULT_WINDOW_SECONDS: f64 = 60.0;
/// Every name there is: a matcher that also serves where a template takes the values apart.
const ANY_NAME: &str = ".+";

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct ResourceRules {
    pub(crate) cpu: ResourceRule,
    pub(crate) memory: ResourceRule,
    /// Reported with each value: what the rates are averages of.
    pub(crate) window_seconds: f64,
}

/// How one resource is asked for.
#[derive(Clone, Debug)]
pub(crate) struct ResourceRule {
    containers: Template,
    nodes: Template,
    objects: ObjectLabels,
    /// The label with a container's name.
    pub(crate) container_label: String,
}

/// A query, and the label by which its series name objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabelledQuery {
    pub(crate) text: String,
    pub(crate) label: String,
}

impl ResourceRules {
    pub(super) fn compile(raw: RawResourceRules) -> Result<Self, ConfigError> {
        let window_seconds = match raw.window.as_deref().map(str::trim) {
            None | Some("") => DEFAULT_WINDOW_SECONDS,
            Some(text) => window_seconds(text).ok_or_else(|| {
                let reason = format!("{text:?} is no duration; write it like 30s, 3m or 1h30m");
                ConfigError::new("resourceRules.window", reason)
            })?,
        };
        Ok(Self {
            cpu: ResourceRule::compile(raw.cpu, "resourceRules.cpu")?,
            memory: ResourceRule::compile(raw.memory, "resourceRules.memory")?,
            window_seconds,
        })
    }
}

impl ResourceRule {
    fn compile(raw: Option<RawResourceRule>, place: &str) -> Result<Self, ConfigError> {
        let missing = |field: &str, what: &str| {
            let field = format!("{place}{field}");
            ConfigError::new(field, format!("is missing; {what}"))
        };
        let raw = raw.ok_or_else(|| missing("", "cpu and memory are both needed"))?;
        let template = |field: &str, text: &str| {
            if text.trim().is_empty() {
                return Err(missing(field, "give the query's template"));
            }
            let parsed = Template::parse(text, &FIELDS);
            parsed.map_err(|error| ConfigError::new(format!("{place}{field}"), error.to_string()))
        };
        let containers = template(".containerQuery", &raw.container_query)?;
        let nodes = template(".nodeQuery", &raw.node_query)?;
        if raw.container_label.is_empty() {
            let what = "name the label with a container's name, such as container";
            return Err(missing(".containerLabel", what));
        }
        Ok(Self {
            containers,
            nodes,
            objects: ObjectLabels::compile(raw.resources.unwrap_or_default(), place)?,
            container_label: raw.container_label,
        })
    }

    /// Asks for all containers of a namespace; the label names pods.
    pub(crate) fn container_query(
        &self,
        namespace: &str,
        kinds: &Kinds,
    ) -> Result<LabelledQuery, QueryError> {
        let label_of = |plural| {
            self.objects
                .label_of(&GroupResource::new("", plural), kinds)
        };
        let (of_namespace, label) = (label_of("namespaces")?, label_of("pods")?);
        let mut matchers = Matchers::default();
        matchers.add_equal(&of_namespace, namespace);
        matchers.add(&label, "=~", ANY_NAME);
        let group_by = vec![label.clone(), self.container_label.clone()];
        let text = self
            .containers
            .render(&query_fields("", matchers, group_by))?;
        Ok(LabelledQuery { text, label })
    }

    /// Asks for all nodes; the label names them.
    pub(crate) fn node_query(&self, kinds: &Kinds) -> Result<LabelledQuery, QueryError> {
        let label = self
            .objects
            .label_of(&GroupResource::new("", "nodes"), kinds)?;
        let mut matchers = Matchers::default();
        matchers.add(&label, "=~", ANY_NAME);
        let fields = query_fields("", matchers, vec![label.clone()]);
        let text = self.nodes.render(&fields)?;
        Ok(LabelledQuery { text, label })
    }
}

/// Prometheus' durations: `90s`, `3m`, `1h30m`, `500ms`.
fn window_seconds(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 7] = [
        ("ms", 0.001),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3_600.0),
        ("d", 86_400.0),
        ("w", 604_800.0),
        ("y", 31_536_000.0),
    ];
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, factor) = UNITS.iter().find(|(unit, _)| {
            let longer = *unit == "m" && rest.starts_with("ms");
            rest.starts_with(unit) && !longer
        })?;
        seconds += f64::from(number) * factor;
        rest = &rest[unit.len()..];
    }
    (seconds > 0.0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::config::AdapterConfig;
    use super::super::kinds::samples;
    use super::*;

    fn rules() -> ResourceRules {
        let config = AdapterConfig::parse(include_str!("sample.yaml")).unwrap();
        config.resource_rules.unwrap()
    }

    #[test]
    fn containers_are_asked_for_by_namespace_and_nodes_all_at_once() {
        let (rules, kinds) = (rules(), samples());
        assert_eq!(
            rules.cpu.container_query("shop", &kinds).unwrap(),
            LabelledQuery {
                text: "sum(rate(container_cpu_usage_seconds_total{namespace=\"shop\",pod=~\".+\"}[3m])) by (pod,container)".to_owned(),
                label: "pod".to_owned(),
            }
        );
        assert_eq!(
            rules.memory.node_query(&kinds).unwrap(),
            LabelledQuery {
                text: "sum(node_memory_used_bytes{node=~\".+\"}) by (node)".to_owned(),
                label: "node".to_owned(),
            }
        );
        assert_eq!(rules.window_seconds, 180.0);
    }

    #[test]
    fn a_rule_that_names_no_label_for_pods_says_so() {
        let text = "resourceRules: {cpu: {containerQuery: x, nodeQuery: y, containerLabel: c}, \
                    memory: {containerQuery: x, nodeQuery: y, containerLabel: c}}";
        let config = AdapterConfig::parse(text).unwrap();
        let rules = config.resource_rules.unwrap();
        let refused = rules.cpu.container_query("shop", &samples()).unwrap_err();
        assert!(refused.to_string().contains("namespaces"), "{refused}");
        assert_eq!(rules.window_seconds, DEFAULT_WINDOW_SECONDS);
    }

    #[test]
    fn windows_are_written_as_prometheus_writes_them() {
        let cases = [
            ("3m", Some(180.0)),
            ("1h30m", Some(5_400.0)),
            ("500ms", Some(0.5)),
            ("1m500ms", Some(60.5)),
            ("0s", None),
            ("3", None),
            ("m", None),
            ("3 m", None),
            ("-3m", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(window_seconds(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_window_panics(text in "\\PC{0,20}") {
            let _ = window_seconds(&text);
        }
    }
}
