use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const T1: &str = "2026-01-01T00:00:01Z";
const T2: &str = "2026-01-01T00:00:02Z";

fn lists() -> ListTypes {
    ListTypes::builtin("Deployment")
}

fn writer<'a>(manager: &'a str, subresource: Option<&'a str>, now: &'a str, lists: &'a ListTypes) -> Writer<'a> {
    Writer {
        manager,
        api_version: "apps/v1",
        subresource,
        now,
        lists,
        builtin: Some("Deployment"),
    }
}

fn ssa(live: Option<&Value>, config: &Value, manager: &str, force: bool, now: &str) -> Result<Value, ApplyError> {
    writer(manager, None, now, &lists()).apply(live, config, force)
}

fn update(before: Option<&Value>, after: Value, manager: &str) -> Value {
    writer(manager, None, T2, &lists()).track(before, after)
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn with_containers(containers: Value) -> Value {
    deployment(json!({"template": {"spec": {"containers": containers}}}))
}

fn containers(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]["containers"]
}

fn owned_by(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    entries
        .into_iter()
        .find(|entry| entry["manager"] == manager)
        .map_or(Value::Null, |mut entry| entry["fieldsV1"].take())
}

fn conflicts(result: Result<Value, ApplyError>) -> Vec<String> {
    match result {
        Err(ApplyError::Conflicts(all)) => all.into_iter().map(|c| format!("{} {}", c.manager, c.field)).collect(),
        other => panic!("expected conflicts, got {other:?}"),
    }
}

#[test]
fn a_first_apply_owns_what_it_sets_in_the_form_of_fields_v1() {
    let config = with_containers(json!([
        {"name": "app", "image": "app:1", "args": ["a"], "ports": [{"containerPort": 80}]}]));
    let object = ssa(None, &config, "west", false, T1).unwrap();
    assert_eq!(
        owned_by(&object, "west"),
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {
            ".": {}, "f:args": {}, "f:image": {}, "f:name": {},
            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
    );
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(entry["operation"], "Apply");
    assert_eq!(entry["time"], T1);
    assert_eq!(entry["apiVersion"], "apps/v1");
}

#[test]
fn two_managers_own_different_containers_of_one_deployment() {
    let first = ssa(
        None,
        &with_containers(json!([{"name": "app", "image": "app:1"}])),
        "one",
        false,
        T1,
    )
    .unwrap();
    let both = ssa(
        Some(&first),
        &with_containers(json!([{"name": "log", "image": "log:1"}])),
        "two",
        false,
        T1,
    )
    .unwrap();
    assert_eq!(
        containers(&both),
        &json!([{"name": "app", "image": "app:1"}, {"name": "log", "image": "log:1"}])
    );
    let without = ssa(Some(&both), &deployment(json!({})), "two", false, T2).unwrap();
    assert_eq!(containers(&without), &json!([{"name": "app", "image": "app:1"}]));
    assert_eq!(owned_by(&without, "two"), json!({"f:spec": {}}));
}

#[test]
fn another_value_for_an_owned_field_is_a_conflict_until_it_is_forced() {
    let first = ssa(None, &deployment(json!({"replicas": 1})), "one", false, T1).unwrap();
    let wanted = deployment(json!({"replicas": 2}));
    assert_eq!(
        conflicts(ssa(Some(&first), &wanted, "two", false, T2)),
        ["one .spec.replicas"]
    );
    let forced = ssa(Some(&first), &wanted, "two", true, T2).unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(owned_by(&forced, "one"), Value::Null);
    assert_eq!(
        conflicts(ssa(
            Some(&forced),
            &deployment(json!({"replicas": 1})),
            "one",
            false,
            T2
        )),
        ["two .spec.replicas"]
    );
}

#[test]
fn the_same_value_is_shared_and_goes_when_the_last_owner_drops_it() {
    let config = deployment(json!({"replicas": 1, "paused": true}));
    let first = ssa(None, &config, "one", false, T1).unwrap();
    let shared = ssa(Some(&first), &deployment(json!({"paused": true})), "two", false, T1).unwrap();
    let one_left = ssa(Some(&shared), &deployment(json!({"replicas": 1})), "one", false, T2).unwrap();
    assert_eq!(one_left["spec"], json!({"replicas": 1, "paused": true}));
    let none_left = ssa(Some(&one_left), &deployment(json!({})), "two", false, T2).unwrap();
    assert_eq!(none_left["spec"], json!({"replicas": 1}));
}

#[test]
fn an_update_takes_what_it_changes_and_a_conflict_names_its_manager_as_kubectl_expects() {
    let first = ssa(None, &deployment(json!({"replicas": 1})), "kubectl", false, T1).unwrap();
    let mut scaled = first.clone();
    scaled["spec"]["replicas"] = json!(5);
    let scaled = update(Some(&first), scaled, "autoscaler");
    assert_eq!(owned_by(&scaled, "kubectl"), Value::Null);
    assert_eq!(owned_by(&scaled, "autoscaler"), json!({"f:spec": {"f:replicas": {}}}));
    let error = ssa(Some(&scaled), &deployment(json!({"replicas": 1})), "kubectl", false, T2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"autoscaler\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn several_conflicts_are_listed_under_their_managers() {
    let first = ssa(
        None,
        &deployment(json!({"replicas": 1, "paused": true})),
        "one",
        false,
        T1,
    )
    .unwrap();
    let wanted = deployment(json!({"replicas": 2, "paused": false}));
    let error = ssa(Some(&first), &wanted, "two", false, T1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.paused\n- .spec.replicas"
    );
}

#[test]
fn a_conflict_in_a_list_shows_the_items_key() {
    let first = ssa(
        None,
        &with_containers(json!([{"name": "app", "image": "app:1"}])),
        "one",
        false,
        T1,
    )
    .unwrap();
    let wanted = with_containers(json!([{"name": "app", "image": "app:2"}]));
    assert_eq!(
        conflicts(ssa(Some(&first), &wanted, "two", false, T1)),
        ["one .spec.template.spec.containers[name=\"app\"].image"]
    );
}

#[test]
fn what_the_server_filled_in_stays_when_a_sibling_is_no_longer_applied() {
    let first = ssa(
        None,
        &deployment(json!({"strategy": {"type": "RollingUpdate"}})),
        "one",
        false,
        T1,
    )
    .unwrap();
    let mut live = first.clone();
    live["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": "25%"});
    let after = ssa(Some(&live), &deployment(json!({})), "one", false, T2).unwrap();
    assert_eq!(after["spec"]["strategy"], json!({"rollingUpdate": {"maxSurge": "25%"}}));
}

#[test]
fn an_item_that_another_manager_still_changes_keeps_its_key() {
    let first = ssa(
        None,
        &with_containers(json!([{"name": "app", "image": "app:1"}])),
        "one",
        false,
        T1,
    )
    .unwrap();
    let mut patched = first.clone();
    patched["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:2");
    let patched = update(Some(&first), patched, "kubectl-patch");
    let after = ssa(Some(&patched), &deployment(json!({})), "one", false, T2).unwrap();
    assert_eq!(containers(&after), &json!([{"name": "app", "image": "app:2"}]));
}

#[test]
fn status_belongs_to_its_subresource() {
    let mut config = deployment(json!({"replicas": 1}));
    config["status"] = json!({"replicas": 9});
    let main = ssa(None, &config, "one", false, T1).unwrap();
    assert_eq!(main.get("status"), None);
    let lists = lists();
    let status = writer("one", Some("status"), T1, &lists)
        .apply(Some(&main), &config, false)
        .unwrap();
    assert_eq!(status["status"], json!({"replicas": 9}));
    let entries = status["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert!(
        entries
            .iter()
            .any(|e| e["subresource"] == "status" && e["fieldsV1"] == json!({"f:status": {"f:replicas": {}}}))
    );
}

#[test]
fn the_status_that_the_server_gives_a_new_object_is_nobodys() {
    let mut created = deployment(json!({"replicas": 1}));
    created["status"] = json!({"replicas": 0});
    let created = update(None, created, "one");
    assert_eq!(owned_by(&created, "one"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(created["status"], json!({"replicas": 0}));
}

#[test]
fn a_clients_own_managed_fields_are_taken_over_and_one_empty_entry_clears_them() {
    let first = ssa(None, &deployment(json!({"replicas": 1})), "one", false, T1).unwrap();
    let mut renamed = first.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = json!("two");
    let renamed = update(Some(&first), renamed, "client");
    assert_eq!(owned_by(&renamed, "two"), json!({"f:spec": {"f:replicas": {}}}));
    let mut cleared = first.clone();
    cleared["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(
        update(Some(&first), cleared, "client")["metadata"].get("managedFields"),
        None
    );
}

#[test]
fn lists_whose_items_cannot_be_told_apart_are_refused() {
    let lists = lists();
    let problem = |config: Value| writer("one", None, T1, &lists).check(&config).unwrap_err().to_string();
    let at = ".spec.template.spec.containers";
    assert_eq!(
        problem(with_containers(json!([{"name": "a"}, {"name": "a"}]))),
        format!("{at}: duplicate entries for key [name=\"a\"]")
    );
    assert_eq!(
        problem(with_containers(json!(["a"]))),
        format!("{at}: element 0: associative list with keys may not have non-map elements")
    );
    let finalizers = json!({"metadata": {"finalizers": ["x/y", "x/y"]}});
    assert_eq!(
        problem(finalizers),
        ".metadata.finalizers: duplicate entries for key [=\"x/y\"]"
    );
}

#[test]
fn what_was_made_without_owners_gets_none_until_somebody_applies() {
    let live = deployment(json!({"replicas": 1}));
    let mut changed = live.clone();
    changed["spec"]["replicas"] = json!(2);
    let updated = update(Some(&live), changed, "one");
    assert_eq!(updated["metadata"].get("managedFields"), None);
    assert_eq!(
        conflicts(ssa(
            Some(&updated),
            &deployment(json!({"replicas": 3})),
            "two",
            false,
            T1
        )),
        ["before-first-apply .spec.replicas"]
    );
}

#[test]
fn the_oldest_updaters_become_one() {
    let mut object = update(None, deployment(json!({"replicas": 0})), "m0");
    for i in 1..=12 {
        let mut next = object.clone();
        next["metadata"]["labels"][format!("l{i}")] = json!("x");
        object = update(Some(&object), next, &format!("m{i}"));
    }
    assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 10);
    let ancient = owned_by(&object, "ancient-changes");
    assert_eq!(ancient["f:spec"], json!({"f:replicas": {}}));
}

/// Configurations of a few containers with a few fields, labels and replicas.
fn config() -> impl Strategy<Value = Value> {
    let container = (
        prop::sample::select(vec!["a", "b", "c"]),
        0..3u8,
        proptest::option::of(0..3u8),
    );
    (
        // An empty keyed list is owned by nobody, so it would not outlive its items.
        proptest::collection::vec(container, 1..4),
        proptest::option::of(0..3u8),
        proptest::collection::btree_map("[xy]", "[12]", 0..3),
    )
        .prop_map(|(items, replicas, labels)| {
            let mut seen = std::collections::BTreeSet::new();
            let items: Vec<Value> = items
                .into_iter()
                .filter(|(name, ..)| seen.insert(*name))
                .map(|(name, image, arg)| match arg {
                    Some(arg) => json!({"name": name, "image": image.to_string(), "args": [arg.to_string()]}),
                    None => json!({"name": name, "image": image.to_string()}),
                })
                .collect();
            let mut spec = json!({"template": {"spec": {"containers": items}}});
            if let Some(replicas) = replicas {
                spec["replicas"] = json!(replicas);
            }
            let mut object = deployment(spec);
            if !labels.is_empty() {
                object["metadata"]["labels"] = json!(labels);
            }
            object
        })
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(start in config(), second in config()) {
        let live = ssa(None, &start, "one", false, T1).unwrap();
        let once = ssa(Some(&live), &second, "two", true, T1).unwrap();
        let twice = ssa(Some(&once), &second, "two", false, T2).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn what_is_applied_is_in_the_object(start in config(), second in config()) {
        let live = ssa(None, &start, "one", false, T1).unwrap();
        let result = ssa(Some(&live), &second, "two", true, T2).unwrap();
        let again = compare(Some(&result), Some(&merge::merge(Some(&result), &writer("x", None, T1, &lists()).configuration(&second), Some(lists().root()))), Some(lists().root()));
        prop_assert!(again.changed.is_empty());
    }

    #[test]
    fn disjoint_configurations_never_conflict_and_one_leaving_restores_the_other(start in config(), other in config()) {
        // The second manager's containers have names, and its labels keys, that the first never uses.
        let text = other.to_string().replace("\"name\":\"", "\"name\":\"z").replace("\"x\":", "\"u\":").replace("\"y\":", "\"v\":");
        let mut other: Value = serde_json::from_str(&text).unwrap();
        other["spec"].as_object_mut().unwrap().remove("replicas");
        let mut expected = ssa(None, &start, "one", false, T1).unwrap();
        let both = ssa(Some(&expected), &other, "two", false, T2);
        prop_assert!(both.is_ok());
        let mut left = ssa(Some(&both.unwrap()), &deployment(json!({})), "two", false, T2).unwrap();
        take_list(&mut left);
        take_list(&mut expected);
        prop_assert_eq!(left, expected);
    }

    #[test]
    fn a_set_of_fields_survives_its_written_form(config in config()) {
        let set = fields::of_config(&config, Some(lists().root()));
        prop_assert_eq!(Fields::parse(&set.to_value()), set);
    }
}
