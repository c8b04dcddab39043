//! Replays recorded exchanges of a real control plane against this crate's functions.

#![allow(clippy::unwrap_used)] // helpers of tests, outside of test functions

mod custom;
mod decoding;
mod golden;
mod ownership;
mod patches;
mod protobuf;
