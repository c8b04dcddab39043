//! A cluster network that removes itself, also when the test fails.

use std::sync::atomic::{AtomicU32, Ordering};

use local_network::{ClusterNetwork, NetworkConfig};

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
