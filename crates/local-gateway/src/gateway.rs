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
use local_network::{
    CONTROL_ADDRESS, ClusterNetwork, DnsConfig, DnsServer, ServiceKey, ServiceProxy, ServiceTable,
};
use nix::sys::resource::{Resource as Limit, getrlimit, setrlimit};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    balancer::{
        Balancers, Outcome, Reports, addresses::LoopbackNetwork, port::PortContext, wanted,
    },
    served::Announcer,
    status::StatusWriter,
    tables,
};

/// Changes that come within this time are taken up together.
const COALESCE: Duration = Duration::from_millis(2);
/// First answers of endpoints that wait to be announced; further ones are not.
const FIRST_SERVED_WAITING: usize = 1024;
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
        raise_open_file_limit();
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
        self.start_inside(table_receiver, tasks, stop).await?;
        let (outcomes, outcomes_receiver) = watch::channel(BTreeMap::new());
        let mut balancers = self.start_writers(stores, loopback, outcomes_receiver, tasks, stop);
        loop {
            let started = Instant::now();
            let services = stores.services.state();
            let current = Arc::new(tables::build(&services, &stores.slices.state()));
            replace(&table, current.clone());
            replace(
                &outcomes,
                balancers.follow(&wanted::wanted(&services), &current).await,
            );
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

    /// What works inside the cluster's network: names and service addresses.
    async fn start_inside(
        &self,
        table: watch::Receiver<Arc<ServiceTable>>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), GatewayError> {
        let sockets = self.network.sockets();
        let address = self.config.dns.listen;
        // At its service address, and at one that is reached without service addresses too.
        for address in [
            address,
            std::net::SocketAddrV4::new(CONTROL_ADDRESS, address.port()),
        ] {
            let config = DnsConfig {
                listen: address,
                ..self.config.dns.clone()
            };
            let dns = DnsServer::bind(&sockets, config, table.clone())
                .map_err(|source| GatewayError::Dns { address, source })
                .await?;
            tasks.spawn(dns.run(stop.clone()));
        }
        tasks.spawn(ServiceProxy::new(sockets, table, [address]).run(stop.clone()));
        Ok(())
    }

    /// The load balancers, and those who tell the API about them.
    fn start_writers(
        &self,
        stores: &Stores,
        loopback: LoopbackNetwork,
        outcomes: watch::Receiver<BTreeMap<ServiceKey, Outcome>>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Balancers {
        let (client, services) = (self.client.clone(), stores.services.clone());
        let writer = StatusWriter {
            client,
            services,
            changed: stores.services_changed.clone(),
            outcomes,
        };
        tasks.spawn(writer.run(stop.clone()));
        let (first_served, first_served_receiver) = mpsc::channel(FIRST_SERVED_WAITING);
        let announcer = Announcer {
            client: self.client.clone(),
            slices: stores.slices.clone(),
        };
        tasks.spawn(announcer.run(first_served_receiver, stop.clone()));
        let (sockets, abort) = (self.network.sockets(), stop.clone());
        let context = PortContext {
            sockets,
            tasks: tasks.clone(),
            abort,
            first_served,
        };
        Balancers::new(loopback, context, self.reports.clone())
    }
}

/// Sends a state only when it differs from the last one.
fn replace<T: PartialEq>(channel: &watch::Sender<T>, current: T) {
    channel.send_if_modified(|known| {
        let changed = *known != current;
        *known = current;
        changed
    });
}

/// Each balanced connection is two open files, and the usual soft limit of 1024 is meant for programs that use `select`.
fn raise_open_file_limit() {
    let raised = getrlimit(Limit::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Limit::RLIMIT_NOFILE, hard, hard)
        } else {
            Ok(())
        }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised; many clients at once may be refused");
    }
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
