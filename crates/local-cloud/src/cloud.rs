//! The handle on a running local cloud.

use crate::actions::commits;
use crate::actions::faults::FaultRefused;
use crate::backend::GroupBackend;
use crate::config::{CloudSources, LocalCloudConfig};
use crate::gateway::nonces::Nonces;
use crate::gateway::{self, Gateway};
use crate::ledger::Ledger;
use crate::logs::{self, LogStoreError};
use crate::nas::{self, FileSystem, NasError};
use crate::shared::{Shared, StoreFailed, ask_to_delete, run_broom, run_writer};
use crate::state::State;
use crate::state::faults::{Fault, FaultOrder};
use crate::state::pools::{Pools, milli};
use crate::store::{Store, StoreError};
use crate::{metrics, supervisor};
use cloud_api::model::create::CreateContainerGroupRequest;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The longest wait for calls under way when the cloud shuts down.
const LONGEST_GOODBYE: Duration = Duration::from_secs(5);

/// Why a cloud cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("the cloud's configuration is not usable: {reason}")]
    Config {
        /// What is wrong.
        reason: String,
    },
    /// The records cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The nonces of earlier calls cannot be read.
    #[error("cannot read the nonces of earlier calls")]
    Nonces(#[source] std::io::Error),
    /// The listener has no address.
    #[error("cannot learn the address of the cloud's listener")]
    Listener(#[source] std::io::Error),
    /// A helper task ended early.
    #[error("the cloud's start was interrupted")]
    Interrupted,
}

/// A running local cloud. Dropping it without [`LocalCloud::shutdown`] ends it in the background; nothing acknowledged
/// is lost.
pub struct LocalCloud {
    shared: Arc<Shared>,
    address: SocketAddr,
    writer: Option<JoinHandle<()>>,
}

impl LocalCloud {
    /// Reads the records, takes up the groups in them, and serves on the listener.
    pub async fn start(
        config: LocalCloudConfig,
        backend: Arc<dyn GroupBackend>,
        listener: TcpListener,
        sources: CloudSources,
    ) -> Result<Self, StartError> {
        if config.credentials.is_empty() {
            return Err(StartError::Config {
                reason: "there are no credentials".to_owned(),
            });
        }
        let pools = Pools::new(&config).map_err(|reason| StartError::Config { reason })?;
        let address = listener.local_addr().map_err(StartError::Listener)?;
        let directory = config.state_dir.clone();
        let now = (sources.now)().as_second();
        let opened = tokio::task::spawn_blocking(move || {
            let opened = Store::open(&directory)?;
            let nonces = Nonces::open(&directory, now).map_err(StartError::Nonces)?;
            Ok::<_, StartError>((opened, nonces))
        });
        let ((store, found), nonces) = opened.await.map_err(|_| StartError::Interrupted)??;
        let state = State::new(
            pools,
            found.groups,
            found.tokens,
            found.resources,
            sources.seed,
        );
        let ids: Vec<String> = state.groups.keys().cloned().collect();
        let shared = Arc::new(Shared::new(config, backend, sources, state, store));
        let writer = tokio::spawn(run_writer(shared.clone()));
        remove_strays(&shared).await;
        for id in &ids {
            supervisor::spawn(&shared, id);
        }
        let commits: Vec<String> = {
            let state = shared.state();
            let commits = state.resources.commits.iter();
            let open = commits.filter(|(_, commit)| commit.end.is_none());
            open.map(|(id, _)| id.clone()).collect()
        };
        for id in commits {
            commits::start(&shared, id);
        }
        shared.tasks.spawn(run_broom(shared.clone()));
        if !shared.backend.is_simulated() {
            shared.tasks.spawn(metrics::run_sampler(shared.clone()));
        }
        let gateway = Arc::new(Gateway::new(shared.clone(), nonces));
        shared.tasks.spawn(gateway::serve(gateway, listener));
        tracing::info!(%address, groups = ids.len(), simulated = shared.backend.is_simulated(), "local cloud serves");
        Ok(Self {
            shared,
            address,
            writer: Some(writer),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients are pointed at.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves the log service on a listener of its own; answers with its address.
    pub async fn serve_logs(&self, listener: TcpListener) -> Result<SocketAddr, LogStoreError> {
        logs::start(&self.shared, &self.shared.config.state_dir, listener).await
    }

    /// The bill so far.
    pub async fn ledger(&self) -> Result<Ledger, StoreFailed> {
        self.shared.ledger().await
    }

    /// Ids of all groups that are still listed, ended ones included.
    pub fn group_ids(&self) -> Vec<String> {
        self.shared.state().groups.keys().cloned().collect()
    }

    /// What a group was asked for with, as it arrived; descriptions do not tell all of it.
    pub fn request_of(&self, id: &str) -> Option<Arc<CreateContainerGroupRequest>> {
        let state = self.shared.state();
        state.groups.get(id).map(|group| group.request.clone())
    }

    /// Changes a zone's stock of vCPU; `false` when there is no such zone. Running groups stay.
    pub fn set_stock(&self, zone: &str, vcpu: Option<f64>) -> bool {
        let mut state = self.shared.state();
        let zone = state.pools.zones.get_mut(zone);
        zone.map(|zone| zone.stock = vcpu.map(milli)).is_some()
    }

    /// Lets the next calls of an action go wrong; beyond the bound of faults it is only logged.
    pub fn arrange_fault(&self, action: &str, fault: Fault, calls: u32) {
        let order = FaultOrder {
            fault,
            action: Some(action.to_owned()),
            times: Some(calls.into()),
            seconds: None,
        };
        if let Err(error) = self.order_fault(order) {
            tracing::warn!(%error, "fault is not arranged");
        }
    }

    /// Orders a fault; answers with its id.
    pub fn order_fault(&self, order: FaultOrder) -> Result<String, FaultRefused> {
        self.shared.order_fault(order)
    }

    /// Ends all faults; says how many there were.
    pub fn clear_faults(&self) -> usize {
        let cleared = self.shared.state().clear_faults();
        self.shared.wake();
        cleared
    }

    /// Makes a network file system with one mount target.
    pub fn create_file_system(&self, description: &str) -> Result<FileSystem, NasError> {
        let shared = &self.shared;
        let made = nas::create(
            &mut shared.state(),
            &shared.config,
            description,
            shared.now(),
        );
        shared.wake();
        made
    }

    /// Adds a mount target to a file system; answers with its server name.
    pub fn add_mount_target(&self, file_system: &str) -> Result<String, NasError> {
        let shared = &self.shared;
        let added = nas::add_mount_target(&mut shared.state(), &shared.config, file_system);
        shared.wake();
        added
    }

    /// All network file systems.
    pub fn file_systems(&self) -> Vec<FileSystem> {
        nas::list(&self.shared.state(), &self.shared.config)
    }

    /// Removes a file system with all its files, unless a group uses it.
    pub async fn remove_file_system(&self, id: &str) -> Result<(), NasError> {
        nas::delete(&self.shared, id).await
    }

    /// The directory behind the server name of a mount target; `None` when there is no such mount target.
    pub fn nas_directory(&self, server: &str) -> Option<PathBuf> {
        nas::resolve(&self.shared.state(), &self.shared.config, server)
    }

    /// Asks for the deletion of every group and waits until all are gone; `false` when that took too long.
    pub async fn delete_all(&self, longest: Duration) -> bool {
        for id in self.group_ids() {
            ask_to_delete(&mut self.shared.state(), &id);
        }
        self.shared.wake();
        let gone = async {
            while !self.shared.state().groups.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(longest, gone).await.is_ok()
    }

    /// Stops serving and writes everything down. Groups of the real backend go on running; the next start takes
    /// them up again.
    pub async fn shutdown(mut self) {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(LONGEST_GOODBYE, self.shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("calls were still under way when the cloud shut down");
        }
        self.shared.stop_writer.cancel();
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "cloud's writer ended badly");
        }
    }
}

impl Drop for LocalCloud {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        self.shared.stop_writer.cancel();
    }
}

/// Removes what the backend has of groups that no record knows: they cost nothing and nobody can reach them.
async fn remove_strays(shared: &Arc<Shared>) {
    let known = match shared.backend.known_groups().await {
        Ok(known) => known,
        Err(error) => return tracing::warn!(%error, "backend's groups cannot be listed"),
    };
    for id in known {
        let stray = !shared.state().groups.contains_key(&id);
        if stray {
            tracing::warn!(group = %id, "stray group is removed");
            if let Err(error) = shared.backend.forget(&id).await {
                tracing::warn!(group = %id, %error, "stray group cannot be removed");
            }
        }
    }
}
