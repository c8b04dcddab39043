//! Label and field selectors of list, watch and deletecollection.

mod field;
mod label;

pub use field::{FieldSelector, FieldTerm};
pub use label::{LabelSelector, selector_text};
