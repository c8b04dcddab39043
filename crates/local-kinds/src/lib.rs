//! The built-in kinds: one table row and one set of rules each.
//!
//! A row says where a kind is served; its [`KindRules`] say what upstream's registry does to it: defaults,
//! what a create or update may carry, validation, printer columns, field selectors, conversion between served versions.
//! It refuses storage, HTTP, the clock (given as `now`) and anything generic (metadata rules, patches, watches).

pub mod rules;

pub use rules::{Column, KindRow, KindRules, NameRule, ScalePaths, Subresource};

/// Every built-in kind, in the order in which discovery lists them.
pub fn kinds() -> &'static [KindRow] {
    &[]
}
