//! What survives the process: groups, client tokens and the ledger, in one file.
//!
//! Writing is by state, not by message: a writer takes everything that is marked, writes it in one durable
//! transaction, and announces up to which version it got. So a thousand changes at once cost a handful of syncs.

use crate::ledger::LedgerEntry;
use crate::state::TokenRecord;
use crate::state::record::GroupRecord;
use crate::state::resources::Resources;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const GROUPS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("groups");
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("client-tokens");
const LEDGER: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("ledger");
const RESOURCES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("resources");
const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");

/// The layout of the file; another one is refused, not guessed at.
const LAYOUT: &str = "1";
const FILE: &str = "cloud.redb";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made.
    #[error("cannot create the cloud's directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The database refused.
    #[error("cannot {attempt} the cloud's records in {path}")]
    Database {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<redb::Error>,
    },
    /// A row is none of ours.
    #[error("row {key:?} of the cloud's records cannot be read; move the file away to start anew")]
    Row {
        /// The row.
        key: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// Written by another version.
    #[error(
        "the cloud's records in {path} have layout {found}, this version reads {LAYOUT}; use the version that wrote them or move the file away"
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: String,
    },
}

/// What one transaction writes; `None` removes the row.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) groups: Vec<(String, Option<GroupRecord>)>,
    pub(crate) tokens: Vec<(String, Option<TokenRecord>)>,
    pub(crate) ledger: Vec<LedgerEntry>,
    /// Rows of everything else, as they are.
    pub(crate) rows: Vec<(String, Option<Vec<u8>>)>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
            && self.tokens.is_empty()
            && self.ledger.is_empty()
            && self.rows.is_empty()
    }
}

/// What was found at the start.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) groups: BTreeMap<String, GroupRecord>,
    pub(crate) tokens: HashMap<String, TokenRecord>,
    pub(crate) resources: Resources,
}

#[derive(Clone)]
pub(crate) struct Store {
    /// `None` when nothing is kept.
    database: Option<Arc<Database>>,
    path: PathBuf,
}

impl Store {
    /// Keeps nothing: for a cloud that lives no longer than its process.
    pub(crate) fn nowhere() -> Self {
        Self {
            database: None,
            path: PathBuf::new(),
        }
    }

    /// Whether what is written is kept.
    pub(crate) fn keeps(&self) -> bool {
        self.database.is_some()
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        let nothing = || redb::Error::Io(std::io::Error::other("this cloud keeps no records"));
        self.database.as_deref().ok_or_else(nothing)
    }

    /// Opens or creates the file. Blocks.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Found), StoreError> {
        std::fs::create_dir_all(directory).map_err(|source| StoreError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let path = directory.join(FILE);
        let failed = |error: redb::Error| database_error("open", &path, error);
        let database = Database::create(&path).map_err(|error| failed(error.into()))?;
        restrict(&path)?;
        let store = Self {
            database: Some(Arc::new(database)),
            path: path.clone(),
        };
        store.check_layout()?;
        let found = Found {
            groups: store.rows(GROUPS)?.into_iter().collect(),
            tokens: store.rows(TOKENS)?.into_iter().collect(),
            resources: store.resources()?,
        };
        Ok((store, found))
    }

    fn check_layout(&self) -> Result<(), StoreError> {
        let found = self
            .prepare()
            .map_err(|error| database_error("prepare", &self.path, error))?;
        if found == LAYOUT {
            return Ok(());
        }
        Err(StoreError::Layout {
            path: self.path.clone(),
            found,
        })
    }

    /// Creates the tables and answers with the layout.
    fn prepare(&self) -> Result<String, redb::Error> {
        let transaction = self.database()?.begin_write()?;
        let found = {
            transaction.open_table(GROUPS)?;
            transaction.open_table(TOKENS)?;
            transaction.open_table(LEDGER)?;
            transaction.open_table(RESOURCES)?;
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

    fn resources(&self) -> Result<Resources, StoreError> {
        let raw = self
            .raw_rows(RESOURCES)
            .map_err(|error| database_error("read", &self.path, error))?;
        let mut resources = Resources::default();
        for (key, bytes) in raw {
            resources
                .load(&key, &bytes)
                .map_err(|source| StoreError::Row { key, source })?;
        }
        Ok(resources)
    }

    fn rows<T: DeserializeOwned>(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let raw = self
            .raw_rows(table)
            .map_err(|error| database_error("read", &self.path, error))?;
        raw.into_iter()
            .map(|(key, bytes)| match serde_json::from_slice(&bytes) {
                Ok(row) => Ok((key, row)),
                Err(source) => Err(StoreError::Row { key, source }),
            })
            .collect()
    }

    fn raw_rows(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
    ) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let transaction = self.database()?.begin_read()?;
        let table = transaction.open_table(table)?;
        let mut rows = Vec::new();
        for row in table.iter()? {
            let (key, value) = row?;
            rows.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(rows)
    }

    /// The whole ledger. Blocks.
    pub(crate) fn ledger(&self) -> Result<Vec<LedgerEntry>, StoreError> {
        Ok(self
            .rows(LEDGER)?
            .into_iter()
            .map(|(_, entry)| entry)
            .collect())
    }

    /// Writes a batch durably. Blocks.
    pub(crate) fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        if !self.keeps() {
            return Ok(());
        }
        self.write_rows(batch)
            .map_err(|error| database_error("write", &self.path, error))
    }

    fn write_rows(&self, batch: &Batch) -> Result<(), redb::Error> {
        let transaction = self.database()?.begin_write()?;
        {
            let mut groups = transaction.open_table(GROUPS)?;
            for (id, group) in &batch.groups {
                match group {
                    Some(group) => groups.insert(id.as_str(), bytes(group)?.as_slice())?,
                    None => groups.remove(id.as_str())?,
                };
            }
            let mut tokens = transaction.open_table(TOKENS)?;
            for (token, record) in &batch.tokens {
                match record {
                    Some(record) => tokens.insert(token.as_str(), bytes(record)?.as_slice())?,
                    None => tokens.remove(token.as_str())?,
                };
            }
            let mut ledger = transaction.open_table(LEDGER)?;
            for entry in &batch.ledger {
                ledger.insert(entry.group_id.as_str(), bytes(entry)?.as_slice())?;
            }
            let mut resources = transaction.open_table(RESOURCES)?;
            for (key, row) in &batch.rows {
                match row {
                    Some(row) => resources.insert(key.as_str(), row.as_slice())?,
                    None => resources.remove(key.as_str())?,
                };
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn bytes<T: serde::Serialize>(row: &T) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(row).map_err(|error| redb::Error::Io(error.into()))
}

fn database_error(attempt: &'static str, path: &Path, error: redb::Error) -> StoreError {
    StoreError::Database {
        attempt,
        path: path.to_owned(),
        source: Box::new(error),
    }
}

/// The file holds registry passwords.
fn restrict(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|source| {
        StoreError::Directory {
            path: path.to_owned(),
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::tests::{at, record};

    #[test]
    fn rows_come_back_after_reopening_and_removed_ones_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(directory.path()).unwrap();
        let token = TokenRecord {
            fingerprint: "f".to_owned(),
            group_id: "a".to_owned(),
            used_at: at(1),
        };
        let eip = br#"{"address":"198.18.0.1","bandwidth":5,"automatic":false,"user":null,"created_at":"2024-01-01T00:00:00Z"}"#.to_vec();
        let groups = ["a", "b"]
            .map(|id| (id.to_owned(), Some(record(id))))
            .to_vec();
        store
            .write(&Batch {
                groups,
                tokens: vec![("t".to_owned(), Some(token.clone()))],
                rows: vec![("eip/e".to_owned(), Some(eip.clone()))],
                ..Default::default()
            })
            .unwrap();
        store
            .write(&Batch {
                groups: vec![("b".to_owned(), None)],
                ..Default::default()
            })
            .unwrap();
        drop(store);
        let (_, found) = Store::open(directory.path()).unwrap();
        assert_eq!(found.groups.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(found.tokens["t"], token);
        assert_eq!(found.resources.eips["e"].bandwidth, 5);
    }

    #[test]
    fn a_file_of_another_layout_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(directory.path()).unwrap();
        let transaction = store.database().unwrap().begin_write().unwrap();
        transaction
            .open_table(ABOUT)
            .unwrap()
            .insert("layout", "99")
            .unwrap();
        transaction.commit().unwrap();
        drop(store);
        let error = Store::open(directory.path()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("layout 99"), "{error}");
    }
}
