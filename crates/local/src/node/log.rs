//! The logs of containers: one file a start, a line a record, as the Container Runtime Interface writes them.
//!
//! A record is `TIME STREAM TAG TEXT`, TAG being `F` for a full line and `P` for a part of a longer one. A file that grows
//! past [`ROTATE_AT`] becomes `N.log.1` (the one before that goes) and a new `N.log` begins; the two newest starts are kept.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, watch};

/// The size in bytes at which a log file is put aside.
const ROTATE_AT: u64 = 10 << 20;
/// The longest text of one record.
const MAX_TEXT: usize = 16 << 10;
/// How much of the end of a log may go into a status message.
const MESSAGE_BYTES: usize = 2048;

/// The log of one start of a container.
pub(super) struct Log {
    path: PathBuf,
    /// Grows with every record: what a follower waits for. Closed when the last writer is gone.
    written: watch::Sender<u64>,
    file: Mutex<Option<(File, u64)>>,
}

/// What a reader of a log wants.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Query {
    /// Only the last so many lines.
    pub(super) tail: Option<usize>,
    /// Only lines from then on.
    pub(super) since: Option<Timestamp>,
    /// Begin each line with its time.
    pub(super) timestamps: bool,
}

/// Where the log of start `attempt` of a container lies.
pub(super) fn path(pod_dir: &Path, container: &str, attempt: i32) -> PathBuf {
    pod_dir.join("logs").join(container).join(format!("{attempt}.log"))
}

impl Log {
    /// Begins the log of a start and forgets all but the one before.
    pub(super) async fn create(pod_dir: &Path, container: &str, attempt: i32) -> std::io::Result<Arc<Self>> {
        let path = path(pod_dir, container, attempt);
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent).await?;
        }
        for old in [".log", ".log.1"] {
            let _ = tokio::fs::remove_file(path.with_file_name(format!("{}{old}", attempt - 2))).await;
        }
        let file = File::options().create(true).append(true).open(&path).await?;
        let size = file.metadata().await?.len();
        Ok(Arc::new(Self {
            path,
            written: watch::Sender::new(size),
            file: Mutex::new(Some((file, size))),
        }))
    }

    /// The write ends for a process's standard output and error; what arrives is recorded until both are closed.
    pub(super) fn pipes(self: &Arc<Self>) -> std::io::Result<(OwnedFd, OwnedFd)> {
        let mut ends = Vec::new();
        for stream in ["stdout", "stderr"] {
            let (sender, receiver) = pipe::pipe()?;
            tokio::spawn(record(Arc::clone(self), receiver, stream));
            ends.push(sender.into_blocking_fd()?);
        }
        let (stderr, stdout) = (ends.pop(), ends.pop());
        stdout.zip(stderr).ok_or_else(|| std::io::Error::other("no pipes"))
    }

    /// Tells when something was written; its sender is gone when the log is complete.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    async fn append(&self, records: &[u8]) {
        let mut slot = self.file.lock().await;
        let Some((file, size)) = slot.as_mut() else { return };
        // A full disk loses log lines, not the application.
        if file.write_all(records).await.is_err() || file.flush().await.is_err() {
            return;
        }
        *size += records.len() as u64;
        if *size > ROTATE_AT {
            let _ = tokio::fs::rename(&self.path, rotated(&self.path)).await;
            match File::options().create(true).append(true).open(&self.path).await {
                Ok(fresh) => *slot = Some((fresh, 0)),
                Err(_) => *slot = None,
            }
        }
        drop(slot);
        self.written.send_modify(|count| *count += records.len() as u64);
    }
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

async fn record(log: Arc<Log>, mut pipe: pipe::Receiver, stream: &'static str) {
    let mut pending = Vec::new();
    let mut buffer = vec![0; 8 << 10];
    loop {
        let count = pipe.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            break;
        }
        pending.extend_from_slice(&buffer[..count]);
        let records = take_records(&mut pending, stream, Timestamp::now());
        if !records.is_empty() {
            log.append(&records).await;
        }
    }
    if !pending.is_empty() {
        pending.push(b'\n');
        let records = take_records(&mut pending, stream, Timestamp::now());
        log.append(&records).await;
    }
}

/// Moves the complete lines, and what is too long to wait for its end, from `pending` into records.
fn take_records(pending: &mut Vec<u8>, stream: &str, now: Timestamp) -> Vec<u8> {
    let mut records = Vec::new();
    let mut rest = pending.as_slice();
    loop {
        let (text, tag, used) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) if end <= MAX_TEXT => (&rest[..end], 'F', end + 1),
            _ if rest.len() > MAX_TEXT => (&rest[..MAX_TEXT], 'P', MAX_TEXT),
            _ => break,
        };
        records.extend_from_slice(format!("{now:.9} {stream} {tag} ").as_bytes());
        records.extend_from_slice(text);
        records.push(b'\n');
        rest = &rest[used..];
    }
    *pending = rest.to_vec();
    records
}

/// Reads the log at `path`, with what was put aside before it, as `query` wants it.
pub(super) fn read(path: &Path, query: &Query) -> std::io::Result<Vec<u8>> {
    read_up_to(path, u64::MAX, query)
}

/// The same with only the first `size` bytes of the newest file.
pub(super) fn read_up_to(path: &Path, size: u64, query: &Query) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = std::fs::read(rotated(path)).unwrap_or_default();
    std::fs::File::open(path)?.take(size).read_to_end(&mut bytes)?;
    Ok(select(&bytes, query))
}

/// The text of `records` that `query` wants. Parts of a line are put together again.
pub(super) fn select(records: &[u8], query: &Query) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut open = false;
    for record in records.split_inclusive(|byte| *byte == b'\n') {
        let Some((time, tag, text)) = parse(record) else {
            continue;
        };
        if query
            .since
            .is_some_and(|since| time.parse::<Timestamp>().is_ok_and(|time| time < since))
        {
            continue;
        }
        if !open {
            lines.push(if query.timestamps {
                format!("{time} ").into_bytes()
            } else {
                Vec::new()
            });
        }
        if let Some(line) = lines.last_mut() {
            line.extend_from_slice(text);
            if tag == b'F' {
                line.push(b'\n');
            }
        }
        open = tag == b'P';
    }
    let skip = query.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
    lines.split_off(skip).concat()
}

fn parse(record: &[u8]) -> Option<(&str, u8, &[u8])> {
    let record = record.strip_suffix(b"\n")?;
    let mut fields = record.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?;
    let _stream = fields.next()?;
    let tag = *fields.next()?.first()?;
    Some((time, tag, fields.next().unwrap_or_default()))
}

/// The end of a log, short enough for a status message.
pub(super) fn tail_message(path: &Path) -> String {
    let query = Query {
        tail: Some(5),
        ..Query::default()
    };
    let text = read(path, &query).unwrap_or_default();
    let start = text.len().saturating_sub(MESSAGE_BYTES);
    String::from_utf8_lossy(&text[start..]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn lines_come_back_as_they_were_written() {
        let mut pending = b"one\ntwo\nhalf".to_vec();
        let records = take_records(&mut pending, "stdout", at(0));
        assert_eq!(pending, b"half");
        assert_eq!(select(&records, &Query::default()), b"one\ntwo\n");
    }

    #[test]
    fn a_long_line_is_kept_in_parts_and_put_together() {
        let line = vec![b'x'; MAX_TEXT * 2 + 5];
        let mut pending = line.clone();
        pending.push(b'\n');
        let records = take_records(&mut pending, "stdout", at(0));
        assert_eq!(records.iter().filter(|byte| **byte == b'\n').count(), 3);
        let mut wanted = line;
        wanted.push(b'\n');
        assert_eq!(select(&records, &Query::default()), wanted);
    }

    #[test]
    fn tail_since_and_timestamps_select() {
        let mut records = Vec::new();
        for second in 0..4 {
            records.extend(take_records(
                &mut format!("line {second}\n").into_bytes(),
                "stderr",
                at(second),
            ));
        }
        let tail = Query {
            tail: Some(1),
            ..Query::default()
        };
        assert_eq!(select(&records, &tail), b"line 3\n");
        let since = Query {
            since: Some(at(2)),
            ..Query::default()
        };
        assert_eq!(select(&records, &since), b"line 2\nline 3\n");
        let stamped = Query {
            tail: Some(1),
            timestamps: true,
            since: None,
        };
        assert_eq!(select(&records, &stamped), b"2023-11-14T22:13:23.000000000Z line 3\n");
        assert_eq!(select(b"garbage\n", &Query::default()), b"");
    }

    #[tokio::test]
    async fn what_a_process_writes_is_in_the_file_when_both_pipes_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(dir.path(), "app", 0).await.unwrap();
        let mut changes = log.changes();
        let (stdout, stderr) = log.pipes().unwrap();
        drop(stderr);
        std::io::Write::write_all(&mut std::fs::File::from(stdout), b"hello\nlast without end").unwrap();
        drop(log);
        while changes.changed().await.is_ok() {}
        let text = read(&path(dir.path(), "app", 0), &Query::default()).unwrap();
        assert_eq!(text, b"hello\nlast without end\n");
    }
}
