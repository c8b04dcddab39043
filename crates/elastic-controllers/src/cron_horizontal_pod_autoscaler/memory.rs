//! What one pass over an object leaves for the next. Losing it costs time and nothing else: what must not be lost is in
//! the object's status.

use std::sync::Arc;

use elastic_core::CronHorizontalPodAutoscaler;
use elastic_core::cron_horizontal_pod_autoscaler::{Run, Schedules};
use kube::ResourceExt;

use super::target::Scaled;

/// Kept beside each object.
#[derive(Default)]
pub(super) struct Memory {
    read: Option<Read>,
    prepared: Option<Prepared>,
}

/// The expressions of one generation of a spec.
struct Read {
    uid: Option<String>,
    generation: i64,
    schedules: Arc<Schedules>,
}

/// A run that was claimed ahead and has not begun.
struct Prepared {
    run: Run,
    /// Its target as it was then; written to only if it is still that.
    scaled: Option<Scaled>,
}

impl Memory {
    /// What the expressions of `object` say; they are read again when its spec has changed.
    pub(super) fn schedules(
        &mut self,
        object: &CronHorizontalPodAutoscaler,
        default_zone: &str,
    ) -> Arc<Schedules> {
        let (uid, generation) = (object.uid(), object.metadata.generation);
        let is_of = |read: &&Read| read.uid == uid && Some(read.generation) == generation;
        if let Some(read) = self.read.as_ref().filter(is_of) {
            return read.schedules.clone();
        }
        let schedules = Arc::new(Schedules::read(&object.spec, default_zone));
        // Without a generation nobody knows whether a spec has changed.
        self.read = generation.map(|generation| Read {
            uid,
            generation,
            schedules: schedules.clone(),
        });
        schedules
    }

    /// The run that was claimed ahead.
    pub(super) fn ahead(&self) -> Option<&Run> {
        self.prepared.as_ref().map(|prepared| &prepared.run)
    }

    pub(super) fn prepare(&mut self, run: Run, scaled: Option<Scaled>) {
        self.prepared = Some(Prepared { run, scaled });
    }

    /// Before a run begins: its claim is used up, and what is known of its target is handed out.
    pub(super) fn begin(&mut self, run: &Run) -> Option<Scaled> {
        let is_it = |prepared: &mut Prepared| {
            prepared.run.job_id == run.job_id && prepared.run.scheduled == run.scheduled
        };
        self.prepared.take_if(is_it)?.scaled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(generation: Option<i64>, schedule: &str) -> CronHorizontalPodAutoscaler {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "x", "uid": "u", "generation": generation},
            "spec": {"scaleTargetRef": {"apiVersion": "v1", "kind": "K", "name": "n"},
                "jobs": [{"name": "j", "schedule": schedule, "targetSize": 1}]}
        }))
        .unwrap()
    }

    #[test]
    fn expressions_are_read_once_for_each_generation() {
        let mut memory = Memory::default();
        let first = memory.schedules(&object(Some(1), "@daily"), "UTC");
        let same = memory.schedules(&object(Some(1), "@daily"), "UTC");
        assert!(Arc::ptr_eq(&first, &same));
        let changed = memory.schedules(&object(Some(2), "@hourly"), "UTC");
        assert!(!Arc::ptr_eq(&first, &changed));
        let mut recreated = object(Some(2), "@daily");
        recreated.metadata.uid = Some("other".to_owned());
        assert!(!Arc::ptr_eq(&changed, &memory.schedules(&recreated, "UTC")));
        let unnumbered = memory.schedules(&object(None, "@daily"), "UTC");
        let again = memory.schedules(&object(None, "@daily"), "UTC");
        assert!(!Arc::ptr_eq(&unnumbered, &again));
    }

    #[test]
    fn a_claim_made_ahead_is_used_once_and_by_its_own_run() {
        let run = |job_id: &str| Run {
            job: "j".to_owned(),
            job_id: job_id.to_owned(),
            scheduled: jiff::Timestamp::UNIX_EPOCH,
            size: 1,
        };
        let mut memory = Memory::default();
        memory.prepare(run("a"), None);
        memory.begin(&run("b"));
        assert_eq!(memory.ahead(), Some(&run("a")), "another job's run");
        memory.begin(&run("a"));
        assert_eq!(memory.ahead(), None);
    }
}
