//! All scaling controllers together, the same on a local cluster and on any other one.

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::elastic_workload::{ElasticWorkloadConfig, run_elastic_workload};

/// How the controllers behave.
#[derive(Clone, Debug, Default)]
pub struct ControllersConfig {
    /// The overflow controller.
    pub elastic_workload: ElasticWorkloadConfig,
}

/// Runs every controller until `shutdown`. The definitions must be installed before (see `install_definitions`).
pub async fn run_controllers(
    client: Client,
    config: ControllersConfig,
    shutdown: CancellationToken,
) {
    tokio::join!(run_elastic_workload(
        client,
        config.elastic_workload,
        shutdown
    ));
}
