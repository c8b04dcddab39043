//! Writes a container's output as CRI log lines and rotates the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A file is rotated once it is this long.
pub(crate) const FILE_BYTES_MAX: u64 = 10 << 20;
/// The current file and the rotated ones.
pub(crate) const FILES_MAX: usize = 3;
/// A longer line is written in parts marked `P`.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

/// The name of the `index`-th file, 0 for the current one.
pub(crate) fn rotated(path: &Path, index: usize) -> PathBuf {
    if index == 0 {
        return path.to_path_buf();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    name.into()
}

/// One container's log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    file_bytes_max: u64,
    /// Begun lines of standard output and error.
    pending: [Vec<u8>; 2],
}

impl LogWriter {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, FILE_BYTES_MAX)
    }

    fn with_limit(path: &Path, file_bytes_max: u64) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_path_buf(),
            file,
            size,
            file_bytes_max,
            pending: [Vec::new(), Vec::new()],
        })
    }

    /// Takes output as it came; only whole lines and overlong parts are written.
    pub(crate) fn write(
        &mut self,
        source: Source,
        mut data: &[u8],
        now: Timestamp,
    ) -> io::Result<()> {
        let mut text = Vec::with_capacity(data.len() + 64);
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            let line = &data[..end];
            data = &data[end + 1..];
            self.take_parts(source, line, now, &mut text);
            let rest = std::mem::take(&mut self.pending[source as usize]);
            push_line(&mut text, source, b'F', &rest, now);
        }
        self.take_parts(source, data, now, &mut text);
        self.write_out(&text)
    }

    /// Writes what is left of a begun line; the stream has ended.
    pub(crate) fn finish(&mut self, source: Source, now: Timestamp) -> io::Result<()> {
        let rest = std::mem::take(&mut self.pending[source as usize]);
        if rest.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        push_line(&mut text, source, b'F', &rest, now);
        self.write_out(&text)
    }

    /// Adds to the begun line; whatever goes beyond the longest line is put out in parts.
    fn take_parts(&mut self, source: Source, data: &[u8], now: Timestamp, text: &mut Vec<u8>) {
        let pending = &mut self.pending[source as usize];
        pending.extend_from_slice(data);
        while pending.len() > LINE_BYTES_MAX {
            let rest = pending.split_off(LINE_BYTES_MAX);
            push_line(text, source, b'P', pending, now);
            *pending = rest;
        }
    }

    fn write_out(&mut self, text: &[u8]) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.file.write_all(text)?;
        self.size += text.len() as u64;
        if self.size >= self.file_bytes_max {
            self.rotate()?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for index in (0..FILES_MAX - 1).rev() {
            match fs::rename(rotated(&self.path, index), rotated(&self.path, index + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn push_line(text: &mut Vec<u8>, source: Source, tag: u8, line: &[u8], now: Timestamp) {
    let name = match source {
        Source::Stdout => "stdout",
        Source::Stderr => "stderr",
    };
    text.extend_from_slice(format!("{now:.9} {name} ").as_bytes());
    text.push(tag);
    text.push(b' ');
    text.extend_from_slice(line);
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05.000000006Z".parse().unwrap()
    }

    #[test]
    fn pieces_become_whole_lines_with_a_nanosecond_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/0.log");
        let mut writer = LogWriter::open(&path).unwrap();
        writer.write(Source::Stdout, b"he", now()).unwrap();
        writer.write(Source::Stderr, b"bad\n", now()).unwrap();
        writer.write(Source::Stdout, b"llo\n\nend", now()).unwrap();
        writer.finish(Source::Stdout, now()).unwrap();
        let time = "2026-01-02T03:04:05.000000006Z";
        let wanted = format!(
            "{time} stderr F bad\n{time} stdout F hello\n{time} stdout F \n{time} stdout F end\n"
        );
        assert_eq!(fs::read_to_string(path).unwrap(), wanted);
    }

    #[test]
    fn an_overlong_line_comes_in_parts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut writer = LogWriter::open(&path).unwrap();
        let mut long = vec![b'x'; LINE_BYTES_MAX + 5];
        long.push(b'\n');
        writer.write(Source::Stdout, &long, now()).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let tags: Vec<&str> = text
            .lines()
            .map(|line| line.split(' ').nth(2).unwrap())
            .collect();
        assert_eq!(tags, ["P", "F"]);
        assert!(text.ends_with(" stdout F xxxxx\n"));
    }

    #[test]
    fn only_the_newest_files_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut writer = LogWriter::with_limit(&path, 100).unwrap();
        for number in 0..20 {
            writer
                .write(
                    Source::Stdout,
                    format!("line {number:04} {}\n", "y".repeat(40)).as_bytes(),
                    now(),
                )
                .unwrap();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), FILES_MAX);
        let previous = fs::read_to_string(rotated(&path, 1)).unwrap();
        assert!(previous.contains("line 0019"), "{previous}");
    }
}
