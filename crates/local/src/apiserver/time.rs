//! The wall clock in the forms that objects carry.

use jiff::{SignedDuration, Timestamp};

/// Now, in whole seconds, as `metadata.creationTimestamp` has it.
pub(crate) fn now() -> String {
    text(Timestamp::now())
}

/// Now and `seconds` more.
pub(crate) fn in_seconds(seconds: u64) -> String {
    let ahead = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    text(Timestamp::now().checked_add(ahead).unwrap_or(Timestamp::MAX))
}

fn text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Seconds since the time that a text gives; `None` when it gives none.
pub(crate) fn age_seconds(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().ok()?;
    Some(Timestamp::now().duration_since(time).as_secs())
}
