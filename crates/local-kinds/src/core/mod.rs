//! Kinds of the core group.

pub mod config;
pub mod endpoints;
pub mod event;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod replication_controller;
pub mod service;
pub mod service_account;
