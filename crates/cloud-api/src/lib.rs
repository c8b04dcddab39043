//! The OpenAPI of the cloud's elastic container instances (product `Eci`, version `2018-08-08`): the typed model of
//! its actions, both request signatures (signing and verifying), the flattening of parameters, a client with
//! retries and call limits, and the catalog of sizes with its list prices. Beside it stands the log service ([`log`]).
//!
//! The client and the loopback server are written against this one crate, so they cannot drift apart; the vendor's
//! own SDKs are the judge of both. The crate refuses to know Kubernetes.

pub mod catalog;
pub mod client;
pub mod encoding;
pub mod error;
pub mod exec;
pub mod flatten;
pub mod instance_type;
pub mod log;
pub mod model;
pub mod money;
pub mod signature;
pub mod time;
pub mod unflatten;

pub use client::{ClientSources, EciClient, EciConfig};
pub use error::{EciError, ServiceError};
pub use model::{Action, GroupStatus};
pub use signature::{Credentials, SignatureVersion};

/// The version of the product's interface that this crate speaks.
pub const API_VERSION: &str = "2018-08-08";
