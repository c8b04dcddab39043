//! The built-in kinds against what a real control plane answered (see `tests/golden/NOTICE.md`).

#![allow(clippy::unwrap_used)] // helpers of tests, outside #[test] functions

mod discovery;
mod golden;
mod properties;
mod recorded;
mod replay;
mod selectors;
