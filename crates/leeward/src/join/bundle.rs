//! What is applied in a cluster, and what the witness is given. Pure: from what the installation is to manifests and files.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use leeward_api::{
    Cluster as ClusterResource, ClusterSpec,
    install::{
        self, CONFIG_KEY, CONFIG_MAP, IDENTITY, IDENTITY_CA, IDENTITY_CERT, IDENTITY_DIR, IDENTITY_KEY, IDENTITY_SPEC,
    },
};
use leeward_controller::inject::webhook;
use serde_json::{Value, json};

use super::{
    address,
    installation::{Cluster, Installation, Quorum},
    issue::Papers,
};

/// What proves who somebody is.
pub(super) struct Proof<'a> {
    pub(super) papers: &'a Papers,
    /// The keys of specifications, hexadecimal, the one that encrypts first.
    pub(super) spec_keys: &'a [String],
    /// What the gates' tokens are derived from.
    pub(super) gate_key: &'a str,
    /// The authority of etcd's members, where it is another one.
    pub(super) etcd_ca: Option<&'a str>,
}

/// The manifests of a cluster, in the order in which they are applied.
pub(super) fn manifests(
    installation: &Installation,
    name: &str,
    cluster: &Cluster,
    proof: &Proof<'_>,
) -> anyhow::Result<String> {
    let mut documents = vec![
        serde_json::to_value(secret(installation, proof))?,
        serde_json::to_value(config_map(installation, name, cluster)?)?,
        // It trusts the installation's authority, and so it is with what has it.
        serde_json::to_value(webhook::configuration(&installation.namespace, &proof.papers.ca))?,
    ];
    for (name, cluster) in &installation.clusters {
        documents.push(serde_json::to_value(resource(name, cluster))?);
    }
    let mut text = String::new();
    for document in &mut documents {
        // What no person wrote, and no status at the beginning.
        if let Some(document) = document.as_object_mut() {
            document.remove("status");
        }
        text += "---\n";
        text += &serde_saphyr::to_string(document)?;
    }
    Ok(text)
}

fn meta(installation: &Installation, name: &str) -> ObjectMeta {
    let labels = [
        ("app.kubernetes.io/name", install::NAME),
        ("app.kubernetes.io/part-of", install::NAME),
    ];
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(installation.namespace.clone()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ObjectMeta::default()
    }
}

fn secret(installation: &Installation, proof: &Proof<'_>) -> Secret {
    let mut data: BTreeMap<String, String> = [
        (IDENTITY_CA, proof.papers.ca.as_str()),
        (IDENTITY_CERT, &proof.papers.certificate),
        (IDENTITY_KEY, &proof.papers.key),
        (install::IDENTITY_GATE, proof.gate_key),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    data.insert(spec_file(), proof.spec_keys.join("\n"));
    if let Some(ca) = proof.etcd_ca {
        data.insert(install::IDENTITY_ETCD_CA.to_owned(), ca.to_owned());
    }
    Secret {
        metadata: meta(installation, IDENTITY),
        data: Some(
            data.into_iter()
                .map(|(key, text)| (key, ByteString(text.into_bytes())))
                .collect(),
        ),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

fn config_map(installation: &Installation, name: &str, cluster: &Cluster) -> anyhow::Result<ConfigMap> {
    let text = serde_json::to_string_pretty(&serve(installation, name, cluster))? + "\n";
    Ok(ConfigMap {
        metadata: meta(installation, CONFIG_MAP),
        data: Some([(CONFIG_KEY.to_owned(), text)].into()),
        ..ConfigMap::default()
    })
}

fn resource(name: &str, cluster: &Cluster) -> ClusterResource {
    ClusterResource::new(
        name,
        ClusterSpec {
            region: cluster.region.clone(),
            zones: cluster.zones.clone(),
            ingress: cluster.ingress.clone(),
            registry: cluster.registry.clone(),
            peer: cluster.peer.clone(),
            maintenance: None,
        },
    )
}

/// The one key of the identity that has the keys of specifications, a line each: so a new one needs no other configuration.
fn spec_file() -> String {
    format!("{IDENTITY_SPEC}0.key")
}

/// The configuration of `leeward serve` in a cluster, as [`leeward_controller::config::Serve`] reads it. What is the same in every region
/// and only known in the cluster, such as its Kubernetes API, is not in it.
pub(super) fn serve(installation: &Installation, name: &str, cluster: &Cluster) -> Value {
    let any = |port: u16| format!("0.0.0.0:{port}");
    let identity = |key: &str| format!("{IDENTITY_DIR}/{key}");
    json!({
        "region": cluster.region,
        "cluster": name,
        "data_dir": install::DATA_DIR,
        "registry_dir": format!("{}/registry", install::DATA_DIR),
        "registry_address": any(install::REGISTRY_PORT),
        "ingress_address": any(install::EDGE_PORT),
        "peer_address": any(install::PEER_PORT),
        "gate_address": any(install::GATE_PORT),
        "gate_url": format!("{}.{}.svc:{}", install::GATE_SERVICE, installation.namespace, install::GATE_PORT),
        "metrics_address": any(install::METRICS_PORT),
        "webhook_address": any(install::WEBHOOK_PORT),
        "peer_ca": identity(IDENTITY_CA),
        "peer_cert": identity(IDENTITY_CERT),
        "peer_key": identity(IDENTITY_KEY),
        "gate_key": identity(install::IDENTITY_GATE),
        "quorum": quorum(installation, cluster),
        "spec_keys": [identity(&spec_file())],
        "witness_url": format!("https://{}", installation.witness),
        "lease_ttl_ms": installation.lease_ttl_ms,
    })
}

/// Where a cluster finds the quorum: a member on its own host first.
fn quorum(installation: &Installation, cluster: &Cluster) -> Value {
    match &installation.quorum {
        Quorum::Embedded => json!({ "embedded": { "url": format!("https://{}", installation.witness) } }),
        Quorum::Etcd {
            endpoints,
            prefix,
            election_ms,
            other_authority,
        } => {
            let host = address::host_of(&cluster.peer);
            let (own, others): (Vec<_>, Vec<_>) = endpoints.iter().partition(|url| address::host_of(url) == host);
            let mut etcd = json!({
                "endpoints": own.into_iter().chain(others).collect::<Vec<_>>(),
                "prefix": prefix,
                "election_ms": election_ms,
            });
            if *other_authority {
                etcd["ca"] = format!("{IDENTITY_DIR}/{}", install::IDENTITY_ETCD_CA).into();
            }
            json!({ "etcd": etcd })
        }
    }
}

/// The files of the witness, which lie in `at` where it runs.
pub(super) fn witness(
    installation: &Installation,
    at: &Path,
    metrics: SocketAddr,
    papers: &Papers,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let port = installation.witness.rsplit_once(':').map_or("", |(_, port)| port);
    let config = json!({
        "address": format!("0.0.0.0:{port}"),
        "metrics_address": metrics,
        "data_dir": "/var/lib/leeward-witness",
        "quorum": installation.quorum == Quorum::Embedded,
        "ca": at.join(IDENTITY_CA),
        "cert": at.join(IDENTITY_CERT),
        "key": at.join(IDENTITY_KEY),
    });
    Ok(vec![
        (IDENTITY_CA, papers.ca.clone()),
        (IDENTITY_CERT, papers.certificate.clone()),
        (IDENTITY_KEY, papers.key.clone()),
        (CONFIG, serde_json::to_string_pretty(&config)? + "\n"),
        (UNIT, unit(at)),
    ])
}

/// The name of the witness's configuration.
pub(super) const CONFIG: &str = "witness.json";

/// Where the witness's program is on its machine.
pub(super) const PROGRAM: &str = "/usr/local/bin/leeward";

/// The name of the witness's unit.
pub(super) const UNIT: &str = "leeward-witness.service";

/// It needs its files, its directory and the network, and may do nothing else.
fn unit(at: &Path) -> String {
    format!(
        "[Unit]
Description=Leeward witness
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={PROGRAM} witness --config {}/{CONFIG}
User=leeward
Group=leeward
StateDirectory=leeward-witness
StateDirectoryMode=0700
UMask=0077
Restart=always
RestartSec=1
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
PrivateDevices=yes
PrivateTmp=yes
PrivateUsers=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
",
        at.display()
    )
}

#[cfg(test)]
mod tests {
    use leeward_controller::config;

    use super::*;
    use crate::join::installation::tests::installation;

    fn papers() -> Papers {
        Papers {
            ca: "CA".into(),
            certificate: "CERT".into(),
            key: "KEY".into(),
            until: 0,
            made: None,
        }
    }

    /// What the agent reads of it. Where its Kubernetes API is it finds by itself in a cluster.
    fn read(serve: Value) -> config::Serve {
        let serve: config::Serve = serde_json::from_value(serve).unwrap();
        assert!(serve.kubeconfig.is_none());
        serve
    }

    #[test]
    fn the_agent_reads_what_is_rendered_for_it() {
        let mut one = installation();
        let serve = read(serve(&one, "west", &one.clusters["west"]));
        assert_eq!((serve.cluster.as_str(), serve.region.as_str()), ("west", "west"));
        assert_eq!(serve.peer_address.port(), install::PEER_PORT);
        assert!(serve.peer_address.ip().is_unspecified());
        let asked = serve.asked_by_gates().unwrap();
        assert_eq!(asked.as_deref(), Some("leeward-gate.leeward-system.svc:7444"));
        assert_eq!(serve.peer_cert, Path::new("/etc/leeward/identity/tls.crt"));
        assert_eq!(serve.spec_keys, [Path::new("/etc/leeward/identity/spec-0.key")]);
        assert!(matches!(serve.quorum, config::Quorum::Embedded { url } if url == "https://witness.example:7443"));
        one.quorum = Quorum::Etcd {
            endpoints: ["w.example", "e.example", "x.example"]
                .map(|host| format!("https://{host}:2379"))
                .into(),
            prefix: "leeward/".into(),
            election_ms: 700,
            other_authority: true,
        };
        let serve = read(super::serve(&one, "east", &one.clusters["east"]));
        let config::Quorum::Etcd(etcd) = serve.quorum else {
            panic!("not on etcd")
        };
        assert_eq!(etcd.endpoints[0], "https://e.example:2379");
        assert_eq!((etcd.endpoints.len(), etcd.election_ms), (3, 700));
        assert_eq!(etcd.ca.as_deref(), Some(Path::new("/etc/leeward/identity/etcd-ca.crt")));
    }

    #[test]
    fn a_bundle_has_what_the_agent_mounts_and_every_cluster() {
        let one = installation();
        let proof = Proof {
            papers: &papers(),
            spec_keys: &["aa".into(), "bb".into()],
            gate_key: "cc",
            etcd_ca: None,
        };
        let text = manifests(&one, "west", &one.clusters["west"], &proof).unwrap();
        let documents: Vec<Value> = text
            .split("---\n")
            .skip(1)
            .map(|text| serde_saphyr::from_str(text).unwrap())
            .collect();
        let kinds: Vec<_> = documents.iter().map(|one| one["kind"].as_str().unwrap()).collect();
        assert_eq!(
            kinds,
            [
                "Secret",
                "ConfigMap",
                "MutatingWebhookConfiguration",
                "Cluster",
                "Cluster"
            ]
        );
        let secret: Secret = serde_json::from_value(documents[0].clone()).unwrap();
        let data = secret.data.unwrap();
        assert_eq!(data["spec-0.key"].0, b"aa\nbb");
        assert_eq!(data["tls.crt"].0, b"CERT");
        assert_eq!(secret.metadata.namespace.as_deref(), Some("leeward-system"));
        let map: ConfigMap = serde_json::from_value(documents[1].clone()).unwrap();
        let serve: Value = serde_json::from_str(&map.data.unwrap()["serve.json"]).unwrap();
        assert_eq!(serve, super::serve(&one, "west", &one.clusters["west"]));
        let cluster: ClusterResource = serde_json::from_value(documents[3].clone()).unwrap();
        assert_eq!(
            (cluster.metadata.name.as_deref(), cluster.spec.peer.as_str()),
            (Some("east"), "e.example:7443")
        );
        assert!(documents[3].get("status").is_none());
    }

    #[test]
    fn the_witness_reads_what_is_written_for_it() {
        let mut one = installation();
        one.witness = "w.example:9443".into();
        let metrics = "0.0.0.0:9464".parse().unwrap();
        let files = witness(&one, Path::new("/etc/w"), metrics, &papers()).unwrap();
        let text = |name: &str| &files.iter().find(|(file, _)| *file == name).unwrap().1;
        let config: config::Witness = serde_json::from_str(text("witness.json")).unwrap();
        assert_eq!((config.address.port(), config.quorum), (9443, true));
        assert_eq!(config.metrics_address, Some(metrics));
        assert_eq!(config.key, Path::new("/etc/w/tls.key"));
        assert!(text(UNIT).contains("leeward witness --config /etc/w/witness.json\n"));
    }
}
