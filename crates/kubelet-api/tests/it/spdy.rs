//! Sessions as an upstream API server and an old kubectl open them: SPDY/3.1 on the connection itself, and as a new
//! kubectl forwards ports: SPDY inside a WebSocket.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use kubelet_api::spdy::{Decoder, Encoder, Frame, reset};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use crate::fake::{Served, serve};
use crate::serving::{connect, session_with, stop};

/// Longer than anything here takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// One end of a SPDY connection, frame by frame.
struct Client<S> {
    stream: S,
    encoder: Encoder,
    decoder: Decoder,
    input: BytesMut,
}

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

fn client<S>(stream: S) -> Client<S> {
    Client {
        stream,
        encoder: Encoder::default(),
        decoder: Decoder::default(),
        input: BytesMut::new(),
    }
}

/// Asks for an upgrade; `Err` is the status and the accepted protocols of a refusal.
async fn upgrade(
    served: &Served,
    path: &str,
    protocols: &[&str],
) -> Result<(Client<Upgraded>, String), (u16, String)> {
    let stream = connect(served, true).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = http::Request::post(path)
        .header("host", "node")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1");
    for protocol in protocols {
        request = request.header("x-stream-protocol-version", *protocol);
    }
    let response = sender
        .send_request(request.body(Empty::<Bytes>::new()).unwrap())
        .await
        .unwrap();
    let header = |name: &str| {
        let value = response.headers().get(name);
        value.map_or(String::new(), |value| value.to_str().unwrap().to_string())
    };
    if response.status() != 101 {
        let accepted = header("x-accepted-stream-protocol-versions");
        return Err((response.status().as_u16(), accepted));
    }
    assert_eq!(header("upgrade"), "SPDY/3.1");
    let protocol = header("x-stream-protocol-version");
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    Ok((client(TokioIo::new(upgraded)), protocol))
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Client<S> {
    async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(&frame, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let headers = headers.iter().map(owned).collect();
        let finished = false;
        self.send(Frame::SynStream {
            stream,
            finished,
            headers,
        })
        .await;
    }

    async fn data(&mut self, stream: u32, bytes: &[u8], finished: bool) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.send(Frame::Data {
            stream,
            finished,
            bytes,
        })
        .await;
    }

    /// The next frame; `None` = the server has closed.
    async fn next(&mut self) -> Option<Frame> {
        let reading = async {
            loop {
                if let Some(frame) = self.decoder.decode(&mut self.input).unwrap() {
                    return Some(frame);
                }
                if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        };
        tokio::time::timeout(DEADLINE, reading)
            .await
            .expect("a frame or the end")
    }

    /// All data until the stream that ends a session is finished, by stream, and which streams were finished.
    async fn rest(&mut self) -> BTreeMap<u32, (Vec<u8>, bool)> {
        let mut all = BTreeMap::<u32, (Vec<u8>, bool)>::new();
        while let Some(frame) = self.next().await {
            if let Frame::Data {
                stream,
                finished,
                bytes,
            } = frame
            {
                let entry = all.entry(stream).or_default();
                entry.0.extend_from_slice(&bytes);
                entry.1 |= finished;
                if stream == 1 && finished {
                    break;
                }
            }
        }
        all
    }

    /// All data of one stream up to its end.
    async fn whole(&mut self, wanted: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let of_stream =
                |frame: &Frame| matches!(frame, Frame::Data { stream, .. } if *stream == wanted);
            let Frame::Data {
                bytes, finished, ..
            } = self.until(of_stream).await
            else {
                unreachable!()
            };
            all.extend_from_slice(&bytes);
            if finished {
                return all;
            }
        }
    }

    /// Frames up to the one that is wanted.
    async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        let mut seen = Vec::new();
        while let Some(frame) = self.next().await {
            if wanted(&frame) {
                return frame;
            }
            seen.push(frame);
        }
        panic!("the connection ended after {seen:?}");
    }
}

const EXEC: &str = "/exec/shop/web/main?command=cat&input=1&output=1";

#[tokio::test]
async fn exec_over_spdy_carries_input_output_and_the_exit_code() {
    let served = serve().await;
    let offered = ["v4.channel.k8s.io", "v3.channel.k8s.io", "channel.k8s.io"];
    let (mut client, protocol) = upgrade(&served, EXEC, &offered).await.ok().unwrap();
    assert_eq!(protocol, "v4.channel.k8s.io");
    client.open(1, &[("streamtype", "error")]).await;
    client.open(3, &[("streamtype", "stdin")]).await;
    client.open(5, &[("streamtype", "stdout")]).await;
    client.data(3, b"hello", true).await;
    let all = client.rest().await;
    assert_eq!(all[&5], (b"hello".to_vec(), true));
    let (status, finished) = &all[&1];
    let status: serde_json::Value = serde_json::from_slice(status).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "5");
    assert!(*finished);
    stop(served).await;
}

#[tokio::test]
async fn an_old_client_that_names_no_version_gets_a_sentence_at_the_end() {
    let served = serve().await;
    let (mut client, protocol) = upgrade(&served, EXEC, &[]).await.ok().unwrap();
    assert_eq!(protocol, "");
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        client.open(stream, &[("streamtype", kind)]).await;
    }
    client.data(3, b"abc", true).await;
    let all = client.rest().await;
    assert_eq!(
        String::from_utf8_lossy(&all[&1].0),
        "command terminated with non-zero exit code: 3"
    );
    stop(served).await;
}

#[tokio::test]
async fn a_session_that_cannot_be_is_refused_before_the_upgrade() {
    let served = serve().await;
    let refused = async |path: &str, protocols: &[&str]| {
        upgrade(&served, path, protocols).await.err().unwrap()
    };
    assert_eq!(
        refused(EXEC, &["v9.channel.k8s.io"]).await,
        (403, "v4.channel.k8s.io".to_string())
    );
    let other = "/exec/shop/other/main?command=cat&output=1";
    assert_eq!(refused(other, &["v4.channel.k8s.io"]).await.0, 404);
    let other = "/portForward/shop/other";
    assert_eq!(refused(other, &["portforward.k8s.io"]).await.0, 404);
    stop(served).await;
}

fn pair(
    kind: &'static str,
    port: &'static str,
    request: &'static str,
) -> [(&'static str, &'static str); 3] {
    [("streamtype", kind), ("port", port), ("requestid", request)]
}

#[tokio::test]
async fn connections_are_forwarded_side_by_side_and_an_error_ends_only_its_own() {
    let served = serve().await;
    let path = "/portForward/shop/web";
    let (mut client, protocol) = upgrade(&served, path, &["portforward.k8s.io"])
        .await
        .ok()
        .unwrap();
    assert_eq!(protocol, "portforward.k8s.io");
    client.open(1, &pair("error", "80", "0")).await;
    client.data(1, b"", true).await;
    client.open(3, &pair("data", "80", "0")).await;
    client.open(5, &pair("error", "81", "1")).await;
    client.open(7, &pair("data", "81", "1")).await;
    client.open(9, &pair("error", "80", "2")).await;
    client.open(11, &pair("data", "80", "2")).await;
    let error = client
        .until(|frame| matches!(frame, Frame::Data { stream: 5, bytes, .. } if !bytes.is_empty()))
        .await;
    let Frame::Data { bytes, .. } = error else {
        unreachable!()
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(
        text.contains("port 81") && text.contains("nothing listens"),
        "{text}"
    );
    for (stream, text) in [(3, "first"), (11, "second")] {
        client.data(stream, text.as_bytes(), true).await;
        assert_eq!(client.whole(stream).await, text.as_bytes());
    }
    stop(served).await;
}

#[tokio::test]
async fn megabytes_come_back_whole_and_pings_are_echoed_meanwhile() {
    let served = serve().await;
    let path = "/portForward/shop/web";
    let (mut client, _) = upgrade(&served, path, &["portforward.k8s.io"])
        .await
        .ok()
        .unwrap();
    client.open(1, &pair("error", "80", "0")).await;
    client.open(3, &pair("data", "80", "0")).await;
    let piece: Vec<u8> = (0..30_000u32).map(|index| (index % 251) as u8).collect();
    let (mut received, mut echoes, mut credit) = (Vec::new(), 0, 0usize);
    // Far more than any buffer on the way, so it has to flow.
    let rounds = 100u32;
    for round in 0..rounds {
        client.data(3, &piece, round + 1 == rounds).await;
        client.send(Frame::Ping(round * 2 + 1)).await;
        while received.len() < piece.len() * round as usize {
            take(
                client.next().await.unwrap(),
                &mut received,
                &mut echoes,
                &mut credit,
            );
        }
    }
    while received.len() < piece.len() * rounds as usize || echoes < rounds {
        take(
            client.next().await.unwrap(),
            &mut received,
            &mut echoes,
            &mut credit,
        );
    }
    assert!(received.chunks(piece.len()).all(|chunk| chunk == piece));
    // A peer that counts windows would have been given all of them back but the last steps.
    assert!(credit + 64 * 1024 >= received.len(), "{credit}");
    stop(served).await;
}

fn take(frame: Frame, received: &mut Vec<u8>, echoes: &mut u32, credit: &mut usize) {
    match frame {
        Frame::Data {
            stream: 3, bytes, ..
        } => received.extend_from_slice(&bytes),
        Frame::Ping(_) => *echoes += 1,
        Frame::WindowUpdate { stream: 3, delta } => *credit += delta as usize,
        _ => {}
    }
}

#[tokio::test]
async fn a_client_that_counts_windows_gets_no_more_than_it_gave_credit_for() {
    let served = serve().await;
    let path = "/portForward/shop/web";
    let (mut client, _) = upgrade(&served, path, &["portforward.k8s.io"])
        .await
        .ok()
        .unwrap();
    client.send(Frame::Settings(vec![(7, 10)])).await;
    client.open(1, &pair("error", "80", "0")).await;
    client.open(3, &pair("data", "80", "0")).await;
    client.data(3, b"0123456789abcdef", false).await;
    let data = |frame: &Frame| matches!(frame, Frame::Data { stream: 3, .. });
    let mut received = Vec::new();
    while received.len() < 10 {
        let Frame::Data { bytes, .. } = client.until(data).await else {
            unreachable!()
        };
        received.extend_from_slice(&bytes);
    }
    // Everything sent before the echo of this would have come before it.
    client.send(Frame::Ping(1)).await;
    let next = client
        .until(|frame| data(frame) || *frame == Frame::Ping(1))
        .await;
    assert_eq!(
        (next, received.as_slice()),
        (Frame::Ping(1), &b"0123456789"[..])
    );
    client
        .send(Frame::WindowUpdate {
            stream: 3,
            delta: 6,
        })
        .await;
    let Frame::Data { bytes, .. } = client.until(data).await else {
        unreachable!()
    };
    assert_eq!(bytes, "abcdef");
    stop(served).await;
}

#[tokio::test]
async fn streams_that_break_the_rules_are_reset_and_the_others_go_on() {
    let served = serve().await;
    let path = "/portForward/shop/web";
    let (mut client, _) = upgrade(&served, path, &["portforward.k8s.io"])
        .await
        .ok()
        .unwrap();
    let reset_of = |stream: u32, status: u32| Frame::RstStream { stream, status };
    client.open(2, &pair("error", "80", "0")).await;
    let even = client
        .until(|frame| matches!(frame, Frame::RstStream { .. }))
        .await;
    assert_eq!(even, reset_of(2, reset::PROTOCOL_ERROR));
    client
        .open(1, &[("streamtype", "data"), ("port", "none")])
        .await;
    let port = client
        .until(|frame| matches!(frame, Frame::RstStream { .. }))
        .await;
    assert_eq!(port, reset_of(1, reset::REFUSED_STREAM));
    client.data(99, b"lost", false).await;
    let unknown = client
        .until(|frame| matches!(frame, Frame::RstStream { .. }))
        .await;
    assert_eq!(unknown, reset_of(99, reset::INVALID_STREAM));
    client.open(3, &pair("error", "80", "1")).await;
    client.open(5, &pair("data", "80", "1")).await;
    client.data(5, b"still", false).await;
    let data = client
        .until(|frame| matches!(frame, Frame::Data { stream: 5, .. }))
        .await;
    assert!(matches!(data, Frame::Data { bytes, .. } if bytes == "still"));
    stop(served).await;
}

#[tokio::test]
async fn bytes_that_are_not_spdy_end_the_connection_with_a_goodbye() {
    let served = serve().await;
    let path = "/portForward/shop/web";
    let (mut client, _) = upgrade(&served, path, &["portforward.k8s.io"])
        .await
        .ok()
        .unwrap();
    client.stream.write_all(b"\x80\x02garbage").await.unwrap();
    let goodbye = client
        .until(|frame| matches!(frame, Frame::GoAway { .. }))
        .await;
    assert_eq!(
        goodbye,
        Frame::GoAway {
            last_stream: 0,
            status: 1
        }
    );
    assert_eq!(client.next().await, None);
    stop(served).await;
}

#[tokio::test]
async fn a_port_forward_ends_with_its_pod_and_with_the_server() {
    for by_pod in [true, false] {
        let served = serve().await;
        let path = "/portForward/shop/web";
        let (mut client, _) = upgrade(&served, path, &["portforward.k8s.io"])
            .await
            .ok()
            .unwrap();
        client.open(1, &pair("error", "80", "0")).await;
        client
            .until(|frame| matches!(frame, Frame::SynReply { .. }))
            .await;
        if by_pod {
            served.gone.cancel();
        } else {
            served.shutdown.cancel();
        }
        while client.next().await.is_some() {}
        stop(served).await;
    }
}

#[tokio::test]
async fn ports_are_forwarded_by_spdy_inside_a_web_socket_cut_anywhere() {
    let served = serve().await;
    let protocol = "SPDY/3.1+portforward.k8s.io";
    let mut socket = session_with(&served, "/portForward/shop/web", protocol).await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut client = client(near);
    client.open(1, &pair("error", "80", "0")).await;
    client.open(3, &pair("data", "80", "0")).await;
    client.data(3, b"through the tunnel", true).await;
    let (mut outgoing, mut incoming): (_, tokio::io::WriteHalf<DuplexStream>) =
        tokio::io::split(far);
    let carrying = async {
        let mut one = [0; 3];
        loop {
            tokio::select! {
                read = outgoing.read(&mut one) => {
                    let piece = Bytes::copy_from_slice(&one[..read.unwrap()]);
                    socket.send(Message::Binary(piece)).await.unwrap();
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => incoming.write_all(&bytes).await.unwrap(),
                    other => return other,
                },
            }
        }
    };
    let received = tokio::select! {
        received = client.whole(3) => received,
        ended = carrying => panic!("the tunnel ended: {ended:?}"),
    };
    assert_eq!(received, b"through the tunnel");
    stop(served).await;
}
