//! Objects of manifests.

use super::*;

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "shop", "namespace": "store" },
        "spec": { "strategy": { "type": "Recreate" }, "template": template() },
    })
}

fn outcome(object: &Value) -> Result<Outcome, String> {
    manifest::object(object, &with()).map_err(|(name, error)| format!("{name}: {error}"))
}

#[test]
fn the_template_of_a_workload_and_a_pod_itself_come_behind_their_gate() {
    let Ok(Outcome::Behind(object)) = outcome(&deployment()) else {
        panic!()
    };
    assert_eq!(object["spec"]["template"], placed(&template()));
    assert_eq!(outcome(&object), Ok(Outcome::Already));
    let mut set = deployment();
    (set["kind"], set["spec"]["strategy"]) = (json!("StatefulSet"), Value::Null);
    assert!(matches!(outcome(&set), Ok(Outcome::Behind(_))));
    let mut pod = template();
    (pod["apiVersion"], pod["kind"]) = (json!("v1"), json!("Pod"));
    assert!(matches!(outcome(&pod), Ok(Outcome::Behind(_))));
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [{ "kind": "ConfigMap" }, deployment(), object] });
    let Ok(Outcome::Behind(all)) = outcome(&list) else {
        panic!()
    };
    assert_eq!(all["items"], json!([{ "kind": "ConfigMap" }, object, object]));
}

#[test]
fn an_error_names_the_object() {
    let with = |pointer: &str, value: Value| {
        let mut object = deployment();
        *object.pointer_mut(pointer).unwrap() = value;
        outcome(&object).unwrap_err()
    };
    let misplaced = {
        let mut object = deployment();
        object["metadata"]["annotations"] = object["spec"]["template"]["metadata"]["annotations"].take();
        outcome(&object).unwrap_err()
    };
    for (error, why) in [
        (with("/spec/strategy", Value::Null), "maxSurge"),
        (with("/spec/strategy", json!({ "type": "RollingUpdate" })), "Recreate"),
        (
            with("/spec/template/spec", json!({ "containers": [] })),
            "several containers",
        ),
        (misplaced, "spec.template.metadata.annotations"),
    ] {
        assert!(
            error.starts_with("Deployment store/shop: ") && error.contains(why),
            "{error}"
        );
    }
    for kind in ["DaemonSet", "Job", "ReplicaSet"] {
        assert!(with("/kind", json!(kind)).contains(&format!("a {kind} is not moved")));
    }
    let job = json!({ "spec": { "template": template() } });
    let cron = json!({ "kind": "CronJob", "metadata": { "name": "c" }, "spec": { "jobTemplate": job } });
    assert!(outcome(&cron).unwrap_err().starts_with("CronJob c: "));
}

#[test]
fn everything_else_is_none_of_its_business() {
    for object in [
        json!(null),
        json!(7),
        json!([]),
        json!({}),
        json!({ "kind": "Service", "spec": 7 }),
    ] {
        assert_eq!(outcome(&object), Ok(Outcome::NotWanted), "{object}");
    }
}
