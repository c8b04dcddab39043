//! Writing logs, and reading them again in the order of their arrival by cursor.
//!
//! A cursor is the number of the first group that has not been read, in Base64 as clients expect it.

use super::LogService;
use super::access::Request;
use super::refusal::Refused;
use super::server::Reply;
use super::store::{Write, pack};
use super::{MAX_STORED_BYTES, MAX_STORED_GROUPS};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloud_api::log::compression::CompressType;
use cloud_api::log::group::encode_list;
use cloud_api::log::{LogGroup, MAX_PUT_BYTES, MAX_PUT_LOGS};
use serde_json::json;

/// Most groups of one pull.
const MAX_PULL: usize = 1_000;
/// Most bytes of one pull, before compression.
const MAX_PULL_BYTES: usize = 10 * 1024 * 1024;
/// Longest key of a field.
const MAX_KEY_BYTES: usize = 1_024;
/// The one shard.
const SHARD: &str = "0";

impl LogService {
    pub(super) async fn put_logs(
        &self,
        project: &str,
        logstore: &str,
        request: &Request<'_>,
    ) -> Result<Reply, Refused> {
        let id = self.logstore_id(project, logstore)?;
        let group = read_group(request)?;
        if group.logs.is_empty() {
            return Ok(Reply::empty());
        }
        let received = u32::try_from(self.now()).unwrap_or_default();
        let sequence = {
            let mut contents = self.store.contents();
            if contents.stored_bytes >= MAX_STORED_BYTES
                || contents.stored_groups >= MAX_STORED_GROUPS
            {
                let message = format!(
                    "this log service keeps at most {MAX_STORED_BYTES} bytes in {MAX_STORED_GROUPS} groups; delete a logstore or lower its ttl"
                );
                return Err(Refused::new(403, "WriteQuotaExceed", message));
            }
            contents.newest += 1;
            contents.newest
        };
        let (block, bytes) = pack(sequence, received, &group)
            .ok_or_else(|| Refused::new(400, "PostBodyInvalid", "the logs are too large"))?;
        let written = self
            .store
            .write(vec![Write::Group(id, sequence, bytes)])
            .await;
        written.map_err(|error| Refused::internal(&error))?;
        self.store.contents().add(project, logstore, id, block);
        Ok(Reply::empty())
    }

    pub(super) fn list_shards(&self, project: &str, logstore: &str) -> Result<Reply, Refused> {
        self.logstore_id(project, logstore)?;
        Ok(Reply::json(&json!([{
            "shardID": 0,
            "status": "readwrite",
            "inclusiveBeginKey": "0".repeat(32),
            "exclusiveEndKey": "f".repeat(32),
            "createTime": 0,
        }])))
    }

    /// What a shard is asked: for a cursor, for a cursor's time, for the logs from a cursor on.
    pub(super) async fn shard(
        &self,
        project: &str,
        logstore: &str,
        shard: &str,
        request: &Request<'_>,
    ) -> Result<Reply, Refused> {
        self.logstore_id(project, logstore)?;
        if shard != SHARD {
            let message = format!("shard {shard} does not exist; there is only shard {SHARD}");
            return Err(Refused::new(404, "ShardNotExist", message));
        }
        match request.parameter("type") {
            Some("cursor") => {
                let from = request.parameter("from").unwrap_or_default();
                let cursor = self.cursor_at(project, logstore, from)?;
                Ok(Reply::json(&json!({"cursor": write_cursor(cursor)})))
            }
            Some("cursor_time") => {
                let cursor = read_cursor(request.parameter("cursor"))?;
                let time = self.cursor_time(project, logstore, cursor);
                Ok(Reply::json(&json!({"cursor_time": time})))
            }
            Some("log" | "logs") => self.pull(project, logstore, request).await,
            other => Err(Refused::parameter(format!(
                "type must be cursor, cursor_time or log, not {:?}",
                other.unwrap_or_default()
            ))),
        }
    }

    /// The first group that came at or after a moment.
    fn cursor_at(&self, project: &str, logstore: &str, from: &str) -> Result<u64, Refused> {
        let contents = self.store.contents();
        let key = (project.to_owned(), logstore.to_owned());
        let shelf = contents
            .logstores
            .get(&key)
            .ok_or_else(|| Refused::no_logstore(logstore))?;
        let end = contents.newest + 1;
        let seconds = match from {
            "begin" => return Ok(shelf.blocks.first().map_or(end, |block| block.sequence)),
            "end" => return Ok(end),
            seconds => seconds.parse::<i64>().map_err(|_| {
                Refused::parameter(format!(
                    "from must be begin, end or Unix seconds, not {seconds:?}"
                ))
            })?,
        };
        let later = shelf
            .blocks
            .iter()
            .find(|block| i64::from(block.received) >= seconds);
        Ok(later.map_or(end, |block| block.sequence))
    }

    fn cursor_time(&self, project: &str, logstore: &str, cursor: u64) -> i64 {
        let contents = self.store.contents();
        let shelf = contents
            .logstores
            .get(&(project.to_owned(), logstore.to_owned()));
        let blocks = shelf
            .map(|shelf| shelf.blocks.as_slice())
            .unwrap_or_default();
        let block = blocks.iter().find(|block| block.sequence >= cursor);
        block.map_or_else(|| self.now(), |block| block.received.into())
    }

    async fn pull(
        &self,
        project: &str,
        logstore: &str,
        request: &Request<'_>,
    ) -> Result<Reply, Refused> {
        if request.parameter("query").is_some() || request.parameter("processor").is_some() {
            return Err(Refused::parameter(
                "query and processor are not supported here; use GetLogs",
            ));
        }
        let count = request.parameter("count").unwrap_or("1000");
        let count = count.parse::<usize>().ok().filter(|count| *count > 0);
        let count = count
            .ok_or_else(|| Refused::parameter("count must be a number above 0"))?
            .min(MAX_PULL);
        let start = read_cursor(request.parameter("cursor"))?;
        let end = match request
            .parameter("end_cursor")
            .filter(|text| !text.is_empty())
        {
            Some(text) => read_cursor(Some(text))?,
            None => u64::MAX,
        };
        let id = self.logstore_id(project, logstore)?;
        let (sequences, newest) = {
            let contents = self.store.contents();
            let shelf = contents
                .logstores
                .get(&(project.to_owned(), logstore.to_owned()));
            let blocks = shelf
                .map(|shelf| shelf.blocks.as_slice())
                .unwrap_or_default();
            let wanted = blocks
                .iter()
                .filter(|block| block.sequence >= start && block.sequence < end);
            let mut bytes = 0usize;
            // At least one, however large.
            let fitting = wanted.take(count).take_while(|block| {
                let first = bytes == 0;
                bytes += usize::try_from(block.raw_bytes).unwrap_or(usize::MAX / 2);
                first || bytes <= MAX_PULL_BYTES
            });
            let sequences: Vec<u64> = fitting.map(|block| block.sequence).collect();
            (sequences, contents.newest)
        };
        let next = match sequences.last() {
            Some(last) => last + 1,
            None => end.min(newest + 1).max(start),
        };
        // Clients stop when the next cursor is the end they were given.
        let next = if end == u64::MAX || self.has_between(project, logstore, next, end) {
            next
        } else {
            end
        };
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || {
            let reader = store.reader()?;
            let mut groups = Vec::new();
            for sequence in sequences {
                groups.extend(reader.group(id, sequence)?.map(|(_, raw)| raw));
            }
            Ok::<_, redb::Error>(groups)
        });
        let groups = read.await.map_err(|error| Refused::internal(&error))?;
        let groups = groups.map_err(|error| Refused::internal(&error))?;
        Ok(pulled(&groups, next, request))
    }

    fn has_between(&self, project: &str, logstore: &str, start: u64, end: u64) -> bool {
        let contents = self.store.contents();
        let shelf = contents
            .logstores
            .get(&(project.to_owned(), logstore.to_owned()));
        let mut blocks = shelf.into_iter().flat_map(|shelf| &shelf.blocks);
        blocks.any(|block| block.sequence >= start && block.sequence < end)
    }
}

fn pulled(groups: &[Vec<u8>], next: u64, request: &Request<'_>) -> Reply {
    let raw = encode_list(groups);
    let accepted = request.header("accept-encoding").unwrap_or_default();
    let reply = Reply {
        content_type: "application/x-protobuf",
        headers: Vec::new(),
        body: Vec::new(),
    };
    let reply = reply
        .header("x-log-count", groups.len())
        .header("x-log-cursor", write_cursor(next))
        .header("x-log-bodyrawsize", raw.len());
    if accepted.contains("lz4") && !raw.is_empty() {
        let reply = reply.header("x-log-compresstype", CompressType::Lz4.name());
        let body = CompressType::Lz4.compress(&raw);
        return Reply { body, ..reply };
    }
    Reply { body: raw, ..reply }
}

fn write_cursor(sequence: u64) -> String {
    STANDARD.encode(sequence.to_string())
}

fn read_cursor(text: Option<&str>) -> Result<u64, Refused> {
    let wrong = || {
        Refused::new(
            400,
            "ParameterInvalid",
            "cursor is none that this log service gave",
        )
    };
    let bytes = STANDARD
        .decode(text.unwrap_or_default())
        .map_err(|_| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    text.parse().map_err(|_| wrong())
}

/// The logs in a request's body.
fn read_group(request: &Request<'_>) -> Result<LogGroup, Refused> {
    let content_type = request.header("content-type").unwrap_or_default();
    if !content_type.starts_with("application/x-protobuf") {
        let message = format!("Content-Type must be application/x-protobuf, not {content_type:?}");
        return Err(Refused::new(400, "InvalidContentType", message));
    }
    let size = request.header("x-log-bodyrawsize").unwrap_or_default();
    let size: usize = size.parse().map_err(|_| {
        Refused::parameter(format!("x-log-bodyrawsize must be a number, not {size:?}"))
    })?;
    if size > MAX_PUT_BYTES {
        let message = format!("one call takes at most {MAX_PUT_BYTES} bytes before compression");
        return Err(Refused::new(400, "PostBodyTooLarge", message));
    }
    let invalid = |reason: String| Refused::new(400, "PostBodyInvalid", reason);
    let compressed = request.header("x-log-compresstype").unwrap_or_default();
    let compressed =
        CompressType::parse(compressed).map_err(|error| Refused::parameter(error.to_string()))?;
    let unpacked = match compressed {
        Some(kind) => kind
            .decompress(request.body, size)
            .map_err(|error| invalid(error.to_string()))?,
        None => request.body.to_vec(),
    };
    let group = LogGroup::decode(&unpacked)
        .map_err(|error| invalid(format!("the body is no LogGroup: {error}")))?;
    if group.logs.len() > MAX_PUT_LOGS {
        return Err(invalid(format!(
            "one call takes at most {MAX_PUT_LOGS} logs"
        )));
    }
    let mut keys = group.logs.iter().flat_map(|log| &log.contents);
    if keys.any(|(key, _)| key.is_empty() || key.len() > MAX_KEY_BYTES) {
        return Err(invalid(format!(
            "keys must have 1 to {MAX_KEY_BYTES} bytes"
        )));
    }
    Ok(group)
}
