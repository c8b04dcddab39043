//! What each query last answered, and the page that Prometheus reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::Timestamp;

use super::config::Query;
use super::series::Series;

/// What the exporter's own metrics begin with.
pub const OWN_PREFIX: &str = "springtide_log_query_";
/// Reasons of failures that are counted apart; more are counted together.
const MAX_REASONS: usize = 30;
const OTHER: &str = "Other";

/// Why a question brought no numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A word, for a metric's label.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(reason: &str, message: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }
}

/// All queries and what they last answered.
#[derive(Clone, Debug)]
pub struct Board {
    queries: Vec<State>,
}

#[derive(Clone, Debug)]
struct State {
    name: String,
    help: String,
    /// Tells queries of one name apart.
    id: String,
    stale_after_ms: i64,
    runs: u64,
    failures: BTreeMap<String, u64>,
    last_duration_seconds: f64,
    last_success: Option<Timestamp>,
    series: Vec<Series>,
}

impl State {
    fn is_fresh(&self, now: Timestamp) -> bool {
        self.last_success
            .is_some_and(|last| now.as_millisecond() - last.as_millisecond() <= self.stale_after_ms)
    }
}

impl Board {
    /// Nothing answered yet.
    pub fn new(queries: &[Query]) -> Self {
        let names = |name: &str| queries.iter().filter(|query| query.name == name).count();
        let state = |(number, query): (usize, &Query)| State {
            name: query.name.clone(),
            help: query.help.clone(),
            id: match names(&query.name) {
                1 => query.name.clone(),
                _ => format!("{}#{number}", query.name),
            },
            stale_after_ms: i64::try_from(query.stale_after_ms).unwrap_or(i64::MAX),
            runs: 0,
            failures: BTreeMap::new(),
            last_duration_seconds: 0.0,
            last_success: None,
            series: Vec::new(),
        };
        Self {
            queries: queries.iter().enumerate().map(state).collect(),
        }
    }

    /// Takes down an answer, or that there was none.
    pub fn record(
        &mut self,
        number: usize,
        asked_at: Timestamp,
        answered_at: Timestamp,
        outcome: Result<Vec<Series>, Failure>,
    ) {
        let Some(state) = self.queries.get_mut(number) else {
            return;
        };
        state.runs += 1;
        state.last_duration_seconds = answered_at.duration_since(asked_at).as_secs_f64().max(0.0);
        match outcome {
            Ok(series) => {
                // The numbers are about the moment of the question.
                state.last_success = Some(asked_at);
                state.series = series;
            }
            Err(failure) => {
                let known = state.failures.contains_key(&failure.reason);
                let room = state.failures.len() < MAX_REASONS;
                let reason = if known || room {
                    failure.reason
                } else {
                    OTHER.to_owned()
                };
                *state.failures.entry(reason).or_default() += 1;
            }
        }
    }

    /// Whether every query has been asked at least once.
    pub fn is_ready(&self) -> bool {
        self.queries.iter().all(|state| state.runs > 0)
    }

    /// The page, as Prometheus reads it.
    pub fn page(&self, now: Timestamp) -> String {
        let mut page = String::new();
        let mut told = BTreeSet::new();
        for state in &self.queries {
            if !told.insert(&state.name) {
                continue;
            }
            head(&mut page, &state.name, "gauge", &state.help);
            let same = self.queries.iter().filter(|other| other.name == state.name);
            for one in same.filter(|one| one.is_fresh(now)) {
                for series in &one.series {
                    let labels = series
                        .labels
                        .iter()
                        .map(|(name, value)| (name.as_str(), value.as_str()));
                    line(&mut page, &state.name, labels, series.value);
                }
            }
        }
        self.own(&mut page, now);
        page
    }

    fn own(&self, page: &mut String, now: Timestamp) {
        type Number = fn(&State, Timestamp) -> Option<f64>;
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts and times stay far below 2^53"
        )]
        let facts: [(&str, &str, &str, Number); 5] = [
            (
                "runs_total",
                "counter",
                "Questions put to the log service.",
                |state, _| Some(state.runs as f64),
            ),
            (
                "duration_seconds",
                "gauge",
                "How long the newest answer took.",
                |state, _| (state.runs > 0).then_some(state.last_duration_seconds),
            ),
            (
                "last_success_timestamp_seconds",
                "gauge",
                "When the newest numbers were asked for.",
                |state, _| {
                    state
                        .last_success
                        .map(|last| last.as_millisecond() as f64 / 1_000.0)
                },
            ),
            (
                "fresh",
                "gauge",
                "Whether numbers are served: 0 when the newest are stale.",
                |state, now| Some(f64::from(u8::from(state.is_fresh(now)))),
            ),
            (
                "series",
                "gauge",
                "Series in the newest numbers.",
                |state, _| Some(state.series.len() as f64),
            ),
        ];
        for (name, kind, help, number) in facts {
            let name = format!("{OWN_PREFIX}{name}");
            head(page, &name, kind, help);
            for state in &self.queries {
                if let Some(number) = number(state, now) {
                    line(
                        page,
                        &name,
                        [("query", state.id.as_str())].into_iter(),
                        number,
                    );
                }
            }
        }
        self.errors(page);
    }

    fn errors(&self, page: &mut String) {
        let name = format!("{OWN_PREFIX}errors_total");
        head(
            page,
            &name,
            "counter",
            "Questions that brought no numbers, by reason.",
        );
        for state in &self.queries {
            for (reason, count) in &state.failures {
                let labels = [("query", state.id.as_str()), ("reason", reason.as_str())];
                #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
                line(page, &name, labels.into_iter(), *count as f64);
            }
        }
    }
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    // Writing to a text does not fail.
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line<'a>(
    page: &mut String,
    name: &str,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
    value: f64,
) {
    let labels: Vec<String> = labels
        .map(|(name, value)| {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{name}=\"{value}\"")
        })
        .collect();
    let labels = match labels.is_empty() {
        true => String::new(),
        false => format!("{{{}}}", labels.join(",")),
    };
    let _ = writeln!(page, "{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::config::ExporterFile;
    use super::*;

    fn board() -> Board {
        let query = json!({"name": "active_devices", "help": "Devices.", "project": "p", "logstore": "l", "query": "* | select 1", "interval": "10s", "staleAfter": "30s"});
        let config = serde_json::from_value::<ExporterFile>(json!({"queries": [query]}))
            .unwrap()
            .check()
            .unwrap();
        Board::new(&config.queries)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn one(value: f64, label: &str) -> Vec<Series> {
        let labels = BTreeMap::from([("room".to_owned(), label.to_owned())]);
        vec![Series { labels, value }]
    }

    #[test]
    fn a_number_is_served_until_it_is_stale() {
        let mut board = board();
        assert!(!board.is_ready());
        board.record(0, at(100), at(101), Ok(one(2_721.0, "a")));
        board.record(
            0,
            at(110),
            at(110),
            Err(Failure::new("Timeout", "no answer")),
        );
        assert!(board.is_ready());
        let page = board.page(at(130));
        assert!(
            page.contains("# TYPE active_devices gauge\nactive_devices{room=\"a\"} 2721\n"),
            "{page}"
        );
        assert!(
            page.contains("springtide_log_query_fresh{query=\"active_devices\"} 1\n"),
            "{page}"
        );
        assert!(page.contains("springtide_log_query_last_success_timestamp_seconds{query=\"active_devices\"} 100\n"), "{page}");
        assert!(
            page.contains(
                "springtide_log_query_errors_total{query=\"active_devices\",reason=\"Timeout\"} 1\n"
            ),
            "{page}"
        );
        assert!(
            page.contains("springtide_log_query_runs_total{query=\"active_devices\"} 2\n"),
            "{page}"
        );
        let page = board.page(at(131));
        assert!(!page.contains("active_devices{room"), "{page}");
        assert!(
            page.contains("springtide_log_query_fresh{query=\"active_devices\"} 0\n"),
            "{page}"
        );
    }

    #[test]
    fn a_series_that_is_not_answered_any_more_goes_at_once() {
        let mut board = board();
        board.record(0, at(100), at(100), Ok(one(1.0, "a")));
        board.record(0, at(110), at(110), Ok(one(1.0, "b")));
        let page = board.page(at(110));
        assert!(
            !page.contains("room=\"a\"") && page.contains("room=\"b\""),
            "{page}"
        );
    }

    #[test]
    fn reasons_are_bounded() {
        let mut board = board();
        for number in 0..100 {
            board.record(
                0,
                at(1),
                at(1),
                Err(Failure::new(&format!("E{number}"), "")),
            );
        }
        assert_eq!(board.queries[0].failures.len(), MAX_REASONS + 1);
        assert_eq!(board.queries[0].failures[OTHER], 70);
    }

    proptest! {
        #[test]
        fn a_page_has_one_line_a_series_whatever_the_labels_hold(label in "[a-z\"\\\\\n{}, ]{0,12}") {
            let mut board = board();
            board.record(0, at(100), at(100), Ok(one(1.0, &label)));
            let page = board.page(at(100));
            let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("active_devices{")).collect();
            prop_assert_eq!(lines.len(), 1);
            let end = "\"} 1";
            prop_assert!(lines[0].ends_with(end));
        }
    }
}
