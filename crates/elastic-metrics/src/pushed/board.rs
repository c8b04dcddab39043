//! The newest samples of what is pushed, and what they answer. Bounded; what nobody pushes any more is forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::message::Pushed;
use crate::custom::shapes::SeriesValue;
use crate::selector::Selector;
use crate::value::millis;

/// Series that are kept.
pub(super) const MAX_SERIES: usize = 20_000;
/// An older sample is no value any more.
const STALE_AFTER_MS: i64 = 60_000;
/// A series that is older counts as ended, as it would for Prometheus.
const FORGET_AFTER_MS: i64 = 300_000;
/// Senders of one series that are told apart.
const MAX_REPLICAS: usize = 8;
/// Between two searches for series to forget.
const SWEEP_EVERY_MS: i64 = 30_000;
pub(crate) const NAMESPACE_LABEL: &str = "namespace";

type Labels = BTreeMap<String, String>;

/// One sender's newest sample.
#[derive(Clone, Copy, Debug)]
struct Newest {
    /// The sender's time.
    at_ms: i64,
    /// The same, but not later than its arrival: from here it ages.
    aged_from_ms: i64,
    value: f64,
}

impl Newest {
    fn is_fresh(self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.aged_from_ms) <= STALE_AFTER_MS
    }

    fn is_forgotten(self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.aged_from_ms) > FORGET_AFTER_MS
    }
}

/// The newest samples of those who push a series, by their names; mostly one without a name.
#[derive(Debug, Default)]
struct Senders(Vec<(String, Newest)>);

impl Senders {
    fn of(&self, replica: &str) -> Option<Newest> {
        let found = self.0.iter().find(|(name, _)| name == replica);
        found.map(|(_, newest)| *newest)
    }

    /// What counts: the newest, by the clock of who took it where a sender's is ahead.
    fn newest(&self) -> Option<Newest> {
        let all = self.0.iter().map(|(_, newest)| *newest);
        all.max_by_key(|newest| newest.aged_from_ms)
    }

    fn put(&mut self, replica: String, newest: Newest) {
        self.0.retain(|(name, _)| *name != replica);
        if self.0.len() >= MAX_REPLICAS {
            let oldest = (0..self.0.len()).min_by_key(|index| self.0[*index].1.aged_from_ms);
            oldest.map(|index| self.0.remove(index));
        }
        self.0.push((replica, newest));
    }

    fn end(&mut self, replica: &str) {
        self.0.retain(|(name, _)| name != replica);
    }
}

#[derive(Default)]
struct Inner {
    metrics: HashMap<String, BTreeMap<Labels, Senders>>,
    series: usize,
    swept_ms: i64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Board {
    inner: Mutex<Inner>,
}

/// What became of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Metrics of which a value is another one than before.
    pub(crate) changed: BTreeSet<String>,
    /// Series for which there was no room.
    pub(crate) left_out: usize,
}

/// A question about objects of one kind.
pub(crate) struct Questioned<'a> {
    pub(crate) metric: &'a str,
    /// The label that names the object.
    pub(crate) label: &'a str,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) selector: &'a Selector,
}

/// One object's value in thousandths and the date of its oldest sample, or why it has none.
pub(crate) type Found = Result<(i64, Timestamp), String>;

impl Board {
    /// Keeps what is newer than what was known.
    pub(crate) fn put(&self, pushed: Vec<Pushed>, now_ms: i64) -> Taken {
        let mut inner = self.lock();
        if now_ms.saturating_sub(inner.swept_ms) >= SWEEP_EVERY_MS {
            inner.sweep(now_ms);
        }
        let mut taken = Taken::default();
        for one in pushed {
            inner.put(one, now_ms, &mut taken);
        }
        taken
    }

    /// Values by object, added up over an object's series. None when nobody pushes the metric for such objects.
    pub(crate) fn of_objects(
        &self,
        asked: &Questioned<'_>,
        now_ms: i64,
    ) -> Option<BTreeMap<String, Found>> {
        let inner = self.lock();
        let series = inner.metrics.get(asked.metric)?;
        let mut sums: BTreeMap<String, Result<(f64, i64), String>> = BTreeMap::new();
        let mut is_known = false;
        for (labels, newest) in living(series, now_ms) {
            let namespace = labels.get(NAMESPACE_LABEL).map(String::as_str);
            let is_here = asked
                .namespace
                .is_none_or(|wanted| namespace == Some(wanted));
            let Some(name) = labels.get(asked.label).filter(|_| is_here) else {
                continue;
            };
            is_known = true;
            if !asked.selector.matches(labels) {
                continue;
            }
            let sum = sums.entry(name.clone()).or_insert(Ok((0.0, i64::MAX)));
            match usable(asked.metric, newest, now_ms) {
                Ok(value) => {
                    if let Ok((sum, oldest)) = sum {
                        *sum += value;
                        *oldest = newest.aged_from_ms.min(*oldest);
                    }
                }
                Err(why) => *sum = Err(why),
            }
        }
        let finish = |sum: Result<(f64, i64), String>| {
            let (sum, oldest) = sum?;
            let millis = millis(sum).map_err(|error| error.to_string())?;
            Ok((millis, time(oldest)))
        };
        let found = sums.into_iter().map(|(name, sum)| (name, finish(sum)));
        is_known.then(|| found.collect())
    }

    /// Series for an external metric: those of the namespace, and those of none. None when nobody pushes the metric there.
    pub(crate) fn external(
        &self,
        metric: &str,
        namespace: &str,
        selector: &Selector,
        now_ms: i64,
    ) -> Option<Result<Vec<SeriesValue>, String>> {
        let inner = self.lock();
        let series = inner.metrics.get(metric)?;
        let mut here = living(series, now_ms)
            .filter(|(labels, _)| {
                let own = labels.get(NAMESPACE_LABEL);
                own.is_none_or(|own| own == namespace)
            })
            .peekable();
        here.peek()?;
        let value = |(labels, newest): (&Labels, Newest)| {
            let value = usable(metric, newest, now_ms)?;
            Ok(SeriesValue {
                labels: labels.clone(),
                millis: millis(value)
                    .map_err(|error| format!("a pushed series of {metric}: {error}"))?,
                at: time(newest.aged_from_ms),
            })
        };
        let fitting = here.filter(|(labels, _)| selector.matches(labels));
        Some(fitting.map(value).collect())
    }

    /// Metrics with the labels that their series have.
    pub(crate) fn listed(&self, now_ms: i64) -> BTreeMap<String, BTreeSet<String>> {
        let inner = self.lock();
        let mut listed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (metric, series) in &inner.metrics {
            for (labels, _) in living(series, now_ms) {
                let names = listed.entry(metric.clone()).or_default();
                names.extend(labels.keys().cloned());
            }
        }
        listed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn put(&mut self, one: Pushed, now_ms: i64, taken: &mut Taken) {
        let senders = self.metrics.get(&one.metric);
        let senders = senders.and_then(|series| series.get(&one.labels));
        let own = senders.and_then(|senders| senders.of(&one.replica));
        // A clock that was ahead and has been put right is believed again.
        if own.is_some_and(|known| one.at_ms < known.at_ms && known.at_ms <= now_ms) {
            return;
        }
        let Some(value) = one.value else {
            self.end(&one, taken);
            return;
        };
        let before = senders.and_then(Senders::newest);
        if before.is_none() {
            if self.series >= MAX_SERIES {
                self.sweep(now_ms);
            }
            if self.series >= MAX_SERIES {
                taken.left_out += 1;
                return;
            }
            self.series += 1;
        }
        let newest = Newest {
            at_ms: one.at_ms,
            aged_from_ms: one.at_ms.min(now_ms),
            value,
        };
        let series = self.metrics.entry(one.metric.clone()).or_default();
        let senders = series.entry(one.labels).or_default();
        senders.put(one.replica, newest);
        // Another sender may know something newer.
        let after = senders.newest().filter(|after| after.is_fresh(now_ms));
        let is_same = |after: Newest| {
            before.is_some_and(|before| {
                before.value.to_bits() == after.value.to_bits() && before.is_fresh(now_ms)
            })
        };
        if after.is_some_and(|after| !is_same(after)) {
            taken.changed.insert(one.metric);
        }
    }

    /// Ends what one sender had. The series lives on as long as another one pushes it.
    fn end(&mut self, one: &Pushed, taken: &mut Taken) {
        let Some(series) = self.metrics.get_mut(&one.metric) else {
            return;
        };
        let Some(senders) = series.get_mut(&one.labels) else {
            return;
        };
        let value = |senders: &Senders| senders.newest().map(|newest| newest.value.to_bits());
        let before = value(senders);
        senders.end(&one.replica);
        let after = value(senders);
        if before != after {
            taken.changed.insert(one.metric.clone());
        }
        if after.is_none() {
            series.remove(&one.labels);
            self.series -= 1;
        }
        if series.is_empty() {
            self.metrics.remove(&one.metric);
        }
    }

    fn sweep(&mut self, now_ms: i64) {
        self.swept_ms = now_ms;
        for series in self.metrics.values_mut() {
            series.retain(|_, senders| {
                senders.0.retain(|(_, newest)| !newest.is_forgotten(now_ms));
                !senders.0.is_empty()
            });
        }
        self.metrics.retain(|_, series| !series.is_empty());
        self.series = self.metrics.values().map(BTreeMap::len).sum();
    }
}

/// Series that somebody still pushes, each with what counts.
fn living(
    series: &BTreeMap<Labels, Senders>,
    now_ms: i64,
) -> impl Iterator<Item = (&Labels, Newest)> {
    let newest = series.iter().filter_map(|(labels, senders)| {
        let newest = senders.newest()?;
        Some((labels, newest))
    });
    newest.filter(move |(_, newest)| !newest.is_forgotten(now_ms))
}

fn usable(metric: &str, newest: Newest, now_ms: i64) -> Result<f64, String> {
    if !newest.is_fresh(now_ms) {
        let age = now_ms.saturating_sub(newest.aged_from_ms) / 1_000;
        let most = STALE_AFTER_MS / 1_000;
        return Err(format!(
            "the newest pushed sample of {metric} is {age} s old, {most} s is the most"
        ));
    }
    if !newest.value.is_finite() {
        let value = newest.value;
        return Err(format!(
            "the pushed value of {metric} is {value}, not a number"
        ));
    }
    Ok(newest.value)
}

fn time(at_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn pushed(metric: &str, labels: &[(&str, &str)], at_ms: i64, value: f64) -> Pushed {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Pushed {
            metric: metric.to_owned(),
            labels: labels.collect(),
            replica: String::new(),
            at_ms,
            value: Some(value),
        }
    }

    fn by(replica: &str, mut one: Pushed) -> Pushed {
        one.replica = replica.to_owned();
        one
    }

    fn of_pods(
        board: &Board,
        selector: &str,
        now_ms: i64,
    ) -> Option<Vec<(String, Result<i64, String>)>> {
        let asked = Questioned {
            metric: "rps",
            label: "pod",
            namespace: Some("shop"),
            selector: &Selector::parse(selector).unwrap(),
        };
        let found = board.of_objects(&asked, now_ms)?;
        let value = |found: Found| found.map(|(millis, _)| millis);
        Some(
            found
                .into_iter()
                .map(|(name, found)| (name, value(found)))
                .collect(),
        )
    }

    #[test]
    fn an_objects_series_are_added_up_within_its_namespace() {
        let board = Board::default();
        let row = |namespace, pod, path, value| {
            pushed(
                "rps",
                &[("namespace", namespace), ("pod", pod), ("path", path)],
                NOW,
                value,
            )
        };
        let rows = vec![
            row("shop", "a", "/", 1.5),
            row("shop", "a", "/x", 2.0),
            row("shop", "b", "/", 4.0),
            row("other", "a", "/", 8.0),
        ];
        let taken = board.put(rows, NOW);
        assert_eq!(taken.changed, BTreeSet::from(["rps".to_owned()]));
        let all = vec![("a".to_owned(), Ok(3_500)), ("b".to_owned(), Ok(4_000))];
        assert_eq!(of_pods(&board, "", NOW), Some(all));
        assert_eq!(
            of_pods(&board, "path=/x", NOW),
            Some(vec![("a".to_owned(), Ok(2_000))])
        );
        assert_eq!(
            of_pods(&board, "path=/nobody", NOW),
            Some(Vec::new()),
            "known, but not by this selector"
        );
    }

    #[test]
    fn only_another_value_is_a_change_and_older_samples_change_nothing() {
        let board = Board::default();
        let one = |at_ms, value| vec![pushed("queue", &[("namespace", "shop")], at_ms, value)];
        assert_eq!(board.put(one(NOW, 5.0), NOW).changed.len(), 1);
        assert!(
            board
                .put(one(NOW + 1_000, 5.0), NOW + 1_000)
                .changed
                .is_empty()
        );
        assert!(
            board
                .put(one(NOW + 500, 9.0), NOW + 1_000)
                .changed
                .is_empty(),
            "out of order"
        );
        assert_eq!(
            board.put(one(NOW + 2_000, 6.0), NOW + 2_000).changed.len(),
            1
        );
        let late = NOW + 2_000 + STALE_AFTER_MS + 1;
        assert_eq!(
            board.put(one(late, 6.0), late).changed.len(),
            1,
            "it was stale"
        );
        // A sender whose clock was an hour ahead, and then is right.
        board.put(one(late + 3_600_000, 7.0), late);
        assert_eq!(board.put(one(late + 1, 8.0), late + 1).changed.len(), 1);
    }

    #[test]
    fn what_is_stale_or_no_number_is_an_error_and_what_has_ended_is_gone() {
        let board = Board::default();
        let series = |shard| [("namespace", "shop"), ("queue", shard)];
        board.put(
            vec![
                pushed("depth", &series("a"), NOW, 1.0),
                pushed("depth", &series("b"), NOW + 40_000, 2.0),
            ],
            NOW + 40_000,
        );
        let ask = |selector: &str, now_ms| {
            let selector = Selector::parse(selector).unwrap();
            let found = board.external("depth", "shop", &selector, now_ms);
            found.map(|found| found.map(|all| all.iter().map(|one| one.millis).collect::<Vec<_>>()))
        };
        assert_eq!(ask("", NOW + 50_000), Some(Ok(vec![1_000, 2_000])));
        let why = ask("", NOW + 70_000).unwrap().unwrap_err();
        assert!(
            why.contains("70 s old"),
            "one that is too old makes the sum unknown: {why}"
        );
        assert_eq!(ask("queue=b", NOW + 70_000), Some(Ok(vec![2_000])));
        board.put(
            vec![pushed("depth", &series("b"), NOW + 70_000, f64::NAN)],
            NOW + 70_000,
        );
        assert!(
            ask("queue=b", NOW + 70_000)
                .unwrap()
                .unwrap_err()
                .contains("NaN")
        );
        for shard in ["a", "b"] {
            let ended = Pushed {
                value: None,
                ..pushed("depth", &series(shard), NOW + 71_000, 0.0)
            };
            assert_eq!(board.put(vec![ended], NOW + 71_000).changed.len(), 1);
        }
        assert_eq!(ask("", NOW + 71_000), None);
        assert!(board.listed(NOW + 71_000).is_empty());
    }

    #[test]
    fn external_series_are_those_of_the_namespace_and_those_of_none() {
        let board = Board::default();
        let rows = vec![
            pushed("sales", &[("namespace", "shop")], NOW, 1.0),
            pushed("sales", &[("namespace", "other")], NOW, 2.0),
            pushed("weather", &[], NOW, 3.0),
        ];
        board.put(rows, NOW);
        let none = Selector::default();
        let count = |metric, namespace| {
            let found = board.external(metric, namespace, &none, NOW);
            found.map(|found| found.unwrap().len())
        };
        assert_eq!(count("sales", "shop"), Some(1));
        assert_eq!(count("sales", "third"), None);
        assert_eq!(count("weather", "third"), Some(1));
    }

    #[test]
    fn a_series_that_two_replicas_push_counts_once_and_the_newest_wins() {
        let board = Board::default();
        let labels = [("namespace", "shop"), ("pod", "a")];
        let from = |replica, at_ms, value| vec![by(replica, pushed("rps", &labels, at_ms, value))];
        let value = |now_ms| of_pods(&board, "", now_ms).map(|found| found[0].1.clone());
        board.put(from("p-0", NOW, 5.0), NOW);
        assert_eq!(
            board
                .put(from("p-1", NOW + 400, 6.0), NOW + 400)
                .changed
                .len(),
            1
        );
        assert_eq!(value(NOW + 500), Some(Ok(6_000)));
        // What is older than the other's sample comes late: kept, but it is no change.
        assert!(
            board
                .put(from("p-0", NOW + 300, 4.0), NOW + 500)
                .changed
                .is_empty()
        );
        assert_eq!(value(NOW + 500), Some(Ok(6_000)));
        board.put(from("p-0", NOW + 1_000, 7.0), NOW + 1_000);
        assert_eq!(value(NOW + 1_000), Some(Ok(7_000)));
        // One whose clock is an hour ahead does not win for an hour.
        board.put(from("p-1", NOW + 3_600_000, 1.0), NOW + 1_100);
        board.put(from("p-0", NOW + 2_000, 8.0), NOW + 2_000);
        assert_eq!(value(NOW + 2_000), Some(Ok(8_000)));
        assert_eq!(board.lock().series, 1);
    }

    #[test]
    fn what_one_replica_ends_lives_on_while_another_pushes_it() {
        let board = Board::default();
        let labels = [("namespace", "shop"), ("pod", "a")];
        let from = |replica, at_ms, value| by(replica, pushed("rps", &labels, at_ms, value));
        let ended = |replica, at_ms| Pushed {
            value: None,
            ..from(replica, at_ms, 0.0)
        };
        let value = |now_ms| of_pods(&board, "", now_ms).map(|found| found[0].1.clone());
        let both = vec![from("p-0", NOW, 5.0), from("p-1", NOW + 100, 6.0)];
        board.put(both, NOW + 100);
        assert_eq!(
            board
                .put(vec![ended("p-1", NOW + 200)], NOW + 200)
                .changed
                .len(),
            1
        );
        assert_eq!(value(NOW + 200), Some(Ok(5_000)));
        // One that never pushed it has nothing to end.
        assert!(
            board
                .put(vec![ended("p-2", NOW + 300)], NOW + 300)
                .changed
                .is_empty()
        );
        // One that has fallen silent is forgotten alone.
        let later = NOW + FORGET_AFTER_MS + 1_000;
        board.put(vec![from("p-1", later, 9.0)], later);
        assert_eq!(
            board.lock().metrics["rps"].values().next().unwrap().0.len(),
            1
        );
        assert_eq!(
            board
                .put(vec![ended("p-1", later + 1)], later + 1)
                .changed
                .len(),
            1
        );
        assert_eq!(of_pods(&board, "", later + 1), None);
        assert_eq!(board.lock().series, 0);
    }

    #[test]
    fn there_is_room_for_so_many_replicas_and_the_oldest_makes_room() {
        let mut senders = Senders::default();
        for index in 0..MAX_REPLICAS + 3 {
            let at_ms = NOW + i64::try_from(index).unwrap();
            let newest = Newest {
                at_ms,
                aged_from_ms: at_ms,
                value: 1.0,
            };
            senders.put(index.to_string(), newest);
        }
        assert_eq!(senders.0.len(), MAX_REPLICAS);
        assert!(senders.of("2").is_none() && senders.of("3").is_some());
    }

    #[test]
    fn there_is_room_for_so_many_series_and_forgotten_ones_make_room() {
        let board = Board::default();
        let rows = |from: usize, count, now_ms| {
            let row = |index: usize| pushed("many", &[("pod", &index.to_string())], now_ms, 1.0);
            (from..from + count).map(row).collect::<Vec<_>>()
        };
        assert_eq!(board.put(rows(0, MAX_SERIES + 3, NOW), NOW).left_out, 3);
        let later = NOW + FORGET_AFTER_MS + 1;
        assert_eq!(board.put(rows(MAX_SERIES, 10, later), later).left_out, 0);
        assert_eq!(board.lock().series, 10);
    }

    proptest! {
        #[test]
        fn the_count_of_series_is_kept_whatever_comes(
            steps in prop::collection::vec((0_usize..4, 0_usize..6, 0_usize..3, 0_i64..400_000, any::<bool>()), 1..60),
        ) {
            let board = Board::default();
            for (metric, pod, replica, at_ms, ended) in steps {
                let (metric, pod) = (format!("m{metric}"), format!("p{pod}"));
                let mut one = pushed(&metric, &[("pod", &pod)], at_ms, at_ms as f64);
                one.replica = format!("r{replica}");
                if ended {
                    one.value = None;
                }
                board.put(vec![one], at_ms);
                let inner = board.lock();
                let counted: usize = inner.metrics.values().map(BTreeMap::len).sum();
                prop_assert_eq!(counted, inner.series);
                prop_assert!(inner.metrics.values().all(|series| !series.is_empty()));
                let mut senders = inner.metrics.values().flat_map(BTreeMap::values);
                prop_assert!(senders.all(|senders| (1..=3).contains(&senders.0.len())));
            }
        }
    }
}
