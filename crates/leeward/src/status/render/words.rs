//! Times, numbers and tables as a person reads them.

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use leeward_api::Duration;
use leeward_core::name::Epoch;

/// What stands where nothing is known.
pub(super) const NONE: &str = "-";

/// A table in columns without lines, as kubectl writes them; each line of it, with a line's end.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt() + "\n"
}

/// A duration for a person: `850 ms`, `3 s`, `12.3 s`, `4 min 5 s`.
pub(crate) fn seconds(duration: std::time::Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        ms @ 1000..60_000 if ms % 1000 < 100 => format!("{} s", ms / 1000),
        ms @ 1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        ms => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// How long ago something was, in the largest unit: `5s`, `4m`, `3h`, `2d`.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    match now.duration_since(then).as_secs().max(0) {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

pub(super) fn epoch(number: Option<u64>) -> String {
    number.map_or(NONE.into(), |number| Epoch(number).readable())
}

pub(super) fn number(number: Option<u64>) -> String {
    number.map_or(NONE.into(), |number| number.to_string())
}

pub(super) fn duration(duration: Option<Duration>) -> String {
    duration.map_or(NONE.into(), |duration| seconds(duration.into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::samples::time;

    #[test]
    fn durations_are_written_for_people() {
        let cases = [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (12_349, "12.3 s"),
            (60_000, "1 min 0 s"),
            (245_900, "4 min 5 s"),
        ];
        for (ms, text) in cases {
            assert_eq!(seconds(Duration::from_millis(ms)), text);
        }
        let cases = [
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (7200, "2h"),
            (172_800, "2d"),
            (-3, "0s"),
        ];
        for (s, text) in cases {
            assert_eq!(ago(time(0), time(s)), text);
        }
    }
}
