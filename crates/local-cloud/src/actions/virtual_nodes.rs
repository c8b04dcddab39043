//! The service's own virtual nodes, on paper: they come, are listed and go, and no kubelet is behind them.

use super::eips;
use super::filter::{MAX_IDS, given};
use super::table::{self, Window, event, is, is_tagged};
use super::tokens::Token;
use super::{Call, validate};
use crate::gateway::refusal::Refusal;
use crate::state::State;
use crate::state::resources::{EipRecord, Stage, VirtualNodeRecord, stage};
use cloud_api::model::EmptyResponse;
use cloud_api::model::virtual_node::*;
use cloud_api::time;

/// Most virtual nodes.
const MAX_NODES: usize = 100;
const PAGE: u32 = 20;

pub(crate) async fn create(
    call: &Call<'_>,
    request: CreateVirtualNodeRequest,
) -> Result<CreateVirtualNodeResponse, Refusal> {
    call.need(&["RegionId", "VSwitchId", "SecurityGroupId"])?;
    validate::tags(&request.tag)?;
    if !call
        .shared
        .config
        .security_groups
        .contains(&request.security_group_id)
    {
        let message = format!(
            "The security group {} does not exist.",
            request.security_group_id
        );
        return Err(Refusal::new(
            404,
            "InvalidSecurityGroupId.NotFound",
            message,
        ));
    }
    let token = Token::of(call, &request)?;
    let virtual_node_id = table::once(call, token, |state, now| {
        if state.resources.virtual_nodes.len() >= MAX_NODES {
            let message = format!("There may be at most {MAX_NODES} virtual nodes.");
            return Err(Refusal::new(403, "QuotaExceeded", message));
        }
        let eip = match given(&request.eip_instance_id) {
            Some(id) => eips::known(id, state)?,
            None if request.enable_public_network == Some(true) => eips::new(5, state)?,
            None => eips::Wanted::Nothing,
        };
        let Some(v_switch) = state.pools.v_switch(&request.v_switch_id) else {
            let message = format!("The vSwitch {} does not exist.", request.v_switch_id);
            return Err(Refusal::new(404, "InvalidVSwitchId.NotFound", message));
        };
        let zone = v_switch.config.zone.clone();
        let Some(address) = v_switch.addresses.take() else {
            let message = format!("There is no free address in {}.", request.v_switch_id);
            return Err(Refusal::new(403, "InvalidVSwitchId.IpNotEnough", message));
        };
        let id = state.random_id("vnd-");
        let eip = eips::bind(eip, &id, state, now).map(|(eip, _)| eip);
        let node = VirtualNodeRecord {
            request,
            address,
            zone,
            eip,
            created_at: now,
        };
        state.put(&id, node);
        Ok(id)
    })
    .await?;
    Ok(CreateVirtualNodeResponse {
        virtual_node_id,
        ..Default::default()
    })
}

fn find<'a>(state: &'a State, id: &str) -> Result<&'a VirtualNodeRecord, Refusal> {
    table::find(state, "virtual node", id)
}

pub(crate) async fn update(
    call: &Call<'_>,
    request: UpdateVirtualNodeRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&["RegionId", "VirtualNodeId"])?;
    validate::tags(&request.tag)?;
    let token = Token::of(call, &request)?;
    table::once(call, token, |state, _| {
        let id = request.virtual_node_id.clone();
        let mut node = find(state, &id)?.clone();
        let own = &mut node.request;
        own.virtual_node_name = request.virtual_node_name.or(own.virtual_node_name.take());
        own.cluster_dns = request.cluster_dns.or(own.cluster_dns.take());
        own.cluster_domain = request.cluster_domain.or(own.cluster_domain.take());
        own.custom_resources = request.custom_resources.or(own.custom_resources.take());
        if !request.tag.is_empty() {
            own.tag = request.tag;
        }
        state.put(&id, node);
        Ok(id)
    })
    .await?;
    Ok(EmptyResponse::default())
}

pub(crate) async fn delete(
    call: &Call<'_>,
    request: DeleteVirtualNodeRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&["RegionId", "VirtualNodeId"])?;
    let token = Token::of(call, &request)?;
    table::once(call, token, |state, _| {
        let id = request.virtual_node_id;
        find(state, &id)?;
        if let Some(node) = state.take_row::<VirtualNodeRecord>(&id) {
            state
                .pools
                .give_back_address(&node.request.v_switch_id, node.address);
            if let Some(eip) = node.eip {
                state.release_eip(&eip);
            }
        }
        Ok(id)
    })
    .await?;
    Ok(EmptyResponse::default())
}

pub(crate) fn describe(
    call: &Call<'_>,
    request: &DescribeVirtualNodesRequest,
) -> Result<DescribeVirtualNodesResponse, Refusal> {
    call.need(&["RegionId"])?;
    if request.virtual_node_ids.len() > MAX_IDS {
        return Err(Refusal::invalid(
            "VirtualNodeIds",
            format!("at most {MAX_IDS} ids are allowed"),
        ));
    }
    let window = Window {
        name: "Limit",
        limit: request.limit,
        default: PAGE,
        most: PAGE,
        next_token: request.next_token.as_deref(),
    };
    let (now, length) = (call.shared.now(), call.shared.stage());
    let status = |node: &VirtualNodeRecord| match stage(node.created_at, None, now, length) {
        Stage::First => "Pending",
        _ => "Ready",
    };
    let state = call.shared.state();
    let page = table::page(&state, &window, |id, node: &VirtualNodeRecord| {
        let own = &node.request;
        (request.virtual_node_ids.is_empty()
            || request.virtual_node_ids.iter().any(|known| known == id))
            && is(
                &request.virtual_node_name,
                own.virtual_node_name.as_deref().unwrap_or_default(),
            )
            && is(&request.status, status(node))
            && is(
                &request.resource_group_id,
                own.resource_group_id.as_deref().unwrap_or_default(),
            )
            && is_tagged(node, &request.tag)
    })?;
    let public = |eip: &Option<String>| {
        let eip: Option<&EipRecord> = state.resources.eips.get(eip.as_ref()?);
        eip.map(|eip| eip.address.to_string())
    };
    let nodes = page.rows.into_iter().map(|(id, node)| VirtualNode {
        virtual_node_id: id,
        status: status(&node).to_owned(),
        region_id: call.shared.config.region.clone(),
        vpc_id: call.shared.config.vpc_id.clone(),
        intranet_ip: Some(node.address.to_string()),
        internet_ip: public(&node.eip),
        creation_time: time::format(node.created_at),
        events: vec![event(
            "Created",
            format!("Virtual node in {}.", node.zone),
            node.created_at,
        )],
        virtual_node_name: node.request.virtual_node_name.unwrap_or_default(),
        virtual_node_v_switch_id: node.request.v_switch_id,
        virtual_node_security_group_id: node.request.security_group_id,
        resource_group_id: node.request.resource_group_id,
        tags: node.request.tag,
    });
    Ok(DescribeVirtualNodesResponse {
        virtual_nodes: nodes.collect(),
        next_token: page.next_token,
        total_count: page.total_count,
        ..Default::default()
    })
}
