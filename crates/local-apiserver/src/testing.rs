//! A server for the tests of other crates.

mod played;

pub use played::PlayedMetrics;

use crate::server::{ApiServer, ApiServerConfig};

/// A server in a directory of its own, gone when dropped.
pub struct TestServer {
    /// The server.
    pub server: ApiServer,
    directory: std::path::PathBuf,
}

impl TestServer {
    /// Starts one.
    ///
    /// # Panics
    /// When the temporary directory cannot be made or the server does not start.
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// Starts one with changed settings.
    ///
    /// # Panics
    /// As [`TestServer::start`].
    pub async fn start_with(change: impl FnOnce(&mut ApiServerConfig)) -> Self {
        let directory =
            std::env::temp_dir().join(format!("springtide-api-{}", uuid::Uuid::new_v4()));
        let mut config = ApiServerConfig::new(&directory);
        change(&mut config);
        let server = match ApiServer::start(config).await {
            Ok(server) => server,
            Err(error) => panic!("the test API server does not start: {error}"),
        };
        Self { server, directory }
    }

    /// A client as `system:masters`.
    pub fn client(&self) -> kube::Client {
        self.server.client()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
