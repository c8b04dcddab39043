//! Reading what a group has used.

use std::fs;
use std::io;
use std::path::Path;

use super::mounts::Hierarchy;

/// Counters of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GroupUsage {
    pub(crate) cpu_nanos: u64,
    pub(crate) memory_usage_bytes: u64,
    pub(crate) memory_working_set_bytes: u64,
    pub(crate) memory_rss_bytes: u64,
}

pub(super) fn read(hierarchy: &Hierarchy, group: &Path) -> io::Result<GroupUsage> {
    match hierarchy {
        Hierarchy::V1 { controllers } => {
            let file = |controller: &str, name: &str| {
                controllers
                    .get(controller)
                    .map(|root| root.join(group).join(name))
                    .unwrap_or_default()
            };
            let usage = number(&file("memory", "memory.usage_in_bytes"))?;
            let stat = fs::read_to_string(file("memory", "memory.stat"))?;
            Ok(GroupUsage {
                cpu_nanos: number(&file("cpuacct", "cpuacct.usage"))?,
                memory_usage_bytes: usage,
                memory_working_set_bytes: usage.saturating_sub(field(&stat, "total_inactive_file")),
                memory_rss_bytes: field(&stat, "total_rss"),
            })
        }
        Hierarchy::V2 { root } => {
            let directory = root.join(group);
            let usage = number(&directory.join("memory.current"))?;
            let stat = fs::read_to_string(directory.join("memory.stat"))?;
            let cpu = fs::read_to_string(directory.join("cpu.stat"))?;
            Ok(GroupUsage {
                cpu_nanos: field(&cpu, "usage_usec") * 1000,
                memory_usage_bytes: usage,
                memory_working_set_bytes: usage.saturating_sub(field(&stat, "inactive_file")),
                memory_rss_bytes: field(&stat, "anon"),
            })
        }
    }
}

pub(super) fn oom_kills(hierarchy: &Hierarchy, group: &Path) -> u64 {
    let file = match hierarchy {
        Hierarchy::V1 { controllers } => controllers
            .get("memory")
            .map(|root| root.join(group).join("memory.oom_control"))
            .unwrap_or_default(),
        Hierarchy::V2 { root } => root.join(group).join("memory.events"),
    };
    field(&fs::read_to_string(file).unwrap_or_default(), "oom_kill")
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a number"))
}

/// The value of `name <value>` in a flat keyed file; 0 when absent.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_working_set_leaves_out_reclaimable_cache() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("memory.current", "1000\n");
        write("memory.stat", "anon 300\nfile 600\ninactive_file 400\n");
        write("cpu.stat", "usage_usec 12\nuser_usec 7\n");
        write("memory.events", "low 0\noom 2\noom_kill 1\n");
        let hierarchy = Hierarchy::V2 {
            root: directory.path().into(),
        };
        let usage = read(&hierarchy, Path::new("")).unwrap();
        let wanted = GroupUsage {
            cpu_nanos: 12_000,
            memory_usage_bytes: 1000,
            memory_working_set_bytes: 600,
            memory_rss_bytes: 300,
        };
        assert_eq!(usage, wanted);
        assert_eq!(oom_kills(&hierarchy, Path::new("")), 1);
    }
}
