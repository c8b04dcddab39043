//! CreateContainerGroup: checked, placed, durable, answered, and only then begun.

use super::filter::given;
use super::tokens::Token;
use super::{Call, place, validate};
use crate::gateway::refusal::Refusal;
use crate::state::record::{ContainerRecord, GroupRecord};
use crate::supervisor;
use cloud_api::catalog::Size;
use cloud_api::model::GroupStatus;
use cloud_api::model::create::{
    ContainerSpec, CreateContainerGroupRequest, CreateContainerGroupResponse,
};
use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) async fn create(
    call: &Call<'_>,
    request: CreateContainerGroupRequest,
) -> Result<CreateContainerGroupResponse, Refusal> {
    call.need(&["RegionId", "ContainerGroupName"])?;
    let token = Token::of(call, &request)?;
    validate::check(&request)?;
    check_security_group(call, &request)?;
    let size = place::size(&request, &call.shared.catalog)?;
    if request.dry_run == Some(true) {
        let message = "The request is sound; nothing was created because it asked for a dry run.";
        return Err(Refusal::new(400, "DryRunOperation", message));
    }
    let (container_group_id, version, is_new) = admit(call, request, size, token)?;
    // An answer means that it has survived, and nothing runs that has not.
    call.shared.durable(version).await?;
    if is_new {
        supervisor::spawn(call.shared, &container_group_id);
    }
    Ok(CreateContainerGroupResponse {
        container_group_id,
        ..Default::default()
    })
}

fn check_security_group(
    call: &Call<'_>,
    request: &CreateContainerGroupRequest,
) -> Result<(), Refusal> {
    let known = &call.shared.config.security_groups;
    match given(&request.security_group_id) {
        Some(id) if !known.iter().any(|known| known == id) => {
            let message = format!("The security group {id} does not exist.");
            Err(Refusal::new(
                404,
                "InvalidSecurityGroupId.NotFound",
                message,
            ))
        }
        _ => Ok(()),
    }
}

/// Everything that has to happen as one step: the token, the place, the record. Answers with the version to wait for.
fn admit(
    call: &Call<'_>,
    mut request: CreateContainerGroupRequest,
    size: Size,
    token: Option<Token>,
) -> Result<(String, u64, bool), Refusal> {
    let shared = call.shared;
    let now = shared.now();
    let mut state = shared.state();
    if let Some(known) = token
        .as_ref()
        .map(|token| token.look_up(&state))
        .transpose()?
        .flatten()
    {
        return Ok((known, state.version, false));
    }
    let place = place::take(&request, size, shared.config.quota_vcpu, &mut state)?;
    if given(&request.security_group_id).is_none() {
        request.security_group_id = shared.config.security_groups.first().cloned();
    }
    let extra_gib = request
        .ephemeral_storage
        .and_then(|gib| u64::try_from(gib).ok())
        .unwrap_or_default();
    let economy = request
        .compute_category
        .first()
        .is_some_and(|category| category == "economy");
    let id = state.new_id();
    let mut group = GroupRecord {
        id: id.clone(),
        init_containers: fresh(&request.init_container),
        containers: fresh(&request.container),
        zone: place.zone,
        v_switch: place.v_switch,
        address: place.address,
        size,
        per_second: shared.config.prices.per_second(size, economy, extra_gib),
        simulated: shared.backend.is_simulated(),
        status: GroupStatus::Scheduling,
        created_at: now,
        changed_at: now,
        billed_from: None,
        billed_until: None,
        events: VecDeque::new(),
        conditions: Vec::new(),
        deleting: false,
        generation: 0,
        applied_generation: 0,
        holds_resources: true,
        request: Arc::new(request),
    };
    note_rounding(&mut group, now);
    group.refresh_conditions(now);
    state.groups.insert(id.clone(), group);
    state.mark_urgent(&id);
    if let Some(token) = token {
        token.remember(&mut state, &id, now);
    }
    tracing::info!(group = %id, %size, "container group accepted");
    Ok((id, state.version, true))
}

fn note_rounding(group: &mut GroupRecord, now: jiff::Timestamp) {
    let asked = (group.request.cpu, group.request.memory);
    let rounded = asked.0.is_some_and(|cpu| cpu < group.size.vcpu())
        || asked
            .1
            .is_some_and(|memory| memory < group.size.memory_gib());
    if rounded {
        let message = format!("The size was rounded up to {}.", group.size);
        group.note(false, "AutoInstanceTypeMatch", message, now);
    }
}

/// The containers before their first run.
pub(super) fn fresh(specs: &[ContainerSpec]) -> Vec<ContainerRecord> {
    specs
        .iter()
        .map(|spec| ContainerRecord {
            name: spec.name.clone(),
            ..Default::default()
        })
        .collect()
}
