//! The WebSocket of an exec session; its framing is described in [`cloud_api::exec`].

use super::refusal::Refusal;
use super::tickets::Ticket;
use super::{Answer, Gateway};
use crate::backend::{BackendError, CommandSession, Run};
use crate::shared::{Shared, plan_of};
use bytes::Bytes;
use cloud_api::encoding::parse_form;
use cloud_api::exec::Frame;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Output that waits for the client.
const QUEUED_FRAMES: usize = 16;
const CHUNK_BYTES: usize = 32 * 1024;
/// Largest message of a client.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

impl Gateway {
    /// Takes the ticket and turns the connection into a WebSocket.
    pub(super) fn exec(&self, mut request: Request<Incoming>) -> Result<Answer, Refusal> {
        let query = parse_form(request.uri().query().unwrap_or_default()).unwrap_or_default();
        let key = query
            .iter()
            .find(|(name, _)| name == "s")
            .map(|(_, value)| value.as_str());
        let accept = accept_key(request.headers()).ok_or_else(|| {
            Refusal::new(
                400,
                "InvalidParameter",
                "This address takes WebSocket connections of version 13 only.",
            )
        })?;
        let session = self.exec_sessions.clone().try_acquire_owned();
        let session = session.map_err(|_| {
            Refusal::new(
                503,
                "ServiceUnavailable",
                "Too many exec sessions are open.",
            )
        })?;
        let ticket = key.and_then(|key| self.tickets.redeem(key, self.shared.now()));
        let ticket = ticket.ok_or_else(|| {
            Refusal::new(
                403,
                "Forbidden",
                "The address was used before or is older than 30 seconds.",
            )
        })?;
        let shared = self.shared.clone();
        let upgrade = hyper::upgrade::on(&mut request);
        self.shared.tasks.spawn(async move {
            let _session = session;
            let Ok(upgraded) = upgrade.await else { return };
            let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
            let socket = WebSocketStream::from_raw_socket(
                TokioIo::new(upgraded),
                Role::Server,
                Some(config),
            )
            .await;
            let shutdown = shared.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = run(&shared, ticket, socket) => {}
            }
        });
        let mut answer = Response::new(Full::new(Bytes::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(
            header::UPGRADE,
            header::HeaderValue::from_static("websocket"),
        );
        headers.insert(
            header::CONNECTION,
            header::HeaderValue::from_static("Upgrade"),
        );
        if let Ok(accept) = accept.try_into() {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        Ok(answer)
    }
}

fn accept_key(headers: &HeaderMap) -> Option<String> {
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    let version = headers.get(header::SEC_WEBSOCKET_VERSION)?.to_str().ok()?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    (upgrade.eq_ignore_ascii_case("websocket") && version == "13")
        .then(|| derive_accept_key(key.as_bytes()))
}

async fn run(shared: &Arc<Shared>, ticket: Ticket, mut socket: Socket) {
    match start(shared, &ticket).await {
        Ok(session) => pump(session, socket).await,
        Err(error) => {
            let frame = Frame::Failed(error.message).encode();
            // The client may have gone; then nobody is left to be told.
            let _ = socket.send(Message::Binary(frame)).await;
            let _ = socket.close(None).await;
        }
    }
}

async fn start(shared: &Arc<Shared>, ticket: &Ticket) -> Result<CommandSession, BackendError> {
    let gone = || BackendError::new("NotFound", "the container is gone");
    let (plan, attempt) = {
        let state = shared.state();
        let group = state.groups.get(&ticket.group_id).ok_or_else(gone)?;
        (
            plan_of(group),
            group.container(&ticket.container).ok_or_else(gone)?.attempt,
        )
    };
    let mut specs = plan
        .request
        .container
        .iter()
        .chain(&plan.request.init_container);
    let container = specs
        .find(|spec| spec.name == ticket.container)
        .ok_or_else(gone)?;
    let run = Run { container, attempt };
    shared
        .backend
        .exec(&plan, run, ticket.command.clone(), ticket.tty, ticket.stdin)
        .await
}

/// Carries bytes both ways until the command has ended and its output is delivered.
async fn pump(session: CommandSession, socket: Socket) {
    let CommandSession {
        mut stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = session;
    let (mut sink, mut stream) = socket.split();
    let (frames, mut queued) = mpsc::channel::<Frame>(QUEUED_FRAMES);
    let out = copy(stdout, frames.clone(), Frame::Stdout);
    let err = copy(stderr, frames.clone(), Frame::Stderr);
    let produce = async move {
        let (exit, (), ()) = tokio::join!(exit, out, err);
        let last = match exit {
            Ok(code) => Frame::Exit(code),
            Err(error) => Frame::Failed(error.message),
        };
        // A closed queue means that the client is gone.
        let _ = frames.send(last).await;
    };
    let send = async move {
        while let Some(frame) = queued.recv().await {
            if sink.send(Message::Binary(frame.encode())).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    let receive = async move {
        while let Some(Ok(message)) = stream.next().await {
            let Message::Binary(data) = message else {
                continue;
            };
            match Frame::decode(data) {
                Ok(Frame::Stdin(data)) => {
                    if let Some(stdin) = &mut stdin {
                        let written = async {
                            stdin.write_all(&data).await?;
                            stdin.flush().await
                        }
                        .await;
                        if written.is_err() {
                            tracing::debug!("command takes no more input");
                        }
                    }
                }
                Ok(Frame::CloseStdin) => stdin = None,
                Ok(Frame::Resize { width, height }) => {
                    if let Some(resize) = &resize {
                        let _ = resize.send((width, height)).await;
                    }
                }
                _ => return,
            }
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(produce, send) } => {}
        // A client that hangs up ends the session; dropping the streams ends the command's.
        () = receive => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: mpsc::Sender<Frame>,
    frame: fn(Bytes) -> Frame,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if to
                    .send(frame(Bytes::copy_from_slice(&buffer[..count])))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
    }
}
