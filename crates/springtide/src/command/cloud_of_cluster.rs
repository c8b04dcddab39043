//! The cloud of any cluster: place and keys as the installed controller has them, under what flags and environment say.

use std::collections::BTreeMap;

use anyhow::Context;
use cloud_api::{ClientSources, EciClient, EciConfig};
use elastic_install::names::NAMESPACE;
use elastic_install::operator::credentials::{self, METADATA_ENDPOINT};
use elastic_install::operator::settings::endpoints;
use elastic_install::status;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};

use super::environment;
use crate::cli::CloudPlaceArguments;

/// See the module.
pub(crate) struct CloudOfCluster {
    variables: BTreeMap<String, String>,
    flags: CloudPlaceArguments,
}

impl CloudOfCluster {
    pub(crate) async fn find(client: &Client, flags: CloudPlaceArguments) -> anyhow::Result<Self> {
        let installed = status::installed(client).await;
        let installed = installed.context("look for the installation")?;
        let mut variables = installed
            .map(|options| options.environment)
            .unwrap_or_default();
        let said = environment();
        variables.extend(said.into_iter().filter(|(_, value)| !value.is_empty()));
        Ok(Self { variables, flags })
    }

    fn named(&self, flag: &Option<String>, variable: &str) -> Option<String> {
        let installed = self.variables.get(variable);
        let installed = installed.filter(|text| !text.is_empty());
        flag.clone().or_else(|| installed.cloned())
    }

    /// What the cluster's groups are tagged with.
    pub(crate) async fn cluster_id(&self, client: &Client) -> anyhow::Result<String> {
        match self.named(&self.flags.cluster_id, "ALIYUN_CLUSTERID") {
            Some(id) => Ok(id),
            None => cluster_uid(client).await,
        }
    }

    /// `region_why` ends the sentence that asks for a region which nobody names.
    pub(crate) async fn eci(&self, client: &Client, region_why: &str) -> anyhow::Result<EciClient> {
        let region = self.named(&self.flags.region, "ECI_REGION");
        let region = region.with_context(|| format!("--region is missing; {region_why}"))?;
        let mut variables = self.variables.clone();
        if let Some(endpoint) = &self.flags.endpoint {
            variables.insert("ECI_ENDPOINT".to_string(), endpoint.clone());
        }
        let (credentials, source) =
            credentials::find(client, &variables, METADATA_ENDPOINT).await?;
        tracing::info!(%source, "access key found");
        let config = EciConfig::new(endpoints(&region, &variables).eci, region, credentials);
        EciClient::new(config, ClientSources::system()).context("use the cloud's endpoint")
    }
}

/// What the controller tags groups with when nobody names the cluster.
pub(crate) async fn cluster_uid(client: &Client) -> anyhow::Result<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let system = namespaces.get(NAMESPACE).await;
    let system = system.context("read the namespace whose UID names the cluster")?;
    Ok(system.uid().unwrap_or_default())
}
