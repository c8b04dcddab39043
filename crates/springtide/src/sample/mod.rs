//! The sample shop: a small service for demos and tests, and its image built from this very program.

pub mod image;
pub mod shop;
