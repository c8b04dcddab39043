//! What groups use, sampled each second, the newest few minutes kept.

use crate::backend::{ContainerUsage, InterfaceUsage};
use crate::shared::{Shared, plan_of};
use cloud_api::model::GroupStatus;
use futures::StreamExt;
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Samples kept per group: five minutes.
const WINDOW: usize = 300;
const INTERVAL: Duration = Duration::from_secs(1);
/// Groups sampled at the same time.
const AT_ONCE: usize = 16;

/// One look at a group.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Timestamp,
    pub(crate) containers: Vec<ContainerUsage>,
    pub(crate) interfaces: Vec<InterfaceUsage>,
}

#[derive(Default)]
pub(crate) struct Samples {
    groups: Mutex<HashMap<String, VecDeque<Sample>>>,
}

impl Samples {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, VecDeque<Sample>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, id: &str, sample: Sample) {
        let mut groups = self.lock();
        let samples = groups.entry(id.to_owned()).or_default();
        if samples.len() == WINDOW {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// All samples of a group, oldest first.
    pub(crate) fn of(&self, id: &str) -> Vec<Sample> {
        self.lock()
            .get(id)
            .map(|samples| samples.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// The newest two, of which the difference is the usage now.
    pub(crate) fn newest(&self, id: &str) -> Option<(Option<Sample>, Sample)> {
        let groups = self.lock();
        let samples = groups.get(id)?;
        let before = samples
            .len()
            .checked_sub(2)
            .and_then(|index| samples.get(index))
            .cloned();
        Some((before, samples.back()?.clone()))
    }

    pub(crate) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }
}

/// Samples until the cloud shuts down. Simulated groups are computed when somebody asks instead.
pub(crate) async fn run_sampler(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            _ = ticks.tick() => sample_all(&shared).await,
        }
    }
}

async fn sample_all(shared: &Shared) {
    let plans: Vec<_> = {
        let state = shared.state();
        state
            .groups
            .values()
            .filter(|group| group.status == GroupStatus::Running)
            .map(plan_of)
            .collect()
    };
    futures::stream::iter(plans)
        .for_each_concurrent(AT_ONCE, |plan| async move {
            let seen = tokio::join!(shared.backend.usage(&plan), shared.backend.traffic(&plan));
            match seen {
                (Ok(containers), traffic) => shared.samples.add(
                    &plan.id,
                    Sample {
                        at: shared.now(),
                        containers,
                        // A group whose last container has just ended shows none.
                        interfaces: traffic.unwrap_or_default(),
                    },
                ),
                (Err(error), _) => {
                    tracing::debug!(group = %plan.id, %error, "usage cannot be sampled")
                }
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_bounded_and_the_newest_two_are_given() {
        let samples = Samples::default();
        assert!(samples.newest("a").is_none());
        for second in 0..1_000 {
            samples.add(
                "a",
                Sample {
                    at: Timestamp::from_second(second).unwrap(),
                    containers: vec![],
                    interfaces: vec![],
                },
            );
        }
        assert_eq!(samples.of("a").len(), WINDOW);
        let (before, newest) = samples.newest("a").unwrap();
        assert_eq!(
            (before.unwrap().at.as_second(), newest.at.as_second()),
            (998, 999)
        );
        samples.forget("a");
        assert!(samples.of("a").is_empty());
    }
}
