//! All scaling controllers together, the same on a local cluster and on any other one.

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::cron_horizontal_pod_autoscaler::{
    CronHorizontalPodAutoscalerConfig, run_cron_horizontal_pod_autoscaler,
};
use crate::elastic_workload::{ElasticWorkloadConfig, run_elastic_workload};

/// How the controllers behave.
#[derive(Clone, Debug, Default)]
pub struct ControllersConfig {
    /// The CronHPA controller.
    pub cron_horizontal_pod_autoscaler: CronHorizontalPodAutoscalerConfig,
    /// The overflow controller.
    pub elastic_workload: ElasticWorkloadConfig,
}

/// Runs every controller until `shutdown`. The definitions must be installed before (see `install_definitions`).
pub async fn run_controllers(
    client: Client,
    config: ControllersConfig,
    shutdown: CancellationToken,
) {
    let cron = config.cron_horizontal_pod_autoscaler;
    tokio::join!(
        run_cron_horizontal_pod_autoscaler(client.clone(), cron, shutdown.clone()),
        run_elastic_workload(client, config.elastic_workload, shutdown),
    );
}
