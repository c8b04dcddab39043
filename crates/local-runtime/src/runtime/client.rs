//! Talking to one shim.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::error::RuntimeError;
use crate::layout::{self, SandboxDirectory};
use crate::protocol::{Connection, Failure, Request, Response};

/// An ordinary request; a shim answers in microseconds unless the machine is overloaded.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// True while the sandbox's shim lives: it holds a lock for all its life.
pub(super) fn is_alive(directory: &SandboxDirectory) -> bool {
    let Ok(file) = std::fs::File::open(directory.lock()) else {
        return false;
    };
    matches!(
        file.try_lock_shared(),
        Err(std::fs::TryLockError::WouldBlock)
    )
}

pub(super) async fn connect(directory: &Path) -> io::Result<Connection> {
    let (_handle, address) = layout::socket_address(directory)?;
    Ok(Connection::new(UnixStream::connect(address).await?))
}

/// The shim's process, as the kernel noted it when the shim began to listen.
pub(super) async fn connect_with_pid(directory: &Path) -> io::Result<(Connection, Option<i32>)> {
    let (_handle, address) = layout::socket_address(directory)?;
    let stream = UnixStream::connect(address).await?;
    let pid = stream.peer_cred()?.pid();
    Ok((Connection::new(stream), pid))
}

/// Sends one request and reads its first answer; gives the connection back for what may follow.
pub(super) async fn ask(
    directory: &Path,
    sandbox: &str,
    request: &Request,
    limit: Duration,
) -> Result<(Response, Connection), RuntimeError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            RuntimeError::ShimGone(sandbox.to_owned())
        }
        _ => RuntimeError::Shim {
            sandbox: sandbox.to_owned(),
            reason: error.to_string(),
        },
    };
    let conversation = async {
        let mut connection = connect(directory).await.map_err(failed)?;
        connection.send(request).await.map_err(failed)?;
        match connection.receive::<Response>().await.map_err(failed)? {
            Some(response) => Ok((response, connection)),
            None => Err(RuntimeError::ShimGone(sandbox.to_owned())),
        }
    };
    timeout(limit, conversation).await.unwrap_or_else(|_| {
        Err(RuntimeError::Timeout {
            operation: "a request to the shim",
            object: format!("sandbox {sandbox}"),
            limit_ms: limit.as_millis(),
        })
    })
}

/// Turns a refusal into the caller's error.
pub(super) fn refused(
    sandbox: &str,
    container: &str,
    operation: &'static str,
    kind: Failure,
    reason: String,
) -> RuntimeError {
    match kind {
        Failure::NotFound => RuntimeError::ContainerNotFound(container.to_owned()),
        Failure::WrongState => RuntimeError::WrongState {
            container: container.to_owned(),
            operation,
            needed: if operation == "start" {
                "created"
            } else {
                "running"
            },
            actual: reason.to_lowercase(),
        },
        Failure::Start => RuntimeError::Start {
            container: container.to_owned(),
            reason,
        },
        Failure::Other => RuntimeError::Shim {
            sandbox: sandbox.to_owned(),
            reason,
        },
    }
}

/// Sends a request that is answered by done or failed.
pub(super) async fn command(
    directory: &Path,
    sandbox: &str,
    container: &str,
    operation: &'static str,
    request: &Request,
    limit: Duration,
) -> Result<(), RuntimeError> {
    match ask(directory, sandbox, request, limit).await?.0 {
        Response::Done => Ok(()),
        Response::Failed { kind, reason } => {
            Err(refused(sandbox, container, operation, kind, reason))
        }
        other => Err(unexpected(sandbox, &other)),
    }
}

pub(super) fn unexpected(sandbox: &str, response: &Response) -> RuntimeError {
    RuntimeError::Shim {
        sandbox: sandbox.to_owned(),
        reason: format!("an answer out of place: {response:?}"),
    }
}
