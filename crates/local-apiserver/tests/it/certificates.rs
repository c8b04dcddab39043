//! From a request to a certificate, as `kubectl certificate approve` drives it.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use local_apiserver::testing::TestServer;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use std::time::Duration;

fn request(organization: &str) -> String {
    let mut params = CertificateParams::new(vec!["n-1".to_owned()]).unwrap();
    let subject = &mut params.distinguished_name;
    subject.push(DnType::OrganizationName, organization);
    subject.push(DnType::CommonName, "system:node:n-1");
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

async fn create(api: &Api<CertificateSigningRequest>, name: &str, organization: &str) {
    let wanted = json!({
        "metadata": {"name": name},
        "spec": {
            "request": ByteString(request(organization).into_bytes()), "username": "somebody-else",
            "signerName": "kubernetes.io/kubelet-serving", "usages": ["digital signature", "server auth"]
        }
    });
    let wanted = serde_json::from_value(wanted).unwrap();
    api.create(&PostParams::default(), &wanted).await.unwrap();
}

async fn until(
    api: &Api<CertificateSigningRequest>,
    name: &str,
    done: impl Fn(&Value) -> bool,
) -> Value {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let found = serde_json::to_value(api.get(name).await.unwrap()).unwrap();
        if done(&found) {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "{found:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn decide(api: &Api<CertificateSigningRequest>, name: &str, kind: &str) {
    let condition = json!({"type": kind, "status": "True", "reason": "Test", "message": "by hand"});
    let body = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    let parameters = PatchParams::default();
    api.patch_approval(name, &parameters, &body).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approved_request_is_signed_and_no_other() {
    let server = TestServer::start().await;
    let api: Api<CertificateSigningRequest> = Api::all(server.client());
    for name in ["approved", "denied"] {
        create(&api, name, "system:nodes").await;
    }
    create(&api, "wrong", "system:masters").await;
    decide(&api, "denied", "Denied").await;
    decide(&api, "wrong", "Approved").await;
    decide(&api, "approved", "Approved").await;
    let issued = |found: &Value| found["status"]["certificate"].is_string();
    let approved = until(&api, "approved", issued).await;
    assert_ne!(approved["spec"]["username"], "somebody-else");
    let failed = |found: &Value| {
        let conditions = found["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Failed"))
    };
    let wrong = until(&api, "wrong", failed).await;
    assert!(!issued(&wrong), "{wrong:#}");
    let denied = until(&api, "denied", |_| true).await;
    assert!(!issued(&denied), "{denied:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cluster_says_who_vouches_for_its_clients() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "kube-system");
    let map = maps
        .get("extension-apiserver-authentication")
        .await
        .unwrap();
    let data = map.data.unwrap();
    let authority = server.server.credentials().ca_pem;
    assert_eq!(data["client-ca-file"], authority);
    assert_eq!(data["requestheader-client-ca-file"], authority);
    assert_eq!(
        data["requestheader-allowed-names"],
        "[\"front-proxy-client\"]"
    );
}
