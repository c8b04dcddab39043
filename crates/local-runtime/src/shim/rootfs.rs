//! A container's file tree: overlay, pseudo file systems, volumes, masked paths.
//!
//! Everything is mounted in the container's own mount namespace, so nothing shows on the host and the kernel removes it
//! with the last process. Targets are resolved only after the root was changed: a symbolic link in an image cannot lead out.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

use super::step::{InStep, Step, StepError};
use crate::cgroup::Hierarchy;
use crate::protocol::ContainerRecord;

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// What containers must not see (the list every runtime has).
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// What containers may only read.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const ATTR_READ_ONLY: u64 = 1;
const ATTR_NO_SUID: u64 = 2;
const ATTR_NO_DEVICES: u64 = 4;
const ATTR_NO_EXEC: u64 = 8;

/// What to build.
pub(super) struct RootfsPlan<'a> {
    pub(super) record: &'a ContainerRecord,
    /// Holds `rootfs`, `upper`, `work`, `empty`.
    pub(super) directory: &'a Path,
    /// Host files that replace files of the image.
    pub(super) files: Vec<(PathBuf, String)>,
    /// The sandbox's shared memory.
    pub(super) shared_memory: &'a Path,
    pub(super) hierarchy: &'a Hierarchy,
    pub(super) cgroup: &'a Path,
}

/// A mount that is prepared outside and attached inside.
struct Detached {
    tree: OwnedFd,
    target: PathBuf,
    is_directory: bool,
}

impl Detached {
    fn clone_of(source: &Path, target: impl Into<PathBuf>, attributes: u64) -> Step<Self> {
        let target = target.into();
        let step = || format!("mount {} on {}", source.display(), target.display());
        let is_directory = fs::metadata(source).in_step(step)?.is_dir();
        let tree = open_tree(source).in_step(step)?;
        set_attributes(&tree, attributes).in_step(step)?;
        Ok(Self {
            tree,
            target,
            is_directory,
        })
    }

    /// Attaches it at its target below the current root, making the target when it is missing.
    fn attach(&self) -> Step<()> {
        let step = || format!("mount on {}", self.target.display());
        make_target(&self.target, self.is_directory).in_step(step)?;
        let target = c_path(&self.target).in_step(step)?;
        // SAFETY: both paths are terminated texts that outlive the call; the descriptor is open.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.tree.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            )
        };
        Errno::result(result).map(drop).in_step(step)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

fn open_tree(source: &Path) -> io::Result<OwnedFd> {
    let source = c_path(source)?;
    let flags =
        OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path is a terminated text that outlives the call.
    let raw = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags) };
    let raw = Errno::result(raw)?;
    let raw = i32::try_from(raw).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn set_attributes(tree: &OwnedFd, attributes: u64) -> io::Result<()> {
    #[repr(C)]
    struct MountAttributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let wanted = MountAttributes {
        set: attributes,
        clear: 0,
        propagation: libc::MS_PRIVATE,
        user_namespace: 0,
    };
    let flags = (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as libc::c_uint;
    // SAFETY: the structure is the kernel's `struct mount_attr` and its size is given; the text is terminated.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const wanted,
            size_of::<MountAttributes>(),
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Makes a mount point. An existing one must be of the right kind.
fn make_target(target: &Path, is_directory: bool) -> io::Result<()> {
    if let Ok(existing) = fs::metadata(target) {
        return match existing.is_dir() == is_directory {
            true => Ok(()),
            false => Err(io::Error::other("one is a directory and the other is not")),
        };
    }
    if is_directory {
        return fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(target);
    }
    if let Some(parent) = target.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)?;
    }
    fs::File::create(target).map(drop)
}

/// Builds the tree in this process's new mount namespace and makes it the root.
pub(super) fn enter(plan: &RootfsPlan<'_>) -> Step<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .in_step(|| "separate from the host's mounts".to_owned())?;
    let root = mount_overlay(plan)?;
    let standard = prepare_standard(plan)?;
    let (volumes, volume_binds) = prepare_volumes(plan)?;
    let cgroups = prepare_cgroups(plan)?;
    change_root(&root)?;
    mount_pseudo_file_systems()?;
    for bind in &standard {
        bind.attach()?;
    }
    mount_cgroups(plan.hierarchy, &cgroups)?;
    link_devices()?;
    hide_paths()?;
    attach_volumes(&volumes, &volume_binds)?;
    if let Some(working_directory) =
        Some(&plan.record.working_directory).filter(|path| path.starts_with('/'))
    {
        // Programs expect their working directory; images often only name it.
        let _ = fs::create_dir_all(working_directory);
    }
    if plan.record.spec.read_only_rootfs {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
        mount(none, "/", none, flags, none).in_step(|| "make the root read-only".to_owned())?;
    }
    Ok(())
}

/// `,` and `:` separate in mount options.
fn escape_option(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if matches!(character, '\\' | ',' | ':') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

fn mount_overlay(plan: &RootfsPlan<'_>) -> Step<PathBuf> {
    let directory = plan.directory;
    let root = directory.join("rootfs");
    // Layer names are short and relative, so that many of them fit the one page that options may have.
    let layers_root = &plan.record.layers_root;
    chdir(layers_root).in_step(|| format!("change to {}", layers_root.display()))?;
    let lower = match plan.record.layers.is_empty() {
        true => escape_option(&directory.join("empty")),
        false => plan.record.layers.join(":"),
    };
    let upper = escape_option(&directory.join("upper"));
    let work = escape_option(&directory.join("work"));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    // A container's own files need not survive a power loss: `volatile` spares syncing the whole disk when it ends.
    let quick = format!("{options},volatile");
    let try_mount = |options: &str| {
        mount(
            Some("overlay"),
            &root,
            Some("overlay"),
            MsFlags::MS_NODEV,
            Some(options),
        )
    };
    try_mount(&quick)
        .or_else(|_| try_mount(&options))
        .in_step(|| {
            format!(
                "mount the image's layers (is {} itself on an overlay?)",
                directory.display()
            )
        })?;
    Ok(root)
}

fn prepare_standard(plan: &RootfsPlan<'_>) -> Step<Vec<Detached>> {
    let mut binds = Vec::new();
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        binds.push(Detached::clone_of(
            &path,
            path.clone(),
            ATTR_NO_SUID | ATTR_NO_EXEC,
        )?);
    }
    let closed = ATTR_NO_SUID | ATTR_NO_DEVICES | ATTR_NO_EXEC;
    binds.push(Detached::clone_of(plan.shared_memory, "/dev/shm", closed)?);
    for (source, target) in &plan.files {
        binds.push(Detached::clone_of(
            source,
            target,
            ATTR_NO_SUID | ATTR_NO_DEVICES,
        )?);
    }
    Ok(binds)
}

enum Volume<'a> {
    Bind(usize),
    Memory {
        target: &'a str,
        size: u64,
        read_only: bool,
    },
}

fn prepare_volumes<'a>(plan: &RootfsPlan<'a>) -> Step<(Vec<Volume<'a>>, Vec<Detached>)> {
    let (mut volumes, mut binds) = (Vec::new(), Vec::new());
    for wanted in &plan.record.spec.mounts {
        if let Some(size) = wanted.tmpfs_size {
            volumes.push(Volume::Memory {
                target: &wanted.target,
                size,
                read_only: wanted.read_only,
            });
            continue;
        }
        let attributes = ATTR_NO_DEVICES | if wanted.read_only { ATTR_READ_ONLY } else { 0 };
        volumes.push(Volume::Bind(binds.len()));
        binds.push(Detached::clone_of(
            &wanted.source,
            &wanted.target,
            attributes,
        )?);
    }
    Ok((volumes, binds))
}

fn attach_volumes(volumes: &[Volume<'_>], binds: &[Detached]) -> Step<()> {
    for volume in volumes {
        match volume {
            Volume::Bind(index) => binds[*index].attach()?,
            Volume::Memory {
                target,
                size,
                read_only,
            } => {
                make_target(Path::new(target), true).in_step(|| format!("create {target}"))?;
                let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                if *read_only {
                    flags |= MsFlags::MS_RDONLY;
                }
                mount_new("tmpfs", target, flags, &format!("size={size},mode=1777"))?;
            }
        }
    }
    Ok(())
}

fn prepare_cgroups(plan: &RootfsPlan<'_>) -> Step<Vec<Detached>> {
    let Hierarchy::V1 { .. } = plan.hierarchy else {
        return Ok(Vec::new());
    };
    let attributes = ATTR_READ_ONLY | ATTR_NO_SUID | ATTR_NO_DEVICES | ATTR_NO_EXEC;
    let clone = |root: PathBuf| {
        let name = root.file_name().map(PathBuf::from).unwrap_or_default();
        Detached::clone_of(
            &root.join(plan.cgroup),
            Path::new("/sys/fs/cgroup").join(name),
            attributes,
        )
    };
    plan.hierarchy.roots().into_iter().map(clone).collect()
}

fn mount_cgroups(hierarchy: &Hierarchy, binds: &[Detached]) -> Step<()> {
    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let target = "/sys/fs/cgroup";
    if let Hierarchy::V2 { .. } = hierarchy {
        // Inside its own cgroup namespace the container sees its own group as the root.
        return mount_new("cgroup2", target, closed | MsFlags::MS_RDONLY, "");
    }
    mount_new("tmpfs", target, closed, "mode=755,size=64k")?;
    for bind in binds {
        bind.attach()?;
    }
    let flags = closed | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .in_step(|| format!("make {target} read-only"))
}

fn change_root(root: &Path) -> Step<()> {
    let step = || format!("change root to {}", root.display());
    chdir(root).in_step(step)?;
    // The new root goes on top of the old one at `/`; the old one is then the lower of the two and is taken away.
    pivot_root(".", ".").in_step(step)?;
    umount2(".", MntFlags::MNT_DETACH).in_step(|| "leave the host's files".to_owned())?;
    chdir("/").in_step(step)
}

fn mount_new(kind: &str, target: &str, flags: MsFlags, options: &str) -> Step<()> {
    mount(
        Some(kind),
        target,
        Some(kind),
        flags,
        Some(options).filter(|options| !options.is_empty()),
    )
    .in_step(|| format!("mount {kind} on {target}"))
}

fn mount_pseudo_file_systems() -> Step<()> {
    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for directory in ["/proc", "/sys", "/dev"] {
        make_target(Path::new(directory), true).in_step(|| format!("create {directory}"))?;
    }
    mount_new("proc", "/proc", closed, "")?;
    mount_new("sysfs", "/sys", closed | MsFlags::MS_RDONLY, "")?;
    // Devices are binds of the host's nodes; a node made in here opens nothing.
    mount_new(
        "tmpfs",
        "/dev",
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_STRICTATIME,
        "mode=755,size=64k",
    )?;
    for directory in ["/dev/pts", "/dev/mqueue", "/dev/shm"] {
        make_target(Path::new(directory), true).in_step(|| format!("create {directory}"))?;
    }
    let terminals = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_new(
        "devpts",
        "/dev/pts",
        terminals,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )?;
    mount_new("mqueue", "/dev/mqueue", closed, "")
}

fn link_devices() -> Step<()> {
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ];
    for (target, link) in links {
        symlink(target, link).in_step(|| format!("link {link}"))?;
    }
    Ok(())
}

fn hide_paths() -> Step<()> {
    let none = None::<&str>;
    for path in MASKED {
        let step = || format!("mask {path}");
        match fs::metadata(path) {
            Err(_) => {}
            Ok(found) if found.is_dir() => mount_new("tmpfs", path, MsFlags::MS_RDONLY, "size=0k")?,
            Ok(_) => mount(Some("/dev/null"), path, none, MsFlags::MS_BIND, none).in_step(step)?,
        }
    }
    for path in READ_ONLY
        .into_iter()
        .filter(|path| Path::new(path).exists())
    {
        let step = || format!("make {path} read-only");
        mount(Some(path), path, none, MsFlags::MS_BIND, none).in_step(step)?;
        let closed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | closed;
        mount(none, path, none, flags, none).in_step(step)?;
    }
    Ok(())
}

/// Makes what [`enter`] needs in a container's directory.
pub(super) fn make_directories(directory: &Path) -> io::Result<()> {
    for name in ["rootfs", "upper", "work", "empty"] {
        fs::create_dir_all(directory.join(name))?;
    }
    // The upper directory is the root a container's users see.
    fs::set_permissions(directory.join("upper"), fs::Permissions::from_mode(0o755))
}

/// Mounts the sandbox's shared memory where all its containers can bind it.
pub(super) fn mount_shared_memory(target: &Path) -> Result<(), StepError> {
    let step = || format!("mount shared memory on {}", target.display());
    fs::create_dir_all(target).in_step(step)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("shm"),
        target,
        Some("tmpfs"),
        flags,
        Some("mode=1777,size=64m"),
    )
    .in_step(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_paths_are_escaped() {
        assert_eq!(escape_option(Path::new("/a:b,c\\d")), "/a\\:b\\,c\\\\d");
    }

    #[test]
    fn a_mount_point_of_the_wrong_kind_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        make_target(&directory.path().join("a/b/file"), false).unwrap();
        assert!(make_target(&directory.path().join("a/b/file"), true).is_err());
        assert!(make_target(&directory.path().join("a"), false).is_err());
        assert!(make_target(&directory.path().join("x/y"), true).is_ok());
    }
}
