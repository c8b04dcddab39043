//! The decisions of Springtide's elastic parts, as plain functions, and the types and names they share.
//!
//! What is here can be called by a running controller, by a dry run and by the cost planner alike, with the same answer.
//! The crate refuses IO, clocks, randomness and Kubernetes clients: time and state come in as arguments.

pub mod assignment;
pub mod cron;
pub mod cron_horizontal_pod_autoscaler;
pub mod definitions;
pub mod eci_annotations;
pub mod eci_profile;
pub mod elastic_metric;
pub mod elastic_workload;
pub mod events;
pub mod forecast;
pub mod horizontal_pod_autoscaler;
pub mod label_query;
pub mod names;
pub mod node_term;
pub mod patch_containers;
pub mod pod_facts;
pub mod pod_sizing;
pub mod quantity;
pub mod resource_policy;
pub mod routing;
mod schema_parts;
pub mod strategic_merge;
pub mod timeline;
pub mod united_deployment;
pub mod workload_spread;

pub use cron_horizontal_pod_autoscaler::CronHorizontalPodAutoscaler;
pub use elastic_metric::ElasticMetric;
pub use elastic_workload::ElasticWorkload;
pub use forecast::ElasticForecast;
