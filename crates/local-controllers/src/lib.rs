//! What kube-scheduler and kube-controller-manager do upstream, as ordinary clients of the Kubernetes API.
//!
//! Each controller decides in plain functions over what the shared stores hold and acts through the client it was
//! given. Refuses whatever upstream's control plane does not do, with one exception, which the scheduler names: pods
//! that merely tolerate virtual nodes go to worker nodes first.

pub mod replica_set;
pub mod scheduler;
pub mod shared;
