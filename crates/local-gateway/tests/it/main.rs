//! Tests of the gateway with real sockets and HTTP servers in this process.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure report

mod backend;
mod balancing;
mod churn;
mod client;
mod fake_api;
mod gateway;
mod real_api;
mod throughput;
