//! How long ago something was, as kubectl writes it: two units at most, the finer one only while it matters.

use jiff::Timestamp;

/// The time from `then` to `now`, both RFC 3339, such as `5m10s`; `<unknown>` where one is not a time.
pub fn between(then: &str, now: &str) -> String {
    match (then.parse::<Timestamp>(), now.parse::<Timestamp>()) {
        (Ok(then), Ok(now)) => seconds(now.as_second() - then.as_second()),
        _ => "<unknown>".into(),
    }
}

/// A number of seconds, such as `5m10s`.
pub fn seconds(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |count: i64, unit: char, rest: i64, smaller: char| match rest {
        0 => format!("{count}{unit}"),
        _ => format!("{count}{unit}{rest}{smaller}"),
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_writes_them() {
        for (duration, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (310, "5m10s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (176_400, "2d1h"),
            (700_000, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (300_000_000, "9y"),
        ] {
            assert_eq!(seconds(duration), text);
        }
        assert_eq!(between("2026-01-01T00:00:00Z", "2026-01-01T00:01:00.5Z"), "60s");
        assert_eq!(between("", "2026-01-01T00:00:00Z"), "<unknown>");
    }
}
