//! The names and addresses that `leeward join` is given. Pure.

use std::net::IpAddr;

use leeward_api::install;

/// The name of the witness among those who have certificates.
pub(super) const WITNESS: &str = "witness";

/// A name that can stand in DNS, in a certificate and in a resource (RFC 1123): a cluster's, a region's, a namespace's.
///
/// # Errors
/// It is none.
pub(super) fn label(text: &str) -> Result<String, String> {
    let fits = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-');
    match fits {
        true => Ok(text.to_owned()),
        false => Err("a name is 1 to 63 of a-z, 0-9 and -, neither first nor last a -".to_owned()),
    }
}

/// The name of a cluster: a label, and no name that means somebody else.
///
/// # Errors
/// It is none.
pub(crate) fn cluster(text: &str) -> Result<String, String> {
    match label(text)?.as_str() {
        WITNESS => Err("this is the witness's name; a cluster needs another one".to_owned()),
        "root" => Err("this is the user of etcd who may do everything; a cluster needs another name".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// A name in DNS or an address, without a port; of an IPv6 address also with brackets, which are left out.
///
/// # Errors
/// It is none.
pub(super) fn host(text: &str) -> Result<String, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return match address.is_unspecified() {
            true => Err("it is where one listens, and not where one is reached".to_owned()),
            false => Ok(address.to_string()),
        };
    }
    let part = |part: &str| label(&part.to_ascii_lowercase()).is_ok();
    // All digits and dots is an address with a mistake in it.
    let numbers = bare.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match bare.len() <= 253 && bare == text && !numbers && bare.split('.').all(part) {
        true => Ok(bare.to_ascii_lowercase()),
        false => Err("it is neither a name in DNS nor an address; write it without scheme and port".to_owned()),
    }
}

/// `HOST:PORT`, of an IPv6 address `[HOST]:PORT`.
///
/// # Errors
/// It is none, or has no port.
pub(super) fn address(text: &str) -> Result<String, String> {
    let (name, port) =
        split(text).ok_or_else(|| "it has no port; write it as HOST:PORT, or [HOST]:PORT for IPv6".to_owned())?;
    Ok(join(&host(name)?, port))
}

/// The same; without a port that of the peer link is meant.
///
/// # Errors
/// It is none.
pub(super) fn peer(text: &str) -> Result<String, String> {
    address(text).or_else(|error| match split(text) {
        Some(_) => Err(error),
        None => Ok(join(&host(text)?, install::PEER_PORT)),
    })
}

/// `https://HOST:PORT`.
///
/// # Errors
/// It is none.
pub(super) fn endpoint(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("https://")
        .ok_or("a member of etcd is reached at https://HOST:PORT")?;
    Ok(format!("https://{}", address(rest.trim_end_matches('/'))?))
}

/// `NAME=HOST`, a cluster and where it is reached.
///
/// # Errors
/// One half is not what it should be.
pub(super) fn named(text: &str) -> Result<(String, String), String> {
    let (name, at) = text.split_once('=').ok_or("write it as NAME=HOST")?;
    Ok((cluster(name)?, host(at)?))
}

/// Of a `HOST:PORT` that was checked.
pub(super) fn host_of(address: &str) -> String {
    let bare = address.strip_prefix("https://").unwrap_or(address);
    let host = split(bare).map_or(bare, |(host, _)| host);
    host.trim_matches(['[', ']']).to_owned()
}

/// A host with a port.
pub(super) fn join(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn split(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    // Of an IPv6 address without brackets the last part is no port.
    let whole = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    let port = port.parse().ok().filter(|port| *port > 0 && whole)?;
    Some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_that_can_be_reached_and_a_port() {
        for (text, meant) in [
            ("west.example:7443", "west.example:7443"),
            ("West.Example:7443", "west.example:7443"),
            ("10.0.0.7:1", "10.0.0.7:1"),
            ("[2001:db8::0:7]:7443", "[2001:db8::7]:7443"),
        ] {
            assert_eq!(address(text).as_deref(), Ok(meant), "{text}");
        }
        for text in [
            "",
            "west",
            "west:",
            "west:0",
            "west:70000",
            ":7443",
            "https://west:7443",
            "10.0.0:80",
            "10.0.0.300:80",
            "0.0.0.0:80",
            "[::]:80",
            "2001:db8::7",
            "a b:80",
            "-a:80",
            "west/x:80",
            "[west]:80",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
        assert_eq!(peer("w.example").as_deref(), Ok("w.example:7443"));
        assert_eq!(peer("2001:db8::7").as_deref(), Ok("[2001:db8::7]:7443"));
        assert!(peer("w.example:0").is_err());
        assert_eq!(endpoint("https://e1:2379/").as_deref(), Ok("https://e1:2379"));
        assert!(endpoint("http://e1:2379").is_err() && endpoint("https://e1").is_err());
        assert_eq!(host_of("https://[2001:db8::7]:2379"), "2001:db8::7");
        assert_eq!(host_of("west.example:7443"), "west.example");
    }

    #[test]
    fn a_cluster_has_a_name_that_stands_for_nobody_else() {
        assert_eq!(named("west=10.0.0.7"), Ok(("west".into(), "10.0.0.7".into())));
        for text in [
            "west",
            "=h",
            "West=h",
            "w_t=h",
            "witness=h",
            "root=h",
            "west=h:7443",
            "west=",
        ] {
            assert!(named(text).is_err(), "{text}");
        }
        assert!(label(&"a".repeat(64)).is_err() && label("-a").is_err() && label("a-").is_err());
    }
}
