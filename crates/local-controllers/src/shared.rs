//! What the controllers share: one watched store per kind, coalescing work queues, the event recorder, expectations
//! and small readers of objects. Refuses any decision that belongs to one controller.

pub mod batch;
pub mod cache;
pub mod catalog;
pub mod cluster;
pub mod expectations;
pub mod objects;
pub mod ownership;
pub mod queue;
pub mod recorder;
pub mod requests;
pub mod selector;

pub use cache::{Cache, Indexed, ObjectKey};
pub use cluster::Cluster;
pub use expectations::Expectations;
pub use queue::{Next, WorkQueue};
pub use recorder::EventRecorder;
pub use requests::ControllerError;
