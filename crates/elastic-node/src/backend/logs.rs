//! Logs. The cloud answers with the newest lines as one text; following means asking again and passing on what is new.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloud_api::GroupStatus;
use cloud_api::model::manage::DescribeContainerLogRequest;
use futures::StreamExt;
use jiff::Timestamp;
use kubelet_api::{BackendError, ByteStream, LogOptions};

use super::cloud_error;
use crate::engine::Shared;

/// Most lines one answer holds.
const MOST_LINES: i64 = 2_000;
/// Most bytes one answer holds.
const MOST_BYTES: i64 = 1 << 20;
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
    let lines = options.tail_lines.map_or(MOST_LINES, |lines| {
        i64::try_from(lines).unwrap_or(MOST_LINES).min(MOST_LINES)
    });
    let mut request = DescribeContainerLogRequest {
        container_group_id: group.clone(),
        container_name: container.clone(),
        tail: Some(lines),
        start_time: options.since_time.clone(),
        since_seconds: options.since_seconds,
        limit_bytes: options
            .limit_bytes
            .map(|bytes| i64::try_from(bytes).unwrap_or(MOST_BYTES).min(MOST_BYTES)),
        last_time: options.previous.then_some(true),
        // The time before each line tells lines of equal text apart while following.
        timestamps: Some(options.timestamps || options.follow),
        ..DescribeContainerLogRequest::default()
    };
    let attempted = format!("read the log of container {container} of group {group}");
    let first = if options.tail_lines == Some(0) && !options.follow {
        String::new()
    } else {
        let answer = shared
            .cloud
            .call(&request)
            .await
            .map_err(|error| cloud_error(attempted.clone(), error))?;
        answer.content
    };
    if !options.follow {
        return Ok(
            futures::stream::once(async move { Ok(Bytes::from(ending_in_newline(first))) }).boxed(),
        );
    }
    request.tail = Some(FOLLOW_LINES);
    request.limit_bytes = None;
    let follower = Follower {
        shared,
        request,
        last: Timestamp::MIN,
        strip: !options.timestamps,
        left: options.limit_bytes,
    };
    Ok(follow(follower, first))
}

fn ending_in_newline(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

struct Follower {
    shared: Arc<Shared>,
    request: DescribeContainerLogRequest,
    /// Time of the newest line passed on.
    last: Timestamp,
    strip: bool,
    left: Option<u64>,
}

fn follow(follower: Follower, first: String) -> ByteStream {
    futures::stream::unfold(
        (follower, Some(first), false),
        |(mut follower, text, done)| async move {
            if done || follower.left == Some(0) {
                return None;
            }
            let mut text = text;
            loop {
                let current = match text.take() {
                    Some(text) => text,
                    None => {
                        tokio::time::sleep(FOLLOW).await;
                        follower.ask().await?
                    }
                };
                // Looked up before the answer is passed on, so that the last lines of an ended container are not missed.
                let over = follower.is_over();
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
            self.request.start_time = Some(self.last.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            self.request.since_seconds = None;
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
