//! Makes authorities, keys and certificates, and keeps those that are still good for long.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use leeward_controller::clock;
use leeward_pki::{Authority, Pair, Term};

use super::{
    directory::Directory,
    installation::{Holder, Installation},
};

const DAY: u64 = 24 * 3600;
/// How long an authority counts, seconds.
const AUTHORITY: u64 = 10 * 365 * DAY;
/// How long a certificate counts, seconds.
pub(super) const CERTIFICATE: u64 = 365 * DAY;
/// With less than this left a certificate is made anew whenever it is given out, seconds.
pub(super) const RENEWED: u64 = CERTIFICATE / 3;
/// Clocks may be apart by this, seconds.
const APART: u64 = 3600;

/// A certificate with its key and what it is checked with, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Papers {
    pub(super) ca: String,
    pub(super) certificate: String,
    pub(super) key: String,
    /// Its last second, Unix seconds.
    pub(super) until: u64,
    /// Why it was made just now, where it was.
    pub(super) made: Option<String>,
}

pub(super) fn now() -> u64 {
    clock::wall_ms() / 1000
}

/// Makes an authority.
pub(super) fn authority(directory: &Directory, id: &str, number: u32) -> anyhow::Result<()> {
    let file = directory.authority(number);
    let term = Term {
        from: now() - APART,
        until: now() + AUTHORITY,
    };
    let authority = Authority::lasting(&format!("leeward {id} {number}"), term)?;
    directory.write(&file, &authority.pem())
}

/// Makes a key of 256 bits, where it is not there yet.
pub(super) fn key(directory: &Directory, file: &std::path::Path) -> anyhow::Result<String> {
    const DIGITS: usize = 64;
    match directory.read(file)? {
        Some(key) if key.trim().len() == DIGITS && hex::decode(key.trim()).is_ok() => Ok(key),
        Some(_) => bail!(
            "{} is damaged: it should be {DIGITS} hexadecimal digits; bring it back from a copy",
            file.display()
        ),
        None => {
            let key = hex::encode(rand::random::<[u8; 32]>());
            directory.write(file, &key)?;
            Ok(key)
        }
    }
}

/// An authority that is there.
pub(super) fn read_authority(directory: &Directory, number: u32) -> anyhow::Result<Authority> {
    let file = directory.authority(number);
    let text = directory.read(&file)?;
    let text = text.with_context(|| format!("{} is not there: bring it back from a copy", file.display()))?;
    Authority::read(&text).with_context(|| format!("{} is damaged: bring it back from a copy", file.display()))
}

/// The last second of an authority, Unix seconds.
pub(super) fn end(authority: &Authority) -> anyhow::Result<u64> {
    let about = leeward_pki::abouts(authority.certificate().as_bytes())?;
    Ok(about.first().map_or(0, |about| about.until))
}

/// What everybody is to trust, PEM.
pub(super) fn trusted(directory: &Directory, installation: &Installation) -> anyhow::Result<String> {
    let all = installation.authority.trusted.iter();
    let all = all.map(|number| Ok(read_authority(directory, *number)?.certificate()));
    all.collect()
}

/// The certificate of a holder: the one that is there, or a new one where that is not good for longer than `least` seconds.
pub(super) fn papers(
    directory: &Directory,
    installation: &Installation,
    holder: &Holder,
    least: u64,
) -> anyhow::Result<Papers> {
    let who = holder.key();
    let hosts = installation.hosts(holder);
    let hosts = hosts.with_context(|| format!("there is no {who} in this installation"))?;
    let number = installation.authority.signs;
    let authority = read_authority(directory, number)?;
    let ca = trusted(directory, installation)?;
    let file = directory.certificate(holder);
    let kept = directory.read(&file)?;
    let why = match kept.as_deref().map(|pem| judge(pem, &authority, holder, &hosts, least)) {
        Some(Ok((pair, until))) => {
            return Ok(Papers {
                ca,
                certificate: pair.0,
                key: pair.1,
                until,
                made: None,
            });
        }
        Some(Err(why)) => why,
        None => "there was none".to_owned(),
    };
    let end = end(&authority)?;
    if end <= now() {
        bail!(
            "authority {number} of this installation has ended: nobody takes what it signs. Begin a new one with `leeward join authority trust`, \
             and go on with `use` at once; nothing was changed"
        );
    }
    let until = end.min(now() + CERTIFICATE);
    let term = Term {
        from: now() - APART,
        until,
    };
    let made = authority.issue_lasting(&holder.common_name(), hosts, term)?;
    directory.write(&file, &format!("{}{}", made.certificate, made.key))?;
    Ok(Papers {
        ca,
        certificate: made.certificate,
        key: made.key,
        until,
        made: Some(why),
    })
}

/// The certificate and the key of a file, and its last second; or why a new one is needed.
fn judge(
    pem: &str,
    authority: &Authority,
    holder: &Holder,
    hosts: &[String],
    least: u64,
) -> Result<((String, String), u64), String> {
    let (certificate, key) = match pem.find("-----BEGIN PRIVATE KEY-----") {
        Some(at) => (&pem[..at], &pem[at..]),
        None => return Err("the one that was there was damaged".to_owned()),
    };
    let damaged = |flaw: leeward_pki::Flaw| format!("of the one that was there: {flaw}");
    let pair = Pair::read(certificate.as_bytes(), key.as_bytes()).map_err(damaged)?;
    let about = pair.about().map_err(damaged)?;
    let roots = leeward_pki::roots(authority.certificate().as_bytes()).map_err(damaged)?;
    match pair.check(&roots, now()) {
        Err(leeward_pki::Flaw::Untrusted) => return Err("another authority signs now".to_owned()),
        other => other.map_err(damaged)?,
    }
    if about.common_name.as_deref() != Some(&holder.common_name()) {
        return Err("the one that was there was somebody else's".to_owned());
    }
    if about.hosts != hosts.iter().cloned().collect::<BTreeSet<_>>() {
        return Err("it is reached at other hosts now".to_owned());
    }
    match about.until.saturating_sub(now()) {
        left if left <= least => Err(format!("the one that was there ended in {} days", left / DAY)),
        _ => Ok(((certificate.to_owned(), key.to_owned()), about.until)),
    }
}
