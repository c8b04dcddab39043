//! The load tester: a closed model of virtual users with think time, rising and falling in steps.
//!
//! Every request is timed by two clocks. *Service time* runs from sending to the last byte. *Response time* runs from
//! the moment the user's think time was over, so that a tester or server that falls behind shows it instead of hiding
//! it (coordinated omission). Both are HdrHistograms in microseconds.
//!
//! It refuses to decide what a result means: it counts, and the caller judges. Only `http://` targets are taken.

mod connection;
pub mod curve;
mod plan;
mod record;
mod report;
mod run;

pub use plan::{LoadPlan, PlanError, Stage, Target, closed_steps};
pub use record::Outcome;
pub use report::{LatencyMillis, LoadReport, SecondSample};
pub use run::{LoadRun, run};
