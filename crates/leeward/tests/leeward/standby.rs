//! A standby whose agent was restarted while the active region is lost: it has on its own disk what a failover needs.

use serde_json::Value;

use crate::commands::{Home, SHOP, push_shell};

#[test]
fn a_standby_whose_agent_starts_after_the_active_region_is_lost_takes_over() {
    let home = Home::new();
    home.expect(0, &["up", "--ttl", "3", "--nodes", "1"]);
    let instance = home.instance().with_program(env!("CARGO_BIN_EXE_leeward"));
    push_shell(instance.addresses("west").unwrap().registry());
    let manifest = home.0.path().join("shop.yaml");
    std::fs::write(&manifest, SHOP.replace("rpo: 10s", "rpo: 30s")).unwrap();
    home.expect(0, &["apply", "-f", manifest.to_str().unwrap()]);
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));

    instance.kill_process("east-serve").unwrap();
    instance.kill_region("west").unwrap();
    instance.start_agent("east").unwrap();
    home.until(&["status", "shop", "-o", "json"], |out| {
        let app: Value = serde_json::from_str(out).unwrap_or_default();
        let status = &app["status"];
        status["active"] == "east" && status["operation"].is_null()
    });
    let (out, _) = home.expect(0, &["explain", "shop"]);
    assert!(out.contains("east is active, epoch 2"), "{out}");
}
