//! One group as it is kept: what was asked, what was granted, how it goes.

use cloud_api::catalog::Size;
use cloud_api::model::{CreateContainerGroupRequest, GroupStatus};
use cloud_api::money::Amount;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

/// Most events that a group keeps: the newest ones.
pub(crate) const MAX_EVENTS: usize = 50;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    pub(crate) id: String,
    pub(crate) request: Arc<CreateContainerGroupRequest>,
    pub(crate) zone: String,
    pub(crate) v_switch: String,
    pub(crate) address: Ipv4Addr,
    /// Rounded, as billed.
    pub(crate) size: Size,
    pub(crate) per_second: Amount,
    pub(crate) simulated: bool,
    pub(crate) status: GroupStatus,
    pub(crate) created_at: Timestamp,
    pub(crate) changed_at: Timestamp,
    pub(crate) billed_from: Option<Timestamp>,
    pub(crate) billed_until: Option<Timestamp>,
    pub(crate) init_containers: Vec<ContainerRecord>,
    pub(crate) containers: Vec<ContainerRecord>,
    pub(crate) events: VecDeque<EventRecord>,
    pub(crate) conditions: Vec<ConditionRecord>,
    /// Somebody wants it gone.
    pub(crate) deleting: bool,
    /// Rises with every restart and update that is asked for.
    pub(crate) generation: u64,
    /// The last one that was carried out.
    pub(crate) applied_generation: u64,
    /// Whether stock and address are taken.
    pub(crate) holds_resources: bool,
    /// The machine type, when one was asked for.
    #[serde(default)]
    pub(crate) machine: Option<String>,
    #[serde(default)]
    pub(crate) spot: Option<SpotRecord>,
    /// Id and address of its public address.
    #[serde(default)]
    pub(crate) eip: Option<(String, Ipv4Addr)>,
    /// Images that an image cache brought along.
    #[serde(default)]
    pub(crate) cached_images: Vec<String>,
    /// Directories that stand for network shares, by server.
    #[serde(default)]
    pub(crate) shares: BTreeMap<String, PathBuf>,
    /// Containers that the next generation starts anew; all of them when unset.
    #[serde(default)]
    pub(crate) renewing: Option<Vec<String>>,
    /// Ends badly as soon as it runs, because somebody asked for that.
    #[serde(default)]
    pub(crate) doomed: bool,
}

/// The terms of a spot group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SpotRecord {
    /// The highest price per hour.
    pub(crate) limit: Option<f64>,
    /// Until then nobody takes it away.
    pub(crate) protected_until: Timestamp,
    /// When it is taken away, once that is decided.
    pub(crate) release_at: Option<Timestamp>,
    /// Hundredths of the list price that are paid.
    pub(crate) discount: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) name: String,
    pub(crate) state: RunState,
    pub(crate) previous: Option<RunState>,
    pub(crate) restart_count: u32,
    /// The number of the current run; never used twice for one name.
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    pub(crate) image_id: String,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum RunState {
    Waiting {
        reason: String,
        message: String,
    },
    Running {
        started_at: Timestamp,
    },
    Terminated {
        exit_code: i32,
        signal: i32,
        reason: String,
        message: String,
        started_at: Option<Timestamp>,
        finished_at: Timestamp,
    },
}

impl Default for RunState {
    fn default() -> Self {
        Self::waiting("ContainerCreating", "")
    }
}

impl RunState {
    pub(crate) fn waiting(reason: &str, message: impl Into<String>) -> Self {
        Self::Waiting {
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    pub(crate) fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Terminated { exit_code, .. } => Some(*exit_code),
            _ => None,
        }
    }

    pub(crate) fn started_at(&self) -> Option<Timestamp> {
        match self {
            Self::Running { started_at } => Some(*started_at),
            Self::Terminated { started_at, .. } => *started_at,
            Self::Waiting { .. } => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventRecord {
    pub(crate) warning: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) count: u32,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConditionRecord {
    pub(crate) kind: String,
    pub(crate) status: bool,
    pub(crate) reason: String,
    pub(crate) since: Timestamp,
}

impl GroupRecord {
    /// Moves to another status, and opens or closes the bill.
    pub(crate) fn set_status(&mut self, status: GroupStatus, now: Timestamp) {
        if status.is_billed() && self.billed_from.is_none() {
            self.billed_from = Some(now);
        }
        if status.is_final() {
            self.close_bill(now);
        }
        self.status = status;
    }

    /// Ends the billing, if it has begun and not ended yet.
    pub(crate) fn close_bill(&mut self, now: Timestamp) {
        if self.billed_from.is_some() && self.billed_until.is_none() {
            self.billed_until = Some(now);
        }
    }

    /// Notes an event; one that repeats the newest is counted instead.
    pub(crate) fn note(
        &mut self,
        warning: bool,
        reason: &str,
        message: impl Into<String>,
        now: Timestamp,
    ) {
        let message = message.into();
        let same = |event: &&mut EventRecord| event.reason == reason && event.message == message;
        if let Some(event) = self.events.iter_mut().rev().find(same) {
            event.count += 1;
            event.last = now;
            return;
        }
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        let event = EventRecord {
            warning,
            reason: reason.to_owned(),
            message,
            count: 1,
            first: now,
            last: now,
        };
        self.events.push_back(event);
    }

    /// The container of this name, init containers included.
    pub(crate) fn container(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers
            .iter()
            .chain(&self.init_containers)
            .find(|container| container.name == name)
    }

    /// The container of this name, init containers included.
    pub(crate) fn container_mut(&mut self, name: &str) -> Option<&mut ContainerRecord> {
        self.containers
            .iter_mut()
            .chain(&mut self.init_containers)
            .find(|container| container.name == name)
    }

    /// Whether all containers take requests.
    pub(crate) fn is_ready(&self) -> bool {
        self.status == GroupStatus::Running
            && self.containers.iter().all(|container| container.ready)
    }

    /// Works the conditions out anew; those that stay as they are keep their time.
    pub(crate) fn refresh_conditions(&mut self, now: Timestamp) {
        let initialized = self
            .init_containers
            .iter()
            .all(|container| container.state.exit_code() == Some(0));
        let created = !matches!(
            self.status,
            GroupStatus::Scheduling | GroupStatus::ScheduleFailed
        );
        let done = self.status == GroupStatus::Succeeded;
        let ready = self.is_ready();
        let released = self
            .spot
            .as_ref()
            .is_some_and(|spot| spot.release_at.is_some());
        let not_ready = match self.status {
            GroupStatus::Succeeded => "PodCompleted",
            GroupStatus::Expired => "BidFailed",
            _ => "ContainersNotReady",
        };
        let wanted = [
            (
                "ContainerInstanceCreated",
                created && !released,
                if released {
                    "SpotToBeReleased"
                } else {
                    "Creating"
                },
            ),
            ("PodScheduled", created, "Creating"),
            (
                "Initialized",
                initialized && created,
                if done {
                    "PodCompleted"
                } else {
                    "ContainersNotInitialized"
                },
            ),
            ("ContainersReady", ready, not_ready),
            ("Ready", ready, not_ready),
        ];
        for (index, (kind, status, reason)) in wanted.into_iter().enumerate() {
            let reason = if status {
                String::new()
            } else {
                reason.to_owned()
            };
            match self.conditions.get_mut(index) {
                Some(condition) if condition.status == status => condition.reason = reason,
                Some(condition) => {
                    condition.status = status;
                    condition.reason = reason;
                    condition.since = now;
                }
                None => self.conditions.push(ConditionRecord {
                    kind: kind.to_owned(),
                    status,
                    reason,
                    since: now,
                }),
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(crate) fn record(id: &str) -> GroupRecord {
        GroupRecord {
            id: id.to_owned(),
            request: Arc::default(),
            zone: "z".to_owned(),
            v_switch: "v".to_owned(),
            address: Ipv4Addr::new(10, 4, 1, 2),
            size: cloud_api::catalog::DEFAULT_SIZE,
            per_second: Amount(122_520),
            simulated: true,
            status: GroupStatus::Scheduling,
            created_at: at(0),
            changed_at: at(0),
            billed_from: None,
            billed_until: None,
            init_containers: Vec::new(),
            containers: vec![ContainerRecord {
                name: "main".to_owned(),
                ..Default::default()
            }],
            events: VecDeque::new(),
            conditions: Vec::new(),
            deleting: false,
            generation: 0,
            applied_generation: 0,
            holds_resources: true,
            machine: None,
            spot: None,
            eip: None,
            cached_images: Vec::new(),
            shares: BTreeMap::new(),
            renewing: None,
            doomed: false,
        }
    }

    #[test]
    fn the_bill_runs_from_pending_to_the_final_status() {
        let mut group = record("a");
        group.set_status(GroupStatus::Pending, at(10));
        group.set_status(GroupStatus::Running, at(12));
        group.set_status(GroupStatus::Succeeded, at(20));
        group.close_bill(at(30));
        assert_eq!(
            (group.billed_from, group.billed_until),
            (Some(at(10)), Some(at(20)))
        );
    }

    #[test]
    fn a_group_that_never_got_a_place_costs_nothing() {
        let mut group = record("a");
        group.set_status(GroupStatus::ScheduleFailed, at(10));
        group.close_bill(at(20));
        assert_eq!((group.billed_from, group.billed_until), (None, None));
    }

    #[test]
    fn events_are_bounded_and_repeats_are_counted() {
        let mut group = record("a");
        group.note(false, "Pulled", "same", at(1));
        group.note(false, "Pulled", "same", at(2));
        assert_eq!(
            (
                group.events.len(),
                group.events[0].count,
                group.events[0].last
            ),
            (1, 2, at(2))
        );
        for number in 0..MAX_EVENTS {
            group.note(true, "BackOff", number.to_string(), at(3));
        }
        assert_eq!(group.events.len(), MAX_EVENTS);
        assert_eq!(group.events[0].message, "0");
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let mut group = record("a");
        group.refresh_conditions(at(1));
        group.set_status(GroupStatus::Running, at(2));
        group.refresh_conditions(at(2));
        group.containers[0].ready = true;
        group.refresh_conditions(at(3));
        let since = |kind: &str| {
            let condition = group
                .conditions
                .iter()
                .find(|condition| condition.kind == kind)
                .unwrap();
            (condition.status, condition.since)
        };
        assert_eq!(since("ContainerInstanceCreated"), (true, at(2)));
        assert_eq!(since("Ready"), (true, at(3)));
    }
}
