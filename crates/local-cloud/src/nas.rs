//! Network file systems as directories: each has an id and mount targets, whose server names a group's NFSVolume
//! uses. A group on this machine gets the directory itself; there is no NFS on any wire.

use crate::config::LocalCloudConfig;
use crate::gateway::refusal::Refusal;
use crate::shared::Shared;
use crate::state::State;
use crate::state::resources::FileSystemRecord;
use cloud_api::model::create::CreateContainerGroupRequest;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Most file systems.
const MAX_FILE_SYSTEMS: usize = 100;
/// Most mount targets of one file system.
const MAX_MOUNT_TARGETS: usize = 10;
const ID_LENGTH: usize = 10;
/// Everybody may write at the top, as with a fresh share whose root is not squashed.
const DIRECTORY_MODE: u32 = 0o777;

/// A network file system as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSystem {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub description: String,
    /// The server names that lead to it.
    pub mount_targets: Vec<String>,
    /// Where its files lie on this machine.
    pub directory: PathBuf,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Why something with a file system was not done; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum NasError {
    /// There are too many already.
    #[error("there may be at most {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        most: usize,
    },
    /// There is no such file system.
    #[error("there is no file system {id}")]
    Unknown {
        /// The id that was given.
        id: String,
    },
    /// A group uses it.
    #[error("file system {id} is used by container group {group}; delete that first")]
    InUse {
        /// The file system.
        id: String,
        /// The group.
        group: String,
    },
    /// The directory cannot be made or removed.
    #[error("directory {path} of a file system cannot be {attempt}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What was attempted.
        attempt: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

/// The directory of a file system.
pub(crate) fn directory(config: &LocalCloudConfig, id: &str) -> PathBuf {
    config.nas_dir.join(id)
}

/// Makes a file system with one mount target. Blocks.
pub(crate) fn create(
    state: &mut State,
    config: &LocalCloudConfig,
    description: &str,
    now: Timestamp,
) -> Result<FileSystem, NasError> {
    if state.resources.file_systems.len() >= MAX_FILE_SYSTEMS {
        let (what, most) = ("file systems", MAX_FILE_SYSTEMS);
        return Err(NasError::TooMany { what, most });
    }
    let mut id = state.random_id("");
    id.truncate(ID_LENGTH);
    let path = directory(config, &id);
    let made = std::fs::create_dir_all(&path).and_then(|()| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(DIRECTORY_MODE))
    });
    made.map_err(|source| NasError::Directory {
        path,
        attempt: "made",
        source,
    })?;
    let record = FileSystemRecord {
        description: description.to_owned(),
        mount_targets: vec![server_name(state, config, &id)],
        created_at: now,
    };
    let info = info(config, &id, &record);
    state.put(&id, record);
    Ok(info)
}

fn server_name(state: &mut State, config: &LocalCloudConfig, id: &str) -> String {
    let letters = state.random_id("");
    let region = &config.region;
    format!("{id}-{}.{region}.nas.aliyuncs.com", &letters[..4])
}

/// Adds a mount target; answers with its server name.
pub(crate) fn add_mount_target(
    state: &mut State,
    config: &LocalCloudConfig,
    id: &str,
) -> Result<String, NasError> {
    let unknown = || NasError::Unknown { id: id.to_owned() };
    let known = state.resources.file_systems.get(id).ok_or_else(unknown)?;
    if known.mount_targets.len() >= MAX_MOUNT_TARGETS {
        let (what, most) = ("mount targets", MAX_MOUNT_TARGETS);
        return Err(NasError::TooMany { what, most });
    }
    let name = server_name(state, config, id);
    let added = state.change_row(id, |own: &mut FileSystemRecord| {
        own.mount_targets.push(name.clone());
    });
    added.map(|()| name).ok_or_else(unknown)
}

/// Takes a file system off the list; its directory is the caller's to remove.
fn remove(state: &mut State, config: &LocalCloudConfig, id: &str) -> Result<PathBuf, NasError> {
    let path = directory(config, id);
    if !state.resources.file_systems.contains_key(id) {
        return Err(NasError::Unknown { id: id.to_owned() });
    }
    let uses = |shares: &BTreeMap<String, PathBuf>| shares.values().any(|own| *own == path);
    let mut groups = state.groups.values();
    if let Some(user) = groups.find(|group| group.holds_resources && uses(&group.shares)) {
        return Err(NasError::InUse {
            id: id.to_owned(),
            group: user.id.clone(),
        });
    }
    state.take_row::<FileSystemRecord>(id);
    Ok(path)
}

/// Removes a file system with all its files.
pub(crate) async fn delete(shared: &Shared, id: &str) -> Result<(), NasError> {
    let path = remove(&mut shared.state(), &shared.config, id)?;
    shared.wake();
    match tokio::fs::remove_dir_all(&path).await {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(NasError::Directory {
            path,
            attempt: "removed",
            source,
        }),
        _ => Ok(()),
    }
}

fn info(config: &LocalCloudConfig, id: &str, record: &FileSystemRecord) -> FileSystem {
    FileSystem {
        id: id.to_owned(),
        description: record.description.clone(),
        mount_targets: record.mount_targets.clone(),
        directory: directory(config, id),
        created_at: record.created_at,
    }
}

/// All file systems.
pub(crate) fn list(state: &State, config: &LocalCloudConfig) -> Vec<FileSystem> {
    let all = state.resources.file_systems.iter();
    all.map(|(id, record)| info(config, id, record)).collect()
}

/// The directory behind a server name; `None` when no mount target has it.
pub(crate) fn resolve(state: &State, config: &LocalCloudConfig, server: &str) -> Option<PathBuf> {
    let mut all = state.resources.file_systems.iter();
    let (id, _) = all.find(|(_, own)| own.mount_targets.iter().any(|name| name == server))?;
    Some(directory(config, id))
}

/// The directories behind a request's network shares. A group on paper may name any server: it mounts nothing.
pub(crate) fn shares(
    request: &CreateContainerGroupRequest,
    state: &State,
    config: &LocalCloudConfig,
    simulated: bool,
) -> Result<BTreeMap<String, PathBuf>, Refusal> {
    let mut shares = BTreeMap::new();
    for (number, volume) in request.volume.iter().enumerate() {
        let Some(share) = &volume.nfs_volume else {
            continue;
        };
        match resolve(state, config, &share.server) {
            Some(path) => {
                shares.insert(share.server.clone(), path);
            }
            None if simulated => {}
            None => {
                let parameter = format!("Volume.{}.NFSVolume.Server", number + 1);
                let rule = "no file system of this cloud has that mount target";
                return Err(Refusal::invalid(&parameter, rule));
            }
        }
    }
    Ok(shares)
}
