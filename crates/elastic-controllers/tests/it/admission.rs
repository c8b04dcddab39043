//! The webhook over a real TLS connection.

use std::sync::Arc;

use elastic_controllers::{AdmissionIdentity, WebhookAddress, register_admission, serve_admission};
use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use local_apiserver::testing::TestServer;
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

/// Creates a pod and returns its spec as the API server admitted it.
async fn admitted(client: &Client, namespace: &str, name: &str, labels: Value) -> PodSpec {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], "nodeSelector": {"disk": "ssd"}}
    });
    let created = pods
        .create(
            &PostParams::default(),
            &serde_json::from_value(pod).unwrap(),
        )
        .await;
    created.unwrap().spec.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labelled_pods_and_namespaces_are_routed_by_the_api_server() {
    let server = TestServer::start().await;
    let client = server.client();
    let identity = AdmissionIdentity::generate(&["127.0.0.1".to_owned()]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = WebhookAddress::Url(format!("https://{}", listener.local_addr().unwrap()));
    let shutdown = CancellationToken::new();
    let serving = {
        let (identity, shutdown) = (identity.clone(), shutdown.clone());
        tokio::spawn(async move { serve_admission(listener, &identity, shutdown).await })
    };
    for _ in 0..2 {
        register_admission(&client, &address, &identity.authority_pem)
            .await
            .unwrap();
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let vk = json!({"metadata": {"name": "vk", "labels": {"virtual-node-affinity-injection": "enabled"}}});
    namespaces
        .create(&PostParams::default(), &serde_json::from_value(vk).unwrap())
        .await
        .unwrap();

    let virtual_only = |spec: &PodSpec| spec.node_selector.as_ref().unwrap().get("type").is_some();
    let started = tokio::time::Instant::now();
    let mut number = 0;
    // The API server may take a moment to act on the registration.
    loop {
        number += 1;
        let labels = json!({"alibabacloud.com/eci": "true"});
        let spec = admitted(&client, "default", &format!("labelled-{number}"), labels).await;
        if virtual_only(&spec) {
            assert_eq!(spec.node_selector.unwrap().len(), 1);
            let tolerations = spec.tolerations.unwrap_or_default();
            assert!(
                tolerations
                    .iter()
                    .any(|found| found.key.as_deref() == Some("virtual-kubelet.io/provider"))
            );
            break;
        }
        assert!(started.elapsed().as_secs() < 10, "{spec:?}");
    }
    assert!(virtual_only(
        &admitted(&client, "vk", "plain", json!({})).await
    ));
    assert!(!virtual_only(
        &admitted(
            &client,
            "vk",
            "out",
            json!({"alibabacloud.com/eci": "false"})
        )
        .await
    ));
    assert!(!virtual_only(
        &admitted(&client, "default", "plain", json!({})).await
    ));
    shutdown.cancel();
    serving.await.unwrap().unwrap();
    // With the webhook away, pods are admitted as they are.
    assert!(!virtual_only(
        &admitted(&client, "vk", "later", json!({})).await
    ));
}
