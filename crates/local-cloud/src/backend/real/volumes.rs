//! A group's volumes as directories below its own, and where they appear in its containers.
//!
//! Paths in a request were checked for leading out at admission. What a container itself puts into a volume
//! (symbolic links) is checked here, before a part of it is mounted elsewhere.

use crate::backend::{BackendError, GroupPlan};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloud_api::model::create::{
    ConfigFileVolumeSpec, ContainerSpec, NfsVolumeSpec, VolumeMount, VolumeSpec,
};
use local_runtime::Mount;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const DEFAULT_FILE_MODE: u32 = 0o644;
/// Every user of every container may write to an empty directory.
const SHARED_DIRECTORY_MODE: u32 = 0o777;
const PRIVATE_DIRECTORY_MODE: u32 = 0o700;
/// A memory volume without a size.
const DEFAULT_TMPFS_BYTES: u64 = 64 * 1024 * 1024;

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BackendError {
    let path = path.display().to_string();
    move |error| BackendError::new("FailedMount", format!("{path}: {error}"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(BackendError::new(
            "FailedMount",
            "the work on volumes was interrupted",
        ))
    })
}

/// Makes all volumes of a group; what is there stays as it is, and configuration files become what is asked for. The group's directory is closed to other users of the
/// machine, because volumes hold secrets.
pub(super) async fn make(directory: &Path, plan: &GroupPlan) -> Result<(), BackendError> {
    let (directory, request) = (directory.to_owned(), plan.request.clone());
    blocking(move || {
        let close = || -> io::Result<()> {
            fs::create_dir_all(&directory)?;
            fs::set_permissions(
                &directory,
                fs::Permissions::from_mode(PRIVATE_DIRECTORY_MODE),
            )
        };
        close().map_err(failed(&directory))?;
        let volumes = directory.join("volumes");
        // Beside the volumes, where no container looks.
        let scratch = directory.join("new-file");
        request
            .volume
            .iter()
            .try_for_each(|volume| make_volume(&scratch, &volumes.join(&volume.name), volume))
    })
    .await
}

fn make_volume(scratch: &Path, path: &Path, volume: &VolumeSpec) -> Result<(), BackendError> {
    if volume.nfs_volume.is_some() {
        // The share is there already, elsewhere.
        return Ok(());
    }
    let make = || -> io::Result<()> {
        fs::create_dir_all(path)?;
        if volume.volume_type == "EmptyDirVolume" {
            return fs::set_permissions(path, fs::Permissions::from_mode(SHARED_DIRECTORY_MODE));
        }
        volume
            .config_file_volume
            .iter()
            .try_for_each(|files| write_files(scratch, path, files))
    };
    make().map_err(failed(path))
}

fn write_files(scratch: &Path, path: &Path, volume: &ConfigFileVolumeSpec) -> io::Result<()> {
    let mut wanted = BTreeSet::new();
    for file in &volume.config_file_to_path {
        let target = path.join(&file.path);
        let content = STANDARD.decode(&file.content).map_err(io::Error::other)?;
        let mode = file
            .mode
            .or(volume.default_mode)
            .and_then(|mode| u32::try_from(mode).ok());
        let mode = mode
            .filter(|mode| *mode <= 0o7777)
            .unwrap_or(DEFAULT_FILE_MODE);
        write_file(scratch, &target, &content, mode)?;
        wanted.insert(target);
    }
    remove_others(path, &wanted)
}

/// A container that reads meanwhile sees the old file or the new one, whole.
fn write_file(scratch: &Path, target: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let same_mode = |found: fs::Metadata| found.permissions().mode() & 0o7777 == mode;
    if fs::read(target).is_ok_and(|found| found == content)
        && fs::metadata(target).is_ok_and(same_mode)
    {
        return Ok(());
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(scratch, content)?;
    fs::set_permissions(scratch, fs::Permissions::from_mode(mode))?;
    fs::rename(scratch, target)
}

/// Takes away what is no longer asked for.
fn remove_others(directory: &Path, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            if wanted.iter().any(|file| file.starts_with(&path)) {
                remove_others(&path, wanted)?;
            } else {
                fs::remove_dir_all(&path)?;
            }
        } else if !wanted.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Where the volumes appear in one container.
pub(super) async fn mounts(
    directory: &Path,
    plan: &GroupPlan,
    container: &ContainerSpec,
) -> Result<Vec<Mount>, BackendError> {
    let volumes = directory.join("volumes");
    let (request, wanted) = (plan.request.clone(), container.volume_mount.clone());
    let shares = plan.shares.clone();
    let users = |name: &str| {
        let all = plan
            .request
            .container
            .iter()
            .chain(&plan.request.init_container);
        all.flat_map(|container| &container.volume_mount)
            .filter(|mount| mount.name == name)
            .count()
    };
    // Memory of its own is only possible for a volume that nobody shares; others lie on disk.
    let private: BTreeSet<String> = wanted
        .iter()
        .map(|mount| mount.name.clone())
        .filter(|name| users(name) == 1)
        .collect();
    blocking(move || {
        let find = |mount: &VolumeMount| {
            request
                .volume
                .iter()
                .find(|volume| volume.name == mount.name)
        };
        wanted
            .iter()
            .filter_map(|mount| Some((mount, find(mount)?)))
            .map(|(mount, volume)| {
                if let Some(share) = &volume.nfs_volume {
                    return share_mount(share, mount, &shares);
                }
                one_mount(
                    &volumes.join(&volume.name),
                    mount,
                    volume,
                    private.contains(&volume.name),
                )
            })
            .collect()
    })
    .await
}

fn one_mount(
    path: &Path,
    mount: &VolumeMount,
    volume: &VolumeSpec,
    private: bool,
) -> Result<Mount, BackendError> {
    let sub_path = mount
        .sub_path
        .as_deref()
        .filter(|sub_path| !sub_path.is_empty());
    let memory = volume
        .empty_dir_volume
        .as_ref()
        .filter(|spec| spec.medium.as_deref() == Some("Memory"));
    let tmpfs_size = match memory {
        Some(spec) if private && sub_path.is_none() => Some(
            spec.size_limit
                .as_deref()
                .and_then(bytes)
                .unwrap_or(DEFAULT_TMPFS_BYTES),
        ),
        _ => None,
    };
    let is_config = volume.volume_type == "ConfigFileVolume";
    let source = match sub_path {
        None => path.to_owned(),
        Some(sub_path) => inside(path, sub_path, !is_config)?,
    };
    Ok(Mount {
        source,
        target: mount.mount_path.clone(),
        read_only: mount.read_only.unwrap_or_default() || is_config,
        tmpfs_size,
    })
}

/// A part of a network share. What is asked for below its top has to be there, as with a real server.
fn share_mount(
    share: &NfsVolumeSpec,
    mount: &VolumeMount,
    shares: &BTreeMap<String, PathBuf>,
) -> Result<Mount, BackendError> {
    let unknown = || {
        let message = format!("no file system has the mount target {}", share.server);
        BackendError::new("FailedMount", message)
    };
    let top = shares.get(&share.server).ok_or_else(unknown)?;
    let exported = match share.path.trim_matches('/') {
        "" => top.clone(),
        path => inside(top, path, false)?,
    };
    let source = match mount.sub_path.as_deref().unwrap_or_default() {
        "" => exported,
        sub_path => inside(&exported, sub_path, true)?,
    };
    Ok(Mount {
        source,
        target: mount.mount_path.clone(),
        read_only: mount.read_only.unwrap_or_default() || share.read_only.unwrap_or_default(),
        tmpfs_size: None,
    })
}

/// A part of a volume, wherever its links lead, as long as that is still in the volume.
fn inside(volume: &Path, sub_path: &str, create: bool) -> Result<PathBuf, BackendError> {
    let path = volume.join(sub_path);
    let find = || -> io::Result<PathBuf> {
        let volume = volume.canonicalize()?;
        let mut found = path.canonicalize();
        if create && matches!(&found, Err(error) if error.kind() == ErrorKind::NotFound) {
            make_inside(&volume, sub_path)?;
            found = path.canonicalize();
        }
        let found = found?;
        if found.starts_with(&volume) {
            return Ok(found);
        }
        Err(io::Error::other("the sub path leads out of its volume"))
    };
    find().map_err(failed(&path))
}

/// Makes a directory in a volume step by step, following no link that leads out.
fn make_inside(volume: &Path, sub_path: &str) -> io::Result<()> {
    let mut here = volume.to_owned();
    for part in sub_path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        let next = here.join(part);
        match fs::create_dir(&next) {
            Ok(()) => {
                fs::set_permissions(&next, fs::Permissions::from_mode(SHARED_DIRECTORY_MODE))?
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        here = next.canonicalize()?;
        if !here.starts_with(volume) {
            return Err(io::Error::other("the sub path leads out of its volume"));
        }
    }
    Ok(())
}

/// `256Mi` and the like.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return None,
    };
    digits
        .parse::<u64>()
        .ok()?
        .checked_mul(factor)
        .filter(|bytes| *bytes > 0)
}

/// Removes a directory with all it has; none is fine.
pub(super) async fn remove(directory: &Path) -> Result<(), BackendError> {
    match tokio::fs::remove_dir_all(directory).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(directory)(error)),
        _ => Ok(()),
    }
}

/// Removes the files of a directory whose names begin so; what cannot be removed only takes room.
pub(super) async fn remove_files(directory: &Path, prefix: &str) {
    let found = names(directory).await.unwrap_or_default();
    for name in found.iter().filter(|name| name.starts_with(prefix)) {
        if let Err(error) = tokio::fs::remove_file(directory.join(name)).await {
            tracing::debug!(name, %error, "old log cannot be removed");
        }
    }
}

/// Names of what is in a directory; none when it does not exist.
pub(super) async fn names(directory: &Path) -> Result<Vec<String>, BackendError> {
    let mut entries = match tokio::fs::read_dir(directory).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(directory)(error)),
    };
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(failed(directory))? {
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloud_api::model::create::{
        ConfigFileToPath, CreateContainerGroupRequest, EmptyDirVolumeSpec,
    };
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    fn config(path: &str, mode: Option<i64>) -> VolumeSpec {
        VolumeSpec {
            name: "conf".to_owned(),
            volume_type: "ConfigFileVolume".to_owned(),
            config_file_volume: Some(ConfigFileVolumeSpec {
                default_mode: None,
                config_file_to_path: vec![ConfigFileToPath {
                    path: path.to_owned(),
                    content: "aGk=".to_owned(),
                    mode,
                }],
            }),
            ..Default::default()
        }
    }

    fn empty(medium: &str) -> VolumeSpec {
        VolumeSpec {
            name: "scratch".to_owned(),
            volume_type: "EmptyDirVolume".to_owned(),
            empty_dir_volume: Some(EmptyDirVolumeSpec {
                medium: Some(medium.to_owned()),
                size_limit: Some("8Mi".to_owned()),
            }),
            ..Default::default()
        }
    }

    fn mount(name: &str, sub_path: Option<&str>) -> VolumeMount {
        VolumeMount {
            name: name.to_owned(),
            mount_path: "/data".to_owned(),
            sub_path: sub_path.map(str::to_owned),
            ..Default::default()
        }
    }

    fn plan(volume: Vec<VolumeSpec>, mounts: Vec<VolumeMount>) -> GroupPlan {
        let container = ContainerSpec {
            name: "main".to_owned(),
            volume_mount: mounts,
            ..Default::default()
        };
        let request = CreateContainerGroupRequest {
            volume,
            container: vec![container],
            ..Default::default()
        };
        GroupPlan {
            id: "eci-a".to_owned(),
            request: Arc::new(request),
            address: std::net::Ipv4Addr::new(10, 4, 1, 2),
            size: cloud_api::catalog::DEFAULT_SIZE,
            zone: "z".to_owned(),
            cached_images: Vec::new(),
            shares: Default::default(),
        }
    }

    #[tokio::test]
    async fn configuration_files_get_their_content_and_mode() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(
            vec![config("a/b.conf", Some(0o600))],
            vec![mount("conf", Some("a/b.conf"))],
        );
        make(directory.path(), &plan).await.unwrap();
        make(directory.path(), &plan).await.unwrap();
        let mounts = mounts(directory.path(), &plan, &plan.request.container[0])
            .await
            .unwrap();
        assert!(mounts[0].read_only);
        assert_eq!(fs::read(&mounts[0].source).unwrap(), b"hi");
        assert_eq!(
            fs::metadata(&mounts[0].source)
                .unwrap()
                .permissions()
                .mode()
                & 0o7777,
            0o600
        );
    }

    #[tokio::test]
    async fn files_become_what_is_asked_for_now() {
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().join("volumes/conf");
        let before = plan(vec![config("a/b.conf", None)], Vec::new());
        make(directory.path(), &before).await.unwrap();
        let inode = |path: &str| {
            let found = fs::metadata(files.join(path)).unwrap();
            std::os::unix::fs::MetadataExt::ino(&found)
        };
        let first = inode("a/b.conf");
        make(directory.path(), &before).await.unwrap();
        assert_eq!(inode("a/b.conf"), first, "what is right is left alone");
        let mut volume = config("a/b.conf", None);
        let spec = volume.config_file_volume.as_mut().unwrap();
        spec.config_file_to_path[0].content = "aG8=".to_owned();
        spec.config_file_to_path.push(ConfigFileToPath {
            path: "c".to_owned(),
            ..Default::default()
        });
        make(directory.path(), &plan(vec![volume], Vec::new()))
            .await
            .unwrap();
        assert_eq!(fs::read(files.join("a/b.conf")).unwrap(), b"ho");
        assert_ne!(
            inode("a/b.conf"),
            first,
            "it is replaced, never half written"
        );
        assert!(files.join("c").exists());
        let after = plan(vec![config("d", None)], Vec::new());
        make(directory.path(), &after).await.unwrap();
        assert_eq!(names(&files).await.unwrap(), ["d"]);
    }

    #[tokio::test]
    async fn a_memory_volume_of_one_container_is_memory() {
        let directory = tempfile::tempdir().unwrap();
        let one = plan(vec![empty("Memory")], vec![mount("scratch", None)]);
        make(directory.path(), &one).await.unwrap();
        let made = mounts(directory.path(), &one, &one.request.container[0])
            .await
            .unwrap();
        assert_eq!(made[0].tmpfs_size, Some(8 << 20));
        let two = plan(
            vec![empty("Memory")],
            vec![mount("scratch", None), mount("scratch", None)],
        );
        let made = mounts(directory.path(), &two, &two.request.container[0])
            .await
            .unwrap();
        assert_eq!(made[0].tmpfs_size, None);
    }

    #[tokio::test]
    async fn a_link_that_a_container_planted_does_not_lead_out() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(vec![empty("")], vec![mount("scratch", Some("sub/deeper"))]);
        make(directory.path(), &plan).await.unwrap();
        let volume = directory.path().join("volumes/scratch");
        let made = mounts(directory.path(), &plan, &plan.request.container[0])
            .await
            .unwrap();
        assert_eq!(
            made[0].source,
            volume.canonicalize().unwrap().join("sub/deeper")
        );
        fs::remove_dir_all(volume.join("sub")).unwrap();
        symlink("/", volume.join("sub")).unwrap();
        let error = mounts(directory.path(), &plan, &plan.request.container[0])
            .await
            .unwrap_err();
        assert!(error.message.contains("leads out"), "{error}");
        assert!(!Path::new("/deeper").exists());
    }

    #[tokio::test]
    async fn a_share_is_mounted_below_its_top_and_no_link_leads_out() {
        let directory = tempfile::tempdir().unwrap();
        let share = |path: &str| VolumeSpec {
            name: "scratch".to_owned(),
            volume_type: "NFSVolume".to_owned(),
            nfs_volume: Some(NfsVolumeSpec {
                server: "s".to_owned(),
                path: path.to_owned(),
                read_only: Some(true),
            }),
            ..Default::default()
        };
        let top = directory.path().join("nas");
        fs::create_dir_all(top.join("in")).unwrap();
        symlink("/", top.join("out")).unwrap();
        let mounted = async |path: &str| {
            let mut plan = plan(vec![share(path)], vec![mount("scratch", None)]);
            plan.shares.insert("s".to_owned(), top.clone());
            mounts(directory.path(), &plan, &plan.request.container[0]).await
        };
        let made = mounted("/in").await.unwrap();
        assert!(made[0].read_only && made[0].source.ends_with("nas/in"));
        assert_eq!(mounted("/").await.unwrap()[0].source, top);
        assert!(mounted("/missing").await.is_err());
        assert!(
            mounted("/out")
                .await
                .unwrap_err()
                .message
                .contains("leads out")
        );
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(bytes("256Mi"), Some(256 << 20));
        assert_eq!(bytes("10"), Some(10));
        assert_eq!(bytes("many"), None);
        assert_eq!(bytes("0"), None);
    }
}
