//! The Job controller: runs pods until enough have succeeded or too many have failed, counts each of them exactly once,
//! and removes Jobs whose time after their end is over. Refuses Jobs that another controller manages (`managedBy`).

mod controller;
pub mod failures;
pub mod indexes;
pub mod plan;
pub mod pods;
pub mod status;

pub use controller::start;
