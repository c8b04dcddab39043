//! The last changes of one resource, for watches and for reads at an older revision.

use super::StoredObject;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Events kept for one resource.
const EVENTS: usize = 16_384;
/// JSON bytes kept alive by the events of one resource.
const BYTES: usize = 48 << 20;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The object appeared.
    Added,
    /// It changed.
    Modified,
    /// It is gone; the event carries the last state.
    Deleted,
}

impl EventKind {
    /// As watch frames spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One committed change.
pub struct Event {
    /// Its revision.
    pub revision: u64,
    /// `namespace/name` or `name`.
    pub key: Arc<str>,
    /// What happened.
    pub kind: EventKind,
    /// The state after it (for a deletion the last state at the deletion's revision).
    pub object: Arc<StoredObject>,
    /// The state before it.
    pub previous: Option<Arc<StoredObject>>,
    /// The watch frame in the most asked-for version, shared by all watchers: (apiVersion, frame).
    frame: OnceLock<(Arc<str>, Bytes)>,
}

impl Event {
    pub(super) fn new(
        key: Arc<str>,
        kind: EventKind,
        object: Arc<StoredObject>,
        previous: Option<Arc<StoredObject>>,
    ) -> Self {
        Self {
            revision: object.revision,
            key,
            kind,
            object,
            previous,
            frame: OnceLock::new(),
        }
    }

    /// `{"type":…,"object":…}\n` as every watcher of `api_version` gets it; made once.
    pub fn frame(&self, api_version: &Arc<str>, kind: &str) -> Bytes {
        let (version, frame) = self.frame.get_or_init(|| {
            (
                api_version.clone(),
                make_frame(self.kind, &self.object, api_version, kind),
            )
        });
        if version == api_version {
            frame.clone()
        } else {
            make_frame(self.kind, &self.object, api_version, kind)
        }
    }
}

/// One watch frame.
pub fn make_frame(event: EventKind, object: &StoredObject, api_version: &str, kind: &str) -> Bytes {
    let mut out = Vec::with_capacity(object.bare.len() + 120);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.name().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object.write_text(api_version, kind, &mut out);
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}

/// The bounded history of one resource.
pub(super) struct History {
    events: VecDeque<(Instant, Arc<Event>)>,
    bytes: usize,
    /// Every event after this revision is here.
    floor: u64,
}

impl History {
    pub fn new(floor: u64) -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            floor,
        }
    }

    pub fn push(&mut self, event: Arc<Event>, at: Instant) {
        self.bytes += event.object.bare.len();
        self.events.push_back((at, event));
        while (self.events.len() > EVENTS || self.bytes > BYTES) && self.forget_oldest().is_some() {
        }
    }

    /// Forgets what happened before `moment`, so that the memory of a burst is given back. Freeing it is left to the
    /// caller, who can do so without the lock.
    pub fn forget_before(&mut self, moment: Instant) -> Vec<Arc<Event>> {
        let mut forgotten = Vec::new();
        while self.events.front().is_some_and(|(at, _)| *at < moment) {
            forgotten.extend(self.forget_oldest());
        }
        self.events.shrink_to(self.events.len() * 2);
        forgotten
    }

    fn forget_oldest(&mut self) -> Option<Arc<Event>> {
        let (_, oldest) = self.events.pop_front()?;
        self.bytes -= oldest.object.bare.len();
        self.floor = oldest.revision;
        Some(oldest)
    }

    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Events after `revision`, oldest first; `None` when some are forgotten.
    pub fn after(&self, revision: u64) -> Option<impl DoubleEndedIterator<Item = &Arc<Event>>> {
        if revision < self.floor {
            return None;
        }
        let start = self
            .events
            .partition_point(|(_, event)| event.revision <= revision);
        Some(self.events.range(start..).map(|(_, event)| event))
    }

    pub fn compact(&mut self, floor: u64) {
        self.events.clear();
        self.bytes = 0;
        self.floor = floor;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::object::Prepared;
    use super::*;

    fn event(revision: u64) -> Arc<Event> {
        let object = Arc::new(Prepared::new(json!({"metadata": {"name": "a"}})).finish(revision));
        Arc::new(Event::new("a".into(), EventKind::Modified, object, None))
    }

    #[test]
    fn what_is_old_is_forgotten_and_asking_for_it_says_so() {
        let begun = Instant::now();
        let later = begun + Duration::from_secs(60);
        let mut history = History::new(1);
        for (revision, at) in [(2, begun), (3, begun), (4, later), (5, later)] {
            history.push(event(revision), at);
        }
        assert_eq!(history.forget_before(later).len(), 2);
        assert_eq!(history.floor(), 3);
        assert!(history.after(2).is_none());
        let kept: Vec<u64> = history
            .after(3)
            .unwrap()
            .map(|event| event.revision)
            .collect();
        assert_eq!(kept, [4, 5]);
        history.forget_before(later + Duration::from_secs(1));
        assert_eq!((history.floor(), history.bytes), (5, 0));
    }
}
