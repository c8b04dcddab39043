//! Tests of the local cloud through its front door.
// The lint's exemption for tests does not reach their helper functions.
#![allow(clippy::unwrap_used)]

mod actions;
mod admission;
mod caches;
mod control;
mod durability;
mod exec;
mod faults;
mod gateway;
mod history;
mod identity;
mod lifecycle;
mod logs;
mod real;
mod scale;
mod sdk;
mod support;
mod tasks;
mod terms;
