//! get and list.

use super::context::{Call, ListPage, Payload, Reply};
use super::options::{ListOptions, parse_revision};
use super::selection::Selection;
use crate::status::{ApiError, ApiResult};
use crate::store::{Snapshot, SnapshotError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::time::Duration;

/// How long a read waits for a revision that has not happened yet.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// One object.
pub async fn get(call: &Call) -> ApiResult<Reply> {
    let wanted = call.query.text("resourceVersion");
    if !wanted.is_empty() && wanted != "0" {
        let wanted = parse_revision(wanted).map_err(ApiError::plain)?;
        wait_for(call, wanted).await?;
    }
    Ok(Reply::stored(call.existing()?))
}

/// A collection.
pub async fn list(call: &Call) -> ApiResult<Reply> {
    let options = ListOptions::parse(&call.query, false)?;
    let selection = Selection::parse(call)?;
    let page = page(call, &options, &selection).await?;
    Ok(Reply {
        status: 200,
        payload: Payload::List(page),
    })
}

/// Part of a collection, as the options say.
pub async fn page(
    call: &Call,
    options: &ListOptions,
    selection: &Selection,
) -> ApiResult<ListPage> {
    let prefix = call.served.prefix(&call.namespace);
    let (snapshot, start) = if options.continue_token.is_empty() {
        (snapshot(call, options, &prefix).await?, None)
    } else {
        if !options.resource_version.is_empty() && options.resource_version != "0" {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = ContinueToken::decode(&options.continue_token)?;
        let snapshot = continued(call, &token, &prefix)?;
        (snapshot, Some(token.start))
    };
    // A list at revision 0 is answered from the cache, whole.
    let limit = match options.limit {
        _ if options.resource_version == "0"
            && options.resource_version_match.as_str() != "Exact" =>
        {
            0
        }
        limit => limit,
    };
    Ok(cut(snapshot, &prefix, start.as_deref(), limit, selection))
}

async fn snapshot(call: &Call, options: &ListOptions, prefix: &str) -> ApiResult<Snapshot> {
    let store = &call.core.store;
    let resource = &call.served.storage_id;
    let wanted = parse_revision(&options.resource_version)
        .map_err(|error| ApiError::bad_request(format!("invalid resource version: {error}")))?;
    if wanted == 0 {
        return Ok(store.list(resource, prefix));
    }
    wait_for(call, wanted).await?;
    if options.resource_version_match == "Exact" {
        return store
            .list_at(resource, prefix, wanted)
            .map_err(|error| snapshot_error(error, wanted));
    }
    Ok(store.list(resource, prefix))
}

fn continued(call: &Call, token: &ContinueToken, prefix: &str) -> ApiResult<Snapshot> {
    let store = &call.core.store;
    // A negative revision stands for "now": the token a 410 answer hands out.
    let Ok(revision) = u64::try_from(token.revision) else {
        return Ok(store.list(&call.served.storage_id, prefix));
    };
    store
        .list_at(&call.served.storage_id, prefix, revision)
        .map_err(|_| {
            let mut error = ApiError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
            );
            let again = ContinueToken {
                revision: -1,
                start: token.start.clone(),
            };
            error.body["metadata"] = json!({"continue": again.encode()});
            error
        })
}

fn snapshot_error(error: SnapshotError, wanted: u64) -> ApiError {
    match error {
        SnapshotError::Forgotten { .. } => ApiError::expired(format!(
            "The provided resource version is too old: the resourceVersion {wanted} was compacted"
        )),
        SnapshotError::Future { newest } => ApiError::revision_too_large(wanted, newest),
    }
}

/// Waits until the store has seen `wanted`.
async fn wait_for(call: &Call, wanted: u64) -> ApiResult<()> {
    let deadline = tokio::time::Instant::now() + FUTURE_WAIT;
    while call.core.store.revision() < wanted {
        if tokio::time::Instant::now() >= deadline {
            return Err(ApiError::revision_too_large(
                wanted,
                call.core.store.revision(),
            ));
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Ok(())
}

fn cut(
    snapshot: Snapshot,
    prefix: &str,
    start: Option<&str>,
    limit: usize,
    selection: &Selection,
) -> ListPage {
    let everything = selection.is_everything();
    let from = start.map_or(0, |start| {
        snapshot
            .objects
            .partition_point(|(key, _)| &key[prefix.len()..] < start)
    });
    let mut page = ListPage {
        items: Vec::new(),
        revision: snapshot.revision,
        continue_token: String::new(),
        remaining: None,
    };
    let mut last = None;
    for (index, (key, object)) in snapshot.objects.iter().enumerate().skip(from) {
        if !everything && !selection.matches(&object.tree) {
            continue;
        }
        if limit > 0 && page.items.len() == limit {
            let start = format!("{}\0", last.unwrap_or_default());
            page.continue_token = ContinueToken {
                revision: i64::try_from(snapshot.revision).unwrap_or(i64::MAX),
                start,
            }
            .encode();
            if everything {
                page.remaining = Some((snapshot.objects.len() - index) as u64);
            }
            break;
        }
        page.items.push(object.clone());
        last = Some(key[prefix.len()..].to_string());
    }
    page
}

/// Where a page ended.
struct ContinueToken {
    revision: i64,
    /// First key that may come next, below the list's prefix.
    start: String,
}

impl ContinueToken {
    fn encode(&self) -> String {
        let text = json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": format!("/{}", self.start)});
        URL_SAFE_NO_PAD.encode(text.to_string())
    }

    fn decode(token: &str) -> ApiResult<Self> {
        let refused = |why: String| {
            ApiError::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(token.trim_end_matches('='))
            .map_err(|_| refused("illegal base64 data at input byte 0".into()))?;
        let parsed: Value = serde_json::from_slice(&bytes).map_err(|_| {
            let first = bytes.first().map_or(' ', |byte| *byte as char);
            refused(format!(
                "invalid character '{first}' looking for beginning of value"
            ))
        })?;
        let version = parsed["v"].as_str().unwrap_or_default();
        if version != "meta.k8s.io/v1" {
            return Err(refused(format!(
                "server does not recognize this encoded version {version}"
            )));
        }
        let revision = parsed["rv"].as_i64().unwrap_or(0);
        if revision == 0 {
            return Err(refused(format!(
                "incorrect encoded start resourceVersion (version {version})"
            )));
        }
        let start = parsed["start"].as_str().unwrap_or_default();
        let start = start.strip_prefix('/').unwrap_or(start);
        Ok(Self {
            revision,
            start: start.to_string(),
        })
    }
}
