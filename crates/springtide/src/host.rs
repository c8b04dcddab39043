//! What a local cluster needs of this machine, checked before anything is made.

use std::path::Path;

use anyhow::{Context, bail};

/// Refuses with one sentence and a remedy when something is missing.
pub fn check() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "a local cluster needs root for namespaces, mounts and limits; run the same command with sudo"
        );
    }
    let filesystems =
        std::fs::read_to_string("/proc/filesystems").context("read /proc/filesystems")?;
    check_filesystems(&filesystems)?;
    if !Path::new("/sys/fs/cgroup").is_dir() {
        bail!(
            "this kernel has no cgroups mounted at /sys/fs/cgroup; mount them (mount -t cgroup2 none /sys/fs/cgroup) or boot with them"
        );
    }
    for (file, name) in [
        ("/proc/self/ns/net", "network"),
        ("/proc/self/ns/pid", "process"),
        ("/proc/self/ns/mnt", "mount"),
    ] {
        if !Path::new(file).exists() {
            bail!(
                "this kernel has no {name} namespaces; use a kernel built with CONFIG_NAMESPACES"
            );
        }
    }
    Ok(())
}

fn check_filesystems(text: &str) -> anyhow::Result<()> {
    let has = |name: &str| {
        text.lines()
            .any(|line| line.split_whitespace().last() == Some(name))
    };
    if !has("overlay") {
        bail!(
            "this kernel has no overlay file system, which container images need; load it (modprobe overlay) or use another kernel"
        );
    }
    if !has("cgroup") && !has("cgroup2") {
        bail!(
            "this kernel has no cgroups, which limits need; use a kernel built with CONFIG_CGROUPS"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_overlay_or_cgroups_is_refused_with_a_remedy() {
        assert!(check_filesystems("nodev\toverlay\nnodev\tcgroup2\n").is_ok());
        let error = check_filesystems("nodev\tcgroup2\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("modprobe overlay"), "{error}");
        let error = check_filesystems("nodev\toverlay\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("CONFIG_CGROUPS"), "{error}");
    }
}
