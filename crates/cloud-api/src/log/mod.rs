//! The log service of the cloud (interface version `0.6.0`): its two signatures, the protobuf of log groups, the
//! compression of bodies, the model of what is asked and answered, and a client.
//!
//! As with container instances, the client and the loopback server are written against this one module. It refuses
//! what neither the reference nor the vendor's SDK uses: alerts, dashboards, shippers, machine groups.

pub mod client;
pub mod compression;
pub mod group;
pub mod model;
pub mod signature;
mod wire;

pub use client::{LogClient, LogClientConfig, LogError};
pub use group::{Log, LogGroup};

/// The version of the interface that this module speaks.
pub const API_VERSION: &str = "0.6.0";
/// Largest body of one PutLogs before compression.
pub const MAX_PUT_BYTES: usize = 30 * 1024 * 1024;
/// Most logs of one PutLogs.
pub const MAX_PUT_LOGS: usize = 512_000;
