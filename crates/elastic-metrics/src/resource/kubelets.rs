//! How a node is asked for `/metrics/resource`: through the API server, or at its own address as metrics-server does it.
//!
//! The way through the API server needs the right to all of a node's proxy, which is more than an add-on should have.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, ResourceExt};

use super::samples::Labels;
use crate::outgoing::{Dialer, Fetcher, OwnNetwork, TrustError};

/// Where a pod finds the token of its account.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Where a pod finds the cluster's authority.
const AUTHORITY_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// Longest answer that is read: some hundreds of bytes for each container of a node.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(5);
/// A kubelet's port unless the node says otherwise.
const USUAL_PORT: i32 = 10_250;

/// How kubelets are asked at their own addresses.
#[derive(Clone)]
pub struct KubeletOptions {
    /// Between two looks at each node.
    pub interval: Duration,
    /// A bearer token whose account may get `nodes/metrics`; read anew for every request.
    pub token_file: PathBuf,
    /// Who vouches for kubelets.
    pub authority_file: PathBuf,
    /// Kubelets are believed whoever vouches for them, as many clusters need it whose kubelets sign their own certificates.
    pub insecure_tls: bool,
    /// How nodes are reached.
    pub dialer: Arc<dyn Dialer>,
}

impl Default for KubeletOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15),
            token_file: TOKEN_FILE.into(),
            authority_file: AUTHORITY_FILE.into(),
            insecure_tls: false,
            dialer: Arc::new(OwnNetwork),
        }
    }
}

/// A node to ask.
pub(crate) struct Kubelet {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    /// `host:port`; none where the way leads through the API server, or the node tells none.
    address: Option<String>,
}

/// See the module.
pub(crate) enum Kubelets {
    ThroughApiServer,
    Direct {
        fetcher: Box<Fetcher>,
        token_file: PathBuf,
    },
}

impl Kubelets {
    pub(crate) fn direct(options: &KubeletOptions) -> Result<Self, TrustError> {
        let dialer = options.dialer.clone();
        let fetcher = if options.insecure_tls {
            Fetcher::trusting_anybody(dialer)?
        } else {
            Fetcher::new(dialer, Some(&options.authority_file))?
        };
        Ok(Self::Direct {
            fetcher: Box::new(fetcher),
            token_file: options.token_file.clone(),
        })
    }

    pub(crate) async fn list(&self, client: &Client) -> Result<Vec<Kubelet>, kube::Error> {
        let api: Api<Node> = Api::all(client.clone());
        if matches!(self, Self::Direct { .. }) {
            let listed = api.list(&Default::default()).await?.items;
            return Ok(listed.iter().map(kubelet).collect());
        }
        let listed = api.list_metadata(&Default::default()).await?.items;
        let named = listed.iter().map(|node| Kubelet {
            name: node.name_any(),
            labels: node.labels().clone(),
            address: None,
        });
        Ok(named.collect())
    }

    /// A node's metrics as text, or why there are none.
    pub(crate) async fn metrics(&self, client: &Client, node: &Kubelet) -> Result<String, String> {
        match self {
            Self::ThroughApiServer => {
                let path = format!("/api/v1/nodes/{}/proxy/metrics/resource", node.name);
                let request = http::Request::get(path).body(Vec::new());
                let request = request.map_err(|error| error.to_string())?;
                let answered = client.request_text(request).await;
                answered.map_err(|error| error.to_string())
            }
            Self::Direct {
                fetcher,
                token_file,
            } => {
                let address = node.address.as_deref().ok_or("the node tells no address")?;
                let token = tokio::fs::read_to_string(token_file).await;
                let token = token.map_err(|error| format!("{}: {error}", token_file.display()))?;
                ask(fetcher, address, token.trim()).await
            }
        }
    }
}

async fn ask(fetcher: &Fetcher, address: &str, token: &str) -> Result<String, String> {
    let request = Request::get(format!("https://{address}/metrics/resource"))
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::<Bytes>::default())
        .map_err(|error| error.to_string())?;
    let answered = fetcher.send(request, MAX_ANSWER_BYTES, TIMEOUT).await;
    let (code, body) = answered.map_err(|error| error.to_string())?;
    if code != StatusCode::OK {
        return Err(format!("the kubelet at {address} answered {code}"));
    }
    String::from_utf8(body.into()).map_err(|_| "the answer is no text".to_owned())
}

fn kubelet(node: &Node) -> Kubelet {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref());
    let of_type = |wanted: &str| {
        let found = addresses?.iter().find(|one| one.type_ == wanted)?;
        Some(found.address.clone())
    };
    let port = status
        .and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref())
        .map_or(USUAL_PORT, |endpoint| endpoint.port);
    // As metrics-server prefers them: an address first, a name only where the node tells no address.
    let host = ["InternalIP", "ExternalIP", "Hostname"]
        .into_iter()
        .find_map(of_type);
    let address = host.map(|host| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    });
    Kubelet {
        name: node.name_any(),
        labels: node.labels().clone(),
        address,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn address(status: Value) -> Option<String> {
        let node = json!({"metadata": {"name": "one"}, "status": status});
        kubelet(&serde_json::from_value(node).unwrap()).address
    }

    #[test]
    fn a_kubelet_is_asked_where_its_node_says() {
        let addresses = json!([{"type": "Hostname", "address": "one"}, {"type": "InternalIP", "address": "10.0.0.1"}]);
        assert_eq!(
            address(json!({"addresses": addresses})).as_deref(),
            Some("10.0.0.1:10250")
        );
        let port = json!({"kubeletEndpoint": {"Port": 10260}});
        assert_eq!(
            address(json!({"addresses": [{"type": "InternalIP", "address": "fd00::1"}], "daemonEndpoints": port})).as_deref(),
            Some("[fd00::1]:10260")
        );
        assert_eq!(address(json!({})), None);
    }
}
