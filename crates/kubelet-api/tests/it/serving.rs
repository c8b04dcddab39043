//! What an API server sees of a kubelet.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::fake::{Served, serve};

pub async fn connect(
    served: &Served,
    with_certificate: bool,
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(served.ca_pem.as_bytes()).unwrap())
        .unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = if with_certificate {
        let chain =
            vec![CertificateDer::from_pem_slice(served.client_certificate_pem.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(served.client_key_pem.as_bytes()).unwrap();
        builder.with_client_auth_cert(chain, key).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let stream = TcpStream::connect(served.address).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("127.0.0.1").unwrap(), stream)
        .await
}

async fn get(served: &Served, path: &str) -> (u16, String) {
    get_as(served, path, None, true).await
}

/// With a bearer token, a certificate, both or nothing.
async fn get_as(
    served: &Served,
    path: &str,
    token: Option<&str>,
    with_certificate: bool,
) -> (u16, String) {
    let stream = connect(served, with_certificate).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::get(path).header("host", "node");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

pub async fn stop(served: Served) {
    served.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), served.task)
        .await
        .expect("the server ends on shutdown")
        .unwrap();
}

#[tokio::test]
async fn new_keys_are_shown_without_a_pause_and_unusable_ones_are_not() {
    let served = serve().await;
    let shown = async || {
        let stream = connect(&served, true).await.unwrap();
        let (_, session) = stream.get_ref();
        session.peer_certificates().unwrap()[0].clone()
    };
    let of = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let first = of(&served.keys.borrow().certificate_pem.clone());
    assert_eq!(shown().await, first);
    let mut broken = served.next_keys.clone();
    broken.key_pem = "no key".to_string();
    served.keys.send_replace(broken);
    assert_eq!(shown().await, first);
    served.keys.send_replace(served.next_keys.clone());
    let next = of(&served.next_keys.certificate_pem);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while shown().await != next {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the new certificate is not shown"
        );
    }
    assert_eq!(get(&served, "/healthz").await.0, 200);
    stop(served).await;
}

#[tokio::test]
async fn logs_and_metrics_are_streamed_as_plain_text() {
    let served = serve().await;
    let (status, body) = get(&served, "/containerLogs/shop/web/main?tailLines=2").await;
    assert_eq!((status, body.as_str()), (200, "line 0\nline 1\n"));
    let (status, body) = get(&served, "/metrics/resource").await;
    assert_eq!(status, 200);
    assert!(
        body.contains("\nnode_cpu_usage_seconds_total 1.500000000 "),
        "{body}"
    );
    let (_, body) = get(&served, "/pods").await;
    assert!(
        body.contains("\"PodList\"") && body.contains("web"),
        "{body}"
    );
    stop(served).await;
}

#[tokio::test]
async fn refusals_name_the_pod_or_the_parameter() {
    let served = serve().await;
    let (status, body) = get(&served, "/containerLogs/shop/other/main").await;
    assert_eq!(status, 404);
    assert!(body.contains("other"), "{body}");
    let (status, body) = get(&served, "/containerLogs/shop/web/main?tailLines=many").await;
    assert_eq!(status, 400);
    assert!(body.contains("tailLines"), "{body}");
    let (status, body) = get(&served, "/exec/shop/web/main?command=ls").await;
    assert_eq!(status, 400);
    assert!(body.contains("websocket"), "{body}");
    stop(served).await;
}

#[tokio::test]
async fn nobody_is_unauthorized_and_a_known_user_may_what_the_cluster_allows() {
    let served = serve().await;
    for path in ["/pods", "/healthz", "/metrics", "/none"] {
        let (status, body) = get_as(&served, path, None, false).await;
        assert_eq!((status, body.as_str()), (401, "Unauthorized"), "{path}");
    }
    assert_eq!(get_as(&served, "/pods", Some("stolen"), false).await.0, 401);
    assert_eq!(get_as(&served, "/pods", Some("admin"), false).await.0, 200);
    let cadvisor = "/metrics/cadvisor";
    let (status, body) = get_as(&served, cadvisor, Some("scraper"), false).await;
    assert_eq!(status, 200);
    assert!(
        body.contains("container_cpu_usage_seconds_total{container=\"main\","),
        "{body}"
    );
    let (status, body) = get_as(&served, "/pods", Some("scraper"), false).await;
    assert_eq!(status, 403);
    for part in ["user=scraper", "verb=get", "proxy", "node=node"] {
        assert!(body.contains(part), "{part} in {body}");
    }
    // The certificate counts, whatever else is shown.
    assert_eq!(get_as(&served, "/pods", Some("stolen"), true).await.0, 200);
    stop(served).await;
}

#[tokio::test]
async fn series_of_another_node_are_never_served_under_a_shared_address() {
    let served = serve().await;
    for path in ["/metrics/cadvisor", "/metrics/resource"] {
        let own = get(&served, &format!("{path}?nodeName=node")).await.1;
        assert!(own.contains("pod=\"web\""), "{own}");
        let other = get(&served, &format!("{path}?nodeName=other")).await.1;
        assert!(!other.contains("pod="), "{other}");
    }
    stop(served).await;
}

#[tokio::test]
async fn the_server_tells_about_itself() {
    let served = serve().await;
    assert_eq!(get(&served, "/healthz").await, (200, "ok".to_string()));
    let (_, configuration) = get(&served, "/configz").await;
    let configuration: serde_json::Value = serde_json::from_str(&configuration).unwrap();
    let anonymous = &configuration["kubeletconfig"]["authentication"]["anonymous"]["enabled"];
    assert_eq!(anonymous, false);
    let (_, running) = get(&served, "/runningpods/").await;
    assert!(
        running.contains("\"items\":[]"),
        "no pod is Running: {running}"
    );
    let (_, metrics) = get(&served, "/metrics").await;
    assert!(
        metrics.contains("kubelet_http_requests_total{path=\"healthz\",code=\"200\"} 1"),
        "{metrics}"
    );
    let (_, summary) = get(&served, "/stats/summary").await;
    assert!(summary.contains("\"nodeName\":\"node\""), "{summary}");
    stop(served).await;
}

async fn session(
    served: &Served,
    path: &str,
) -> tokio_tungstenite::WebSocketStream<TlsStream<TcpStream>> {
    session_with(served, path, "v5.channel.k8s.io").await
}

pub async fn session_with(
    served: &Served,
    path: &str,
    protocol: &str,
) -> tokio_tungstenite::WebSocketStream<TlsStream<TcpStream>> {
    let stream = connect(served, true).await.unwrap();
    let mut request = format!("wss://127.0.0.1{path}")
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol.parse().unwrap());
    tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap()
        .0
}

#[tokio::test]
async fn exec_carries_input_output_and_the_exit_code() {
    let served = serve().await;
    let mut socket = session(&served, "/exec/shop/web/main?command=cat&input=1&output=1").await;
    let message = |bytes: &[u8]| Message::Binary(Bytes::copy_from_slice(bytes));
    socket.send(message(b"\x00hello")).await.unwrap();
    socket.send(message(&[255, 0])).await.unwrap();
    let mut output = Vec::new();
    let mut status = None;
    while let Some(Ok(received)) = socket.next().await {
        match received {
            Message::Binary(data) if data[0] == 1 => output.extend_from_slice(&data[1..]),
            Message::Binary(data) if data[0] == 3 => {
                status = Some(serde_json::from_slice::<serde_json::Value>(&data[1..]).unwrap());
            }
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1000);
                break;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(output, b"hello");
    assert_eq!(status.unwrap()["details"]["causes"][0]["message"], "5");
    stop(served).await;
}

#[tokio::test]
async fn port_forward_announces_each_port_then_carries_bytes_or_the_error() {
    let served = serve().await;
    let mut socket = session(&served, "/portForward/shop/web?ports=80&ports=81").await;
    socket
        .send(Message::Binary(Bytes::from_static(b"\x00ping")))
        .await
        .unwrap();
    let mut received = Vec::new();
    while received.len() < 6 {
        let Some(Ok(Message::Binary(data))) = socket.next().await else {
            panic!("ended after {received:?}");
        };
        received.push(data.to_vec());
    }
    received.sort();
    assert_eq!(
        received,
        [
            &[0u8, 80, 0][..],
            b"\x00ping",
            &[1, 80, 0],
            &[2, 81, 0],
            &[3, 81, 0],
            b"\x03nothing listens on port 81",
        ]
    );
    stop(served).await;
}
