//! The definitions of every kind of our own, for whoever installs them: a running controller, the add-on, the chart.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::{cron_horizontal_pod_autoscaler, elastic_workload};

/// All definitions, in the order of their names.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        cron_horizontal_pod_autoscaler::custom_resource_definition(),
        elastic_workload::custom_resource_definition(),
    ]
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    #[test]
    fn every_definition_is_named_by_its_plural_and_group() {
        for definition in super::definitions() {
            let expected = format!("{}.{}", definition.spec.names.plural, definition.spec.group);
            assert_eq!(definition.name_any(), expected);
        }
    }

    #[test]
    fn definitions_stand_in_the_order_of_their_names() {
        let names: Vec<String> = super::definitions()
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        assert!(names.is_sorted(), "{names:?}");
    }
}
