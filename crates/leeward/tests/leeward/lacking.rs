//! What a standby's cluster does not let an application do is named before anything moves there.

use k8s_openapi::api::{
    core::v1::{ConfigMap, ResourceQuota},
    scheduling::v1::PriorityClass,
};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    commands::{Home, SHOP, push_shell},
    maintain::client,
};

async fn create<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + serde::Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

#[test]
fn a_priority_class_and_room_in_a_quota_that_a_standby_lacks_are_named_and_nothing_moves_there() {
    let home = Home::new();
    home.expect(0, &["up", "--ttl", "5", "--nodes", "1"]);
    push_shell(home.instance().addresses("west").unwrap().registry());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (west, east) = runtime.block_on(async { (client(&home, "west").await, client(&home, "east").await) });
    let gold = json!({ "metadata": { "name": "gold" }, "value": 1000 });
    runtime.block_on(create(&Api::<PriorityClass>::all(west), gold.clone()));
    let containers = "      containers:\n";
    assert!(SHOP.contains(containers));
    let manifest = home.0.path().join("shop.yaml");
    let named = SHOP.replace(containers, &format!("      priorityClassName: gold\n{containers}"));
    std::fs::write(&manifest, named).unwrap();
    home.expect(0, &["apply", "-f", manifest.to_str().unwrap()]);
    home.until(&["explain", "shop"], |out| {
        out.contains("PriorityClass gold, which Deployment shop refers to, is not here")
    });

    runtime.block_on(async {
        create(&Api::<PriorityClass>::all(east.clone()), gold).await;
        // A change there is looked at at once.
        let maps: Api<ConfigMap> = Api::namespaced(east.clone(), "shop");
        create(&maps, json!({ "metadata": { "name": "of-somebody" } })).await;
    });
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));

    let quotas: Api<ResourceQuota> = Api::namespaced(east, "shop");
    let allow = |pods: &str| {
        let status = json!({ "status": { "hard": { "pods": pods }, "used": { "pods": "2" } } });
        let (quotas, params) = (quotas.clone(), PatchParams::default());
        runtime.block_on(async move {
            quotas
                .patch_status("few", &params, &Patch::Merge(status))
                .await
                .unwrap();
        });
    };
    runtime.block_on(create(
        &quotas,
        json!({ "metadata": { "name": "few" }, "spec": { "hard": { "pods": "2" } } }),
    ));
    allow("2");
    let lacking = "capacity: ResourceQuota few lets 0 of 1 pod of Deployment shop in: short of pods (2 of 2 used)";
    home.until(&["explain", "shop"], |out| out.contains(lacking));
    let (out, err) = home.expect(1, &["switchover", "shop", "--to", "east"]);
    assert!(out.contains(lacking) || err.contains(lacking), "{out}{err}");
    allow("3");
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));
}
