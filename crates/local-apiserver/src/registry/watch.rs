//! watch: history, then live events, filtered by selectors, in the asked-for form.
//!
//! A watcher keeps only a position; events stay in the store's bounded history. One that is too slow gets 410 and lists again.

use super::context::{Call, Payload, Reply};
use super::options::{ListOptions, parse_revision};
use super::selection::Selection;
use crate::status::{ApiError, ApiResult};
use crate::store::{Event, EventKind, SnapshotError, Store, StoredObject};
use rand::Rng;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

/// Events taken from the history at once.
const BATCH: usize = 256;
/// How often a watcher that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// The last bookmark comes this long before the end.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// What a watcher is told.
pub enum Notice {
    /// A change as stored; the frame may be shared.
    Change(Arc<Event>),
    /// An object appeared in (or left) the selection, or is part of the present state.
    Object(EventKind, Arc<StoredObject>),
    /// Everything up to this revision was sent; `true` ends the initial events.
    Bookmark(u64, bool),
    /// The end, with the reason.
    Error(ApiError),
}

/// A running watch.
pub struct Watch {
    store: Store,
    resource: Arc<str>,
    prefix: String,
    selection: Selection,
    position: u64,
    bookmarked: u64,
    changes: Receiver<u64>,
    ready: VecDeque<Notice>,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    ended: bool,
}

/// GET with `watch`.
pub async fn watch(call: &Call) -> ApiResult<Reply> {
    let options = ListOptions::parse(&call.query, true)?;
    let mut selection = Selection::parse(call)?;
    if !call.name.is_empty() {
        selection.fields.terms.push(super::selectors::FieldTerm {
            field: "metadata.name".into(),
            value: call.name.clone(),
            negated: false,
        });
    }
    let wanted = parse_revision(&options.resource_version).map_err(ApiError::plain)?;
    let seconds = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => u64::try_from(seconds).unwrap_or(1),
        Some(seconds) if seconds < 0 => 0,
        _ => rand::rng().random_range(1800..3600),
    };
    let now = Instant::now();
    let store = call.core.store.clone();
    let resource = call.served.storage_id.clone();
    let mut watch = Watch {
        changes: store.changes(&resource),
        store,
        resource,
        prefix: call.served.prefix(&call.namespace),
        selection,
        position: wanted,
        bookmarked: 0,
        ready: VecDeque::new(),
        bookmarks: options.bookmarks,
        next_bookmark: now + BOOKMARK_EVERY,
        ends: now + Duration::from_secs(seconds),
        ended: false,
    };
    let initial = match options.send_initial_events {
        Some(send) => send,
        None => wanted == 0,
    };
    if initial || (options.send_initial_events == Some(false) && wanted == 0) {
        watch.present_state(initial, options.send_initial_events == Some(true));
    }
    Ok(Reply {
        status: 200,
        payload: Payload::Watch(Box::new(watch)),
    })
}

impl Watch {
    /// Queues the present state as ADDED and continues from there.
    fn present_state(&mut self, send: bool, mark_end: bool) {
        let snapshot = self.store.list(&self.resource, &self.prefix);
        self.position = snapshot.revision.max(self.position);
        if !send {
            return;
        }
        for (_, object) in snapshot.objects {
            if self.selection.matches(&object.tree) {
                self.ready
                    .push_back(Notice::Object(EventKind::Added, object));
            }
        }
        if mark_end && self.bookmarks {
            self.ready
                .push_back(Notice::Bookmark(snapshot.revision, true));
            self.bookmarked = snapshot.revision;
        }
    }

    /// What to send next; `None` when the watch is over.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            if let Some(notice) = self.ready.pop_front() {
                return Some(notice);
            }
            if self.ended || Instant::now() >= self.ends {
                return None;
            }
            self.changes.mark_unchanged();
            if let Err(error) = self.collect() {
                self.ended = true;
                return Some(Notice::Error(too_old(error, self.position)));
            }
            if !self.ready.is_empty() {
                continue;
            }
            self.rest().await?;
        }
    }

    /// Waits for a change, the time of a bookmark, or the end.
    async fn rest(&mut self) -> Option<()> {
        let bookmark_at = if self.bookmarks {
            self.next_bookmark
        } else {
            self.ends + BOOKMARK_EVERY
        };
        tokio::select! {
            changed = self.changes.changed() => changed.ok(),
            () = sleep_until(bookmark_at) => {
                self.bookmark();
                Some(())
            }
            () = sleep_until(self.ends) => None,
        }
    }

    fn bookmark(&mut self) {
        let now = Instant::now();
        let last = self
            .ends
            .checked_sub(BOOKMARK_BEFORE_END)
            .filter(|last| *last > now);
        self.next_bookmark = match last {
            Some(last) if last < now + BOOKMARK_EVERY => last,
            _ => now + BOOKMARK_EVERY,
        };
        if self.position > self.bookmarked {
            self.bookmarked = self.position;
            self.ready.push_back(Notice::Bookmark(self.position, false));
        }
    }

    fn collect(&mut self) -> Result<(), SnapshotError> {
        // A watch from the future waits until the future has come.
        if self.position > self.store.revision() {
            return Ok(());
        }
        let (events, complete) = self
            .store
            .events_after(&self.resource, self.position, BATCH)?;
        let everything = self.selection.is_everything();
        for event in events {
            if !event.key.starts_with(&self.prefix) {
                continue;
            }
            if everything {
                self.ready.push_back(Notice::Change(event));
            } else if let Some(notice) = self.filtered(event) {
                self.ready.push_back(notice);
            }
        }
        self.position = self.position.max(complete);
        Ok(())
    }

    /// Objects that start to match appear, those that stop disappear.
    fn filtered(&self, event: Arc<Event>) -> Option<Notice> {
        let before = event
            .previous
            .as_ref()
            .is_some_and(|object| self.selection.matches(&object.tree));
        let after = event.kind != EventKind::Deleted && self.selection.matches(&event.object.tree);
        match (before, after) {
            (false, false) => None,
            (false, true) if event.kind == EventKind::Added => Some(Notice::Change(event)),
            (false, true) => Some(Notice::Object(EventKind::Added, event.object.clone())),
            (true, true) => Some(Notice::Change(event)),
            (true, false) if event.kind == EventKind::Deleted => Some(Notice::Change(event)),
            (true, false) => Some(Notice::Object(EventKind::Deleted, left(&event))),
        }
    }
}

/// The object as it was while it matched, at the revision at which it stopped.
fn left(event: &Event) -> Arc<StoredObject> {
    let tree = event
        .previous
        .as_ref()
        .map_or(&event.object.tree, |object| &object.tree);
    Arc::new(crate::store::Prepared::new((**tree).clone()).finish(event.revision))
}

fn too_old(error: SnapshotError, position: u64) -> ApiError {
    match error {
        SnapshotError::Forgotten { oldest } => {
            ApiError::expired(format!("too old resource version: {position} ({oldest})"))
        }
        SnapshotError::Future { newest } => ApiError::revision_too_large(position, newest),
    }
}

/// A bookmark's object.
pub fn bookmark_object(api_version: &str, kind: &str, revision: u64, end: bool) -> Value {
    let mut object = json!({
        "kind": kind, "apiVersion": api_version,
        "metadata": {"resourceVersion": revision.to_string()},
    });
    if end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    object
}
