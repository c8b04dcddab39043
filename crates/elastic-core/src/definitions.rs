//! The definitions of every kind we serve, for whoever installs them: a running controller, the add-on, the chart.
//!
//! Some kinds belong to groups of other products, so that their users' manifests work unchanged. Such a definition is ours
//! only where we made it, which its label says; one that somebody else installed is never overwritten, never removed, and
//! our controllers stay off its objects.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;

use crate::names::{KRUISE_GROUP, MANAGED_BY, MANAGED_BY_LABEL, SCHEDULING_GROUP};
use crate::{
    cron_horizontal_pod_autoscaler, elastic_metric, elastic_workload, forecast, resource_policy,
    united_deployment, workload_spread,
};

/// All definitions, in the order of their names.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        cron_horizontal_pod_autoscaler::custom_resource_definition(),
        forecast::custom_resource_definition(),
        elastic_metric::custom_resource_definition(),
        elastic_workload::custom_resource_definition(),
        resource_policy::custom_resource_definition(),
        united_deployment::custom_resource_definition(),
        workload_spread::custom_resource_definition(),
    ]
}

/// Whether a definition of this name is of a group that belongs to another product.
pub fn is_foreign(name: &str) -> bool {
    let group = name.split_once('.').map_or("", |(_, group)| group);
    [KRUISE_GROUP, SCHEDULING_GROUP].contains(&group)
}

/// Whether a definition found in a cluster may be changed, removed and acted on by us.
pub fn is_ours(found: &CustomResourceDefinition) -> bool {
    !is_foreign(&found.name_any())
        || found
            .labels()
            .get(MANAGED_BY_LABEL)
            .is_some_and(|by| by == MANAGED_BY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_named_by_its_plural_and_group() {
        for definition in definitions() {
            let expected = format!("{}.{}", definition.spec.names.plural, definition.spec.group);
            assert_eq!(definition.name_any(), expected);
        }
    }

    #[test]
    fn definitions_stand_in_the_order_of_their_names() {
        let names: Vec<String> = definitions().iter().map(ResourceExt::name_any).collect();
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn a_foreign_definition_is_ours_only_with_our_label() {
        for mut definition in definitions() {
            assert!(is_ours(&definition), "{}", definition.name_any());
            let foreign = !definition.spec.group.starts_with("autoscaling.");
            assert_eq!(is_foreign(&definition.name_any()), foreign);
            definition.metadata.labels = None;
            assert_eq!(is_ours(&definition), !foreign);
        }
    }
}
