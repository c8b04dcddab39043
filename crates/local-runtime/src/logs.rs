//! Reading container logs in the CRI format: `<RFC 3339 time> stdout|stderr F|P <text>`.
//!
//! Rotated files are read before the current one. Lines that are not of the format are passed over.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::sync::CancellationToken;

use crate::shim::log_writer::{FILES_MAX, rotated};

/// What part of a log to read.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines written at or after this time.
    pub since: Option<Timestamp>,
    /// Goes on with new lines until the container has ended.
    pub follow: bool,
    /// Prefixes each line with its time.
    pub timestamps: bool,
    /// Stops after so many bytes of output.
    pub limit_bytes: Option<u64>,
}

/// Chunks of log text.
pub type LogStream = BoxStream<'static, io::Result<Bytes>>;

/// One read from a file.
const CHUNK_BYTES: usize = 64 << 10;
/// How often a follower looks for new lines.
const FOLLOW_POLL: Duration = Duration::from_millis(50);

/// The current log file of an attempt below a sandbox's log directory.
pub fn path(log_directory: &Path, container: &str, attempt: u32) -> PathBuf {
    log_directory.join(container).join(format!("{attempt}.log"))
}

/// Reads the log whose current file is `path`, rotated files first. `finished` tells a follower that no more will be written.
pub fn read(
    path: PathBuf,
    options: LogOptions,
    finished: CancellationToken,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let reader = Reader {
        path,
        options,
        finished,
        phase: Phase::Begin,
        text: Formatter::default(),
    };
    stream::unfold(reader, |mut reader| async move {
        match reader.next().await {
            Ok(Some(chunk)) => Some((Ok(chunk), reader)),
            Ok(None) => None,
            Err(error) => {
                reader.phase = Phase::End;
                Some((Err(error), reader))
            }
        }
    })
}

enum Phase {
    Begin,
    /// Files still to read, the one being read last; never empty.
    Reading(Vec<File>),
    End,
}

struct Reader {
    path: PathBuf,
    options: LogOptions,
    finished: CancellationToken,
    phase: Phase,
    text: Formatter,
}

impl Reader {
    /// The next piece of output; nothing at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match &mut self.phase {
                Phase::End => return Ok(None),
                Phase::Begin => self.begin().await?,
                Phase::Reading(_) => {}
            }
            // Asked before reading: what was written before the end is then surely read.
            let finished = self.finished.is_cancelled() || !self.options.follow;
            let chunk = self.read_chunk().await?;
            if chunk.is_empty() {
                if !self.next_file().await? {
                    if finished {
                        self.phase = Phase::End;
                        continue;
                    }
                    tokio::select! {
                        () = self.finished.cancelled() => {}
                        () = tokio::time::sleep(FOLLOW_POLL) => {}
                    }
                }
                continue;
            }
            let output = self.text.take(&chunk, &self.options);
            if self.text.full {
                self.phase = Phase::End;
            }
            if !output.is_empty() {
                return Ok(Some(output.into()));
            }
        }
    }

    /// Opens what is there, oldest first, and goes to where the wanted lines begin.
    async fn begin(&mut self) -> io::Result<()> {
        let mut files = Vec::new();
        for index in 0..FILES_MAX {
            match File::open(rotated(&self.path, index)).await {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // Newest first up to here: the search for the last lines goes backwards.
        if let Some(lines) = self.options.tail_lines {
            keep_last_lines(&mut files, lines).await?;
        }
        self.phase = Phase::Reading(files);
        Ok(())
    }

    async fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let Phase::Reading(files) = &mut self.phase else {
            return Ok(Vec::new());
        };
        let Some(file) = files.last_mut() else {
            return Ok(Vec::new());
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = file.read(&mut chunk).await?;
        chunk.truncate(count);
        Ok(chunk)
    }

    /// Goes on to the next file; false when there is none yet.
    async fn next_file(&mut self) -> io::Result<bool> {
        let Phase::Reading(files) = &mut self.phase else {
            return Ok(false);
        };
        if files.len() > 1 {
            files.pop();
            return Ok(true);
        }
        if !self.options.follow {
            return Ok(false);
        }
        let current = match File::open(&self.path).await {
            Ok(file) => file,
            // Between the two steps of a rotation, or before the first line.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if let Some(known) = files.last()
            && known.metadata().await?.ino() == current.metadata().await?.ino()
        {
            return Ok(false);
        }
        *files = vec![current];
        Ok(true)
    }
}

/// Cuts `files` (newest first) so that exactly the last `lines` lines are left to be read.
async fn keep_last_lines(files: &mut Vec<File>, lines: u64) -> io::Result<()> {
    let mut missing = lines;
    for index in 0..files.len() {
        let file = &mut files[index];
        let length = file.seek(SeekFrom::End(0)).await?;
        if let Some(start) = find_last_lines(file, length, &mut missing).await? {
            file.seek(SeekFrom::Start(start)).await?;
            files.truncate(index + 1);
            return Ok(());
        }
        files[index].seek(SeekFrom::Start(0)).await?;
    }
    Ok(())
}

/// Where the last `missing` lines of one file begin; counts `missing` down when the file has fewer.
async fn find_last_lines(
    file: &mut File,
    length: u64,
    missing: &mut u64,
) -> io::Result<Option<u64>> {
    if *missing == 0 {
        return Ok(Some(length));
    }
    let mut end = length;
    while end > 0 {
        let begin = end.saturating_sub(CHUNK_BYTES as u64);
        let mut chunk = vec![0; usize::try_from(end - begin).unwrap_or(CHUNK_BYTES)];
        file.seek(SeekFrom::Start(begin)).await?;
        file.read_exact(&mut chunk).await?;
        for (offset, byte) in chunk.iter().enumerate().rev() {
            let after = begin + offset as u64 + 1;
            // The last byte ends the last line; it begins none.
            if *byte == b'\n' && after < length {
                *missing -= 1;
                if *missing == 0 {
                    return Ok(Some(after));
                }
            }
        }
        end = begin;
    }
    if length > 0 {
        *missing -= 1;
        if *missing == 0 {
            return Ok(Some(0));
        }
    }
    Ok(None)
}

/// Turns CRI lines into what the container wrote.
#[derive(Default)]
struct Formatter {
    /// The begun line at the end of the last chunk.
    pending: Vec<u8>,
    /// Whether standard output and error are within a line that came in parts.
    within: [bool; 2],
    written: u64,
    /// The byte limit is reached.
    full: bool,
}

impl Formatter {
    fn take(&mut self, chunk: &[u8], options: &LogOptions) -> Vec<u8> {
        let mut output = Vec::new();
        self.pending.extend_from_slice(chunk);
        let whole = self
            .pending
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let rest = self.pending.split_off(whole);
        let lines = std::mem::replace(&mut self.pending, rest);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.push(
                line.strip_suffix(b"\n").unwrap_or(line),
                options,
                &mut output,
            );
        }
        if let Some(limit) = options.limit_bytes {
            let room = limit - self.written;
            output.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            self.written += output.len() as u64;
            self.full = self.written >= limit;
        }
        output
    }

    fn push(&mut self, line: &[u8], options: &LogOptions, output: &mut Vec<u8>) {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(source), Some(tag), Some(text)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return;
        };
        if let Some(since) = options.since {
            let written = std::str::from_utf8(time)
                .ok()
                .and_then(|time| time.parse::<Timestamp>().ok());
            if written.is_none_or(|written| written < since) {
                return;
            }
        }
        let within = &mut self.within[usize::from(source == b"stderr")];
        if options.timestamps && !*within {
            output.extend_from_slice(time);
            output.push(b' ');
        }
        output.extend_from_slice(text);
        // Tags may grow by `:` and more.
        *within = tag.first() == Some(&b'P');
        if !*within {
            output.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn line(second: u32, text: &str) -> String {
        format!("2026-01-01T00:00:{second:02}.000000000Z stdout F {text}\n")
    }

    async fn read_all(path: &Path, options: LogOptions) -> String {
        let finished = CancellationToken::new();
        finished.cancel();
        let chunks: Vec<Bytes> = read(path.to_path_buf(), options, finished)
            .map(Result::unwrap)
            .collect()
            .await;
        String::from_utf8(chunks.concat()).unwrap()
    }

    fn write(path: &Path, lines: std::ops::Range<u32>) {
        std::fs::write(
            path,
            lines
                .map(|number| line(number, &format!("n{number}")))
                .collect::<String>(),
        )
        .unwrap();
    }

    #[tokio::test]
    async fn rotated_files_come_first_and_the_tail_spans_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        write(&rotated(&path, 2), 0..2);
        write(&rotated(&path, 1), 2..4);
        write(&path, 4..6);
        assert_eq!(
            read_all(&path, LogOptions::default()).await,
            "n0\nn1\nn2\nn3\nn4\nn5\n"
        );
        for (tail, wanted) in [
            (0, ""),
            (1, "n5\n"),
            (3, "n3\nn4\nn5\n"),
            (4, "n2\nn3\nn4\nn5\n"),
            (99, "n0\nn1\nn2\nn3\nn4\nn5\n"),
        ] {
            let options = LogOptions {
                tail_lines: Some(tail),
                ..LogOptions::default()
            };
            assert_eq!(read_all(&path, options).await, wanted, "tail {tail}");
        }
    }

    #[tokio::test]
    async fn since_times_and_limits_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        write(&path, 0..5);
        let since = Some("2026-01-01T00:00:03Z".parse().unwrap());
        assert_eq!(
            read_all(
                &path,
                LogOptions {
                    since,
                    ..LogOptions::default()
                }
            )
            .await,
            "n3\nn4\n"
        );
        let options = LogOptions {
            since,
            timestamps: true,
            limit_bytes: Some(32),
            ..LogOptions::default()
        };
        assert_eq!(
            read_all(&path, options).await,
            "2026-01-01T00:00:03.000000000Z n"
        );
    }

    #[tokio::test]
    async fn parts_of_a_line_are_joined() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let time = "2026-01-01T00:00:00.000000000Z";
        std::fs::write(
            &path,
            format!("{time} stdout P ab\n{time} stdout F cd\nodd\n"),
        )
        .unwrap();
        assert_eq!(
            read_all(
                &path,
                LogOptions {
                    timestamps: true,
                    ..LogOptions::default()
                }
            )
            .await,
            format!("{time} abcd\n")
        );
    }

    #[tokio::test]
    async fn a_follower_sees_new_lines_a_rotation_and_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        write(&path, 0..1);
        let finished = CancellationToken::new();
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let mut stream = Box::pin(read(path.clone(), options, finished.clone()));
        assert_eq!(stream.next().await.unwrap().unwrap(), "n0\n");
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        write(&path, 1..2);
        assert_eq!(stream.next().await.unwrap().unwrap(), "n1\n");
        finished.cancel();
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_log_that_does_not_exist_is_empty() {
        assert_eq!(
            read_all(Path::new("/no/such/0.log"), LogOptions::default()).await,
            ""
        );
    }
}
