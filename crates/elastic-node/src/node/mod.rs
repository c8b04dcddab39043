//! The Node objects: what they show, and their heartbeat.

mod heartbeat;
mod object;

pub(crate) use heartbeat::{keep_alive, unregister};
pub(crate) use object::{Mood, NodeFacts};
