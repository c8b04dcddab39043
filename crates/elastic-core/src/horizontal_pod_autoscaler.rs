//! The mathematics of HorizontalPodAutoscaler v2: from a spec, the target's scale, its pods and the metric samples
//! to a replica count, conditions, events and status, as kube-controller-manager 1.34 computes them.
//!
//! Everything here is a plain function of its arguments: no clock, no client, no randomness. The running controller
//! and the planner call the same [`decide`].

pub mod decide;
pub mod fast;
pub mod limits;
pub mod proposal;
mod quantity;
mod requests;
pub mod scale;
pub mod scalings;
pub mod selectors;
mod source;
pub mod status;
mod whole;

pub use decide::{
    Decision, EventText, Flags, Observed, Reading, Rescale, SelectorFault, decide,
    is_scaled_to_zero, needs_metrics,
};
pub use fast::{Direction, FastPath};
pub use limits::Memory;
pub use proposal::{PodView, ReadyView, Sample, Samples};
pub use scale::ScaleView;
pub use scalings::{Scaling, scalings_of, with_scaling};
pub use selectors::Selectors;
pub use status::{Outcome, next_status, scale_outcome_events, scale_read_failed};
