//! SPDY/3.1, as much as kubectl's port-forward speaks: frames from and to bytes. Pure.
//!
//! kubectl opens two streams for each connection, sends data, half-closes, resets and pings; it knows no flow control. Whatever
//! bytes come, [`Decoder`] gives frames, asks for more or fails; it never holds more than a control frame of [`MAX_CONTROL`].

mod dictionary;

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};

/// The longest control frame that is taken, and the longest header block that one may unfold to.
const MAX_CONTROL: usize = 64 << 10;
/// The largest payload of one frame of data.
pub(crate) const MAX_DATA: usize = 32 << 10;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;

/// What a peer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A new stream.
    Open {
        stream: u32,
        headers: Vec<(String, String)>,
        /// The peer will send nothing on it.
        end: bool,
    },
    /// Bytes of a stream; a long frame comes in parts, of which the last has the end.
    Data { stream: u32, bytes: Bytes, end: bool },
    /// The peer gave the stream up.
    Reset { stream: u32 },
    /// To be sent back as it is.
    Ping { id: u32 },
    /// The peer ends the connection.
    GoAway,
}

/// Bytes that are not SPDY/3.1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not SPDY/3.1: {0}")]
pub(crate) struct Malformed(&'static str);

/// Frames out of a stream of bytes.
pub(crate) struct Decoder {
    pending: bytes::BytesMut,
    headers: Decompress,
    dictionary: Vec<u8>,
    /// What is still to come of a frame of data: its stream, whether it is the last, and how much.
    data: Option<(u32, bool, usize)>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            pending: bytes::BytesMut::new(),
            headers: Decompress::new(true),
            dictionary: dictionary::dictionary(),
            data: None,
        }
    }

    /// Takes in what came.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next frame; none until more bytes came.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        loop {
            if let Some((stream, end, left)) = self.data {
                let part = left.min(self.pending.len());
                if part == 0 && left > 0 {
                    return Ok(None);
                }
                self.data = (part < left).then_some((stream, end, left - part));
                let bytes = self.pending.split_to(part).freeze();
                let end = end && part == left;
                return Ok(Some(Frame::Data { stream, bytes, end }));
            }
            let Some(head) = self.pending.get(..8) else {
                return Ok(None);
            };
            let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
            let (first, second) = (word(0), word(4));
            let (flags, length) = (head[4], (second & 0x00ff_ffff) as usize);
            if first >> 31 == 0 {
                let _ = self.pending.split_to(8);
                self.data = Some((first, flags & FIN != 0, length));
                continue;
            }
            if (first >> 16) as u16 & 0x7fff != VERSION {
                return Err(Malformed("a frame of another version"));
            }
            if length > MAX_CONTROL {
                return Err(Malformed("a control frame that is too long"));
            }
            if self.pending.len() < 8 + length {
                return Ok(None);
            }
            let frame = self.pending.split_to(8 + length).freeze();
            if let Some(frame) = self.control(first as u16, flags, &frame[8..])? {
                return Ok(Some(frame));
            }
        }
    }

    /// A whole control frame; none for one that asks for nothing.
    fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Option<Frame>, Malformed> {
        let stream = || Ok(word(payload, 0).ok_or(Malformed("a control frame that is too short"))? & 0x7fff_ffff);
        Ok(Some(match kind {
            SYN_STREAM => {
                let stream = stream()?;
                let block = payload.get(10..).ok_or(Malformed("a SYN_STREAM that is too short"))?;
                let headers = headers(&self.inflate(block)?).ok_or(Malformed("a header block that does not add up"))?;
                Frame::Open {
                    stream,
                    headers,
                    end: flags & FIN != 0,
                }
            }
            RST_STREAM => Frame::Reset { stream: stream()? },
            PING => Frame::Ping {
                id: word(payload, 0).ok_or(Malformed("a PING that is too short"))?,
            },
            GOAWAY => Frame::GoAway,
            _ => return Ok(None),
        }))
    }

    /// A header block, which goes on where the one before ended.
    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        let mut room = vec![0; 4 << 10];
        loop {
            let (read, written) = (self.headers.total_in(), self.headers.total_out());
            let step = self.headers.decompress(block, &mut room, FlushDecompress::Sync);
            let used = usize::try_from(self.headers.total_in() - read).unwrap_or(usize::MAX);
            let made = usize::try_from(self.headers.total_out() - written).unwrap_or(usize::MAX);
            block = block.get(used..).unwrap_or_default();
            out.extend_from_slice(room.get(..made).unwrap_or_default());
            if out.len() > MAX_CONTROL {
                return Err(Malformed("a header block that is too long"));
            }
            match step {
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.headers.set_dictionary(&self.dictionary);
                    set.map_err(|_| Malformed("headers with another dictionary"))?;
                }
                Err(_) => return Err(Malformed("a header block that cannot be decompressed")),
                Ok(Status::StreamEnd) => return Err(Malformed("headers that end")),
                Ok(_) if used == 0 && made == 0 || block.is_empty() && made < room.len() => return Ok(out),
                Ok(_) => {}
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn headers(block: &[u8]) -> Option<Vec<(String, String)>> {
    let mut at = 4;
    let mut text = || {
        let length = usize::try_from(word(block, at)?).ok()?;
        let begin = at + 4;
        at = begin.checked_add(length)?;
        Some(String::from_utf8_lossy(block.get(begin..at)?).into_owned())
    };
    // Each takes eight bytes at least, so that a large number fails early.
    (0..word(block, 0)?).map(|_| Some((text()?, text()?))).collect()
}

fn control(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(8 + payload.len());
    frame.extend((0x8000 | VERSION).to_be_bytes());
    frame.extend(kind.to_be_bytes());
    frame.extend(u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
    frame.extend(payload);
    frame
}

/// Accepts a stream, without headers. The first on a connection begins the compression of headers, in which all are one:
/// a block of four zero bytes, stored as they are, and an empty one, which has the other side look at them.
pub(crate) fn reply(stream: u32, first: bool) -> Vec<u8> {
    let mut payload = stream.to_be_bytes().to_vec();
    if first {
        payload.extend([0x78, 0x01]);
    }
    payload.extend([0x00, 0x04, 0x00, 0xfb, 0xff, 0, 0, 0, 0]);
    payload.extend([0x00, 0x00, 0x00, 0xff, 0xff]);
    control(SYN_REPLY, &payload)
}

/// Bytes of a stream, at most [`MAX_DATA`].
pub(crate) fn data(stream: u32, bytes: &[u8], end: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(8 + bytes.len());
    frame.extend(stream.to_be_bytes());
    let length = u32::try_from(bytes.len()).unwrap_or(0) & 0x00ff_ffff;
    frame.extend((u32::from(u8::from(end) * FIN) << 24 | length).to_be_bytes());
    frame.extend(bytes);
    frame
}

/// Gives a stream up, as one that was refused.
pub(crate) fn reset(stream: u32) -> Vec<u8> {
    let refused = 3_u32;
    control(RST_STREAM, &[stream.to_be_bytes(), refused.to_be_bytes()].concat())
}

/// Answers a ping.
pub(crate) fn ping(id: u32) -> Vec<u8> {
    control(PING, &id.to_be_bytes())
}

#[cfg(test)]
mod tests;
