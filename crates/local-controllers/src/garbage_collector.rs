//! The garbage collector: deletes what nobody owns any more, in the background, in the foreground, or leaves orphans,
//! over every resource in discovery. Watches metadata only. Refuses events and what cannot be watched.

mod controller;
pub mod graph;
pub mod judge;
mod watches;

pub use controller::start;
