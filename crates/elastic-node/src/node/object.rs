//! What a virtual node shows of itself. Pure.

use std::net::IpAddr;

use elastic_core::names::{
    NODE_TYPE_LABEL, NODE_TYPE_VIRTUAL, PROVIDER_TAINT_KEY, PROVIDER_TAINT_VALUE, ZONE_LABEL,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::config::{Capacity, node_name};

/// What the object depends on.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    pub(crate) zone: String,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) capacity: Capacity,
    pub(crate) kubelet_version: String,
}

/// The whole object as it is created.
pub(crate) fn node(facts: &NodeFacts, now: Timestamp) -> Node {
    let name = node_name(&facts.zone);
    let mut node: Node = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {
                NODE_TYPE_LABEL: NODE_TYPE_VIRTUAL,
                "kubernetes.io/role": "agent",
                "node-role.kubernetes.io/agent": "",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux",
                "alpha.service-controller.kubernetes.io/exclude-balancer": "true",
                "node.kubernetes.io/exclude-from-external-load-balancers": "true",
                ZONE_LABEL: facts.zone,
            }
        },
        "spec": {"taints": [{"key": PROVIDER_TAINT_KEY, "value": PROVIDER_TAINT_VALUE, "effect": "NoSchedule"}]}
    }))
    .expect("the literal above has the shape of a Node, which a test holds");
    node.status = Some(status(facts, &[], now));
    node
}

/// The status at `now`; conditions keep their transition times when they did not change.
pub(crate) fn status(
    facts: &NodeFacts,
    before: &[NodeCondition],
    now: Timestamp,
) -> k8s_openapi::api::core::v1::NodeStatus {
    let amounts = json!({
        "cpu": facts.capacity.cpu,
        "memory": facts.capacity.memory,
        "ephemeral-storage": facts.capacity.ephemeral_storage,
        "pods": facts.capacity.pods.to_string(),
    });
    let mut status: k8s_openapi::api::core::v1::NodeStatus = serde_json::from_value(json!({
        "capacity": amounts,
        "allocatable": amounts,
        "phase": "Running",
        "addresses": [
            {"type": "InternalIP", "address": facts.address.to_string()},
            {"type": "Hostname", "address": node_name(&facts.zone)}
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.port}},
        "nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": facts.kubelet_version,
            "kubeProxyVersion": "", "bootID": "", "machineID": "", "systemUUID": "", "kernelVersion": "",
            "osImage": "", "containerRuntimeVersion": "eci://2018-08-08"
        }
    }))
    .expect("the literal above has the shape of a NodeStatus, which a test holds");
    status.conditions = Some(conditions(before, now));
    status
}

fn conditions(before: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
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
                message: Some(message.to_owned()),
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
            zone: "cn-hangzhou-k".into(),
            address: "10.10.0.101".parse().unwrap(),
            port: 10250,
            capacity: Capacity::default(),
            kubelet_version: "v1.34.0-springtide".into(),
        }
    }

    #[test]
    fn the_node_looks_as_users_know_it() {
        let node = node(&facts(), Timestamp::UNIX_EPOCH);
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
        assert_eq!(status.conditions.unwrap().len(), 5);
    }

    #[test]
    fn a_heartbeat_moves_only_the_heartbeat() {
        let first = status(&facts(), &[], Timestamp::UNIX_EPOCH)
            .conditions
            .unwrap();
        let later = Timestamp::from_second(100).unwrap();
        let second = status(&facts(), &first, later).conditions.unwrap();
        assert_eq!(
            second[0].last_transition_time,
            first[0].last_transition_time
        );
        assert_eq!(second[0].last_heartbeat_time, Some(Time(later)));
    }
}
