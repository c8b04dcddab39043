//! The exporter's file: where the log service is, and what to ask it. Every mistake is told with the field's path.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// Most queries of one file.
const MAX_QUERIES: usize = 200;
/// Shortest time between two questions.
const SHORTEST_INTERVAL_MS: u64 = 1_000;
/// Longest time between two questions.
const LONGEST_INTERVAL_MS: u64 = 3_600_000;
/// Longest range of one question.
const LONGEST_WINDOW_SECONDS: i64 = 7 * 86_400;
const DEFAULT_INTERVAL: &str = "15s";
const DEFAULT_WINDOW: &str = "60s";
/// How many missed answers make a number stale, when the file does not say when.
const STALE_INTERVALS: u64 = 4;

/// The file as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExporterFile {
    /// Where the log service is; may be given by flag instead.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The region; part of the signature.
    #[serde(default)]
    pub region: Option<String>,
    /// Between two questions, unless a query says otherwise.
    #[serde(default)]
    pub interval: Option<String>,
    /// How far back questions look, unless a query says otherwise.
    #[serde(default)]
    pub window: Option<String>,
    /// What to ask.
    pub queries: Vec<QueryFile>,
}

/// A query as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryFile {
    /// The metric's name.
    pub name: String,
    /// The metric's help text.
    #[serde(default)]
    pub help: Option<String>,
    /// The project.
    pub project: String,
    /// The logstore.
    pub logstore: String,
    /// `search | select …`, or a search for histograms.
    pub query: String,
    /// Whether rows are asked for, or counts over time.
    #[serde(default)]
    pub kind: QueryKind,
    /// The column with the number; may be left out when there is only one column besides the labels.
    #[serde(default)]
    pub value: Option<String>,
    /// Labels whose values come from columns: label to column.
    #[serde(default)]
    pub label_columns: BTreeMap<String, String>,
    /// Labels that are always the same.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Between two questions.
    #[serde(default)]
    pub interval: Option<String>,
    /// How far back each question looks.
    #[serde(default)]
    pub window: Option<String>,
    /// How long before now the window ends, for logs that come late.
    #[serde(default)]
    pub delay: Option<String>,
    /// How long a number is served without being renewed.
    #[serde(default)]
    pub stale_after: Option<String>,
}

/// How the log service is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum QueryKind {
    /// GetLogs, with an SQL part: rows with numbers.
    #[default]
    Logs,
    /// GetHistograms: how many logs there were.
    Histograms,
}

/// A checked file.
#[derive(Clone, Debug, PartialEq)]
pub struct ExporterConfig {
    /// Where the log service is, when the file says so.
    pub endpoint: Option<String>,
    /// The region, when the file says so.
    pub region: Option<String>,
    /// What to ask.
    pub queries: Vec<Query>,
}

/// A checked query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The metric's name.
    pub name: String,
    /// The metric's help text.
    pub help: String,
    /// The project.
    pub project: String,
    /// The logstore.
    pub logstore: String,
    /// The query.
    pub query: String,
    /// How it is asked.
    pub kind: QueryKind,
    /// The column with the number.
    pub value: Option<String>,
    /// Label to column.
    pub label_columns: BTreeMap<String, String>,
    /// Label to value.
    pub labels: BTreeMap<String, String>,
    /// Between two questions.
    pub interval_ms: u64,
    /// How far back each question looks.
    pub window_seconds: i64,
    /// How long before now the window ends.
    pub delay_seconds: i64,
    /// How long a number is served without being renewed.
    pub stale_after_ms: u64,
}

impl Query {
    /// The seconds that a question at this moment is about, the last one excluded.
    pub fn range(&self, now: i64) -> (i64, i64) {
        let to = now - self.delay_seconds;
        ((to - self.window_seconds).max(0), to.max(0))
    }
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ConfigError {
    /// The field's path, such as `queries[0].interval`.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

fn error(field: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError {
        field: field.into(),
        reason: reason.into(),
    }
}

impl ExporterFile {
    /// Checks everything that the form does not.
    pub fn check(self) -> Result<ExporterConfig, ConfigError> {
        if self.queries.is_empty() || self.queries.len() > MAX_QUERIES {
            return Err(error(
                "queries",
                format!("must have 1 to {MAX_QUERIES} items"),
            ));
        }
        let interval = self.interval.as_deref().unwrap_or(DEFAULT_INTERVAL);
        let window = self.window.as_deref().unwrap_or(DEFAULT_WINDOW);
        interval_ms("interval", interval)?;
        window_seconds("window", window)?;
        let mut queries: Vec<Query> = Vec::new();
        let mut seen = BTreeSet::new();
        for (number, query) in self.queries.into_iter().enumerate() {
            let path = format!("queries[{number}]");
            let query = query.check(&path, interval, window)?;
            if !seen.insert((query.name.clone(), query.labels.clone())) {
                let reason = format!(
                    "{} is there already with the same labels; give one of them another label",
                    query.name
                );
                return Err(error(format!("{path}.name"), reason));
            }
            let same = queries.iter().find(|other| other.name == query.name);
            if let Some(same) = same
                && same.help != query.help
            {
                let reason = format!("must be the same for all queries of {}", query.name);
                return Err(error(format!("{path}.help"), reason));
            }
            queries.push(query);
        }
        Ok(ExporterConfig {
            endpoint: self.endpoint,
            region: self.region,
            queries,
        })
    }
}

impl QueryFile {
    fn check(self, path: &str, interval: &str, window: &str) -> Result<Query, ConfigError> {
        let at = |field: &str| format!("{path}.{field}");
        self.check_texts(path)?;
        self.check_kind(path)?;
        self.check_labels(path)?;
        let interval_ms = interval_ms(
            &at("interval"),
            self.interval.as_deref().unwrap_or(interval),
        )?;
        let window_seconds =
            window_seconds(&at("window"), self.window.as_deref().unwrap_or(window))?;
        let delay = duration_ms(&at("delay"), self.delay.as_deref().unwrap_or("0s"))?;
        let stale_after_ms = match self.stale_after.as_deref() {
            Some(text) => duration_ms(&at("staleAfter"), text)?,
            None => interval_ms * STALE_INTERVALS,
        };
        if stale_after_ms <= interval_ms {
            return Err(error(
                at("staleAfter"),
                "must be longer than interval, or the number would come and go",
            ));
        }
        Ok(Query {
            help: self.help.unwrap_or_else(|| {
                format!(
                    "Pulled from logstore {} of project {}.",
                    self.logstore, self.project
                )
            }),
            name: self.name,
            project: self.project,
            logstore: self.logstore,
            query: self.query,
            kind: self.kind,
            value: self.value,
            label_columns: self.label_columns,
            labels: self.labels,
            interval_ms,
            window_seconds,
            delay_seconds: i64::try_from(delay / 1_000).unwrap_or(i64::MAX),
            stale_after_ms,
        })
    }

    fn check_texts(&self, path: &str) -> Result<(), ConfigError> {
        let at = |field: &str| format!("{path}.{field}");
        if !is_name(&self.name, true) {
            let reason = format!(
                "{:?} is no metric name; use letters, digits and underscores",
                self.name
            );
            return Err(error(at("name"), reason));
        }
        if self.name.starts_with(super::board::OWN_PREFIX) {
            let reason = format!(
                "names from {} on are the exporter's own",
                super::board::OWN_PREFIX
            );
            return Err(error(at("name"), reason));
        }
        for (field, text) in [
            ("project", &self.project),
            ("logstore", &self.logstore),
            ("query", &self.query),
        ] {
            if text.trim().is_empty() {
                return Err(error(at(field), "must not be empty"));
            }
        }
        Ok(())
    }

    fn check_labels(&self, path: &str) -> Result<(), ConfigError> {
        let at = |field: &str| format!("{path}.{field}");
        for label in self.labels.keys().chain(self.label_columns.keys()) {
            if !is_name(label, false) || label.starts_with("__") {
                let field = if self.labels.contains_key(label) {
                    "labels"
                } else {
                    "labelColumns"
                };
                return Err(error(
                    at(&format!("{field}.{label}")),
                    "is no label name; use letters, digits and underscores",
                ));
            }
        }
        if let Some(label) = self
            .labels
            .keys()
            .find(|label| self.label_columns.contains_key(*label))
        {
            return Err(error(
                at(&format!("labelColumns.{label}")),
                "is given in labels as well",
            ));
        }
        Ok(())
    }

    fn check_kind(&self, path: &str) -> Result<(), ConfigError> {
        let has_sql = self.query.contains('|');
        match self.kind {
            QueryKind::Logs if !has_sql => {
                let reason = "has no SQL part; write \"search | select … as number\", or set kind to histograms to count logs";
                Err(error(format!("{path}.query"), reason))
            }
            QueryKind::Histograms if has_sql => Err(error(
                format!("{path}.query"),
                "must be a search without | for histograms",
            )),
            QueryKind::Histograms if self.value.is_some() => Err(error(
                format!("{path}.value"),
                "has no meaning for histograms; leave it out",
            )),
            QueryKind::Histograms if !self.label_columns.is_empty() => Err(error(
                format!("{path}.labelColumns"),
                "has no meaning for histograms; leave it out",
            )),
            _ => Ok(()),
        }
    }
}

fn is_name(text: &str, colons: bool) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || colons && byte == b':';
    text.bytes().all(fits) && !text.is_empty() && !text.as_bytes()[0].is_ascii_digit()
}

fn interval_ms(field: &str, text: &str) -> Result<u64, ConfigError> {
    let interval = duration_ms(field, text)?;
    if (SHORTEST_INTERVAL_MS..=LONGEST_INTERVAL_MS).contains(&interval) {
        return Ok(interval);
    }
    Err(error(field, "must be from 1s to 1h"))
}

fn window_seconds(field: &str, text: &str) -> Result<i64, ConfigError> {
    let window = i64::try_from(duration_ms(field, text)? / 1_000).unwrap_or(i64::MAX);
    if (1..=LONGEST_WINDOW_SECONDS).contains(&window) {
        return Ok(window);
    }
    Err(error(field, "must be from 1s to 168h"))
}

/// `500ms`, `15s`, `5m`, `2h`.
fn duration_ms(field: &str, text: &str) -> Result<u64, ConfigError> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let found = units.iter().find_map(|(unit, factor)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*factor)
    });
    found.ok_or_else(|| {
        error(
            field,
            format!("{text:?} is no duration; write it like 15s, 5m or 1h"),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn file(change: impl FnOnce(&mut Value)) -> Result<ExporterConfig, ConfigError> {
        let mut file = json!({
            "queries": [{
                "name": "active_devices", "project": "chat", "logstore": "devices",
                "query": "* | select count(distinct device_id) as n",
            }],
        });
        change(&mut file);
        serde_json::from_value::<ExporterFile>(file)
            .unwrap()
            .check()
    }

    #[test]
    fn defaults_are_filled_in() {
        let config = file(|file| file["window"] = json!("5m")).unwrap();
        let query = &config.queries[0];
        assert_eq!(
            (
                query.interval_ms,
                query.window_seconds,
                query.stale_after_ms
            ),
            (15_000, 300, 60_000)
        );
        assert_eq!(query.range(1_000), (700, 1_000));
    }

    #[test]
    fn every_mistake_names_its_field() {
        let query =
            |field: &'static str, value: Value| file(move |file| file["queries"][0][field] = value);
        for (outcome, field) in [
            (file(|file| file["queries"] = json!([])), "queries"),
            (file(|file| file["interval"] = json!("fast")), "interval"),
            (query("name", json!("1x")), "queries[0].name"),
            (
                query("name", json!("springtide_log_query_up")),
                "queries[0].name",
            ),
            (query("project", json!(" ")), "queries[0].project"),
            (query("query", json!("*")), "queries[0].query"),
            (query("kind", json!("histograms")), "queries[0].query"),
            (query("interval", json!("10ms")), "queries[0].interval"),
            (query("window", json!("400h")), "queries[0].window"),
            (query("staleAfter", json!("15s")), "queries[0].staleAfter"),
            (
                query("labels", json!({"a-b": "c"})),
                "queries[0].labels.a-b",
            ),
            (
                file(|file| {
                    file["queries"][0]["labels"] = json!({"a": "b"});
                    file["queries"][0]["labelColumns"] = json!({"a": "b"});
                }),
                "queries[0].labelColumns.a",
            ),
            (
                file(|file| {
                    let first = file["queries"][0].clone();
                    file["queries"] = json!([first, first]);
                }),
                "queries[1].name",
            ),
        ] {
            assert_eq!(outcome.unwrap_err().field, field);
        }
    }
}
