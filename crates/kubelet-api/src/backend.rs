//! What a node has to be able to do so that its kubelet API can be served.

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::usage::PodUsage;

/// Output of a container, chunk by chunk.
pub type ByteStream = BoxStream<'static, Result<Bytes, BackendError>>;
/// A readable end of a session.
pub type ByteReader = Box<dyn AsyncRead + Send + Unpin>;
/// A writable end of a session.
pub type ByteWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// Why a node refused or failed; decides the HTTP status.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// 404: no such pod or container on this node.
    #[error("{message}")]
    NotFound {
        /// Names the pod or container.
        message: String,
    },
    /// 400: the request cannot be served in the container's present state.
    #[error("{message}")]
    BadRequest {
        /// Says what to change.
        message: String,
    },
    /// 501: this kind of node cannot do it at all.
    #[error("{message}")]
    Unsupported {
        /// Says what to use instead.
        message: String,
    },
    /// 500: it should have worked.
    #[error("{attempted}")]
    Internal {
        /// What was attempted on which container.
        attempted: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl BackendError {
    /// The refusal of a container that `kubectl debug` added to a running pod; `None` when it is an ordinary one.
    #[must_use]
    pub fn of_ephemeral_container(pod: &Pod, container: &str) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let mut added = spec.ephemeral_containers.iter().flatten();
        added.find(|one| one.name == container)?;
        Some(Self::Unsupported {
            message: format!(
                "container \"{container}\" is an ephemeral container, which this node does not run: use kubectl exec, or kubectl debug with --copy-to"
            ),
        })
    }

    /// The error with its causes, for people.
    pub(crate) fn full_text(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

/// Which part of a container's log is wanted (upstream `PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    /// Go on as the container writes, until it ends.
    pub follow: bool,
    /// The run before the present one.
    pub previous: bool,
    /// Prefix each line with its RFC 3339 time in nanoseconds.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines younger than this.
    pub since_seconds: Option<i64>,
    /// Only lines written at or after this time.
    pub since_time: Option<Timestamp>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// A command to run beside a container's own process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// The client will send input.
    pub stdin: bool,
    /// The client wants output.
    pub stdout: bool,
    /// The client wants error output (never with a terminal).
    pub stderr: bool,
    /// Allocate a terminal.
    pub tty: bool,
}

/// Joining a container's own process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttachRequest {
    /// The client will send input.
    pub stdin: bool,
    /// The client wants output.
    pub stdout: bool,
    /// The client wants error output.
    pub stderr: bool,
    /// The container has a terminal.
    pub tty: bool,
}

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A running command or an attached process.
pub struct ExecSession {
    /// Where input goes; dropping it is the end of input.
    pub stdin: Option<ByteWriter>,
    /// Output.
    pub stdout: Option<ByteReader>,
    /// Error output.
    pub stderr: Option<ByteReader>,
    /// Changes of the terminal's size.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Resolves to the exit code.
    pub exit: BoxFuture<'static, Result<i32, BackendError>>,
}

/// A node as its kubelet API sees it.
#[async_trait]
pub trait NodeBackend: Send + Sync + 'static {
    /// The pods on this node with their present status.
    async fn pods(&self) -> Vec<Pod>;

    /// A container's log.
    async fn container_logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<ByteStream, BackendError>;

    /// Runs a command in a container.
    async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, BackendError>;

    /// Joins a container's process.
    async fn attach(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        request: AttachRequest,
    ) -> Result<ExecSession, BackendError>;

    /// Fails when the pod is not on this node or has ended. A port-forward is accepted only when it does not, and ends
    /// soon after it does; so it has to be cheap.
    async fn check_pod(&self, namespace: &str, pod: &str) -> Result<(), BackendError>;

    /// Opens a TCP connection to a port inside the pod.
    async fn port_forward(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> Result<(ByteReader, ByteWriter), BackendError>;

    /// What the running pods of this node use; pods of other nodes never belong to it.
    async fn usage(&self) -> Result<Vec<PodUsage>, BackendError>;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_that_kubectl_debug_added_is_refused_with_the_way_out() {
        let spec = json!({
            "containers": [{"name": "main"}], "ephemeralContainers": [{"name": "debugger"}],
        });
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let refusal = BackendError::of_ephemeral_container(&pod, "debugger").unwrap();
        assert!(refusal.to_string().contains("--copy-to"), "{refusal}");
        assert!(BackendError::of_ephemeral_container(&pod, "main").is_none());
    }
}
