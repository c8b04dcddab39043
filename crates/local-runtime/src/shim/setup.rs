//! What a shim does before it answers: its lock, its cgroup, its namespaces, the sandbox's files.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, chdir, sethostname};

use super::process::{become_subreaper, hide_program, set_process_name};
use super::rootfs::mount_shared_memory;
use super::spawn::{namespace_of, spawn_pause};
use super::step::{InStep, Step, StepError};
use crate::cgroup::Cgroups;
use crate::durable::read_json;
use crate::layout::{self, SandboxDirectory};
use crate::open_files::raise_open_files;
use crate::protocol::SandboxRecord;

/// The kernel should take anything else first.
const SHIM_OOM_SCORE: &str = "-998";

/// Until whoever holds the lock for a moment has let go.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// A shim that is ready to answer.
pub(super) struct Prepared {
    pub(super) record: SandboxRecord,
    pub(super) directory: SandboxDirectory,
    pub(super) cgroups: Cgroups,
    pub(super) group: PathBuf,
    pub(super) own_pid_namespace: OwnedFd,
    /// The process that keeps a shared PID namespace, and that namespace.
    pub(super) pause: Option<(Pid, OwnedFd)>,
    pub(super) listener: UnixListener,
    /// Its lock says that this shim lives.
    pub(super) lock: File,
}

pub(super) fn prepare(directory: &SandboxDirectory) -> Step<Prepared> {
    set_process_name(c"springtide-shim");
    umask(Mode::from_bits_truncate(0o022));
    chdir("/").in_step(|| "change to /".to_owned())?;
    let lock = take_lock(directory)?;
    let record: SandboxRecord = read_json(&directory.record())
        .in_step(|| format!("read {}", directory.record().display()))?;
    become_subreaper()?;
    hide_program()?;
    raise_open_files();
    // Not permitted in some containers; then it simply stays as it is.
    let _ = fs::write("/proc/self/oom_score_adj", SHIM_OOM_SCORE);
    let cgroups = Cgroups::detect().in_step(|| "find the cgroups".to_owned())?;
    let group = layout::sandbox_group(&record);
    let built = build(directory, &record, &cgroups, &group);
    let (own_pid_namespace, pause, listener) = match built {
        Ok(built) => built,
        Err(error) => {
            undo(directory, &cgroups, &group);
            return Err(error);
        }
    };
    Ok(Prepared {
        record,
        directory: directory.clone(),
        cgroups,
        group,
        own_pid_namespace,
        pause,
        listener,
        lock,
    })
}

type Built = (OwnedFd, Option<(Pid, OwnedFd)>, UnixListener);

fn build(
    directory: &SandboxDirectory,
    record: &SandboxRecord,
    cgroups: &Cgroups,
    group: &Path,
) -> Step<Built> {
    cgroups
        .create(group)
        .in_step(|| "create the sandbox's cgroup".to_owned())?;
    cgroups
        .apply(group, &record.spec.limits)
        .in_step(|| "limit the sandbox".to_owned())?;
    write_files(directory, record)?;
    enter_namespaces(record)?;
    mount_shared_memory(&directory.shared_memory())?;
    let own_pid_namespace =
        namespace_of(Pid::this(), "pid").in_step(|| "open the shim's PID namespace".to_owned())?;
    let pause = match record.spec.share_process_namespace {
        true => Some(start_pause(&own_pid_namespace, cgroups, group)?),
        false => None,
    };
    let listener = listen(directory)?;
    Ok((own_pid_namespace, pause, listener))
}

fn undo(directory: &SandboxDirectory, cgroups: &Cgroups, group: &Path) {
    // Whatever was not made yet is no harm.
    let _ = umount2(&directory.shared_memory(), MntFlags::MNT_DETACH);
    cgroups.kill_once(group);
    cgroups.remove(group, Duration::from_secs(1));
}

/// From here on this shim is the sandbox's only one, and nobody clears the sandbox up under its feet.
fn take_lock(directory: &SandboxDirectory) -> Step<File> {
    let path = directory.lock();
    let step = || format!("lock {}", path.display());
    let options = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .clone();
    let mut lock = options.open(&path).in_step(step)?;
    let deadline = Instant::now() + LOCK_LIMIT;
    // Someone who looks whether a shim lives holds the lock for a moment.
    while let Err(error) = lock.try_lock() {
        if Instant::now() > deadline {
            return Err(error).in_step(step);
        }
        std::thread::sleep(LOCK_RETRY);
    }
    let removed = lock.metadata().in_step(step)?.nlink() == 0;
    if removed || directory.tombstone().exists() {
        return Err(StepError(
            "the sandbox was given up before its shim began".to_owned(),
        ));
    }
    lock.set_len(0).in_step(step)?;
    lock.write_all(std::process::id().to_string().as_bytes())
        .in_step(step)?;
    Ok(lock)
}

fn write_files(directory: &SandboxDirectory, record: &SandboxRecord) -> Step<()> {
    let step = || "write the sandbox's /etc files".to_owned();
    fs::create_dir_all(directory.0.join("etc")).in_step(step)?;
    let hostname = format!("{}\n", record.spec.hostname);
    for (name, text) in [
        ("hosts", &record.spec.hosts),
        ("resolv.conf", &record.spec.resolv_conf),
        ("hostname", &hostname),
    ] {
        fs::write(directory.etc(name), text).in_step(step)?;
    }
    Ok(())
}

/// The shim lives in the sandbox's namespaces itself: whatever it starts inherits them, and they last as long as it does.
fn enter_namespaces(record: &SandboxRecord) -> Step<()> {
    unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)
        .in_step(|| "make IPC and UTS namespaces".to_owned())?;
    if !record.spec.hostname.is_empty() {
        sethostname(&record.spec.hostname)
            .in_step(|| format!("set host name {:?}", record.spec.hostname))?;
    }
    if let Some(path) = &record.spec.netns_path {
        let step = || format!("join network namespace {}", path.display());
        let namespace = File::open(path).in_step(step)?;
        setns(namespace, CloneFlags::CLONE_NEWNET).in_step(step)?;
    }
    for (name, value) in &record.spec.sysctls {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::write(&path, value).in_step(|| format!("set sysctl {name} to {value:?}"))?;
    }
    Ok(())
}

fn start_pause(own: &OwnedFd, cgroups: &Cgroups, group: &Path) -> Step<(Pid, OwnedFd)> {
    let group = group.join("pause");
    cgroups
        .create(&group)
        .in_step(|| "create the pause process's cgroup".to_owned())?;
    let pid = spawn_pause(own.as_fd(), &cgroups.join_files(&group))
        .in_step(|| "start the pause process".to_owned())?;
    let namespace =
        namespace_of(pid, "pid").in_step(|| "open the shared PID namespace".to_owned())?;
    Ok((pid, namespace))
}

fn listen(directory: &SandboxDirectory) -> Step<UnixListener> {
    let step = || format!("listen in {}", directory.0.display());
    let (_handle, address) = layout::socket_address(&directory.0).in_step(step)?;
    // A socket of an earlier shim; ours is the only one now, as the lock says.
    let _ = fs::remove_file(&address);
    let listener = UnixListener::bind(&address).in_step(step)?;
    listener.set_nonblocking(true).in_step(step)?;
    Ok(listener)
}
