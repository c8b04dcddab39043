//! The StatefulSet controller: numbered pods with claims of their own, made and removed in order, updated from the
//! highest number down. Refuses volumes: it makes claims, and whoever provides storage binds them.

mod controller;
pub mod plan;
pub mod pods;
pub mod revisions;
pub mod status;

pub use controller::start;
