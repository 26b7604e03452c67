//! Who may use a test's API server, and the files that say so.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Result;
use leeward_local::instance::pki::Authority;
use serde_json::json;

/// The user that may do everything.
pub const ADMIN: &str = "admin";

/// The user that an agent is: no more than what an agent does is allowed to it, where the server asks.
pub const AGENT: &str = "leeward-agent";

/// The users, with their groups.
const USERS: &[(&str, &str)] = &[(ADMIN, "system:masters"), (AGENT, "leeward:agents")];

/// What was written for a server.
pub(crate) struct Files {
    pub(crate) directory: PathBuf,
    /// User, group and token of each user.
    pub(crate) tokens: Vec<(&'static str, &'static str, String)>,
}

/// Where the kubeconfig of a user is.
pub(crate) fn kubeconfig(directory: &Path, user: &str) -> PathBuf {
    directory.join(format!("{user}.kubeconfig"))
}

/// Writes certificates and kubeconfigs for a server at an address.
pub(crate) fn write(directory: &Path, address: SocketAddr) -> Result<Files> {
    let authority = Authority::new("leeward-testing")?;
    let names = ["localhost", "kubernetes.default.svc"];
    let api = authority.issue("kube-apiserver", &names, &[address.ip()])?;
    let accounts = authority.issue("service-accounts", &[], &[] as &[IpAddr])?;
    let tokens: Vec<_> = USERS
        .iter()
        .map(|(user, group)| (*user, *group, format!("{:032x}", rand::random::<u128>())))
        .collect();
    for (name, content) in [
        ("ca.crt", authority.certificate()),
        ("api.crt", api.certificate),
        ("api.key", api.key),
        ("accounts.crt", accounts.certificate),
        ("accounts.key", accounts.key),
    ] {
        std::fs::write(directory.join(name), content)?;
    }
    for (user, _, token) in &tokens {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("https://{address}"),
                "certificate-authority": directory.join("ca.crt")}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        });
        std::fs::write(kubeconfig(directory, user), config.to_string())?;
    }
    Ok(Files {
        directory: directory.to_owned(),
        tokens,
    })
}
