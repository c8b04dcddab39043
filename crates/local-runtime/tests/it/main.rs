//! The runtime against this machine's kernel. Needs root and Debian's `busybox-static`.

#![allow(clippy::unwrap_used)] // A test that cannot go on says where.

mod containers;
mod contract;
mod fixture;
mod images;
mod sessions;
mod survival;
mod world;
