//! Which label of a series names which object, and back: by the overrides first, by a template otherwise.

use std::collections::{BTreeMap, HashMap};

use super::config::{ConfigError, RawResources};
use super::kinds::{GroupResource, KindRow, Kinds};
use super::rule::QueryError;
use super::template::{Data, Fields, Template};

const LABEL_FIELDS: [&str; 2] = ["Group", "Resource"];

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct ObjectLabels {
    overrides: BTreeMap<String, (String, String)>,
    template: Option<Template>,
}

impl ObjectLabels {
    /// Understands `resources` of the rule at `place`.
    pub(super) fn compile(resources: RawResources, place: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            template: template(&resources, place)?,
            overrides: overrides(resources, place)?,
        })
    }

    /// The resources that labels stand for, by label. A name of several groups' resources means the first group's.
    pub(crate) fn labels(&self, kinds: &Kinds) -> HashMap<String, GroupResource> {
        let mut labels = HashMap::new();
        let rendered = |group: &str, name: &str| {
            let template = self.template.as_ref()?;
            template
                .render(&label_fields(&group.replace('.', "_"), name))
                .ok()
        };
        let names: [fn(&KindRow) -> String; 2] = [KindRow::singular, |row| row.plural.clone()];
        for name in names {
            for row in kinds.rows() {
                if let Some(label) = rendered(&row.group, &name(row)) {
                    labels.entry(label).or_insert_with(|| row.resource());
                }
            }
        }
        for (label, (group, name)) in &self.overrides {
            match kinds.named(group, name) {
                Some(row) => labels.insert(label.clone(), row.resource()),
                None => labels.remove(label),
            };
        }
        labels
    }

    /// The label whose value is the name of such an object.
    pub(crate) fn label_of(
        &self,
        resource: &GroupResource,
        kinds: &Kinds,
    ) -> Result<String, QueryError> {
        let none = || QueryError::NoLabel(resource.clone());
        let overridden = self.overrides.iter().find(|(_, (group, name))| {
            kinds
                .named(group, name)
                .is_some_and(|row| row.resource() == *resource)
        });
        if let Some((label, _)) = overridden {
            return Ok(label.clone());
        }
        let row = kinds.of(resource).ok_or_else(none)?;
        let template = self.template.as_ref().ok_or_else(none)?;
        Ok(template.render(&label_fields(&row.group.replace('.', "_"), &row.singular()))?)
    }
}

fn label_fields(group: &str, resource: &str) -> Fields {
    BTreeMap::from([
        ("Group", Data::Text(group.to_owned())),
        ("Resource", Data::Text(resource.to_owned())),
    ])
}

fn template(resources: &RawResources, place: &str) -> Result<Option<Template>, ConfigError> {
    let Some(text) = resources
        .template
        .as_deref()
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    let place = format!("{place}.resources.template");
    let template = Template::parse(text, &LABEL_FIELDS);
    let template = template.map_err(|error| ConfigError::new(place.clone(), error.to_string()))?;
    if !template.uses("Resource") {
        let reason = "does not name <<.Resource>>, so no label could be told from another";
        return Err(ConfigError::new(place, reason));
    }
    Ok(Some(template))
}

fn overrides(
    resources: RawResources,
    place: &str,
) -> Result<BTreeMap<String, (String, String)>, ConfigError> {
    let mut overrides = BTreeMap::new();
    for (label, resource) in resources.overrides.unwrap_or_default() {
        if resource.resource.is_empty() {
            let field = format!("{place}.resources.overrides.{label}");
            return Err(ConfigError::new(
                field,
                "names no resource, such as pod or deployment",
            ));
        }
        overrides.insert(label, (resource.group, resource.resource));
    }
    Ok(overrides)
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
    fn labels_name_objects_by_override_and_by_template() {
        let (config, kinds) = (sample(), samples());
        let cases = [
            (0, "pod", Some("pods")),
            (0, "image", None),
            (1, "service", Some("services")),
            (1, "services", Some("services")),
            (1, "job", None),
            (1, "ingress", Some("ingresses.networking.k8s.io")),
            (3, "kube_apps_deployment", Some("deployments.apps")),
            (
                3,
                "kube_networking_k8s_io_ingress",
                Some("ingresses.networking.k8s.io"),
            ),
            (3, "exported_namespace", Some("namespaces")),
            (3, "namespace", None),
        ];
        for (rule, label, wanted) in cases {
            let labels = config.rules[rule].objects.labels(&kinds);
            let found = labels.get(label).map(ToString::to_string);
            assert_eq!(found.as_deref(), wanted, "{rule} {label}");
        }
    }

    #[test]
    fn labels_of_objects_are_found_back() {
        let (config, kinds) = (sample(), samples());
        let label = |rule: usize, resource: &str| {
            config.rules[rule]
                .objects
                .label_of(&GroupResource::parse(resource), &kinds)
                .ok()
        };
        assert_eq!(label(0, "pods").as_deref(), Some("pod"));
        assert_eq!(label(0, "services"), None);
        assert_eq!(
            label(3, "ingresses.networking.k8s.io").as_deref(),
            Some("kube_networking_k8s_io_ingress")
        );
        assert_eq!(label(4, "deployments.apps").as_deref(), Some("deploy"));
    }
}
