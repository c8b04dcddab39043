//! Connections to endpoints, and the answer's body that gives its connection back when it has come to its end.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Empty};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::endpoints::{Endpoint, Place};
use crate::Dialer;

/// An endpoint that does not accept within this time counts as failed.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// What is sent: the client's body as it comes, or nothing.
pub(crate) type RequestBody = Either<Incoming, Empty<Bytes>>;

/// The sending side of a connection.
pub(crate) struct Sender {
    requests: SendRequest<RequestBody>,
    /// The same socket once more: only to look at, and closed together with the other.
    probe: OwnedFd,
}

impl Sender {
    /// True when the answer before has been read and the connection is not known to be closed.
    pub(crate) fn is_ready(&self) -> bool {
        self.requests.is_ready()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// True when the endpoint has not hung up, as far as this machine has heard. On a busy machine the connection's task
    /// learns that later than the kernel.
    pub(crate) fn is_alive(&self) -> bool {
        let look = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        matches!(
            recv(self.probe.as_raw_fd(), &mut [0; 1], look),
            Err(Errno::EAGAIN)
        )
    }

    pub(crate) fn try_send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        self.requests.try_send_request(request)
    }
}

/// A connection that waits for a request. A used one may turn out to be closed by the endpoint.
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    pub(crate) used: bool,
}

/// Which connections a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Any: should the endpoint be closing it, the request can be repeated.
    Any,
    /// One that is certainly open at this moment.
    Alive,
    /// None.
    Never,
}

/// Takes an idle connection or makes one. It lives in a task of its own that ends with it or with `abort`.
pub(crate) async fn open(
    endpoint: &Endpoint,
    dialer: &Dialer,
    reuse: Reuse,
    abort: &CancellationToken,
) -> io::Result<Connection> {
    if let Some(sender) = endpoint.take_idle(reuse) {
        return Ok(Connection { sender, used: true });
    }
    let stream = timeout(CONNECT_PATIENCE, dialer.dial(endpoint.address.into())).await??;
    let probe = stream.as_fd().try_clone_to_owned()?;
    let (requests, connection) = http1::handshake(TokioIo::new(stream))
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
        sender: Sender { requests, probe },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hang_up_is_seen_before_the_connections_task_has_heard_of_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!("bound to IPv4")
        };
        let (endpoint, abort) = (Endpoint::new(address), CancellationToken::new());
        let Connection { sender, used } = open(&endpoint, &Dialer::host(), Reuse::Any, &abort)
            .await
            .unwrap();
        assert!(!used);
        let (peer, _) = listener.accept().unwrap();
        while !sender.is_ready() {
            tokio::task::yield_now().await;
        }
        assert!(sender.is_alive());
        // Nothing else runs on this thread from here on.
        drop(peer);
        assert!(sender.is_ready() && !sender.is_closed() && !sender.is_alive());
        endpoint.give_back(sender);
        assert!(endpoint.take_idle(Reuse::Alive).is_none());
    }
}
