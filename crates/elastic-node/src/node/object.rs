//! What a virtual node shows of itself. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use elastic_core::names::{
    ARCHITECTURE_LABEL, DRAINING_TAINT_KEY, NODE_TYPE_LABEL, NODE_TYPE_VIRTUAL, PROVIDER_TAINT_KEY,
    PROVIDER_TAINT_VALUE, ZONE_LABEL, tags,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec as NodeSpecObject, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::config::{Architecture, Capacity, NodeSpec};

/// Says whether the profile in the cluster is the one in force.
pub(crate) const PROFILE_CONDITION: &str = "EciProfileAccepted";
/// Longest message of a condition.
const MAX_MESSAGE: usize = 1_024;

/// What changes about a node while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mood {
    /// Its zone is no longer in the profile: no new pods, and it goes when the last pod has gone.
    pub(crate) draining: bool,
    /// Why the profile in the cluster is not the one in force.
    pub(crate) profile_problem: Option<String>,
}

/// What the object depends on.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    pub(crate) cluster: String,
    pub(crate) spec: NodeSpec,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) capacity: Capacity,
    pub(crate) kubelet_version: String,
}

/// The whole object as it is created.
pub(crate) fn node(facts: &NodeFacts, mood: &Mood, now: Timestamp) -> Node {
    let name = facts.spec.name();
    let mut node: Node = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "annotations": {tags::CLUSTER: facts.cluster},
            "labels": {
                NODE_TYPE_LABEL: NODE_TYPE_VIRTUAL,
                "kubernetes.io/role": "agent",
                "node-role.kubernetes.io/agent": "",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                ARCHITECTURE_LABEL: facts.spec.architecture.label(),
                "beta.kubernetes.io/os": "linux",
                "alpha.service-controller.kubernetes.io/exclude-balancer": "true",
                "node.kubernetes.io/exclude-from-external-load-balancers": "true",
                ZONE_LABEL: facts.spec.zone,
            }
        }
    }))
    .expect("the literal above has the shape of a Node, which a test holds");
    node.spec = Some(NodeSpecObject {
        taints: Some(taints(facts, mood)),
        unschedulable: mood.draining.then_some(true),
        ..NodeSpecObject::default()
    });
    node.status = Some(status(facts, mood, &[], now));
    node
}

fn taint(key: &str, value: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        value: Some(value.to_owned()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    }
}

fn taints(facts: &NodeFacts, mood: &Mood) -> Vec<Taint> {
    let mut taints = vec![taint(PROVIDER_TAINT_KEY, PROVIDER_TAINT_VALUE)];
    if facts.spec.architecture == Architecture::Arm64 {
        taints.push(taint(ARCHITECTURE_LABEL, "arm64"));
    }
    if mood.draining {
        taints.push(taint(DRAINING_TAINT_KEY, "true"));
    }
    taints
}

/// The patch that makes a node's labels, annotations and taints right again, if any is needed. Taints that others put
/// there, such as the node lifecycle controller's, stay; a cordon that is not ours stays as well.
pub(crate) fn repair(existing: &Node, facts: &NodeFacts, mood: &Mood) -> Option<Value> {
    let wanted = node(facts, mood, Timestamp::UNIX_EPOCH);
    let has = |found: Option<&BTreeMap<String, String>>,
               wanted: Option<&BTreeMap<String, String>>| {
        wanted
            .into_iter()
            .flatten()
            .all(|(key, value)| found.and_then(|found| found.get(key)) == Some(value))
    };
    let labelled = has(
        existing.metadata.labels.as_ref(),
        wanted.metadata.labels.as_ref(),
    ) && has(
        existing.metadata.annotations.as_ref(),
        wanted.metadata.annotations.as_ref(),
    );
    let spec = existing.spec.clone().unwrap_or_default();
    let found = spec.taints.unwrap_or_default();
    let was_draining = found.iter().any(|taint| taint.key == DRAINING_TAINT_KEY);
    let mut taints = taints(facts, mood);
    let ours = taints.len();
    let others = found.iter().filter(|one| {
        one.key != DRAINING_TAINT_KEY && !taints[..ours].iter().any(|ours| same_taint(ours, one))
    });
    let others: Vec<Taint> = others.cloned().collect();
    let tainted = taints.iter().all(|wanted| {
        found
            .iter()
            .any(|one| same_taint(wanted, one) && one.value == wanted.value)
    }) && was_draining == mood.draining;
    taints.extend(others);
    let cordoned = spec.unschedulable == Some(true);
    let cordon = match (mood.draining, was_draining) {
        (true, _) => true,
        (false, true) => false,
        (false, false) => cordoned,
    };
    (!labelled || !tainted || cordon != cordoned).then(|| {
        json!({
            "metadata": {"labels": wanted.metadata.labels, "annotations": wanted.metadata.annotations},
            "spec": {"taints": taints, "unschedulable": cordon}
        })
    })
}

fn same_taint(left: &Taint, right: &Taint) -> bool {
    left.key == right.key && left.effect == right.effect
}

/// The status at `now`; conditions keep their transition times when they did not change.
pub(crate) fn status(
    facts: &NodeFacts,
    mood: &Mood,
    before: &[NodeCondition],
    now: Timestamp,
) -> k8s_openapi::api::core::v1::NodeStatus {
    let mut amounts = json!({
        "cpu": facts.capacity.cpu,
        "memory": facts.capacity.memory,
        "ephemeral-storage": facts.capacity.ephemeral_storage,
        "pods": facts.capacity.pods.to_string(),
    });
    // No machine type has both.
    if facts.capacity.gpus > 0 && facts.spec.architecture == Architecture::Amd64 {
        amounts["nvidia.com/gpu"] = json!(facts.capacity.gpus.to_string());
    }
    let mut status: k8s_openapi::api::core::v1::NodeStatus = serde_json::from_value(json!({
        "capacity": amounts,
        "allocatable": amounts,
        "phase": "Running",
        "addresses": [
            {"type": "InternalIP", "address": facts.address.to_string()},
            {"type": "Hostname", "address": facts.spec.name()}
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.port}},
        "nodeInfo": {
            "architecture": facts.spec.architecture.label(), "operatingSystem": "linux", "kubeletVersion": facts.kubelet_version,
            "kubeProxyVersion": "", "bootID": "", "machineID": "", "systemUUID": "", "kernelVersion": "",
            "osImage": "", "containerRuntimeVersion": "eci://2018-08-08"
        }
    }))
    .expect("the literal above has the shape of a NodeStatus, which a test holds");
    status.conditions = Some(conditions(mood, before, now));
    status
}

fn conditions(mood: &Mood, before: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let profile = match &mood.profile_problem {
        None => ("True", "ProfileInForce", "eci-profile is in force"),
        Some(problem) => ("False", "ProfileRefused", problem.as_str()),
    };
    let table = [
        ("Ready", "True", "KubeletReady", "the virtual node is ready"),
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "the cloud has memory available",
        ),
        (
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "the cloud has disk space available",
        ),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "the cloud has process ids available",
        ),
        (
            "NetworkUnavailable",
            "False",
            "RouteCreated",
            "container groups have their own addresses",
        ),
        (PROFILE_CONDITION, profile.0, profile.1, profile.2),
    ];
    table
        .into_iter()
        .map(|(type_, status, reason, message)| {
            let old = before
                .iter()
                .find(|condition| condition.type_ == type_ && condition.status == status);
            NodeCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.chars().take(MAX_MESSAGE).collect()),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: old
                    .and_then(|old| old.last_transition_time.clone())
                    .or(Some(Time(now))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    use super::*;

    fn facts() -> NodeFacts {
        NodeFacts {
            cluster: "c-1".into(),
            spec: NodeSpec {
                zone: "cn-hangzhou-k".into(),
                architecture: Architecture::Amd64,
            },
            address: "10.10.0.101".parse().unwrap(),
            port: 10250,
            capacity: Capacity::default(),
            kubelet_version: "v1.34.0-springtide".into(),
        }
    }

    #[test]
    fn the_node_looks_as_users_know_it() {
        let node = node(&facts(), &Mood::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(node.name_any(), "virtual-kubelet-cn-hangzhou-k");
        assert_eq!(node.labels()["type"], "virtual-kubelet");
        assert_eq!(node.labels()["kubernetes.io/role"], "agent");
        assert_eq!(
            node.labels()["topology.kubernetes.io/zone"],
            "cn-hangzhou-k"
        );
        let taint = &node.spec.unwrap().taints.unwrap()[0];
        assert_eq!(
            (taint.key.as_str(), taint.value.as_deref()),
            ("virtual-kubelet.io/provider", Some("alibabacloud"))
        );
        let status = node.status.unwrap();
        assert_eq!(
            status
                .daemon_endpoints
                .unwrap()
                .kubelet_endpoint
                .unwrap()
                .port,
            10250
        );
        assert_eq!(status.conditions.unwrap().len(), 6);
        assert_eq!(status.allocatable.unwrap()["nvidia.com/gpu"].0, "1000");
    }

    #[test]
    fn a_heartbeat_moves_only_the_heartbeat() {
        let first = status(&facts(), &Mood::default(), &[], Timestamp::UNIX_EPOCH)
            .conditions
            .unwrap();
        let later = Timestamp::from_second(100).unwrap();
        let second = status(&facts(), &Mood::default(), &first, later)
            .conditions
            .unwrap();
        assert_eq!(
            second[0].last_transition_time,
            first[0].last_transition_time
        );
        assert_eq!(second[0].last_heartbeat_time, Some(Time(later)));
    }

    fn healed(existing: &Node, mood: &Mood) -> Option<Value> {
        repair(existing, &facts(), mood)
    }

    #[test]
    fn a_draining_node_takes_no_pods_and_comes_back() {
        let calm = node(&facts(), &Mood::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(healed(&calm, &Mood::default()), None);
        let draining = Mood {
            draining: true,
            ..Mood::default()
        };
        let patch = healed(&calm, &draining).unwrap();
        assert_eq!(patch["spec"]["unschedulable"], true);
        assert_eq!(patch["spec"]["taints"][1]["key"], DRAINING_TAINT_KEY);
        let drained = node(&facts(), &draining, Timestamp::UNIX_EPOCH);
        assert_eq!(healed(&drained, &draining), None);
        let patch = healed(&drained, &Mood::default()).unwrap();
        assert_eq!(patch["spec"]["unschedulable"], false);
        assert_eq!(patch["spec"]["taints"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn what_others_put_on_the_node_stays() {
        let mut found = node(&facts(), &Mood::default(), Timestamp::UNIX_EPOCH);
        let spec = found.spec.as_mut().unwrap();
        spec.unschedulable = Some(true);
        let taints = spec.taints.as_mut().unwrap();
        taints.push(taint("node.kubernetes.io/unschedulable", ""));
        assert_eq!(healed(&found, &Mood::default()), None);
        found.metadata.labels.as_mut().unwrap().remove("type");
        let patch = healed(&found, &Mood::default()).unwrap();
        assert_eq!(patch["spec"]["unschedulable"], true);
        assert_eq!(patch["spec"]["taints"].as_array().unwrap().len(), 2);
        assert_eq!(patch["metadata"]["labels"]["type"], "virtual-kubelet");
    }

    #[test]
    fn an_arm_node_says_so_and_a_refused_profile_is_shown() {
        let mut facts = facts();
        facts.spec.architecture = Architecture::Arm64;
        let mood = Mood {
            profile_problem: Some("vpcId: no".into()),
            ..Mood::default()
        };
        let node = node(&facts, &mood, Timestamp::UNIX_EPOCH);
        assert_eq!(node.name_any(), "virtual-kubelet-cn-hangzhou-k-arm64");
        assert_eq!(node.labels()["kubernetes.io/arch"], "arm64");
        let capacity = node.status.as_ref().unwrap().capacity.as_ref();
        assert!(!capacity.unwrap().contains_key("nvidia.com/gpu"));
        let taints = node.spec.unwrap().taints.unwrap();
        assert_eq!(
            (taints[1].key.as_str(), taints[1].value.as_deref()),
            ("kubernetes.io/arch", Some("arm64"))
        );
        let conditions = node.status.unwrap().conditions.unwrap();
        let condition = conditions
            .iter()
            .find(|condition| condition.type_ == PROFILE_CONDITION)
            .unwrap();
        assert_eq!(
            (condition.status.as_str(), condition.message.as_deref()),
            ("False", Some("vpcId: no"))
        );
    }
}
