//! The Node objects: what they show, and their heartbeat.

mod heartbeat;
mod object;

pub(crate) use heartbeat::keep_alive;
pub(crate) use object::NodeFacts;
