//! Connections of one listener, one task each under a bound, until the cloud shuts down.

use crate::shared::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// The pause after the system refused a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Serves each connection by `serve`, at most `most` at the same time; more wait to be accepted. `listener_name` is for the log.
pub(crate) async fn accept<Serving>(
    shared: &Shared,
    listener: TcpListener,
    listener_name: &'static str,
    most: usize,
    serve: impl Fn(TcpStream) -> Serving,
) where
    Serving: Future<Output = ()> + Send + 'static,
{
    let connections = Arc::new(Semaphore::new(most));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = serve(stream);
                shared.tasks.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, listener = listener_name, "connection cannot be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}
