//! Configuration files of prometheus-adapter, as plain data and functions: what they say, which series belong to which
//! object, and the query for a request. Nothing here talks to anybody.

mod catalog;
mod config;
mod kinds;
mod object_labels;
mod resource_rules;
mod rule;
mod template;

pub(crate) use catalog::{Catalog, CustomKey, Series};
pub use config::{AdapterConfig, ConfigError};
#[cfg(test)]
pub(crate) use kinds::samples;
pub(crate) use kinds::{GroupResource, KindRow, Kinds};
pub(crate) use resource_rules::{LabelledQuery, ResourceRule, ResourceRules};
pub(crate) use rule::{Names, QueryError};
