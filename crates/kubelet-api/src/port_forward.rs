//! port-forward over SPDY streams: for each forwarded connection the client opens an error and a data stream.
//!
//! Both carry the port and the number of the request. What cannot be forwarded is said on the error stream; the other
//! connections of the session go on.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backend::{ByteReader, ByteWriter, NodeBackend};
use crate::remote_command::{CHUNK_BYTES, STREAM_CREATION_TIMEOUT};
use crate::route::Target;
use crate::spdy::stream::{Stream, StreamReader, StreamWriter};

/// How often a session looks whether its pod is still there.
const POD_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// After a pod has closed its side, what the client still sends is passed on for so long, as container runtimes do.
const LAST_INPUT_TIMEOUT: Duration = Duration::from_millis(500);

/// The streams of one connection, as far as they have come.
#[derive(Default)]
struct Pair {
    data: Option<(StreamReader, StreamWriter)>,
    error: Option<StreamWriter>,
    /// Both have to be there by then.
    until: Option<Instant>,
}

/// What a stream of the session says about itself.
#[derive(Debug, PartialEq, Eq)]
struct Label {
    data: bool,
    port: u16,
    request: String,
}

fn label(stream: &Stream) -> Result<Label, String> {
    parse_label(stream.number, |name| stream.header(name))
}

fn parse_label<'a>(
    number: u32,
    header: impl Fn(&'static str) -> Option<&'a str>,
) -> Result<Label, String> {
    let port = header("port").unwrap_or_default();
    let port = port.parse::<u16>().ok().filter(|port| *port > 0);
    let port = port.ok_or("header port: not a number from 1 to 65535")?;
    let data = match header("streamtype").unwrap_or_default() {
        "data" => true,
        "error" => false,
        other => {
            return Err(format!(
                "header streamType: {other:?} is neither data nor error"
            ));
        }
    };
    let request = match header("requestid") {
        Some(request) if !request.is_empty() => request.to_string(),
        // Old clients number nothing: the data stream is the one right after its error stream.
        _ if data => number.saturating_sub(2).to_string(),
        _ => number.to_string(),
    };
    Ok(Label {
        data,
        port,
        request,
    })
}

/// Forwards until the pod is gone or the client has left.
pub(crate) async fn serve(
    backend: Arc<dyn NodeBackend>,
    target: Target,
    opened: mpsc::Receiver<Stream>,
) {
    tokio::select! {
        () = pod_gone(backend.as_ref(), &target) => {
            tracing::debug!(pod = target.pod, "a port-forward ended with its pod");
        }
        () = forward_all(&backend, &target, opened) => {}
    }
}

/// Resolves when the pod is no longer on the node.
pub(crate) async fn pod_gone(backend: &dyn NodeBackend, target: &Target) {
    loop {
        tokio::time::sleep(POD_CHECK_PERIOD).await;
        if backend
            .check_pod(&target.namespace, &target.pod)
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn forward_all(
    backend: &Arc<dyn NodeBackend>,
    target: &Target,
    mut opened: mpsc::Receiver<Stream>,
) {
    let mut waiting: HashMap<String, Pair> = HashMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let oldest = waiting.values().filter_map(|pair| pair.until).min();
        let expiry = async {
            match oldest {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = opened.recv() => {
                let Some(stream) = stream else { return };
                if let Some((port, pair)) = pair_up(&mut waiting, stream).await {
                    forwards.spawn(forward(backend.clone(), target.clone(), port, pair));
                }
            }
            Some(_) = forwards.join_next(), if !forwards.is_empty() => {}
            () = expiry => {
                let now = Some(Instant::now());
                // Dropping them resets them.
                waiting.retain(|request, pair| {
                    let late = pair.until <= now;
                    if late {
                        tracing::debug!(request, "only one stream of a forwarded connection was opened");
                    }
                    !late
                });
            }
        }
    }
}

/// Both streams once the second has come. Each is accepted at once: a client opens the second when the first is.
async fn pair_up(waiting: &mut HashMap<String, Pair>, stream: Stream) -> Option<(u16, Pair)> {
    let label = match label(&stream) {
        Ok(label) => label,
        Err(reason) => {
            tracing::debug!(reason, "a stream of a port-forward was refused");
            stream.refuse().await;
            return None;
        }
    };
    let (reader, writer) = stream.accept().await.ok()?;
    let mut pair = waiting.remove(&label.request).unwrap_or_default();
    if label.data {
        pair.data = Some((reader, writer));
    } else {
        pair.error = Some(writer);
    }
    if pair.data.is_some() && pair.error.is_some() {
        return Some((label.port, pair));
    }
    pair.until = Some(Instant::now() + STREAM_CREATION_TIMEOUT);
    waiting.insert(label.request, pair);
    None
}

async fn forward(backend: Arc<dyn NodeBackend>, target: Target, port: u16, pair: Pair) {
    let (Some((input, output)), Some(mut errors)) = (pair.data, pair.error) else {
        return;
    };
    let connection = backend
        .port_forward(&target.namespace, &target.pod, port)
        .await;
    match connection {
        Ok((reader, writer)) => {
            let reset = input.ended();
            let errors = carry(to_pod(input, writer), from_pod(reader, output), errors);
            // A reset throws the connection away at once, as a client does whose own peer is gone.
            tokio::select! {
                () = errors => {}
                () = reset.cancelled() => {}
            }
        }
        Err(error) => {
            let (pod, reason) = (&target.pod, error.full_text());
            let text = format!("error forwarding port {port} to pod {pod}: {reason}");
            let _ = errors.send(Bytes::from(text)).await;
            output.finish().await;
            errors.finish().await;
        }
    }
}

/// Both directions. When the pod has closed its side the connection is over: the error stream says so at once, because
/// old clients keep their own side open until it does.
async fn carry(
    sending: impl Future<Output = ()>,
    receiving: impl Future<Output = ()>,
    errors: StreamWriter,
) {
    let (mut sending, mut receiving) = (pin!(sending), pin!(receiving));
    let mut sent = false;
    loop {
        tokio::select! {
            () = &mut sending, if !sent => sent = true,
            () = &mut receiving => break,
        }
    }
    errors.finish().await;
    if !sent {
        let _ = tokio::time::timeout(LAST_INPUT_TIMEOUT, sending).await;
    }
}

async fn to_pod(mut input: StreamReader, mut writer: ByteWriter) {
    while let Some(bytes) = input.next().await {
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

async fn from_pod(mut reader: ByteReader, mut output: StreamWriter) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        match reader.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) if output.send(buffer.split().freeze()).await.is_err() => return,
            Ok(_) => {}
        }
    }
    output.finish().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(number: u32, headers: &[(&str, &'static str)]) -> Result<Label, String> {
        parse_label(number, |name| {
            let found = headers.iter().find(|(one, _)| *one == name);
            found.map(|(_, value)| *value)
        })
    }

    #[test]
    fn streams_of_one_request_belong_together() {
        let data = [("port", "80"), ("streamtype", "data"), ("requestid", "7")];
        let label = parse(9, &data).unwrap();
        assert_eq!(
            (label.data, label.port, label.request.as_str()),
            (true, 80, "7")
        );
    }

    #[test]
    fn without_a_request_number_the_data_stream_follows_its_error_stream() {
        let error = parse(5, &[("port", "80"), ("streamtype", "error")]).unwrap();
        let data = parse(7, &[("port", "80"), ("streamtype", "data")]).unwrap();
        assert_eq!(error.request, data.request);
    }

    #[test]
    fn a_stream_without_a_port_or_a_known_type_is_refused_with_the_headers_name() {
        for (headers, named) in [
            (&[("streamtype", "data")][..], "port"),
            (&[("port", "0"), ("streamtype", "data")], "port"),
            (&[("port", "70000"), ("streamtype", "data")], "port"),
            (&[("port", "80"), ("streamtype", "other")], "streamType"),
        ] {
            assert!(parse(1, headers).unwrap_err().contains(named));
        }
    }
}
