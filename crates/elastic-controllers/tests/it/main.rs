//! Drives the controllers through their public entrances.

#![allow(clippy::unwrap_used)] // helpers of tests count as tests

mod admission;
mod elastic_workload;
