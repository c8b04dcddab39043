//! How the controllers run.

use std::time::Duration;

pub use elastic_core::horizontal_pod_autoscaler::Flags as AutoscalerFlags;

/// Settings of all controllers, with upstream's defaults.
#[derive(Clone, Debug, Default)]
pub struct ControllersConfig {
    /// The certificate authority that `kube-root-ca.crt` publishes in every namespace; without it none is written.
    pub ca_pem: Option<String>,
    /// The autoscaler's settings.
    pub autoscaler: AutoscalerConfig,
    /// The node lifecycle's settings.
    pub nodes: NodesConfig,
}

/// Settings of the autoscaler.
#[derive(Clone, Debug)]
pub struct AutoscalerConfig {
    /// Time from one look to the next.
    pub sync_period: Duration,
    /// What its decisions take into account.
    pub flags: AutoscalerFlags,
}

impl Default for AutoscalerConfig {
    fn default() -> Self {
        AutoscalerConfig {
            sync_period: Duration::from_secs(15),
            flags: AutoscalerFlags::default(),
        }
    }
}

/// Settings of the node lifecycle and of the collection of orphaned pods.
#[derive(Clone, Debug)]
pub struct NodesConfig {
    /// How long a node may be silent before it counts as unreachable.
    pub grace_period: Duration,
    /// How long a node must be gone before its pods are removed.
    pub orphan_quarantine: Duration,
}

impl Default for NodesConfig {
    fn default() -> Self {
        NodesConfig {
            grace_period: Duration::from_secs(40),
            orphan_quarantine: Duration::from_secs(40),
        }
    }
}
