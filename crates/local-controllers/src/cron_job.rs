//! The CronJob controller: makes a Job at each time of a schedule, as its concurrency policy allows, and removes old ones.
//! Expressions are read by the same code as those of CronHPA; schedules without a time zone are in UTC, as they are where
//! upstream's controller runs in a container.

mod controller;
pub mod plan;
pub mod times;

pub use controller::start;
