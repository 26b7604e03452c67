use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::*;

/// The sending side, as kubectl has it.
struct Sender(Compress);

impl Sender {
    fn new() -> Self {
        let mut compress = Compress::new(Compression::best(), true);
        compress.set_dictionary(&dictionary::dictionary()).unwrap();
        Self(compress)
    }

    fn open(&mut self, stream: u32, headers: &[(&str, &str)], end: bool) -> Vec<u8> {
        let mut block = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            block.extend(text.bytes());
        }
        let mut packed = Vec::with_capacity(block.len() + 100);
        self.0.compress_vec(&block, &mut packed, FlushCompress::Sync).unwrap();
        let mut frame = control(SYN_STREAM, &[&stream.to_be_bytes()[..], &[0; 6], &packed].concat());
        frame[4] = u8::from(end);
        frame
    }
}

fn all(decoder: &mut Decoder) -> Result<Vec<Frame>, Malformed> {
    std::iter::from_fn(|| decoder.next().transpose()).collect()
}

#[test]
fn streams_open_carry_and_end() {
    let mut sender = Sender::new();
    let mut bytes = sender.open(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")], true);
    bytes.extend(sender.open(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")], false));
    bytes.extend(data(3, b"hello", false));
    bytes.extend(ping(7));
    bytes.extend(control(4, &[0; 4]));
    bytes.extend(data(3, b"", true));
    bytes.extend(reset(3));
    bytes.extend(control(GOAWAY, &[0; 8]));
    let pairs = |kind: &str| {
        [("streamtype", kind), ("port", "80"), ("requestid", "0")].map(|(name, value)| (name.into(), value.into()))
    };
    let open = |stream, kind, end| Frame::Open {
        stream,
        headers: pairs(kind).to_vec(),
        end,
    };
    let wanted = vec![
        open(1, "error", true),
        open(3, "data", false),
        Frame::Data {
            stream: 3,
            bytes: Bytes::from_static(b"hello"),
            end: false,
        },
        Frame::Ping { id: 7 },
        Frame::Data {
            stream: 3,
            bytes: Bytes::new(),
            end: true,
        },
        Frame::Reset { stream: 3 },
        Frame::GoAway,
    ];
    let mut whole = Decoder::new();
    whole.feed(&bytes);
    assert_eq!(all(&mut whole).unwrap(), wanted);
    let mut bytewise = Decoder::new();
    let mut frames = Vec::new();
    for byte in bytes {
        bytewise.feed(&[byte]);
        frames.extend(all(&mut bytewise).unwrap());
    }
    let text: Vec<u8> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Data { bytes, .. } => Some(bytes.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(text, b"hello");
    frames.retain(|frame| !matches!(frame, Frame::Data { .. }));
    assert_eq!(frames.len(), 5);
}

#[test]
fn replies_are_header_blocks_without_headers() {
    let mut inflate = Decoder::new();
    for (stream, first) in [(1, true), (3, false), (5, false)] {
        let frame = reply(stream, first);
        assert_eq!(inflate.inflate(&frame[12..]).unwrap(), [0; 4]);
    }
}

#[test]
fn what_is_too_long_or_of_another_version_is_refused() {
    let mut decoder = Decoder::new();
    decoder.feed(&[0x80, 3, 0, 1, 0, 1, 0, 1]);
    assert!(decoder.next().is_err());
    let mut decoder = Decoder::new();
    decoder.feed(&[0x80, 2, 0, 1, 0, 0, 0, 1]);
    assert!(decoder.next().is_err());
    let mut decoder = Decoder::new();
    let long = "x".repeat(MAX_CONTROL);
    decoder.feed(&Sender::new().open(1, &[("a", &long)], false));
    assert!(decoder.next().is_err(), "a small block that unfolds to a large one");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u16..12) {
        let mut decoder = Decoder::new();
        decoder.feed(&control(kind, &bytes));
        decoder.feed(&bytes);
        let _ = all(&mut decoder);
    }

    #[test]
    fn a_changed_byte_does_no_harm(at in 0_usize..120, to in any::<u8>()) {
        let mut sender = Sender::new();
        let mut bytes = sender.open(1, &[("streamtype", "error"), ("port", "80")], true);
        bytes.extend(sender.open(3, &[("streamtype", "data"), ("port", "80")], false));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = to;
        }
        let mut decoder = Decoder::new();
        decoder.feed(&bytes);
        let _ = all(&mut decoder);
    }
}
