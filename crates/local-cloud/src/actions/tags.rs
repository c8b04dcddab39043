//! TagResources, UntagResources, ListTagResources, for everything that has tags.

use super::filter::{Filter, given, page};
use super::table::{self, Window};
use super::tokens::Token;
use super::{Call, validate};
use crate::gateway::refusal::Refusal;
use crate::state::State;
use crate::state::resources::{DataCacheRecord, ImageCacheRecord, Tagged, VirtualNodeRecord};
use cloud_api::model::tags::*;
use cloud_api::model::{EmptyResponse, Tag};
use jiff::Timestamp;
use std::sync::Arc;

const PAGE: u32 = 200;
/// Most resources in one call.
const MAX_RESOURCES: usize = 50;

/// Which resources are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Group,
    ImageCache,
    DataCache,
    VirtualNode,
}

impl Kind {
    fn parse(text: &str) -> Result<Self, Refusal> {
        match text.to_ascii_lowercase().as_str() {
            CONTAINER_GROUP => Ok(Self::Group),
            IMAGE_CACHE => Ok(Self::ImageCache),
            DATA_CACHE => Ok(Self::DataCache),
            VIRTUAL_NODE => Ok(Self::VirtualNode),
            _ => Err(Refusal::invalid(
                "ResourceType",
                format!(
                    "it must be {CONTAINER_GROUP}, {IMAGE_CACHE}, {DATA_CACHE} or {VIRTUAL_NODE}"
                ),
            )),
        }
    }

    /// The name on the wire.
    fn name(self) -> &'static str {
        match self {
            Self::Group => CONTAINER_GROUP,
            Self::ImageCache => IMAGE_CACHE,
            Self::DataCache => DATA_CACHE,
            Self::VirtualNode => VIRTUAL_NODE,
        }
    }

    /// The tags of a resource; `None` when there is no such resource.
    fn tags(self, state: &State, id: &str) -> Option<Vec<Tag>> {
        let tables = &state.resources;
        match self {
            Self::Group => Some(state.groups.get(id)?.request.tag.clone()),
            Self::ImageCache => Some(tables.image_caches.get(id)?.tags().clone()),
            Self::DataCache => Some(tables.data_caches.get(id)?.tags().clone()),
            Self::VirtualNode => Some(tables.virtual_nodes.get(id)?.tags().clone()),
        }
    }

    fn change(
        self,
        state: &mut State,
        id: &str,
        now: Timestamp,
        change: impl FnOnce(&mut Vec<Tag>),
    ) {
        match self {
            Self::Group => {
                state.change(id, now, |group| {
                    change(&mut Arc::make_mut(&mut group.request).tag)
                });
                state.mark_urgent(id);
            }
            Self::ImageCache => {
                state.change_row(id, |row: &mut ImageCacheRecord| change(row.tags_mut()));
            }
            Self::DataCache => {
                state.change_row(id, |row: &mut DataCacheRecord| change(row.tags_mut()));
            }
            Self::VirtualNode => {
                state.change_row(id, |row: &mut VirtualNodeRecord| change(row.tags_mut()));
            }
        }
    }
}

fn check(
    call: &Call<'_>,
    resource_type: &str,
    resources: &[String],
    optional: bool,
) -> Result<Kind, Refusal> {
    call.need(&["RegionId", "ResourceType"])?;
    let kind = Kind::parse(resource_type)?;
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
    let unknown = resources.iter().find(|id| kind.tags(&state, id).is_none());
    match unknown {
        Some(id) if !optional && kind == Kind::Group => Err(Refusal::no_group(id)),
        Some(id) if !optional => {
            let message = format!("The {} {id} does not exist.", kind.name());
            Err(Refusal::new(404, "InvalidParameter.NotFound", message))
        }
        _ => Ok(kind),
    }
}

pub(crate) async fn tag(
    call: &Call<'_>,
    request: TagResourcesRequest,
) -> Result<EmptyResponse, Refusal> {
    let kind = check(call, &request.resource_type, &request.resource_id, false)?;
    if request.tag.is_empty() {
        return Err(Refusal::missing("Tag.1.Key"));
    }
    validate::tags(&request.tag)?;
    let wanted = request.tag;
    table::once(call, None, |state, now| {
        // All or nothing: the bound is checked for every resource first.
        for id in &request.resource_id {
            let own = kind.tags(state, id).unwrap_or_default();
            let is_new = |tag: &&Tag| !own.iter().any(|own| own.key == tag.key);
            if own.len() + wanted.iter().filter(is_new).count() > validate::MAX_TAGS {
                let most = validate::MAX_TAGS;
                let rule = format!("{id} would have more than {most} tags");
                return Err(Refusal::invalid("Tag", rule));
            }
        }
        for id in &request.resource_id {
            kind.change(state, id, now, |tags| {
                tags.retain(|own| !wanted.iter().any(|tag| tag.key == own.key));
                tags.extend(wanted.iter().cloned());
            });
        }
        Ok(String::new())
    })
    .await?;
    Ok(EmptyResponse::default())
}

pub(crate) async fn untag(
    call: &Call<'_>,
    request: UntagResourcesRequest,
) -> Result<EmptyResponse, Refusal> {
    let token = Token::of(call, &request)?;
    let kind = check(call, &request.resource_type, &request.resource_id, false)?;
    let all = request.all.unwrap_or_default();
    if request.tag_key.is_empty() && !all {
        return Err(Refusal::missing("TagKey.1"));
    }
    table::once(call, token, |state, now| {
        for id in &request.resource_id {
            kind.change(state, id, now, |tags| {
                tags.retain(|tag| !all && !request.tag_key.contains(&tag.key));
            });
        }
        Ok(request.resource_id[0].clone())
    })
    .await?;
    Ok(EmptyResponse::default())
}

pub(crate) fn list(
    call: &Call<'_>,
    request: ListTagResourcesRequest,
) -> Result<ListTagResourcesResponse, Refusal> {
    let kind = check(call, &request.resource_type, &request.resource_id, true)?;
    let state = call.shared.state();
    let (tagged, next_token) = match kind {
        Kind::Group => groups(&state, &request)?,
        Kind::ImageCache => rows::<ImageCacheRecord>(&state, &request)?,
        Kind::DataCache => rows::<DataCacheRecord>(&state, &request)?,
        Kind::VirtualNode => rows::<VirtualNodeRecord>(&state, &request)?,
    };
    let tag_resources = tagged.into_iter().flat_map(|(id, tags)| {
        tags.into_iter().map(move |tag| TagResource {
            resource_id: id.clone(),
            resource_type: kind.name().to_owned(),
            tag_key: tag.key,
            tag_value: tag.value,
        })
    });
    Ok(ListTagResourcesResponse {
        tag_resources: tag_resources.collect(),
        next_token,
        ..Default::default()
    })
}

/// Ids with their tags, and where the next page begins.
type TaggedPage = (Vec<(String, Vec<Tag>)>, Option<String>);

fn groups(state: &State, request: &ListTagResourcesRequest) -> Result<TaggedPage, Refusal> {
    let filter = Filter {
        tags: &request.tag,
        most_ids: MAX_RESOURCES,
        ids: &request.resource_id,
        ..Default::default()
    };
    let token = given(&request.next_token);
    let page = page(&state.groups, &filter, request.limit, PAGE, token)?;
    let groups = page.groups.iter();
    let tagged = groups.map(|group| (group.id.clone(), super::describe::tags(group)));
    Ok((tagged.collect(), page.next_token))
}

fn rows<T: Tagged>(
    state: &State,
    request: &ListTagResourcesRequest,
) -> Result<TaggedPage, Refusal> {
    let window = Window {
        name: "Limit",
        limit: request.limit,
        default: PAGE,
        most: PAGE,
        next_token: request.next_token.as_deref(),
    };
    let page = table::page(state, &window, |id, row: &T| {
        let named = &request.resource_id;
        (named.is_empty() || named.iter().any(|known| known == id))
            && table::is_tagged(row, &request.tag)
    })?;
    let tagged = page
        .rows
        .into_iter()
        .map(|(id, row)| (id, row.tags().clone()));
    Ok((tagged.collect(), page.next_token))
}
