//! Connections to endpoints, and the answer's body that gives its connection back when it has come to its end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Empty};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::endpoints::{Endpoint, Place};
use crate::Dialer;

/// An endpoint that does not accept within this time counts as failed.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// What is sent: the client's body as it comes, or nothing.
pub(crate) type RequestBody = Either<Incoming, Empty<Bytes>>;
pub(crate) type Sender = SendRequest<RequestBody>;

/// A connection that waits for a request. A used one may turn out to be closed by the endpoint.
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    pub(crate) used: bool,
}

/// Takes an idle connection or makes one. It lives in a task of its own that ends with it or with `abort`.
pub(crate) async fn open(
    endpoint: &Endpoint,
    dialer: &Dialer,
    fresh: bool,
    abort: &CancellationToken,
) -> io::Result<Connection> {
    if let Some(sender) = (!fresh).then(|| endpoint.take_idle()).flatten() {
        return Ok(Connection { sender, used: true });
    }
    let stream = timeout(CONNECT_PATIENCE, dialer.dial(endpoint.address.into())).await??;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let abort = abort.clone();
    // Ends when the sender is dropped and the answer read, when either side closes, or with the balancer.
    tokio::spawn(async move {
        if let Some(Err(error)) = abort.run_until_cancelled(connection.with_upgrades()).await {
            tracing::debug!(%error, "connection to an endpoint ended");
        }
    });
    Ok(Connection {
        sender,
        used: false,
    })
}

/// An answer's body on its way to the client.
pub(crate) struct AnswerBody {
    body: Incoming,
    held: Option<(Sender, Place)>,
}

impl AnswerBody {
    pub(crate) fn new(body: Incoming, sender: Sender, place: Place) -> Self {
        let mut answer = Self {
            body,
            held: Some((sender, place)),
        };
        answer.release_at_end();
        answer
    }

    fn release_at_end(&mut self) {
        if self.body.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some((sender, place)) = self.held.take() {
            place.0.give_back(sender);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.release(),
            Poll::Ready(Some(Ok(_))) => self.release_at_end(),
            // The connection is of no further use: it is dropped together with the place.
            Poll::Ready(Some(Err(_))) => drop(self.held.take()),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
