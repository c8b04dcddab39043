//! All scaling controllers together, the same on a local cluster and on any other one.

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::cron_horizontal_pod_autoscaler::{
    CronHorizontalPodAutoscalerConfig, run_cron_horizontal_pod_autoscaler,
};
use crate::elastic_forecast::{ElasticForecastConfig, run_elastic_forecast};
use crate::elastic_workload::{ElasticWorkloadConfig, run_elastic_workload};
use crate::fast_horizontal_pod_autoscaler::{
    FastAutoscalerConfig, run_fast_horizontal_pod_autoscaler,
};
use crate::foreign::run_while_ours;
use crate::policy_view::{RESOURCE_POLICIES, WORKLOAD_SPREADS};
use crate::resource_policy::{ResourcePolicyConfig, run_resource_policy};
use crate::united_deployment::{UnitedDeploymentConfig, run_united_deployment};
use crate::workload_spread::{WorkloadSpreadConfig, run_workload_spread};

const UNITED_DEPLOYMENTS: &str = "uniteddeployments.apps.kruise.io";

/// How the controllers behave.
#[derive(Clone, Debug, Default)]
pub struct ControllersConfig {
    /// The CronHPA controller.
    pub cron_horizontal_pod_autoscaler: CronHorizontalPodAutoscalerConfig,
    /// The overflow controller.
    pub elastic_workload: ElasticWorkloadConfig,
    /// The controller of UnitedDeployments.
    pub united_deployment: UnitedDeploymentConfig,
    /// The controller of WorkloadSpreads.
    pub workload_spread: WorkloadSpreadConfig,
    /// The controller of ResourcePolicies.
    pub resource_policy: ResourcePolicyConfig,
    /// The fast path of autoscalers that ask for it.
    pub fast_autoscaler: FastAutoscalerConfig,
    /// The forecast controller.
    pub elastic_forecast: ElasticForecastConfig,
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
        run_elastic_workload(client.clone(), config.elastic_workload, shutdown.clone()),
        run_fast_horizontal_pod_autoscaler(
            client.clone(),
            config.fast_autoscaler,
            shutdown.clone()
        ),
        run_elastic_forecast(client.clone(), config.elastic_forecast, shutdown.clone()),
        run_while_ours(
            client.clone(),
            UNITED_DEPLOYMENTS,
            shutdown.clone(),
            |stop| run_united_deployment(client.clone(), config.united_deployment.clone(), stop)
        ),
        run_while_ours(client.clone(), WORKLOAD_SPREADS, shutdown.clone(), |stop| {
            run_workload_spread(client.clone(), config.workload_spread.clone(), stop)
        }),
        run_while_ours(client.clone(), RESOURCE_POLICIES, shutdown, |stop| {
            run_resource_policy(client.clone(), config.resource_policy.clone(), stop)
        }),
    );
}
