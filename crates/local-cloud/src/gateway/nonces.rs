//! Remembers the nonces of accepted signatures, so that none is accepted twice, not by the next process either.
//!
//! A signature is good for fifteen minutes either side of the clock, so thirty minutes of memory are enough. The
//! memory is bounded; when it is full, calls are refused rather than replays let through. Each nonce is appended to a
//! file before its call is let in: it survives the death of the process, though not the loss of the machine's power.

use ring::digest;
use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How long a nonce matters.
const MEMORY_SECONDS: i64 = 30 * 60;
/// Most nonces kept: some 250 calls a second, for all of the thirty minutes.
const MAX_NONCES: usize = 500_000;
/// A second and a hash.
const RECORD_BYTES: usize = 24;
const CURRENT: &str = "nonces";
const BEFORE: &str = "nonces.before";

/// What became of a nonce.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    New,
    Before,
    Full,
    /// It could not be written down.
    Unwritten,
}

#[derive(Debug)]
pub(crate) struct Nonces {
    known: HashSet<u128>,
    /// In order of arrival: when, which.
    order: VecDeque<(i64, u128)>,
    directory: PathBuf,
    /// `None` when they are not to survive the process.
    file: Option<File>,
    /// When the file was begun.
    begun: i64,
}

impl Nonces {
    /// Remembers them for the life of the process only.
    pub(crate) fn in_memory(now_second: i64) -> Self {
        Self {
            known: HashSet::new(),
            order: VecDeque::new(),
            directory: PathBuf::new(),
            file: None,
            begun: now_second,
        }
    }

    /// Reads what an earlier process remembered. Blocks.
    pub(crate) fn open(directory: &Path, now_second: i64) -> io::Result<Self> {
        let mut found = Vec::new();
        for name in [BEFORE, CURRENT] {
            match File::open(directory.join(name)) {
                Ok(file) => {
                    let most = (MAX_NONCES * RECORD_BYTES) as u64;
                    file.take(most).read_to_end(&mut found)?;
                    // A record that was cut off by a death was not let in either.
                    found.truncate(found.len() - found.len() % RECORD_BYTES);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut order: Vec<(i64, u128)> = found.chunks_exact(RECORD_BYTES).map(read).collect();
        order.retain(|(second, _)| now_second - second <= MEMORY_SECONDS);
        order.sort_unstable();
        let mut nonces = Self {
            known: order.iter().map(|(_, hash)| *hash).collect(),
            order: order.into(),
            directory: directory.to_owned(),
            file: Some(append_to(&directory.join(CURRENT))?),
            begun: now_second,
        };
        // Starting anew leaves no half record in the middle of a file.
        nonces.rewrite()?;
        Ok(nonces)
    }

    /// Writes all that matters to a file of its own, and goes on there.
    fn rewrite(&mut self) -> io::Result<()> {
        let next = self.directory.join("nonces.next");
        let mut bytes = Vec::with_capacity(self.order.len() * RECORD_BYTES);
        for (second, hash) in &self.order {
            bytes.extend_from_slice(&record(*second, *hash));
        }
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(&bytes)?;
        std::fs::rename(&next, self.directory.join(CURRENT))?;
        match std::fs::remove_file(self.directory.join(BEFORE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = Some(append_to(&self.directory.join(CURRENT))?);
        Ok(())
    }

    /// Remembers a nonce of an access key.
    pub(crate) fn remember(&mut self, access_key_id: &str, nonce: &str, now_second: i64) -> Seen {
        while self
            .order
            .front()
            .is_some_and(|(second, _)| now_second - second > MEMORY_SECONDS)
        {
            if let Some((_, old)) = self.order.pop_front() {
                self.known.remove(&old);
            }
        }
        let hash = hash(access_key_id, nonce);
        if self.known.contains(&hash) {
            return Seen::Before;
        }
        if self.known.len() >= MAX_NONCES {
            return Seen::Full;
        }
        if let Err(error) = self.write(now_second, hash) {
            tracing::error!(%error, "nonce cannot be written down, so its call is refused");
            return Seen::Unwritten;
        }
        self.known.insert(hash);
        self.order.push_back((now_second, hash));
        Seen::New
    }

    fn write(&mut self, second: i64, hash: u128) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        if second - self.begun > MEMORY_SECONDS {
            // What lies in the file before this one cannot matter any more.
            std::fs::rename(self.directory.join(CURRENT), self.directory.join(BEFORE))?;
            self.file = Some(append_to(&self.directory.join(CURRENT))?);
            self.begun = second;
        }
        let file = self.file.as_mut();
        file.map_or(Ok(()), |file| file.write_all(&record(second, hash)))
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

fn record(second: i64, hash: u128) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&second.to_le_bytes());
    record[8..].copy_from_slice(&hash.to_le_bytes());
    record
}

fn read(record: &[u8]) -> (i64, u128) {
    let (mut second, mut hash) = ([0; 8], [0; 16]);
    second.copy_from_slice(&record[..8]);
    hash.copy_from_slice(&record[8..]);
    (i64::from_le_bytes(second), u128::from_le_bytes(hash))
}

fn hash(access_key_id: &str, nonce: &str) -> u128 {
    let text = format!("{access_key_id}\n{nonce}");
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref()
        .iter()
        .take(16)
        .fold(0u128, |sum, byte| sum << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_new_once_per_key_and_again_when_it_cannot_matter_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let mut nonces = Nonces::open(directory.path(), 0).unwrap();
        assert_eq!(nonces.remember("a", "n", 0), Seen::New);
        assert_eq!(nonces.remember("a", "n", MEMORY_SECONDS), Seen::Before);
        assert_eq!(nonces.remember("b", "n", MEMORY_SECONDS), Seen::New);
        assert_eq!(nonces.remember("a", "n", MEMORY_SECONDS + 1), Seen::New);
    }

    #[test]
    fn the_next_process_knows_them_also_behind_a_torn_record() {
        let directory = tempfile::tempdir().unwrap();
        let mut nonces = Nonces::open(directory.path(), 0).unwrap();
        assert_eq!(nonces.remember("a", "early", 0), Seen::New);
        assert_eq!(nonces.remember("a", "late", MEMORY_SECONDS + 5), Seen::New);
        assert_eq!(nonces.remember("a", "later", MEMORY_SECONDS + 6), Seen::New);
        drop(nonces);
        let mut torn = append_to(&directory.path().join(CURRENT)).unwrap();
        torn.write_all(b"half").unwrap();
        for _ in 0..2 {
            let mut nonces = Nonces::open(directory.path(), MEMORY_SECONDS + 7).unwrap();
            let now = MEMORY_SECONDS + 7;
            assert_eq!(nonces.remember("a", "late", now), Seen::Before);
            assert_eq!(nonces.remember("a", "later", now), Seen::Before);
            assert_eq!(nonces.order.len(), 2);
        }
    }
}
