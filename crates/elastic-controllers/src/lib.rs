//! The controllers that work on any Kubernetes cluster: ElasticWorkload and the admission of serverless pods.
//!
//! They watch, ask `elastic-core` what to do, and patch. They refuse to decide by themselves and know nothing of the local
//! cluster; a `kube` client is all they get.

pub mod admission;
mod definition;
pub mod elastic_workload;

pub use admission::{AdmissionIdentity, WebhookAddress, register_admission, serve_admission};
pub use definition::{DefinitionError, install_definitions};
pub use elastic_workload::{ElasticWorkloadConfig, run_elastic_workload};
