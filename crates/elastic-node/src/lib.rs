//! The virtual node: a Kubernetes node whose pods are container groups in the cloud.
//!
//! Pods bound to it become groups; the groups' status, addresses, logs and metrics come back as the pods'. What to do
//! with each pod and group is decided by [`plan`], a plain function of both lists; one engine carries it out. The crate
//! decides no placement (that is the scheduler's work) and speaks only public APIs: Kubernetes through `kube`, the cloud
//! through `cloud-api`.

mod backend;
mod config;
mod engine;
mod limit;
mod node;
mod plan;
mod status;
mod tokens;
mod translate;
mod zones;

pub use backend::{DirectDialer, PodDialer};
pub use config::{
    Capacity, Clock, ClusterSettings, Figures, FindZone, NodeEndpoint, OpenEndpoint, Timing,
    TokenPolicy, VSwitch, VirtualNodeConfig,
};
pub use engine::{RunError, run_virtual_nodes};
pub use plan::{Action, GroupView, Memory, Now, PodView, Policy, decide, plan};
pub use tokens::TokenLife;
pub use translate::{Identity, References, TranslateError, container_group};
