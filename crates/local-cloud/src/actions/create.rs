//! CreateContainerGroup: checked, placed, durable, answered, and only then begun.

use super::filter::given;
use super::market::{self, Offer};
use super::place::{self, Place};
use super::tokens::Token;
use super::{Call, eips, image_caches, terms, validate};
use crate::gateway::refusal::Refusal;
use crate::nas;
use crate::shared::Shared;
use crate::state::State;
use crate::state::record::{ContainerRecord, GroupRecord};
use crate::supervisor;
use cloud_api::model::GroupStatus;
use cloud_api::model::create::{
    ContainerSpec, CreateContainerGroupRequest, CreateContainerGroupResponse,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub(crate) async fn create(
    call: &Call<'_>,
    request: CreateContainerGroupRequest,
) -> Result<CreateContainerGroupResponse, Refusal> {
    call.need(&["RegionId", "ContainerGroupName"])?;
    let token = Token::of(call, &request)?;
    validate::check(&request)?;
    terms::check(&request, call.shared.backend.is_simulated())?;
    check_security_group(call, &request)?;
    let shared = call.shared;
    let offers = market::offers(&request, &shared.catalog, &shared.config.prices)?;
    if request.dry_run == Some(true) {
        place::named(&request, &shared.state())?;
        let message = "The request is sound; nothing was created because it asked for a dry run.";
        return Err(Refusal::new(400, "DryRunOperation", message));
    }
    let (container_group_id, version, is_new) = admit(call, request, offers, token)?;
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

/// A security group that a fault makes unfit.
fn check_misfit(
    request: &CreateContainerGroupRequest,
    shared: &Shared,
    state: &mut State,
) -> Result<(), Refusal> {
    let default = shared.config.security_groups.first();
    let id = given(&request.security_group_id).or(default.map(String::as_str));
    let id = id.unwrap_or_default().to_owned();
    if !state.is_misfit(&id, shared.now()) {
        return Ok(());
    }
    let message = format!("The security group {id} does not fit the vSwitch.");
    let code = "OperationDenied.SecurityGroupMisMatch";
    Err(Refusal::new(403, code, message))
}

/// Everything that has to happen as one step: the token, the place, the record. Answers with the version to wait for.
fn admit(
    call: &Call<'_>,
    mut request: CreateContainerGroupRequest,
    offers: Vec<Offer>,
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
    // Whatever can refuse comes before anything is taken.
    let hit = image_caches::wanted(&request, &state, now, shared.stage())?;
    let eip = eips::wanted(&request, &state)?;
    let simulated = shared.backend.is_simulated();
    let shares = nas::shares(&request, &state, &shared.config, simulated)?;
    check_misfit(&request, shared, &mut state)?;
    let place = place::take(&request, offers, shared, &mut state)?;
    if given(&request.security_group_id).is_none() {
        request.security_group_id = shared.config.security_groups.first().cloned();
    }
    if let Some(category) = place.offer.category {
        request.compute_category = vec![category.name().to_owned()];
    }
    let id = state.new_id();
    let mut group = record(call, id.clone(), request, place);
    group.shares = shares;
    group.doomed = state.is_doomed(&group.zone, now);
    group.eip = eips::bind(eip, &id, &mut state, now);
    note_rounding(&mut group, now);
    note_gpus(&mut group, now);
    image_caches::apply(hit, &mut group, &mut state, now);
    group.refresh_conditions(now);
    tracing::info!(group = %id, size = %group.size, "container group accepted");
    state.groups.insert(id.clone(), group);
    state.mark_urgent(&id);
    if let Some(token) = token {
        token.remember(&mut state, &id, now);
    }
    Ok((id, state.version, true))
}

/// The record of a group that has a place and nothing else yet.
fn record(
    call: &Call<'_>,
    id: String,
    request: CreateContainerGroupRequest,
    place: Place,
) -> GroupRecord {
    let shared = call.shared;
    let now = shared.now();
    GroupRecord {
        id,
        init_containers: fresh(&request.init_container),
        containers: fresh(&request.container),
        zone: place.zone,
        v_switch: place.v_switch,
        address: place.address,
        size: place.offer.size,
        per_second: place.per_second,
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
        machine: place.offer.machine,
        spot: place.spot,
        eip: None,
        cached_images: Vec::new(),
        shares: BTreeMap::new(),
        renewing: None,
        doomed: false,
        request: Arc::new(request),
    }
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

/// Nobody shall look for the devices in vain.
fn note_gpus(group: &mut GroupRecord, now: jiff::Timestamp) {
    let gpus = place::needed_gpus(&group.request);
    if gpus > 0 {
        let message = format!(
            "The {gpus} GPUs are billed but on paper: containers of this cloud get no devices."
        );
        group.note(true, "GpuOnPaper", message, now);
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
