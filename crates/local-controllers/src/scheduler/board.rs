//! What the scheduler knows: the nodes with what is left on them, and the pods on each. Pods it has just placed count
//! before the watch confirms them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::resources::{PodRequest, Resources, allocatable, request};
use crate::shared::objects::{name, uid};

type Labels = BTreeMap<String, String>;

/// The taint that a virtual node's provider puts on it.
const PROVIDER_TAINT: &str = elastic_core::names::PROVIDER_TAINT_KEY;
const NO_LABELS: &Labels = &Labels::new();

/// A pod that occupies part of a node.
#[derive(Debug)]
pub struct PlacedPod {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What it asks for.
    pub request: PodRequest,
}

/// A node with what is on it.
#[derive(Debug)]
pub struct NodeInfo {
    /// The node.
    pub node: Arc<Node>,
    /// What it can give.
    pub allocatable: Resources,
    /// To how many pods.
    pub pods_max: usize,
    /// What its pods ask for.
    pub used: Resources,
    /// The same, as scoring counts it.
    pub scored_cpu_millis: i64,
    /// As above, for memory.
    pub scored_memory_bytes: i64,
    /// Its pods by UID.
    pub pods: HashMap<String, PlacedPod>,
    /// Host ports in use, with protocol and address.
    pub host_ports: HashSet<HostPort>,
}

/// A port of the node itself: protocol, address, port.
pub type HostPort = (String, String, i32);

impl NodeInfo {
    fn new(node: Arc<Node>) -> Self {
        let (allocatable, pods_max) = allocatable(&node);
        NodeInfo {
            node,
            allocatable,
            pods_max,
            used: Resources::default(),
            scored_cpu_millis: 0,
            scored_memory_bytes: 0,
            pods: HashMap::new(),
            host_ports: HashSet::new(),
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        name(&self.node.metadata)
    }

    /// The node's labels.
    pub fn labels(&self) -> &Labels {
        self.node.metadata.labels.as_ref().unwrap_or(NO_LABELS)
    }

    /// Whether it stands for serverless capacity.
    pub fn is_virtual(&self) -> bool {
        let taints = self
            .node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.as_deref());
        taints
            .unwrap_or_default()
            .iter()
            .any(|taint| taint.key == PROVIDER_TAINT)
    }

    fn add(&mut self, pod: Arc<Pod>, request: PodRequest) {
        self.used.add(&request.required);
        self.scored_cpu_millis += request.scored_cpu_millis;
        self.scored_memory_bytes += request.scored_memory_bytes;
        self.host_ports.extend(host_ports(&pod));
        self.pods
            .insert(uid(&pod.metadata).to_owned(), PlacedPod { pod, request });
    }

    fn remove(&mut self, uid: &str) {
        let Some(placed) = self.pods.remove(uid) else {
            return;
        };
        self.used.subtract(&placed.request.required);
        self.scored_cpu_millis -= placed.request.scored_cpu_millis;
        self.scored_memory_bytes -= placed.request.scored_memory_bytes;
        if !self.host_ports.is_empty() {
            self.host_ports = self
                .pods
                .values()
                .flat_map(|placed| host_ports(&placed.pod))
                .collect();
        }
    }
}

/// The host ports that a pod asks for.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((protocol, port.host_ip.clone().unwrap_or_default(), number))
        })
        .collect()
}

/// Everything the scheduler decides on.
#[derive(Debug, Default)]
pub struct Board {
    /// The nodes by name.
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Labels of the namespaces, for terms that select those.
    pub namespaces: HashMap<String, Labels>,
    /// Where each counted pod is, by UID. Pods of unknown nodes are kept until the node appears.
    places: HashMap<String, (String, Arc<Pod>)>,
    /// UIDs of the counted pods that forbid neighbours.
    pub repelling: HashSet<String>,
}

impl Board {
    /// Adds a node or takes over its new state.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = name(&node.metadata).to_owned();
        if let Some(info) = self.nodes.get_mut(&name) {
            (info.allocatable, info.pods_max) = allocatable(&node);
            info.node = node;
            return;
        }
        let mut info = NodeInfo::new(node);
        for (_, pod) in self.places.values().filter(|(node, _)| *node == name) {
            info.add(Arc::clone(pod), request(pod));
        }
        self.nodes.insert(name, info);
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Counts a pod on a node, whether the watch says so or it was just decided.
    pub fn place(&mut self, pod: Arc<Pod>, node: &str) {
        let uid = uid(&pod.metadata).to_owned();
        self.unplace(&uid);
        if super::affinity::has_required_anti_affinity(&pod) {
            self.repelling.insert(uid.clone());
        }
        if let Some(info) = self.nodes.get_mut(node) {
            let request = request(&pod);
            info.add(Arc::clone(&pod), request);
        }
        self.places.insert(uid, (node.to_owned(), pod));
    }

    /// Does not count a pod any more.
    pub fn unplace(&mut self, uid: &str) {
        if let Some((node, _)) = self.places.remove(uid) {
            if let Some(info) = self.nodes.get_mut(&node) {
                info.remove(uid);
            }
            self.repelling.remove(uid);
        }
    }

    /// Whether a pod is counted.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.places.contains_key(uid)
    }

    /// The node and the pod of a UID.
    pub fn placed(&self, uid: &str) -> Option<(&NodeInfo, &Pod)> {
        let (node, pod) = self.places.get(uid)?;
        Some((self.nodes.get(node)?, pod))
    }
}

/// Whether a node's change can make room for a pod.
pub fn is_relevant(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| {
        node.status
            .as_ref()
            .and_then(|status| status.allocatable.clone())
    };
    old.metadata.labels != new.metadata.labels
        || old.spec != new.spec
        || allocatable(old) != allocatable(new)
}
