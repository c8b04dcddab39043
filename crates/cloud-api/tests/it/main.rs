//! Tests of the crate through its public names.
// The lint's exemption for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

mod client;
mod log;
mod parameters;
