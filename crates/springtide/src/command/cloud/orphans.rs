//! `springtide cloud orphans`: groups that cost money for a pod that is gone.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use cloud_api::EciClient;
use cloud_api::model::ContainerGroup;
use cloud_api::model::describe::{DescribeContainerGroupsRequest, Tag};
use elastic_core::names::tags;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::groups;
use crate::cli::{CloudPlaceArguments, Output};
use crate::cluster::eci_client;
use crate::command::client_from;
use crate::command::cloud_of_cluster::{CloudOfCluster, cluster_uid};
use crate::data_dir::DataDir;
use crate::printer;
use crate::status::ClusterStatus;

/// Where groups and pods are looked for.
pub struct Place {
    cloud: EciClient,
    kubernetes: Client,
    /// A cluster may have been named anew; groups keep the tag they were made with.
    cluster_ids: BTreeSet<String>,
}

impl Place {
    /// The local cluster: its own virtual nodes', and those of an add-on installed on it.
    pub async fn local(data_dir: &DataDir, status: &ClusterStatus) -> anyhow::Result<Self> {
        let kubernetes = crate::command::client(data_dir).await?;
        let installed = cluster_uid(&kubernetes).await?;
        Ok(Self {
            cloud: eci_client(&status.cloud)?,
            kubernetes,
            cluster_ids: BTreeSet::from([status.cluster_id.clone(), installed]),
        })
    }

    /// Any cluster that the add-on is installed on.
    pub async fn elsewhere(kubeconfig: &Path, flags: CloudPlaceArguments) -> anyhow::Result<Self> {
        let kubernetes = client_from(kubeconfig).await?;
        let cloud = CloudOfCluster::find(&kubernetes, flags).await?;
        let why = "name the region whose container groups are looked at";
        Ok(Self {
            cloud: cloud.eci(&kubernetes, why).await?,
            cluster_ids: BTreeSet::from([cloud.cluster_id(&kubernetes).await?]),
            kubernetes,
        })
    }

    /// Groups come first: a group that is listed has its pod before it, so a living one is found afterwards.
    async fn groups(&self) -> anyhow::Result<Vec<ContainerGroup>> {
        let mut all = Vec::new();
        for id in &self.cluster_ids {
            let own = DescribeContainerGroupsRequest {
                tag: vec![Tag {
                    key: tags::CLUSTER.to_string(),
                    value: id.clone(),
                }],
                ..Default::default()
            };
            let listed = self.cloud.all_container_groups(own).await;
            all.extend(listed.context("list the cloud's container groups")?);
        }
        Ok(all)
    }
}

pub async fn run(place: &Place, delete: bool, output: Output) -> anyhow::Result<()> {
    let listed = place.groups().await?;
    let pods: Api<Pod> = Api::all(place.kubernetes.clone());
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
            groups::delete(&place.cloud, &group.container_group_id).await?;
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
