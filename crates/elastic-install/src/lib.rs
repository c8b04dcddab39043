//! The elastic parts as an add-on of any Kubernetes cluster: how they run there, come there, and go again.
//!
//! [`manifests`] says what is installed, [`apply`] brings it there, [`uninstall`] drains and removes it, [`operator`] runs virtual nodes, controllers and webhook inside or outside the cluster; one replica leads, by a Lease.
//! The crate speaks public APIs only, writes nothing on the machine it runs on, and decides nothing about pods.

pub mod apply;
pub mod built_in;
pub mod chart;
pub mod connection;
pub mod manifests;
pub mod names;
pub mod operator;
pub mod ram;
pub mod status;
pub mod uninstall;
