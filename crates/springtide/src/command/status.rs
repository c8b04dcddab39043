//! `springtide status`: what is served from a data directory.

use std::process::ExitCode;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use kube::api::ListParams;

use crate::cli::{Output, StatusArguments};
use crate::data_dir::DataDir;
use crate::printer;
use crate::status::{ClusterStatus, LoadBalancerStatus, NodeStatus};

pub async fn run(arguments: StatusArguments) -> anyhow::Result<ExitCode> {
    let StatusArguments { cluster, output } = arguments;
    let data_dir = DataDir::new(&cluster.data_dir);
    let Some(mut status) = ClusterStatus::read(&data_dir)? else {
        anyhow::bail!(
            "no cluster is served from {}; start one with `springtide up --data-dir {}`",
            data_dir.root().display(),
            data_dir.root().display()
        );
    };
    let client = super::client(&data_dir).await?;
    status.nodes = nodes(&client).await?;
    status.load_balancers = load_balancers(&client).await?;
    match output {
        Output::Json => printer::data(serde_json::to_string_pretty(&status)?),
        Output::Text => printer::data(text(&status)),
    }
    Ok(ExitCode::SUCCESS)
}

async fn nodes(client: &kube::Client) -> anyhow::Result<Vec<NodeStatus>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let list = nodes
        .list(&ListParams::default())
        .await
        .context("list nodes")?;
    let is_ready = |node: &Node| {
        let conditions = node
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        conditions
            .into_iter()
            .flatten()
            .any(|one| one.type_ == "Ready" && one.status == "True")
    };
    Ok(list
        .items
        .iter()
        .map(|node| NodeStatus {
            name: node.metadata.name.clone().unwrap_or_default(),
            ready: is_ready(node),
        })
        .collect())
}

/// Services of type LoadBalancer with an address.
pub(crate) async fn load_balancers(
    client: &kube::Client,
) -> anyhow::Result<Vec<LoadBalancerStatus>> {
    let services: Api<Service> = Api::all(client.clone());
    let list = services
        .list(&ListParams::default())
        .await
        .context("list services")?;
    Ok(list
        .items
        .iter()
        .filter_map(|service| {
            let ingress = service
                .status
                .as_ref()?
                .load_balancer
                .as_ref()?
                .ingress
                .as_ref()?
                .first()?;
            // A port that had to give way is told in the ingress' own list.
            let own = ingress.ports.as_ref().filter(|ports| !ports.is_empty());
            let ports = match own {
                Some(ports) => ports.iter().map(|port| port.port).collect(),
                None => service
                    .spec
                    .as_ref()?
                    .ports
                    .iter()
                    .flatten()
                    .map(|port| port.port)
                    .collect(),
            };
            Some(LoadBalancerStatus {
                namespace: service.metadata.namespace.clone()?,
                name: service.metadata.name.clone()?,
                ip: ingress.ip.clone()?,
                ports,
            })
        })
        .collect())
}

fn text(status: &ClusterStatus) -> String {
    let mut text = format!(
        "API         {}\nkubeconfig  {}\ncloud       {} at http://{}{}\nlog service {}\ndata        {}\nprocess     {}\n",
        status.api.url,
        status.kubeconfig.display(),
        status.cloud.region,
        status.cloud.eci.endpoint,
        if status.cloud.simulated {
            " (SIMULATED)"
        } else {
            ""
        },
        match status.cloud.sls.endpoint.as_str() {
            "" => "-".to_string(),
            endpoint => format!("http://{endpoint}"),
        },
        status.data_dir.display(),
        status.pid
    );
    for node in &status.nodes {
        text += &format!(
            "node        {} {}\n",
            node.name,
            if node.ready { "Ready" } else { "NotReady" }
        );
    }
    for balancer in &status.load_balancers {
        let ports: Vec<String> = balancer
            .ports
            .iter()
            .map(|port| format!("http://{}:{port}", balancer.ip))
            .collect();
        text += &format!(
            "service     {}/{} {}\n",
            balancer.namespace,
            balancer.name,
            ports.join(" ")
        );
    }
    text.trim_end().to_string()
}
