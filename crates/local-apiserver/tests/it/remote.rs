//! Webhooks and aggregated servers: a small TLS server stands for both.

use base64::Engine;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use local_apiserver::testing::TestServer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Answers requests with `answer(path, body)`; the port.
async fn serve(server: &TestServer, answer: fn(&str, &http::HeaderMap, Value) -> Value) -> u16 {
    let names = vec!["backend.default.svc".to_string(), "localhost".to_string()];
    let (certificate, key) = server
        .server
        .issue_serving_certificate(&names, &[])
        .unwrap();
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(chain, key)
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(move |request: Request<Incoming>| async move {
                    let (parts, body) = request.into_parts();
                    let bytes = body.collect().await.unwrap().to_bytes();
                    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                    let text = answer(parts.uri.path(), &parts.headers, body).to_string();
                    let response = Response::builder()
                        .header("content-type", "application/json")
                        .body(Full::new(Bytes::from(text)));
                    Ok::<_, Infallible>(response.unwrap())
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    port
}

fn api(
    client: &Client,
    version: &str,
    kind: &str,
    plural: &str,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let mut resource =
        kube::api::ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    resource.plural = plural.into();
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

async fn create(api: &Api<DynamicObject>, object: Value) {
    api.create(
        &PostParams::default(),
        &serde_json::from_value(object).unwrap(),
    )
    .await
    .unwrap();
}

fn bundle(server: &TestServer) -> String {
    base64::engine::general_purpose::STANDARD.encode(server.server.credentials().ca_pem)
}

fn judge(_path: &str, _headers: &http::HeaderMap, review: Value) -> Value {
    let request = &review["request"];
    let bad = request["object"]["data"]["bad"].is_string();
    let patch = base64::engine::general_purpose::STANDARD
        .encode(r#"[{"op":"add","path":"/data/seen","value":"yes"}]"#);
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
        "uid": request["uid"], "allowed": !bad, "status": {"message": "data.bad is not wanted"},
        "patchType": "JSONPatch", "patch": patch, "warnings": ["seen"]}})
}

fn webhook(server: &TestServer, port: u16) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "judge"},
        "webhooks": [{"name": "judge.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://localhost:{port}/judge"), "caBundle": bundle(server)},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}]})
}

#[tokio::test]
async fn a_mutating_webhook_changes_and_refuses() {
    let server = TestServer::start().await;
    let port = serve(&server, judge).await;
    let client = server.client();
    let hooks = api(
        &client,
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        None,
    );
    create(&hooks, webhook(&server, port)).await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let map = |key: &str| {
        serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {key: "1"}})).unwrap()
    };
    let made: ConfigMap = maps
        .create(&PostParams::default(), &map("good"))
        .await
        .unwrap();
    assert_eq!(
        made.data.unwrap().get("seen").map(String::as_str),
        Some("yes")
    );
    match maps.create(&PostParams::default(), &map("bad")).await {
        Err(kube::Error::Api(status)) => assert_eq!(
            status.message,
            "admission webhook \"judge.example.com\" denied the request: data.bad is not wanted"
        ),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_webhook_is_asked_only_when_its_conditions_hold_and_a_broken_one_refuses() {
    let server = TestServer::start().await;
    let port = serve(&server, judge).await;
    let client = server.client();
    let hooks = api(
        &client,
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        None,
    );
    let mut hook = webhook(&server, port);
    let condition = |expression: &str| json!([{"name": "one", "expression": expression}]);
    hook["webhooks"][0]["matchConditions"] =
        condition("has(object.metadata.annotations) && 'ask' in object.metadata.annotations");
    create(&hooks, hook).await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let map = |name: &str, annotations: Value| {
        let map =
            json!({"metadata": {"name": name, "annotations": annotations}, "data": {"a": "1"}});
        serde_json::from_value::<ConfigMap>(map).unwrap()
    };
    let made = async |name: &str, annotations: Value| {
        let made = maps
            .create(&PostParams::default(), &map(name, annotations))
            .await;
        made.map(|made| made.data.unwrap().contains_key("seen"))
    };
    assert!(!made("unasked", json!(null)).await.unwrap());
    assert!(made("asked", json!({"ask": "1"})).await.unwrap());

    let broken = json!({"webhooks": [{"name": "judge.example.com", "matchConditions": condition("object.nope == 1")}]});
    let how = kube::api::PatchParams::default();
    let patch = kube::api::Patch::Strategic(broken);
    hooks.patch("judge", &how, &patch).await.unwrap();
    match made("refused", json!(null)).await {
        Err(kube::Error::Api(status)) => {
            assert!(
                status.message.contains("match condition"),
                "{}",
                status.message
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_unreachable_webhook_fails_the_write_and_names_itself() {
    let server = TestServer::start().await;
    let client = server.client();
    let hooks = api(
        &client,
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        None,
    );
    create(&hooks, webhook(&server, 1)).await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let map = serde_json::from_value(json!({"metadata": {"name": "m"}})).unwrap();
    match maps.create(&PostParams::default(), &map).await {
        Err(kube::Error::Api(status)) => assert!(
            status
                .message
                .contains("failed calling webhook \"judge.example.com\""),
            "{}",
            status.message
        ),
        other => panic!("{other:?}"),
    }
}

/// The cluster's network in this test: every address is this machine.
struct Loopback;

#[async_trait::async_trait]
impl local_apiserver::Dialer for Loopback {
    async fn connect(
        &self,
        address: std::net::SocketAddr,
    ) -> std::io::Result<tokio::net::TcpStream> {
        tokio::net::TcpStream::connect(("127.0.0.1", address.port())).await
    }
}

fn metrics(path: &str, headers: &http::HeaderMap, _body: Value) -> Value {
    match path {
        "/apis/things.example.com/v1" => {
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "things.example.com/v1",
            "resources": [{"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"]}]})
        }
        _ => {
            json!({"apiVersion": "things.example.com/v1", "kind": "Thing", "metadata": {"name": "t"},
            "asked": headers.get("x-remote-user").and_then(|value| value.to_str().ok())})
        }
    }
}

/// An aggregated server of things behind a Service.
async fn serve_things(server: &TestServer) -> Api<DynamicObject> {
    let port = serve(server, metrics).await;
    let client = server.client();
    create(
        &api(&client, "v1", "Service", "services", Some("default")),
        json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "backend"}, "spec": {"ports": [{"port": 443, "targetPort": port}]}}),
    )
    .await;
    create(&api(&client, "v1", "Endpoints", "endpoints", Some("default")), json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "backend"}, "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": port}]}]})).await;
    create(&api(&client, "apiregistration.k8s.io/v1", "APIService", "apiservices", None), json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.things.example.com"}, "spec": {"group": "things.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "caBundle": bundle(server), "service": {"namespace": "default", "name": "backend", "port": 443}}})).await;
    api(
        &client,
        "things.example.com/v1",
        "Thing",
        "things",
        Some("default"),
    )
}

#[tokio::test]
async fn an_aggregated_server_is_discovered_and_asked_in_the_users_name() {
    let server = TestServer::start_with(|config| config.dialer = Arc::new(Loopback)).await;
    let things = serve_things(&server).await;
    let client = server.client();
    let thing = things.get("t").await.unwrap();
    assert_eq!(thing.data["asked"], "kubernetes-admin");
    let listed = async {
        loop {
            let groups = client.list_api_groups().await.unwrap();
            if groups
                .groups
                .iter()
                .any(|group| group.name == "things.example.com")
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), listed)
        .await
        .unwrap();
}

/// The same, with a hand on every connection.
#[derive(Default)]
struct Watched(std::sync::Mutex<Vec<std::net::TcpStream>>);

#[async_trait::async_trait]
impl local_apiserver::Dialer for Watched {
    async fn connect(
        &self,
        address: std::net::SocketAddr,
    ) -> std::io::Result<tokio::net::TcpStream> {
        let stream = Loopback.connect(address).await?.into_std()?;
        self.0.lock().unwrap().push(stream.try_clone()?);
        tokio::net::TcpStream::from_std(stream)
    }
}

#[tokio::test]
async fn questions_to_an_aggregated_server_share_connections_and_dead_ones_are_replaced() {
    let watched = Arc::new(Watched::default());
    let dialer = watched.clone();
    let server = TestServer::start_with(|config| config.dialer = dialer).await;
    let things = serve_things(&server).await;
    for _ in 0..20 {
        things.get("t").await.unwrap();
    }
    let made = || watched.0.lock().unwrap().len();
    // One for the questions, and one for the looks at its health that happen beside them.
    let before = made();
    assert!(before <= 2, "{before} connections for one after the other");
    for stream in watched.0.lock().unwrap().iter() {
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    for _ in 0..5 {
        things.get("t").await.unwrap();
    }
    assert!(made() > before);
}
