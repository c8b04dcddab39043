//! `springtide cloud orphans`: groups that cost money for a pod that is gone.

use std::collections::BTreeSet;

use anyhow::Context;
use cloud_api::model::ContainerGroup;
use cloud_api::model::describe::{DescribeContainerGroupsRequest, Tag};
use elastic_core::names::tags;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::groups;
use crate::cli::Output;
use crate::cluster::eci_client;
use crate::data_dir::DataDir;
use crate::printer;
use crate::status::ClusterStatus;

pub async fn run(
    data_dir: &DataDir,
    status: &ClusterStatus,
    delete: bool,
    output: Output,
) -> anyhow::Result<()> {
    let cloud = eci_client(&status.cloud)?;
    let kubernetes = crate::command::client(data_dir).await?;
    let own = DescribeContainerGroupsRequest {
        tag: vec![Tag {
            key: tags::CLUSTER.to_string(),
            value: status.cluster_id.clone(),
        }],
        ..Default::default()
    };
    // Groups first: a group that is listed has its pod before it, so a living one is found afterwards.
    let listed = cloud.all_container_groups(own).await;
    let listed = listed.context("list the cloud's container groups")?;
    let pods: Api<Pod> = Api::all(kubernetes);
    let pods = pods
        .list(&ListParams::default())
        .await
        .context("list pods")?;
    let living: BTreeSet<String> = pods.items.iter().filter_map(ResourceExt::uid).collect();
    let orphans = orphans(&listed, &living);
    match output {
        Output::Json => printer::data(serde_json::to_string_pretty(&orphans)?),
        Output::Text if orphans.is_empty() => printer::note("every group has its pod"),
        Output::Text => printer::data(groups::table(&orphans)),
    }
    if delete {
        for group in &orphans {
            groups::delete(&cloud, &group.container_group_id).await?;
            let id = &group.container_group_id;
            printer::note(format!("container group {id} is being deleted"));
        }
    }
    Ok(())
}

/// The groups whose pod is not among the living.
fn orphans<'a>(groups: &'a [ContainerGroup], living: &BTreeSet<String>) -> Vec<&'a ContainerGroup> {
    let has_pod = |group: &ContainerGroup| {
        let mut tags = group.tags.iter();
        tags.any(|tag| tag.key == tags::UID && living.contains(&tag.value))
    };
    groups.iter().filter(|group| !has_pod(group)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_a_living_pod_is_an_orphan() {
        let group = |id: &str, uid: Option<&str>| ContainerGroup {
            container_group_id: id.to_string(),
            tags: uid
                .map(|uid| Tag {
                    key: tags::UID.to_string(),
                    value: uid.to_string(),
                })
                .into_iter()
                .collect(),
            ..Default::default()
        };
        let groups = [
            group("eci-a", Some("1")),
            group("eci-b", Some("2")),
            group("eci-c", None),
        ];
        let living = BTreeSet::from(["1".to_string()]);
        let found: Vec<&str> = orphans(&groups, &living)
            .iter()
            .map(|group| group.container_group_id.as_str())
            .collect();
        assert_eq!(found, ["eci-b", "eci-c"]);
    }
}
