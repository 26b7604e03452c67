//! One record of the sample's log: a short line of text, which a person can read with `cat`.
//!
//! `CLIENT N EPOCH CLUSTER MICROS CRC\n`: the client's name and its number for the write, the epoch and the cluster that wrote it,
//! the writer's wall clock in microseconds, and the CRC-32 of everything before it in hexadecimal. A line that is cut short or
//! damaged fails its CRC; [`read`] tells a torn tail, which a crash leaves, from damage in the middle, which it never does.

use std::fmt;

/// A write as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Who wrote it.
    pub(crate) client: String,
    /// The client's number for it.
    pub(crate) n: u64,
    /// The epoch that the writer held.
    pub(crate) epoch: u64,
    /// The writer's cluster.
    pub(crate) cluster: String,
    /// The writer's wall clock, microseconds since 1970.
    pub(crate) micros: u64,
    /// Where the line begins in the log, in bytes. Not part of the line.
    pub(crate) offset: u64,
}

/// Why a name cannot stand in a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a name has 1 to 63 letters, digits, `-`, `_` or `.`")]
pub(crate) struct NotAWord;

/// Refuses a name that could not be read back from a line.
pub(crate) fn check_word(word: &str) -> Result<(), NotAWord> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=63).contains(&word.len()) && word.bytes().all(fits) {
        Ok(())
    } else {
        Err(NotAWord)
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

impl fmt::Display for Record {
    /// The line, its end included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = format!(
            "{} {} {} {} {}",
            self.client, self.n, self.epoch, self.cluster, self.micros
        );
        writeln!(f, "{body} {:08x}", crc(body.as_bytes()))
    }
}

impl Record {
    /// Reads one line, without its end. None when it is damaged.
    pub(crate) fn parse(line: &[u8], offset: u64) -> Option<Self> {
        let (body, sum) = line.split_at_checked(line.len().checked_sub(9)?)?;
        let sum = std::str::from_utf8(sum.strip_prefix(b" ")?).ok()?;
        if u32::from_str_radix(sum, 16).ok()? != crc(body) {
            return None;
        }
        let mut words = std::str::from_utf8(body).ok()?.split(' ');
        let client = words.next()?.to_owned();
        let n = words.next()?.parse().ok()?;
        let epoch = words.next()?.parse().ok()?;
        let cluster = words.next()?.to_owned();
        let micros = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Self {
            client,
            n,
            epoch,
            cluster,
            micros,
            offset,
        })
    }
}

/// What a log's bytes hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The whole records, in their order.
    pub(crate) records: Vec<Record>,
    /// Bytes up to the end of the last whole record.
    pub(crate) length: u64,
    /// Bytes after that: the torn tail.
    pub(crate) torn: u64,
}

/// A log that is damaged before its end, which no crash explains.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the log is damaged at byte {offset}, before its end, which no crash explains: nothing was changed. \
     Restore the volume from a point, or move the log away to begin an empty one"
)]
pub(crate) struct Damaged {
    /// Where the damaged line begins.
    pub(crate) offset: u64,
}

/// Reads a log's bytes. Everything from the first damaged line on is the torn tail, unless a whole record follows it.
///
/// # Errors
/// [`Damaged`] when a whole record stands after a damaged line: cutting there would lose writes that were acknowledged.
pub(crate) fn read(bytes: &[u8]) -> Result<Contents, Damaged> {
    let mut contents = Contents::default();
    let mut offset = 0_u64;
    let mut damaged = None;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let record = line.strip_suffix(b"\n").and_then(|line| Record::parse(line, offset));
        offset += line.len() as u64;
        match (record, damaged) {
            (Some(_), Some(offset)) => return Err(Damaged { offset }),
            (Some(record), None) => {
                contents.records.push(record);
                contents.length = offset;
            }
            (None, _) => damaged = damaged.or(Some(contents.length)),
        }
    }
    contents.torn = offset - contents.length;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(n: u64) -> Record {
        Record {
            client: "demo".into(),
            n,
            epoch: 3,
            cluster: "west".into(),
            micros: 1_795_358_862_000_000,
            offset: 0,
        }
    }

    fn log(count: u64) -> Vec<u8> {
        (0..count).flat_map(|n| record(n).to_string().into_bytes()).collect()
    }

    #[test]
    fn a_record_is_one_short_line() {
        let line = record(100_000).to_string();
        assert!((40..=64).contains(&line.len()), "{line}");
        assert!(
            line.starts_with("demo 100000 3 west 1795358862000000 ") && line.ends_with('\n'),
            "{line}"
        );
    }

    #[test]
    fn names_that_would_break_a_line_are_refused() {
        for bad in ["", "a b", "a\nb", "é", &"x".repeat(64)] {
            assert_eq!(check_word(bad), Err(NotAWord), "{bad:?}");
        }
        assert_eq!(check_word("west-1.a_b"), Ok(()));
    }

    #[test]
    fn damage_before_the_end_is_never_cut_off() {
        let mut bytes = log(3);
        let second = record(0).to_string().len();
        bytes[second + 2] ^= 1;
        assert_eq!(read(&bytes), Err(Damaged { offset: second as u64 }));
    }

    #[test]
    fn an_empty_log_holds_nothing() {
        assert_eq!(read(b""), Ok(Contents::default()));
    }

    proptest! {
        #[test]
        fn a_log_cut_anywhere_keeps_every_whole_record(count in 1_u64..20, cut in 0_usize..2_000) {
            let bytes = log(count);
            let cut = cut.min(bytes.len());
            let got = read(&bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(got.records.len(), whole);
            prop_assert_eq!(got.length + got.torn, cut as u64);
            for record in &got.records {
                prop_assert!(bytes[record.offset as usize..].starts_with(record.to_string().as_bytes()));
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_flipped_bit_in_a_line_is_seen(bit in 0_usize..300) {
            let line = record(7).to_string();
            let mut bytes = line.clone().into_bytes();
            let bit = bit % (8 * (bytes.len() - 1));
            bytes[bit / 8] ^= 1 << (bit % 8);
            // An upper-case hexadecimal digit of the sum reads the same; every other flip must be refused.
            let same = String::from_utf8(bytes.clone()).is_ok_and(|text| text.to_lowercase() == line);
            prop_assert!(same || Record::parse(&bytes[..bytes.len() - 1], 0).is_none());
        }
    }
}
