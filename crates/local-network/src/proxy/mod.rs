//! The service proxy: listens on every service address of the table inside the cluster's network and relays to backends.
//!
//! In user space on purpose: no packet filter rule can be left behind, and connections survive every table change.

pub(crate) mod balance;
pub(crate) mod tcp;
pub(crate) mod udp;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddrV4,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Backend, Protocol, ServiceKey, ServiceTable, SocketFactory};
use balance::Backends;
use tcp::TcpRelay;
use udp::UdpRelay;

/// The wait before an address that could not be listened on is tried again.
const LISTEN_RETRY: Duration = Duration::from_secs(5);

/// Relays connections to service addresses.
pub struct ServiceProxy {
    sockets: SocketFactory,
    table: watch::Receiver<Arc<ServiceTable>>,
    reserved: HashSet<SocketAddrV4>,
}

type ListenerKey = (SocketAddrV4, Protocol);

struct Listener {
    backends: Arc<Backends>,
    stop: CancellationToken,
}

struct Wanted<'a> {
    service: &'a ServiceKey,
    backends: &'a [Backend],
    affinity: Option<Duration>,
}

impl ServiceProxy {
    /// A proxy for the services of a table that changes. `reserved` addresses belong to somebody else, such as the
    /// DNS server, even when a service has them.
    pub fn new(
        sockets: SocketFactory,
        table: watch::Receiver<Arc<ServiceTable>>,
        reserved: impl IntoIterator<Item = SocketAddrV4>,
    ) -> Self {
        Self {
            sockets,
            table,
            reserved: reserved.into_iter().collect(),
        }
    }

    /// Follows the table until shutdown or until nobody can change it any more. All connections end with it.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let abort = shutdown.child_token();
        let _ends_all = abort.clone().drop_guard();
        let tasks = TaskTracker::new();
        let mut listeners = HashMap::new();
        loop {
            let table = self.table.borrow_and_update().clone();
            let complete = self.follow(&table, &mut listeners, &tasks, &abort).await;
            tokio::select! {
                changed = self.table.changed() => if changed.is_err() { break },
                () = sleep(LISTEN_RETRY), if !complete => {}
                () = shutdown.cancelled() => break,
            }
        }
        abort.cancel();
        tasks.close();
        tasks.wait().await;
    }

    /// Makes the listeners what the table says; false when one could not be opened.
    async fn follow(
        &self,
        table: &ServiceTable,
        listeners: &mut HashMap<ListenerKey, Listener>,
        tasks: &TaskTracker,
        abort: &CancellationToken,
    ) -> bool {
        let wanted = self.wanted(table);
        listeners.retain(|key, listener| {
            let keep = wanted.contains_key(key);
            if !keep {
                listener.stop.cancel();
            }
            keep
        });
        let mut complete = true;
        for (key, wanted) in wanted {
            if let Some(listener) = listeners.get(&key) {
                listener.backends.update(wanted.backends, wanted.affinity);
                continue;
            }
            let backends = Arc::new(Backends::default());
            backends.update(wanted.backends, wanted.affinity);
            let listener = Listener {
                backends,
                stop: abort.child_token(),
            };
            match self.listen(key, &listener, tasks, abort).await {
                Ok(()) => drop(listeners.insert(key, listener)),
                Err(error) => {
                    complete = false;
                    tracing::warn!(service = %wanted.service, address = %key.0, %error, "service address cannot be listened on");
                }
            }
        }
        complete
    }

    fn wanted<'a>(&self, table: &'a ServiceTable) -> HashMap<ListenerKey, Wanted<'a>> {
        let ports = table.services.iter().flat_map(|(service, entry)| {
            entry.cluster_ip.into_iter().flat_map(move |ip| {
                entry.ports.iter().map(move |port| {
                    let wanted = Wanted {
                        service,
                        backends: &port.backends,
                        affinity: entry.client_affinity,
                    };
                    ((SocketAddrV4::new(ip, port.port), port.protocol), wanted)
                })
            })
        });
        ports
            .filter(|((address, _), _)| !self.reserved.contains(address))
            .collect()
    }

    async fn listen(
        &self,
        (address, protocol): ListenerKey,
        listener: &Listener,
        tasks: &TaskTracker,
        abort: &CancellationToken,
    ) -> std::io::Result<()> {
        let (backends, sockets) = (listener.backends.clone(), self.sockets.clone());
        match protocol {
            Protocol::Tcp => {
                let socket = self.sockets.tcp_listen(address.into()).await?;
                let relay = TcpRelay {
                    backends,
                    sockets,
                    stop: listener.stop.clone(),
                    abort: abort.clone(),
                };
                tasks.spawn(relay.serve(socket));
            }
            Protocol::Udp => {
                let socket = self.sockets.udp_bind(address.into()).await?;
                let relay = UdpRelay {
                    backends,
                    sockets,
                    stop: listener.stop.clone(),
                };
                tasks.spawn(relay.serve(socket));
            }
        }
        Ok(())
    }
}
