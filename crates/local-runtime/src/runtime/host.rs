//! What a host must have before anything is tried on it.

use std::fs;
use std::path::Path;

use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::sys::utsname::uname;
use nix::unistd::geteuid;

use crate::error::RuntimeError;

/// `mount_setattr`, the newest call we need, came with it.
const KERNEL_MIN: (u32, u32) = (5, 12);

pub(super) fn check() -> Result<(), RuntimeError> {
    if !geteuid().is_root() {
        return Err(missing(
            "not running as root",
            "run as root, for example with sudo",
        ));
    }
    let release = uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    if parse_release(&release).is_some_and(|version| version < KERNEL_MIN) {
        return Err(missing(
            &format!("kernel {release} is too old"),
            "use Linux 5.12 or newer",
        ));
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.split_whitespace().any(|name| name == "overlay") {
        return Err(missing(
            "the kernel has no overlay file system",
            "load it with `modprobe overlay`",
        ));
    }
    Ok(())
}

/// Overlay does not take another overlay for its upper layer, and every container start would fail.
pub(super) fn check_state_dir(state_dir: &Path) -> Result<(), RuntimeError> {
    let found = statfs(state_dir).map_err(|error| RuntimeError::Io {
        action: "look at the file system of",
        path: state_dir.to_path_buf(),
        source: error.into(),
    })?;
    if found.filesystem_type() == OVERLAYFS_SUPER_MAGIC {
        let what = format!(
            "{} is itself on an overlay file system",
            state_dir.display()
        );
        return Err(missing(&what, "use a data directory on a disk or a volume"));
    }
    Ok(())
}

fn missing(what: &str, remedy: &str) -> RuntimeError {
    RuntimeError::Host {
        what: what.to_owned(),
        remedy: remedy.to_owned(),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Says what to do when the cgroups are there but cannot be written.
pub(super) fn cgroup_remedy(error: RuntimeError) -> RuntimeError {
    match error {
        RuntimeError::Io { action, path, source } => RuntimeError::Host {
            what: format!("{action} {}: {source}", path.display()),
            remedy: "the cgroup file system must be writable; in a container, give it its own writable cgroup tree".to_owned(),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_compare_by_number() {
        assert_eq!(parse_release("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(parse_release("5.4.0-200-generic"), Some((5, 4)));
        assert!(parse_release("5.4.0") < Some(KERNEL_MIN));
        assert_eq!(parse_release("odd"), None);
    }
}
