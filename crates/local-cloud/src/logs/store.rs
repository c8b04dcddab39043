//! Where projects, logstores and logs lie: one file, written by one thread that commits all that waits in one durable
//! transaction. What the file holds is kept in memory as an index: which group of logs covers which time.

use super::record::{LogstoreRecord, ProjectRecord};
use cloud_api::log::LogGroup;
use cloud_api::log::compression::CompressType;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};

const PROJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("projects");
const LOGSTORES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("logstores");
const GROUPS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("groups");
const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");
/// The layout of the file; another one is refused, not guessed at.
const LAYOUT: &str = "1";
const FILE: &str = "logs.redb";
/// Writes that wait; who has more to write waits for a place.
const MAX_WAITING: usize = 256;
/// Bytes of a stored group before its compressed logs.
const HEAD_BYTES: usize = 24;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogStoreError {
    /// The directory or the file's mode.
    #[error("cannot prepare {path} for the log service")]
    Directory {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The database refused.
    #[error("cannot {attempt} the log service's records in {path}")]
    Database {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<redb::Error>,
    },
    /// Written by another version.
    #[error(
        "the log service's records in {path} have layout {found}, this version reads {LAYOUT}; use the version that wrote them or move the file away"
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: String,
    },
    /// A row is none of ours.
    #[error(
        "row {key:?} of the log service's records cannot be read; move the file away to start anew"
    )]
    Row {
        /// The row.
        key: String,
    },
    /// The thread that writes cannot be started.
    #[error("cannot start the log service's writer")]
    Writer(#[source] std::io::Error),
    /// The thread that writes has ended.
    #[error("the log service's writer has ended")]
    Ended,
}

/// What is known of a stored group of logs without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) sequence: u64,
    /// Unix seconds at which it came.
    pub(super) received: u32,
    /// Time of its oldest log.
    pub(super) first: u32,
    /// Time of its newest log.
    pub(super) last: u32,
    pub(super) logs: u32,
    /// Bytes before compression.
    pub(super) raw_bytes: u32,
    /// Bytes in the file.
    pub(super) stored_bytes: u32,
}

impl Block {
    fn read(sequence: u64, bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEAD_BYTES)?;
        let number = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            sequence,
            received: number(0)?,
            first: number(4)?,
            last: number(8)?,
            logs: number(12)?,
            raw_bytes: number(16)?,
            stored_bytes: u32::try_from(bytes.len()).ok()?,
        })
    }
}

/// A group of logs as it is written: the head, then an LZ4 block of its protobuf.
pub(super) fn pack(sequence: u64, received: u32, group: &LogGroup) -> Option<(Block, Vec<u8>)> {
    let raw = group.encode();
    let times = group.logs.iter().map(|log| log.time);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + raw.len() / 2);
    let numbers = [
        received,
        times.clone().min()?,
        times.max()?,
        u32::try_from(group.logs.len()).ok()?,
        u32::try_from(raw.len()).ok()?,
        // Room for a later version.
        0,
    ];
    for number in numbers {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(CompressType::Lz4.compress(&raw));
    Some((Block::read(sequence, &bytes)?, bytes))
}

fn unpack(bytes: &[u8]) -> Option<(LogGroup, Vec<u8>)> {
    let block = Block::read(0, bytes)?;
    let size = usize::try_from(block.raw_bytes).ok()?;
    let raw = CompressType::Lz4
        .decompress(&bytes[HEAD_BYTES..], size)
        .ok()?;
    Some((LogGroup::decode(&raw).ok()?, raw))
}

/// A logstore and what lies in it, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub(super) record: LogstoreRecord,
    pub(super) blocks: Vec<Block>,
}

/// Everything that queries and calls look at.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) projects: BTreeMap<String, ProjectRecord>,
    /// By project and name.
    pub(super) logstores: BTreeMap<(String, String), Shelf>,
    /// Bytes of all logs in the file.
    pub(super) stored_bytes: u64,
    /// Groups of logs in the file.
    pub(super) stored_groups: usize,
    /// The newest number given to a logstore or a group.
    pub(super) newest: u64,
}

impl Contents {
    /// Takes a written group up, unless its logstore has gone in between.
    pub(super) fn add(&mut self, project: &str, logstore: &str, id: u64, block: Block) {
        let key = (project.to_owned(), logstore.to_owned());
        if let Some(shelf) = self.logstores.get_mut(&key)
            && shelf.record.id == id
        {
            let place = shelf
                .blocks
                .partition_point(|one| one.sequence < block.sequence);
            shelf.blocks.insert(place, block);
            self.stored_bytes += u64::from(block.stored_bytes);
            self.stored_groups += 1;
        }
    }

    /// Takes a logstore away; answers with its number.
    pub(super) fn remove(&mut self, key: &(String, String)) -> Option<u64> {
        let shelf = self.logstores.remove(key)?;
        self.uncount(&shelf.blocks);
        Some(shelf.record.id)
    }

    fn uncount(&mut self, blocks: &[Block]) {
        let bytes: u64 = blocks
            .iter()
            .map(|block| u64::from(block.stored_bytes))
            .sum();
        self.stored_bytes = self.stored_bytes.saturating_sub(bytes);
        self.stored_groups = self.stored_groups.saturating_sub(blocks.len());
    }

    /// Takes groups away that are older than their logstore keeps them; answers with what is to be removed.
    pub(super) fn expire(&mut self, now: i64) -> Vec<Write> {
        let mut gone = Vec::new();
        let mut writes = Vec::new();
        for shelf in self.logstores.values_mut() {
            let oldest = now - i64::from(shelf.record.ttl) * 86_400;
            let is_old = |block: &Block| i64::from(block.received) < oldest;
            let count = shelf
                .blocks
                .iter()
                .take_while(|block| is_old(block))
                .count();
            if count > 0 {
                let until = shelf.blocks[count - 1].sequence;
                gone.extend(shelf.blocks.drain(..count));
                writes.push(Write::Forget(shelf.record.id, until));
            }
        }
        self.uncount(&gone);
        writes
    }
}

/// One change of the file.
#[derive(Debug)]
pub(super) enum Write {
    Project(String, Option<ProjectRecord>),
    Logstore((String, String), Option<LogstoreRecord>),
    Group(u64, u64, Vec<u8>),
    /// All groups of a logstore up to this number.
    Forget(u64, u64),
}

struct Waiting {
    writes: Vec<Write>,
    done: oneshot::Sender<bool>,
}

/// The file and what is in it.
pub(super) struct Store {
    database: Arc<Database>,
    contents: Mutex<Contents>,
    queue: mpsc::Sender<Waiting>,
}

impl Store {
    /// Opens or creates the file. Blocks.
    pub(super) fn open(directory: &Path) -> Result<Self, LogStoreError> {
        let path = directory.join(FILE);
        let failed = |source| LogStoreError::Directory {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let wrong = |attempt, error: redb::Error| LogStoreError::Database {
            attempt,
            path: path.clone(),
            source: Box::new(error),
        };
        let database = Database::create(&path).map_err(|error| wrong("open", error.into()))?;
        restrict(&path).map_err(failed)?;
        let found = prepare(&database).map_err(|error| wrong("prepare", error))?;
        if found != LAYOUT {
            return Err(LogStoreError::Layout { path, found });
        }
        let (contents, strays) = match load(&database) {
            Ok(loaded) => loaded?,
            Err(error) => return Err(wrong("read", error)),
        };
        let database = Arc::new(database);
        commit(&database, &strays).map_err(|error| wrong("clean", error))?;
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let writing = database.clone();
        std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || run_writer(&writing, waiting))
            .map_err(LogStoreError::Writer)?;
        Ok(Self {
            database,
            contents: Mutex::new(contents),
            queue,
        })
    }

    pub(super) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes durably, all or nothing.
    pub(super) async fn write(&self, writes: Vec<Write>) -> Result<(), LogStoreError> {
        let (done, written) = oneshot::channel();
        let sent = self.queue.send(Waiting { writes, done }).await;
        sent.map_err(|_| LogStoreError::Ended)?;
        match written.await {
            Ok(true) => Ok(()),
            _ => Err(LogStoreError::Ended),
        }
    }

    /// A view of the groups at one moment. Blocks.
    pub(super) fn reader(&self) -> Result<Reader, redb::Error> {
        let transaction = self.database.begin_read()?;
        Ok(Reader {
            table: transaction.open_table(GROUPS)?,
        })
    }
}

/// Groups at one moment.
pub(super) struct Reader {
    table: redb::ReadOnlyTable<(u64, u64), &'static [u8]>,
}

impl Reader {
    /// A group with its protobuf; nothing when it has gone.
    pub(super) fn group(
        &self,
        logstore: u64,
        sequence: u64,
    ) -> Result<Option<(LogGroup, Vec<u8>)>, redb::Error> {
        let Some(row) = self.table.get((logstore, sequence))? else {
            return Ok(None);
        };
        let unpacked = unpack(row.value());
        if unpacked.is_none() {
            tracing::error!(
                logstore,
                sequence,
                "stored logs cannot be read and are left out"
            );
        }
        Ok(unpacked)
    }
}

fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// Creates the tables and answers with the layout.
fn prepare(database: &Database) -> Result<String, redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        transaction.open_table(PROJECTS)?;
        transaction.open_table(LOGSTORES)?;
        transaction.open_table(GROUPS)?;
        let mut about = transaction.open_table(ABOUT)?;
        let found = about.get("layout")?.map(|value| value.value().to_owned());
        match found {
            Some(found) => found,
            None => {
                about.insert("layout", LAYOUT)?;
                LAYOUT.to_owned()
            }
        }
    };
    transaction.commit()?;
    Ok(found)
}

type Loaded = Result<(Contents, Vec<Write>), LogStoreError>;

/// Reads everything but the logs themselves; groups whose logstore has gone are to be removed.
fn load(database: &Database) -> Result<Loaded, redb::Error> {
    let transaction = database.begin_read()?;
    let mut contents = Contents::default();
    for row in transaction.open_table(PROJECTS)?.iter()? {
        let (key, value) = row?;
        match read(key.value(), value.value()) {
            Ok(record) => contents.projects.insert(key.value().to_owned(), record),
            Err(error) => return Ok(Err(error)),
        };
    }
    let mut by_id = BTreeMap::new();
    for row in transaction.open_table(LOGSTORES)?.iter()? {
        let (key, value) = row?;
        let record: LogstoreRecord = match read(key.value(), value.value()) {
            Ok(record) => record,
            Err(error) => return Ok(Err(error)),
        };
        let (project, name) = key.value().split_once('/').unwrap_or_default();
        let key = (project.to_owned(), name.to_owned());
        contents.newest = contents.newest.max(record.id);
        by_id.insert(record.id, key.clone());
        let blocks = Vec::new();
        contents.logstores.insert(key, Shelf { record, blocks });
    }
    let mut strays = Vec::new();
    for row in transaction.open_table(GROUPS)?.iter()? {
        let (key, value) = row?;
        let (id, sequence) = key.value();
        contents.newest = contents.newest.max(sequence);
        match (by_id.get(&id), Block::read(sequence, value.value())) {
            (Some((project, name)), Some(block)) => contents.add(project, name, id, block),
            (None, _) => strays.push(Write::Forget(id, u64::MAX)),
            (Some(_), None) => {
                let key = format!("{id}/{sequence}");
                return Ok(Err(LogStoreError::Row { key }));
            }
        }
        strays.dedup_by_key(|write| match write {
            Write::Forget(id, _) => *id,
            _ => 0,
        });
    }
    Ok(Ok((contents, strays)))
}

fn read<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, LogStoreError> {
    serde_json::from_slice(bytes).map_err(|_| LogStoreError::Row {
        key: key.to_owned(),
    })
}

/// Commits until the store is dropped.
fn run_writer(database: &Database, mut waiting: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::new();
    while waiting.blocking_recv_many(&mut batch, MAX_WAITING) > 0 {
        let writes = batch.iter().flat_map(|one| &one.writes);
        let outcome = commit(database, writes);
        if let Err(error) = &outcome {
            tracing::error!(%error, "logs cannot be written");
        }
        for one in batch.drain(..) {
            // Whoever waited may have hung up.
            let _ = one.done.send(outcome.is_ok());
        }
    }
}

fn commit<'a>(
    database: &Database,
    writes: impl IntoIterator<Item = &'a Write>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut projects = transaction.open_table(PROJECTS)?;
        let mut logstores = transaction.open_table(LOGSTORES)?;
        let mut groups = transaction.open_table(GROUPS)?;
        for write in writes {
            match write {
                Write::Project(name, Some(record)) => {
                    projects.insert(name.as_str(), json(record)?.as_slice())?;
                }
                Write::Project(name, None) => {
                    projects.remove(name.as_str())?;
                }
                Write::Logstore((project, name), record) => {
                    let key = format!("{project}/{name}");
                    match record {
                        Some(record) => logstores.insert(key.as_str(), json(record)?.as_slice())?,
                        None => logstores.remove(key.as_str())?,
                    };
                }
                Write::Group(id, sequence, bytes) => {
                    groups.insert((*id, *sequence), bytes.as_slice())?;
                }
                Write::Forget(id, until) => {
                    groups.retain_in((*id, 0)..=(*id, *until), |_, _| false)?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn json<T: Serialize>(record: &T) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(record).map_err(|error| redb::Error::Io(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloud_api::log::Log;

    fn logstore(id: u64, ttl: u32) -> LogstoreRecord {
        LogstoreRecord {
            id,
            ttl,
            settings: Default::default(),
            created_at: 0,
            changed_at: 0,
            index: None,
        }
    }

    fn group(time: u32) -> LogGroup {
        LogGroup {
            logs: vec![Log {
                time,
                ..Log::default()
            }],
            ..LogGroup::default()
        }
    }

    fn key(name: &str) -> (String, String) {
        ("p".to_owned(), name.to_owned())
    }

    #[tokio::test]
    async fn logs_come_back_after_reopening_and_those_of_a_gone_logstore_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (block, bytes) = pack(7, 100, &group(90)).unwrap();
        let writes = vec![
            Write::Logstore(key("kept"), Some(logstore(1, 1))),
            Write::Group(1, 7, bytes.clone()),
            Write::Group(2, 8, bytes),
        ];
        store.write(writes).await.unwrap();
        drop(store);
        // The writer's thread lets go of the file a moment after the store.
        let store = loop {
            match Store::open(directory.path()) {
                Ok(store) => break store,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let contents = store.contents();
        assert_eq!(contents.logstores[&key("kept")].blocks, [block]);
        assert_eq!((contents.stored_groups, contents.newest), (1, 8));
        let reader = store.reader().unwrap();
        assert_eq!(reader.group(1, 7).unwrap().unwrap().0, group(90));
        assert!(reader.group(2, 8).unwrap().is_none());
    }

    #[test]
    fn groups_expire_after_the_logstore_s_days() {
        let mut contents = Contents::default();
        let shelf = Shelf {
            record: logstore(1, 2),
            blocks: Vec::new(),
        };
        contents.logstores.insert(key("l"), shelf);
        for (sequence, received) in [(1, 1_000), (2, 90_000), (3, 200_000)] {
            let (block, _) = pack(sequence, received, &group(5)).unwrap();
            contents.add("p", "l", 1, block);
        }
        let writes = contents.expire(2 * 86_400 + 90_001);
        assert!(matches!(writes[..], [Write::Forget(1, 2)]), "{writes:?}");
        assert_eq!(contents.stored_groups, 1);
        assert!(contents.expire(2 * 86_400 + 90_001).is_empty());
    }
}
