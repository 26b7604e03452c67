use serde_json::{Value, json};

use super::super::{default, validate, validate_update};

fn said(kind: &str, mut object: Value) -> Vec<String> {
    default(kind, &mut object);
    validate(kind, &object).iter().map(ToString::to_string).collect()
}

fn changed(kind: &str, mut old: Value, mut new: Value) -> Vec<String> {
    default(kind, &mut old);
    default(kind, &mut new);
    validate_update(kind, &old, &new)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn pod(container: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"volumes": [{"name": "data", "emptyDir": {}}], "containers": [container]}})
}

fn deployment(spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "web"}}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}}}});
    for (name, value) in spec.as_object().into_iter().flatten() {
        object["spec"][name] = value.clone();
    }
    object
}

fn claim(spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": "c"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    for (name, value) in spec.as_object().into_iter().flatten() {
        object["spec"][name] = value.clone();
    }
    object
}

#[test]
fn containers_may_mount_the_claims_of_their_stateful_set() {
    let mut set = deployment(json!({"serviceName": "web", "volumeClaimTemplates": [claim(json!({}))]}));
    set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "c", "mountPath": "/c"}]);
    assert_eq!(said("StatefulSet", set.clone()), Vec::<String>::new());
    set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "gone", "mountPath": "/c"}]);
    assert_eq!(said("StatefulSet", set).len(), 1);
}

#[test]
fn what_people_apply_every_day_is_accepted() {
    let full = json!({"name": "app", "image": "sample:1", "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}], "readinessProbe": {"httpGet": {"port": "http"}},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": 0.5}}});
    let cases = [
        ("Pod", pod(full)),
        ("Deployment", deployment(json!({}))),
        (
            "StatefulSet",
            deployment(json!({"serviceName": "web", "volumeClaimTemplates": [claim(json!({}))]})),
        ),
        (
            "Service",
            json!({"spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}}),
        ),
        ("Service", json!({"spec": {"clusterIP": "None"}})),
        ("PersistentVolumeClaim", claim(json!({}))),
        (
            "PersistentVolume",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}}),
        ),
        ("ConfigMap", json!({"data": {"a.conf": "x"}})),
        ("Secret", json!({"stringData": {"password": "x"}})),
        ("StorageClass", json!({"provisioner": "x"})),
        ("Lease", json!({"spec": {"leaseDurationSeconds": 15}})),
        (
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}]}),
        ),
        (
            "Node",
            json!({"metadata": {"name": "n", "labels": {"kubernetes.io/hostname": "n"}}}),
        ),
    ];
    for (kind, object) in cases {
        assert_eq!(said(kind, object), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn a_pods_mistakes_are_named_with_their_fields() {
    let ok = |extra: Value| {
        let mut container = json!({"name": "a", "image": "a:1"});
        for (name, value) in extra.as_object().into_iter().flatten() {
            container[name] = value.clone();
        }
        pod(container)
    };
    let at = "spec.containers[0]";
    let cases = [
        (json!({"spec": {}}), "spec.containers: Required value".to_owned()),
        (ok(json!({"name": null})), format!("{at}.name: Required value")),
        (ok(json!({"image": null})), format!("{at}.image: Required value")),
        (
            ok(json!({"imagePullPolicy": "Maybe"})),
            format!(
                "{at}.imagePullPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"IfNotPresent\", \"Never\""
            ),
        ),
        (
            ok(json!({"ports": [{"containerPort": 70000}]})),
            format!("{at}.ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"),
        ),
        (
            ok(json!({"volumeMounts": [{"name": "gone", "mountPath": "/d"}]})),
            format!("{at}.volumeMounts[0].name: Not found: \"gone\""),
        ),
        (
            ok(json!({"volumeMounts": [{"name": "data", "mountPath": "/d", "subPath": "../x"}]})),
            format!("{at}.volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'"),
        ),
        (
            ok(json!({"livenessProbe": {}})),
            format!("{at}.livenessProbe: Required value: must specify a handler type"),
        ),
        (
            ok(json!({"env": [{"value": "x"}]})),
            format!("{at}.env[0].name: Required value"),
        ),
    ];
    for (object, expected) in cases {
        assert_eq!(said("Pod", object.clone()), [expected], "{object}");
    }
    let twice = json!({"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "a", "image": "a:1"}]}});
    assert_eq!(said("Pod", twice), ["spec.containers[1].name: Duplicate value: \"a\""]);
    let upper = said("Pod", ok(json!({"name": "A"})));
    assert!(
        upper[0].starts_with("spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label"),
        "{upper:?}"
    );
}

#[test]
fn a_workload_selects_its_own_pods_and_restarts_them_always() {
    let other = deployment(json!({"selector": {"matchLabels": {"app": "other"}}}));
    assert_eq!(
        said("Deployment", other),
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
        ]
    );
    assert_eq!(
        said("Deployment", deployment(json!({"selector": {}}))),
        ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
    );
    let mut never = deployment(json!({}));
    never["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    assert_eq!(
        said("Deployment", never),
        ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
    );
    assert_eq!(
        said("Deployment", deployment(json!({"replicas": -1}))),
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
    );
    let mixed = json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}});
    assert_eq!(
        said("Deployment", deployment(mixed)),
        ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]
    );
}

#[test]
fn other_kinds_mistakes_are_named_with_their_fields() {
    let cases = [
        ("Service", json!({"spec": {}}), "spec.ports: Required value"),
        (
            "Service",
            json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}}),
            "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\
             \"TargetPort\":0,\"NodePort\":0}",
        ),
        (
            "PersistentVolumeClaim",
            claim(json!({"accessModes": []})),
            "spec.accessModes: Required value: at least 1 access mode is required",
        ),
        (
            "PersistentVolumeClaim",
            claim(json!({"resources": {}})),
            "spec.resources[storage]: Required value",
        ),
        (
            "PersistentVolume",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}}),
            "spec: Required value: must specify a volume type",
        ),
        ("StorageClass", json!({}), "provisioner: Required value"),
        ("EndpointSlice", json!({}), "addressType: Required value"),
    ];
    for (kind, object, expected) in cases {
        assert_eq!(said(kind, object), [expected], "{kind}");
    }
    for (kind, object) in [
        ("ConfigMap", json!({"data": {"a/b": "x"}})),
        ("ConfigMap", json!({"data": {"big": "x".repeat(1024 * 1024 + 1)}})),
    ] {
        assert_eq!(said(kind, object).len(), 1, "{kind}");
    }
}

#[test]
fn what_may_not_change_is_forbidden_and_the_rest_may() {
    let with = |pointer: &str, value: Value, mut object: Value| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[name] = value;
        object
    };
    let base = pod(json!({"name": "a", "image": "a:1"}));
    assert!(
        changed(
            "Pod",
            base.clone(),
            with("/spec/containers/0/image", json!("a:2"), base.clone())
        )
        .is_empty()
    );
    assert!(changed("Pod", base.clone(), with("/spec/nodeName", json!("n"), base.clone())).is_empty());
    let bound = with("/spec/nodeName", json!("n"), base.clone());
    assert_eq!(
        changed("Pod", bound.clone(), with("/spec/nodeName", json!("m"), bound)).len(),
        1
    );
    assert_eq!(
        changed("Pod", base.clone(), with("/spec/containers/0/name", json!("b"), base)).len(),
        1
    );

    let base = deployment(json!({}));
    assert!(
        changed(
            "Deployment",
            base.clone(),
            with("/spec/replicas", json!(3), base.clone())
        )
        .is_empty()
    );
    assert_eq!(
        changed(
            "Deployment",
            base.clone(),
            with("/spec/selector", json!({"matchLabels": {"app": "x"}}), base.clone())
        ),
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable",
        ]
    );
    assert!(
        changed(
            "StatefulSet",
            base.clone(),
            with("/spec/replicas", json!(3), base.clone())
        )
        .is_empty()
    );
    assert_eq!(
        changed("StatefulSet", base.clone(), with("/spec/serviceName", json!("x"), base)).len(),
        1
    );

    let base = claim(json!({}));
    assert!(
        changed(
            "PersistentVolumeClaim",
            base.clone(),
            claim(json!({"volumeName": "pv-1"}))
        )
        .is_empty()
    );
    let larger = claim(json!({"resources": {"requests": {"storage": "2Gi"}}}));
    let bound = |mut claim: Value| {
        claim["status"] = json!({"phase": "Bound"});
        claim
    };
    assert!(changed("PersistentVolumeClaim", bound(base.clone()), bound(larger)).is_empty());
    let shared = claim(json!({"accessModes": ["ReadWriteMany"]}));
    assert_eq!(
        changed("PersistentVolumeClaim", base, shared),
        [
            "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for \
         bound claims"
        ]
    );

    let fixed = json!({"immutable": true, "data": {"a": "1"}});
    assert!(changed("ConfigMap", fixed.clone(), fixed.clone()).is_empty());
    assert_eq!(
        changed("ConfigMap", fixed, json!({"immutable": true, "data": {"a": "2"}})),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    assert_eq!(changed("Secret", json!({"type": "a"}), json!({"type": "b"})).len(), 1);
    let service = json!({"spec": {"clusterIP": "127.1.24.1", "ports": [{"port": 80}]}});
    assert_eq!(
        changed(
            "Service",
            service.clone(),
            with("/spec/clusterIP", json!("127.1.24.2"), service)
        )
        .len(),
        1
    );
}

#[test]
fn validation_survives_objects_of_any_shape() {
    let shapes = [
        json!(null),
        json!([]),
        json!({"spec": []}),
        json!({"spec": {"containers": [1, null], "ports": [null],
        "template": {"spec": {"volumes": [[]]}}, "selector": 1, "volumeClaimTemplates": [1], "accessModes": [1]},
        "metadata": {"labels": {"a": 1}}, "data": {"a": 1}}),
    ];
    for kind in crate::machinery::kinds::builtin() {
        for shape in &shapes {
            validate(&kind.kind, shape);
            validate_update(&kind.kind, shape, &json!({}));
        }
    }
}
