//! An embedded Kubernetes v1.34-compatible API server over a durable store.
//!
//! It serves the built-in kinds of `local_kinds`, CustomResourceDefinitions and aggregated APIs, to `kubectl` over TLS and to
//! controllers in the process through an ordinary `kube::Client`. It refuses controllers: what upstream's kube-apiserver
//! does not do is not done here, and no kind of our own gets special treatment.

mod admission;
mod aggregation;
mod auth;
mod bootstrap;
mod certificates;
mod core;
mod crd;
mod discovery;
mod expiry;
mod http;
mod openapi;
mod proxy;
mod registry;
mod schema;
mod server;
pub mod status;
pub mod store;
pub mod testing;

pub use auth::pki::PkiError;
pub use http::client::{Dialer, HostDialer};
pub use http::tls::TlsError;
pub use server::{ApiServer, ApiServerConfig, Credentials, StartError};
