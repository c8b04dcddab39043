//! A cluster's network: the router namespace, the pods attached to it and the addresses it answers on.

use std::{collections::HashSet, fs::File, io, net::Ipv4Addr, path::PathBuf, sync::Arc};

use rtnetlink::packet_route::address::AddressScope;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::{
    NetworkError, SocketFactory, links, names, netlink::NetlinkSocket, netns, pod::Attachment,
};

/// Attachments made at the same time. The kernel does most of the work under one lock, so more only adds threads.
const CONCURRENT_CHANGES: usize = 8;
/// Changes to the same name wait for each other; names share this many locks.
const NAME_LOCKS: usize = 64;

/// What a cluster's network needs to know.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Part of every namespace's name; unique on this machine.
    pub cluster_id: String,
}

/// Where a pod's connections may lead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PodReach {
    /// Everywhere in the cluster.
    #[default]
    Everywhere,
    /// To other pods and nodes, but to no service address.
    WithoutServices,
}

/// One attached pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetwork {
    /// The name it was attached under.
    pub name: String,
    /// The namespace, to be entered by the pod's processes.
    pub netns_path: PathBuf,
    /// The pod's only address.
    pub ip: Ipv4Addr,
}

/// A local cluster's network. Cloning is cheap; all clones are the same network. Dropping the last one closes nothing
/// down: pods stay attached until [`ClusterNetwork::detach`] or [`ClusterNetwork::destroy`].
#[derive(Clone)]
pub struct ClusterNetwork {
    inner: Arc<Inner>,
}

struct Inner {
    cluster_id: String,
    router: Arc<File>,
    sockets: SocketFactory,
    changes: Arc<Semaphore>,
    name_locks: Vec<Arc<Mutex<()>>>,
}

impl ClusterNetwork {
    /// Creates the cluster's router namespace, or finds it again with everything attached to it. Attachments that were
    /// interrupted half-way are removed, so nobody else may be attaching to the same cluster at this moment.
    pub async fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        let cluster_id = config.cluster_id;
        names::check_cluster_id(&cluster_id)?;
        let id = cluster_id.clone();
        let router = Arc::new(netns::on_own_thread(&cluster_id, move || open_router(&id)).await?);
        let sockets = SocketFactory::start(router.clone())?;
        let name_locks = (0..NAME_LOCKS).map(|_| Arc::default()).collect();
        let changes = Arc::new(Semaphore::new(CONCURRENT_CHANGES));
        Ok(Self {
            inner: Arc::new(Inner {
                cluster_id,
                router,
                sockets,
                changes,
                name_locks,
            }),
        })
    }

    /// The id this network was opened with.
    pub fn cluster_id(&self) -> &str {
        &self.inner.cluster_id
    }

    /// Makes sockets that live in the router namespace: they reach every pod and every local address.
    pub fn sockets(&self) -> SocketFactory {
        self.inner.sockets.clone()
    }

    /// Makes an address local to the router, so that it can be listened on. Doing it twice is fine.
    pub async fn add_address(&self, ip: Ipv4Addr) -> Result<(), NetworkError> {
        self.in_router("adding address", ip.to_string(), move |socket| {
            links::add_address(socket, links::LOOPBACK_INDEX, ip, AddressScope::Universe)
        })
        .await
    }

    /// Takes a local address away; listeners on it hear nothing more. An unknown address is fine.
    pub async fn remove_address(&self, ip: Ipv4Addr) -> Result<(), NetworkError> {
        self.in_router("removing address", ip.to_string(), move |socket| {
            links::remove_address(socket, links::LOOPBACK_INDEX, ip)
        })
        .await
    }

    /// Gives a pod its namespace and address. The same name and address again returns what is there.
    ///
    /// The work goes on to its end when the returned future is dropped; a later call with the same name waits for it.
    pub async fn attach(&self, name: &str, ip: Ipv4Addr) -> Result<PodNetwork, NetworkError> {
        self.attach_with(name, ip, PodReach::default()).await
    }

    /// The same for a pod that may not reach everything. What it may reach stays as long as it is attached.
    pub async fn attach_with(
        &self,
        name: &str,
        ip: Ipv4Addr,
        reach: PodReach,
    ) -> Result<PodNetwork, NetworkError> {
        self.change(name, move |attachment| attachment.attach(ip, reach))
            .await?;
        Ok(self.pod_network(name.to_owned(), ip))
    }

    /// Removes a pod's namespace name, link and routes. Processes still inside lose the network. Unknown names are fine.
    pub async fn detach(&self, name: &str) -> Result<(), NetworkError> {
        self.change(name, |attachment| attachment.detach()).await
    }

    /// Every complete attachment, ordered by name.
    pub async fn attached(&self) -> Result<Vec<PodNetwork>, NetworkError> {
        let links = self
            .in_router(
                "listing the pods of cluster",
                self.inner.cluster_id.clone(),
                links::all_links,
            )
            .await?;
        let known = links
            .into_iter()
            .filter_map(|link| names::parse_alias(&link.alias?));
        let mut pods: Vec<_> = known.map(|(name, ip)| self.pod_network(name, ip)).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pods)
    }

    /// Removes every namespace of a cluster, complete or not. Nothing there is fine.
    pub async fn destroy(cluster_id: &str) -> Result<(), NetworkError> {
        names::check_cluster_id(cluster_id)?;
        let leftovers = Self::leftovers(cluster_id).await?;
        let object = cluster_id.to_owned();
        netns::on_own_thread(cluster_id, move || {
            let mut first_error = None;
            // Pods before the router, which comes first in the sorted list: an interrupted removal can be repeated.
            for namespace in leftovers.iter().rev() {
                if let Err(error) = netns::remove(namespace) {
                    first_error.get_or_insert(NetworkError::io(
                        "removing namespace",
                        namespace,
                        error,
                    ));
                }
            }
            tracing::debug!(
                cluster = object,
                namespaces = leftovers.len(),
                "cluster network removed"
            );
            first_error.map_or(Ok(()), Err)
        })
        .await
    }

    /// The names of namespaces that a cluster still has on this machine; empty after [`ClusterNetwork::destroy`].
    pub async fn leftovers(cluster_id: &str) -> Result<Vec<String>, NetworkError> {
        let id = cluster_id.to_owned();
        netns::on_own_thread(cluster_id, move || {
            let all = netns::list()
                .map_err(|error| NetworkError::io("listing namespaces of cluster", &id, error))?;
            let mut ours: Vec<_> = all
                .into_iter()
                .filter(|name| names::belongs_to(name, &id))
                .collect();
            ours.sort();
            Ok(ours)
        })
        .await
    }

    fn pod_network(&self, name: String, ip: Ipv4Addr) -> PodNetwork {
        let netns_path = netns::path_of(&names::pod_namespace(&self.inner.cluster_id, &name));
        PodNetwork {
            name,
            netns_path,
            ip,
        }
    }

    async fn change(
        &self,
        name: &str,
        work: impl FnOnce(Attachment<'_>) -> Result<(), NetworkError> + Send + 'static,
    ) -> Result<(), NetworkError> {
        names::check_name(name)?;
        let guards = self.lock(name).await?;
        let (owned_name, inner) = (name.to_owned(), self.inner.clone());
        netns::on_own_thread(name, move || {
            // Moved here, so that a dropped future cannot release them while the work goes on.
            let _guards = guards;
            work(Attachment {
                router: &inner.router,
                cluster_id: &inner.cluster_id,
                name: &owned_name,
            })
        })
        .await
    }

    async fn lock(
        &self,
        name: &str,
    ) -> Result<(OwnedMutexGuard<()>, OwnedSemaphorePermit), NetworkError> {
        let index = names::fingerprint(name) as usize % NAME_LOCKS;
        let name_guard = self.inner.name_locks[index].clone().lock_owned().await;
        let permit = self.inner.changes.clone().acquire_owned().await;
        Ok((
            name_guard,
            permit.map_err(|_| NetworkError::Stopped {
                object: name.to_owned(),
            })?,
        ))
    }

    async fn in_router<T: Send + 'static>(
        &self,
        attempt: &'static str,
        object: String,
        work: impl FnOnce(&mut NetlinkSocket) -> io::Result<T> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let router = self.inner.router.clone();
        netns::on_own_thread(&object.clone(), move || {
            let result = netns::enter(&router).and_then(|()| work(&mut NetlinkSocket::open()?));
            result.map_err(|error| NetworkError::io(attempt, object, error))
        })
        .await
    }
}

/// Finds or makes the router. It gets its name last, so a named router is always complete.
fn open_router(cluster_id: &str) -> Result<File, NetworkError> {
    let namespace = &names::router_namespace(cluster_id);
    let failed = |source| NetworkError::io("creating the router namespace", namespace, source);
    if let Some(existing) = netns::open(namespace).map_err(failed)? {
        remove_half_made(&existing, cluster_id).map_err(failed)?;
        return Ok(existing);
    }
    let router = netns::enter_new().map_err(failed)?;
    set_up_router().map_err(failed)?;
    netns::keep_as(namespace).map_err(failed)?;
    Ok(router)
}

/// Removes what a killed process left of attachments it was making: links without an alias, namespaces without a link.
fn remove_half_made(router: &File, cluster_id: &str) -> io::Result<()> {
    netns::enter(router)?;
    let mut socket = NetlinkSocket::open()?;
    let mut complete = HashSet::from([names::router_namespace(cluster_id)]);
    for link in links::all_links(&mut socket)? {
        match link.alias.and_then(|alias| names::parse_alias(&alias)) {
            Some((name, _)) => drop(complete.insert(names::pod_namespace(cluster_id, &name))),
            None if link.index == links::LOOPBACK_INDEX => {}
            None => links::remove_link(&mut socket, link.index)?,
        }
    }
    let known = netns::list()?
        .into_iter()
        .filter(|name| names::belongs_to(name, cluster_id));
    for namespace in known.filter(|name| !complete.contains(name)) {
        tracing::info!(
            namespace,
            "removing what is left of an interrupted attachment"
        );
        netns::remove(&namespace)?;
    }
    Ok(())
}

fn set_up_router() -> io::Result<()> {
    netns::set_parameter("ipv4/ip_forward", "1")?;
    netns::set_parameter("ipv6/conf/default/disable_ipv6", "1")?;
    // A machine's own strictness is copied into new namespaces; here every packet's way is known.
    netns::set_parameter("ipv4/conf/all/rp_filter", "0")?;
    netns::set_parameter("ipv4/conf/default/rp_filter", "0")?;
    // The balancers open many short connections to few addresses.
    netns::set_parameter("ipv4/ip_local_port_range", "20000 60999")?;
    netns::set_parameter("ipv4/tcp_tw_reuse", "1")?;
    let mut socket = NetlinkSocket::open()?;
    links::set_up(&mut socket, links::LOOPBACK_INDEX)?;
    links::add_address(
        &mut socket,
        links::LOOPBACK_INDEX,
        links::GATEWAY_ADDRESS,
        AddressScope::Link,
    )?;
    links::add_address(
        &mut socket,
        links::LOOPBACK_INDEX,
        links::CONTROL_ADDRESS,
        AddressScope::Universe,
    )?;
    links::add_local_network(
        &mut socket,
        links::SERVICE_NETWORK,
        links::SERVICE_NETWORK_BITS,
    )
}
