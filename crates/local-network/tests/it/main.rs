//! Tests of the cluster network against the kernel. They need root, as the product does.

#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure report

mod names;
mod pods;
mod services;
mod support;
