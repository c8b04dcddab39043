//! The serving certificate of a virtual node's kubelet API: signed by the cluster when it signs such, else by ourselves.
//! It is renewed before it ends, and asked for again while the cluster does not sign.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use kubelet_api::ServerTls;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::pem::parse_x509_pem;

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
/// Between tries while the cluster does not sign.
const AGAIN: Duration = Duration::from_secs(60);
/// Between looks at the clock, which may jump.
const LOOK: Duration = Duration::from_secs(600);

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

/// Whose keys they are, and who vouches for the clients they are shown to.
pub(super) struct Subject {
    pub(super) node: String,
    pub(super) address: IpAddr,
    pub(super) client_ca_pem: String,
}

/// Keys, and whether the cluster signed them.
pub(super) struct Keys {
    pub(super) tls: ServerTls,
    is_signed: bool,
}

impl Subject {
    fn keys(&self, (certificate_pem, key_pem): (String, String), is_signed: bool) -> Keys {
        let tls = ServerTls {
            certificate_pem,
            key_pem,
            client_ca_pem: self.client_ca_pem.clone(),
        };
        Keys { tls, is_signed }
    }

    /// The first keys: from the cluster when it signs at once.
    pub(super) async fn first_keys(&self, client: &Client) -> Result<Keys, rcgen::Error> {
        let Self { node, address, .. } = self;
        let error = match signed(client, node, *address).await {
            Ok(pair) => {
                tracing::info!(node, "kubelet certificate signed by the cluster");
                return Ok(self.keys(pair, true));
            }
            Err(error) => error,
        };
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(
            node, %error, cause,
            "the cluster signs no kubelet certificates; until it does, the node's API shows a self-signed one, which an API \
             server that checks kubelets (--kubelet-certificate-authority) refuses"
        );
        let (parameters, key) = parameters(node, *address)?;
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(self.keys((certificate, key.serialize_pem()), false))
    }

    /// Sends new keys whenever they are due, until `stop`.
    pub(super) async fn keep_fresh(
        self,
        client: Client,
        mut keys: Keys,
        shown: watch::Sender<ServerTls>,
        stop: CancellationToken,
    ) {
        let node = &self.node;
        loop {
            let wait = due_in(&keys, Timestamp::now()).min(LOOK);
            if stop
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                return;
            }
            if keys.is_signed && !due_in(&keys, Timestamp::now()).is_zero() {
                continue;
            }
            let asked = stop
                .run_until_cancelled(signed(&client, node, self.address))
                .await;
            match asked {
                None => return,
                Some(Ok(pair)) => {
                    tracing::info!(node, "new kubelet certificate signed by the cluster");
                    keys = self.keys(pair, true);
                    shown.send_replace(keys.tls.clone());
                }
                Some(Err(error)) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::debug!(node, %error, cause, "no new kubelet certificate, asking again");
                    if keys.is_signed
                        && stop
                            .run_until_cancelled(tokio::time::sleep(AGAIN))
                            .await
                            .is_none()
                    {
                        return;
                    }
                }
            }
        }
    }
}

/// How long keys are good for: four fifths of a signed certificate's life, as kubelets do about, and a short while for one
/// that the cluster should still sign.
fn due_in(keys: &Keys, now: Timestamp) -> Duration {
    if !keys.is_signed {
        return AGAIN;
    }
    let life = parse_x509_pem(keys.tls.certificate_pem.as_bytes())
        .ok()
        .and_then(|(_, pem)| {
            let certificate = pem.parse_x509().ok()?;
            let validity = certificate.validity();
            Some((
                validity.not_before.timestamp(),
                validity.not_after.timestamp(),
            ))
        });
    // One that cannot be read is no reason to hurry: it was signed a moment ago.
    let Some((from, until)) = life else {
        return LOOK;
    };
    let due = from + (until - from) / 5 * 4;
    Duration::from_secs(u64::try_from(due - now.as_second()).unwrap_or(0))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(is_signed: bool) -> Keys {
        let (mut parameters, key) = parameters("virtual-kubelet-a", [127, 0, 0, 1].into()).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 1, 11);
        let subject = Subject {
            node: "virtual-kubelet-a".to_owned(),
            address: [127, 0, 0, 1].into(),
            client_ca_pem: String::new(),
        };
        let certificate = parameters.self_signed(&key).unwrap().pem();
        subject.keys((certificate, key.serialize_pem()), is_signed)
    }

    #[test]
    fn a_certificate_is_renewed_in_the_last_fifth_of_its_life() {
        let due = |now: &str| due_in(&keys(true), now.parse().unwrap());
        let days = |days: u64| Duration::from_secs(days * 86_400);
        assert_eq!(due("2026-01-01T00:00:00Z"), days(8));
        assert_eq!(due("2026-01-08T00:00:00Z"), days(1));
        assert_eq!(due("2026-01-09T00:00:00Z"), Duration::ZERO);
        assert_eq!(due("2027-01-01T00:00:00Z"), Duration::ZERO);
    }

    #[test]
    fn a_certificate_of_our_own_is_asked_for_again_soon() {
        assert_eq!(due_in(&keys(false), Timestamp::now()), AGAIN);
    }
}
