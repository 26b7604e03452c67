//! Amounts of a resource, such as `0.5` of a processor or `64Mi` of memory: an API server writes each in one way, whatever way it was
//! given, so what was applied is not what is read back.

use serde_json::Value;

/// The fields that hold amounts: maps of them by resource, and single ones.
const MAPS: &[&str] = &["limits", "requests", "hard", "overhead", "capacity"];
const SINGLE: &[&str] = &["sizeLimit", "divisor"];

/// How many of the smallest unit a suffix stands for. That unit is a nano.
const SUFFIXES: &[(&str, i128)] = &[
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("k", 1_000 * UNIT),
    ("M", 1_000_000 * UNIT),
    ("G", 1_000_000_000 * UNIT),
    ("T", 1_000_000_000_000 * UNIT),
    ("P", 1_000_000_000_000_000 * UNIT),
    ("E", 1_000_000_000_000_000_000 * UNIT),
    ("Ki", UNIT << 10),
    ("Mi", UNIT << 20),
    ("Gi", UNIT << 30),
    ("Ti", UNIT << 40),
    ("Pi", UNIT << 50),
    ("Ei", UNIT << 60),
];

const UNIT: i128 = 1_000_000_000;

/// Whether both values of a field are the same amount. `path` is the field's, such as `spec.resources.requests.storage`.
pub(super) fn same(path: &str, one: &Value, other: &Value) -> bool {
    let mut names = path.rsplit('.');
    let (last, before) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    let amounts = MAPS.contains(&before) || SINGLE.contains(&last);
    amounts && parse(one).is_some_and(|one| parse(other) == Some(one))
}

/// An amount in nanos, rounded up as the API does; none when it is none, or too large to be counted so.
fn parse(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (exponent, factor) = match suffix.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty()) {
        Some(exponent) => (exponent.parse::<i32>().ok()?, UNIT),
        None if suffix.is_empty() => (0, UNIT),
        None => (0, SUFFIXES.iter().find(|(known, _)| *known == suffix)?.1),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let all: i128 = format!("{}{fraction}", whole.trim_start_matches(['+', '-']))
        .parse()
        .ok()?;
    let places = exponent - i32::try_from(fraction.len()).ok()?;
    let scale = 10_i128.checked_pow(places.unsigned_abs())?;
    let nanos = match places {
        0.. => all.checked_mul(factor)?.checked_mul(scale)?,
        _ => all.checked_mul(factor)?.checked_add(scale - 1)? / scale,
    };
    Some(if negative { -nanos } else { nanos })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_amount_is_the_same_however_it_is_written() {
        let path = "spec.template.spec.containers[0].resources.limits.cpu";
        for (one, other, is) in [
            (json!("0.5"), json!("500m"), true),
            (json!(1), json!("1"), true),
            (json!("1024Mi"), json!("1Gi"), true),
            (json!("1e3"), json!("1k"), true),
            (json!("1E"), json!("1000P"), true),
            (json!("0.1n"), json!("1n"), true),
            (json!("500m"), json!("501m"), false),
            (json!("1Gi"), json!("1G"), false),
            (json!("much"), json!("much more"), false),
            (json!("999999999999999999999999999999999999999E"), json!("1"), false),
        ] {
            assert_eq!(same(path, &one, &other), is, "{one} {other}");
        }
    }

    #[test]
    fn other_fields_hold_no_amounts() {
        assert!(!same("data.cpu", &json!("0.5"), &json!("500m")));
        assert!(!same("spec.replicas", &json!(1), &json!("1")));
        assert!(same(
            "spec.volumes[0].emptyDir.sizeLimit",
            &json!("1Ki"),
            &json!("1024")
        ));
    }
}
