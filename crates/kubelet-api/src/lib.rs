//! The kubelet's HTTP API as a server over a trait.
//!
//! A real worker and the virtual node answer the same requests (logs, exec, attach, port-forward, pods, metrics);
//! only what happens behind [`NodeBackend`] differs. This crate refuses to know how containers run, and it serves
//! nobody whom the cluster does not know and allow.
//!
//! Paths and query names follow upstream's kubelet. Sessions are carried by a WebSocket (`channel.k8s.io`, and SPDY inside
//! a WebSocket for port-forward) or by SPDY/3.1, which is what an upstream API server speaks to kubelets.

mod access;
mod answer;
mod backend;
mod channel;
mod exposition;
mod own_metrics;
mod port_forward;
mod remote_command;
mod review;
mod route;
mod server;
mod session;
pub mod spdy;
mod tls;
mod tunnel;
mod upgrade;
mod usage;

pub use access::{Attributes, ReviewError, Reviewer, User};
pub use backend::{
    AttachRequest, BackendError, ByteReader, ByteStream, ByteWriter, ExecRequest, ExecSession,
    LogOptions, NodeBackend, TerminalSize,
};
pub use review::ClusterReviewer;
pub use server::{KubeletServer, ServeError, fixed};
pub use tls::ServerTls;
pub use usage::{ContainerUsage, FilesystemUsage, InterfaceUsage, PodUsage, Traffic, Usage};
