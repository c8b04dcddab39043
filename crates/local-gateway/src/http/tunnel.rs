//! Connections that left HTTP (WebSocket and others): bytes go both ways until both sides are done.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio_util::sync::CancellationToken;

use super::endpoints::Place;

const BUFFER_BYTES: usize = 16 * 1024;

/// Relays until the end. The place counts as one outstanding request as long as the tunnel lives.
pub(crate) async fn run(
    client: OnUpgrade,
    endpoint: OnUpgrade,
    place: Place,
    abort: CancellationToken,
) {
    let relaying = async {
        let (client, endpoint) = match tokio::try_join!(client, endpoint) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "switching protocols failed"),
        };
        let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
        let copied =
            copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER_BYTES, BUFFER_BYTES)
                .await;
        if let Err(error) = copied {
            tracing::debug!(%error, "tunnel ended early");
        }
    };
    abort.run_until_cancelled(relaying).await;
    drop(place);
}
