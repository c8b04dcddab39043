//! SQL over chosen logs: a table in memory that lives as long as one query, filled with the columns the query names.
//!
//! With an index only its fields are columns, of the types it gives them. Without one every field is, and values that
//! look like numbers are numbers.

mod aggregates;
mod functions;
mod translate;

use super::record::{FieldType, IndexRecord, LogView, SOURCE, TAG, TIME, TOPIC};
use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, InterruptHandle, params_from_iter};
use std::collections::HashMap;
use translate::{Translated, quote_identifier, translate};

/// Most columns of the table.
const MAX_COLUMNS: usize = 500;
/// Most rows of an answer.
const MAX_ROWS: usize = 100_000;
/// Most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 30 * 1024 * 1024;
/// Longest text that SQL may make.
const MAX_TEXT_BYTES: i32 = 16 * 1024 * 1024;
/// Most memory of all queries together.
const MAX_MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// Rows that are put into the table at once.
const BATCH: usize = 1_000;

#[derive(Clone, Debug, PartialEq)]
struct Column {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Time,
    Is(FieldType),
    /// A number when it looks like one.
    Any,
}

impl Column {
    fn definition(&self) -> String {
        let affinity = match self.kind {
            Kind::Time | Kind::Is(FieldType::Long) => "INTEGER",
            Kind::Is(FieldType::Double) => "REAL",
            Kind::Is(FieldType::Text) => "TEXT",
            Kind::Any => "NUMERIC",
        };
        format!("{} {affinity}", quote_identifier(&self.name))
    }

    fn value(&self, text: &str) -> Value {
        match self.kind {
            Kind::Is(FieldType::Long) => text.trim().parse().map_or(Value::Null, Value::Integer),
            Kind::Is(FieldType::Double) => text.trim().parse().map_or(Value::Null, Value::Real),
            Kind::Is(FieldType::Text) | Kind::Any | Kind::Time => Value::Text(text.to_owned()),
        }
    }
}

/// Names of columns, and rows of texts.
pub(super) type Rows = (Vec<String>, Vec<Vec<String>>);

/// A query with the table it reads.
pub(super) struct Table {
    connection: Connection,
    query: Translated,
    columns: Vec<Column>,
    /// Columns by the key of the field, in lower case without an index.
    places: HashMap<String, usize>,
    has_index: bool,
    waiting: Vec<Vec<Value>>,
}

impl Table {
    /// Prepares a query; the error says what is wrong with it.
    pub(super) fn new(
        sql: &str,
        index: Option<&IndexRecord>,
        now: Timestamp,
    ) -> Result<Self, String> {
        let query = translate(sql)?;
        let connection = open(now).map_err(|error| told(&error))?;
        let mut table = Self {
            connection,
            query,
            columns: Vec::new(),
            places: HashMap::new(),
            has_index: index.is_some(),
            waiting: Vec::new(),
        };
        table.begin(index)?;
        table.resolve()?;
        Ok(table)
    }

    /// What ends a query that takes too long.
    pub(super) fn interrupt_handle(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    fn begin(&mut self, index: Option<&IndexRecord>) -> Result<(), String> {
        let text = Kind::Is(FieldType::Text);
        for (name, kind) in [(TIME, Kind::Time), (SOURCE, text), (TOPIC, text)] {
            self.places.insert(name.to_owned(), self.columns.len());
            let name = name.to_owned();
            self.columns.push(Column { name, kind });
        }
        for (name, key, kind) in index.into_iter().flat_map(IndexRecord::columns) {
            let known = self
                .columns
                .iter()
                .any(|one| one.name.eq_ignore_ascii_case(&name));
            if !known && self.wants(&name) && self.columns.len() < MAX_COLUMNS {
                self.places.insert(key, self.columns.len());
                let kind = Kind::Is(kind);
                self.columns.push(Column { name, kind });
            }
        }
        let definitions: Vec<String> = self.columns.iter().map(Column::definition).collect();
        let create = format!("CREATE TABLE log ({}); BEGIN", definitions.join(", "));
        self.connection
            .execute_batch(&create)
            .map_err(|error| told(&error))
    }

    fn wants(&self, name: &str) -> bool {
        self.query.has_star || self.query.names.contains(&name.to_lowercase())
    }

    /// Finds out which names are columns that no log may have, and adds them; with an index they are mistakes.
    fn resolve(&mut self) -> Result<(), String> {
        for _ in 0..MAX_COLUMNS {
            let outcome = self
                .connection
                .prepare(&self.query.sql)
                .map(|statement| statement.readonly());
            let error = match outcome {
                Ok(true) => return Ok(()),
                Ok(false) => return Err("the part after | must only read".to_owned()),
                Err(error) => error,
            };
            let message = told(&error);
            let Some(name) = missing_column(&message) else {
                return Err(message);
            };
            let is_tag = name.starts_with(TAG);
            if self.has_index && !is_tag || self.place_of(&name).is_some() {
                return Err(format!(
                    "Column '{name}' cannot be resolved; give the logstore's index this field"
                ));
            }
            self.add_column(&name)?;
        }
        Err(format!("the query names more than {MAX_COLUMNS} columns"))
    }

    fn place_of(&self, key: &str) -> Option<usize> {
        match self.places.get(key) {
            Some(place) => Some(*place),
            None if self.has_index => None,
            None => self.places.get(&key.to_lowercase()).copied(),
        }
    }

    fn add_column(&mut self, name: &str) -> Result<usize, String> {
        if self.columns.len() >= MAX_COLUMNS {
            return Err(format!(
                "the logs have more than {MAX_COLUMNS} fields; name those you want"
            ));
        }
        self.flush()?;
        let column = Column {
            name: name.to_owned(),
            kind: Kind::Any,
        };
        let alter = format!("ALTER TABLE log ADD COLUMN {}", column.definition());
        self.connection
            .execute_batch(&alter)
            .map_err(|error| told(&error))?;
        let place = self.columns.len();
        let key = if self.has_index {
            name.to_owned()
        } else {
            name.to_lowercase()
        };
        self.places.insert(key, place);
        self.columns.push(column);
        Ok(place)
    }

    /// Puts one log into the table.
    pub(super) fn insert(&mut self, view: LogView<'_>) -> Result<(), String> {
        if !self.has_index {
            let mut unknown = Vec::new();
            view.for_each(&mut |key, _| {
                if self.place_of(key).is_none() && self.wants(key) {
                    unknown.push(key.to_owned());
                }
            });
            for key in unknown {
                if self.place_of(&key).is_none() {
                    self.add_column(&key)?;
                }
            }
        }
        let mut row = vec![Value::Null; self.columns.len()];
        row[0] = Value::Integer(view.log.time.into());
        view.for_each(&mut |key, value| {
            if let Some(place) = self.place_of(key)
                && place > 0
            {
                row[place] = self.columns[place].value(value);
            }
        });
        self.waiting.push(row);
        if self.waiting.len() >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let marks = vec!["?"; self.columns.len()].join(",");
        let insert = format!("INSERT INTO log VALUES ({marks})");
        let mut statement = self
            .connection
            .prepare(&insert)
            .map_err(|error| told(&error))?;
        for row in self.waiting.drain(..) {
            statement
                .execute(params_from_iter(row))
                .map_err(|error| told(&error))?;
        }
        Ok(())
    }

    /// Answers the query.
    pub(super) fn rows(mut self) -> Result<Rows, String> {
        self.flush()?;
        let mut statement = self
            .connection
            .prepare(&self.query.sql)
            .map_err(|error| told(&error))?;
        let names: Vec<String> = statement
            .column_names()
            .enumerate()
            .map(|(place, name)| self.shown_name(place, name))
            .collect();
        let mut answer = Vec::new();
        let mut bytes = 0;
        let mut rows = statement.query([]).map_err(|error| told(&error))?;
        while let Some(row) = rows.next().map_err(|error| told(&error))? {
            let texts: Result<Vec<String>, Error> = (0..names.len())
                .map(|place| row.get_ref(place).map(shown))
                .collect();
            let texts = texts.map_err(|error| told(&error))?;
            bytes += texts.iter().map(String::len).sum::<usize>();
            answer.push(texts);
            if answer.len() > MAX_ROWS || bytes > MAX_ANSWER_BYTES {
                return Err(format!(
                    "the answer has more than {MAX_ROWS} rows or {MAX_ANSWER_BYTES} bytes; ask for less with limit"
                ));
            }
        }
        Ok((names, answer))
    }

    /// The engine names a column without an alias by its expression; the service numbers it.
    fn shown_name(&self, place: usize, name: &str) -> String {
        let is_plain = name
            .chars()
            .all(|letter| letter.is_alphanumeric() || "_:-.".contains(letter))
            && !name.starts_with(|letter: char| letter.is_ascii_digit());
        match is_plain || self.query.names.contains(&name.to_lowercase()) {
            true => name.to_owned(),
            false => format!("_col{place}"),
        }
    }
}

fn open(now: Timestamp) -> Result<Connection, Error> {
    let connection = Connection::open_in_memory()?;
    // A name in double quotes is never meant as a text.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_TEXT_BYTES)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.execute_batch(&format!(
        "PRAGMA hard_heap_limit={MAX_MEMORY_BYTES}; PRAGMA case_sensitive_like=ON; PRAGMA temp_store=MEMORY"
    ))?;
    functions::register(&connection, now)?;
    aggregates::register(&connection)?;
    Ok(connection)
}

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
    }
}

/// The engine's error as a sentence.
fn told(error: &Error) -> String {
    match error {
        Error::SqliteFailure(_, Some(message)) => message.clone(),
        Error::SqlInputError { msg, .. } => msg.clone(),
        Error::UserFunctionError(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

/// The name in the engine's complaint about a column that is not there.
fn missing_column(message: &str) -> Option<String> {
    let name = message.strip_prefix("no such column: ")?;
    let name = name.split(" - should this be").next().unwrap_or(name);
    let name = name.trim_matches('"');
    // Behind a table's name, unless the whole is a tag's.
    let bare = match name.starts_with(TAG) {
        true => name,
        false => name.rsplit('.').next().unwrap_or(name),
    };
    Some(bare.replace("\"\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloud_api::log::{Log, LogGroup};
    use serde_json::json;

    fn group() -> LogGroup {
        let log = |time: u32, fields: &[(&str, &str)]| Log {
            time,
            time_ns: 0,
            contents: fields
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        LogGroup {
            logs: vec![
                log(
                    1_704_164_600,
                    &[("device", "d1"), ("ms", "10"), ("room", "a")],
                ),
                log(
                    1_704_164_641,
                    &[("device", "d2"), ("ms", "9.5"), ("room", "b")],
                ),
                log(
                    1_704_164_660,
                    &[("device", "d1"), ("ms", "100"), ("room", "a")],
                ),
                log(1_704_164_665, &[("Note", "it's")]),
            ],
            topic: "chat".to_owned(),
            source: "s".to_owned(),
            tags: vec![("zone".to_owned(), "h".to_owned())],
        }
    }

    fn run(sql: &str, index: Option<&IndexRecord>) -> Result<Rows, String> {
        let now = "2024-01-02T03:04:30.5Z".parse().unwrap();
        let mut table = Table::new(sql, index, now)?;
        let group = group();
        for log in &group.logs {
            table.insert(LogView { log, group: &group })?;
        }
        table.rows()
    }

    /// All rows, columns joined by commas.
    fn rows(sql: &str) -> Vec<String> {
        let (_, rows) = run(sql, None).unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.iter().map(|row| row.join(",")).collect()
    }

    #[test]
    fn counting_grouping_and_ordering_work_over_logs() {
        for (sql, expected) in [
            ("select count(distinct device) as n", &["2"][..]),
            (
                "select count(*), count(device), approx_distinct(device)",
                &["4,3,2"],
            ),
            (
                "select sum(ms), avg(ms), max(ms), min(ms)",
                &["119.5,39.833333333333336,100,9.5"],
            ),
            (
                "select room, count(1) as n where room is not null group by room order by n desc",
                &["a,2", "b,1"],
            ),
            (
                "select device from log where ms >= 10 order by ms desc limit 1",
                &["d1"],
            ),
            (
                "select date_trunc('minute', __time__) as t, count(1) from log group by t order by t",
                &["2024-01-02 03:03:00.000,1", "2024-01-02 03:04:00.000,3"],
            ),
            (
                "select __time__ - __time__ % 60 as t, count(1) group by t order by t",
                &["1704164580,1", "1704164640,3"],
            ),
            (
                "select count_if(ms > 9.9), approx_percentile(ms, 0.5), max_by(device, ms), min_by(device, ms)",
                &["2,10.0,d1,d2"],
            ),
            (
                "select \"Note\", note",
                &["null,null", "null,null", "null,null", "it's,it's"],
            ),
            (
                "select distinct \"__tag__:zone\", __topic__, __source__",
                &["h,chat,s"],
            ),
            ("select absent, count(absent) group by absent", &["null,0"]),
            (
                "select max(n) from (select device, count(1) as n group by device)",
                &["2"],
            ),
            (
                "with t as (select room as r) select count(distinct t.r) from t",
                &["2"],
            ),
            (
                "select round(stddev(ms), 3), round(var_pop(ms), 2)",
                &["52.106,1810.06"],
            ),
            ("select l.device from log l where l.device like 'D%'", &[]),
        ] {
            assert_eq!(rows(sql), expected, "{sql}");
        }
    }

    #[test]
    fn functions_of_the_service_s_sql_are_there() {
        for (sql, expected) in [
            ("from_unixtime(1704164645)", "2024-01-02 03:04:05.000"),
            (
                "to_unixtime(timestamp '2024-01-02 03:04:05')",
                "1704164645.0",
            ),
            ("to_unixtime(now())", "1704164670.5"),
            (
                "date_format(1704164645, '%Y-%m-%d %H:%i:%s')",
                "2024-01-02 03:04:05",
            ),
            (
                "date_parse('02/01/2024 03:04', '%d/%m/%Y %H:%i')",
                "2024-01-02 03:04:00.000",
            ),
            ("date_trunc('week', 1704164645)", "2024-01-01 00:00:00.000"),
            (
                "date_trunc('month', '2024-02-29 12:00:00')",
                "2024-02-01 00:00:00.000",
            ),
            ("hour(1704164645)", "3"),
            ("extract(day from 1704164645)", "2"),
            ("date_diff('minute', 1704164645, 1704165245)", "10"),
            ("date_add('day', -1, 1704164645)", "2024-01-01 03:04:05.000"),
            ("cast('12' as bigint) + 1", "13"),
            ("try_cast('x' as double)", "null"),
            ("cast(12 as varchar) || 'a'", "12a"),
            ("regexp_extract('/api/v2', 'v(\\d+)', 1)", "2"),
            ("regexp_like('abc', '^a')", "1"),
            ("regexp_replace('a1b2', '\\d', '#')", "a#b#"),
            ("split_part('a/b/c', '/', 2)", "b"),
            ("strpos('abc', 'c')", "3"),
            (
                "json_extract_scalar('{\"a\":{\"b\":[1,2]}}', '$.a.b[1]')",
                "2",
            ),
            ("greatest(1, 3, 2)", "3"),
            ("ceil(1.2)", "2.0"),
            ("power(2, 10)", "1024.0"),
            ("7 / 2", "3"),
            ("coalesce(null, 'x')", "x"),
        ] {
            let found = rows(&format!(
                "select {expected_sql} limit 1",
                expected_sql = sql
            ));
            assert_eq!(found, [expected], "{sql}");
        }
    }

    #[test]
    fn columns_are_named_by_alias_or_number() {
        let (names, _) = run(
            "select device, count(1), count(1) as n, 1 group by device",
            None,
        )
        .unwrap();
        assert_eq!(names, ["device", "_col1", "n", "_col3"]);
        let (names, rows) = run("select * limit 1", None).unwrap();
        let expected = [
            "__time__",
            "__source__",
            "__topic__",
            "__tag__:zone",
            "device",
            "ms",
            "room",
            "Note",
        ];
        assert_eq!(names, expected);
        assert_eq!(rows[0][..4], ["1704164600", "s", "chat", "h"]);
    }

    #[test]
    fn an_index_gives_columns_and_types() {
        let body =
            json!({"keys": {"ms": {"type": "long"}, "device": {"type": "text", "alias": "id"}}});
        let index = IndexRecord {
            body,
            changed_at: 0,
        };
        let (_, rows) = run(
            "select count(ms), sum(ms), count(distinct id)",
            Some(&index),
        )
        .unwrap();
        assert_eq!(rows, [["2", "110", "2"]]);
        let error = run("select room", Some(&index)).unwrap_err();
        assert!(
            error.contains("Column 'room' cannot be resolved"),
            "{error}"
        );
    }

    #[test]
    fn mistakes_are_told() {
        for (sql, told) in [
            ("select nothing_like(1)", "no such function"),
            ("select count(1) from elsewhere", "no such table"),
            ("select from from", "syntax error"),
            (
                "select cast('x' as bigint) limit 1",
                "Cannot cast 'x' to BIGINT",
            ),
            ("select regexp_like('a', '(') limit 1", "cannot be used"),
            ("select date_trunc('eon', 1) limit 1", "no unit of time"),
            ("with t as (select 1) delete from log", "syntax error"),
            ("select zeroblob(99999999) limit 1", "too big"),
        ] {
            let error = run(sql, None).unwrap_err();
            assert!(error.contains(told), "{sql}: {error}");
        }
    }
}
