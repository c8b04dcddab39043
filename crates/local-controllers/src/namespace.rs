//! The namespace controller: empties a namespace that is being deleted, pods first, tells in its conditions what is
//! left, and releases it in the end. Refuses namespaces that are not being deleted.

pub mod conditions;
mod controller;

pub use controller::start;
