//! Finding out which cgroup hierarchies a host has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::RuntimeError;

/// v1 controllers we use where they exist. `devices` is not needed: nothing inside a container allows device nodes.
const V1_CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];
/// Without these a limit would not bind.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

/// The controllers' places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    /// One tree a controller (some share one). Hybrid hosts count as v1: their v2 tree has no controllers.
    V1 {
        /// Mount point of each controller.
        controllers: BTreeMap<String, PathBuf>,
    },
    /// One tree for all.
    V2 {
        /// Its mount point.
        root: PathBuf,
    },
}

impl Hierarchy {
    pub(super) fn detect() -> Result<Self, RuntimeError> {
        let path = "/proc/self/mounts";
        let mounts = fs::read_to_string(path).map_err(RuntimeError::io("read", path))?;
        Self::from_mounts(&mounts, |root| {
            fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
        })
    }

    /// Decides from the text of `/proc/self/mounts`; `controllers_of` reads a v2 root's controller list.
    fn from_mounts(
        mounts: &str,
        controllers_of: impl Fn(&Path) -> String,
    ) -> Result<Self, RuntimeError> {
        let mut controllers = BTreeMap::new();
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, point, kind, options, ..] = fields.as_slice() else {
                continue;
            };
            let point = PathBuf::from(point);
            if *kind == "cgroup2" {
                let list = controllers_of(&point);
                if NEEDED
                    .iter()
                    .all(|name| list.split_whitespace().any(|have| have == *name))
                {
                    return Ok(Self::V2 { root: point });
                }
            }
            if *kind == "cgroup" {
                for option in options
                    .split(',')
                    .filter(|option| V1_CONTROLLERS.contains(option))
                {
                    controllers
                        .entry(option.to_owned())
                        .or_insert_with(|| point.clone());
                }
            }
        }
        let missing: Vec<&str> = NEEDED
            .into_iter()
            .filter(|name| !controllers.contains_key(*name))
            .collect();
        if missing.is_empty() {
            return Ok(Self::V1 { controllers });
        }
        Err(RuntimeError::Host {
            what: format!("no cgroup controller {}", missing.join(", ")),
            remedy: "mount cgroup2 on /sys/fs/cgroup, or boot with cgroup_enable=memory".to_owned(),
        })
    }

    /// Every tree's mount point once.
    pub(crate) fn roots(&self) -> Vec<PathBuf> {
        match self {
            Self::V1 { controllers } => controllers
                .values()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .cloned()
                .collect(),
            Self::V2 { root } => vec![root.clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_is_used_as_v1() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
            cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let hierarchy = Hierarchy::from_mounts(mounts, |_| String::new()).unwrap();
        let Hierarchy::V1 { controllers } = &hierarchy else {
            panic!("{hierarchy:?}")
        };
        assert_eq!(
            controllers["cpuacct"],
            Path::new("/sys/fs/cgroup/cpu,cpuacct")
        );
        assert_eq!(hierarchy.roots().len(), 3);
    }

    #[test]
    fn a_unified_host_is_used_as_v2() {
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let hierarchy =
            Hierarchy::from_mounts(mounts, |_| "cpuset cpu io memory pids\n".to_owned()).unwrap();
        assert_eq!(
            hierarchy,
            Hierarchy::V2 {
                root: "/sys/fs/cgroup".into()
            }
        );
    }

    #[test]
    fn a_host_without_the_memory_controller_is_refused_by_name() {
        let mounts = "cgroup /c/cpu cgroup rw,cpu 0 0\ncgroup /c/pids cgroup rw,pids 0 0\n";
        let error = Hierarchy::from_mounts(mounts, |_| String::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains("memory"), "{error}");
    }
}
