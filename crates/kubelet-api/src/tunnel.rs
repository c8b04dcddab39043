//! A WebSocket as a plain stream of bytes: binary messages put together as they come, cut anywhere.

use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

type Reading = Pin<Box<dyn AsyncRead + Send>>;
type Writing = Pin<Box<dyn AsyncWrite + Send>>;

/// The readable and the writable half; a close message is the end of both.
pub(crate) fn split<S>(socket: WebSocketStream<S>) -> (Reading, Writing)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, source) = socket.split();
    let messages = source
        .take_while(|message| future::ready(!matches!(message, Ok(Message::Close(_)))))
        .filter_map(|message| {
            future::ready(match message {
                Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
                // Pings are answered below us; text means nothing here.
                Ok(_) => None,
                Err(error) => Some(Err(io::Error::other(error))),
            })
        });
    let sink = sink
        .sink_map_err(io::Error::other)
        .with(|bytes: Bytes| future::ready(Ok::<_, io::Error>(Message::Binary(bytes))));
    (
        Box::pin(StreamReader::new(messages)),
        Box::pin(SinkWriter::new(CopyToBytes::new(sink))),
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[tokio::test]
    async fn messages_of_any_length_become_one_stream_and_back() {
        let (near, far) = tokio::io::duplex(1024);
        let near = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let mut far = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let (mut reader, mut writer) = split(near);
        for piece in ["80", "", "03", "0001"] {
            far.send(Message::Binary(Bytes::from(piece))).await.unwrap();
        }
        writer.write_all(b"answer").await.unwrap();
        writer.flush().await.unwrap();
        let Some(Ok(Message::Binary(bytes))) = far.next().await else {
            panic!("no message came");
        };
        assert_eq!(bytes, "answer");
        far.send(Message::Close(None)).await.unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "80030001");
    }
}
