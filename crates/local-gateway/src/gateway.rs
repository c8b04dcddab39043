//! The gateway's main loop: watches, keeps the table, and runs proxy, DNS server and load balancers on it.

use std::{
    collections::BTreeMap,
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryFutureExt};
use k8s_openapi::api::{core::v1::Service as ApiService, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use local_network::{ClusterNetwork, DnsConfig, DnsServer, ServiceProxy, ServiceTable};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    balancer::{Balancers, Reports, addresses::LoopbackNetwork, port::PortContext, wanted},
    status::StatusWriter,
    tables,
};

/// Changes that come within this time are taken up together.
const COALESCE: Duration = Duration::from_millis(2);
/// How often a port that could not be opened, or only under another number, is tried again.
const PORT_RETRY: Duration = Duration::from_secs(10);

/// What a gateway needs to know.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// The cluster's id, from which its loopback network follows.
    pub cluster_id: String,
    /// Where the cluster's DNS server listens and whom it asks.
    pub dns: DnsConfig,
}

/// Why a gateway cannot run.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The DNS server's address cannot be listened on.
    #[error("listening for cluster DNS on {address}")]
    Dns {
        /// The address.
        address: std::net::SocketAddrV4,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No loopback network could be claimed.
    #[error(
        "claiming a loopback network 127.83.<n>.0/24 for load balancers: too many clusters on this machine?"
    )]
    Loopback(#[source] io::Error),
}

/// The gateway of one cluster, ready to run.
pub struct Gateway {
    client: Client,
    network: ClusterNetwork,
    config: GatewayConfig,
    reports: Reports,
}

/// Runs a cluster's gateway until shutdown.
pub async fn run(
    client: Client,
    network: ClusterNetwork,
    config: GatewayConfig,
    shutdown: CancellationToken,
) -> Result<(), GatewayError> {
    Gateway::new(client, network, config).run(shutdown).await
}

struct Stores {
    services: Store<ApiService>,
    slices: Store<EndpointSlice>,
    table_changed: Arc<Notify>,
    services_changed: Arc<Notify>,
}

impl Gateway {
    /// A gateway that does nothing yet.
    pub fn new(client: Client, network: ClusterNetwork, config: GatewayConfig) -> Self {
        Self {
            client,
            network,
            config,
            reports: Reports::default(),
        }
    }

    /// Shows what the load balancers do, now and later.
    pub fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// Runs until shutdown. Connections end with it; nothing is left in the kernel.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), GatewayError> {
        let stop = shutdown.child_token();
        let _stops_all = stop.clone().drop_guard();
        let tasks = TaskTracker::new();
        let stores = self.watch(&tasks, &stop);
        // Nothing is said before everything is known: a wrong "no such name" would be remembered by clients.
        let synchronized = async {
            tokio::join!(
                stores.services.wait_until_ready(),
                stores.slices.wait_until_ready()
            )
        };
        if stop.run_until_cancelled(synchronized).await.is_none() {
            return Ok(());
        }
        let result = self.serve(&stores, &tasks, &stop).await;
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        result
    }

    fn watch(&self, tasks: &TaskTracker, stop: &CancellationToken) -> Stores {
        let (table_changed, services_changed) =
            (Arc::<Notify>::default(), Arc::<Notify>::default());
        let both = vec![table_changed.clone(), services_changed.clone()];
        Stores {
            services: follow_objects(self.client.clone(), both, tasks, stop),
            slices: follow_objects(
                self.client.clone(),
                vec![table_changed.clone()],
                tasks,
                stop,
            ),
            table_changed,
            services_changed,
        }
    }

    async fn serve(
        &self,
        stores: &Stores,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), GatewayError> {
        let services = stores.services.state();
        let earlier = services
            .iter()
            .filter_map(|service| wanted::recorded_address(service));
        let loopback = LoopbackNetwork::claim(&self.config.cluster_id, earlier)
            .map_err(GatewayError::Loopback)?;
        let (table, table_receiver) =
            watch::channel(Arc::new(tables::build(&services, &stores.slices.state())));
        let sockets = self.network.sockets();

        let address = self.config.dns.listen;
        let dns = DnsServer::bind(&sockets, self.config.dns.clone(), table_receiver.clone())
            .map_err(|source| GatewayError::Dns { address, source })
            .await?;
        tasks.spawn(dns.run(stop.clone()));
        tasks
            .spawn(ServiceProxy::new(sockets.clone(), table_receiver, [address]).run(stop.clone()));

        let (outcomes, outcomes_receiver) = watch::channel(BTreeMap::new());
        let writer = StatusWriter {
            client: self.client.clone(),
            services: stores.services.clone(),
            changed: stores.services_changed.clone(),
            outcomes: outcomes_receiver,
        };
        tasks.spawn(writer.run(stop.clone()));

        let context = PortContext {
            sockets,
            tasks: tasks.clone(),
            abort: stop.clone(),
        };
        let mut balancers = Balancers::new(loopback, context, self.reports.clone());
        loop {
            let started = Instant::now();
            let services = stores.services.state();
            let current = Arc::new(tables::build(&services, &stores.slices.state()));
            replace(&table, &current);
            let outcome = balancers.follow(&wanted::wanted(&services), &current).await;
            outcomes.send_if_modified(|known| {
                let changed = *known != outcome;
                *known = outcome;
                changed
            });
            let period = if balancers.wants_another_try() {
                PORT_RETRY
            } else {
                Duration::MAX
            };
            let next = async {
                // A machine that needs long for a large table gets as long for everything else.
                sleep(COALESCE.max(started.elapsed())).await;
                drop(timeout(period, stores.table_changed.notified()).await);
            };
            if stop.run_until_cancelled(next).await.is_none() {
                return Ok(());
            }
        }
    }
}

fn replace(table: &watch::Sender<Arc<ServiceTable>>, current: &Arc<ServiceTable>) {
    table.send_if_modified(|known| {
        let changed = known != current;
        *known = current.clone();
        changed
    });
}

/// Keeps a store of all objects of a kind up to date, and wakes those who look at it.
fn follow_objects<K>(
    client: Client,
    wake: Vec<Arc<Notify>>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Store<K>
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (reader, writer) = reflector::store();
    let stop = stop.clone();
    tasks.spawn(async move {
        let events = watcher(Api::<K>::all(client), watcher::Config::default())
            .default_backoff()
            .reflect(writer);
        let mut events = pin!(events);
        while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
            match event {
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                Ok(_) => wake.iter().for_each(|wake| wake.notify_one()),
                Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "watch was interrupted"),
            }
        }
    });
    reader
}
