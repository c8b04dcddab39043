//! The workers of a local cluster.

use anyhow::Context;
use kubelet_api::ServerTls;
use local_apiserver::ApiServer;
use local_network::ClusterNetwork;
use local_node::{Capacity, Worker, WorkerConfig};
use local_runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::cli::SizeArguments;
use crate::cluster::addresses;
use crate::data_dir::DataDir;

/// Most pods of one worker, as upstream.
const PODS_MAX: u32 = 110;

/// Starts all workers at once and waits until each has registered Ready.
pub async fn start(
    data_dir: &DataDir,
    size: &SizeArguments,
    api: &ApiServer,
    runtime: &Runtime,
    network: &ClusterNetwork,
    shutdown: &CancellationToken,
) -> anyhow::Result<Vec<Worker>> {
    let starts = (0..size.workers).map(|index| {
        let config = config(data_dir, size, api, index);
        async move {
            let config = config?;
            let name = config.name.clone();
            Worker::start(
                config,
                api.client(),
                runtime.clone(),
                network.clone(),
                shutdown.clone(),
            )
            .await
            .with_context(|| format!("start worker {name}"))
        }
    });
    futures::future::try_join_all(starts).await
}

fn config(
    data_dir: &DataDir,
    size: &SizeArguments,
    api: &ApiServer,
    index: u32,
) -> anyhow::Result<WorkerConfig> {
    let name = format!("worker-{}", index + 1);
    let address = addresses::worker(index);
    let (certificate_pem, key_pem) = api
        .issue_serving_certificate(std::slice::from_ref(&name), &[address.into()])
        .with_context(|| format!("issue the kubelet certificate of {name}"))?;
    let ca_pem = api.credentials().ca_pem.clone();
    Ok(WorkerConfig {
        address,
        kubelet_port: addresses::KUBELET_PORT,
        pod_cidr: addresses::worker_pods(index),
        capacity: Capacity {
            cpu_milli: size.worker_cpu,
            memory_bytes: size.worker_memory,
            pods: PODS_MAX,
        },
        zone: size
            .zones
            .first()
            .cloned()
            .unwrap_or_else(|| "local".to_string()),
        region: "cn-hangzhou".to_string(),
        cluster_dns: addresses::CLUSTER_DNS,
        cluster_domain: "cluster.local".to_string(),
        volumes_dir: data_dir.volumes().join(&name),
        tls: ServerTls {
            certificate_pem,
            key_pem,
            client_ca_pem: ca_pem,
        },
        name,
    })
}
