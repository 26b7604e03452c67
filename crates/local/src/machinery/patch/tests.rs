use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pod_template(spec: Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

fn patched(target: Value, patch: Value) -> Value {
    strategic(&target, &patch, "Deployment").unwrap()
}

#[test]
fn a_json_patch_that_does_not_fit_is_told_from_one_that_is_not_a_patch() {
    let target = json!({"a": 1});
    assert_eq!(
        json(&target, &json!([{"op": "replace", "path": "/a", "value": 2}])).unwrap(),
        json!({"a": 2})
    );
    let failed_test = json!([{"op": "test", "path": "/a", "value": 9}]);
    assert!(matches!(json(&target, &failed_test), Err(PatchError::DoesNotApply)));
    assert!(matches!(json(&target, &json!({"a": 1})), Err(PatchError::Malformed(_))));
}

#[test]
fn a_json_patch_is_as_lenient_as_kubernetes() {
    let target = json!({"a": {"b": 1}, "l": [1, 2, 3]});
    let cases = [
        (
            json!({"op": "replace", "path": "/a/new", "value": 2}),
            Some(json!({"a": {"b": 1, "new": 2}, "l": [1, 2, 3]})),
        ),
        (
            json!({"op": "add", "path": "/a/new"}),
            Some(json!({"a": {"b": 1, "new": null}, "l": [1, 2, 3]})),
        ),
        (json!({"op": "test", "path": "/a/new"}), Some(target.clone())),
        (
            json!({"op": "copy", "from": "/a/none", "path": "/c"}),
            Some(json!({"a": {"b": 1}, "l": [1, 2, 3], "c": null})),
        ),
        (
            json!({"op": "add", "path": "/l/-", "value": 4}),
            Some(json!({"a": {"b": 1}, "l": [1, 2, 3, 4]})),
        ),
        (
            json!({"op": "add", "path": "/l/-1", "value": 4}),
            Some(json!({"a": {"b": 1}, "l": [1, 2, 3, 4]})),
        ),
        (
            json!({"op": "remove", "path": "/l/-1"}),
            Some(json!({"a": {"b": 1}, "l": [1, 2]})),
        ),
        (json!({"op": "replace", "path": "/l/3", "value": 4}), None),
        (json!({"op": "add", "path": "/l/4", "value": 4}), None),
        (json!({"op": "add", "path": "/l/-5", "value": 4}), None),
        (json!({"op": "remove", "path": "/a/none"}), None),
        (json!({"op": "move", "from": "/a/none", "path": "/c"}), None),
        (json!({"op": "add", "path": "/none/x", "value": 1}), None),
        (json!({"op": "add", "path": "", "value": 1}), None),
        (json!({"op": "add", "path": "/a/b/c", "value": 1}), None),
        (json!({"op": "other", "path": "/a"}), None),
    ];
    for (operation, expected) in cases {
        assert_eq!(json(&target, &json!([operation])).ok(), expected, "{operation}");
    }
}

#[test]
fn kubectl_set_image_changes_one_container_and_keeps_the_others() {
    // What `kubectl set image deployment/web app=app:2` sends.
    let target = pod_template(json!({"containers": [
        {"name": "app", "image": "app:1", "env": [{"name": "A", "value": "1"}]}, {"name": "log", "image": "log:1"}]}));
    let patch = pod_template(json!({
        "$setElementOrder/containers": [{"name": "app"}, {"name": "log"}],
        "containers": [{"name": "app", "image": "app:2"}]}));
    assert_eq!(
        patched(target, patch),
        pod_template(json!({"containers": [
            {"name": "app", "image": "app:2", "env": [{"name": "A", "value": "1"}]}, {"name": "log", "image": "log:1"}]}))
    );
}

#[test]
fn kubectl_apply_removes_a_container_and_a_variable_by_directives() {
    let target = pod_template(json!({"containers": [
        {"name": "app", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}, {"name": "old"}]}));
    let patch = pod_template(json!({
        "$setElementOrder/containers": [{"name": "app"}],
        "containers": [
            {"$setElementOrder/env": [{"name": "B"}], "name": "app", "env": [{"$patch": "delete", "name": "A"}]},
            {"$patch": "delete", "name": "old"}]}));
    assert_eq!(
        patched(target, patch),
        pod_template(json!({"containers": [{"name": "app", "env": [{"name": "B", "value": "2"}]}]}))
    );
}

#[test]
fn a_changed_strategy_or_volume_source_drops_the_other_kinds_fields() {
    let target = json!({"spec": {
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "template": {"spec": {"volumes": [{"name": "data", "emptyDir": {}}]}}}});
    let patch = json!({"spec": {
        "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
        "template": {"spec": {"volumes": [
            {"$retainKeys": ["name", "hostPath"], "name": "data", "hostPath": {"path": "/d"}}]}}}});
    assert_eq!(
        patched(target, patch),
        json!({"spec": {"strategy": {"type": "Recreate"},
            "template": {"spec": {"volumes": [{"name": "data", "hostPath": {"path": "/d"}}]}}}})
    );
}

#[test]
fn new_items_take_the_place_that_the_order_gives_them() {
    let item = |name: &str| json!({"name": name});
    let target = pod_template(json!({"containers": [item("a"), item("server"), item("b")]}));
    let patch = pod_template(json!({
        "$setElementOrder/containers": [item("new"), item("a"), item("b")], "containers": [item("new")]}));
    assert_eq!(
        patched(target, patch),
        pod_template(json!({"containers": [item("new"), item("a"), item("server"), item("b")]}))
    );
}

#[test]
fn finalizers_are_added_and_deleted_as_a_set() {
    let target = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["b", "c"]}});
    assert_eq!(patched(target, patch), json!({"metadata": {"finalizers": ["b", "c"]}}));
}

#[test]
fn lists_without_a_merge_key_and_replaced_ones_become_the_patchs() {
    let target =
        pod_template(json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a"}], "nodeSelector": {"a": "1"}}));
    let patch = pod_template(
        json!({"tolerations": [{"key": "b"}], "containers": [{"$patch": "replace"}, {"name": "b"}],
        "nodeSelector": {"$patch": "replace", "b": "2"}}),
    );
    assert_eq!(
        patched(target, patch),
        pod_template(json!({"tolerations": [{"key": "b"}], "containers": [{"name": "b"}], "nodeSelector": {"b": "2"}}))
    );
}

#[test]
fn ports_of_containers_and_services_merge_by_number() {
    let target = pod_template(json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}]}]}));
    let patch = pod_template(
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]}]}),
    );
    assert_eq!(
        patched(target, patch),
        pod_template(
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]}]})
        )
    );
    let service = json!({"spec": {"ports": [{"port": 80, "targetPort": 1}], "selector": {"a": "1"}}});
    let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 2}], "selector": {"a": null, "b": "2"}}});
    let result = strategic(&service, &patch, "Service").unwrap();
    assert_eq!(
        result,
        json!({"spec": {"ports": [{"port": 80, "targetPort": 2}], "selector": {"b": "2"}}})
    );
}

#[test]
fn a_strategic_patch_that_makes_no_sense_is_refused() {
    let mut target = pod_template(json!({"containers": [{"name": "a"}]}));
    target["metadata"] = json!({"finalizers": ["a"]});
    for patch in [
        json!({"spec": {"$patch": "explode"}}),
        pod_template(json!({"containers": [{"image": "a:1"}]})),
        json!({"spec": {"$retainKeys": 1}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": 1}}),
        json!({"metadata": {"$setElementOrder/finalizers": 1}}),
    ] {
        let result = strategic(&target, &patch, "Deployment");
        assert!(matches!(result, Err(PatchError::CannotMerge(_))), "{patch}: {result:?}");
    }
    let unordered = pod_template(json!({
        "$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}));
    let result = strategic(&target, &unordered, "Deployment");
    assert!(matches!(result, Err(PatchError::CannotMerge(_))), "{result:?}");
    let list = strategic(&target, &json!([]), "Deployment");
    assert!(matches!(list, Err(PatchError::Malformed(_))), "{list:?}");
}

/// Small JSON objects without nulls.
fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..3i64).prop_map(Value::from)];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[abc]", inner, 0..3).prop_map(|map| json!(map)),
        ]
    });
    proptest::collection::btree_map("[abc]", value, 0..3).prop_map(|map| json!(map))
}

proptest! {
    #[test]
    fn a_merge_patch_without_nulls_is_contained_in_its_result(target in object(), patch in object()) {
        let once = merge(&target, &patch).unwrap();
        prop_assert_eq!(&merge(&once, &patch).unwrap(), &once);
        prop_assert_eq!(&merge(&target, &json!({})).unwrap(), &target);
    }

    #[test]
    fn where_no_list_has_a_key_a_strategic_merge_is_a_merge(target in object(), patch in object()) {
        prop_assert_eq!(strategic(&target, &patch, "ConfigMap").unwrap(), merge(&target, &patch).unwrap());
    }

    #[test]
    fn a_strategic_patch_says_the_same_twice(names in proptest::collection::vec("[abcd]", 0..4), order in Just(["a", "b", "c", "d"]).prop_shuffle()) {
        let mut names = names;
        names.sort_by_key(|name| order.iter().position(|known| known == name));
        names.dedup();
        let target = pod_template(json!({"containers": [{"name": "b"}, {"name": "s"}, {"name": "d"}]}));
        let items: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        let order: Vec<Value> = order.iter().map(|name| json!({"name": name})).collect();
        let patch = pod_template(json!({"$setElementOrder/containers": order, "containers": items}));
        let once = patched(target, patch.clone());
        prop_assert_eq!(patched(once.clone(), patch), once);
    }
}

#[test]
fn copies_that_double_the_object_again_and_again_are_refused() {
    let target = json!({"data": {"a": "x".repeat(1000)}});
    let copies = |count: usize| -> Value {
        (0..count)
            .map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data/c{i}")}))
            .collect()
    };
    assert!(super::json(&target, &copies(8)).is_ok());
    assert!(matches!(
        super::json(&target, &copies(40)),
        Err(PatchError::DoesNotApply)
    ));
}
