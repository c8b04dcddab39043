//! Drives the kubelet server over real TLS connections with a backend made of plain data.

#![allow(clippy::unwrap_used)] // a failed step of a test should panic where it stands

mod fake;
mod serving;
mod spdy;
