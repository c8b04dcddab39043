//! The addresses inside a cluster's network (the same in every cluster: each has a network of its own), and listening.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, bail};
use async_trait::async_trait;
use local_apiserver::Dialer;
use local_network::{CONTROL_ADDRESS, SocketFactory};
use tokio::net::{TcpListener, TcpStream};

/// The cluster's DNS server.
pub const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Port of every kubelet.
pub const KUBELET_PORT: u16 = 10250;
/// Port of the resource metrics API, on the control address.
pub const METRICS_PORT: u16 = 4443;
/// Port of the custom and external metrics APIs, on the control address.
pub const CUSTOM_METRICS_PORT: u16 = 4444;

/// The API server inside the network; service `default/kubernetes` leads there.
pub fn api_inside() -> SocketAddr {
    (CONTROL_ADDRESS, 6443).into()
}

/// Whether an address is one of the cluster's: nodes, pods, vSwitches, services.
pub fn is_inside(address: std::net::IpAddr) -> bool {
    let std::net::IpAddr::V4(address) = address else {
        return false;
    };
    matches!(address.octets(), [10, 4 | 10 | 30 | 96, _, _])
}

/// InternalIP of the n-th worker, from 0.
pub fn worker(index: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 10, 0, 11 + u8::try_from(index).unwrap_or(u8::MAX - 11))
}

/// Pod range of the n-th worker, from 0.
pub fn worker_pods(index: u32) -> String {
    format!("10.30.{}.0/24", index + 1)
}

/// InternalIP of the n-th virtual node, from 0.
pub fn virtual_node(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(
        10,
        10,
        0,
        101 + u8::try_from(index).unwrap_or(u8::MAX - 101),
    )
}

/// Range of the n-th vSwitch, from 0.
pub fn v_switch(index: usize) -> String {
    format!("10.4.{}.0/24", index + 1)
}

/// Connects from inside the cluster's network.
struct InsideDialer(SocketFactory);

#[async_trait]
impl Dialer for InsideDialer {
    /// A node that serves its kubelet API on the machine itself (a virtual node run by hand) is not inside.
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        if is_inside(address.ip()) {
            self.0.tcp_connect(address).await
        } else {
            TcpStream::connect(address).await
        }
    }
}

#[async_trait]
impl elastic_node::PodDialer for InsideDialer {
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.0.tcp_connect(address).await
    }
}

/// How virtual nodes reach their groups for port-forward.
pub fn pod_dialer(sockets: SocketFactory) -> Arc<dyn elastic_node::PodDialer> {
    Arc::new(InsideDialer(sockets))
}

/// How the API server reaches kubelets, webhooks and aggregated APIs.
pub fn dialer(sockets: SocketFactory) -> Arc<dyn Dialer> {
    Arc::new(InsideDialer(sockets))
}

/// Listens on `wanted`; with port 0 the port of an earlier run is taken again when it is free.
pub async fn listen(
    wanted: SocketAddr,
    earlier_port: Option<u16>,
    what: &str,
    flag: &str,
) -> anyhow::Result<TcpListener> {
    if wanted.port() == 0
        && let Some(port) = earlier_port
        && let Ok(listener) = TcpListener::bind((wanted.ip(), port)).await
    {
        return Ok(listener);
    }
    match TcpListener::bind(wanted).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
            "the {what} cannot listen on {wanted}: another program uses this port; choose another with {flag}, or port 0 for a free one"
        ),
        Err(error) => Err(error).with_context(|| {
            format!("listen on {wanted} for the {what}; choose another address with {flag}")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_own_addresses_are_told_from_others() {
        let inside = |text: &str| is_inside(text.parse().unwrap());
        assert!(inside(&worker(0).to_string()) && inside(&CLUSTER_DNS.to_string()));
        assert!(inside("10.30.1.2") && inside("10.4.1.9"));
        assert!(!inside("127.0.0.1") && !inside("10.0.0.1") && !inside("::1"));
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_with_the_flag_that_changes_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(address, None, "API server", "--listen")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--listen") && error.contains(&address.to_string()),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_free_port_is_taken_when_the_earlier_one_is_in_use() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = listen(any, Some(port), "API server", "--listen")
            .await
            .unwrap();
        assert_ne!(listener.local_addr().unwrap().port(), port);
    }
}
