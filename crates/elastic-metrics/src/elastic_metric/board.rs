//! What is known of every ElasticMetric, for the API and for finding two that claim the same.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use elastic_core::ElasticMetric;
use jiff::Timestamp;
use kube::ResourceExt;

use super::evaluate::{Problem, Reading};
use crate::adapter::{GroupResource, KindRow};

/// Namespace and name.
pub(super) type Key = (String, String);

/// A reading that was not renewed for so many intervals, and at least so long, is not shown.
const INTERVALS: u32 = 3;
const LEAST: Duration = Duration::from_secs(15);

/// One ElasticMetric with its newest outcome.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) metric: Arc<ElasticMetric>,
    /// Of the target.
    pub(crate) kind: Option<KindRow>,
    pub(crate) outcome: Result<Reading, Problem>,
    pub(super) read: Instant,
}

impl Entry {
    /// The outcome, unless nobody has looked for too long.
    pub(crate) fn reading(&self) -> Result<&Reading, Problem> {
        let interval = Duration::from_secs(u64::from(self.metric.interval_seconds()));
        if self.read.elapsed() > (interval * INTERVALS).max(LEAST) {
            return Err(Problem::new(
                "Stale",
                "the source has not been looked at for too long",
            ));
        }
        self.outcome.as_ref().map_err(Clone::clone)
    }

    fn describes(&self, resource: &GroupResource) -> bool {
        self.kind
            .as_ref()
            .is_some_and(|kind| kind.resource() == *resource)
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Board {
    entries: RwLock<BTreeMap<Key, Arc<Entry>>>,
    /// As the API server has them, also those not looked at yet.
    known: RwLock<BTreeMap<Key, Arc<ElasticMetric>>>,
}

pub(super) fn key(metric: &ElasticMetric) -> Key {
    (metric.namespace().unwrap_or_default(), metric.name_any())
}

impl Board {
    pub(super) fn know(&self, metric: Arc<ElasticMetric>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(key(&metric), metric);
    }

    pub(super) fn forget(&self, key: &Key) {
        self.known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
        self.entries
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    pub(super) fn known(&self, key: &Key) -> Option<Arc<ElasticMetric>> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    pub(super) fn put(&self, entry: Entry) {
        let key = key(&entry.metric);
        // A task that is being ended must not bring back what was deleted.
        if self.known(&key).is_some() {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            entries.insert(key, Arc::new(entry));
        }
    }

    /// The older ElasticMetric that claims the same, if there is one.
    pub(super) fn rival(&self, metric: &ElasticMetric) -> Option<String> {
        let (namespace, name) = key(metric);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let same_namespace = known
            .range((namespace.clone(), String::new())..)
            .take_while(|((space, _), _)| *space == namespace);
        let rivals = same_namespace
            .filter(|((_, other), rival)| *other != name && claims_same(rival, metric));
        let mut older = rivals.filter(|(_, rival)| age(rival) < age(metric));
        older.next().map(|((_, other), _)| other.clone())
    }

    /// Metrics of objects of a kind in a namespace.
    pub(crate) fn custom(
        &self,
        namespace: &str,
        resource: &GroupResource,
        metric: &str,
    ) -> Vec<Arc<Entry>> {
        self.find(|(space, _), entry| {
            space == namespace
                && entry.describes(resource)
                && entry.metric.metric_name() == metric
                && !entry.is_rejected()
        })
    }

    /// An external metric of a namespace.
    pub(crate) fn external(&self, namespace: &str, metric: &str) -> Option<Arc<Entry>> {
        let found = self.find(|(space, _), entry| {
            space == namespace
                && entry.metric.spec.target.is_none()
                && entry.metric.metric_name() == metric
                && !entry.is_rejected()
        });
        found.into_iter().next()
    }

    /// All that claim their metric, for discovery.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.find(|_, entry| !entry.is_rejected())
    }

    fn find(&self, wanted: impl Fn(&Key, &Entry) -> bool) -> Vec<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().filter(|(key, entry)| wanted(key, entry));
        found.map(|(_, entry)| entry.clone()).collect()
    }
}

impl Entry {
    /// Whether the object itself is at fault, so that it claims no metric.
    fn is_rejected(&self) -> bool {
        matches!(&self.outcome, Err(problem) if matches!(problem.reason, "Invalid" | "Conflict" | "UnknownKind"))
    }
}

/// Older first; the name decides between two of the same second.
fn age(metric: &ElasticMetric) -> (Timestamp, String) {
    let created = metric.metadata.creation_timestamp.as_ref();
    (
        created.map_or(Timestamp::MAX, |time| time.0),
        metric.name_any(),
    )
}

fn claims_same(left: &ElasticMetric, right: &ElasticMetric) -> bool {
    let target = |metric: &ElasticMetric| {
        let target = metric.spec.target.clone()?;
        Some((target.group().to_owned(), target.kind))
    };
    let meet = match (left.target_name(), right.target_name()) {
        (Some(left), Some(right)) => left == right,
        _ => true,
    };
    left.metric_name() == right.metric_name() && target(left) == target(right) && meet
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn metric(name: &str, second: i64, target: Value) -> Arc<ElasticMetric> {
        let object = json!({
            "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticMetric",
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": Timestamp::from_second(second).unwrap()},
            "spec": {"metric": "hits", "query": "q", "target": target}
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn of_two_that_claim_the_same_the_older_has_it() {
        let board = Board::default();
        let service = |name: &str| json!({"apiVersion": "v1", "kind": "Service", "name": name});
        let (first, second) = (
            metric("b", 10, service("web")),
            metric("a", 20, service("web")),
        );
        let other = metric("c", 30, service("api"));
        for one in [&first, &second, &other] {
            board.know(one.clone());
        }
        assert_eq!(board.rival(&first), None);
        assert_eq!(board.rival(&second).as_deref(), Some("b"));
        assert_eq!(board.rival(&other), None);
        board.forget(&key(&first));
        assert_eq!(board.rival(&second), None);
    }

    #[test]
    fn a_reading_nobody_renewed_is_not_shown() {
        let entry = |seconds: u64| Entry {
            metric: metric("a", 1, Value::Null),
            kind: None,
            outcome: Ok(Reading::default()),
            read: Instant::now()
                .checked_sub(Duration::from_secs(seconds))
                .unwrap(),
        };
        assert!(entry(1).reading().is_ok());
        assert_eq!(entry(60).reading().unwrap_err().reason, "Stale");
    }
}
