//! Queries over a logstore: logs by search, rows by SQL, counts over time.

use super::LogService;
use super::record::{IndexRecord, LogView, TIME};
use super::refusal::Refused;
use super::search::{Search, Words, divide};
use super::sql::Table;
use super::store::{Block, Reader, Store};
use cloud_api::log::LogGroup;
use cloud_api::log::model::{
    COMPLETE, GetLogsRequest, Histogram, INCOMPLETE, LogsAnswer, LogsMeta, MAX_LINES,
};
use jiff::Timestamp;
use rusqlite::InterruptHandle;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Most bytes of logs that one query looks at; an answer over less than all says so.
const MAX_SCANNED_BYTES: u64 = 512 * 1024 * 1024;
/// Most logs that one search may find before it is cut off.
const MAX_FOUND: usize = 2_000_000;
/// The longest that one query takes.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Most parts of a histogram.
const MAX_PARTS: i64 = 60;
/// Lengths of a histogram's parts, in seconds.
const PART_SECONDS: [i64; 16] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 86_400,
];
/// Nanoseconds within a log's second.
const TIME_NS: &str = "__time_ns_part__";

/// Which logs a query is about.
struct Scope {
    store: Arc<Store>,
    id: u64,
    blocks: Vec<Block>,
    words: Words,
    index: Option<IndexRecord>,
    search: Search,
    topic: String,
    from: i64,
    to: i64,
    deadline: Instant,
}

/// What was looked at.
#[derive(Clone, Copy, Debug)]
struct Scanned {
    logs: i64,
    bytes: u64,
    complete: bool,
}

impl Scanned {
    fn progress(self) -> String {
        if self.complete { COMPLETE } else { INCOMPLETE }.to_owned()
    }
}

/// A log's place: when it was, in which group, which one there.
type Place = (u32, u32, u64, usize);

impl LogService {
    fn scope(
        &self,
        project: &str,
        logstore: &str,
        search: &str,
        topic: &str,
        (from, to): (i64, i64),
    ) -> Result<Scope, Refused> {
        if from < 0 || to < from {
            return Err(Refused::parameter(
                "from must be at least 0 and at most to, in Unix seconds",
            ));
        }
        let search = Search::parse(search).map_err(|reason| {
            Refused::parameter(format!("the search part cannot be read: {reason}"))
        })?;
        let id = self.logstore_id(project, logstore)?;
        let contents = self.store.contents();
        let shelf = contents
            .logstores
            .get(&(project.to_owned(), logstore.to_owned()));
        let shelf = shelf.ok_or_else(|| Refused::no_logstore(logstore))?;
        let overlaps =
            |block: &&Block| i64::from(block.last) >= from && i64::from(block.first) < to;
        let index = shelf.record.index.clone();
        Ok(Scope {
            store: self.store.clone(),
            id,
            blocks: shelf.blocks.iter().filter(overlaps).copied().collect(),
            words: index.as_ref().map(IndexRecord::words).unwrap_or_default(),
            index,
            search,
            topic: topic.to_owned(),
            from,
            to,
            deadline: Instant::now() + QUERY_TIMEOUT,
        })
    }

    /// Logs, or rows when the query has an SQL part.
    pub(super) async fn get_logs(
        &self,
        project: &str,
        logstore: &str,
        request: GetLogsRequest,
    ) -> Result<LogsAnswer, Refused> {
        let (search, sql) = divide(&request.query);
        let range = (request.from, request.to);
        let scope = self.scope(project, logstore, search, &request.topic, range)?;
        let started = Instant::now();
        let now = self.shared.now();
        let mut answer = match sql.map(str::to_owned) {
            Some(sql) => {
                let (tell, told) = oneshot::channel();
                let work = move || rows(&scope, &sql, now, tell);
                self.run(Some(told), work).await?
            }
            None => {
                let page = page(&request)?;
                self.run(None, move || found(&scope, page)).await?
            }
        };
        let meta = &mut answer.meta;
        meta.count = i64::try_from(answer.data.len()).unwrap_or(i64::MAX);
        meta.elapsed_millisecond = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        search.clone_into(&mut meta.where_query);
        sql.unwrap_or_default().clone_into(&mut meta.agg_query);
        meta.has_sql = sql.is_some();
        meta.is_accurate = true;
        Ok(answer)
    }

    /// Counts over time.
    pub(super) async fn histograms(
        &self,
        project: &str,
        logstore: &str,
        query: &str,
        topic: &str,
        range: (i64, i64),
    ) -> Result<Vec<Histogram>, Refused> {
        let (search, _) = divide(query);
        let scope = self.scope(project, logstore, search, topic, range)?;
        self.run(None, move || counted(&scope)).await
    }

    /// Runs a query on a thread of its own, not too many at once, and ends its SQL when it takes too long.
    async fn run<T: Send + 'static>(
        &self,
        told: Option<oneshot::Receiver<InterruptHandle>>,
        work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        // The semaphore is never closed.
        let _permit = self.queries.acquire().await;
        let mut running = tokio::task::spawn_blocking(work);
        let ended = match tokio::time::timeout(QUERY_TIMEOUT, &mut running).await {
            Ok(ended) => ended,
            Err(_) => {
                if let Some(Ok(handle)) = told.map(|mut told| told.try_recv()) {
                    handle.interrupt();
                }
                running.await
            }
        };
        ended.map_err(|error| Refused::internal(&error))?
    }
}

/// Offset, count and whether the newest come first.
fn page(request: &GetLogsRequest) -> Result<(usize, usize, bool), Refused> {
    let line = request.line.unwrap_or(MAX_LINES);
    let offset = request.offset.unwrap_or_default();
    if !(0..=MAX_LINES).contains(&line) {
        return Err(Refused::parameter(format!(
            "line must be from 0 to {MAX_LINES}"
        )));
    }
    let offset =
        usize::try_from(offset).map_err(|_| Refused::parameter("offset must not be negative"))?;
    Ok((
        offset,
        usize::try_from(line).unwrap_or_default(),
        request.reverse,
    ))
}

impl Scope {
    fn reader(&self) -> Result<Reader, Refused> {
        self.store
            .reader()
            .map_err(|error| Refused::internal(&error))
    }

    /// Shows all meant logs, group by group. Blocks.
    fn scan(
        &self,
        visit: &mut dyn FnMut(&Block, usize, LogView<'_>) -> Result<bool, Refused>,
    ) -> Result<Scanned, Refused> {
        let reader = self.reader()?;
        let mut scanned = Scanned {
            logs: 0,
            bytes: 0,
            complete: true,
        };
        for block in &self.blocks {
            if scanned.bytes >= MAX_SCANNED_BYTES || Instant::now() > self.deadline {
                scanned.complete = false;
                break;
            }
            let group = reader.group(self.id, block.sequence);
            let Some((group, raw)) = group.map_err(|error| Refused::internal(&error))? else {
                continue;
            };
            scanned.bytes += raw.len() as u64;
            if !self.topic.is_empty() && group.topic != self.topic {
                continue;
            }
            for (number, log) in group.logs.iter().enumerate() {
                let view = LogView { log, group: &group };
                let time = i64::from(log.time);
                if time < self.from || time >= self.to {
                    continue;
                }
                scanned.logs += 1;
                if self.search.matches(&view, &self.words) && !visit(block, number, view)? {
                    scanned.complete = false;
                    return Ok(scanned);
                }
            }
        }
        Ok(scanned)
    }
}

fn meta(scanned: Scanned) -> LogsMeta {
    LogsMeta {
        progress: scanned.progress(),
        processed_rows: scanned.logs,
        processed_bytes: i64::try_from(scanned.bytes).unwrap_or(i64::MAX),
        ..LogsMeta::default()
    }
}

/// A page of logs in the order of their time.
fn found(
    scope: &Scope,
    (offset, line, reverse): (usize, usize, bool),
) -> Result<LogsAnswer, Refused> {
    let mut places: Vec<Place> = Vec::new();
    let scanned = scope.scan(&mut |block, number, view| {
        places.push((view.log.time, view.log.time_ns, block.sequence, number));
        Ok(places.len() < MAX_FOUND)
    })?;
    places.sort_unstable();
    if reverse {
        places.reverse();
    }
    let reader = scope.reader()?;
    let mut groups: HashMap<u64, LogGroup> = HashMap::new();
    let mut data = Vec::new();
    for (_, _, sequence, number) in places.into_iter().skip(offset).take(line) {
        let group = match groups.entry(sequence) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let group = reader.group(scope.id, sequence);
                match group.map_err(|error| Refused::internal(&error))? {
                    Some((group, _)) => place.insert(group),
                    // Its logstore has just been deleted, or its time has come.
                    None => continue,
                }
            }
        };
        if let Some(log) = group.logs.get(number) {
            data.push(shown(LogView { log, group }));
        }
    }
    let meta = meta(scanned);
    Ok(LogsAnswer { meta, data })
}

fn shown(view: LogView<'_>) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert(TIME.to_owned(), Value::String(view.log.time.to_string()));
    if view.log.time_ns != 0 {
        row.insert(
            TIME_NS.to_owned(),
            Value::String(view.log.time_ns.to_string()),
        );
    }
    view.for_each(&mut |key, value| {
        row.insert(key.to_owned(), Value::String(value.to_owned()));
    });
    row
}

/// Rows of an SQL part.
fn rows(
    scope: &Scope,
    sql: &str,
    now: Timestamp,
    tell: oneshot::Sender<InterruptHandle>,
) -> Result<LogsAnswer, Refused> {
    let wrong = |reason: String| match reason.as_str() {
        "interrupted" => Refused::parameter(format!(
            "the query took longer than {} s; ask for a shorter time range",
            QUERY_TIMEOUT.as_secs()
        )),
        _ => Refused::parameter(format!("the SQL part cannot be answered: {reason}")),
    };
    let mut table = Table::new(sql, scope.index.as_ref(), now).map_err(wrong)?;
    // Whoever waits may have hung up.
    let _ = tell.send(table.interrupt_handle());
    let scanned = scope.scan(&mut |_, _, view| table.insert(view).map(|()| true).map_err(wrong))?;
    let (names, rows) = table.rows().map_err(wrong)?;
    let data = rows.into_iter().map(|row| {
        let pairs = names
            .iter()
            .cloned()
            .zip(row.into_iter().map(Value::String));
        pairs.collect()
    });
    let data = data.collect();
    let mut meta = meta(scanned);
    meta.keys = names;
    Ok(LogsAnswer { meta, data })
}

/// Bounds of a histogram's parts: whole multiples of a handy length, cut off at both ends.
fn parts(from: i64, to: i64) -> Vec<(i64, i64)> {
    let length = to - from;
    let fits = |seconds: &&i64| length / **seconds < MAX_PARTS;
    let seconds = match PART_SECONDS.iter().find(fits) {
        Some(seconds) => *seconds,
        None => (length / MAX_PARTS / 86_400 + 1) * 86_400,
    };
    let mut parts = Vec::new();
    let mut start = from;
    while start < to {
        let end = ((start / seconds + 1) * seconds).min(to);
        parts.push((start, end));
        start = end;
    }
    parts
}

fn counted(scope: &Scope) -> Result<Vec<Histogram>, Refused> {
    let parts = parts(scope.from, scope.to);
    let mut counts = vec![0i64; parts.len()];
    let scanned = scope.scan(&mut |_, _, view| {
        let time = i64::from(view.log.time);
        let place = parts.partition_point(|(_, end)| *end <= time);
        if let Some(count) = counts.get_mut(place) {
            *count += 1;
        }
        Ok(true)
    })?;
    let histogram = |((from, to), count): ((i64, i64), i64)| Histogram {
        from,
        to,
        count,
        progress: scanned.progress(),
    };
    Ok(parts.into_iter().zip(counts).map(histogram).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_whole_minutes_of_an_hour() {
        let parts = parts(1_704_164_610, 1_704_164_610 + 3_000);
        assert_eq!(parts[0], (1_704_164_610, 1_704_164_640));
        assert_eq!(parts[1], (1_704_164_640, 1_704_164_700));
        assert_eq!(parts.last().unwrap().1, 1_704_167_610);
    }

    proptest! {
        #[test]
        fn parts_cover_the_range_without_gaps_and_are_few(from in 0i64..4_000_000_000, length in 0i64..2_000_000_000) {
            let parts = parts(from, from + length);
            prop_assert!(parts.len() <= 62);
            prop_assert_eq!(parts.iter().map(|(from, to)| to - from).sum::<i64>(), length);
            prop_assert!(parts.windows(2).all(|pair| pair[0].1 == pair[1].0));
        }
    }
}
