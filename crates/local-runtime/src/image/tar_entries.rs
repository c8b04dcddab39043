//! Reading a layer's tar entry by entry with every header bounded: long names and extended attributes are held in memory.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{Archive, Entry, EntryType};

/// One long name or one set of extended headers.
const HEADER_BYTES_MAX: u64 = 1 << 20;
const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// What precedes and describes one file.
#[derive(Debug, Default)]
pub(super) struct Description {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mode: u32,
    pub(super) modified_seconds: u64,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

/// Calls `each` for every file, directory and link of the archive.
pub(super) fn for_each<R: Read>(
    reader: R,
    mut each: impl FnMut(&Description, EntryType, &mut Entry<'_, R>) -> io::Result<()>,
) -> io::Result<()> {
    let mut archive = Archive::new(reader);
    let mut extended = Extended::default();
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        match entry.header().entry_type() {
            EntryType::GNULongName => extended.path = Some(long_text(&mut entry)?),
            EntryType::GNULongLink => extended.link = Some(long_text(&mut entry)?),
            EntryType::XHeader => read_extended(&mut entry, &mut extended)?,
            EntryType::XGlobalHeader => {}
            kind => {
                let description = describe(&entry, std::mem::take(&mut extended))?;
                each(&description, kind, &mut entry)?;
            }
        }
    }
    Ok(())
}

fn describe<R: Read>(entry: &Entry<'_, R>, extended: Extended) -> io::Result<Description> {
    let header = entry.header();
    let fields = header.as_old();
    Ok(Description {
        path: extended
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned()),
        link: extended
            .link
            .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
            .unwrap_or_default(),
        uid: match extended.uid {
            Some(uid) => uid,
            None if is_blank(&fields.uid) => 0,
            None => header.uid()?,
        },
        gid: match extended.gid {
            Some(gid) => gid,
            None if is_blank(&fields.gid) => 0,
            None => header.gid()?,
        },
        mode: header.mode()?,
        modified_seconds: if is_blank(&fields.mtime) {
            0
        } else {
            header.mtime()?
        },
        xattrs: extended.xattrs,
    })
}

/// Some builders leave out owners and times; they mean zero.
fn is_blank(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, 0 | b' '))
}

fn header_bytes<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Vec<u8>> {
    if entry.size() > HEADER_BYTES_MAX {
        return Err(io::Error::other("a header is longer than 1 MiB"));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn long_text<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Vec<u8>> {
    let mut bytes = header_bytes(entry)?;
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    bytes.truncate(end);
    Ok(bytes)
}

fn read_extended<R: Read>(entry: &mut Entry<'_, R>, extended: &mut Extended) -> io::Result<()> {
    let bytes = header_bytes(entry)?;
    for (key, value) in parse_records(&bytes)? {
        let number = || {
            String::from_utf8_lossy(value)
                .parse()
                .map_err(|_| io::Error::other("an owner is no number"))
        };
        match key {
            "path" => extended.path = Some(value.to_vec()),
            "linkpath" => extended.link = Some(value.to_vec()),
            "uid" => extended.uid = Some(number()?),
            "gid" => extended.gid = Some(number()?),
            "size" => return Err(io::Error::other("a file above 8 GiB is not supported")),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    extended.xattrs.insert(name.to_owned(), value.to_vec());
                }
            }
        }
    }
    Ok(())
}

/// `<length> <key>=<value>\n`, again and again; the length counts itself.
fn parse_records(mut bytes: &[u8]) -> io::Result<Vec<(&str, &[u8])>> {
    let wrong = || io::Error::other("an extended header is malformed");
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes
            .iter()
            .position(|byte| *byte == b' ')
            .ok_or_else(wrong)?;
        let length: usize = std::str::from_utf8(&bytes[..space])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(wrong)?;
        let record = bytes.get(space + 1..length).ok_or_else(wrong)?;
        let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(wrong)?;
        records.push((
            std::str::from_utf8(&record[..equals]).map_err(|_| wrong())?,
            &record[equals + 1..],
        ));
        bytes = &bytes[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_split_by_their_length() {
        let records = parse_records(b"12 path=a/b\n15 SCHILY.x=\n\0\n").unwrap();
        assert_eq!(records, [("path", &b"a/b"[..]), ("SCHILY.x", &b"\n\0"[..])]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_records_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_records(&bytes);
        }

        #[test]
        fn any_bytes_are_entries_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = for_each(&bytes[..], |_, _, _| Ok(()));
        }
    }
}
