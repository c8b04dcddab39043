//! Image caches: made, looked up, changed, deleted; and which one a group starts from.

use super::filter::given;
use super::table::{self, TablePage, Window, event, is, is_tagged};
use super::tokens::Token;
use super::{Call, validate};
use crate::gateway::refusal::Refusal;
use crate::state::State;
use crate::state::record::GroupRecord;
use crate::state::resources::{ImageCacheRecord, Stage, stage};
use cloud_api::model::EmptyResponse;
use cloud_api::model::create::CreateContainerGroupRequest;
use cloud_api::model::image_cache::*;
use cloud_api::time;
use jiff::{SignedDuration, Timestamp};

/// Most image caches that somebody asked for.
pub(super) const MAX_CACHES: usize = 200;
/// Most that were made because a group wanted one.
pub(super) const MAX_AUTOMATIC: usize = 200;
const MAX_IMAGES: usize = 20;
const MAX_MATCH_IMAGES: usize = 100;
const PAGE: u32 = 20;
const LARGEST_PAGE: u32 = 50;
const DEFAULT_GIB: i64 = 20;
const LARGEST_GIB: i64 = 32_768;

pub(crate) async fn create(
    call: &Call<'_>,
    request: CreateImageCacheRequest,
) -> Result<CreateImageCacheResponse, Refusal> {
    call.need(&["RegionId", "ImageCacheName", "Image.1"])?;
    check(
        &request.image,
        request.image_cache_size,
        &request.elimination_strategy,
    )?;
    validate::tags(&request.tag)?;
    let token = Token::of(call, &request)?;
    let image_cache_id = table::once(call, token, |state, now| {
        if count(state, false) >= MAX_CACHES {
            let message = format!("There may be at most {MAX_CACHES} image caches.");
            return Err(Refusal::new(403, "QuotaExceeded", message));
        }
        Ok(insert(request, false, state, now))
    })
    .await?;
    let state = call.shared.state();
    let group = state.resources.image_caches.get(&image_cache_id);
    Ok(CreateImageCacheResponse {
        container_group_id: group
            .map(|cache| cache.group_id.clone())
            .unwrap_or_default(),
        image_cache_id,
        ..Default::default()
    })
}

fn check(images: &[String], size: Option<i64>, elimination: &Option<String>) -> validate::Check {
    if images.len() > MAX_IMAGES || images.iter().any(String::is_empty) {
        let rule = format!("there must be 1 to {MAX_IMAGES} images, none of them empty");
        return Err(Refusal::invalid("Image", rule));
    }
    if size.is_some_and(|size| !(DEFAULT_GIB..=LARGEST_GIB).contains(&size)) {
        let rule = format!("it must be from {DEFAULT_GIB} to {LARGEST_GIB}");
        return Err(Refusal::invalid("ImageCacheSize", rule));
    }
    validate::one_of("EliminationStrategy", elimination, &["LRU"])
}

fn count(state: &State, automatic: bool) -> usize {
    let caches = state.resources.image_caches.values();
    caches.filter(|cache| cache.automatic == automatic).count()
}

/// How many there are: those that were asked for, and the automatic ones.
pub(super) fn counts(state: &State) -> (usize, usize) {
    (count(state, false), count(state, true))
}

fn insert(
    request: CreateImageCacheRequest,
    automatic: bool,
    state: &mut State,
    now: Timestamp,
) -> String {
    let id = state.random_id("imc-");
    let cache = ImageCacheRecord {
        request,
        group_id: state.random_id("eci-"),
        snapshot_id: state.random_id("s-"),
        automatic,
        created_at: now,
        changed_at: None,
        matched_at: None,
    };
    state.put(&id, cache);
    id
}

pub(crate) async fn update(
    call: &Call<'_>,
    request: UpdateImageCacheRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&["RegionId", "ImageCacheId"])?;
    check(
        &request.image,
        request.image_cache_size,
        &request.elimination_strategy,
    )?;
    validate::tags(&request.tag)?;
    let token = Token::of(call, &request)?;
    let length = call.shared.stage();
    table::once(call, token, |state, now| {
        let id = request.image_cache_id.clone();
        let cache = find(state, &id)?;
        if status(cache, now, length) != "Ready" {
            let message = format!("The image cache {id} is not Ready.");
            return Err(Refusal::new(400, "ImageCache.IncorrectStatus", message));
        }
        let mut next = cache.clone();
        apply_update(&mut next.request, request);
        if next.request == cache.request {
            return Err(Refusal::no_need_update());
        }
        next.changed_at = Some(now);
        state.put(&id, next);
        Ok(id)
    })
    .await?;
    Ok(EmptyResponse::default())
}

fn apply_update(own: &mut CreateImageCacheRequest, update: UpdateImageCacheRequest) {
    if let Some(name) = update.image_cache_name.filter(|name| !name.is_empty()) {
        own.image_cache_name = name;
    }
    if !update.image.is_empty() {
        own.image = update.image;
    }
    if !update.image_registry_credential.is_empty() {
        own.image_registry_credential = update.image_registry_credential;
    }
    if !update.tag.is_empty() {
        own.tag = update.tag;
    }
    own.image_cache_size = update.image_cache_size.or(own.image_cache_size);
    own.retention_days = update.retention_days.or(own.retention_days);
    own.flash = update.flash.or(own.flash);
    own.elimination_strategy = update
        .elimination_strategy
        .or(own.elimination_strategy.take());
    own.resource_group_id = update.resource_group_id.or(own.resource_group_id.take());
}

fn find<'a>(state: &'a State, id: &str) -> Result<&'a ImageCacheRecord, Refusal> {
    table::find(state, "image cache", id)
}

pub(crate) async fn delete(
    call: &Call<'_>,
    request: DeleteImageCacheRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&["RegionId", "ImageCacheId"])?;
    let token = Token::of(call, &request)?;
    table::once(call, token, |state, _| {
        find(state, &request.image_cache_id)?;
        state.take_row::<ImageCacheRecord>(&request.image_cache_id);
        Ok(request.image_cache_id)
    })
    .await?;
    Ok(EmptyResponse::default())
}

pub(crate) fn describe(
    call: &Call<'_>,
    request: &DescribeImageCachesRequest,
) -> Result<DescribeImageCachesResponse, Refusal> {
    call.need(&["RegionId"])?;
    if request.match_image.len() > MAX_MATCH_IMAGES {
        let rule = format!("at most {MAX_MATCH_IMAGES} images can be matched");
        return Err(Refusal::invalid("MatchImage", rule));
    }
    let window = Window {
        name: "Limit",
        limit: request.limit,
        default: PAGE,
        most: LARGEST_PAGE,
        next_token: request.next_token.as_deref(),
    };
    let (now, length) = (call.shared.now(), call.shared.stage());
    let state = call.shared.state();
    let full = request.image_full_match.unwrap_or_default();
    let least = request.image_match_count_request.unwrap_or(1).max(1);
    let held = |cache: &ImageCacheRecord| {
        request
            .match_image
            .iter()
            .filter(|image| holds(cache, image, full))
            .count()
    };
    let TablePage {
        mut rows,
        next_token,
        total_count,
    } = table::page(&state, &window, |id, cache: &ImageCacheRecord| {
        is(&request.image_cache_id, id)
            && is(&request.image_cache_name, &cache.request.image_cache_name)
            && is(&request.snapshot_id, &cache.snapshot_id)
            && is(
                &request.resource_group_id,
                cache
                    .request
                    .resource_group_id
                    .as_deref()
                    .unwrap_or_default(),
            )
            && given(&request.image).is_none_or(|image| holds(cache, image, true))
            && (request.match_image.is_empty()
                || i64::try_from(held(cache)).unwrap_or(i64::MAX) >= least)
            && is_tagged(cache, &request.tag)
    })?;
    if !request.match_image.is_empty() {
        rows.sort_by_key(|(_, cache)| std::cmp::Reverse(held(cache)));
    }
    let region = &call.shared.config.region;
    Ok(DescribeImageCachesResponse {
        image_caches: rows
            .iter()
            .map(|(id, cache)| info(id, cache, region, now, length))
            .collect(),
        next_token,
        total_count,
        ..Default::default()
    })
}

/// The status by the clock.
fn status(cache: &ImageCacheRecord, now: Timestamp, length: SignedDuration) -> &'static str {
    match stage(cache.created_at, cache.changed_at, now, length) {
        Stage::First => "Preparing",
        Stage::Second => "Creating",
        Stage::Done => "Ready",
        Stage::Changing => "Updating",
    }
}

fn info(
    id: &str,
    cache: &ImageCacheRecord,
    region: &str,
    now: Timestamp,
    length: SignedDuration,
) -> ImageCache {
    let request = &cache.request;
    let status = status(cache, now, length);
    let flash = request.flash.unwrap_or_default();
    let mut events = vec![event(
        "Preparing",
        "Image cache is being prepared.".to_owned(),
        cache.created_at,
    )];
    if status == "Ready" && cache.changed_at.is_none() {
        let message = format!("Image cache {id} is ready.");
        events.push(event("Ready", message, cache.created_at + length * 2));
    }
    ImageCache {
        image_cache_id: id.to_owned(),
        image_cache_name: request.image_cache_name.clone(),
        container_group_id: cache.group_id.clone(),
        snapshot_id: cache.snapshot_id.clone(),
        flash_snapshot_id: flash.then(|| cache.snapshot_id.clone()),
        images: request.image.clone(),
        image_cache_size: request.image_cache_size.unwrap_or(DEFAULT_GIB),
        status: status.to_owned(),
        progress: match status {
            "Preparing" => "0%",
            "Creating" => "50%",
            "Updating" => "50%",
            _ => "100%",
        }
        .to_owned(),
        creation_time: time::format(cache.created_at),
        expire_date_time: cache.expires_at().map(time::format),
        last_matched_time: cache.matched_at.map(time::format),
        elimination_strategy: request.elimination_strategy.clone(),
        region_id: region.to_owned(),
        resource_group_id: request.resource_group_id.clone(),
        events,
        tags: request.tag.clone(),
    }
}

/// Whether a cache holds an image: the same name, and with `full` the same tag.
fn holds(cache: &ImageCacheRecord, image: &str, full: bool) -> bool {
    let wanted = split_tag(image);
    let same = |own: &str| {
        let own = split_tag(own);
        own.0 == wanted.0 && (!full || own.1 == wanted.1)
    };
    cache.request.image.iter().any(|own| same(own))
}

/// Name and tag (or digest) of an image.
fn split_tag(image: &str) -> (&str, &str) {
    let start = image.rfind('/').map_or(0, |slash| slash + 1);
    match image[start..].find(['@', ':']) {
        Some(position) => (&image[..start + position], &image[start + position + 1..]),
        None => (image, "latest"),
    }
}

/// What a group finds already there.
pub(super) enum Hit {
    Nothing,
    Cache(String),
    /// Nothing fits, so one is to be made for the next group.
    Make,
}

/// The cache that a group starts from; refuses one that was named and is not to be had.
pub(super) fn wanted(
    request: &CreateContainerGroupRequest,
    state: &State,
    now: Timestamp,
    length: SignedDuration,
) -> Result<Hit, Refusal> {
    if let Some(wanted) = given(&request.image_snapshot_id) {
        let named = |(id, cache): &(&String, &ImageCacheRecord)| {
            *id == wanted || cache.snapshot_id == wanted
        };
        let Some((id, cache)) = state.resources.image_caches.iter().find(named) else {
            let message = format!("The image cache {wanted} does not exist.");
            return Err(Refusal::new(404, "ImageSnapshot.NotFound", message));
        };
        if status(cache, now, length) != "Ready" {
            let message = format!("The image cache {wanted} is not Ready.");
            return Err(Refusal::new(400, "ImageSnapshot.IncorrectStatus", message));
        }
        return Ok(Hit::Cache(id.clone()));
    }
    if request.auto_match_image_cache != Some(true) {
        return Ok(Hit::Nothing);
    }
    let best = state
        .resources
        .image_caches
        .iter()
        .filter(|(_, cache)| status(cache, now, length) == "Ready")
        .map(|(id, cache)| (cached(request, cache).len(), cache.created_at, id))
        .filter(|(count, ..)| *count > 0)
        .max();
    Ok(match best {
        Some((_, _, id)) => Hit::Cache(id.clone()),
        None => Hit::Make,
    })
}

fn images(request: &CreateContainerGroupRequest) -> Vec<String> {
    let all = request.container.iter().chain(&request.init_container);
    let mut images: Vec<String> = all.map(|container| container.image.clone()).collect();
    images.sort_unstable();
    images.dedup();
    images
}

/// The group's images that the cache holds.
fn cached(request: &CreateContainerGroupRequest, cache: &ImageCacheRecord) -> Vec<String> {
    let mut images = images(request);
    images.retain(|image| holds(cache, image, true));
    images
}

/// Lets the group start from the cache, or makes one that a later group can start from.
pub(super) fn apply(hit: Hit, group: &mut GroupRecord, state: &mut State, now: Timestamp) {
    match hit {
        Hit::Nothing => {}
        Hit::Cache(id) => {
            let request = group.request.clone();
            let hit = state.change_row(&id, |cache: &mut ImageCacheRecord| {
                cache.matched_at = Some(now);
                cached(&request, cache)
            });
            group.cached_images = hit.unwrap_or_default();
            let message = format!(
                "[eci.imagecache]Successfully hit image cache {id}, eci will be scheduled with this image cache."
            );
            group.note(false, "SuccessfulHitImageCache", message, now);
        }
        Hit::Make => make(group, state, now),
    }
}

fn make(group: &GroupRecord, state: &mut State, now: Timestamp) {
    let image = images(&group.request);
    // Many groups of one kind that come at once share the one that is on its way.
    let on_its_way = |cache: &ImageCacheRecord| cache.automatic && cache.request.image == image;
    let mut caches = state.resources.image_caches.values();
    if caches.any(on_its_way) || count(state, true) >= MAX_AUTOMATIC {
        return;
    }
    let request = CreateImageCacheRequest {
        image_cache_name: format!("auto-{}", group.request.container_group_name),
        image,
        ..Default::default()
    };
    insert(request, true, state, now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_its_name_and_its_tag() {
        assert_eq!(split_tag("busybox"), ("busybox", "latest"));
        assert_eq!(split_tag("r:5000/a/b"), ("r:5000/a/b", "latest"));
        assert_eq!(split_tag("r:5000/a/b:1"), ("r:5000/a/b", "1"));
        assert_eq!(split_tag("a@sha256:00"), ("a", "sha256:00"));
    }
}
