//! Looks at the cloud: often while groups start or stop, seldom otherwise, and completely at intervals.
//!
//! While groups start, only what changed lately is asked for; groups that stop are asked for by name (few) or by a
//! complete list (many), because a group that is gone shows only by its absence.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cloud_api::EciError;
use cloud_api::model::describe::{DescribeContainerGroupsRequest, Tag};
use cloud_api::model::status::{DescribeContainerGroupStatusRequest, GroupStatusEntry};
use elastic_core::names::tags;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::waiting::Motion;
use crate::config::Timing;

/// Groups in one answer.
const PAGE: u32 = 200;
/// Group ids in one question.
const IDS_PER_CALL: usize = 20;
/// Descriptions asked for between two looks, when the bound of [`sweep_every`] leaves no more.
const CLOSE_LOOKS: usize = 5;
/// From this many stopping groups on, a complete list is cheaper than asking by name.
const MANY_STOPPING: usize = 100;
/// While groups start, a look that took long is followed by as long a pause, but never by a longer one than this:
/// the pods of a burst wait for the next look.
const QUICK_PAUSE_MAX: Duration = Duration::from_millis(200);
/// The cloud's times are whole seconds, so a question about changes reaches this much further back.
const OVERLAP: Duration = Duration::from_secs(1);

pub(super) async fn look_at_cloud(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut eye = Eye {
        shared,
        last_full: None,
        last_look: None,
    };
    loop {
        let begun = Instant::now();
        let motion = eye.shared.state().motion(begun);
        if let Err(error) = eye.look(&motion, begun).await {
            tracing::warn!(%error, "the cloud's list of container groups could not be read, trying again");
        }
        let pause = eye.pause(begun.elapsed());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = eye.shared.poke.notified() => {
                // A burst pokes a thousand times; one short wait serves them all.
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(eye.quick(begun.elapsed())) => {}
                }
            }
        }
    }
}

/// Between complete looks. A look at changes is one call, a complete one a call per page; together they stay below one
/// call for each [`Timing::steady_poll`] and 200 groups.
fn sweep_every(groups: usize, timing: &Timing) -> Duration {
    let pages = u32::try_from(groups.div_ceil(PAGE as usize)).unwrap_or(u32::MAX);
    timing.sweep.max(timing.steady_poll.saturating_mul(pages))
}

/// Questions for descriptions between two looks: what [`sweep_every`] leaves of a call for each 200 groups.
fn close_looks(groups: usize) -> usize {
    (groups / PAGE as usize).saturating_sub(2).max(CLOSE_LOOKS)
}

struct Eye {
    shared: Arc<Shared>,
    last_full: Option<Instant>,
    last_look: Option<Instant>,
}

impl Eye {
    fn quick(&self, took: Duration) -> Duration {
        self.shared.timing.quick_poll.max(took.min(QUICK_PAUSE_MAX))
    }

    fn pause(&self, took: Duration) -> Duration {
        let motion = self.shared.state().motion(Instant::now());
        self.shared.events.set_busy(motion.starting > 0);
        if self.last_full.is_none() || motion.starting > 0 || !motion.stopping.is_empty() {
            self.quick(took)
        } else {
            self.shared.timing.steady_poll
        }
    }

    async fn look(&mut self, motion: &Motion, begun: Instant) -> Result<(), EciError> {
        let full_due = self.last_full.is_none_or(|last| {
            begun.duration_since(last) >= sweep_every(motion.groups, &self.shared.timing)
        });
        if full_due || motion.stopping.len() > MANY_STOPPING {
            self.look_at_all(begun).await?;
            self.last_full = Some(begun);
        } else if motion.groups > 0 {
            if !motion.stopping.is_empty() {
                self.look_at_some(&motion.stopping, begun).await?;
            }
            self.look_at_changes(begun).await?;
        }
        if motion.starting == 0 {
            self.look_closely().await?;
        }
        self.last_look = Some(begun);
        let (groups, orphans) = self.shared.state().figures();
        self.shared.figures.set(groups, orphans);
        self.shared.wake.notify_one();
        Ok(())
    }

    fn question(&self) -> DescribeContainerGroupStatusRequest {
        DescribeContainerGroupStatusRequest {
            tag: vec![Tag {
                key: tags::CLUSTER.to_owned(),
                value: self.shared.cluster_id.clone(),
            }],
            limit: Some(PAGE),
            ..DescribeContainerGroupStatusRequest::default()
        }
    }

    /// What changed since the last look. Groups that are not known are left to the next complete look.
    async fn look_at_changes(&self, begun: Instant) -> Result<(), EciError> {
        let since = self
            .last_look
            .map_or(self.shared.timing.sweep, |last| begun.duration_since(last))
            + OVERLAP;
        let seconds = since.as_secs() + u64::from(since.subsec_nanos() > 0);
        let question = DescribeContainerGroupStatusRequest {
            since_second: Some(seconds),
            ..self.question()
        };
        let entries = self.shared.cloud.all_statuses(question).await?;
        let mut state = self.shared.state();
        for entry in entries {
            state.put_entry(entry);
        }
        Ok(())
    }

    async fn look_at_some(&self, ids: &[String], begun: Instant) -> Result<(), EciError> {
        for ids in ids.chunks(IDS_PER_CALL) {
            let question = DescribeContainerGroupStatusRequest {
                container_group_ids: ids.to_vec(),
                ..self.question()
            };
            let entries = self.shared.cloud.all_statuses(question).await?;
            let mut state = self.shared.state();
            for id in ids
                .iter()
                .filter(|id| !entries.iter().any(|entry| entry.container_group_id == **id))
            {
                state.remove_group(id, begun);
            }
            for entry in entries {
                state.put_entry(entry);
            }
        }
        Ok(())
    }

    async fn look_at_all(&self, begun: Instant) -> Result<(), EciError> {
        let (mut present, mut unknown) = (HashSet::new(), Vec::new());
        let take = |page: Vec<GroupStatusEntry>| {
            let mut state = self.shared.state();
            for entry in page {
                present.insert(entry.container_group_id.clone());
                if state.groups.contains_key(&entry.container_group_id) {
                    state.put_entry(entry);
                } else {
                    unknown.push(entry);
                }
            }
        };
        self.shared
            .cloud
            .each_status_page(self.question(), take)
            .await?;
        self.adopt(unknown).await?;
        self.shared.state().keep_groups(&present, begun);
        Ok(())
    }

    /// Asks for what a status does not tell, once for each group and only when there is no hurry.
    async fn look_closely(&self) -> Result<(), EciError> {
        let ids = {
            let mut state = self.shared.state();
            let looks = close_looks(state.groups.len());
            state.undescribed(IDS_PER_CALL * looks)
        };
        for ids in ids.chunks(IDS_PER_CALL) {
            let question = DescribeContainerGroupsRequest {
                container_group_ids: ids.to_vec(),
                with_event: Some(true),
                ..DescribeContainerGroupsRequest::default()
            };
            let groups = self.shared.cloud.all_container_groups(question).await?;
            let mut state = self.shared.state();
            for group in groups {
                state.describe_group(&group);
            }
        }
        Ok(())
    }

    /// Finds out whose the unknown groups are.
    async fn adopt(&self, unknown: Vec<GroupStatusEntry>) -> Result<(), EciError> {
        for entries in unknown.chunks(IDS_PER_CALL) {
            let ids: Vec<String> = entries
                .iter()
                .map(|entry| entry.container_group_id.clone())
                .collect();
            let question = DescribeContainerGroupsRequest {
                container_group_ids: ids,
                ..DescribeContainerGroupsRequest::default()
            };
            let groups = self.shared.cloud.all_container_groups(question).await?;
            let at = Instant::now();
            let mut state = self.shared.state();
            for group in groups {
                let ours = group
                    .tags
                    .iter()
                    .any(|tag| tag.key == tags::CLUSTER && tag.value == self.shared.cluster_id);
                // Its creation may have been answered while we asked.
                if ours && !state.groups.contains_key(&group.container_group_id) {
                    let entry = entries
                        .iter()
                        .find(|entry| entry.container_group_id == group.container_group_id);
                    state.adopt_group(&group, entry.cloned(), at);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_nothing_moves_there_is_at_most_a_call_a_second_for_each_200_groups() {
        let timing = Timing::default();
        for groups in [0_usize, 1, 199, 200, 201, 1_000, 5_000, 20_000, 50_000] {
            let pages = groups.div_ceil(200).max(1) as f64;
            let sweep = sweep_every(groups, &timing).as_secs_f64();
            let looks = sweep / timing.steady_poll.as_secs_f64();
            // In each round all looks but one ask for changes, and one asks for everything.
            let calls = (looks - 1.0 + pages) / sweep;
            assert!(calls <= pages, "{groups} groups: {calls} calls a second");
        }
        assert_eq!(sweep_every(100, &timing), timing.sweep);
    }
}
