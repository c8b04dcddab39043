//! The admission webhook that sends labelled pods to virtual nodes: an ordinary `AdmissionReview` server over HTTPS.
//!
//! The API server's selectors decide which pods are sent here, `elastic-core::routing` decides what happens to them. When
//! the webhook is away, pods are admitted unchanged (failure policy Ignore). Requests that are not reviews, or are too
//! large, are refused.

mod identity;
mod registration;
mod review;
mod server;

pub use identity::{AdmissionIdentity, IdentityError};
pub use registration::{RegistrationError, WebhookAddress, register_admission};
pub use server::{AdmissionError, serve_admission};

/// Path for pods that carry the label themselves.
const POD_PATH: &str = "/mutate/pod-label";
/// Path for pods whose namespace carries the label.
const NAMESPACE_PATH: &str = "/mutate/namespace-label";
