use super::*;

#[test]
fn where_it_stands_by_a_workload_keeps_the_number_it_has_where_it_is_active() {
    let objects = desired(&bundle("west", everything()), &[], Running::Standby(0)).unwrap();
    let web = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    assert_eq!(
        (
            &web["spec"]["replicas"],
            &web["metadata"]["annotations"]["leeward.dev/replicas"]
        ),
        (&json!(0), &json!("3"))
    );
    let objects = desired(&bundle("west", everything()), &[], Running::Serve).unwrap();
    assert_eq!(objects, bundle("west", everything()).objects);
}

#[test]
fn scaling_goes_down_and_back_from_any_state_and_is_then_done() {
    for (name, start, running, replicas, kept) in [
        ("down", deployment(3), Running::Standby(0), 0, Some("3")),
        ("to a warm standby", deployment(3), Running::Standby(1), 1, Some("3")),
        ("one that has none", deployment(0), Running::Standby(0), 0, Some("0")),
        ("serving already", deployment(3), Running::Serve, 3, None),
    ] {
        let mut now = start;
        while let Some(patch) = scale(&now, running) {
            json_patch::merge(&mut now, &patch);
        }
        assert_eq!(
            (
                now["spec"]["replicas"].as_i64(),
                object::annotation(&now, "leeward.dev/replicas")
            ),
            (Some(replicas), kept),
            "{name}"
        );
        if let Some(patch) = scale(&now, Running::Serve) {
            json_patch::merge(&mut now, &patch);
            assert_eq!(now["spec"]["replicas"].to_string(), kept.unwrap(), "{name}, and back");
        }
    }
}

#[test]
fn an_override_changes_its_object_and_never_what_it_is() {
    let change = |patch: Value| Override {
        kind: "Deployment".into(),
        name: "web".into(),
        patch,
    };
    let given = bundle("west", everything());
    let objects = desired(
        &given,
        &[change(json!({ "spec": { "replicas": 5 } }))],
        Running::Standby(1),
    )
    .unwrap();
    let web = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    assert_eq!(
        (
            &web["spec"]["replicas"],
            &web["metadata"]["annotations"]["leeward.dev/replicas"]
        ),
        (&json!(1), &json!("5"))
    );
    for (patch, field) in [
        (json!({ "kind": "StatefulSet" }), "kind"),
        (json!({ "apiVersion": "v2" }), "apiVersion"),
        (json!({ "metadata": { "name": "other" } }), "metadata.name"),
        (
            json!({ "metadata": { "namespace": "kube-system" } }),
            "metadata.namespace",
        ),
        (json!({ "metadata": null }), "metadata.name"),
    ] {
        let error = desired(&given, &[change(patch)], Running::Serve).unwrap_err();
        assert_eq!(
            error,
            Error::Identity {
                kind: "Deployment".into(),
                name: "web".into(),
                field
            }
        );
    }
}

pub(super) fn plan_at(cluster: &str, bundle: &Bundle, existing: &[Value]) -> Vec<Change> {
    plan(
        bundle,
        &desired(bundle, &[], Running::Standby(0)).unwrap(),
        existing,
        &west_is_home(cluster),
    )
}

#[test]
fn an_empty_standby_gets_everything_in_the_order_of_what_refers_to_what_marked_as_carried() {
    let bundle = bundle("west", everything());
    let changes = plan_at("east", &bundle, &[]);
    let kinds: Vec<&str> = changes
        .iter()
        .map(|change| match change {
            Change::Apply(object) => object["kind"].as_str().unwrap(),
            other => panic!("{other}"),
        })
        .collect();
    let order = [
        "Namespace",
        "ServiceAccount",
        "Secret",
        "Secret",
        "Secret",
        "PersistentVolumeClaim",
        "Service",
        "Deployment",
    ];
    assert_eq!(kinds, order);
    for change in &changes[1..] {
        let Change::Apply(object) = change else {
            panic!("{change}")
        };
        assert_eq!(object::label(object, "leeward.dev/app"), Some("shop.web"));
        assert_eq!(object::annotation(object, "leeward.dev/carried-from"), Some("west"));
    }
}

#[test]
fn what_the_active_cluster_dropped_is_applied_again_and_what_others_added_is_left() {
    let mut objects = everything();
    objects.push(object("ConfigMap", "c", json!({ "data": { "a": "1", "b": "2" } })));
    let before = bundle("west", objects.clone());
    let here = after(&plan_at("east", &before, &[]), &[]);
    objects.last_mut().unwrap()["data"] = json!({ "a": "1" });
    let changes = plan_at("east", &bundle("west", objects.clone()), &here);
    assert!(
        matches!(&changes[..], [Change::Apply(object)] if object["metadata"]["name"] == "c"),
        "{changes:?}"
    );

    let mut here = here;
    here[1]["metadata"]["annotations"]["example.com/theirs"] = json!("x");
    assert_eq!(plan_at("east", &before, &here), []);
    let claim = here
        .iter_mut()
        .find(|object| object["kind"] == "PersistentVolumeClaim")
        .unwrap();
    claim["spec"]["storageClassName"] = json!("other");
    assert_eq!(plan_at("east", &before, &here).len(), 1);
}

#[test]
fn only_what_was_carried_from_the_authority_is_deleted_and_never_a_claim() {
    let full = bundle("west", everything());
    let mut here = after(&plan_at("east", &full, &[]), &[]);
    here.push(object("ConfigMap", "a-persons-own", json!({})));
    let without = |gone: &[&str]| -> Vec<Value> {
        everything()
            .into_iter()
            .filter(|object| !gone.contains(&object["kind"].as_str().unwrap()))
            .collect()
    };
    let less = without(&["Service", "PersistentVolumeClaim", "Secret"]);
    let changes = plan_at("east", &bundle("west", less.clone()), &here);
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "Service web is deleted: it is gone where it came from",
            "PersistentVolumeClaim data is gone in the active cluster and stays here: a claim may hold the last copy of data",
            "Secret pull is deleted: it is gone where it came from",
            "Secret keys is deleted: it is gone where it came from",
            "Secret init is deleted: it is gone where it came from",
        ]
    );

    let deletes = |changes: &[Change]| changes.iter().any(|change| matches!(change, Change::Delete(_)));
    assert!(
        !deletes(&plan_at("west", &bundle("east", less.clone()), &here)),
        "absence elsewhere is no deletion at the authority"
    );
    assert!(
        !deletes(&plan_at("north", &bundle("east", less), &here)),
        "nor is absence in a cluster that is not the authority"
    );
    let empty = plan_at("east", &bundle("west", without(&["Deployment", "Service"])), &here);
    assert!(
        !deletes(&empty) && empty.len() == 2,
        "no workload left may be a loss: {empty:?}"
    );
    assert!(!deletes(&plan_at("east", &bundle("west", Vec::new()), &here)));
}

#[test]
fn what_another_manager_keeps_is_reported_and_not_written() {
    let full = bundle("west", everything());
    let here = after(&plan_at("east", &full, &[]), &[]);
    for (labels, annotations, owner) in [
        (
            json!({}),
            json!({ "argocd.argoproj.io/tracking-id": "x:apps/Deployment:shop/web" }),
            "Argo CD (Application x)",
        ),
        (
            json!({ "kustomize.toolkit.fluxcd.io/name": "x" }),
            json!({}),
            "Flux (Kustomization x)",
        ),
        (
            json!({ "app.kubernetes.io/managed-by": "Helm" }),
            json!({ "meta.helm.sh/release-name": "x" }),
            "Helm (release x)",
        ),
        (
            json!({ "leeward.dev/app": "shop.other" }),
            json!({}),
            "the application shop.other",
        ),
    ] {
        let mut here = here.clone();
        let web = here.last_mut().unwrap();
        json_patch::merge(
            web,
            &json!({ "metadata": { "labels": labels, "annotations": annotations } }),
        );
        assert_eq!(plan_at("east", &full, &here), [], "{owner} keeps it as it should be");
        here.last_mut().unwrap()["spec"]["replicas"] = json!(3);
        let changes = plan_at("east", &full, &here);
        let [drift @ Change::Drift { id, difference, .. }] = changes.as_slice() else {
            panic!("{owner}: {changes:?}");
        };
        assert_eq!(*id, Id::new(Kind::Deployment, "web"));
        assert_eq!(difference, "spec.replicas is 3, not 0");
        let said = format!("Deployment web is kept by {owner} and is not as it should be: spec.replicas is 3, not 0; ");
        let said = drift.to_string().strip_prefix(&said).map(ToOwned::to_owned);
        let setting = said.unwrap_or_else(|| panic!("{drift}"));
        assert_eq!(
            setting.contains("replicas"),
            !owner.contains("application"),
            "{setting}"
        );
    }
}

#[test]
fn replicas_that_flux_has_from_git_are_told_before_it_undoes_a_failover() {
    let full = bundle("west", everything());
    let mut here = after(&plan_at("east", &full, &[]), &[]);
    let web = here.last_mut().unwrap();
    let flux = |fields: Value| {
        json!({ "metadata": { "labels": { "kustomize.toolkit.fluxcd.io/name": "x", "kustomize.toolkit.fluxcd.io/namespace": "flux" },
            "managedFields": [{ "manager": "kustomize-controller", "operation": "Apply", "fieldsV1": { "f:spec": fields } }] } })
    };
    json_patch::merge(web, &flux(json!({ "f:replicas": {}, "f:template": {} })));
    let changes = plan_at("east", &full, &here);
    assert_eq!(changes.len(), 1, "{changes:?}");
    let said = changes[0].to_string();
    assert!(
        said.starts_with("Deployment web is kept by Flux (Kustomization flux/x) and is not as it should be: spec.replicas is said in git; "),
        "{said}"
    );
    here.last_mut().unwrap()["metadata"]["managedFields"] =
        flux(json!({ "f:template": {} }))["metadata"]["managedFields"].clone();
    assert_eq!(plan_at("east", &full, &here), []);
}

#[test]
fn what_was_here_before_is_written_but_never_becomes_ours_to_delete() {
    let full = bundle("west", everything());
    let mut here = Vec::new();
    for place in ["west", "east"] {
        here = everything();
        let source = bundle(if place == "west" { "east" } else { "west" }, everything());
        let changes = plan_at(place, &source, &here);
        assert!(!changes.is_empty());
        here = after(&changes, &here);
        assert!(
            here.iter()
                .all(|object| object::label(object, "leeward.dev/app").is_none()),
            "{place}"
        );
        assert_eq!(plan_at(place, &source, &here), []);
    }
    let only_the_workload = full
        .objects
        .iter()
        .filter(|object| object["kind"] == "Deployment")
        .cloned()
        .collect();
    assert!(plan_at("east", &bundle("west", only_the_workload), &here).is_empty());
}

#[test]
fn a_start_lacks_every_object_and_everything_that_a_workload_refers_to() {
    let mut objects = everything();
    objects.retain(|object| object["metadata"]["name"] != "keys");
    let bundle = bundle("west", objects);
    let here = [bundle.objects[0].clone(), bundle.objects[2].clone()];
    assert_eq!(
        missing(&bundle, &here, &BTreeSet::new()),
        [
            "ServiceAccount web is not here yet",
            "Secret keys, which Deployment web refers to, is not here",
            "Secret pull is not here yet",
            "PersistentVolumeClaim data is not here yet",
            "Service web is not here yet",
            "Deployment web is not here yet",
            "StorageClass local, which PersistentVolumeClaim data refers to, is not here",
        ]
    );
    assert_eq!(
        missing(&bundle, &everything(), &BTreeSet::from(["local".to_owned()])),
        Vec::<String>::new()
    );
    // A claim that asks for no class has a volume that a person made.
    let mut objects = everything();
    for object in objects
        .iter_mut()
        .filter(|object| object["kind"] == "PersistentVolumeClaim")
    {
        object["spec"]["storageClassName"] = json!("");
    }
    let bundle = self::bundle("west", objects);
    assert_eq!(missing(&bundle, &everything(), &BTreeSet::new()), Vec::<String>::new());
}

#[test]
fn a_bundle_from_a_peer_may_hold_only_what_is_carried_in_its_own_namespace() {
    let whole = bundle("west", everything());
    assert_eq!(whole.check(), Ok(()));
    let mut damaged = whole.clone();
    damaged.objects[1]["metadata"]["name"] = json!("x");
    assert_eq!(damaged.check(), Err(Error::Damaged { app: app() }));
    for (bad, named) in [
        (
            object("Secret", "s", json!({ "metadata": { "namespace": "kube-system" } })),
            "Secret s of another namespace",
        ),
        (
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "kube-system" } }),
            "Namespace kube-system",
        ),
        (
            json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "x" } }),
            "ClusterRoleBinding",
        ),
        (
            json!({ "apiVersion": "v9", "kind": "Secret", "metadata": { "name": "x", "namespace": "shop" } }),
            "Secret",
        ),
        (object("ConfigMap", "leeward-web", json!({})), "ConfigMap leeward-web"),
        (as_in_a_cluster(object("ConfigMap", "c", json!({}))), "ConfigMap c"),
        (json!("no object"), "no kind"),
    ] {
        let error = bundle("west", vec![bad]).check().unwrap_err().to_string();
        assert!(error.contains(named), "{error} / {named}");
    }
}

#[test]
fn the_hash_does_not_depend_on_the_order_of_keys_and_tells_values_apart() {
    let hash = |text: &str| compare::hash(&[serde_json::from_str(text).unwrap()]);
    assert_eq!(hash(r#"{"a":1,"b":[1,2]}"#), hash(r#"{"b":[1,2],"a":1}"#));
    let different = [
        r#"{"a":1}"#,
        r#"{"a":"1"}"#,
        r#"{"a":[1]}"#,
        r#"{"a":{}}"#,
        r#"{"a":null}"#,
        r#"{"a":[]}"#,
        "{}",
        "[]",
        r#"["ab"]"#,
        r#"["a","b"]"#,
    ];
    assert_eq!(
        different.iter().map(|text| hash(text)).collect::<BTreeSet<_>>().len(),
        different.len()
    );
}

#[test]
fn a_bundle_survives_the_wire() {
    let bundle = bundle("west", everything());
    let read: Bundle = serde_json::from_slice(&serde_json::to_vec(&bundle).unwrap()).unwrap();
    assert_eq!(read, bundle);
    assert_eq!(read.check(), Ok(()));
}

#[test]
fn a_field_that_somebody_adds_to_a_carried_workload_is_drift_and_one_that_is_wanted_is_not() {
    let desired = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "web", "image": "web:1" }] },
        } },
    });
    let owned = |fields: Value| json!([{ "manager": "kubectl-patch", "operation": "Update", "fieldsV1": { "f:spec": fields } }]);
    let label = |name: &str| json!({ "f:template": { "f:metadata": { "f:labels": { format!("f:{name}"): {} } } } });
    let image =
        json!({ "f:template": { "f:spec": { "f:containers": { "k:{\"name\":\"web\"}": { "f:image": {} } } } } });
    let sidecar = json!({ "f:template": { "f:spec": { "f:containers": { "k:{\"name\":\"spy\"}": { ".": {} } } } } });
    let mut existing = desired.clone();
    existing["spec"]["template"]["metadata"]["labels"]["evil"] = "yes".into();
    existing["spec"]["template"]["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "spy" }));
    for (fields, found) in [
        (label("evil"), Some("spec.template.metadata.labels.evil")),
        (sidecar, Some(r#"spec.template.spec.containers[{"name":"spy"}]"#)),
        (label("app"), None),
        (label("gone"), None),
        (image, None),
    ] {
        existing["metadata"]["managedFields"] = owned(fields);
        let added = super::super::compare::added(&desired, &existing, "leeward").map(|(path, _)| path);
        assert_eq!(added.as_deref(), found);
        assert_eq!(
            super::super::compare::added(&desired, &existing, "kubectl-patch"),
            None,
            "one's own fields"
        );
    }
}

#[test]
fn a_priority_class_that_pods_name_has_to_be_here() {
    let named = |kind: &str, name: &str, class: &str| {
        object(
            kind,
            name,
            json!({ "spec": { "template": { "spec": { "priorityClassName": class } } } }),
        )
    };
    let objects = [
        named("Deployment", "web", "gold"),
        named("StatefulSet", "db", "iron"),
        named("Deployment", "node-agent", "system-cluster-critical"),
        named("Deployment", "plain", ""),
        named("ConfigMap", "gold", "gold"),
        deployment(1),
    ];
    let said = missing_priorities(&objects, &BTreeSet::from(["iron".to_owned()]));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("PriorityClass gold, which Deployment web refers to, is not here"),
        "{said:?}"
    );
    // What is different in this placement counts.
    let change = Override {
        kind: "Deployment".into(),
        name: "web".into(),
        patch: json!({ "spec": { "template": { "spec": { "priorityClassName": "iron" } } } }),
    };
    let objects = desired(&bundle("west", objects.to_vec()), &[change], Running::Standby(0)).unwrap();
    assert_eq!(
        missing_priorities(&objects, &BTreeSet::from(["iron".to_owned()])),
        [""; 0]
    );
}
