//! The worker node agent: what a kubelet does, for a logical node on this machine.
//!
//! It registers the node, keeps its lease, watches the pods bound to it and brings their containers in line through
//! `local-runtime` and `local-network`; status, logs, exec and usage go back through public APIs only.
//! Decisions ([`plan`], [`status`]) are plain functions over what is wanted and what is seen; [`pod_worker`] acts.
//!
//! It refuses placement, images' content, and anything a pod wants that this machine cannot give (said in an event).

mod backend;
mod config;
mod containers;
mod environment;
mod events;
mod http_get;
mod metrics;
mod node_object;
mod observed;
mod plan;
mod pod_worker;
mod probes;
mod setup;
mod status;
mod termination;
mod volumes;
mod worker;

pub use config::{Capacity, WorkerConfig};
pub use worker::{Worker, WorkerError};
