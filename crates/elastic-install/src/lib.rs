//! The elastic parts as an add-on of any Kubernetes cluster: how they run there, come there, and go again.
//!
//! [`operator`] runs virtual nodes, controllers and webhook inside or outside the cluster; one replica leads, by a Lease.
//! The crate speaks public APIs only, writes nothing on the machine it runs on, and decides nothing about pods.

pub mod names;
pub mod operator;
