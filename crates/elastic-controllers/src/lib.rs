//! The controllers that work on any Kubernetes cluster: ElasticWorkload, the kinds of its successors,
//! CronHorizontalPodAutoscaler, ElasticForecast and the admission of serverless pods.
//!
//! They watch, ask `elastic-core` what to do, and patch. They refuse to decide by themselves and know nothing of the local
//! cluster; a `kube` client is all they get.

pub mod admission;
mod burst;
mod clock;
pub mod cron_horizontal_pod_autoscaler;
mod definition;
mod desk;
pub mod elastic_forecast;
pub mod elastic_workload;
pub mod fast_horizontal_pod_autoscaler;
mod foreign;
mod pass;
mod pods;
mod policy_view;
pub mod resource_policy;
mod routing;
mod run;
pub mod united_deployment;
pub mod workload_spread;

pub use admission::{
    AdmissionConfig, AdmissionIdentity, IdentityFiles, WebhookAddress, register_admission,
    run_admission,
};
pub use burst::run_burst;
pub use clock::{Clock, SystemClock};
pub use cron_horizontal_pod_autoscaler::{
    CronHorizontalPodAutoscalerConfig, JobCounts, run_cron_horizontal_pod_autoscaler,
};
pub use definition::{DefinitionError, install_definitions};
pub use elastic_forecast::{ElasticForecastConfig, run_elastic_forecast};
pub use elastic_workload::{ElasticWorkloadConfig, return_replicas, run_elastic_workload};
pub use fast_horizontal_pod_autoscaler::{
    FastAutoscalerConfig, run_fast_horizontal_pod_autoscaler,
};
pub use resource_policy::{ResourcePolicyConfig, run_resource_policy};
pub use routing::{RoutingView, follow_routing};
pub use run::{ControllersConfig, run_controllers};
pub use united_deployment::{UnitedDeploymentConfig, run_united_deployment};
pub use workload_spread::{WorkloadSpreadConfig, run_workload_spread};
