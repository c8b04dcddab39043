//! What is asked of the log service and what it answers.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Logs one search answers at most.
pub const MAX_LINES: i64 = 100;
/// What `progress` says of a whole answer.
pub const COMPLETE: &str = "Complete";
/// What `progress` says of an answer over a part of the logs.
pub const INCOMPLETE: &str = "Incomplete";

/// A query over a logstore, as the newer form of GetLogs carries it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GetLogsRequest {
    /// First second.
    pub from: i64,
    /// The second after the last.
    pub to: i64,
    /// `search | select …`; empty takes all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// Only logs of this topic, when not empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// Most logs of a search.
    pub line: Option<i64>,
    /// Logs of a search that are left out first.
    pub offset: Option<i64>,
    /// Newest first.
    pub reverse: bool,
    /// Every second in order.
    pub accurate: bool,
    /// More machines for SQL; nothing to us.
    pub power_sql: bool,
    /// `mode=scan`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
}

impl GetLogsRequest {
    /// A query over a time range.
    pub fn new(query: impl Into<String>, from: i64, to: i64) -> Self {
        Self {
            from,
            to,
            query: query.into(),
            accurate: true,
            ..Self::default()
        }
    }
}

/// What is known of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogsMeta {
    /// [`COMPLETE`] or [`INCOMPLETE`].
    pub progress: String,
    /// Rows in the answer.
    pub count: i64,
    /// Whether there was an SQL part.
    #[serde(rename = "hasSQL")]
    pub has_sql: bool,
    /// Logs that were looked at.
    pub processed_rows: i64,
    /// Bytes of them.
    pub processed_bytes: i64,
    /// How long it took.
    pub elapsed_millisecond: i64,
    /// The search part.
    pub where_query: String,
    /// The SQL part.
    pub agg_query: String,
    /// Columns in their order.
    pub keys: Vec<String>,
    /// Whether every second was looked at.
    pub is_accurate: bool,
}

/// Rows and what is known of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogsAnswer {
    /// About the answer.
    pub meta: LogsMeta,
    /// Rows; values are texts.
    pub data: Vec<Map<String, Value>>,
}

impl LogsAnswer {
    /// Whether all logs in the range were taken into account.
    pub fn is_complete(&self) -> bool {
        self.meta.progress == COMPLETE
    }
}

/// A row's value as a text; nothing when it is absent or null.
pub fn column(row: &Map<String, Value>, name: &str) -> Option<String> {
    match row.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// How many logs there were in one part of a time range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// First second.
    pub from: i64,
    /// The second after the last.
    pub to: i64,
    /// How many.
    pub count: i64,
    /// [`COMPLETE`] or [`INCOMPLETE`].
    pub progress: String,
}

/// A logstore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logstore {
    /// Its name within the project.
    pub logstore_name: String,
    /// How many days logs are kept.
    pub ttl: u32,
    /// How many shards; all logs lie in one here.
    #[serde(default = "one_shard")]
    pub shard_count: u32,
}

fn one_shard() -> u32 {
    1
}

impl Logstore {
    /// A logstore that keeps logs for so many days.
    pub fn new(name: impl Into<String>, ttl_days: u32) -> Self {
        Self {
            logstore_name: name.into(),
            ttl: ttl_days,
            shard_count: 1,
        }
    }
}

/// The envelope of every error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// The documented code.
    pub error_code: String,
    /// What is wrong, for people.
    pub error_message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_as_the_vendor_s_client_sends_it_is_read() {
        let text = r#"{"from": 1704164600, "to": 1704164645, "line": 100, "offset": 0, "powerSql": false, "accurate": true,
            "fromNs": 0, "toNs": 0, "query": "* | select 1", "reverse": false, "forward": true}"#;
        let request: GetLogsRequest = serde_json::from_str(text).unwrap();
        assert_eq!(
            (request.from, request.line, request.query.as_str()),
            (1_704_164_600, Some(100), "* | select 1")
        );
    }

    #[test]
    fn the_smallest_answer_is_read() {
        let text =
            r#"{"meta":{"progress":"Complete"},"data":[{"active_devices":"42","n":7,"no":null}]}"#;
        let answer: LogsAnswer = serde_json::from_str(text).unwrap();
        assert!(answer.is_complete());
        let row = &answer.data[0];
        assert_eq!(column(row, "active_devices").as_deref(), Some("42"));
        assert_eq!(column(row, "n").as_deref(), Some("7"));
        assert_eq!((column(row, "no"), column(row, "absent")), (None, None));
    }
}
