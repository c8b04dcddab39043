//! Requests that end at a kubelet; a small TLS server stands for it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{LogParams, PostParams};
use local_apiserver::testing::TestServer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const DEADLINE: Duration = Duration::from_secs(30);

/// A kubelet that refuses logs with 404 and exec of `sh` with 400, and turns everything else into a raw echo; it tells
/// the heads of requests it got.
async fn kubelet(server: &TestServer) -> (u16, mpsc::UnboundedReceiver<String>) {
    let address = "127.0.0.1".parse().unwrap();
    let (certificate, key) = server
        .server
        .issue_serving_certificate(&["n".to_string()], &[address])
        .unwrap();
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let head = read_head(&mut stream).await;
                sender.send(head.clone()).unwrap();
                let refusal = |status: &str, text: &str| {
                    let length = text.len();
                    format!(
                        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{text}"
                    )
                };
                if head.contains("/containerLogs/") {
                    let text = refusal("404 Not Found", "pod \"web\" not found on node n");
                    return stream.write_all(text.as_bytes()).await.unwrap();
                }
                if head.contains("command=sh") {
                    let text = refusal("400 Bad Request", "container \"main\" is not running");
                    return stream.write_all(text.as_bytes()).await.unwrap();
                }
                let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut reader, mut writer) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    (port, heads)
}

async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(DEADLINE, stream.read_u8())
            .await
            .unwrap();
        head.push(byte.unwrap_or_else(|error| panic!("{error} after {head:?}")));
    }
    String::from_utf8(head).unwrap()
}

/// A server with one running pod on a node whose kubelet is ours.
async fn scene() -> (TestServer, mpsc::UnboundedReceiver<String>) {
    let server = TestServer::start().await;
    let (port, heads) = kubelet(&server).await;
    let nodes: Api<Node> = Api::all(server.client());
    let create = PostParams::default();
    let node = json!({"metadata": {"name": "n"}});
    nodes
        .create(&create, &serde_json::from_value(node).unwrap())
        .await
        .unwrap();
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    nodes
        .patch_status("n", &Default::default(), &kube::api::Patch::Merge(status))
        .await
        .unwrap();
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    let pod = json!({
        "metadata": {"name": "web"},
        "spec": {"nodeName": "n", "containers": [{"name": "main", "image": "i"}]},
    });
    pods.create(&create, &serde_json::from_value(pod).unwrap())
        .await
        .unwrap();
    (server, heads)
}

/// A connection to the API server as the administrator would open it.
async fn dial(server: &TestServer) -> tokio_rustls::client::TlsStream<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    server.server.serve(listener);
    let authority = server.server.credentials().ca_pem;
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap()
}

fn exec(server: &TestServer, command: &str) -> String {
    let token = server.server.credentials().admin_token;
    format!(
        "POST /api/v1/namespaces/default/pods/web/exec?command={command}&container=main&stdout=true HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\ncontent-length: 0\r\n\r\n"
    )
}

#[tokio::test]
async fn a_spdy_session_passes_through_and_ends_with_the_server() {
    let (server, mut heads) = scene().await;
    let mut stream = dial(&server).await;
    let request = exec(&server, "cat");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_head(&mut stream).await.to_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    for header in [
        "upgrade: spdy/3.1",
        "x-stream-protocol-version: v4.channel.k8s.io",
    ] {
        assert!(answer.contains(header), "{header} in {answer}");
    }
    let head = heads.recv().await.unwrap().to_lowercase();
    assert!(
        head.starts_with("post /exec/default/web/main?command=cat"),
        "{head}"
    );
    assert!(
        head.contains("x-stream-protocol-version: v4.channel.k8s.io"),
        "{head}"
    );
    assert!(
        !head.contains("bearer"),
        "the user's token went to the kubelet: {head}"
    );
    stream.write_all(b"\x80\x03raw bytes").await.unwrap();
    let mut echo = [0; 11];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"\x80\x03raw bytes");
    // Dropping the server stops it.
    drop(server);
    let end = tokio::time::timeout(DEADLINE, stream.read(&mut echo)).await;
    assert!(matches!(end.unwrap(), Ok(0) | Err(_)));
}

#[tokio::test]
async fn refusals_before_the_upgrade_are_status_objects() {
    let (server, _heads) = scene().await;
    let mut stream = dial(&server).await;
    let request = exec(&server, "sh");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await.to_lowercase();
    assert!(head.starts_with("http/1.1 400"), "{head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    let mut body = vec![0; length.trim().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    let status: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["reason"], "BadRequest");
    assert_eq!(status["message"], "container \"main\" is not running");

    let pods: Api<Pod> = Api::default_namespaced(server.client());
    match pods.logs("web", &LogParams::default()).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (404, "NotFound"));
            assert_eq!(status.message, "pod \"web\" not found on node n");
        }
        other => panic!("{other:?}"),
    }
}
