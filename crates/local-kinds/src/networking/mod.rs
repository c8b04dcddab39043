//! Kinds of `networking.k8s.io`.

pub mod ingress;
pub mod network_policy;
