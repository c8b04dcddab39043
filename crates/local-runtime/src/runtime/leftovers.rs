//! Listing what of a cluster is on this machine: mounts, cgroups, processes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cgroup::{Cgroups, cluster_group};
use crate::layout;
use crate::shim::{CLUSTER_ARGUMENT, SANDBOX_ARGUMENT};

/// What is left of a cluster on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Mount points of its sandboxes.
    pub mounts: Vec<PathBuf>,
    /// Its cgroup directories.
    pub cgroups: Vec<PathBuf>,
    /// Its shims and container processes.
    pub processes: Vec<i32>,
}

impl Leftovers {
    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty() && self.cgroups.is_empty() && self.processes.is_empty()
    }
}

pub(super) fn leftovers(state_dir: &Path, cluster_id: &str) -> Leftovers {
    let group = cluster_group(cluster_id);
    let (mut cgroups, mut processes) = (Vec::new(), BTreeSet::new());
    if let Ok(found) = Cgroups::detect() {
        cgroups = found.directories(&group);
        processes.extend(found.processes(&group));
    }
    processes.extend(shims(cluster_id));
    Leftovers {
        mounts: mounts_below(&absolute(state_dir)),
        cgroups,
        processes: processes.into_iter().collect(),
    }
}

/// Mounts name absolute paths.
pub(super) fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

pub(super) fn mounts_below(state_dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape_mount);
    points
        .filter(|point| point.starts_with(layout::sandboxes(state_dir)))
        .collect()
}

/// The kernel writes space, tab, line end and backslash of a path as octal numbers.
fn unescape_mount(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| others.get(..3)).flatten();
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[3..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    std::ffi::OsStr::from_bytes(&bytes).into()
}

/// Processes that were started as shims of this cluster.
pub(super) fn shims(cluster_id: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    pids.filter(|pid| {
        is_shim_of(
            &fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(),
            cluster_id,
        )
    })
    .collect()
}

fn is_shim_of(command_line: &[u8], cluster_id: &str) -> bool {
    let arguments: Vec<&[u8]> = command_line.split(|byte| *byte == 0).collect();
    let has_sandbox = arguments.contains(&SANDBOX_ARGUMENT.as_bytes());
    let pair =
        |pair: &[&[u8]]| pair[0] == CLUSTER_ARGUMENT.as_bytes() && pair[1] == cluster_id.as_bytes();
    has_sandbox && arguments.windows(2).any(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_spaces_are_read_back() {
        assert_eq!(unescape_mount("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape_mount("/odd\\0"), Path::new("/odd\\0"));
    }

    #[test]
    fn only_shims_of_the_same_cluster_are_recognised() {
        let line = b"/bin/springtide\0shim\0--sandbox\0/x\0--cluster\0one\0";
        assert!(is_shim_of(line, "one"));
        assert!(!is_shim_of(line, "on"));
        assert!(!is_shim_of(b"grep\0--cluster\0one\0", "one"));
    }
}
