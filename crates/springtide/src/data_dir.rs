//! The layout of a cluster's data directory, and that only one process and one version use it.
//!
//! ```text
//! version            layout version; another one is refused
//! lock               held by the process that serves the cluster
//! status.json        what `springtide status` reads; secrets inside, mode 0600
//! kubeconfig         administrator's access, mode 0600
//! api/ runtime/ cloud/ volumes/   each part's own
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

/// Version of the layout this program reads and writes.
const LAYOUT_VERSION: &str = "1";

/// A data directory, not necessarily in use.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

/// Held as long as the cluster is served.
#[derive(Debug)]
pub struct Lock {
    _held: Flock<File>,
}

impl DataDir {
    pub fn new(root: &Path) -> Self {
        let absolute = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
        Self { root: absolute }
    }

    /// Creates what is missing, refuses another version, and takes the lock.
    pub fn open(&self) -> anyhow::Result<Lock> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .with_context(|| format!("create data directory {}", self.root.display()))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.root.join("lock"))
            .with_context(|| format!("open the lock of {}", self.root.display()))?;
        let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => bail!(
                "data directory {} is in use by another springtide; stop it with `springtide down --data-dir {}`, or choose another with --data-dir",
                self.root.display(),
                self.root.display()
            ),
            Err((_, error)) => {
                return Err(error).with_context(|| format!("lock {}", self.root.display()));
            }
        };
        self.check_version()?;
        Ok(Lock { _held: lock })
    }

    /// True while a process serves this cluster.
    pub fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.root.join("lock")) else {
            return false;
        };
        Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
    }

    fn check_version(&self) -> anyhow::Result<()> {
        let path = self.root.join("version");
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim() == LAYOUT_VERSION => Ok(()),
            Ok(text) => bail!(
                "data directory {} has layout version {:?}, this program reads version {LAYOUT_VERSION}; use the springtide that wrote it, or another --data-dir",
                self.root.display(),
                text.trim()
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let foreign = std::fs::read_dir(&self.root)?
                    .flatten()
                    .find(|entry| entry.file_name() != "lock");
                if let Some(entry) = foreign {
                    bail!(
                        "{} is not an empty directory (it holds {:?}) and no springtide data directory; choose another with --data-dir",
                        self.root.display(),
                        entry.file_name()
                    );
                }
                std::fs::write(&path, LAYOUT_VERSION)
                    .with_context(|| format!("write {}", path.display()))
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn api(&self) -> PathBuf {
        self.root.join("api")
    }

    pub fn runtime(&self) -> PathBuf {
        self.root.join("runtime")
    }

    pub fn cloud(&self) -> PathBuf {
        self.root.join("cloud")
    }

    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    pub fn status_file(&self) -> PathBuf {
        self.root.join("status.json")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Names the cluster's namespaces and cgroups: eight hex digits of the directory's path.
    pub fn cluster_id(&self) -> String {
        let digest = ring::digest::digest(
            &ring::digest::SHA256,
            self.root.as_os_str().as_encoded_bytes(),
        );
        digest
            .as_ref()
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Writes a file only its owner may read, all of it or nothing.
pub fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let next = path.with_extension("next");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&next, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_process_is_told_who_holds_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path());
        let lock = data.open().unwrap();
        assert!(data.is_locked());
        let error = data.open().unwrap_err().to_string();
        assert!(error.contains("springtide down"), "{error}");
        drop(lock);
        assert!(!data.is_locked());
        data.open().unwrap();
    }

    #[test]
    fn another_version_and_a_foreign_directory_are_refused_untouched() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("version"), "99").unwrap();
        let error = DataDir::new(folder.path()).open().unwrap_err().to_string();
        assert!(
            error.contains("99") && error.contains("--data-dir"),
            "{error}"
        );
        let foreign = tempfile::tempdir().unwrap();
        std::fs::write(foreign.path().join("photo.jpg"), "x").unwrap();
        let error = DataDir::new(foreign.path()).open().unwrap_err().to_string();
        assert!(error.contains("photo.jpg"), "{error}");
        assert!(!foreign.path().join("version").exists());
    }

    #[test]
    fn private_files_are_readable_by_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        write_private(&path, b"secret").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
    }
}
