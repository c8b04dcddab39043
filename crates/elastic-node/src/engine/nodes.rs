//! Which virtual nodes there are: one per zone of the vSwitches in force, with an arm64 one besides when asked for. A node
//! whose zone leaves the profile takes no new pods and is taken out of the API when its last pod has gone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Index;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use elastic_core::events::EventKind;
use elastic_core::names::{
    ARCHITECTURE_LABEL, NODE_TYPE_LABEL, NODE_TYPE_VIRTUAL, VIRTUAL_NODE_PREFIX, ZONE_LABEL, tags,
};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use kubelet_api::{ClusterReviewer, KubeletServer};
use tokio::net::TcpListener;
use tokio::sync::watch as watching;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::profile::{Effective, InForce};
use super::{RunError, Shared, watch};
use crate::backend::GroupBackend;
use crate::config::{Architecture, Capacity, NodeEndpoint, NodeSpec, OpenEndpoint};
use crate::node::{Mood, NodeFacts, keep_alive, unregister};

/// Different node names one process can serve in its life.
const MAX_NODES: usize = 128;
/// Between looks whether a draining node is empty, and between tries while the API does not answer.
const TICK: Duration = Duration::from_millis(500);
const DEFAULT_KUBELET_PORT: u16 = 10_250;

/// What one virtual node is known by.
#[derive(Clone, Debug)]
pub(crate) struct NodeIdentity {
    pub(crate) name: String,
    pub(crate) spec: NodeSpec,
    pub(crate) address: String,
}

/// All nodes this process has served, by number; a number is never given to another name.
pub(crate) struct NodeTable {
    slots: Vec<OnceLock<NodeIdentity>>,
}

impl Default for NodeTable {
    fn default() -> Self {
        Self {
            slots: (0..MAX_NODES).map(|_| OnceLock::new()).collect(),
        }
    }
}

impl NodeTable {
    /// The number of a node; `None` when the table is full.
    fn add(&self, identity: NodeIdentity) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.get_or_init(|| identity.clone()).name == identity.name)
    }
}

impl Index<usize> for NodeTable {
    type Output = NodeIdentity;

    fn index(&self, number: usize) -> &NodeIdentity {
        let slot = self.slots.get(number).and_then(OnceLock::get);
        slot.expect("numbers come from `add` only, which fills the slot first")
    }
}

/// What nodes are made from.
pub(super) struct Supply {
    pub(super) open: Vec<NodeEndpoint>,
    pub(super) opener: Option<Arc<dyn OpenEndpoint>>,
    pub(super) capacity: Capacity,
    pub(super) kubelet_version: Option<String>,
    pub(super) kubelet_port: Option<u16>,
}

/// The nodes that a configuration asks for, in the order of its zones.
fn wanted(effective: &Effective) -> Vec<NodeSpec> {
    let mut specs: Vec<NodeSpec> = Vec::new();
    let mut add = |zone: &str, architecture| {
        let spec = NodeSpec {
            zone: zone.to_owned(),
            architecture,
        };
        if !specs.contains(&spec) {
            specs.push(spec);
        }
    };
    for switch in &effective.v_switches {
        add(&switch.zone, Architecture::Amd64);
        if effective.profile.enable_linux_arm64_node {
            add(&switch.zone, Architecture::Arm64);
        }
    }
    specs
}

struct Running {
    number: usize,
    mood: watching::Sender<Mood>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Manager {
    shared: Arc<Shared>,
    supply: Supply,
    running: BTreeMap<NodeSpec, Running>,
    kubelet_version: String,
    stop: CancellationToken,
}

/// Keeps the nodes as the profile wants them until `stop`.
pub(super) async fn manage(
    shared: Arc<Shared>,
    supply: Supply,
    mut profile: watching::Receiver<InForce>,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let ready = async {
        let _ = profile
            .wait_for(|now| now.effective.is_some() || now.problem.is_some())
            .await;
        prepare(&shared, supply.kubelet_version.clone()).await
    };
    let (kubelet_version, found) = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        ready = ready => ready,
    };
    let mut manager = Manager {
        shared,
        supply,
        running: BTreeMap::new(),
        kubelet_version,
        stop: stop.clone(),
    };
    for spec in found {
        manager.start(spec, true).await?;
    }
    loop {
        let now = profile.borrow_and_update().clone();
        manager.reconcile(&now).await?;
        // From here on every node that may hold pods of ours is watched.
        manager.shared.state().nodes_known = true;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Ok(()) = profile.changed() => break,
                () = tokio::time::sleep(TICK) => manager.remove_empty().await,
            }
        }
    }
}

/// The version to show, and the nodes that an earlier life of this program left in the API.
async fn prepare(shared: &Shared, version: Option<String>) -> (String, Vec<NodeSpec>) {
    loop {
        match (
            kubelet_version(&shared.client, &version).await,
            left_behind(shared).await,
        ) {
            (Ok(version), Ok(found)) => return (version, found),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "the API does not answer, virtual nodes wait for it");
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

/// `v1.34.0-springtide.0.1.0`: the cluster's version with ours behind it.
async fn kubelet_version(client: &Client, given: &Option<String>) -> Result<String, kube::Error> {
    if let Some(version) = given {
        return Ok(version.clone());
    }
    let server = client.apiserver_version().await?.git_version;
    let plain = server.split(['-', '+']).next().unwrap_or_default();
    Ok(format!("{plain}-springtide.{}", env!("CARGO_PKG_VERSION")))
}

async fn left_behind(shared: &Shared) -> Result<Vec<NodeSpec>, kube::Error> {
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let virtual_only =
        ListParams::default().labels(&format!("{NODE_TYPE_LABEL}={NODE_TYPE_VIRTUAL}"));
    let found = nodes.list(&virtual_only).await?.items;
    let ours = |node: &Node| {
        let cluster = node.annotations().get(tags::CLUSTER);
        let spec = NodeSpec {
            zone: node.labels().get(ZONE_LABEL)?.clone(),
            architecture: match node.labels().get(ARCHITECTURE_LABEL).map(String::as_str) {
                Some("arm64") => Architecture::Arm64,
                _ => Architecture::Amd64,
            },
        };
        let ours = cluster == Some(&shared.cluster_id)
            && node.name_any().starts_with(VIRTUAL_NODE_PREFIX)
            && spec.name() == node.name_any();
        ours.then_some(spec)
    };
    Ok(found.iter().filter_map(ours).collect())
}

impl Manager {
    async fn reconcile(&mut self, now: &InForce) -> Result<(), RunError> {
        let specs = now.effective.as_deref().map(wanted).unwrap_or_default();
        for spec in &specs {
            if self
                .running
                .get(spec)
                .is_some_and(|node| node.stop.is_cancelled())
            {
                // It was being removed when its zone came back.
                self.running.remove(spec);
            }
            if !self.running.contains_key(spec) {
                self.start(spec.clone(), false).await?;
            }
        }
        for (spec, node) in &self.running {
            let mood = Mood {
                draining: !specs.contains(spec),
                profile_problem: now.problem.clone(),
            };
            let before = node.mood.borrow().draining;
            if before != mood.draining {
                self.tell(&spec.name(), mood.draining);
            }
            node.mood.send_if_modified(|known| {
                let changed = *known != mood;
                *known = mood;
                changed
            });
        }
        Ok(())
    }

    fn tell(&self, name: &str, draining: bool) {
        let (reason, message) = if draining {
            (
                "Draining",
                "the zone has left eci-profile: the node takes no new pods and goes with its last one",
            )
        } else {
            (
                "DrainingEnded",
                "the zone is in eci-profile again: the node takes pods",
            )
        };
        tracing::info!(node = name, reason, "virtual node changes");
        self.shared
            .events
            .tell_about(&node_reference(name), EventKind::Normal, reason, message);
    }

    async fn start(&mut self, spec: NodeSpec, draining: bool) -> Result<(), RunError> {
        let name = spec.name();
        let endpoint = self.endpoint(&spec).await;
        let identity = NodeIdentity {
            name: name.clone(),
            spec: spec.clone(),
            address: endpoint.address.to_string(),
        };
        let Some(number) = self.shared.nodes.add(identity) else {
            tracing::error!(
                node = name,
                "too many different virtual nodes, restart to add more"
            );
            return Ok(());
        };
        self.shared.state().add_node(number);
        let (mood, moods) = watching::channel(Mood {
            draining,
            profile_problem: None,
        });
        let stop = self.stop.child_token();
        let tasks = TaskTracker::new();
        if let Some((listener, tls)) = endpoint.listener {
            let backend = Arc::new(GroupBackend::new(self.shared.clone(), number));
            let reviewer = Arc::new(ClusterReviewer::new(self.shared.client.clone()));
            let keys = tls.borrow().clone();
            let server = KubeletServer::new(&name, backend, &keys, reviewer);
            let server = server.map_err(|source| RunError::Kubelet {
                node: name.clone(),
                source,
            })?;
            tasks.spawn(server.following(tls).serve(listener, stop.clone()));
        }
        let facts = NodeFacts {
            cluster: self.shared.cluster_id.clone(),
            spec: spec.clone(),
            address: endpoint.address,
            port: endpoint.port,
            capacity: self.supply.capacity.clone(),
            kubelet_version: self.kubelet_version.clone(),
        };
        let timing = self.shared.timing.clone();
        tasks.spawn(keep_alive(
            self.shared.client.clone(),
            facts,
            timing,
            moods,
            stop.clone(),
        ));
        tasks.spawn(watch::watch_pods(self.shared.clone(), number, stop.clone()));
        tasks.close();
        let watched = tasks.clone();
        self.shared
            .tracker
            .spawn(async move { watched.wait().await });
        let running = Running {
            number,
            mood,
            stop,
            tasks,
        };
        self.running.insert(spec, running);
        Ok(())
    }

    /// An endpoint that is open already, else one opened now, else the address that all virtual nodes share.
    async fn endpoint(&mut self, spec: &NodeSpec) -> NodeEndpoint {
        let name = spec.name();
        if spec.architecture == Architecture::Amd64
            && let Some(at) = self
                .supply
                .open
                .iter()
                .position(|open| open.zone == spec.zone)
        {
            return duplicate(&mut self.supply.open[at]);
        }
        if let Some(opener) = &self.supply.opener {
            match opener.open(&name, &spec.zone).await {
                Ok(endpoint) => return endpoint,
                Err(cause) => {
                    tracing::warn!(node = name, cause, "kubelet API could not be opened");
                    let message = format!("logs and exec are not served on this node: {cause}");
                    let about = node_reference(&name);
                    self.shared.events.tell_about(
                        &about,
                        EventKind::Warning,
                        "KubeletUnavailable",
                        &message,
                    );
                }
            }
        }
        self.supply.open.first().map_or_else(
            || NodeEndpoint {
                zone: spec.zone.clone(),
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port: self.supply.kubelet_port.unwrap_or(DEFAULT_KUBELET_PORT),
                listener: None,
            },
            unserved,
        )
    }

    fn emptied(&self) -> Vec<NodeSpec> {
        let state = self.shared.state();
        let empty = self
            .running
            .iter()
            .filter(|(_, node)| node.mood.borrow().draining && state.is_empty_node(node.number));
        empty.map(|(spec, _)| spec.clone()).collect()
    }

    async fn remove_empty(&mut self) {
        for spec in self.emptied() {
            let Some(node) = self.running.get(&spec) else {
                continue;
            };
            node.stop.cancel();
            // The heartbeat must have ended, else it would put the node back.
            node.tasks.wait().await;
            let name = spec.name();
            if let Err(error) = unregister(&self.shared.client, &name).await {
                tracing::warn!(node = name, %error, "drained node could not be removed, trying again");
                continue;
            }
            tracing::info!(node = name, "drained node is removed");
            self.shared.state().drop_node(node.number);
            self.running.remove(&spec);
        }
    }
}

/// The endpoint with its listener; the socket stays open for the node's next life, when its zone comes back.
fn duplicate(endpoint: &mut NodeEndpoint) -> NodeEndpoint {
    let mut taken = unserved(endpoint);
    let Some((listener, tls)) = endpoint.listener.take() else {
        return taken;
    };
    let split = |listener: TcpListener| {
        let listener = listener.into_std()?;
        let second = TcpListener::from_std(listener.try_clone()?)?;
        Ok::<_, std::io::Error>((TcpListener::from_std(listener)?, second))
    };
    match split(listener) {
        Ok((one, other)) => {
            endpoint.listener = Some((other, tls.clone()));
            taken.listener = Some((one, tls));
        }
        Err(error) => {
            tracing::warn!(zone = endpoint.zone, %error, "kubelet API could not be kept open")
        }
    }
    taken
}

/// The same address without a kubelet API.
fn unserved(endpoint: &NodeEndpoint) -> NodeEndpoint {
    NodeEndpoint {
        zone: endpoint.zone.clone(),
        address: endpoint.address,
        port: endpoint.port,
        listener: None,
    }
}

pub(super) fn node_reference(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        // As kubelets do it: events on nodes name the node instead of its uid.
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VSwitch;

    fn names(zones: &[&str], arm: bool) -> Vec<String> {
        let switch = |zone: &&str| VSwitch {
            id: format!("vsw-{zone}"),
            zone: (*zone).to_owned(),
        };
        let mut effective = Effective {
            v_switches: zones.iter().map(switch).collect(),
            ..Effective::default()
        };
        effective.profile.enable_linux_arm64_node = arm;
        wanted(&effective).iter().map(NodeSpec::name).collect()
    }

    #[test]
    fn there_is_one_node_per_zone_and_an_arm_one_when_asked_for() {
        assert_eq!(
            names(&["b", "a", "b"], false),
            ["virtual-kubelet-b", "virtual-kubelet-a"]
        );
        assert_eq!(
            names(&["a"], true),
            ["virtual-kubelet-a", "virtual-kubelet-a-arm64"]
        );
    }

    #[test]
    fn a_node_that_comes_back_gets_its_number_again() {
        let table = NodeTable::default();
        let node = |zone: String| {
            let spec = NodeSpec {
                zone,
                architecture: Architecture::Amd64,
            };
            NodeIdentity {
                name: spec.name(),
                spec,
                address: String::new(),
            }
        };
        assert_eq!(table.add(node("a".into())), Some(0));
        assert_eq!(table.add(node("b".into())), Some(1));
        assert_eq!(table.add(node("a".into())), Some(0));
        assert_eq!(table[1].name, "virtual-kubelet-b");
        for number in 2..MAX_NODES {
            assert_eq!(table.add(node(number.to_string())), Some(number));
        }
        assert_eq!(table.add(node("one-more".into())), None);
    }

    #[tokio::test]
    async fn a_zone_that_comes_back_is_served_on_the_same_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = kubelet_api::ServerTls {
            certificate_pem: String::new(),
            key_pem: String::new(),
            client_ca_pem: String::new(),
        };
        let mut endpoint = NodeEndpoint {
            zone: "a".into(),
            address: address.ip(),
            port: address.port(),
            listener: Some((listener, kubelet_api::fixed(tls))),
        };
        for _ in 0..2 {
            let (listener, _) = duplicate(&mut endpoint).listener.unwrap();
            assert_eq!(listener.local_addr().unwrap(), address);
        }
    }
}
