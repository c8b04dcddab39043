//! The WebSocket behind ExecContainerCommand.
//!
//! The vendor does not document the framing inside it, so this is ours, after Kubernetes' remote commands: binary
//! messages whose first byte is the channel. 0 standard input, 1 standard output, 2 standard error, 3 the end as a
//! JSON object (`{"exitCode":0}` or `{"error":"…"}`), 4 the terminal's size as `{"width":80,"height":24}`, and 255
//! followed by the byte 0 for the end of standard input. The server sends 3 last and then closes.

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// One message of either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To the command.
    Stdin(Bytes),
    /// From the command.
    Stdout(Bytes),
    /// From the command, apart.
    Stderr(Bytes),
    /// The command ended.
    Exit(i32),
    /// The command could not be run or was lost.
    Failed(String),
    /// The terminal's size.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// No more standard input.
    CloseStdin,
}

/// Why an exec session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The address is none.
    #[error("{uri:?} is not a web socket address")]
    Address {
        /// What was given.
        uri: String,
    },
    /// No connection.
    #[error("cannot connect to {host}")]
    Connect {
        /// The host.
        host: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection broke.
    #[error("the exec session broke off")]
    Broken(#[source] Box<SocketError>),
    /// A message that is none of ours.
    #[error("unreadable message on channel {channel}")]
    Message {
        /// Its first byte.
        channel: u8,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct End {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct TerminalSize {
    width: u16,
    height: u16,
}

impl Frame {
    /// The message's bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Stdin(data) => on_channel(0, data),
            Self::Stdout(data) => on_channel(1, data),
            Self::Stderr(data) => on_channel(2, data),
            Self::Exit(code) => end(End {
                exit_code: Some(*code),
                error: None,
            }),
            Self::Failed(message) => end(End {
                exit_code: None,
                error: Some(message.clone()),
            }),
            Self::Resize { width, height } => json(
                4,
                &TerminalSize {
                    width: *width,
                    height: *height,
                },
            ),
            Self::CloseStdin => Bytes::from_static(&[255, 0]),
        }
    }

    /// Reads a message.
    pub fn decode(message: Bytes) -> Result<Self, ExecError> {
        let channel = message.first().copied().unwrap_or(u8::MAX);
        let unreadable = |_| ExecError::Message { channel };
        let data = message.slice(message.len().min(1)..);
        match channel {
            0 => Ok(Self::Stdin(data)),
            1 => Ok(Self::Stdout(data)),
            2 => Ok(Self::Stderr(data)),
            3 => match serde_json::from_slice::<End>(&data).map_err(unreadable)? {
                End {
                    exit_code: Some(code),
                    ..
                } => Ok(Self::Exit(code)),
                End { error, .. } => Ok(Self::Failed(error.unwrap_or_default())),
            },
            4 => {
                let TerminalSize { width, height } =
                    serde_json::from_slice(&data).map_err(unreadable)?;
                Ok(Self::Resize { width, height })
            }
            255 if data.first() == Some(&0) => Ok(Self::CloseStdin),
            _ => Err(ExecError::Message { channel }),
        }
    }
}

fn on_channel(channel: u8, data: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.put_u8(channel);
    message.put_slice(data);
    message.freeze()
}

fn end(end: End) -> Bytes {
    json(3, &end)
}

fn json<T: Serialize>(channel: u8, value: &T) -> Bytes {
    // Structures of numbers and texts always serialize.
    on_channel(channel, &serde_json::to_vec(value).unwrap_or_default())
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Socket = WebSocketStream<Box<dyn Stream>>;

/// The half that sends.
pub struct ExecSender(SplitSink<Socket, Message>);
/// The half that receives.
pub struct ExecReceiver(SplitStream<Socket>);

impl ExecSender {
    /// Sends a message.
    pub async fn send(&mut self, frame: Frame) -> Result<(), ExecError> {
        let message = Message::Binary(frame.encode());
        self.0
            .send(message)
            .await
            .map_err(|error| ExecError::Broken(Box::new(error)))
    }

    /// Hangs up.
    pub async fn close(&mut self) -> Result<(), ExecError> {
        self.0
            .close()
            .await
            .map_err(|error| ExecError::Broken(Box::new(error)))
    }
}

impl ExecReceiver {
    /// The next message; `None` when the server has hung up.
    pub async fn next(&mut self) -> Option<Result<Frame, ExecError>> {
        loop {
            match self.0.next().await? {
                Ok(Message::Binary(data)) => return Some(Frame::decode(data)),
                Ok(Message::Close(_)) => return None,
                // Texts are not ours; pings are answered by the library.
                Ok(_) => {}
                Err(error) => return Some(Err(ExecError::Broken(Box::new(error)))),
            }
        }
    }
}

/// Connects to the address that ExecContainerCommand answered with, `ws://…` or `wss://…`.
pub async fn connect(uri: &str) -> Result<(ExecSender, ExecReceiver), ExecError> {
    let parsed: http::Uri = uri.parse().map_err(|_| ExecError::Address {
        uri: uri.to_owned(),
    })?;
    let (Some(host), tls) = (parsed.host(), parsed.scheme_str() == Some("wss")) else {
        return Err(ExecError::Address {
            uri: uri.to_owned(),
        });
    };
    let refused = |source| ExecError::Connect {
        host: host.to_owned(),
        source,
    };
    let port = parsed.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let tcp = TcpStream::connect((host, port))
        .await
        .map_err(|error| refused(error.into()))?;
    tcp.set_nodelay(true)
        .map_err(|error| refused(error.into()))?;
    let stream: Box<dyn Stream> = if tls {
        tls_stream(host, tcp).await.map_err(refused)?
    } else {
        Box::new(tcp)
    };
    let (socket, _) = tokio_tungstenite::client_async(uri, stream)
        .await
        .map_err(|error| refused(Box::new(error)))?;
    let (sender, receiver) = socket.split();
    Ok((ExecSender(sender), ExecReceiver(receiver)))
}

async fn tls_stream(
    host: &str,
    tcp: TcpStream,
) -> Result<Box<dyn Stream>, crate::client::BoxError> {
    let config = crate::client::tls_config(true)?;
    let name = rustls::pki_types::ServerName::try_from(host.to_owned())?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    Ok(Box::new(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back() {
        for frame in [
            Frame::Stdin(Bytes::from_static(b"in")),
            Frame::Stdout(Bytes::new()),
            Frame::Stderr(Bytes::from_static(b"\xff\x00")),
            Frame::Exit(-3),
            Frame::Failed("gone".to_owned()),
            Frame::Resize {
                width: 80,
                height: 24,
            },
            Frame::CloseStdin,
        ] {
            assert_eq!(Frame::decode(frame.encode()).unwrap(), frame);
        }
    }

    #[test]
    fn strange_messages_are_refused_with_their_channel() {
        for message in [&b""[..], b"\x03no json", b"\x04{}", b"\x09x", b"\xff\x01"] {
            assert!(
                Frame::decode(Bytes::copy_from_slice(message)).is_err(),
                "{message:?}"
            );
        }
    }
}
