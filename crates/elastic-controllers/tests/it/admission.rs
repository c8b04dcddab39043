//! The webhook over a real TLS connection.

use std::sync::Arc;

use elastic_controllers::{AdmissionIdentity, serve_admission};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

async fn post(port: u16, authority_pem: &str, path: &str, body: &str) -> (String, Value) {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap())
        .unwrap();
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: webhook\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.lines().next().unwrap().to_owned(),
        serde_json::from_str(body).unwrap_or(Value::Null),
    )
}

#[tokio::test]
async fn a_review_over_tls_is_answered_and_garbage_is_refused() {
    let identity = AdmissionIdentity::generate(&["127.0.0.1".to_owned()]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shutdown = CancellationToken::new();
    let serving = {
        let (identity, shutdown) = (identity.clone(), shutdown.clone());
        tokio::spawn(async move { serve_admission(listener, &identity, shutdown).await })
    };
    let review = json!({"request": {"uid": "r-1", "object": {
        "metadata": {"labels": {"eci": "true"}}, "spec": {"containers": []}}}});
    let (status, answer) = post(
        port,
        &identity.authority_pem,
        "/mutate/pod-label",
        &review.to_string(),
    )
    .await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(answer["response"]["allowed"], true);
    assert!(answer["response"]["patch"].is_string());
    let (status, _) = post(
        port,
        &identity.authority_pem,
        "/mutate/pod-label",
        "nonsense",
    )
    .await;
    assert_eq!(status, "HTTP/1.1 400 Bad Request");
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}
