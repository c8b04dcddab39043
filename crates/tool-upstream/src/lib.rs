//! An upstream Kubernetes control plane for tests and measurements: built from source, run in a folder of its own.
//!
//! It is as new as a source that package registries have: Debian's, version 1.20.2. That is older than what the add-on
//! promises (1.28), so it shows how upstream's programs behave, not what a version of today does. Nothing of the
//! product depends on this crate.

pub mod build;
mod certificates;
mod control_plane;
mod source;

pub use control_plane::{ControlPlane, Options};

/// What is built, and what `kubectl version` shows.
pub const VERSION: &str = "1.20.2";
