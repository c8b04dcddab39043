//! TagResources, UntagResources, ListTagResources.

use super::filter::{Filter, given, page};
use super::tokens::Token;
use super::{Call, validate};
use crate::gateway::refusal::Refusal;
use cloud_api::model::EmptyResponse;
use cloud_api::model::tags::*;
use std::sync::Arc;

const PAGE: u32 = 200;
/// Most resources in one call.
const MAX_RESOURCES: usize = 50;

fn check(
    call: &Call<'_>,
    resource_type: &str,
    resources: &[String],
    optional: bool,
) -> Result<(), Refusal> {
    call.need(&["RegionId", "ResourceType"])?;
    if !resource_type.eq_ignore_ascii_case(CONTAINER_GROUP) {
        return Err(Refusal::invalid(
            "ResourceType",
            format!("it must be {CONTAINER_GROUP}"),
        ));
    }
    if resources.is_empty() && !optional {
        return Err(Refusal::missing("ResourceId.1"));
    }
    if resources.len() > MAX_RESOURCES {
        return Err(Refusal::invalid(
            "ResourceId",
            format!("at most {MAX_RESOURCES} are allowed"),
        ));
    }
    let state = call.shared.state();
    let unknown = resources.iter().find(|id| !state.groups.contains_key(*id));
    match unknown {
        Some(id) if !optional => Err(Refusal::no_group(id)),
        _ => Ok(()),
    }
}

pub(crate) async fn tag(
    call: &Call<'_>,
    request: TagResourcesRequest,
) -> Result<EmptyResponse, Refusal> {
    check(call, &request.resource_type, &request.resource_id, false)?;
    if request.tag.is_empty() {
        return Err(Refusal::missing("Tag.1.Key"));
    }
    validate::tags(&request.tag)?;
    let now = call.shared.now();
    let version = {
        let mut state = call.shared.state();
        // All or nothing: the bound is checked for every group first.
        for id in &request.resource_id {
            let own = state
                .groups
                .get(id)
                .map(|group| group.request.tag.as_slice())
                .unwrap_or_default();
            let new = request
                .tag
                .iter()
                .filter(|tag| !own.iter().any(|own| own.key == tag.key))
                .count();
            if own.len() + new > validate::MAX_TAGS {
                let rule = format!(
                    "group {id} would have more than {} tags",
                    validate::MAX_TAGS
                );
                return Err(Refusal::invalid("Tag", rule));
            }
        }
        for id in &request.resource_id {
            state.change(id, now, |group| {
                let tags = &mut Arc::make_mut(&mut group.request).tag;
                tags.retain(|own| !request.tag.iter().any(|tag| tag.key == own.key));
                tags.extend(request.tag.iter().cloned());
            });
            state.mark_urgent(id);
        }
        state.version
    };
    call.shared.durable(version).await?;
    Ok(EmptyResponse::default())
}

pub(crate) async fn untag(
    call: &Call<'_>,
    request: UntagResourcesRequest,
) -> Result<EmptyResponse, Refusal> {
    let token = Token::of(call, &request)?;
    check(call, &request.resource_type, &request.resource_id, false)?;
    let all = request.all.unwrap_or_default();
    if request.tag_key.is_empty() && !all {
        return Err(Refusal::missing("TagKey.1"));
    }
    let now = call.shared.now();
    let version = {
        let mut state = call.shared.state();
        let repeated = token
            .as_ref()
            .map(|token| token.look_up(&state))
            .transpose()?
            .flatten()
            .is_some();
        if !repeated {
            for id in &request.resource_id {
                state.change(id, now, |group| {
                    let tags = &mut Arc::make_mut(&mut group.request).tag;
                    tags.retain(|tag| !all && !request.tag_key.contains(&tag.key));
                });
                state.mark_urgent(id);
            }
            if let Some(token) = token {
                token.remember(&mut state, &request.resource_id[0], now);
            }
        }
        state.version
    };
    call.shared.durable(version).await?;
    Ok(EmptyResponse::default())
}

pub(crate) fn list(
    call: &Call<'_>,
    request: ListTagResourcesRequest,
) -> Result<ListTagResourcesResponse, Refusal> {
    check(call, &request.resource_type, &request.resource_id, true)?;
    let filter = Filter {
        ids: &request.resource_id,
        tags: &request.tag,
        ..Default::default()
    };
    let state = call.shared.state();
    let page = page(
        &state.groups,
        &filter,
        request.limit,
        PAGE,
        given(&request.next_token),
    )?;
    let tags = page.groups.iter().flat_map(|group| {
        super::describe::tags(group)
            .into_iter()
            .map(|tag| TagResource {
                resource_id: group.id.clone(),
                resource_type: CONTAINER_GROUP.to_owned(),
                tag_key: tag.key,
                tag_value: tag.value,
            })
    });
    Ok(ListTagResourcesResponse {
        tag_resources: tags.collect(),
        next_token: page.next_token,
        ..Default::default()
    })
}
