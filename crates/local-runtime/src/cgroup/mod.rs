//! Control groups on v1, hybrid and v2 hosts behind one set of operations.
//!
//! A group is named by its path below the hierarchy's root, for example `springtide-x/worker-1/pod/web.0`.

mod limits;
mod mounts;
mod usage;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) use mounts::Hierarchy;
pub(crate) use usage::GroupUsage;

use crate::error::RuntimeError;
use crate::spec::ResourceLimits;

/// Between two attempts to remove a group whose last processes are still dying.
const REMOVE_RETRY: Duration = Duration::from_millis(3);

/// The group of a whole cluster.
pub(crate) fn cluster_group(cluster_id: &str) -> PathBuf {
    PathBuf::from(format!("springtide-{cluster_id}"))
}

/// All groups of this machine, as far as we made them.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    hierarchy: Hierarchy,
}

impl Cgroups {
    /// Looks at what this host has mounted.
    pub(crate) fn detect() -> Result<Self, RuntimeError> {
        Hierarchy::detect().map(|hierarchy| Self { hierarchy })
    }

    /// The hierarchy, for mounting it inside a container.
    pub(crate) fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// Creates a group and the groups above it.
    pub(crate) fn create(&self, group: &Path) -> Result<(), RuntimeError> {
        match &self.hierarchy {
            Hierarchy::V1 { controllers } => {
                for root in controllers.values().collect::<BTreeSet<_>>() {
                    let directory = root.join(group);
                    fs::create_dir_all(&directory)
                        .map_err(RuntimeError::io("create cgroup", directory))?;
                }
                Ok(())
            }
            Hierarchy::V2 { root } => create_unified(root, group),
        }
    }

    /// Writes limits to an existing group. Absent limits are set back to unlimited.
    pub(crate) fn apply(&self, group: &Path, limits: &ResourceLimits) -> Result<(), RuntimeError> {
        limits::apply(&self.hierarchy, group, limits)
    }

    /// The files to which a single-threaded process writes `0` to move itself into the group.
    ///
    /// On v1 that is `tasks`: moving the calling thread alone needs no grace period, unlike `cgroup.procs`.
    pub(crate) fn join_files(&self, group: &Path) -> Vec<PathBuf> {
        match &self.hierarchy {
            Hierarchy::V1 { controllers } => controllers
                .values()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .map(|root| root.join(group).join("tasks"))
                .collect(),
            Hierarchy::V2 { root } => vec![root.join(group).join("cgroup.procs")],
        }
    }

    /// Processes of the group and all groups below it.
    pub(crate) fn processes(&self, group: &Path) -> Vec<i32> {
        let mut found = BTreeSet::new();
        for root in self.hierarchy.roots() {
            collect_processes(&root.join(group), &mut found);
        }
        found.into_iter().collect()
    }

    /// Sends SIGKILL to every process in the group and below, again and again until none is left or `limit` has passed.
    pub(crate) fn kill_all(&self, group: &Path, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if !self.kill_once(group) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(REMOVE_RETRY);
        }
    }

    /// Sends SIGKILL once; false when nobody was there.
    pub(crate) fn kill_once(&self, group: &Path) -> bool {
        let processes = self.processes(group);
        if let Hierarchy::V2 { root } = &self.hierarchy {
            // Reaches also what forks right now; before Linux 5.14 there is no such file.
            let _ = fs::write(root.join(group).join("cgroup.kill"), "1");
        }
        for process in &processes {
            // A process that has gone meanwhile is what we want.
            let _ = kill(Pid::from_raw(*process), Signal::SIGKILL);
        }
        !processes.is_empty()
    }

    /// Removes the group and all groups below it, in every hierarchy. True when nothing is left of it.
    pub(crate) fn remove_once(&self, group: &Path) -> bool {
        let mut all = true;
        for root in self.hierarchy.roots() {
            // Every tree is tried, also after one that is still in use.
            all &= remove_tree(&root.join(group));
        }
        all
    }

    /// Like [`Self::remove_once`], again until it succeeds or `limit` has passed.
    pub(crate) fn remove(&self, group: &Path, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if self.remove_once(group) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(REMOVE_RETRY);
        }
    }

    /// The directories of a group that exist, in every hierarchy.
    pub(crate) fn directories(&self, group: &Path) -> Vec<PathBuf> {
        self.hierarchy
            .roots()
            .into_iter()
            .map(|root| root.join(group))
            .filter(|path| path.is_dir())
            .collect()
    }

    /// Names of the groups directly below.
    pub(crate) fn children(&self, group: &Path) -> Vec<String> {
        // Every tree has the same groups; one is enough to look at.
        let Some(root) = self.hierarchy.roots().into_iter().next() else {
            return Vec::new();
        };
        let names = subdirectories(&root.join(group)).into_iter();
        names
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect()
    }

    /// What the group has used.
    pub(crate) fn usage(&self, group: &Path) -> io::Result<GroupUsage> {
        usage::read(&self.hierarchy, group)
    }

    /// How many processes the kernel killed because the group was out of memory.
    pub(crate) fn oom_kills(&self, group: &Path) -> u64 {
        usage::oom_kills(&self.hierarchy, group)
    }
}

/// Creates a v2 group; each group above must hand the controllers down.
fn create_unified(root: &Path, group: &Path) -> Result<(), RuntimeError> {
    let mut directory = root.to_path_buf();
    for part in group.components() {
        let control = directory.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&control).unwrap_or_default();
        for controller in ["cpu", "memory", "pids"] {
            if !enabled.split_whitespace().any(|name| name == controller) {
                fs::write(&control, format!("+{controller}"))
                    .map_err(RuntimeError::io("enable controller in", &control))?;
            }
        }
        directory.push(part);
        match fs::create_dir(&directory) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(RuntimeError::Io {
                    action: "create cgroup",
                    path: directory,
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn collect_processes(directory: &Path, found: &mut BTreeSet<i32>) {
    // `0` stands for a process that this PID namespace cannot name.
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    found.extend(
        text.lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid: &i32| *pid > 0),
    );
    for child in subdirectories(directory) {
        collect_processes(&child, found);
    }
}

/// True when the directory is gone afterwards.
fn remove_tree(directory: &Path) -> bool {
    for child in subdirectories(directory) {
        remove_tree(&child);
    }
    match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
