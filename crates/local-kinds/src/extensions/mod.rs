//! Kinds that change what the API server itself does: webhooks, aggregation, access.

pub mod access;
pub mod aggregation;
pub mod definition;
pub mod webhooks;
