//! Validators that several kinds share, worded as upstream words them because people and tools read these sentences.
//!
//! Each takes values and a path and gives back what is wrong. It refuses to know which kind is being checked.

pub mod labels;
pub mod metadata;
pub mod names;
pub mod numbers;
pub mod resources;
pub mod selector;
pub mod show;
