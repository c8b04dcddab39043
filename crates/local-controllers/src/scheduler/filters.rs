//! Whether a pod can run on a node, asked in upstream's order; the first part that says no gives the reasons.

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

use super::affinity::{Conflict, Neighbours, node_matches};
use super::board::{HostPort, NodeInfo, host_ports};
use super::resources::PodRequest;
use super::spread::{Spread, Unevenness};

/// Why a node does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The sentences that are counted over all nodes.
    pub reasons: Vec<String>,
    /// Whether removing pods from the node could help.
    pub is_resolvable: bool,
}

impl Refusal {
    fn fixed(reason: impl Into<String>) -> Option<Self> {
        Some(Refusal {
            reasons: vec![reason.into()],
            is_resolvable: false,
        })
    }

    fn resolvable(reason: &str) -> Option<Self> {
        Some(Refusal {
            reasons: vec![reason.to_owned()],
            is_resolvable: true,
        })
    }
}

/// The incoming pod with what was read of the board for it.
pub struct Incoming<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What it asks for.
    pub request: PodRequest,
    /// Its host ports.
    pub host_ports: Vec<HostPort>,
    /// What the placed pods mean for it.
    pub neighbours: Neighbours,
    /// Its spread constraints.
    pub spread: Spread,
}

impl<'a> Incoming<'a> {
    /// Prepares a pod.
    pub fn new(board: &super::board::Board, pod: &'a Pod) -> Self {
        Incoming {
            pod,
            request: super::resources::request(pod),
            host_ports: host_ports(pod),
            neighbours: super::affinity::neighbours(board, pod),
            spread: super::spread::spread(board, pod),
        }
    }
}

/// Why the pod cannot run on the node; `None` when it can.
pub fn refuse(incoming: &Incoming<'_>, node: &NodeInfo) -> Option<Refusal> {
    let pod = incoming.pod;
    if node.node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true)
        && !tolerates(pod, &unschedulable_taint())
    {
        return Refusal::fixed("node(s) were unschedulable");
    }
    if let Some(taint) = untolerated(pod, node) {
        let value = taint.value.as_deref().unwrap_or_default();
        return Refusal::fixed(format!(
            "node(s) had untolerated taint {{{}: {value}}}",
            taint.key
        ));
    }
    if !node_matches(pod, node) {
        return Refusal::fixed("node(s) didn't match Pod's node affinity/selector");
    }
    if incoming
        .host_ports
        .iter()
        .any(|port| is_port_taken(port, node))
    {
        return Refusal::resolvable("node(s) didn't have free ports for the requested pod ports");
    }
    if let Some(refusal) = refuse_resources(&incoming.request, node) {
        return Some(refusal);
    }
    match incoming.spread.check(node) {
        Some(Unevenness::MissingLabel) => {
            return Refusal::fixed(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            );
        }
        Some(Unevenness::Skew) => {
            return Refusal::resolvable("node(s) didn't match pod topology spread constraints");
        }
        None => {}
    }
    match incoming.neighbours.check(node)? {
        Conflict::Affinity => Refusal::fixed("node(s) didn't match pod affinity rules"),
        Conflict::AntiAffinity => {
            Refusal::resolvable("node(s) didn't match pod anti-affinity rules")
        }
        Conflict::Existing => {
            Refusal::resolvable("node(s) didn't satisfy existing pods anti-affinity rules")
        }
    }
}

fn refuse_resources(request: &PodRequest, node: &NodeInfo) -> Option<Refusal> {
    let (wanted, has, used) = (&request.required, &node.allocatable, &node.used);
    let mut reasons = Vec::new();
    let mut is_resolvable = true;
    if node.pods.len() >= node.pods_max {
        reasons.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, wanted: i64, has: i64, used: i64| {
        if wanted > 0 && wanted > has - used {
            reasons.push(format!("Insufficient {name}"));
            is_resolvable &= wanted <= has;
        }
    };
    check("cpu", wanted.cpu_millis, has.cpu_millis, used.cpu_millis);
    check(
        "memory",
        wanted.memory_bytes,
        has.memory_bytes,
        used.memory_bytes,
    );
    for (name, amount) in &wanted.others {
        let of =
            |amounts: &super::resources::Resources| amounts.others.get(name).copied().unwrap_or(0);
        check(name, *amount, of(has), of(used));
    }
    (!reasons.is_empty()).then_some(Refusal {
        reasons,
        is_resolvable,
    })
}

fn is_port_taken((protocol, address, port): &HostPort, node: &NodeInfo) -> bool {
    let is_any = |address: &str| address.is_empty() || address == "0.0.0.0";
    node.host_ports
        .iter()
        .any(|(other_protocol, other_address, other_port)| {
            port == other_port
                && protocol == other_protocol
                && (is_any(address) || is_any(other_address) || address == other_address)
        })
}

fn taints(node: &NodeInfo) -> &[Taint] {
    node.node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default()
}

fn untolerated<'a>(pod: &Pod, node: &'a NodeInfo) -> Option<&'a Taint> {
    let forbids = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
    taints(node)
        .iter()
        .filter(forbids)
        .find(|taint| !tolerates(pod, taint))
}

/// Whether a pod tolerates every taint of a node that keeps pods away.
pub fn tolerates_all(pod: &Pod, node: &NodeInfo) -> bool {
    untolerated(pod, node).is_none()
}

/// How many taints that only discourage a pod does not tolerate.
pub fn discouragements(pod: &Pod, node: &NodeInfo) -> i64 {
    let count = taints(node)
        .iter()
        .filter(|taint| taint.effect == "PreferNoSchedule" && !tolerates(pod, taint));
    i64::try_from(count.count()).unwrap_or(i64::MAX)
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default();
    tolerations
        .iter()
        .any(|toleration| is_tolerated_by(taint, toleration))
}

/// Whether a toleration covers a taint.
pub fn is_tolerated_by(taint: &Taint, toleration: &Toleration) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

fn unschedulable_taint() -> Taint {
    Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    }
}
