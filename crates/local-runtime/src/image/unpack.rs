//! Unpacking one layer into a directory for overlay.
//!
//! Refuses everything that could reach outside the directory: `..`, a path through a symbolic link, a hard link out.
//! Device nodes are left out (containers get theirs from us). Whiteouts become overlay's own.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::libc;
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, mkfifoat, symlinkat, unlinkat};
use tar::EntryType;

use super::digest::{Digest, HashingReader};
use super::tar_entries::{self, Description};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
const PATH_LENGTH_MAX: usize = 4096;
const PATH_DEPTH_MAX: usize = 128;
const XATTRS_MAX: usize = 32;
const XATTR_BYTES_MAX: usize = 64 << 10;

/// What one layer may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnpackLimits {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 32 << 30,
        }
    }
}

/// A layer that was unpacked.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Of the uncompressed archive.
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
}

/// A plain or gzip-compressed stream, told apart by its first bytes.
pub(super) fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let start = io::BufRead::fill_buf(&mut reader)?;
    match start {
        [0x1f, 0x8b, ..] => Ok(Box::new(BufReader::with_capacity(
            128 << 10,
            MultiGzDecoder::new(reader),
        ))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(io::Error::other("zstd compression is not supported")),
        _ => Ok(Box::new(reader)),
    }
}

/// Unpacks into an existing, empty directory.
pub(super) fn unpack(
    archive: impl Read,
    directory: &Path,
    limits: UnpackLimits,
) -> io::Result<Unpacked> {
    let root = open(directory, directory_flags(), Mode::empty())?;
    let mut layer = Layer {
        root,
        parent: None,
        limits,
        entries: 0,
        size_bytes: 0,
    };
    let mut reader = HashingReader::new(decompress(archive)?, limits.bytes);
    tar_entries::for_each(&mut reader, |description, kind, content| {
        layer.add(description, kind, content).map_err(|error| {
            let path = String::from_utf8_lossy(&description.path).into_owned();
            io::Error::new(error.kind(), format!("{path:?}: {error}"))
        })
    })?;
    Ok(Unpacked {
        digest: reader.finish()?,
        size_bytes: layer.size_bytes,
    })
}

fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// The parts of a path below the root, without `.` and leading slashes.
fn split_path(path: &[u8]) -> io::Result<Vec<&OsStr>> {
    if path.len() > PATH_LENGTH_MAX || path.contains(&0) {
        return Err(io::Error::other("the path is too long or holds a NUL byte"));
    }
    let parts: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .collect();
    if parts.contains(&&b".."[..]) {
        return Err(io::Error::other("the path leads out of the layer"));
    }
    if parts.len() > PATH_DEPTH_MAX {
        return Err(io::Error::other("the path is too deep"));
    }
    Ok(parts.into_iter().map(OsStr::from_bytes).collect())
}

struct Layer {
    root: OwnedFd,
    /// The directory of the last entry: archives are sorted, most entries share it.
    parent: Option<(Vec<u8>, OwnedFd)>,
    limits: UnpackLimits,
    entries: u64,
    size_bytes: u64,
}

impl Layer {
    fn add(
        &mut self,
        description: &Description,
        kind: EntryType,
        content: &mut impl Read,
    ) -> io::Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(io::Error::other(format!(
                "more than {} entries",
                self.limits.entries
            )));
        }
        let parts = split_path(&description.path)?;
        let Some((name, directories)) = parts.split_last() else {
            // The root itself.
            return set_owner_and_mode(self.root.as_fd(), OsStr::new("."), description, true);
        };
        let parent = self.open_directories(directories, true)?;
        let parent = parent.as_fd();
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
            return self.add_whiteout(parent, name, OsStr::from_bytes(hidden));
        }
        match kind {
            EntryType::Directory => self.add_directory(parent, name, description),
            EntryType::Regular | EntryType::Continuous => {
                self.add_file(parent, name, description, content)
            }
            EntryType::Symlink => {
                self.make_room(parent, name)?;
                symlinkat(OsStr::from_bytes(&description.link), parent, *name)?;
                set_owner_and_mode(parent, name, description, false)
            }
            EntryType::Link => self.add_link(parent, name, description),
            EntryType::Fifo => {
                self.make_room(parent, name)?;
                mkfifoat(parent, *name, Mode::from_bits_truncate(0o600))?;
                set_owner_and_mode(parent, name, description, true)
            }
            // Old base images carry a populated /dev; ours comes from the host, node by node.
            EntryType::Char | EntryType::Block => Ok(()),
            other => Err(io::Error::other(format!(
                "entry type {:?} is not supported",
                other.as_byte() as char
            ))),
        }
    }

    /// Walks down from the root, refusing symbolic links; makes missing directories when asked to.
    fn open_directories(&mut self, parts: &[&OsStr], create: bool) -> io::Result<OwnedFd> {
        let key = parts.join(OsStr::new("/")).into_encoded_bytes();
        if let Some((known, descriptor)) = &self.parent
            && *known == key
        {
            return descriptor.try_clone();
        }
        let mut current = self.root.try_clone()?;
        for part in parts {
            let next = match openat(&current, *part, directory_flags(), Mode::empty()) {
                Err(Errno::ENOENT) if create => {
                    mkdirat(&current, *part, Mode::from_bits_truncate(0o755))?;
                    openat(&current, *part, directory_flags(), Mode::empty())
                }
                other => other,
            };
            current = next.map_err(|error| match error {
                Errno::ELOOP | Errno::ENOTDIR => {
                    io::Error::other("the path goes through something that is no directory")
                }
                other => other.into(),
            })?;
        }
        self.parent = Some((key, current.try_clone()?));
        Ok(current)
    }

    /// Removes what an entry replaces. A directory must be empty for that.
    fn make_room(&mut self, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => {
                self.parent = None;
                unlinkat(parent, name, UnlinkatFlags::RemoveDir)?;
            }
            Err(Errno::ENOENT) | Ok(()) => {}
            Err(other) => return Err(other.into()),
        }
        Ok(())
    }

    fn add_directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        description: &Description,
    ) -> io::Result<()> {
        let existing = find(parent, name)?;
        let mut opaque = false;
        if existing
            .as_ref()
            .is_none_or(|stat| !is_kind(stat, SFlag::S_IFDIR))
        {
            // A directory that follows its own whiteout replaces the lower one altogether.
            opaque = existing.is_some_and(|stat| is_whiteout(&stat));
            self.make_room(parent, name)?;
            mkdirat(parent, name, Mode::from_bits_truncate(0o700))?;
        }
        set_owner_and_mode(parent, name, description, true)?;
        let directory = openat(parent, name, directory_flags(), Mode::empty())?;
        if opaque {
            set_opaque(directory.as_fd())?;
        }
        set_xattrs(directory.as_fd(), description)
    }

    fn add_file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        description: &Description,
        content: &mut impl Read,
    ) -> io::Result<()> {
        self.make_room(parent, name)?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(
            parent,
            name,
            flags,
            Mode::from_bits_truncate(0o600),
        )?);
        self.size_bytes += io::copy(content, &mut file)?;
        set_owner_and_mode(parent, name, description, true)?;
        set_xattrs(file.as_fd(), description)?;
        let seconds = i64::try_from(description.modified_seconds).unwrap_or_default();
        let time = TimeSpec::new(seconds, 0);
        utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    fn add_link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        description: &Description,
    ) -> io::Result<()> {
        let target = split_path(&description.link)?;
        let (target_name, directories) = target
            .split_last()
            .ok_or_else(|| io::Error::other("a hard link names no file"))?;
        let directory = self.open_directories(directories, false)?;
        match find(directory.as_fd(), target_name)? {
            Some(stat) if !is_kind(&stat, SFlag::S_IFDIR) && !is_whiteout(&stat) => {}
            _ => return Err(io::Error::other("a hard link's file is not in the layer")),
        }
        self.make_room(parent, name)?;
        linkat(&directory, *target_name, parent, name, AtFlags::empty())?;
        Ok(())
    }

    fn add_whiteout(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        hidden: &OsStr,
    ) -> io::Result<()> {
        if name.as_bytes() == OPAQUE_MARK {
            return set_opaque(parent);
        }
        if hidden.as_bytes().starts_with(WHITEOUT_PREFIX) {
            // Bookkeeping of a file system that nobody uses any more.
            return Ok(());
        }
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(io::Error::other("a whiteout hides nothing"));
        }
        match find(parent, hidden)? {
            // What this layer has itself stays; what is below it goes.
            Some(stat) if is_kind(&stat, SFlag::S_IFDIR) => {
                set_opaque(openat(parent, hidden, directory_flags(), Mode::empty())?.as_fd())
            }
            Some(_) => Ok(()),
            None => Ok(mknodat(parent, hidden, SFlag::S_IFCHR, Mode::empty(), 0)?),
        }
    }
}

fn find(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<FileStat>> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

fn is_whiteout(stat: &FileStat) -> bool {
    is_kind(stat, SFlag::S_IFCHR) && stat.st_rdev == 0
}

/// Owner first: changing it clears the set-user-id bits.
fn set_owner_and_mode(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    description: &Description,
    with_mode: bool,
) -> io::Result<()> {
    let number =
        |value: u64| u32::try_from(value).map_err(|_| io::Error::other("an owner is out of range"));
    let (uid, gid) = (
        Uid::from_raw(number(description.uid)?),
        Gid::from_raw(number(description.gid)?),
    );
    fchownat(
        parent,
        name,
        Some(uid),
        Some(gid),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    if with_mode {
        // Never a symbolic link here: we have just made it, or it is a directory we opened without following.
        let mode = Mode::from_bits_truncate(description.mode & 0o7777);
        fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)?;
    }
    Ok(())
}

fn set_opaque(directory: BorrowedFd<'_>) -> io::Result<()> {
    set_xattr(directory, "trusted.overlay.opaque", b"y")
}

/// Only file capabilities and user attributes are taken over; overlay's own must come from us alone.
fn set_xattrs(file: BorrowedFd<'_>, description: &Description) -> io::Result<()> {
    let wanted = |name: &str| name == "security.capability" || name.starts_with("user.");
    for (name, value) in description
        .xattrs
        .iter()
        .filter(|(name, _)| wanted(name))
        .take(XATTRS_MAX)
    {
        if value.len() > XATTR_BYTES_MAX {
            return Err(io::Error::other(format!("attribute {name} is too long")));
        }
        match set_xattr(file, name, value) {
            // The disk's file system has no such attributes; the file is usable without.
            Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => {}
            other => other?,
        }
    }
    Ok(())
}

fn set_xattr(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the name is terminated, the value's length is given, both outlive the call.
    let result = unsafe {
        libc::fsetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

    use proptest::prelude::*;
    use tar::{Builder, Header};

    use super::*;

    /// Builds an archive without any of the checks that well-behaved builders make.
    fn archive(entries: &[(&str, EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, kind, link, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            header.set_uid(7);
            header.set_gid(8);
            header.set_mtime(1_000_000_000);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack_entries(
        entries: &[(&str, EntryType, &str, &[u8])],
    ) -> (tempfile::TempDir, io::Result<Unpacked>) {
        let directory = tempfile::tempdir().unwrap();
        let result = unpack(
            &archive(entries)[..],
            directory.path(),
            UnpackLimits::default(),
        );
        (directory, result)
    }

    use EntryType::{Char, Directory, Link, Regular, Symlink};

    #[test]
    fn files_keep_owner_mode_time_and_links() {
        let bytes = archive(&[
            ("./a", Directory, "", b""),
            ("./a/file", Regular, "", b"text"),
            ("a/soft", Symlink, "/etc/passwd", b""),
            ("hard", Link, "a/file", b""),
            ("dev/null", Char, "", b""),
        ]);
        let directory = tempfile::tempdir().unwrap();
        let unpacked = unpack(&bytes[..], directory.path(), UnpackLimits::default()).unwrap();
        assert_eq!(unpacked.digest, Digest::of(&bytes));
        assert_eq!(unpacked.size_bytes, 4);
        let file = fs::metadata(directory.path().join("a/file")).unwrap();
        assert_eq!(
            (file.uid(), file.gid(), file.mode() & 0o7777, file.mtime()),
            (7, 8, 0o4755, 1_000_000_000)
        );
        assert_eq!(file.nlink(), 2);
        assert_eq!(
            fs::read_link(directory.path().join("a/soft")).unwrap(),
            Path::new("/etc/passwd")
        );
        assert!(!directory.path().join("dev/null").exists());
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        let out = outside.path().to_str().unwrap();
        let absolute = format!("{out}/absolute");
        for entries in [
            vec![("../evil", Regular, "", &b"x"[..])],
            vec![("a/../../evil", Regular, "", b"x")],
            vec![
                ("link", Symlink, out, b""),
                ("link/evil", Regular, "", b"x"),
            ],
            vec![
                ("link", Symlink, "..", b""),
                ("link", Directory, "", b""),
                ("link/../x", Regular, "", b"x"),
            ],
            vec![("hard", Link, "/etc/passwd", b"")],
            vec![("hard", Link, "../../../../etc/passwd", b"")],
            vec![("link", Symlink, out, b""), ("hard", Link, "link/x", b"")],
            vec![("d", Directory, "", b""), ("hard", Link, "d", b"")],
            vec![(".wh...", Regular, "", b"")],
        ] {
            let (_directory, result) = unpack_entries(&entries);
            assert!(result.is_err(), "{entries:?}");
        }
        // An absolute path is taken as below the layer, as every runtime does.
        let (directory, result) = unpack_entries(&[(&absolute, Regular, "", b"x")]);
        result.unwrap();
        assert!(
            directory
                .path()
                .join(absolute.trim_start_matches('/'))
                .exists()
        );
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, "safe").unwrap();
        let out = victim.to_str().unwrap();
        let (directory, result) =
            unpack_entries(&[("f", Symlink, out, b""), ("f", Regular, "", b"new")]);
        result.unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
        assert_eq!(
            fs::read_to_string(directory.path().join("f")).unwrap(),
            "new"
        );
    }

    #[test]
    fn whiteouts_become_overlays_own() {
        let (directory, result) = unpack_entries(&[
            (".wh.gone", Regular, "", b""),
            ("d/.wh..wh..opq", Regular, "", b""),
            (".wh.again", Regular, "", b""),
            ("again", Directory, "", b""),
            ("again/x", Regular, "", b"1"),
        ]);
        result.unwrap();
        let gone = fs::symlink_metadata(directory.path().join("gone")).unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        for name in ["d", "again"] {
            assert_eq!(
                opaque_mark(&directory.path().join(name)).as_deref(),
                Some(&b"y"[..]),
                "{name}"
            );
        }
    }

    fn opaque_mark(path: &Path) -> Option<Vec<u8>> {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let mut value = [0_u8; 8];
        // SAFETY: both texts are terminated and the buffer's length is given.
        let length = unsafe {
            libc::getxattr(
                path.as_ptr(),
                c"trusted.overlay.opaque".as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        usize::try_from(length)
            .ok()
            .map(|length| value[..length].to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_is_ever_written_outside(entries in proptest::collection::vec((path(), 0..5_u8, path()), 1..12)) {
            let parent = tempfile::tempdir().unwrap();
            let victim = parent.path().join("victim");
            fs::write(&victim, "safe").unwrap();
            let target = parent.path().join("layer");
            fs::create_dir(&target).unwrap();
            let kinds = [Regular, Directory, Symlink, Link, EntryType::Fifo];
            let listed: Vec<(&str, EntryType, &str, &[u8])> = entries
                .iter()
                .map(|(path, kind, link)| (path.as_str(), kinds[usize::from(*kind)], link.as_str(), &b""[..]))
                .collect();
            let _ = unpack(&archive(&listed)[..], &target, UnpackLimits::default());
            prop_assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
            let found = fs::metadata(&victim).unwrap();
            prop_assert_eq!((found.nlink(), found.uid(), found.len()), (1, 0, 4));
        }
    }

    /// Short paths of few names, so that entries often meet each other.
    fn path() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "a",
            "b",
            "..",
            ".",
            "victim",
            ".wh.a",
            ".wh..wh..opq",
            "",
        ]);
        proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
    }

    #[test]
    fn limits_bind() {
        let directory = tempfile::tempdir().unwrap();
        let entries: Vec<(String, EntryType)> = (0..9)
            .map(|number| (format!("f{number}"), Regular))
            .collect();
        let entries: Vec<(&str, EntryType, &str, &[u8])> = entries
            .iter()
            .map(|(name, kind)| (name.as_str(), *kind, "", &b"12345678"[..]))
            .collect();
        let bytes = archive(&entries);
        let few = UnpackLimits {
            entries: 5,
            ..UnpackLimits::default()
        };
        assert!(
            unpack(&bytes[..], directory.path(), few)
                .unwrap_err()
                .to_string()
                .contains("more than 5 entries")
        );
        let small = UnpackLimits {
            bytes: 2048,
            ..UnpackLimits::default()
        };
        assert!(
            unpack(&bytes[..], directory.path(), small)
                .unwrap_err()
                .to_string()
                .contains("larger than allowed")
        );
    }

    #[test]
    fn a_broken_or_foreign_stream_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = archive(&[("a", Regular, "", b"12345")]);
        bytes.truncate(514);
        assert!(unpack(&bytes[..], directory.path(), UnpackLimits::default()).is_err());
        assert!(
            unpack(
                &[0x28, 0xb5, 0x2f, 0xfd, 0][..],
                directory.path(),
                UnpackLimits::default()
            )
            .is_err()
        );
        symlink("x", directory.path().join("kept")).unwrap();
        assert!(
            unpack(
                &[0x1f, 0x8b, 1, 2, 3][..],
                directory.path(),
                UnpackLimits::default()
            )
            .is_err()
        );
    }
}
