//! Regions that go out of service, join and leave, while an application writes on.

use kube::{Api, ResourceExt as _};
use leeward_api::{Cluster, ProtectedApp};
use serde_json::Value;

use crate::commands::{Home, SHOP, push_shell};

fn active(out: &str) -> String {
    let app: Value = serde_json::from_str(out).unwrap_or_default();
    let status = &app["status"];
    match status["operation"].is_null() {
        true => status["active"].as_str().unwrap_or_default().to_owned(),
        false => "moving".to_owned(),
    }
}

pub(crate) async fn client(home: &Home, region: &str) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(home.instance().kubeconfig(region).unwrap()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await;
    kube::Client::try_from(config.unwrap()).unwrap()
}

/// Waits until a cluster's own view of another one holds.
async fn until_cluster(home: &Home, asked: &str, name: &str, holds: impl Fn(Option<&Cluster>) -> bool) {
    let clusters: Api<Cluster> = Api::all(client(home, asked).await);
    let seen = kube::runtime::wait::await_condition(clusters, name, holds);
    let seen = tokio::time::timeout(crate::region::PATIENCE, seen).await;
    seen.expect("it never came").unwrap();
}

#[test]
fn a_region_is_drained_another_one_joins_and_one_leaves() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = Home::new();
    home.expect(0, &["up", "--regions", "west,east,north", "--ttl", "5", "--nodes", "1"]);
    push_shell(home.instance().addresses("west").unwrap().registry());
    let manifest = home.0.path().join("shop.yaml");
    let apply = |placements: &str| {
        let two = "[{cluster: west}, {cluster: east}]";
        assert!(SHOP.contains(two));
        std::fs::write(&manifest, SHOP.replace(two, placements)).unwrap();
        home.expect(0, &["apply", "-f", manifest.to_str().unwrap()]);
    };
    apply("[{cluster: west}, {cluster: east}]");
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));

    // Said in another cluster it counts for nothing, and that is shown.
    let say = async |maintenance: Value| {
        let clusters: Api<Cluster> = Api::all(client(&home, "east").await);
        let patch = kube::api::Patch::Merge(serde_json::json!({ "spec": { "maintenance": maintenance } }));
        clusters.patch("west", &Default::default(), &patch).await.unwrap();
    };
    runtime.block_on(say("Drain".into()));
    let ignored = "Cluster west in east: spec.maintenance: Drain counts for nothing here";
    let out = home.until(&["status"], |out| out.contains(ignored));
    assert!(
        out.contains("`leeward drain west`") && out.contains("shop/shop     ActivePassive   west"),
        "{out}"
    );
    runtime.block_on(say(Value::Null));
    home.until(&["status"], |out| !out.contains(ignored));

    // Out of service: it moves away, and nothing moves back.
    let (out, _) = home.expect(0, &["drain", "west", "--timeout", "60s"]);
    assert!(out.contains("nothing is active in it: it may be switched off"), "{out}");
    home.until(&["status", "shop", "-o", "json"], |out| active(out) == "east");
    let (out, _) = home.expect(0, &["status"]);
    assert!(out.contains("drained: nothing is active in it"), "{out}");
    let (out, err) = home.expect(1, &["switchover", "shop", "--to", "west"]);
    assert!(format!("{out}{err}").contains("leeward uncordon west"), "{out}{err}");
    let (out, _) = home.expect(0, &["uncordon", "west"]);
    assert!(out.contains("what has moved away stays"), "{out}");
    let (_, err) = home.expect(1, &["drain", "south"]);
    assert!(err.contains("there is no Cluster south"), "{err}");

    // Another one joins.
    apply("[{cluster: west}, {cluster: east}, {cluster: north}]");
    home.until(&["status", "shop", "-o", "json"], |out| {
        let app: ProtectedApp = serde_json::from_str(out).unwrap();
        let placements = app.status.unwrap_or_default().placements;
        placements
            .iter()
            .any(|p| p.cluster == "north" && p.in_sync == Some(true))
    });
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));

    // It is lost for good and taken out: nothing waits for its copy any more.
    home.instance().kill_region("north").unwrap();
    home.until(&["explain", "shop"], |out| out.contains("mirror of role data: north: "));
    apply("[{cluster: west}, {cluster: east}]");
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));
    let instance = home.instance().with_program(env!("CARGO_BIN_EXE_leeward"));
    instance.start_region("north").unwrap();
    apply("[{cluster: west}, {cluster: east}, {cluster: north}]");
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));

    // The one that serves cannot be taken out.
    apply("[{cluster: west}, {cluster: north}]");
    home.until(&["explain", "shop"], |out| out.contains("east cannot be taken out"));

    // It leaves in order.
    runtime.block_on(async {
        let clusters: Api<Cluster> = Api::all(client(&home, "west").await);
        clusters.delete("east", &Default::default()).await.unwrap();
        until_cluster(&home, "west", "east", |cluster| {
            let status = cluster.and_then(|cluster| cluster.status.as_ref());
            let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
            conditions.any(|c| c.type_ == "Leaving" && c.message.contains("shop/shop among them"))
        })
        .await;
    });
    let (out, _) = home.expect(0, &["status"]);
    let waits = "Cluster east is being deleted in west and waits for applications that have a placement in it: 1 (shop/shop among them)";
    assert!(out.contains(waits), "{out}");
    home.expect(0, &["drain", "east", "--timeout", "60s"]);
    home.until(&["status", "shop", "-o", "json"], |out| active(out) == "west");
    runtime.block_on(until_cluster(&home, "west", "east", |cluster| cluster.is_none()));
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));
    let operations: Api<leeward_api::Operation> =
        runtime.block_on(async { Api::namespaced(client(&home, "west").await, "shop") });
    let made = runtime.block_on(operations.list(&Default::default())).unwrap();
    let drains = made
        .items
        .iter()
        .filter(|operation| operation.name_any().starts_with("drain-east-"));
    assert_eq!(drains.count(), 1, "{made:?}");
}
