//! Amounts of a resource, such as `0.5` of a processor or `64Mi` of memory: an API server writes each in one way, whatever way it was
//! given, so what was applied is not what is read back.

use leeward_core::quantity::Amount;
use serde_json::Value;

/// The fields that hold amounts: maps of them by resource, and single ones.
const MAPS: &[&str] = &["limits", "requests", "hard", "overhead", "capacity"];
const SINGLE: &[&str] = &["sizeLimit", "divisor"];

/// Whether both values of a field are the same amount. `path` is the field's, such as `spec.resources.requests.storage`.
pub(super) fn same(path: &str, one: &Value, other: &Value) -> bool {
    let mut names = path.rsplit('.');
    let (last, before) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    let amounts = MAPS.contains(&before) || SINGLE.contains(&last);
    amounts && parse(one).is_some_and(|one| parse(other) == Some(one))
}

fn parse(value: &Value) -> Option<Amount> {
    match value {
        Value::String(text) => Amount::parse(text),
        Value::Number(number) => Amount::parse(&number.to_string()),
        _ => None,
    }
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
