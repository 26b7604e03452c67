//! Watches the bytes of HTTP/1 requests and refuses those that two servers could take apart differently.
//!
//! hyper reads a request with both Content-Length and Transfer-Encoding by the latter and drops the former, which RFC
//! 9112 (section 6.1) allows; but such a request is an attempt at smuggling far more often than a mistake, and once
//! parsed it can no longer be told from others. So the framing is followed here, below the parser, and the end of the
//! head of such a request is spoilt: the parser then answers 400 and closes, as for any malformed head.
//!
//! Whatever this module does not understand it stops watching; the parser refuses it by its own rules.

/// A line longer than this is beyond the parser's limit too.
const LONGEST_LINE: usize = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Ignore,
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    /// The part of the current line that came with earlier reads.
    line: Vec<u8>,
    in_fields: bool,
    length: Option<u64>,
    encoded: bool,
}

impl Framing {
    pub(super) fn new() -> Self {
        Self {
            state: State::Head,
            line: Vec::new(),
            in_fields: false,
            length: None,
            encoded: false,
        }
    }

    /// Looks at the next bytes of the connection and spoils the end of a head that must be refused.
    pub(super) fn watch(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let left = bytes.len() - at;
            match &mut self.state {
                State::Ignore => return,
                State::Body(n) | State::ChunkData(n) => {
                    let step = usize::try_from(*n).unwrap_or(usize::MAX).min(left);
                    at += step;
                    *n -= step as u64;
                    if *n == 0 {
                        self.state = match self.state {
                            State::Body(_) => State::Head,
                            _ => State::ChunkEnd,
                        };
                    }
                }
                State::Head | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    let Some(length) = bytes[at..].iter().position(|b| *b == b'\n') else {
                        self.line.extend_from_slice(&bytes[at..]);
                        if self.line.len() > LONGEST_LINE {
                            self.state = State::Ignore;
                        }
                        return;
                    };
                    let end = at + length;
                    let spoil = if self.line.is_empty() {
                        self.line_ended(&bytes[at..end])
                    } else {
                        let mut line = std::mem::take(&mut self.line);
                        line.extend_from_slice(&bytes[at..end]);
                        let spoil = self.line_ended(&line);
                        line.clear();
                        self.line = line;
                        spoil
                    };
                    if spoil {
                        bytes[end] = 0;
                    }
                    at = end + 1;
                }
            }
        }
    }

    /// Takes in a line without its end; whether it ends a head that must be refused.
    fn line_ended(&mut self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.state {
            State::Head if !line.is_empty() => self.head_line(line),
            State::Head if self.in_fields => return self.head_ended(),
            State::ChunkSize => {
                self.state = match chunk_size(line) {
                    None => State::Ignore,
                    Some(0) => State::Trailers,
                    Some(n) => State::ChunkData(n),
                }
            }
            State::ChunkEnd if line.is_empty() => self.state = State::ChunkSize,
            State::ChunkEnd => self.state = State::Ignore,
            State::Trailers if line.is_empty() => self.state = State::Head,
            // Empty lines before a request line are passed over (RFC 9112, section 2.2).
            _ => {}
        }
        false
    }

    fn head_line(&mut self, line: &[u8]) {
        if !std::mem::replace(&mut self.in_fields, true) {
            return; // The request line.
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            // A length that is no number is refused by the parser, unless the request is encoded too.
            let length = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
            self.length = Some(length.unwrap_or(u64::MAX));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = true;
        }
    }

    fn head_ended(&mut self) -> bool {
        self.in_fields = false;
        let (length, encoded) = (self.length.take(), std::mem::take(&mut self.encoded));
        let spoil = length.is_some() && encoded;
        self.state = match length {
            _ if spoil => State::Ignore,
            _ if encoded => State::ChunkSize,
            Some(n) if n > 0 => State::Body(n),
            _ => State::Head,
        };
        spoil
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|b| *b == b';').next()?.trim_ascii_end();
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMUGGLED: &str =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    const SMUGGLED_BARE: &str = "POST / HTTP/1.1\nHost: a\ntransfer-encoding:chunked\ncontent-length:x\n\n0\r\n\r\n";
    const GOOD: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n\
        Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1234567890\
        POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
        1A; x=y\r\nabcdefghijklmnopqrstuvwx\r\n\r\n0\r\nTrailer: 1\r\n\r\n\
        \r\nPUT /3 HTTP/1.1\r\nContent-Length: 0\r\n\r\n";

    /// Feeds text in pieces of the given lengths; whether anything was spoilt, and what the parser would get.
    fn feed(text: &str, cuts: &[usize]) -> (bool, Vec<u8>, Framing) {
        let (mut framing, mut out) = (Framing::new(), Vec::new());
        let (mut rest, mut cuts) = (text.as_bytes().to_vec(), cuts.iter().cycle());
        while !rest.is_empty() {
            let n = (*cuts.next().unwrap()).clamp(1, rest.len());
            let mut piece: Vec<u8> = rest.drain(..n).collect();
            framing.watch(&mut piece);
            out.extend(piece);
        }
        (out != text.as_bytes(), out, framing)
    }

    proptest! {
        #[test]
        fn a_request_with_both_framings_is_spoilt_at_the_end_of_its_head_however_it_is_cut(
            cuts in prop::collection::vec(1usize..40, 1..8), before in any::<bool>(), bare in any::<bool>(),
        ) {
            let bad = if bare { SMUGGLED_BARE } else { SMUGGLED };
            let text = format!("{}{bad}", if before { GOOD } else { "" });
            let (spoilt, out, _) = feed(&text, &cuts);
            prop_assert!(spoilt);
            let end = text.rfind(if bare { "\n\n" } else { "\r\n\r\n0" }).unwrap() + if bare { 1 } else { 3 };
            prop_assert_eq!(out[end], 0);
        }

        #[test]
        fn good_requests_pass_unchanged_and_are_followed_to_their_ends(cuts in prop::collection::vec(1usize..40, 1..8)) {
            let (spoilt, _, framing) = feed(GOOD, &cuts);
            prop_assert!(!spoilt);
            prop_assert_eq!(framing.state, State::Head);
            prop_assert!(!framing.in_fields);
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            Framing::new().watch(&mut bytes);
        }
    }

    #[test]
    fn what_is_not_understood_is_left_to_the_parser() {
        let bad = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nContent-Length: 1\r\nTransfer-Encoding: x\r\n\r\n";
        let (spoilt, _, framing) = feed(bad, &[1000]);
        assert!(!spoilt);
        assert_eq!(framing.state, State::Ignore);
    }
}
