//! What travels between regions: a body is `LWPT`, a version, a header, compressed records and the BLAKE3 hash of all that.
//!
//! ```text
//! "LWPT" | version u8 | header length u32 le | header (postcard)
//! zstd( { record length u32 le | record (postcard) | payload }* )
//! blake3 of everything before (32 bytes); its first 16 bytes are the point's id
//! ```
//!
//! A patch (from source to target) first takes away and moves aside (`Move`, `Delete`), then `Create` once, then says what is
//! made or changed. A manifest (from target to source) has only the second half, with hashes for data. Everything that is
//! read here came from a peer: [`Body::check`] looks at every record before anything acts on one.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
};

mod order;

use leeward_core::name::{Epoch, RoleKey};
use serde::{Deserialize, Serialize};

use super::{
    Point, PointId,
    manifest::{Hash, ZERO},
    tree::Meta,
};

use self::order::Order;
pub(super) use self::order::{is_name, path};

const MAGIC: &[u8; 5] = b"LWPT\x01";
const TRAILER: u64 = 32;
/// The most bytes in one `Data` record.
pub(super) const DATA_MAX: usize = 1 << 20;
const RECORD_MAX: usize = 64 << 10;
const HASHES_MAX: u32 = 1 << 12;

/// Why a body is not one.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes are not what the sender hashed: cut short, or changed on the way. Sending it again may help.
    #[error("the body is cut short or damaged: {0}")]
    Damaged(&'static str),
    /// The sender wrote something that has no meaning here. Sending it again does not help.
    #[error("the body is not one of ours: {0}")]
    Malformed(String),
    /// Reading or writing the local file failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn malformed<T>(what: impl Into<String>) -> Result<T, WireError> {
    Err(WireError::Malformed(what.into()))
}

/// What a body says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Header {
    /// A point as the difference to its parent.
    Patch {
        role: RoleKey,
        epoch: Epoch,
        sequence: u64,
        parent: Option<PointId>,
        source_time_ms: u64,
    },
    /// What a target holds, and the point that it is, where it is a complete one.
    Manifest { role: RoleKey, point: Option<Point> },
}

/// What a file's content starts from at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Base {
    /// Nothing: the file is new.
    Empty,
    /// The file that is at the path.
    Present,
    /// The file that `Move` put aside under this number.
    Moved(u32),
}

/// One record. Paths are relative to the claim named last; an empty path is the claim's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    Claim {
        name: String,
    },
    Move {
        path: Vec<u8>,
        number: u32,
    },
    Delete {
        path: Vec<u8>,
        directory: bool,
    },
    Create,
    Directory {
        path: Vec<u8>,
        meta: Meta,
    },
    Link {
        path: Vec<u8>,
        target: Vec<u8>,
        meta: Meta,
    },
    File {
        path: Vec<u8>,
        base: Base,
        size: u64,
        meta: Meta,
    },
    /// The payload is `length` bytes of the file named last.
    Data {
        offset: u64,
        length: u32,
    },
    Zero {
        offset: u64,
        length: u64,
    },
    /// The payload is `count` hashes of 16 bytes, of the blocks from `first` on.
    Hashes {
        first: u64,
        count: u32,
    },
    End {
        records: u64,
    },
}

impl Record {
    fn payload(&self) -> Result<usize, WireError> {
        match *self {
            Self::Data { length, .. } if length as usize <= DATA_MAX => Ok(length as usize),
            Self::Hashes { count, .. } if count <= HASHES_MAX => Ok(count as usize * size_of::<Hash>()),
            Self::Data { .. } | Self::Hashes { .. } => malformed("a payload is longer than allowed"),
            _ => Ok(0),
        }
    }
}

struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes a body.
pub(super) struct BodyWriter<W: Write> {
    out: zstd::stream::write::Encoder<'static, Hashing<W>>,
    records: u64,
}

impl<W: Write> BodyWriter<W> {
    pub(super) fn new(inner: W, header: &Header) -> Result<Self, WireError> {
        let mut out = Hashing {
            inner,
            hasher: blake3::Hasher::new(),
        };
        let header = postcard::to_stdvec(header).map_err(io::Error::other)?;
        out.write_all(MAGIC)?;
        out.write_all(&length(header.len()))?;
        out.write_all(&header)?;
        let out = zstd::stream::write::Encoder::new(out, 3)?;
        Ok(Self { out, records: 0 })
    }

    pub(super) fn record(&mut self, record: &Record, payload: &[u8]) -> Result<(), WireError> {
        let bytes = postcard::to_stdvec(record).map_err(io::Error::other)?;
        self.out.write_all(&length(bytes.len()))?;
        self.out.write_all(&bytes)?;
        self.out.write_all(payload)?;
        self.records += 1;
        Ok(())
    }

    /// Ends the body and gives back what it was written to, and its id.
    pub(super) fn finish(mut self) -> Result<(W, PointId), WireError> {
        let records = self.records;
        self.record(&Record::End { records }, &[])?;
        let Hashing { mut inner, hasher } = self.out.finish()?;
        let hash = hasher.finalize();
        inner.write_all(hash.as_bytes())?;
        inner.flush()?;
        Ok((inner, id(hash.as_bytes())))
    }
}

fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

fn id(hash: &[u8; 32]) -> PointId {
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    PointId(id)
}

/// A body in a file whose hash was found right.
#[derive(Debug)]
pub(super) struct Body {
    file: File,
    records_at: u64,
    records_end: u64,
    pub(super) header: Header,
    pub(super) id: PointId,
}

impl Body {
    /// Reads all of the file once and compares its hash with its end.
    pub(super) fn open(mut file: File) -> Result<Self, WireError> {
        let size = file.seek(SeekFrom::End(0))?;
        let Some(end) = size.checked_sub(TRAILER).filter(|end| *end >= 9) else {
            return Err(WireError::Damaged("it is shorter than any body"));
        };
        file.seek(SeekFrom::Start(0))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader((&file).take(end))?;
        let hash = hasher.finalize();
        let mut trailer = [0; 32];
        (&file).read_exact(&mut trailer)?;
        if hash != trailer {
            return Err(WireError::Damaged("its hash is another one than its end says"));
        }
        file.seek(SeekFrom::Start(0))?;
        let mut start = [0; 9];
        file.read_exact(&mut start)?;
        if start[..5] != *MAGIC {
            return malformed("it starts with something else, or is of another version");
        }
        let length = u32::from_le_bytes([start[5], start[6], start[7], start[8]]) as usize;
        if length > RECORD_MAX || 9 + length as u64 > end {
            return malformed("its header is longer than allowed");
        }
        let mut header = vec![0; length];
        file.read_exact(&mut header)?;
        let header = postcard::from_bytes(&header).or_else(|_| malformed("its header cannot be read"))?;
        Ok(Self {
            file,
            records_at: 9 + length as u64,
            records_end: end,
            header,
            id: id(hash.as_bytes()),
        })
    }

    /// The point that the body brings, if it is a patch.
    pub(super) fn point(&self) -> Result<Point, WireError> {
        match &self.header {
            Header::Patch {
                role,
                epoch,
                sequence,
                parent,
                source_time_ms,
            } => Ok(Point {
                id: self.id,
                role: role.clone(),
                epoch: *epoch,
                sequence: *sequence,
                parent: *parent,
                source_time_ms: *source_time_ms,
            }),
            Header::Manifest { .. } => malformed("it is a manifest, not a point"),
        }
    }

    /// The file that the body is in.
    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// The records from the first on.
    pub(super) fn records(&self) -> Result<Records, WireError> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(self.records_at))?;
        let mut decoder = zstd::stream::read::Decoder::new(file.take(self.records_end - self.records_at))?;
        decoder.window_log_max(23)?;
        Ok(Records {
            input: BufReader::with_capacity(64 << 10, Box::new(decoder)),
            seen: 0,
            ended: false,
            payload: Vec::new(),
        })
    }

    /// Reads every record and says how many bytes the patch writes, at most.
    pub(super) fn check(&self) -> Result<u64, WireError> {
        let mut order = Order::default();
        let mut records = self.records()?;
        while let Some(record) = records.next()? {
            order.check(&record)?;
        }
        Ok(order.bytes)
    }
}

/// The records of a body, one after the other.
pub(super) struct Records {
    input: BufReader<Box<dyn Read>>,
    seen: u64,
    ended: bool,
    /// The payload of the record that was read last.
    pub(super) payload: Vec<u8>,
}

impl Records {
    /// The next record, `None` after the last. A body without its end is an error.
    pub(super) fn next(&mut self) -> Result<Option<Record>, WireError> {
        if self.ended {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.input.read_exact(&mut length).map_err(cut)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > RECORD_MAX {
            return malformed("a record is longer than allowed");
        }
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes).map_err(cut)?;
        let record: Record = postcard::from_bytes(&bytes).or_else(|_| malformed("a record cannot be read"))?;
        self.payload.resize(record.payload()?, 0);
        self.input.read_exact(&mut self.payload).map_err(cut)?;
        if let Record::End { records } = record {
            if records != self.seen {
                return malformed("records are missing");
            }
            self.ended = true;
            return Ok(None);
        }
        self.seen += 1;
        Ok(Some(record))
    }

    /// The payload of `Hashes`.
    pub(super) fn hashes(&self) -> impl Iterator<Item = Hash> {
        self.payload.chunks_exact(size_of::<Hash>()).map(|chunk| {
            let mut hash = ZERO;
            hash.copy_from_slice(chunk);
            hash
        })
    }
}

fn cut(error: io::Error) -> WireError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => WireError::Damaged("its records end too early"),
        _ => WireError::Malformed(format!("its records cannot be unpacked: {error}")),
    }
}
