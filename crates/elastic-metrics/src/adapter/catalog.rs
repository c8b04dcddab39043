//! Which metrics there are: from the series that Prometheus has now, by the rules.

use std::collections::{BTreeMap, BTreeSet};

use super::config::AdapterConfig;
use super::kinds::{GroupResource, Kinds};

/// Names of labels by name of series, for each series query.
pub(crate) type Series = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// What a metric of objects is found by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CustomKey {
    pub(crate) metric: String,
    pub(crate) resource: GroupResource,
    pub(crate) namespaced: bool,
}

/// The rule and the series behind a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) rule: usize,
    pub(crate) series: String,
}

/// All metrics by the rules. A later rule wins over an earlier one, as in prometheus-adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalog {
    pub(crate) custom: BTreeMap<CustomKey, Found>,
    pub(crate) external: BTreeMap<String, Found>,
}

impl Catalog {
    pub(crate) fn new(config: &AdapterConfig, series: &Series, kinds: &Kinds) -> Self {
        let mut catalog = Self::default();
        for (index, rule) in config.rules.iter().enumerate() {
            let objects = rule.objects.labels(kinds);
            for (name, labels) in series.get(&rule.series_query).into_iter().flatten() {
                let Some(metric) = rule.metric_name(name) else {
                    continue;
                };
                let resources = labels.iter().filter_map(|label| objects.get(label));
                let resources: BTreeSet<_> = resources.cloned().collect();
                let namespaced = resources.iter().any(GroupResource::is_namespace);
                for resource in resources {
                    let key = CustomKey {
                        metric: metric.clone(),
                        // Metrics of a namespace are asked for by its name alone.
                        namespaced: namespaced && !resource.is_namespace(),
                        resource,
                    };
                    catalog.custom.insert(key, found(index, name));
                }
            }
        }
        for (index, rule) in config.external_rules.iter().enumerate() {
            for name in series
                .get(&rule.series_query)
                .into_iter()
                .flatten()
                .map(|(name, _)| name)
            {
                if let Some(metric) = rule.metric_name(name) {
                    catalog.external.insert(metric, found(index, name));
                }
            }
        }
        catalog
    }
}

fn found(rule: usize, series: &str) -> Found {
    Found {
        rule,
        series: series.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::samples;
    use super::*;

    #[test]
    fn series_become_metrics_of_every_object_they_name() {
        let config = AdapterConfig::parse(include_str!("sample.yaml")).unwrap();
        let labels = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let mut series = Series::new();
        let devices = BTreeMap::from([(
            "active_devices".to_owned(),
            labels(&["namespace", "service", "job"]),
        )]);
        series.insert(config.rules[2].series_query.clone(), devices);
        let queues = BTreeMap::from([
            ("queue_depth".to_owned(), labels(&["queue"])),
            ("other".to_owned(), labels(&[])),
        ]);
        series.insert(config.external_rules[0].series_query.clone(), queues);
        let catalog = Catalog::new(&config, &series, &samples());
        let names: Vec<String> = catalog
            .custom
            .keys()
            .map(|key| format!("{}/{} {}", key.resource, key.metric, key.namespaced))
            .collect();
        assert_eq!(
            names,
            [
                "namespaces/active_devices false",
                "services/active_devices true"
            ]
        );
        assert_eq!(catalog.external.keys().collect::<Vec<_>>(), ["depth"]);
    }
}
