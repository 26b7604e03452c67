use super::{
    samples::{self, cluster, operation, shop, time},
    *,
};

fn answer(cluster: &str, view: View) -> Answer {
    Answer {
        cluster: cluster.into(),
        view: Ok(view),
    }
}

fn apps(apps: Vec<ProtectedApp>) -> View {
    View {
        apps,
        ..View::default()
    }
}

fn written_at<T: kube::Resource>(mut resource: T, second: i64) -> T {
    let entry = serde_json::json!({"manager": "leeward", "time": time(second).to_string()});
    resource.meta_mut().managed_fields = Some(vec![serde_json::from_value(entry).unwrap()]);
    resource
}

#[test]
fn the_newest_plan_counts_whoever_answers_first() {
    let old = || answer("west", apps(vec![written_at(shop(3, "west", &[]), 9)]));
    let new = || answer("east", apps(vec![written_at(shop(5, "east", &[]), 1)]));
    for answers in [vec![old(), new()], vec![new(), old()]] {
        let picture = merge(answers);
        let told = picture.app("shop", None).unwrap();
        assert_eq!(told.by, "east");
        assert_eq!(told.resource.status.as_ref().unwrap().active.as_deref(), Some("east"));
    }
}

#[test]
fn within_a_plan_the_answer_that_changed_last_counts() {
    let west = |second| View {
        clusters: vec![written_at(cluster("west", "Held", true), second)],
        ..apps(vec![written_at(shop(3, "west", &[]), second)])
    };
    let picture = merge(vec![answer("west", west(1)), answer("east", west(2))]);
    assert_eq!(
        (picture.apps[0].by.as_str(), picture.clusters[0].by.as_str()),
        ("east", "east")
    );
    let picture = merge(vec![answer("west", west(2)), answer("east", west(1))]);
    assert_eq!(
        (picture.apps[0].by.as_str(), picture.clusters[0].by.as_str()),
        ("west", "west")
    );
}

#[test]
fn a_silent_cluster_is_named_and_the_others_are_told() {
    let silent = Answer {
        cluster: "west".into(),
        view: Err("refused".into()),
    };
    let picture = merge(vec![silent, answer("east", apps(vec![shop(1, "east", &[])]))]);
    assert_eq!(picture.answered, ["east"]);
    assert_eq!(picture.silence_of("west"), Some("refused"));
    let error = picture.app("web", None).unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no ProtectedApp web; known are shop/shop (not answering: west)"
    );
}

#[test]
fn an_application_is_found_by_its_name_where_that_is_unique() {
    let mut other = shop(1, "west", &[]);
    other.metadata.namespace = Some("test".into());
    let picture = merge(vec![answer("west", apps(vec![shop(1, "west", &[]), other]))]);
    let namespace = |name, namespace| {
        let told = picture.app(name, namespace).map_err(|error| error.to_string())?;
        Ok::<_, String>(told.resource.namespace().unwrap())
    };
    assert_eq!(namespace("shop", Some("test")).unwrap(), "test");
    assert_eq!(namespace("test/shop", None).unwrap(), "test");
    let cases = [
        (
            namespace("shop", None),
            "there are ProtectedApps shop in the namespaces shop, test; choose one with -n NAMESPACE",
        ),
        (
            namespace("shop", Some("x")),
            "there is no ProtectedApp shop in namespace x; known are shop/shop, test/shop",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found.unwrap_err(), expected);
    }
    let none = merge(vec![answer("west", View::default())]);
    let error = none.app("shop", None).unwrap_err().to_string();
    assert_eq!(error, "there is no ProtectedApp shop; no application is protected yet");
}

#[test]
fn what_one_copy_of_a_cluster_says_alone_is_kept_whichever_copy_counts() {
    let mut leaves = written_at(cluster("east", "Held", true), 1);
    leaves.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time(1)));
    let mut ignored = written_at(cluster("west", "Held", true), 1);
    for (resource, type_) in [(&mut leaves, "Leaving"), (&mut ignored, "Effective")] {
        let condition = samples::condition(type_, false, "R");
        let conditions = &mut resource.status.as_mut().unwrap().conditions;
        conditions.push(serde_json::from_value(condition).unwrap());
    }
    let view = |clusters| View {
        clusters,
        ..View::default()
    };
    let newer = written_at(cluster("east", "Held", true), 9);
    let picture = merge(vec![
        answer("west", view(vec![leaves])),
        answer("east", view(vec![newer, ignored])),
    ]);
    assert_eq!(
        picture.remarks,
        [
            "Cluster east is being deleted in west and waits for it is so",
            "Cluster west in east: it is so"
        ]
    );
}

#[test]
fn operations_of_an_application_come_newest_first() {
    let mut older = operation("older", "Succeeded", 1);
    older.status.as_mut().unwrap().started = None;
    let mut other = operation("other", "Succeeded", 1);
    other.spec.app = "web".into();
    let view = View {
        operations: vec![older, other, operation("newer", "Running", 2)],
        ..apps(vec![shop(1, "west", &[])])
    };
    let picture = merge(vec![answer("west", view)]);
    let names: Vec<_> = picture
        .operations_of(&picture.apps[0].resource)
        .iter()
        .map(|o| o.name_any())
        .collect();
    assert_eq!(names, ["newer", "older"]);
}
