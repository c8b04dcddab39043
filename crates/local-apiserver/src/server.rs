//! The server as others use it.

use crate::auth::User;
use crate::bootstrap;
use crate::core::Core;
use crate::http::transport::InProcess;
use crate::registry::{Catalogs, Resource};
use crate::store::{Store, StoreError, StoreOwner};
use std::path::PathBuf;
use std::sync::Arc;

/// How a server runs.
#[derive(Clone)]
pub struct ApiServerConfig {
    /// Where objects and keys are kept.
    pub data_dir: PathBuf,
}

impl ApiServerConfig {
    /// Everything but the directory at its default.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A first object could not be written.
    #[error("cannot create {object} at start: {reason}")]
    Bootstrap {
        /// Which object.
        object: String,
        /// Why.
        reason: String,
    },
}

/// A running API server.
pub struct ApiServer {
    core: Arc<Core>,
    store: Option<StoreOwner>,
}

impl ApiServer {
    /// Opens the store and makes the first objects.
    pub async fn start(config: ApiServerConfig) -> Result<Self, StartError> {
        let directory = config.data_dir.clone();
        let (store, owner) = Store::open(&directory)?;
        let built_in = local_kinds::kinds()
            .iter()
            .map(|row| Arc::new(Resource::from_row(row)))
            .collect();
        let core = Arc::new(Core {
            store,
            catalogs: Catalogs::new(built_in),
        });
        bootstrap::run(&core).await?;
        Ok(Self {
            core,
            store: Some(owner),
        })
    }

    /// A client inside the process, as `system:masters`.
    pub fn client(&self) -> kube::Client {
        self.client_as(
            "kubernetes-admin",
            &["system:masters", "system:authenticated"],
        )
    }

    /// A client inside the process, as some user.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> kube::Client {
        InProcess::client(self.core.clone(), User::new(user, groups))
    }

    /// Stops; everything acknowledged stays.
    pub async fn shutdown(mut self) {
        if let Some(store) = self.store.take() {
            store.close().await;
        }
    }
}
