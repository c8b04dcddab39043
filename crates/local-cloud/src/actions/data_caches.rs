//! Data caches: made, copied, looked up, changed, deleted. What they hold is on paper only.

use super::filter::given;
use super::table::{self, Window, event, is, is_tagged};
use super::tokens::Token;
use super::{Call, validate};
use crate::gateway::refusal::Refusal;
use crate::state::State;
use crate::state::resources::{DataCacheRecord, Stage, stage};
use cloud_api::model::EmptyResponse;
use cloud_api::model::data_cache::*;
use cloud_api::time;
use jiff::{SignedDuration, Timestamp};

/// Most data caches.
pub(super) const MAX_CACHES: usize = 200;
const PAGE: u32 = 20;
const DEFAULT_GIB: i64 = 20;
const LARGEST_GIB: i64 = 32_768;

fn check(
    size: Option<i64>,
    source: &Option<DataSource>,
    tags: &[cloud_api::model::Tag],
) -> validate::Check {
    if size.is_some_and(|size| !(DEFAULT_GIB..=LARGEST_GIB).contains(&size)) {
        let rule = format!("it must be from {DEFAULT_GIB} to {LARGEST_GIB}");
        return Err(Refusal::invalid("Size", rule));
    }
    let source_type = source.as_ref().map(|source| source.source_type.clone());
    validate::one_of(
        "DataSource.Type",
        &source_type,
        &["URL", "NAS", "OSS", "SNAPSHOT"],
    )?;
    validate::tags(tags)
}

pub(crate) async fn create(
    call: &Call<'_>,
    request: CreateDataCacheRequest,
) -> Result<CreateDataCacheResponse, Refusal> {
    call.need(&["RegionId", "Size"])?;
    check(request.size, &request.data_source, &request.tag)?;
    let token = Token::of(call, &request)?;
    let data_cache_id = table::once(call, token, |state, now| insert(request, state, now)).await?;
    Ok(CreateDataCacheResponse {
        data_cache_id,
        ..Default::default()
    })
}

fn insert(
    request: CreateDataCacheRequest,
    state: &mut State,
    now: Timestamp,
) -> Result<String, Refusal> {
    if state.resources.data_caches.len() >= MAX_CACHES {
        let message = format!("There may be at most {MAX_CACHES} data caches.");
        return Err(Refusal::new(403, "QuotaExceeded", message));
    }
    let cache = DataCacheRecord {
        request,
        group_id: state.random_id("eci-"),
        snapshot_id: state.random_id("s-"),
        created_at: now,
        changed_at: None,
        matched_at: None,
    };
    let same = |own: &DataCacheRecord| {
        cache.request.path.is_some()
            && own.bucket() == cache.bucket()
            && own.request.path == cache.request.path
    };
    if state.resources.data_caches.values().any(same) {
        let rule = "there is a data cache of this bucket and path";
        return Err(Refusal::invalid("Path", rule));
    }
    let id = state.random_id("edc-");
    state.put(&id, cache);
    Ok(id)
}

pub(crate) async fn copy(
    call: &Call<'_>,
    request: CopyDataCacheRequest,
) -> Result<CreateDataCacheResponse, Refusal> {
    call.need(&["RegionId", "DataCacheId", "DestinationRegionId"])?;
    let region = &call.shared.config.region;
    if request.destination_region_id != *region {
        let message = format!("The destination does not exist here; this is {region}.");
        return Err(Refusal::new(404, "InvalidRegionId.NotFound", message));
    }
    validate::tags(&request.tag)?;
    let token = Token::of(call, &request)?;
    let data_cache_id = table::once(call, token, |state, now| {
        let mut copy = find(state, &request.data_cache_id)?.request.clone();
        copy.name = request.name.or(copy.name);
        copy.path = request.path.or(copy.path);
        copy.bucket = request.bucket.or(copy.bucket);
        copy.retention_days = request.retention_days;
        copy.resource_group_id = request.resource_group_id;
        copy.tag = request.tag;
        insert(copy, state, now)
    })
    .await?;
    Ok(CreateDataCacheResponse {
        data_cache_id,
        ..Default::default()
    })
}

fn find<'a>(state: &'a State, id: &str) -> Result<&'a DataCacheRecord, Refusal> {
    table::find(state, "data cache", id)
}

pub(crate) async fn update(
    call: &Call<'_>,
    request: UpdateDataCacheRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&["RegionId", "DataCacheId"])?;
    check(request.size, &request.data_source, &request.tag)?;
    let token = Token::of(call, &request)?;
    let length = call.shared.stage();
    table::once(call, token, |state, now| {
        let id = request.data_cache_id.clone();
        let cache = find(state, &id)?;
        if status(cache, now, length) != "Available" {
            let message = format!("The data cache {id} is not Available.");
            return Err(Refusal::new(400, "IncorrectStatus", message));
        }
        let mut next = cache.clone();
        let own = &mut next.request;
        own.size = request.size.or(own.size);
        own.name = request.name.or(own.name.take());
        own.bucket = request.bucket.or(own.bucket.take());
        own.data_source = request.data_source.or(own.data_source.take());
        own.retention_days = request.retention_days.or(own.retention_days);
        own.resource_group_id = request.resource_group_id.or(own.resource_group_id.take());
        if !request.tag.is_empty() {
            own.tag = request.tag;
        }
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

pub(crate) async fn delete(
    call: &Call<'_>,
    request: DeleteDataCacheRequest,
) -> Result<EmptyResponse, Refusal> {
    call.need(&["RegionId"])?;
    let by_id = given(&request.data_cache_id).map(str::to_owned);
    let place = given(&request.bucket).zip(given(&request.path));
    if by_id.is_none() && place.is_none() {
        return Err(Refusal::missing("DataCacheId"));
    }
    let token = Token::of(call, &request)?;
    table::once(call, token, |state, _| {
        let at_place = |(_, cache): &(&String, &DataCacheRecord)| {
            place.is_some_and(|(bucket, path)| {
                cache.bucket() == bucket && cache.request.path.as_deref() == Some(path)
            })
        };
        let found = state.resources.data_caches.iter().find(at_place);
        let id = by_id
            .or_else(|| found.map(|(id, _)| id.clone()))
            .unwrap_or_default();
        find(state, &id)?;
        state.take_row::<DataCacheRecord>(&id);
        Ok(id)
    })
    .await?;
    Ok(EmptyResponse::default())
}

pub(crate) fn describe(
    call: &Call<'_>,
    request: &DescribeDataCachesRequest,
) -> Result<DescribeDataCachesResponse, Refusal> {
    call.need(&["RegionId"])?;
    let window = Window {
        name: "Limit",
        limit: request.limit,
        default: PAGE,
        most: PAGE,
        next_token: request.next_token.as_deref(),
    };
    let (now, length) = (call.shared.now(), call.shared.stage());
    let state = call.shared.state();
    let page = table::page(&state, &window, |id, cache: &DataCacheRecord| {
        let own = &cache.request;
        (request.data_cache_id.is_empty() || request.data_cache_id.iter().any(|known| known == id))
            && is(&request.bucket, cache.bucket())
            && is(&request.path, own.path.as_deref().unwrap_or_default())
            && is(
                &request.resource_group_id,
                own.resource_group_id.as_deref().unwrap_or_default(),
            )
            && is_tagged(cache, &request.tag)
    })?;
    let region = &call.shared.config.region;
    Ok(DescribeDataCachesResponse {
        data_caches: page
            .rows
            .iter()
            .map(|(id, cache)| info(id, cache, region, now, length))
            .collect(),
        next_token: page.next_token,
        total_count: page.total_count,
        ..Default::default()
    })
}

/// The status by the clock.
fn status(cache: &DataCacheRecord, now: Timestamp, length: SignedDuration) -> &'static str {
    match stage(cache.created_at, cache.changed_at, now, length) {
        Stage::First => "Loading",
        Stage::Second => "Creating",
        Stage::Done => "Available",
        Stage::Changing => "Updating",
    }
}

fn info(
    id: &str,
    cache: &DataCacheRecord,
    region: &str,
    now: Timestamp,
    length: SignedDuration,
) -> DataCache {
    let request = &cache.request;
    let status = status(cache, now, length);
    let source = request.data_source.clone().unwrap_or_default();
    DataCache {
        data_cache_id: id.to_owned(),
        name: request.name.clone().unwrap_or_default(),
        bucket: cache.bucket().to_owned(),
        path: request.path.clone().unwrap_or_default(),
        data_source: DataSourceInfo {
            source_type: source.source_type,
            // Texts by texts, which JSON can always hold.
            options: serde_json::to_string(&source.options).unwrap_or_default(),
        },
        size: request.size.unwrap_or(DEFAULT_GIB),
        status: status.to_owned(),
        progress: match status {
            "Loading" => "0%",
            "Creating" | "Updating" => "50%",
            _ => "100%",
        }
        .to_owned(),
        snapshot_id: cache.snapshot_id.clone(),
        flash_snapshot_id: None,
        container_group_id: cache.group_id.clone(),
        creation_time: time::format(cache.created_at),
        expire_date_time: cache.expires_at().map(time::format),
        last_matched_time: cache.matched_at.map(time::format),
        region_id: region.to_owned(),
        resource_group_id: request.resource_group_id.clone(),
        events: vec![event(
            "Loading",
            "Data is being loaded.".to_owned(),
            cache.created_at,
        )],
        tags: request.tag.clone(),
    }
}
