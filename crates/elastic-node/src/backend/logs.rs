//! Logs. The cloud answers with the newest lines as one text; following means asking again and passing on what is new.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloud_api::GroupStatus;
use cloud_api::model::manage::DescribeContainerLogRequest;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kubelet_api::{BackendError, ByteStream, LogOptions};

use super::cloud_error;
use crate::engine::Shared;

/// Most lines one answer holds.
const MOST_LINES: i64 = 2_000;
/// Between two questions while following.
const FOLLOW: Duration = Duration::from_millis(500);
/// Lines asked for while following; more within one interval are cut at the front.
const FOLLOW_LINES: i64 = MOST_LINES;

pub(super) async fn stream(
    shared: Arc<Shared>,
    group: String,
    container: String,
    options: LogOptions,
) -> Result<ByteStream, BackendError> {
    let since_seconds = options.since_seconds;
    let since = since_seconds.map(|seconds| Timestamp::now() - SignedDuration::from_secs(seconds));
    let since = options.since_time.or(since);
    let tail = options.tail_lines;
    // Of no line the time of the newest is still asked for, because following begins after it.
    let lines = tail.map_or(MOST_LINES, |lines| {
        i64::try_from(lines).unwrap_or(MOST_LINES)
    });
    let request = DescribeContainerLogRequest {
        container_group_id: group.clone(),
        container_name: container.clone(),
        tail: Some(lines.clamp(1, MOST_LINES)),
        // Whole seconds; the rest is cut off here.
        start_time: since.map(whole_second),
        last_time: options.previous.then_some(true),
        // The time before each line tells lines of equal text apart while following, and cuts exactly.
        timestamps: Some(true),
        ..DescribeContainerLogRequest::default()
    };
    let attempted = format!("read the log of container {container} of group {group}");
    let answer = shared
        .cloud
        .call(&request)
        .await
        .map_err(|error| cloud_error(attempted.clone(), error))?;
    let mut follower = Follower {
        shared,
        request,
        // The line at the wanted moment is wanted, too.
        last: since.map_or(Timestamp::MIN, |since| {
            since - SignedDuration::from_nanos(1)
        }),
        strip: !options.timestamps,
        left: options.limit_bytes,
    };
    let mut first = follower.fresh(&answer.content);
    if tail == Some(0) {
        first = Bytes::new();
        follower.left = options.limit_bytes;
    }
    if !options.follow {
        return Ok(futures::stream::once(async move { Ok(first) }).boxed());
    }
    follower.request.tail = Some(FOLLOW_LINES);
    Ok(follow(follower, first))
}

/// As the cloud takes times; never later than the time itself.
fn whole_second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

struct Follower {
    shared: Arc<Shared>,
    request: DescribeContainerLogRequest,
    /// Time of the newest line passed on.
    last: Timestamp,
    strip: bool,
    left: Option<u64>,
}

fn follow(follower: Follower, first: Bytes) -> ByteStream {
    let first = (!first.is_empty()).then_some(first);
    futures::stream::unfold(
        (follower, first, false),
        |(mut follower, first, done)| async move {
            if let Some(first) = first {
                return Some((Ok(first), (follower, None, false)));
            }
            if done || follower.left == Some(0) {
                return None;
            }
            loop {
                tokio::time::sleep(FOLLOW).await;
                // Looked up before the question, so that the last lines of an ended container are not missed.
                let over = follower.is_over();
                let current = follower.ask().await?;
                let fresh = follower.fresh(&current);
                if !fresh.is_empty() {
                    return Some((Ok(fresh), (follower, None, over)));
                }
                if over {
                    return None;
                }
            }
        },
    )
    .boxed()
}

impl Follower {
    async fn ask(&mut self) -> Option<String> {
        if self.last > Timestamp::MIN {
            self.request.start_time = Some(whole_second(self.last));
        }
        match self.shared.cloud.call(&self.request).await {
            Ok(answer) => Some(answer.content),
            Err(error) => {
                tracing::debug!(group = self.request.container_group_id, %error, "following a log ended");
                None
            }
        }
    }

    fn is_over(&self) -> bool {
        let state = self.shared.state();
        match state.groups.get(&self.request.container_group_id) {
            None => true,
            Some(group) => group.entry.as_ref().is_some_and(|entry| {
                entry.status.is_final()
                    || (group.deleted_at.is_some() && entry.status != GroupStatus::Running)
            }),
        }
    }

    /// Lines newer than the last one passed on.
    fn fresh(&mut self, text: &str) -> Bytes {
        let (fresh, last) = newer(text, self.last, self.strip);
        self.last = last;
        let mut fresh = fresh;
        if let Some(left) = &mut self.left {
            fresh.truncate(
                usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(fresh.len()),
            );
            *left -= fresh.len() as u64;
        }
        Bytes::from(fresh)
    }
}

/// The lines of `text` after `last`, and the time of the newest; a line without a time belongs to the one before.
fn newer(text: &str, last: Timestamp, strip: bool) -> (Vec<u8>, Timestamp) {
    let mut newest = last;
    let mut passing = last == Timestamp::MIN;
    let mut fresh = Vec::new();
    for line in text.lines() {
        let stamped = line
            .split_once(' ')
            .and_then(|(time, rest)| Some((time.parse::<Timestamp>().ok()?, rest)));
        let body = match stamped {
            Some((time, rest)) => {
                passing = time > last;
                newest = newest.max(time);
                if strip { rest } else { line }
            }
            None => line,
        };
        if passing {
            fresh.extend_from_slice(body.as_bytes());
            fresh.push(b'\n');
        }
    }
    (fresh, newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:02.25Z two\nmore of two\n";

    #[test]
    fn lines_from_the_wanted_moment_on_are_cut_exactly() {
        let since: Timestamp = "2026-01-01T00:00:02.25Z".parse().unwrap();
        let (lines, _) = newer(TEXT, since - SignedDuration::from_nanos(1), true);
        assert_eq!(lines, b"two\nmore of two\n");
        assert_eq!(whole_second(since), "2026-01-01T00:00:02Z");
    }

    #[test]
    fn only_newer_lines_are_passed_on_while_following() {
        let (all, last) = newer(TEXT, Timestamp::MIN, true);
        assert_eq!(all, b"one\ntwo\nmore of two\n");
        let (none, last) = newer(TEXT, last, true);
        assert_eq!(
            (none.as_slice(), last.to_string().as_str()),
            (b"".as_slice(), "2026-01-01T00:00:02.25Z")
        );
        let (one, _) = newer(&format!("{TEXT}2026-01-01T00:00:03Z three\n"), last, false);
        assert_eq!(one, b"2026-01-01T00:00:03Z three\n");
    }
}
