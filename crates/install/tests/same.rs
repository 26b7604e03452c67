//! The chart and `leeward install --render` are the same objects.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot set its stage may panic"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use leeward_install::{Values, chart, objects, render};
use serde_json::{Value, json};

type Objects = BTreeMap<String, Value>;

fn directory() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../charts/leeward"].iter().collect()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(directory().join(file)).unwrap()
}

/// By what they are, so that the order does not count.
fn by_identity(objects: Vec<Value>) -> Objects {
    let count = objects.len();
    let named: Objects = objects
        .into_iter()
        .map(|object| {
            let (kind, meta) = (&object["kind"], &object["metadata"]);
            (format!("{kind} {} {}", meta["namespace"], meta["name"]), object)
        })
        .collect();
    assert_eq!(named.len(), count, "an object is there twice");
    named
}

/// The documents of a YAML text that are objects.
fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    documents.into_iter().filter(Value::is_object).collect()
}

fn manifests(values: &Values) -> Objects {
    by_identity(objects(values).unwrap())
}

/// What the chart as it is in the repository is rendered to, without Helm.
fn substituted(values: &Value, namespace: &str) -> Objects {
    let mut all = Vec::new();
    for kind in ["crds", "templates"] {
        for entry in std::fs::read_dir(directory().join(kind)).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            all.extend(documents(&chart::substitute(&text, values, namespace).unwrap()));
        }
    }
    by_identity(all)
}

fn defaults() -> Value {
    serde_saphyr::from_str(&read("values.yaml")).unwrap()
}

/// Helm makes the namespace, when it is told to, and keeps its own record in it: no chart can have it.
fn without_namespace(mut objects: Objects, name: &str) -> Objects {
    let removed = objects.remove(&format!("\"Namespace\" null {}", json!(name)));
    assert!(removed.is_some());
    objects
}

#[test]
fn the_chart_with_its_defaults_is_what_is_rendered() {
    let values = Values::default();
    let wanted = without_namespace(manifests(&values), &values.namespace);
    assert_eq!(substituted(&defaults(), &values.namespace), wanted);
}

#[test]
fn the_chart_with_every_value_changed_is_what_is_rendered() {
    let ours = Values {
        namespace: "elsewhere".into(),
        image: "registry.example:5000/leeward@sha256:00".into(),
        image_pull_secret: Some("pull".into()),
        replicas: 3,
        edge_type: "NodePort".into(),
        peer_type: "ClusterIP".into(),
        data_size: "20Gi".into(),
        memory_limit: "1Gi".into(),
        monitoring: true,
    };
    let theirs = json!({
        "image": ours.image, "imagePullSecret": ours.image_pull_secret, "replicas": ours.replicas,
        "edgeType": ours.edge_type, "peerType": ours.peer_type, "dataSize": ours.data_size,
        "memoryLimit": ours.memory_limit, "monitoring": ours.monitoring,
    });
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&theirs), keys(&defaults()), "a value is not tried here");
    let wanted = without_namespace(manifests(&ours), "elsewhere");
    assert_eq!(substituted(&theirs, "elsewhere"), wanted);
    let plain = manifests(&Values::default());
    assert!(wanted.len() >= plain.len(), "monitoring adds an object");
}

#[test]
fn helm_renders_the_same() {
    let values = Values::default();
    let helm = Command::new("helm")
        .args([
            "template",
            "leeward",
            "--include-crds",
            "--namespace",
            &values.namespace,
        ])
        .arg(directory())
        .output();
    let Ok(output) = helm else {
        return eprintln!("skipped: helm is not installed");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rendered = by_identity(documents(&String::from_utf8(output.stdout).unwrap()));
    assert_eq!(rendered, without_namespace(manifests(&values), &values.namespace));
}

#[test]
fn the_schema_takes_the_defaults_and_refuses_what_the_command_refuses() {
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    assert!(schema.is_valid(&defaults()));
    for (key, value, own) in [
        (
            "image",
            json!(""),
            Values {
                image: String::new(),
                ..Values::default()
            },
        ),
        (
            "image",
            json!("a\"b"),
            Values {
                image: "a\"b".into(),
                ..Values::default()
            },
        ),
        (
            "replicas",
            json!(0),
            Values {
                replicas: 0,
                ..Values::default()
            },
        ),
        (
            "replicas",
            json!(10),
            Values {
                replicas: 10,
                ..Values::default()
            },
        ),
        (
            "edgeType",
            json!("Edge"),
            Values {
                edge_type: "Edge".into(),
                ..Values::default()
            },
        ),
        (
            "peerType",
            json!(""),
            Values {
                peer_type: String::new(),
                ..Values::default()
            },
        ),
        (
            "dataSize",
            json!("10"),
            Values {
                data_size: "10".into(),
                ..Values::default()
            },
        ),
        (
            "dataSize",
            json!("0Gi"),
            Values {
                data_size: "0Gi".into(),
                ..Values::default()
            },
        ),
        (
            "memoryLimit",
            json!("-1Mi"),
            Values {
                memory_limit: "-1Mi".into(),
                ..Values::default()
            },
        ),
        (
            "imagePullSecret",
            json!("Not A Name"),
            Values {
                image_pull_secret: Some("Not A Name".into()),
                ..Values::default()
            },
        ),
    ] {
        let mut values = defaults();
        values[key] = value;
        assert!(!schema.is_valid(&values), "{values}");
        assert!(own.check().is_err(), "{own:?}");
    }
    let mut unknown = defaults();
    unknown["replica"] = json!(2);
    assert!(!schema.is_valid(&unknown), "a misspelt value");
}

#[test]
fn a_value_that_cannot_be_used_is_named_with_what_to_give_instead() {
    let with = |change: fn(&mut Values)| {
        let mut values = Values::default();
        change(&mut values);
        render(&values).unwrap_err().to_string()
    };
    for (error, parts) in [
        (with(|v| v.namespace = "Leeward".into()), ["\"Leeward\"", "DNS label"]),
        (with(|v| v.namespace = "a.b".into()), ["\"a.b\"", "DNS label"]),
        (with(|v| v.namespace = String::new()), ["\"\"", "DNS label"]),
        (with(|v| v.namespace = "n".repeat(64)), ["nnn", "63"]),
        (
            with(|v| v.namespace = "kube-system".into()),
            ["\"kube-system\"", "one of its own"],
        ),
        (
            with(|v| v.namespace = "default".into()),
            ["\"default\"", "one of its own"],
        ),
        (with(|v| v.image = String::new()), ["\"\"", "no image"]),
        (with(|v| v.image = "two words".into()), ["\"two words\"", "no image"]),
        (with(|v| v.replicas = 0), ["0 agents", "from 1 to 9"]),
        (with(|v| v.replicas = -1), ["-1 agents", "from 1 to 9"]),
        (with(|v| v.edge_type = "ExternalName".into()), ["edge's", "NodePort"]),
        (with(|v| v.peer_type = "lb".into()), ["peer link's", "NodePort"]),
        (with(|v| v.data_size = "much".into()), ["\"much\"", "10Gi"]),
        (with(|v| v.memory_limit = "512".into()), ["\"512\"", "512Mi"]),
    ] {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn what_is_rendered_reads_back_as_the_objects_also_where_old_readers_see_a_boolean() {
    let values = Values {
        namespace: "on".into(),
        ..Values::default()
    };
    let text = render(&values).unwrap();
    assert_eq!(documents(&text), objects(&values).unwrap());
    assert!(text.contains("name: \"on\"") || text.contains("name: 'on'"), "{text}");
}

#[test]
fn all_that_an_installation_is() {
    // The definitions are looked at as files of their own.
    let own = objects(&Values {
        monitoring: true,
        ..Values::default()
    })
    .unwrap();
    let own = own
        .into_iter()
        .filter(|object| object["kind"] != "CustomResourceDefinition");
    insta::assert_yaml_snapshot!(own.collect::<Vec<_>>());
}
