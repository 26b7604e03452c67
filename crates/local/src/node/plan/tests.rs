use serde_json::json;

use super::*;

fn pod(container: serde_json::Value, spec: serde_json::Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "u-1", "labels": {"app": "web"},
            "annotations": {"note": "n"}},
        "spec": {"containers": [container]},
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn sources() -> Sources {
    let map = json!({"metadata": {"name": "conf"}, "data": {"epoch": "7", "colour": "red"}});
    let secret = json!({"metadata": {"name": "pw"}, "data": {"key": "czNjcmV0", "raw": "/w=="}});
    Sources {
        config_maps: BTreeMap::from([("conf".to_owned(), serde_json::from_value(map).unwrap())]),
        secrets: BTreeMap::from([("pw".to_owned(), serde_json::from_value(secret).unwrap())]),
    }
}

fn plan_of(pod: &Pod, image: &image::Config) -> Result<Planned, Error> {
    let place = Place {
        pod_ip: Ipv4Addr::new(127, 1, 17, 5),
        host_ip: Ipv4Addr::new(127, 1, 16, 10),
        node: "west-a".to_owned(),
    };
    let volume = |path: &str| Volume {
        path: path.into(),
        read_only: false,
    };
    let volumes = BTreeMap::from([
        ("data".to_owned(), volume("/v/data")),
        ("conf".to_owned(), volume("/v/conf")),
    ]);
    plan(&Inputs {
        pod,
        container: &pod.spec.as_ref().unwrap().containers[0],
        image,
        passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n",
        group: "root:x:0:\nstaff:x:50:app\n",
        sources: &sources(),
        volumes: &volumes,
        place: &place,
    })
}

fn image() -> image::Config {
    image::Config {
        entrypoint: vec!["/app".into()],
        cmd: vec!["serve".into()],
        env: vec!["PATH=/bin".into(), "FROM_IMAGE=1".into()],
        working_dir: "/srv".into(),
        ..image::Config::default()
    }
}

fn env(planned: &Planned, name: &str) -> Option<String> {
    planned
        .process
        .env
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.clone())
}

#[test]
fn command_and_arguments_follow_the_table_of_kubernetes() {
    for (container, wanted) in [
        (json!({"name": "c"}), vec!["/app", "serve"]),
        (json!({"name": "c", "args": ["a"]}), vec!["/app", "a"]),
        (json!({"name": "c", "command": ["/x"]}), vec!["/x"]),
        (
            json!({"name": "c", "command": ["/x"], "args": ["a", "$(POD_IP)"]}),
            vec!["/x", "a", "127.1.17.5"],
        ),
    ] {
        assert_eq!(
            plan_of(&pod(container, json!({})), &image()).unwrap().process.args,
            wanted
        );
    }
}

#[test]
fn the_environment_has_every_source_in_order() {
    let container = json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "conf"}, "prefix": "C_"}, {"secretRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "EPOCH", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "epoch"}}},
            {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "pw", "key": "key"}}},
            {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "no", "optional": true}}},
            {"name": "URL", "value": "http://$(POD_IP)/$(C_colour)/$(LATER)"},
            {"name": "LATER", "value": "x"},
            {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "FROM_IMAGE", "value": "2"},
        ],
        "resources": {"limits": {"memory": "64Mi"}}});
    let planned = plan_of(&pod(container, json!({})), &image()).unwrap();
    for (name, wanted) in [
        ("EPOCH", Some("7")),
        ("PW", Some("s3cret")),
        ("MAYBE", None),
        ("URL", Some("http://127.1.17.5/red/$(LATER)")),
        ("ME", Some("web-0")),
        ("APP", Some("web")),
        ("NODE", Some("west-a")),
        ("MEM", Some("64")),
        ("FROM_IMAGE", Some("2")),
        ("PATH", Some("/bin")),
        ("HOSTNAME", Some("web-0")),
        ("POD_IP", Some("127.1.17.5")),
    ] {
        assert_eq!(env(&planned, name).as_deref(), wanted, "{name}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let refer = |source: serde_json::Value| {
        let container = json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]});
        plan_of(&pod(container, json!({})), &image()).unwrap_err().to_string()
    };
    assert_eq!(
        refer(json!({"configMapKeyRef": {"name": "gone", "key": "k"}})),
        "ConfigMap \"gone\" not found"
    );
    assert_eq!(
        refer(json!({"configMapKeyRef": {"name": "conf", "key": "k"}})),
        "ConfigMap \"conf\" has no key \"k\""
    );
    assert!(refer(json!({"secretKeyRef": {"name": "pw", "key": "raw"}})).contains("not UTF-8"));
    assert!(refer(json!({"fieldRef": {"fieldPath": "spec.nope"}})).contains("spec.nope"));
    let mount = json!({"name": "c", "volumeMounts": [{"name": "gone", "mountPath": "/x"}]});
    assert_eq!(
        plan_of(&pod(mount, json!({})), &image()).unwrap_err(),
        Error::Volume("gone".into())
    );
}

#[test]
fn the_user_comes_from_pod_then_image() {
    let with = |user: &str, container: serde_json::Value, spec: serde_json::Value| {
        let image = image::Config {
            user: user.into(),
            ..image()
        };
        let mut whole = json!({"name": "c"});
        whole["securityContext"] = container;
        plan_of(&pod(whole, spec), &image).map(|planned| (planned.process.uid, planned.process.gid))
    };
    assert_eq!(with("", json!({}), json!({})), Ok((0, 0)));
    assert_eq!(with("app", json!({}), json!({})), Ok((1000, 1001)));
    assert_eq!(with("app:staff", json!({}), json!({})), Ok((1000, 50)));
    assert_eq!(with("77", json!({}), json!({})), Ok((77, 0)));
    assert_eq!(with("77:78", json!({}), json!({})), Ok((77, 78)));
    assert_eq!(
        with(
            "app",
            json!({"runAsUser": 5}),
            json!({"securityContext": {"runAsGroup": 6}})
        ),
        Ok((5, 6))
    );
    assert_eq!(with("nobody", json!({}), json!({})), Err(Error::User("nobody".into())));
    assert_eq!(with("", json!({"runAsNonRoot": true}), json!({})), Err(Error::Root));
}

#[test]
fn mounts_are_ordered_by_depth_and_keep_their_options() {
    let container = json!({"name": "c", "volumeMounts": [
        {"name": "conf", "mountPath": "/data/etc", "readOnly": true},
        {"name": "data", "mountPath": "/data", "subPathExpr": "sub/$(POD_IP)"}]});
    let planned = plan_of(&pod(container, json!({})), &image()).unwrap();
    assert_eq!(planned.mounts[0].sub_path.as_deref(), Some("sub/127.1.17.5"));
    assert_eq!(
        (planned.mounts[1].target.to_str(), planned.mounts[1].read_only),
        (Some("/data/etc"), true)
    );
}

#[test]
fn every_reference_of_a_pod_is_found() {
    let pod = pod(
        json!({"name": "c", "envFrom": [{"secretRef": {"name": "s1"}}],
            "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m1", "key": "k"}}}]}),
        json!({"initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "m2"}}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "s2"}},
                {"name": "w", "projected": {"sources": [{"configMap": {"name": "m3"}}]}}]}),
    );
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(references(&pod), (names(&["m1", "m2", "m3"]), names(&["s1", "s2"])));
}
