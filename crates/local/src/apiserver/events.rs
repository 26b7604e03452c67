//! Events have two groups over one table: `v1` and `events.k8s.io/v1` name the same fields otherwise. Pure.

use serde_json::Value;

/// Field of `v1`, field of `events.k8s.io/v1`.
const NAMES: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("source", "deprecatedSource"),
];
const CONTROLLER: (&str, &str) = ("reportingComponent", "reportingController");

/// The event as `api_version` has it.
pub(crate) fn convert(event: &Value, api_version: &str) -> Value {
    let mut event = event.clone();
    let to_core = api_version == "v1";
    if let Some(fields) = event.as_object_mut() {
        for (core, new) in NAMES.into_iter().chain([CONTROLLER]) {
            let (from, to) = if to_core { (new, core) } else { (core, new) };
            if let Some(value) = fields.remove(from) {
                fields.insert(to.into(), value);
            }
        }
        fields.insert("apiVersion".into(), api_version.into());
    }
    event
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn an_event_is_the_same_there_and_back() {
        let core =
            json!({"apiVersion": "v1", "kind": "Event", "message": "m", "involvedObject": {"name": "x"}, "count": 2});
        let new = super::convert(&core, "events.k8s.io/v1");
        assert_eq!(new["note"], "m");
        assert_eq!(new["regarding"]["name"], "x");
        assert_eq!(super::convert(&new, "v1"), core);
    }
}
