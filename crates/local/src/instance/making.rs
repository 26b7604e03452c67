//! Making an instance: names checked, addresses chosen, certificates, tokens and configuration files written.

use std::{collections::HashSet, path::Path};

use serde_json::json;

use super::{
    Error, Options, Region, STATE_VERSION, State,
    addresses::{self, MAX_REGIONS, Octet},
    config::{self, Layout},
    files, pki,
    quorum::{self, Member},
};

/// The witness's name among regions and members.
const WITNESS: &str = "witness";

/// Whether these can be the regions of an instance: 1 to 15 different labels (RFC 1123), none of them `witness`.
pub(super) fn check_names(regions: &[&str]) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Regions(why));
    if regions.is_empty() || regions.len() > usize::from(MAX_REGIONS) {
        return refuse(format!(
            "an instance has 1 to {MAX_REGIONS} regions, not {}",
            regions.len()
        ));
    }
    let mut seen = HashSet::new();
    for name in regions {
        let fits = (1..=40).contains(&name.len())
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !fits {
            return refuse(format!(
                "{name:?} is no name for a region: 1 to 40 of a-z, 0-9 and -, neither first nor last a -"
            ));
        }
        if *name == WITNESS {
            return refuse("\"witness\" is the witness's name; a region needs another one".to_owned());
        }
        if !seen.insert(name) {
            return refuse(format!("the region {name:?} is named twice"));
        }
    }
    Ok(())
}

/// Fills the directory.
pub(super) fn make(layout: &Layout, regions: &[&str], options: &Options) -> Result<State, Error> {
    let octet = addresses::free_octet(
        rand::random_range(1..=254),
        regions.len() as u8,
        options.nodes_per_region,
    )?;
    let ttl = u64::try_from(options.lease_ttl.as_millis()).unwrap_or(u64::MAX);
    let state = State {
        version: STATE_VERSION,
        octet,
        nodes: options.nodes_per_region,
        regions: regions.iter().map(|name| (*name).to_owned()).collect(),
        lease_ttl_ms: ttl,
        etcd: options.etcd.clone(),
        begun: None,
    };
    let peers = pki::Authority::new("leeward instance")?;
    let all: Vec<Region<'_>> = regions
        .iter()
        .zip(1..)
        .filter_map(|(name, index)| {
            Some(Region {
                name,
                addresses: octet.region(index)?,
            })
        })
        .collect();
    let members = if options.etcd.is_some() {
        members(octet, &all)
    } else {
        Vec::new()
    };
    let spec_key = token();
    for region in &all {
        make_region(layout, *region, options.nodes_per_region, &peers)?;
        files::write(&layout.pki(region.name, config::SPEC_KEY), spec_key.as_bytes())?;
        let serve = config::Serve::new(layout, *region, octet, ttl, &members);
        files::write_json(&layout.config(Some(region.name), "serve"), &serve)?;
    }
    make_witness(layout, octet, &all, &peers, members.is_empty())?;
    for member in &members {
        make_member(layout, &members, member, &peers)?;
    }
    files::write_json(&layout.state(), &state)?;
    Ok(state)
}

fn make_region(layout: &Layout, region: Region<'_>, nodes: u8, peers: &pki::Authority) -> Result<(), Error> {
    let home = layout.region(region.name);
    for part in ["pki", "api", "nodes", "volumes", "agent", "registry", "logs"] {
        files::directory(&home.join(part))?;
    }
    let file = |name: &str| layout.pki(region.name, name);
    let authority = pki::Authority::new(&format!("leeward region {}", region.name))?;
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
    ];
    let api = authority.issue("kube-apiserver", &names, &[region.addresses.api().ip()])?;
    files::write(&file("ca.crt"), authority.certificate().as_bytes())?;
    files::write(&file("api.crt"), api.certificate.as_bytes())?;
    files::write(&file("api.key"), api.key.as_bytes())?;

    let name = format!("{}.leeward", region.name);
    let peer = peers.issue(region.name, &[&name], &[region.addresses.peer().ip()])?;
    write_identity(&home.join("pki"), peers, &peer)?;

    let admin = token();
    files::write_json(
        &file("tokens.json"),
        &json!([{"token": admin, "user": "admin", "groups": ["system:masters"]}]),
    )?;
    files::write(&file("kubelet.token"), token().as_bytes())?;
    let kubeconfig = config::kubeconfig(region, &authority.certificate(), &admin);
    let text = serde_saphyr::to_string(&kubeconfig)
        .map_err(std::io::Error::other)
        .map_err(files::fault("write", &layout.kubeconfig(region.name)))?;
    files::write(&layout.kubeconfig(region.name), text.as_bytes())?;

    let config = |process: &str| layout.config(Some(region.name), process);
    files::write_json(&config("api"), &config::api(layout, region))?;
    for index in 0..nodes {
        let node = config::node_name(region.name, index);
        files::directory(&home.join("nodes").join(&node))?;
        files::write_json(&config(&node), &config::node(layout, region, index))?;
    }
    Ok(())
}

/// One member a region, and one beside the witness.
fn members(octet: Octet, regions: &[Region<'_>]) -> Vec<Member> {
    let member = |name: &str, (clients, peers)| Member {
        name: name.to_owned(),
        clients,
        peers,
    };
    let of_regions = regions
        .iter()
        .map(|region| member(region.name, region.addresses.etcd()));
    of_regions.chain([member(WITNESS, octet.etcd())]).collect()
}

fn make_member(layout: &Layout, members: &[Member], member: &Member, peers: &pki::Authority) -> Result<(), Error> {
    let region = (member.name != WITNESS).then_some(member.name.as_str());
    let home = region.map_or_else(|| layout.witness(), |region| layout.region(region));
    // Members look where a connection comes from, and on loopback it comes from the first address.
    let addresses = [member.clients.ip(), std::net::Ipv4Addr::LOCALHOST.into()];
    let identity = peers.issue(&member.name, &[], &addresses)?;
    let pki = home.join("pki");
    files::write(&pki.join("etcd.crt"), identity.certificate.as_bytes())?;
    files::write(&pki.join("etcd.key"), identity.key.as_bytes())?;
    let config = quorum::config(members, member, home.join("etcd"), &pki);
    Ok(files::write_json(&layout.config(region, "etcd"), &config)?)
}

fn make_witness(
    layout: &Layout,
    octet: Octet,
    regions: &[Region<'_>],
    peers: &pki::Authority,
    quorum: bool,
) -> Result<(), Error> {
    let home = layout.witness();
    for part in ["pki", "data", "logs"] {
        files::directory(&home.join(part))?;
    }
    let identity = peers.issue(WITNESS, &["witness.leeward"], &[octet.witness().ip()])?;
    write_identity(&home.join("pki"), peers, &identity)?;
    let witness = config::Witness::new(layout, octet, regions.iter().copied(), quorum);
    Ok(files::write_json(&layout.config(None, "witness"), &witness)?)
}

fn write_identity(pki: &Path, peers: &pki::Authority, identity: &pki::Identity) -> Result<(), Error> {
    files::write(&pki.join("peer-ca.crt"), peers.certificate().as_bytes())?;
    files::write(&pki.join("peer.crt"), identity.certificate.as_bytes())?;
    files::write(&pki.join("peer.key"), identity.key.as_bytes())?;
    Ok(())
}

// 256 bits from the system's generator.
fn token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// A client by this kubeconfig.
pub(super) async fn client(kubeconfig: &Path) -> Result<kube::Client, Error> {
    // Whoever runs first in this program decides; all of it uses ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let corrupt = |error: &dyn std::error::Error| Error::Corrupt {
        path: kubeconfig.to_owned(),
        reason: error.to_string(),
    };
    let text = files::read(kubeconfig)?;
    let config = kube::config::Kubeconfig::from_yaml(&text).map_err(|error| corrupt(&error))?;
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default())
        .await
        .map_err(|error| corrupt(&error))?;
    kube::Client::try_from(config).map_err(|error| corrupt(&error))
}
