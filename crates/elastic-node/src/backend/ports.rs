//! Connections to ports of groups: from the virtual node straight to the group's address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kubelet_api::{BackendError, ByteReader, ByteWriter};
use tokio::net::TcpStream;

/// A group that does not answer within this time is not reachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens connections to the addresses of pods.
#[async_trait]
pub trait PodDialer: Send + Sync + 'static {
    /// Connects to a pod's address.
    ///
    /// # Errors
    /// When nothing answers there.
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// Connects over the network this process is in, which is right wherever groups' addresses are routed.
pub struct DirectDialer;

#[async_trait]
impl PodDialer for DirectDialer {
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

/// Whether the pod can be talked to: it has an address and has not ended.
pub(super) fn address(pod: &Pod) -> Result<IpAddr, BackendError> {
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending");
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(BackendError::BadRequest {
            message: format!("pod {:?} has ended: its phase is {phase}", pod.name_any()),
        });
    }
    let address = status.and_then(|status| status.pod_ip.as_deref());
    address
        .and_then(|address| address.parse().ok())
        .ok_or_else(|| BackendError::BadRequest {
            message: format!(
                "pod {:?} is not running: it has no address yet; its phase is {phase}",
                pod.name_any()
            ),
        })
}

pub(super) async fn connect(
    dialer: &dyn PodDialer,
    pod: &Pod,
    port: u16,
) -> Result<(ByteReader, ByteWriter), BackendError> {
    let address = SocketAddr::new(address(pod)?, port);
    let refused = |reason: String| BackendError::BadRequest {
        message: format!("connect to {address} of pod {:?}: {reason}", pod.name_any()),
    };
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, dialer.connect(address));
    let stream = match connecting.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(refused(error.to_string())),
        Err(_) => {
            return Err(refused(
                "no answer; the security group may not let this port in".to_owned(),
            ));
        }
    };
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    Ok((Box::new(reader), Box::new(writer)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(phase: &str, address: Option<&str>) -> Pod {
        let status = json!({"phase": phase, "podIP": address});
        serde_json::from_value(json!({"metadata": {"name": "web"}, "status": status})).unwrap()
    }

    #[test]
    fn only_a_pod_with_an_address_that_has_not_ended_is_reached() {
        assert!(address(&pod("Running", Some("10.4.0.7"))).is_ok());
        let refusal = |pod| address(&pod).unwrap_err().to_string();
        assert!(refusal(pod("Pending", None)).contains("no address yet"));
        assert!(refusal(pod("Succeeded", Some("10.4.0.7"))).contains("Succeeded"));
    }
}
