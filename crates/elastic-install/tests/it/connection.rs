//! The replica's client over the network, seen from the wire.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use elastic_install::connection::connect;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use local_apiserver::testing::TestServer;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

/// Carries bytes to `to` and counts connections.
async fn counting_proxy(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut onward = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut onward).await;
            });
        }
    });
    (address, count)
}

async fn client(server: &TestServer, address: SocketAddr) -> Client {
    let credentials = server.server.credentials();
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": base64(&credentials.ca_pem)}}],
        "users": [{"name": "u", "user": {
            "client-certificate-data": base64(&credentials.admin_certificate_pem),
            "client-key-data": base64(&credentials.admin_key_pem)}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
    });
    let kubeconfig: Kubeconfig = serde_json::from_value(text).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    connect(config.unwrap()).unwrap()
}

fn base64(text: &str) -> String {
    let bytes = k8s_openapi::ByteString(text.as_bytes().to_vec());
    serde_json::from_value(serde_json::to_value(bytes).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_requests_shares_one_connection() {
    let server = TestServer::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    server.server.serve(listener);
    let (address, connections) = counting_proxy(to).await;
    let client = client(&server, address).await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.list(&ListParams::default()).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    // More than the server serves at the same time on one connection: the rest waits its turn.
    let requests = (0..600).map(|number| {
        let map =
            json!({"metadata": {"name": format!("m-{number}")}, "data": {"k": "v".repeat(2_000)}});
        let map: ConfigMap = serde_json::from_value(map).unwrap();
        let maps = maps.clone();
        async move { maps.create(&PostParams::default(), &map).await.unwrap() }
    });
    futures::future::join_all(requests).await;
    let all = maps.list(&ListParams::default()).await.unwrap();
    assert!(all.items.len() >= 600, "{}", all.items.len());
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_another_name_is_refused() {
    let server = TestServer::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    server.server.serve(listener);
    let credentials = server.server.credentials();
    let mut config = Config::new(format!("https://{address}").parse().unwrap());
    config.root_cert = Some(vec![pem_bytes(&credentials.ca_pem)]);
    config.tls_server_name = Some("somebody.else".to_owned());
    let client = connect(config).unwrap();
    let refused = client.apiserver_version().await.unwrap_err();
    assert!(
        format!("{refused:?}").contains("NotValidForName"),
        "{refused:?}"
    );
}

/// The certificate in a PEM text.
fn pem_bytes(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with('-'));
    let text: String = lines.collect();
    let bytes: k8s_openapi::ByteString = serde_json::from_value(json!(text)).unwrap();
    bytes.0
}
