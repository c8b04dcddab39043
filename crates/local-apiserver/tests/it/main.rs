//! Tests of the server from outside.
#![allow(clippy::unwrap_used)] // helpers of tests may panic, too

mod burst;
mod certificates;
mod crud;
mod custom;
mod durability;
mod golden;
mod kubectl;
mod kubelet;
mod remote;
mod tls;
mod walkthrough;
