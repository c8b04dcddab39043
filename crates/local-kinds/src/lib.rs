//! The built-in kinds: one table row and one set of rules each.
//!
//! A row says where a kind is served; its [`KindRules`] say what upstream's registry does to it: defaults,
//! what a create or update may carry, validation, printer columns, field selectors, conversion between served versions.
//! It refuses storage, HTTP, the clock (given as `now`) and anything generic (metadata rules, patches, watches).

mod apps;
mod autoscaling;
mod batch;
mod certificates;
pub mod check;
mod core;
mod endpoint_slice;
mod extensions;
mod lease;
mod networking;
mod policy;
mod print;
pub mod rules;
mod storage;
pub mod table;
mod tree;

pub use rules::{Column, KindRow, KindRules, NameRule, ScalePaths, Subresource};
pub use table::{kind_of, kinds};
