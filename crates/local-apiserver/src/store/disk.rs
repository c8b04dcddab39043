//! The database file: format, lock, replay with checks, batch commits.

use super::history::{Event, EventKind};
use super::{StoreError, StoredObject};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What we write; another value is refused.
const FORMAT: &str = "springtide-store-1";
/// Pages redb may keep in memory; everything is in our index anyway.
const CACHE_BYTES: usize = 8 << 20;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// `resource \0 key` → 8 bytes revision (little endian), then the object's JSON text.
const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");

pub(super) struct Disk {
    database: Database,
    path: PathBuf,
    /// Held for as long as the store is open.
    _lock: File,
}

type Loaded = Vec<(Arc<str>, Arc<str>, Arc<StoredObject>)>;

impl Disk {
    pub fn open(directory: &Path) -> Result<(Self, Loaded, u64), StoreError> {
        std::fs::create_dir_all(directory).map_err(|source| StoreError::File {
            action: "create the data directory",
            path: directory.to_path_buf(),
            source,
        })?;
        let lock = lock(directory)?;
        let path = directory.join("objects.redb");
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => {
                    StoreError::Locked(directory.to_path_buf())
                }
                other => StoreError::Database {
                    action: "open",
                    path: path.clone(),
                    source: Box::new(other.into()),
                },
            })?;
        let disk = Self {
            database,
            path,
            _lock: lock,
        };
        disk.check_format()?;
        let (objects, revision) = disk.load()?;
        Ok((disk, objects, revision))
    }

    fn failed<E: Into<redb::Error>>(&self, action: &'static str) -> impl FnOnce(E) -> StoreError {
        let path = self.path.clone();
        move |error| StoreError::Database {
            action,
            path,
            source: Box::new(error.into()),
        }
    }

    fn damaged(&self, key: &str, reason: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            key: key.to_string(),
            reason: reason.into(),
        }
    }

    /// A new file gets our format, a file with another one is refused untouched.
    fn check_format(&self) -> Result<(), StoreError> {
        let read = self.database.begin_read().map_err(self.failed("read"))?;
        match read.open_table(META) {
            Ok(meta) => {
                let found = meta.get("format").map_err(self.failed("read"))?;
                let found = found
                    .map(|value| String::from_utf8_lossy(value.value()).into_owned())
                    .unwrap_or_default();
                if found == FORMAT {
                    return Ok(());
                }
                return Err(StoreError::Version {
                    path: self.path.clone(),
                    found,
                    supported: FORMAT,
                });
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(self.failed("read")(error)),
        }
        let write = self
            .database
            .begin_write()
            .map_err(self.failed("initialise"))?;
        {
            let mut meta = write.open_table(META).map_err(self.failed("initialise"))?;
            meta.insert("format", FORMAT.as_bytes())
                .map_err(self.failed("initialise"))?;
            meta.insert("revision", 1u64.to_le_bytes().as_slice())
                .map_err(self.failed("initialise"))?;
            write
                .open_table(OBJECTS)
                .map_err(self.failed("initialise"))?;
        }
        write.commit().map_err(self.failed("initialise"))
    }

    fn load(&self) -> Result<(Loaded, u64), StoreError> {
        let read = self.database.begin_read().map_err(self.failed("read"))?;
        let meta = read.open_table(META).map_err(self.failed("read"))?;
        let revision = meta
            .get("revision")
            .map_err(self.failed("read"))?
            .and_then(|value| value.value().try_into().ok().map(u64::from_le_bytes))
            .ok_or_else(|| self.damaged("revision", "it is missing"))?;
        let table = read.open_table(OBJECTS).map_err(self.failed("read"))?;
        let mut objects = Vec::new();
        let mut names: std::collections::HashMap<String, Arc<str>> = Default::default();
        for entry in table.iter().map_err(self.failed("read"))? {
            let (place, value) = entry.map_err(self.failed("read"))?;
            let place = place.value();
            let (resource, key) = place
                .split_once('\0')
                .ok_or_else(|| self.damaged(place, "the key has no separator"))?;
            let object = self.parse(place, value.value(), revision)?;
            let resource = names
                .entry(resource.to_string())
                .or_insert_with(|| resource.into());
            objects.push((resource.clone(), Arc::from(key), Arc::new(object)));
        }
        Ok((objects, revision))
    }

    fn parse(&self, place: &str, value: &[u8], newest: u64) -> Result<StoredObject, StoreError> {
        let (head, text) = value
            .split_first_chunk::<8>()
            .ok_or_else(|| self.damaged(place, "the entry is too short"))?;
        let revision = u64::from_le_bytes(*head);
        if revision > newest {
            let reason = format!("revision {revision} is above the store's newest, {newest}");
            return Err(self.damaged(place, reason));
        }
        StoredObject::from_disk(revision, text)
            .map_err(|error| self.damaged(place, format!("it is not JSON: {error}")))
    }

    /// One transaction, synced before it returns.
    pub fn commit(
        &mut self,
        revision: u64,
        events: &[(Arc<str>, Event)],
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(self.failed("write"))?;
        {
            let mut table = write.open_table(OBJECTS).map_err(self.failed("write"))?;
            let mut place = String::new();
            let mut value = Vec::new();
            for (resource, event) in events {
                place.clear();
                place.push_str(resource);
                place.push('\0');
                place.push_str(&event.key);
                if event.kind == EventKind::Deleted {
                    table.remove(place.as_str()).map_err(self.failed("write"))?;
                    continue;
                }
                value.clear();
                value.extend_from_slice(&event.revision.to_le_bytes());
                let text = |name| event.object.tree.get(name).and_then(|v| v.as_str());
                event.object.write_text(
                    text("apiVersion").unwrap_or_default(),
                    text("kind").unwrap_or_default(),
                    &mut value,
                );
                table
                    .insert(place.as_str(), value.as_slice())
                    .map_err(self.failed("write"))?;
            }
            let mut meta = write.open_table(META).map_err(self.failed("write"))?;
            meta.insert("revision", revision.to_le_bytes().as_slice())
                .map_err(self.failed("write"))?;
        }
        write.commit().map_err(self.failed("write"))
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|source| StoreError::File {
            action: "open the lock file",
            path: path.clone(),
            source,
        })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked(directory.to_path_buf())),
        Err(std::fs::TryLockError::Error(source)) => Err(StoreError::File {
            action: "lock",
            path,
            source,
        }),
    }
}
