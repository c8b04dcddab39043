//! The serving certificate of a virtual node's kubelet API: signed by the cluster when it signs such, else by ourselves.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use kubelet_api::ServerTls;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::json;

use crate::names::NAMESPACE;

const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Exactly these: signers before 1.27 refuse to leave out the second, which our kind of key does not use.
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];
/// Every cluster publishes here who vouches for its clients.
const AUTHORITIES: &str = "extension-apiserver-authentication";
const CLIENT_AUTHORITY: &str = "client-ca-file";
/// The signer answers within a second where there is one.
const SIGN_TIMEOUT: Duration = Duration::from_secs(5);
const SIGN_POLL: Duration = Duration::from_millis(250);

/// Why no certificate was had from the cluster.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error("make a key and a request")]
    Make(#[from] rcgen::Error),
    #[error("ask the cluster's signer")]
    Api(#[from] kube::Error),
    #[error("the request was not signed within {SIGN_TIMEOUT:?}")]
    NotSigned,
}

/// The authority of the API server's own client certificate; without it nobody could be told from anybody.
pub(super) async fn client_authority(client: &Client) -> Result<Option<String>, kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let found = api.get_opt(AUTHORITIES).await?;
    Ok(found
        .and_then(|map| map.data?.remove(CLIENT_AUTHORITY))
        .filter(|pem| !pem.trim().is_empty()))
}

/// Keys for `node` at `address`.
pub(super) async fn serving_keys(
    client: &Client,
    node: &str,
    address: IpAddr,
    client_ca_pem: String,
) -> Result<ServerTls, rcgen::Error> {
    match signed(client, node, address).await {
        Ok((certificate_pem, key_pem)) => {
            tracing::info!(node, "kubelet certificate signed by the cluster");
            Ok(ServerTls {
                certificate_pem,
                key_pem,
                client_ca_pem,
            })
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(
                node, %error, cause,
                "the cluster signs no kubelet certificates; the node's API shows a self-signed one, which an API server \
                 that checks kubelets (--kubelet-certificate-authority) refuses"
            );
            let (parameters, key) = parameters(node, address)?;
            let certificate_pem = parameters.self_signed(&key)?.pem();
            Ok(ServerTls {
                certificate_pem,
                key_pem: key.serialize_pem(),
                client_ca_pem,
            })
        }
    }
}

/// As the signer wants it: organisation and common name of a node, its name and address as alternatives.
fn parameters(node: &str, address: IpAddr) -> Result<(CertificateParams, KeyPair), rcgen::Error> {
    let mut parameters = CertificateParams::new(vec![node.to_owned(), address.to_string()])?;
    let name = &mut parameters.distinguished_name;
    name.push(DnType::OrganizationName, "system:nodes");
    name.push(DnType::CommonName, format!("system:node:{node}"));
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok((parameters, KeyPair::generate()?))
}

async fn signed(
    client: &Client,
    node: &str,
    address: IpAddr,
) -> Result<(String, String), SignError> {
    let (mut parameters, key) = parameters(node, address)?;
    // The request names its usages itself.
    parameters.extended_key_usages = Vec::new();
    let request = parameters.serialize_request(&key)?.pem()?;
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let wanted = serde_json::from_value(json!({
        "metadata": {"generateName": format!("{node}-")},
        "spec": {
            "request": ByteString(request.into_bytes()),
            "signerName": SIGNER,
            "usages": USAGES
        }
    }))
    .map_err(kube::Error::SerdeError)?;
    let created = api.create(&PostParams::default(), &wanted).await?;
    let name = created.name_any();
    let outcome = approve_and_wait(&api, &name).await;
    if outcome.is_err() {
        // Nobody should approve it later for a key that is gone.
        let _ = api.delete(&name, &DeleteParams::default()).await;
    }
    Ok((outcome?, key.serialize_pem()))
}

async fn approve_and_wait(
    api: &Api<CertificateSigningRequest>,
    name: &str,
) -> Result<String, SignError> {
    let approval = json!({"status": {"conditions": [{
        "type": "Approved", "status": "True", "reason": "VirtualNode",
        "message": "asked for and approved by the controller of the virtual node"
    }]}});
    api.patch_approval(name, &PatchParams::default(), &Patch::Merge(approval))
        .await?;
    let signed = async {
        loop {
            let certificate = api.get(name).await?.status.and_then(|s| s.certificate);
            if let Some(certificate) = certificate {
                return Ok(String::from_utf8_lossy(&certificate.0).into_owned());
            }
            tokio::time::sleep(SIGN_POLL).await;
        }
    };
    match tokio::time::timeout(SIGN_TIMEOUT, signed).await {
        Ok(outcome) => outcome,
        Err(_) => Err(SignError::NotSigned),
    }
}
