//! What goes by itself when its time is over.

use super::State;
use super::faults::FaultRecord;
use super::identity::SessionRecord;
use super::resources::{
    CommitRecord, DataCacheRecord, FixedAddress, ImageCacheRecord, OperationRecord, Resource,
};
use jiff::{SignedDuration, Timestamp};

/// How long ended commits and operations are told about.
const KEEP_TASKS: SignedDuration = SignedDuration::from_hours(24 * 30);

impl State {
    /// Takes rows away whose time is over.
    pub(crate) fn sweep_rows(&mut self, now: Timestamp) {
        let over = |end: Option<Timestamp>| end.is_some_and(|end| end <= now);
        self.drop_rows(|cache: &ImageCacheRecord| over(cache.expires_at()));
        self.drop_rows(|cache: &DataCacheRecord| over(cache.expires_at()));
        self.drop_rows(|commit: &CommitRecord| {
            let ended = commit.end.as_ref().map(|end| end.at);
            ended.is_some_and(|at| now.duration_since(at) > KEEP_TASKS)
        });
        self.drop_rows(|operation: &OperationRecord| {
            now.duration_since(operation.expires_at) > KEEP_TASKS
        });
        self.drop_rows(|session: &SessionRecord| session.expires_at <= now);
        self.drop_rows(|fault: &FaultRecord| fault.is_spent(now));
        for fixed in self.drop_rows(|fixed: &FixedAddress| fixed.until <= now) {
            self.pools.give_back_address(&fixed.v_switch, fixed.address);
        }
    }

    fn drop_rows<T: Resource>(&mut self, is_over: impl Fn(&T) -> bool) -> Vec<T> {
        let over: Vec<String> = T::table(&self.resources)
            .iter()
            .filter(|(_, row)| is_over(row))
            .map(|(id, _)| id.clone())
            .collect();
        over.iter().filter_map(|id| self.take_row(id)).collect()
    }
}
