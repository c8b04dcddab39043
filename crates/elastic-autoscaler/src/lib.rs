//! Between the autoscaler's decision and a cluster: reads scales and metrics through a client, in upstream's requests and
//! upstream's words when they fail, asks `elastic-core` what to do, and writes `/scale`.
//!
//! The local cluster's own controller and the fast path on any cluster are thin loops around [`Autoscaler`]. It refuses to
//! decide anything itself, keeps no time of its own, and watches nothing: pods come in through [`PodSource`].

mod api;
mod autoscaler;
mod kinds;
mod metrics;
mod scale;
mod shared;

pub use autoscaler::{Autoscaler, AutoscalerSettings, Cycle, Observation, PodSource, Subject};
pub use scale::Scale;
