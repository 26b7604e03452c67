//! What is wrong with a time, in the words of Go's `time.Parse`.

use jiff::Timestamp;

/// The message for a text that is no time of the layout; none for one that is.
pub(super) fn wrong(text: &str, layout: &str) -> Option<String> {
    if text.parse::<Timestamp>().is_ok() {
        return None;
    }
    let (rest, element) = first_mismatch(text).unwrap_or((text, "2006"));
    Some(format!(
        "parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"
    ))
}

/// What is left where the text stops to be like a time, and the part of the layout that it should be.
fn first_mismatch(text: &str) -> Option<(&str, &'static str)> {
    const ELEMENTS: [&str; 11] = ["2006", "-", "01", "-", "02", "T", "15", ":", "04", ":", "05"];
    let mut rest = text;
    for element in ELEMENTS {
        let digits = element.bytes().all(|byte| byte.is_ascii_digit());
        let fits = match rest.get(..element.len()) {
            Some(part) if digits => part.bytes().all(|byte| byte.is_ascii_digit()),
            Some(part) => part == element,
            None => false,
        };
        if !fits {
            return Some((rest, element));
        }
        rest = &rest[element.len()..];
    }
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    Some((zone, "Z07:00"))
}

#[cfg(test)]
mod tests {
    use super::wrong;

    #[test]
    fn the_place_where_a_time_ends_to_be_one_is_named() {
        let layout = "2006-01-02T15:04:05Z07:00";
        assert_eq!(wrong("2026-01-02T03:04:05Z", layout), None);
        assert_eq!(wrong("2026-01-02T03:04:05.123456+01:00", layout), None);
        for (text, end) in [
            ("x", "cannot parse \"x\" as \"2006\""),
            ("2026/01", "cannot parse \"/01\" as \"-\""),
            ("2026-01-02", "cannot parse \"\" as \"T\""),
            ("2026-01-02T03:04:05", "cannot parse \"\" as \"Z07:00\""),
        ] {
            assert!(wrong(text, layout).unwrap().ends_with(end), "{text}");
        }
    }
}
