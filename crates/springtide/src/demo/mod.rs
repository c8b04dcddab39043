//! The main job, shown and judged: a shop meets a flash sale, overflows on to serverless containers and comes back.

pub mod bench;
pub mod bench_scale;
pub mod bench_scaling;
pub mod bench_virtual_node;
mod chart;
mod judge;
mod latency;
mod manifests;
mod record;
mod report;
mod run;

pub use run::run;
