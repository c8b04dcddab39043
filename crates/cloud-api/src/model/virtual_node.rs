//! The service's own virtual nodes. Springtide's virtual node does not use them.

use super::describe::{GroupEvent, Tag};
use super::{EmptyResponse, action, json_list, wire};

wire! {
    /// Asks for a new virtual node.
    pub struct CreateVirtualNodeRequest {
        /// The region.
        pub region_id: String,
        /// The zone.
        pub zone_id: Option<String>,
        /// The vSwitch.
        pub v_switch_id: String,
        /// The security group.
        pub security_group_id: String,
        /// The name.
        pub virtual_node_name: Option<String>,
        /// Base64 of a kubeconfig.
        pub kube_config: Option<String>,
        /// A public address that exists.
        pub eip_instance_id: Option<String>,
        /// Make a public address.
        pub enable_public_network: Option<bool>,
        /// The cluster's name server.
        #[serde(rename = "ClusterDNS")]
        pub cluster_dns: Option<String>,
        /// The cluster's domain.
        pub cluster_domain: Option<String>,
        /// What else the node offers.
        pub custom_resources: Option<String>,
        /// Let the node ask for its certificate.
        pub tls_bootstrap_enabled: Option<bool>,
        /// Taints of the node.
        pub taint: Vec<VirtualNodeTaint>,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// Up to 20 tags.
        pub tag: Vec<Tag>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// A taint of a node.
    pub struct VirtualNodeTaint {
        /// The key.
        pub key: String,
        /// The value.
        pub value: Option<String>,
        /// `NoSchedule` and others.
        pub effect: Option<String>,
    }

    /// The new virtual node.
    pub struct CreateVirtualNodeResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// `vnd-…`.
        pub virtual_node_id: String,
    }

    /// Changes a virtual node.
    pub struct UpdateVirtualNodeRequest {
        /// The region.
        pub region_id: String,
        /// The node.
        pub virtual_node_id: String,
        /// The name.
        pub virtual_node_name: Option<String>,
        /// The cluster's name server.
        #[serde(rename = "ClusterDNS")]
        pub cluster_dns: Option<String>,
        /// The cluster's domain.
        pub cluster_domain: Option<String>,
        /// What else the node offers.
        pub custom_resources: Option<String>,
        /// The tags.
        pub tag: Vec<Tag>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Asks for virtual nodes; filters are joined by and.
    pub struct DescribeVirtualNodesRequest {
        /// The region.
        pub region_id: String,
        /// Only these, at most 20.
        #[serde(with = "json_list")]
        pub virtual_node_ids: Vec<String>,
        /// Only this name.
        pub virtual_node_name: Option<String>,
        /// `Pending`, `Ready`, `Failed`.
        pub status: Option<String>,
        /// Only this resource group.
        pub resource_group_id: Option<String>,
        /// Only nodes that carry all of these tags.
        pub tag: Vec<Tag>,
        /// Page size, at most 20.
        pub limit: Option<u32>,
        /// Where the page before ended.
        pub next_token: Option<String>,
    }

    /// One page of virtual nodes.
    pub struct DescribeVirtualNodesResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The nodes.
        pub virtual_nodes: Vec<VirtualNode>,
        /// Present while more pages follow.
        pub next_token: Option<String>,
        /// Matching nodes over all pages.
        pub total_count: u32,
    }

    /// A virtual node as it stands.
    pub struct VirtualNode {
        /// `vnd-…`.
        pub virtual_node_id: String,
        /// The name given.
        pub virtual_node_name: String,
        /// `Pending`, `Ready`, `Failed`.
        pub status: String,
        /// The region.
        pub region_id: String,
        /// The network.
        pub vpc_id: String,
        /// The vSwitch.
        pub virtual_node_v_switch_id: String,
        /// The security group.
        pub virtual_node_security_group_id: String,
        /// Its address in the network.
        pub intranet_ip: Option<String>,
        /// Its public address.
        pub internet_ip: Option<String>,
        /// When it was asked for.
        pub creation_time: String,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// What happened to it.
        pub events: Vec<GroupEvent>,
        /// Its tags.
        pub tags: Vec<Tag>,
    }

    /// Deletes a virtual node.
    pub struct DeleteVirtualNodeRequest {
        /// The region.
        pub region_id: String,
        /// The node.
        pub virtual_node_id: String,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }
}

action!(CreateVirtualNodeRequest => CreateVirtualNodeResponse, "CreateVirtualNode", write);
action!(UpdateVirtualNodeRequest => EmptyResponse, "UpdateVirtualNode", write);
action!(DescribeVirtualNodesRequest => DescribeVirtualNodesResponse, "DescribeVirtualNodes", read);
action!(DeleteVirtualNodeRequest => EmptyResponse, "DeleteVirtualNode", write);
