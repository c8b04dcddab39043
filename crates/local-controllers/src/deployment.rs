//! The Deployment controller: one replica set per template, rolled over within the bounds of surge and
//! unavailability. Refuses to touch pods; it only looks whether old ones still run before recreating.

mod controller;
pub mod plan;
pub mod rollout;
pub mod sets;
pub mod status;

pub use controller::start;
