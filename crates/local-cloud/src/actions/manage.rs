//! DeleteContainerGroup, RestartContainerGroup, UpdateContainerGroup.

use super::create::fresh;
use super::filter::MAX_IDS;
use super::tokens::Token;
use super::{Call, table, terms, validate};
use crate::gateway::refusal::Refusal;
use crate::shared::ask_to_delete;
use crate::state::State;
use crate::state::record::{ContainerRecord, GroupRecord};
use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest, VolumeSpec};
use cloud_api::model::manage::*;
use cloud_api::model::{EmptyResponse, GroupStatus};
use std::sync::Arc;

const NAMED: [&str; 2] = ["RegionId", "ContainerGroupId"];

pub(crate) async fn delete(
    call: &Call<'_>,
    request: DeleteContainerGroupRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&NAMED)?;
    let token = Token::of(call, &request)?;
    let version = {
        let mut state = call.shared.state();
        if !is_repeated(&token, &state)? {
            if !state.groups.contains_key(&request.container_group_id) {
                return Err(Refusal::no_group(&request.container_group_id));
            }
            ask_to_delete(&mut state, &request.container_group_id);
            remember(token, &mut state, &request.container_group_id, call);
        }
        state.version
    };
    call.shared.durable(version).await?;
    Ok(EmptyResponse::default())
}

/// Only the old SDK has it: all of them, or none when one is not there.
pub(crate) async fn delete_many(
    call: &Call<'_>,
    request: DeleteContainerGroupsRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&["RegionId", "ContainerGroupIds"])?;
    let ids = &request.container_group_ids;
    if ids.is_empty() || ids.len() > MAX_IDS {
        let rule = format!("there must be 1 to {MAX_IDS} ids");
        return Err(Refusal::invalid("ContainerGroupIds", rule));
    }
    let token = Token::of(call, &request)?;
    table::once(call, token, |state, _| {
        if let Some(unknown) = ids.iter().find(|id| !state.groups.contains_key(*id)) {
            return Err(Refusal::no_group(unknown));
        }
        ids.iter().for_each(|id| ask_to_delete(state, id));
        Ok(ids[0].clone())
    })
    .await?;
    Ok(EmptyResponse::default())
}

/// There are no cloud disks, so no volume can be the right one.
pub(crate) fn resize_volume(
    call: &Call<'_>,
    request: &ResizeContainerGroupVolumeRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&["RegionId", "ContainerGroupId", "VolumeName", "NewSize"])?;
    let id = &request.container_group_id;
    let state = call.shared.state();
    let group = state.groups.get(id).ok_or_else(|| Refusal::no_group(id))?;
    let name = &request.volume_name;
    if !group
        .request
        .volume
        .iter()
        .any(|volume| volume.name == *name)
    {
        let rule = format!("group {id} has no volume {name}");
        return Err(Refusal::invalid("VolumeName", rule));
    }
    let message = format!("Volume {name} of group {id} is no cloud disk.");
    Err(Refusal::new(403, "InvalidVolumeType", message))
}

/// More scratch space, at its price from now on: a bill has one price, so a group that runs keeps its own.
pub(crate) fn resize_storage(
    call: &Call<'_>,
    request: &ResizeContainerGroupEphemeralStorageRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&["RegionId", "ContainerGroupId", "NewSize"])?;
    let id = &request.container_group_id;
    let state = call.shared.state();
    state.groups.get(id).ok_or_else(|| Refusal::no_group(id))?;
    let reason = "the scratch space of a group stays as it was created";
    Err(Refusal::unsupported("NewSize", reason))
}

fn is_repeated(token: &Option<Token>, state: &State) -> Result<bool, Refusal> {
    Ok(token
        .as_ref()
        .map(|token| token.look_up(state))
        .transpose()?
        .flatten()
        .is_some())
}

fn remember(token: Option<Token>, state: &mut State, group_id: &str, call: &Call<'_>) {
    if let Some(token) = token {
        token.remember(state, group_id, call.shared.now());
    }
}

pub(crate) async fn restart(
    call: &Call<'_>,
    request: RestartContainerGroupRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&NAMED)?;
    let token = Token::of(call, &request)?;
    renew(call, token, &request.container_group_id, |group| {
        group.status = GroupStatus::Restarting;
        group.renewing = None;
        Ok(())
    })
    .await
}

pub(crate) async fn update(
    call: &Call<'_>,
    request: UpdateContainerGroupRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&NAMED)?;
    let id = request.container_group_id.clone();
    if !call.shared.state().groups.contains_key(&id) {
        let message = format!("The parameter \"ContainerGroupId\" names no container group: {id}.");
        return Err(Refusal::new(404, "InvalidParameter.NotFound", message));
    }
    if request.cpu.is_some() || request.memory.is_some() {
        return Err(Refusal::unsupported(
            "Cpu",
            "the size of a group stays as it was created",
        ));
    }
    let whole = match request.update_type.as_deref() {
        None | Some("" | "RenewUpdate") => true,
        Some("IncrementalUpdate") => false,
        Some(_) => {
            return Err(Refusal::invalid(
                "UpdateType",
                "it must be RenewUpdate or IncrementalUpdate",
            ));
        }
    };
    let token = Token::of(call, &request)?;
    let simulated = call.shared.backend.is_simulated();
    renew(call, token, &id, |group| {
        let next = apply(&group.request, request, whole);
        validate::check(&next)?;
        terms::check(&next, simulated)?;
        same_names("Container", &group.request.container, &next.container)?;
        same_names(
            "InitContainer",
            &group.request.init_container,
            &next.init_container,
        )?;
        if next == *group.request {
            return Err(Refusal::no_need_update());
        }
        group.renewing = concerned(&group.request, &next);
        group.containers = carried_over(&group.containers, &next.container);
        group.init_containers = carried_over(&group.init_containers, &next.init_container);
        group.request = Arc::new(next);
        group.status = GroupStatus::Updating;
        Ok(())
    })
    .await
}

/// The request as it stands after the update.
fn apply(
    before: &CreateContainerGroupRequest,
    update: UpdateContainerGroupRequest,
    whole: bool,
) -> CreateContainerGroupRequest {
    let mut next = before.clone();
    // Lists are replaced as a whole; what is not given goes in a full update and stays in an incremental one.
    // Containers cannot be left out: a group has at least one.
    if !update.container.is_empty() {
        next.container = update.container;
    }
    if whole || !update.init_container.is_empty() {
        next.init_container = update.init_container;
    }
    if whole || !update.volume.is_empty() {
        next.volume = update.volume;
    }
    if whole || !update.image_registry_credential.is_empty() {
        next.image_registry_credential = update.image_registry_credential;
    }
    if whole || !update.acr_registry_info.is_empty() {
        next.acr_registry_info = update.acr_registry_info;
    }
    if update.resource_group_id.is_some() {
        next.resource_group_id = update.resource_group_id;
    }
    if whole || update.dns_config.is_some() {
        next.dns_config = update.dns_config;
    }
    if !update.tag.is_empty() {
        next.tag = update.tag;
    }
    if update.restart_policy.is_some() {
        next.restart_policy = update.restart_policy;
    }
    next
}

/// The containers that an update starts anew: those that look different now. All of them when something changes
/// that they share; new content of configuration files is only written where they read it.
fn concerned(
    before: &CreateContainerGroupRequest,
    next: &CreateContainerGroupRequest,
) -> Option<Vec<String>> {
    let shared_stays = before.init_container == next.init_container
        && places(&before.volume) == places(&next.volume)
        && before.dns_config == next.dns_config;
    let pairs = before.container.iter().zip(&next.container);
    let changed = pairs.filter(|(old, new)| old != new);
    shared_stays.then(|| changed.map(|(_, new)| new.name.clone()).collect())
}

/// Volumes without what is written in configuration files.
fn places(volumes: &[VolumeSpec]) -> Vec<VolumeSpec> {
    let mut volumes = volumes.to_vec();
    for files in volumes
        .iter_mut()
        .filter_map(|volume| volume.config_file_volume.as_mut())
    {
        files.config_file_to_path.clear();
    }
    volumes
}

/// An update changes containers; it neither adds nor removes any.
fn same_names(
    parameter: &str,
    before: &[ContainerSpec],
    after: &[ContainerSpec],
) -> Result<(), Refusal> {
    let names = |specs: &[ContainerSpec]| {
        specs
            .iter()
            .map(|spec| spec.name.clone())
            .collect::<Vec<_>>()
    };
    if names(before) == names(after) {
        return Ok(());
    }
    Err(Refusal::unsupported(
        parameter,
        "an update must name the same containers in the same order",
    ))
}

/// Containers that stay keep their numbers, so that no run's number is used twice.
fn carried_over(before: &[ContainerRecord], specs: &[ContainerSpec]) -> Vec<ContainerRecord> {
    let mut next = fresh(specs);
    for container in &mut next {
        if let Some(known) = before.iter().find(|known| known.name == container.name) {
            *container = known.clone();
        }
    }
    next
}

/// Raises the generation, which the group's supervisor carries out.
async fn renew(
    call: &Call<'_>,
    token: Option<Token>,
    id: &str,
    change: impl FnOnce(&mut GroupRecord) -> Result<(), Refusal>,
) -> Result<EmptyResponse, Refusal> {
    let version = {
        let now = call.shared.now();
        let mut state = call.shared.state();
        if !is_repeated(&token, &state)? {
            let group = state.groups.get(id).ok_or_else(|| Refusal::no_group(id))?;
            if !matches!(group.status, GroupStatus::Pending | GroupStatus::Running)
                || group.deleting
            {
                return Err(Refusal::wrong_status(
                    id,
                    group.status.as_str(),
                    "Pending or Running",
                ));
            }
            let generation = group.generation + 1;
            let changed = state.change(id, now, |group| {
                change(group)?;
                group.generation = generation;
                Ok::<(), Refusal>(())
            });
            changed.unwrap_or(Ok(()))?;
            state.mark_urgent(id);
            if let Some(wanted) = state.wanted.get(id) {
                wanted.send_modify(|wanted| wanted.generation = generation);
            }
            remember(token, &mut state, id, call);
        }
        state.version
    };
    call.shared.durable(version).await?;
    Ok(EmptyResponse::default())
}
