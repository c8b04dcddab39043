//! The workspace's shape, checked.

#![allow(clippy::unwrap_used)] // a failed step of a test should panic where it stands

mod arrows;
mod deb;
mod licences;
