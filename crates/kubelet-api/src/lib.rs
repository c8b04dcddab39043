//! The kubelet's HTTP API as a server over a trait.
//!
//! A real worker and the virtual node answer the same requests (logs, exec, attach, port-forward, pods, metrics);
//! only what happens behind [`NodeBackend`] differs. This crate refuses to know how containers run, and it serves
//! nobody without a client certificate of the cluster's authority whose common name it was told to trust.
//!
//! Paths and query names follow upstream's kubelet. Sessions are carried by a WebSocket (`channel.k8s.io`, and SPDY inside
//! a WebSocket for port-forward) or by SPDY/3.1, which is what an upstream API server speaks to kubelets.

mod authorize;
mod backend;
mod channel;
mod port_forward;
mod remote_command;
mod route;
mod server;
mod session;
pub mod spdy;
mod tunnel;
mod upgrade;

pub use authorize::ServerTls;
pub use backend::{
    AttachRequest, BackendError, ByteReader, ByteStream, ByteWriter, ExecRequest, ExecSession,
    LogOptions, NodeBackend, TerminalSize,
};
pub use server::{KubeletServer, ServeError};
