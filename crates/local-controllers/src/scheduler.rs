//! The scheduler: finds a node for each pod that has none and binds it.
//!
//! Filters and reasons are upstream's. One deliberate difference: a virtual node (one that carries the provider's
//! taint) has near-endless capacity, so upstream's scores would draw pods that merely tolerate it away from the
//! nodes one owns; here worker nodes come first unless the pod prefers otherwise. Refuses preemption and volumes.

pub mod affinity;
pub mod board;
mod controller;
pub mod filters;
pub mod fit_error;
pub mod plan;
mod queue;
pub mod resources;
pub mod score;
pub mod spread;

pub use controller::start;
