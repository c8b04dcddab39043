//! Events are kept for an hour, as upstream keeps them.

use crate::core::Core;
use crate::store::{Change, Prepared, Write};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const KEPT_SECONDS: i64 = 3600;
const LOOK: Duration = Duration::from_secs(60);
const EVENTS: &str = "events";

/// Removes old events until cancelled.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => sweep(&core, Timestamp::now()).await,
        }
    }
}

async fn sweep(core: &Core, now: Timestamp) {
    for (key, event) in core.store.list(EVENTS, "").objects {
        if !is_old(&event.tree, now) {
            continue;
        }
        let write = Write {
            resource: EVENTS.into(),
            key,
            expected: Some(event.revision),
            change: Change::Delete(Prepared::new((*event.tree).clone())),
        };
        // An event that was written to meanwhile is young again.
        let _ = core.store.write(write).await;
    }
}

fn is_old(event: &Value, now: Timestamp) -> bool {
    let time = |value: &Value| {
        value
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
    };
    let times = [
        time(&event["metadata"]["creationTimestamp"]),
        time(&event["lastTimestamp"]),
        time(&event["series"]["lastObservedTime"]),
    ];
    let last = times.into_iter().flatten().max();
    last.is_some_and(|last| now.as_second() - last.as_second() > KEPT_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_as_old_as_its_last_occurrence() {
        let now: Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
        let event = |last: &str| json!({"metadata": {"creationTimestamp": "2026-01-01T08:00:00Z"}, "lastTimestamp": last});
        assert!(is_old(&event("2026-01-01T08:30:00Z"), now));
        assert!(!is_old(&event("2026-01-01T09:30:00Z"), now));
    }
}
