//! Secrets of an application go to its standbys only where a person asks for it, and nowhere else in any case.

use std::path::{Path, PathBuf};

use leeward_controller::peer::Credentials;

use crate::commands::{Home, SHOP, push_shell};

const PASSWORD: &str = "one-that-nobody-else-may-read";
/// The same as it stands in a Secret.
const ENCODED: &str = "b25lLXRoYXQtbm9ib2R5LWVsc2UtbWF5LXJlYWQ=";

/// The shop with a Secret that its pods need, and this among its specification.
fn shop(configuration: &str) -> String {
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: db, namespace: shop, labels: {{app: shop}}}}\ndata: {{password: {ENCODED}}}\n---\n"
    );
    let namespace = "metadata: {name: shop}\n---\n";
    let mounts = "        volumeMounts:";
    assert!(SHOP.contains(namespace) && SHOP.contains(mounts));
    let env = "        env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}]\n";
    let shop = SHOP.replace(namespace, &format!("{namespace}{secret}"));
    let shop = shop.replace(mounts, &format!("{env}{mounts}"));
    format!("{}\n{configuration}\n", shop.trim_end())
}

/// Every file below a directory that holds the password, by its path from there.
fn holders(directory: &Path) -> Vec<PathBuf> {
    let (mut open, mut found) = (vec![directory.to_owned()], vec![]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else if path.is_file() {
                let text = std::fs::read(&path).unwrap_or_default();
                let holds = |what: &str| text.windows(what.len()).any(|part| part == what.as_bytes());
                if holds(PASSWORD) || holds(ENCODED) {
                    found.push(path);
                }
            }
        }
    }
    found
}

/// How west answers who shows these certificates and asks for the configuration.
fn ask(home: &Home, pki: &Path) -> u16 {
    let file = |name: &str| pki.join(name);
    let credentials = Credentials::read(&file("peer-ca.crt"), &file("peer.crt"), &file("peer.key")).unwrap();
    let west = home.instance().addresses("west").unwrap().peer();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let url = format!("https://{west}/v1/config/shop/shop?have=&secrets=null");
        let answer = credentials.client().unwrap().get(url).send().await.unwrap();
        answer.status().as_u16()
    })
}

#[test]
fn secrets_go_to_a_standby_where_they_are_asked_for_and_nowhere_else() {
    let home = Home::new();
    home.expect(0, &["up", "--regions", "west,east,north", "--ttl", "5", "--nodes", "1"]);
    push_shell(home.instance().addresses("west").unwrap().registry());
    let manifest = home.0.path().join("shop.yaml");
    let apply = |configuration: &str| {
        std::fs::write(&manifest, shop(configuration)).unwrap();
        home.expect(0, &["apply", "-f", manifest.to_str().unwrap()]);
        std::fs::remove_file(&manifest).unwrap();
    };
    let regions = home.0.path().join("home/regions");
    let held_outside_of = |regions_of_it: &[&str]| -> Vec<PathBuf> {
        let mut held = holders(home.0.path());
        // What its pods are given, the API that has the Secret, and what a standby keeps of its configuration.
        held.retain(|path| {
            !regions_of_it.iter().any(|region| {
                let region = regions.join(region);
                let parts = ["api", "nodes", "agent/carried/shop.shop.json"];
                parts.iter().any(|part| path.starts_with(region.join(part)))
            })
        });
        held
    };

    apply("");
    let lacking = "Secret db, which Deployment shop refers to, is not here, and it is not carried";
    let out = home.until(&["explain", "shop"], |out| out.contains(lacking));
    assert!(out.contains("or ask for it with spec.configuration.secrets"), "{out}");
    let (out, err) = home.expect(1, &["switchover", "shop", "--to", "east"]);
    assert!(out.contains(lacking) || err.contains(lacking), "{out}{err}");
    assert!(!holders(home.0.path()).is_empty(), "the Secret is in west");
    assert_eq!(held_outside_of(&["west"]), [""; 0].map(PathBuf::from));

    apply("  configuration: {secrets: Named, secretNames: [db]}");
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));
    let kept = regions.join("east/agent/carried/shop.shop.json");
    assert!(holders(&regions.join("east")).contains(&kept), "it came to east");
    assert_eq!(held_outside_of(&["west", "east"]), [""; 0].map(PathBuf::from));
    let asked = |region: &str| ask(&home, &regions.join(region).join("pki"));
    assert_eq!(
        (asked("east"), asked("north")),
        (200, 403),
        "only a region that it is placed in"
    );

    // Not asked for any more, as after an upgrade from a version that always carried it: a start there still has it.
    apply("");
    home.until(&["explain", "shop"], |out| {
        out.contains("not known: whether Secret db is as it should be: it was carried here before")
    });
    home.until(&["status", "shop"], |_| {
        !holders(kept.parent().unwrap()).contains(&kept)
    });
    home.until_code(0, &["switchover", "shop", "--to", "east"]);
    assert_eq!(held_outside_of(&["west", "east"]), [""; 0].map(PathBuf::from));
}
