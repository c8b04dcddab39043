//! A cluster network that removes itself, also when the test fails.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use local_network::{ClusterNetwork, NetworkConfig, PodNetwork};
use tokio::net::{TcpListener, UdpSocket};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct TestNetwork {
    pub(crate) id: String,
    pub(crate) network: ClusterNetwork,
}

impl TestNetwork {
    pub(crate) async fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and needs root"
        );
        let id = format!(
            "nettest-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let network = open(&id).await;
        Self { id, network }
    }
}

pub(crate) async fn open(id: &str) -> ClusterNetwork {
    ClusterNetwork::open(NetworkConfig {
        cluster_id: id.to_owned(),
    })
    .await
    .unwrap()
}

impl Drop for TestNetwork {
    fn drop(&mut self) {
        let id = self.id.clone();
        // The test's own runtime may be shutting down.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(ClusterNetwork::destroy(&id))
        });
        if let Err(error) = removal.join().unwrap() {
            eprintln!("network {} could not be removed: {error}", self.id);
        }
    }
}

/// Runs work that makes sockets inside a pod's namespace, on a thread of its own.
pub(crate) fn inside<T: Send + 'static>(
    netns: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let netns = netns.to_owned();
    let thread = std::thread::spawn(move || {
        let namespace = std::fs::File::open(netns).unwrap();
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// Listens inside a pod's namespace.
pub(crate) fn listen_in(pod: &PodNetwork, port: u16) -> TcpListener {
    let ip = pod.ip;
    let listener = inside(&pod.netns_path, move || {
        std::net::TcpListener::bind((ip, port)).unwrap()
    });
    listener.set_nonblocking(true).unwrap();
    TcpListener::from_std(listener).unwrap()
}

/// Binds a datagram socket inside a pod's namespace.
pub(crate) fn bind_udp_in(pod: &PodNetwork, port: u16) -> UdpSocket {
    let ip = pod.ip;
    let socket = inside(&pod.netns_path, move || {
        std::net::UdpSocket::bind((ip, port)).unwrap()
    });
    socket.set_nonblocking(true).unwrap();
    UdpSocket::from_std(socket).unwrap()
}

/// Waits for a condition, and fails with the last state when it does not come.
pub(crate) async fn eventually<T: std::fmt::Debug, F: Future<Output = Result<(), T>>>(
    mut check: impl FnMut() -> F,
) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(state) = check().await {
        assert!(
            Instant::now() < deadline,
            "gave up waiting; last state: {state:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
