//! The node lifecycle controller: nodes that fall silent become Unknown, conditions become taints, and pods leave
//! nodes whose taints they do not tolerate any longer. Refuses to delete nodes.

mod controller;
pub mod eviction;
pub mod health;

pub use controller::start;
