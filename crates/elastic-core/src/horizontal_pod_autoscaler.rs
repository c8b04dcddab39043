//! The mathematics of HorizontalPodAutoscaler v2: from a spec, the target's scale, its pods and the metric samples
//! to a replica count, conditions, events and status, as kube-controller-manager 1.34 computes them.
//!
//! Everything here is a plain function of its arguments: no clock, no client, no randomness. The running controller
//! and the planner call the same [`decide`]. Object and External metrics are refused as unknown source types.

pub mod decide;
pub mod limits;
pub mod proposal;
mod quantity;
pub mod status;

pub use decide::{
    Decision, EventText, Flags, Observed, Rescale, SelectorFault, decide, needs_metrics,
};
pub use limits::Memory;
pub use proposal::{PodView, ReadyView, Sample, Samples};
pub use status::{Outcome, next_status, scale_outcome_events, scale_read_failed};
