//! The generic registry: one set of verbs for every kind, driven by the table of kinds and by CustomResourceDefinitions.
//!
//! It refuses HTTP (requests come parsed) and rules of single kinds (those are `local_kinds`').

pub mod catalog;
pub mod context;
pub mod create;
pub mod decode;
pub mod delete;
pub mod metadata;
pub mod names;
pub mod options;
pub mod patch;
pub mod read;
pub mod resource;
pub mod scale;
pub mod selection;
pub mod selectors;
pub mod subresources;
pub mod update;
pub mod watch;

pub use catalog::{Catalog, Catalogs};
pub use context::{Call, Payload, Reply};
pub use resource::{Resource, Served, SubresourceInfo, Version, api_version};
