//! Named network namespaces: created on a thread of their own, kept by a bind mount under `/run/netns` as `ip netns`
//! does, so that `ip netns exec` works on them.
//!
//! A thread that has changed its namespace is never given back: every function that does so says it, and callers run
//! it through [`on_own_thread`].

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, statfs},
};
use tokio::sync::oneshot;

use crate::NetworkError;

pub(crate) const NAMESPACE_DIRECTORY: &str = "/run/netns";
const THIS_THREADS_NAMESPACE: &str = "/proc/thread-self/ns/net";

pub(crate) fn path_of(namespace: &str) -> PathBuf {
    Path::new(NAMESPACE_DIRECTORY).join(namespace)
}

/// Runs blocking work on a fresh thread, which may change its namespace because it ends with the work.
pub(crate) async fn on_own_thread<T: Send + 'static>(
    object: &str,
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let (answer, result) = oneshot::channel();
    thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || drop(answer.send(work())))
        .map_err(|error| NetworkError::io("starting a network thread for", object, error))?;
    result.await.map_err(|_| NetworkError::Stopped {
        object: object.to_owned(),
    })?
}

/// Moves the calling thread, for good, into a new namespace and returns its open handle.
pub(crate) fn enter_new() -> io::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    File::open(THIS_THREADS_NAMESPACE)
}

/// Moves the calling thread, for good, into an existing namespace.
pub(crate) fn enter(namespace: &File) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

/// Opens a named namespace; `None` when there is none of this name.
pub(crate) fn open(namespace: &str) -> io::Result<Option<File>> {
    let path = path_of(namespace);
    if !is_mounted(&path)? {
        return Ok(None);
    }
    Ok(Some(File::open(path)?))
}

/// Gives the calling thread's namespace a name.
pub(crate) fn keep_as(namespace: &str) -> io::Result<()> {
    prepare_directory()?;
    let path = path_of(namespace);
    // An empty file may be left of an attempt that was killed between the two steps.
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    let none: Option<&str> = None;
    let mounted = mount(
        Some(THIS_THREADS_NAMESPACE),
        &path,
        none,
        MsFlags::MS_BIND,
        none,
    );
    if mounted.is_err() {
        fs::remove_file(&path).ok();
    }
    Ok(mounted?)
}

/// Takes a namespace's name away; it ends when its last process and socket are gone.
pub(crate) fn remove(namespace: &str) -> io::Result<()> {
    let path = path_of(namespace);
    // Mounted more than once only if somebody else meddled; each layer has to go before the file can.
    while is_mounted(&path)? {
        umount2(&path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The names of all namespaces on this machine, those without a mount included.
pub(crate) fn list() -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(NAMESPACE_DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Sets a kernel parameter of the calling thread's namespace. Parameters this kernel lacks are left alone.
pub(crate) fn set_parameter(name: &str, value: &str) -> io::Result<()> {
    match fs::write(Path::new("/proc/sys/net").join(name), value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_mounted(path: &Path) -> io::Result<bool> {
    match statfs(path) {
        Ok(status) => Ok(status.filesystem_type() == NSFS_MAGIC),
        Err(nix::errno::Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes `/run/netns` a shared mount point, so that a name removed here vanishes from other mount namespaces too, and a
/// container's copy of the mount cannot keep a namespace alive.
fn prepare_directory() -> io::Result<()> {
    fs::create_dir_all(NAMESPACE_DIRECTORY)?;
    let none: Option<&str> = None;
    // Held until the end of the function: two processes must not stack the mount.
    let lock = File::open(NAMESPACE_DIRECTORY)?;
    lock.lock()?;
    let share = || {
        mount(
            none,
            NAMESPACE_DIRECTORY,
            none,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            none,
        )
    };
    if share().is_err() {
        mount(
            Some(NAMESPACE_DIRECTORY),
            NAMESPACE_DIRECTORY,
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )?;
        share()?;
    }
    Ok(())
}
