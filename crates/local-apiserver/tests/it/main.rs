//! Tests of the server from outside.
#![allow(clippy::unwrap_used)] // helpers of tests may panic, too

mod crud;
mod golden;
mod tls;
