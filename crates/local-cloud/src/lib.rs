//! The cloud on loopback: the same OpenAPI for elastic container instances that the real one speaks, with zones that
//! have stock, vSwitches with address pools, client tokens, events, metrics and a bill by the second.
//!
//! Containers run for real ([`backend::RealBackend`]) or only on paper ([`backend::SimulatedBackend`]). Whatever was
//! acknowledged survives `kill -9`. The crate refuses to know that Kubernetes exists: its users come over HTTP like
//! everybody else.

mod accept;
mod actions;
pub mod backend;
mod cloud;
mod config;
mod gateway;
mod ledger;
mod logs;
mod metrics;
mod nas;
mod paper;
mod ram;
mod shared;
mod state;
mod store;
mod supervisor;

pub use actions::faults::FaultRefused;
pub use cloud::{LocalCloud, StartError};
pub use config::{CloudSources, LocalCloudConfig, VSwitchConfig, ZoneConfig};
pub use ledger::{Ledger, LedgerEntry, LedgerPage};
pub use logs::LogStoreError;
pub use nas::{FileSystem, NasError};
pub use paper::{PaperCloud, PaperGroup};
pub use shared::StoreFailed;
pub use state::faults::{Fault, FaultOrder, FaultRecord};
