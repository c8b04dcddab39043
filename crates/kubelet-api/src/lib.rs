//! The kubelet's HTTP API as a server over a trait.
//!
//! A real worker and the virtual node answer the same requests (logs, exec, attach, port-forward, pods, metrics);
//! only what happens behind [`NodeBackend`] differs. This crate refuses to know how containers run, and it serves
//! nobody without a client certificate of the cluster's authority whose common name it was told to trust.
//!
//! Paths and query names follow upstream's `pkg/kubelet/server/server.go`; the streaming framing is the
//! `v4`/`v5.channel.k8s.io` WebSocket protocol of `k8s.io/apimachinery/pkg/util/remotecommand`.

mod authorize;
mod backend;
mod channel;
mod route;
mod server;

pub use authorize::ServerTls;
pub use backend::{
    AttachRequest, BackendError, ByteReader, ByteStream, ByteWriter, ExecRequest, ExecSession,
    LogOptions, NodeBackend, TerminalSize,
};
pub use server::{KubeletServer, ServeError};
