//! The ReplicaSet controller: keeps the wanted number of pods, adopts and releases them, and reports their state.
//! Refuses to look at pods that another controller owns.

mod controller;
pub mod plan;
pub mod status;
pub mod victims;

pub use controller::start;
