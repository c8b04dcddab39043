//! The virtual node between a real API server and a local cloud whose groups exist on paper.

#![allow(clippy::unwrap_used)] // helpers of tests count as tests

mod annotations;
mod burst;
mod deaths;
mod kubelet;
mod life;
mod profile;
mod profile_keys;
mod refusals;
mod support;
mod sweep;
mod tokens;
mod whole;
mod zones;
