//! Tests of the server from outside.
#![allow(clippy::unwrap_used)] // helpers of tests may panic, too

mod crud;
mod custom;
mod golden;
mod remote;
mod tls;
