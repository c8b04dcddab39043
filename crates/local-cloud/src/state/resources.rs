//! Everything that is kept besides groups: one table for each kind, one row on disk for each member.
//!
//! What a member's status is follows from its times and the clock, so nothing has to run for it to move on.

use super::faults::FaultRecord;
use super::identity::{SessionRecord, UserRecord};
use cloud_api::model::Tag;
use cloud_api::model::commit::CommitContainerRequest;
use cloud_api::model::data_cache::CreateDataCacheRequest;
use cloud_api::model::image_cache::CreateImageCacheRequest;
use cloud_api::model::virtual_node::CreateVirtualNodeRequest;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A kind of which rows are kept.
pub(crate) trait Resource: Clone + Serialize + DeserializeOwned {
    /// The beginning of its rows' keys.
    const KIND: &'static str;
    fn table(resources: &Resources) -> &BTreeMap<String, Self>;
    fn table_mut(resources: &mut Resources) -> &mut BTreeMap<String, Self>;
}

macro_rules! tables {
    ($($field:ident: $type:ty = $kind:literal),* $(,)?) => {
        /// All tables.
        #[derive(Debug, Default)]
        pub(crate) struct Resources {
            $(pub(crate) $field: BTreeMap<String, $type>,)*
        }

        impl Resources {
            /// Takes up one row as it was written; rows of kinds that no version knows any more are let go.
            pub(crate) fn load(&mut self, key: &str, bytes: &[u8]) -> Result<(), serde_json::Error> {
                let Some((kind, id)) = key.split_once('/') else { return Ok(()) };
                match kind {
                    $($kind => { self.$field.insert(id.to_owned(), serde_json::from_slice(bytes)?); })*
                    _ => {}
                }
                Ok(())
            }
        }

        $(impl Resource for $type {
            const KIND: &'static str = $kind;

            fn table(resources: &Resources) -> &BTreeMap<String, Self> {
                &resources.$field
            }

            fn table_mut(resources: &mut Resources) -> &mut BTreeMap<String, Self> {
                &mut resources.$field
            }
        })*
    };
}

tables! {
    image_caches: ImageCacheRecord = "image-cache",
    data_caches: DataCacheRecord = "data-cache",
    commits: CommitRecord = "commit",
    operations: OperationRecord = "operation",
    virtual_nodes: VirtualNodeRecord = "virtual-node",
    eips: EipRecord = "eip",
    fixed_addresses: FixedAddress = "fixed-address",
    faults: FaultRecord = "fault",
    file_systems: FileSystemRecord = "file-system",
    users: UserRecord = "user",
    sessions: SessionRecord = "session",
}

/// Two stages and an end, each as long as the next; a change later is one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    First,
    Second,
    Done,
    Changing,
}

/// Which stage something is in that was asked for then, and perhaps changed later.
pub(crate) fn stage(
    created_at: Timestamp,
    changed_at: Option<Timestamp>,
    now: Timestamp,
    length: SignedDuration,
) -> Stage {
    let within = |from: Timestamp, stages: i32| now.duration_since(from) < length * stages;
    match changed_at {
        Some(changed_at) if within(changed_at, 1) => Stage::Changing,
        Some(_) => Stage::Done,
        None if within(created_at, 1) => Stage::First,
        None if within(created_at, 2) => Stage::Second,
        None => Stage::Done,
    }
}

/// The end of so many days; `None` when nothing was said, or nothing but 0.
pub(crate) fn expiry(from: Timestamp, days: Option<i64>) -> Option<Timestamp> {
    const LONGEST_DAYS: i64 = 36_500;
    let days = days.filter(|days| *days > 0)?.min(LONGEST_DAYS);
    from.checked_add(SignedDuration::from_hours(days * 24)).ok()
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageCacheRecord {
    pub(crate) request: CreateImageCacheRequest,
    pub(crate) group_id: String,
    pub(crate) snapshot_id: String,
    /// Made because a group wanted it, not because somebody asked.
    pub(crate) automatic: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) changed_at: Option<Timestamp>,
    pub(crate) matched_at: Option<Timestamp>,
}

impl ImageCacheRecord {
    /// When it goes by itself; an automatic one a month after it was last of use, or a week unused.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        if self.automatic {
            return match self.matched_at {
                Some(matched_at) => expiry(matched_at, Some(30)),
                None => expiry(self.created_at, Some(7)),
            };
        }
        expiry(self.created_at, self.request.retention_days)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DataCacheRecord {
    pub(crate) request: CreateDataCacheRequest,
    pub(crate) group_id: String,
    pub(crate) snapshot_id: String,
    pub(crate) created_at: Timestamp,
    pub(crate) changed_at: Option<Timestamp>,
    pub(crate) matched_at: Option<Timestamp>,
}

impl DataCacheRecord {
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        expiry(self.created_at, self.request.retention_days)
    }

    pub(crate) fn bucket(&self) -> &str {
        let bucket = self.request.bucket.as_deref().unwrap_or_default();
        if bucket.is_empty() { "default" } else { bucket }
    }
}

/// How a commit ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CommitEnd {
    pub(crate) at: Timestamp,
    /// What went wrong.
    pub(crate) failure: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CommitRecord {
    pub(crate) request: CommitContainerRequest,
    pub(crate) created_at: Timestamp,
    pub(crate) end: Option<CommitEnd>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OperationRecord {
    pub(crate) group_id: String,
    pub(crate) kind: String,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) closed: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VirtualNodeRecord {
    pub(crate) request: CreateVirtualNodeRequest,
    pub(crate) address: Ipv4Addr,
    pub(crate) zone: String,
    pub(crate) eip: Option<String>,
    pub(crate) created_at: Timestamp,
}

/// A public address; on paper, nothing is reachable from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EipRecord {
    pub(crate) address: Ipv4Addr,
    /// Mbit/s.
    pub(crate) bandwidth: i64,
    /// Made with its user, and goes with it.
    pub(crate) automatic: bool,
    /// The group or virtual node that has it.
    pub(crate) user: Option<String>,
    pub(crate) created_at: Timestamp,
}

/// An address that is kept for the next group of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FixedAddress {
    pub(crate) v_switch: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) until: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileSystemRecord {
    pub(crate) description: String,
    /// Server names.
    pub(crate) mount_targets: Vec<String>,
    pub(crate) created_at: Timestamp,
}

/// The tags of a member of a table.
pub(crate) trait Tagged: Resource {
    fn tags(&self) -> &Vec<Tag>;
    fn tags_mut(&mut self) -> &mut Vec<Tag>;
}

macro_rules! tagged {
    ($($type:ty),*) => {$(
        impl Tagged for $type {
            fn tags(&self) -> &Vec<Tag> {
                &self.request.tag
            }

            fn tags_mut(&mut self) -> &mut Vec<Tag> {
                &mut self.request.tag
            }
        }
    )*};
}

tagged!(ImageCacheRecord, DataCacheRecord, VirtualNodeRecord);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::tests::at;

    #[test]
    fn stages_follow_each_other_by_the_clock() {
        let length = SignedDuration::from_secs(10);
        let stage_at = |second| stage(at(0), None, at(second), length);
        assert_eq!(
            [0, 9, 10, 19, 20, 99].map(stage_at),
            [
                Stage::First,
                Stage::First,
                Stage::Second,
                Stage::Second,
                Stage::Done,
                Stage::Done
            ]
        );
        let changed = |second| stage(at(0), Some(at(50)), at(second), length);
        assert_eq!([55, 60].map(changed), [Stage::Changing, Stage::Done]);
        assert_eq!(stage(at(0), None, at(0), SignedDuration::ZERO), Stage::Done);
    }

    #[test]
    fn rows_of_unknown_kinds_are_let_go_and_unreadable_ones_are_not() {
        let mut resources = Resources::default();
        assert!(resources.load("of-the-future/a", b"{}").is_ok());
        assert!(resources.load("eip/a", b"{}").is_err());
        assert!(resources.eips.is_empty());
    }

    #[test]
    fn nothing_expires_that_was_to_stay() {
        assert_eq!(expiry(at(0), None), None);
        assert_eq!(expiry(at(0), Some(0)), None);
        assert_eq!(expiry(at(0), Some(1)), Some(at(86_400)));
    }
}
