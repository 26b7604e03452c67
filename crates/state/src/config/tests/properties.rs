use proptest::prelude::*;

use super::plan::plan_at;
use super::*;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any_key(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("clusterIP"),
        Just("ports"),
        Just("nodePort"),
        Just("volumeName"),
        Just("replicas"),
        Just("template"),
        Just("spec"),
        Just("metadata"),
        Just("annotations"),
        Just("labels"),
        Just("leeward.dev/replicas"),
        Just("leeward.dev/app"),
        Just("name"),
        Just("volumeClaimTemplates"),
        Just("finalizers"),
        Just("data"),
    ]
    .prop_map(ToOwned::to_owned)
}

fn any_object() -> impl Strategy<Value = Value> {
    (0..Kind::ALL.len(), any_json(), any_json(), any_json()).prop_map(|(kind, metadata, spec, data)| {
        let kind = Kind::ALL[kind];
        let mut object = json!({
            "apiVersion": kind.api_version(), "kind": kind.as_str(),
            "metadata": { "annotations": { "leeward.dev/replicas": "2" } }, "spec": spec, "data": data,
        });
        json_patch::merge(&mut object["metadata"], &metadata);
        object
    })
}

proptest! {
    #[test]
    fn cleaning_twice_changes_nothing_and_never_panics(object in any_object(), junk in any_json()) {
        let once = clean(&object);
        prop_assert_eq!(clean(&once), once);
        clean(&junk);
        references(&object);
    }

    #[test]
    fn an_applied_plan_leaves_nothing_to_do(mut objects in prop::collection::vec(any_object(), 0..6), at_home in any::<bool>()) {
        for (index, object) in objects.iter_mut().enumerate() {
            if !object["metadata"].is_object() {
                object["metadata"] = json!({});
            }
            object["metadata"]["name"] = format!("o{index}").into();
        }
        objects = objects.iter().map(clean).collect();
        objects.push(deployment(2));
        let place = if at_home { "west" } else { "east" };
        let bundle = bundle(if place == "west" { "east" } else { "west" }, objects);
        let here = after(&plan_at(place, &bundle, &[]), &[]);
        prop_assert_eq!(plan_at(place, &bundle, &here), []);
    }
}
