//! What an installation is, without its secrets, and in which order what everybody trusts may change. Pure.
//!
//! What changes for everybody changes in steps: first everybody trusts the new one beside the old one, then it is used, then the old one is
//! dropped. A step is taken only once everybody has the bundle of the step before: somebody without it would be cut off.

use std::collections::BTreeMap;

use leeward_api::install;
use serde::{Deserialize, Serialize};

use super::address::{self, WITNESS};

/// Of what is written here.
pub(super) const VERSION: u32 = 1;

/// `installation.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Installation {
    pub(super) version: u32,
    /// What tells its authorities from others.
    pub(super) id: String,
    pub(super) namespace: String,
    pub(super) lease_ttl_ms: u64,
    pub(super) quorum: Quorum,
    /// `HOST:PORT`.
    pub(super) witness: String,
    pub(super) clusters: BTreeMap<String, Cluster>,
    /// Members of etcd whose certificates are made here, and the hosts that they are valid for.
    #[serde(default)]
    pub(super) members: BTreeMap<String, Vec<String>>,
    pub(super) authority: Authority,
    pub(super) spec_key: SpecKey,
    /// Counts what everybody has to be given.
    pub(super) generation: u64,
    /// The generation of what was last given out, by whom it is for.
    #[serde(default)]
    pub(super) given: BTreeMap<String, u64>,
}

/// A cluster, and where it is reached, `HOST:PORT` each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) region: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) zones: Vec<String>,
    pub(super) ingress: String,
    pub(super) peer: String,
    pub(super) registry: String,
}

/// Where the quorum is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Quorum {
    /// With the witness.
    Embedded,
    /// On etcd.
    Etcd {
        /// `https://HOST:PORT` each.
        endpoints: Vec<String>,
        prefix: String,
        election_ms: u64,
        /// Whether another authority than this installation's signed its members' certificates.
        other_authority: bool,
    },
}

/// Which authorities there are, by their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Authority {
    /// The older one first; two while one takes over from the other.
    pub(super) trusted: Vec<u32>,
    /// The one that signs.
    pub(super) signs: u32,
}

/// Which keys of specifications there are, by their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpecKey {
    /// The first one encrypts, all decrypt.
    pub(super) keys: Vec<u32>,
    /// The one that will encrypt.
    pub(super) next: Option<u32>,
}

impl Authority {
    /// Of a new installation: there is one.
    pub(super) fn first() -> Self {
        Self {
            trusted: vec![1],
            signs: 1,
        }
    }
}

impl SpecKey {
    /// Of a new installation: there is one.
    pub(super) fn first() -> Self {
        Self {
            keys: vec![1],
            next: None,
        }
    }
}

/// A step of a new authority's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Step {
    /// First: a new authority is made, and trusted beside the old one.
    Trust,
    /// Second: it signs every certificate.
    Use,
    /// Third: the old one is trusted no more.
    Drop,
}

/// A step of a new key's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeyStep {
    /// First: a new key is made, which decrypts.
    Trust,
    /// Second: it encrypts.
    Use,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stepped {
    /// It is done now.
    Done,
    /// It was done before.
    Already,
}

/// Why a step is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{asked} comes after {first}: do that first")]
    Order { asked: &'static str, first: &'static str },
    #[error(
        "{} would be cut off: {} not been given what the step before changed. Apply what `{}` writes, and the others likewise",
        .0.join(", "),
        if .0.len() == 1 { "it has" } else { "they have" },
        command(.0.first().map_or("", String::as_str))
    )]
    NotGiven(Vec<String>),
}

/// The command that gives somebody what it needs.
pub(super) fn command(who: &str) -> String {
    match who.strip_prefix(MEMBER) {
        Some(name) => format!("leeward join member {name} --out DIR"),
        None if who == WITNESS => "leeward join witness --out DIR".to_owned(),
        None => format!("leeward join render {who}"),
    }
}

/// What the members' names begin with among those who are given something.
const MEMBER: &str = "etcd/";

/// Somebody who has a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    Cluster(String),
    Witness,
    Member(String),
}

impl Holder {
    /// Its name among those who are given something.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Cluster(name) => name.clone(),
            Self::Witness => WITNESS.to_owned(),
            Self::Member(name) => format!("{MEMBER}{name}"),
        }
    }

    /// Its certificate's common name: by it agents know each other, and etcd its users.
    pub(super) fn common_name(&self) -> String {
        match self {
            Self::Member(name) => format!("etcd-{name}"),
            other => other.key(),
        }
    }
}

impl Installation {
    /// Everybody who has a certificate.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let clusters = self.clusters.keys().cloned().map(Holder::Cluster);
        let members = self.members.keys().cloned().map(Holder::Member);
        clusters.chain([Holder::Witness]).chain(members).collect()
    }

    /// What a holder's certificate is valid for; nothing where there is no such holder.
    pub(super) fn hosts(&self, holder: &Holder) -> Option<Vec<String>> {
        Some(match holder {
            Holder::Witness => vec![address::host_of(&self.witness)],
            Holder::Member(name) => self.members.get(name)?.clone(),
            Holder::Cluster(name) => {
                let peer = address::host_of(&self.clusters.get(name)?.peer);
                // By a Service of the installation, whatever it is called: so its own gates reach it.
                vec![
                    peer,
                    format!("*.{}.svc", self.namespace),
                    format!("*.{}.svc.cluster.local", self.namespace),
                ]
            }
        })
    }

    /// Writes down that somebody was given what is current.
    pub(super) fn give(&mut self, holder: &Holder) {
        self.given.insert(holder.key(), self.generation);
    }

    /// Writes down that what these were given is not the newest any more.
    pub(super) fn outdate(&mut self, which: impl Fn(&Holder) -> bool) {
        for holder in self.holders().into_iter().filter(which) {
            self.given.entry(holder.key()).and_modify(|given| *given = 0);
        }
    }

    fn all_given(&self, only: impl Fn(&Holder) -> bool) -> Result<(), Refusal> {
        let behind = self.holders().into_iter().filter(only).map(|holder| holder.key());
        let behind: Vec<String> = behind
            .filter(|key| self.given.get(key) != Some(&self.generation))
            .collect();
        match behind.is_empty() {
            true => Ok(()),
            false => Err(Refusal::NotGiven(behind)),
        }
    }

    /// Takes a step of a new authority's way. Once the one that signs has `ended`, nobody can be cut off any more.
    ///
    /// # Errors
    /// It is not its turn, or somebody would be cut off.
    pub(super) fn step(&mut self, step: Step, ended: bool) -> Result<Stepped, Refusal> {
        let order = |asked, first| Err(Refusal::Order { asked, first });
        let (old, new) = match self.authority.trusted[..] {
            [only] => (only, None),
            [old, new, ..] => (old, Some(new)),
            [] => return order("everything", "an authority"),
        };
        match (step, new) {
            (Step::Trust, None) => self.authority.trusted.push(old + 1),
            (Step::Trust, Some(new)) if self.authority.signs == new => return order("trust", "drop"),
            (Step::Use, None) => return order("use", "trust"),
            (Step::Use, Some(new)) if self.authority.signs == old => {
                self.all_given(|_| !ended)?;
                self.authority.signs = new;
            }
            (Step::Drop, None) if old == 1 => return order("drop", "trust"),
            (Step::Drop, Some(_)) if self.authority.signs == old => return order("drop", "use"),
            (Step::Drop, Some(new)) => {
                self.all_given(|_| true)?;
                self.authority.trusted = vec![new];
            }
            _ => return Ok(Stepped::Already),
        }
        self.generation += 1;
        Ok(Stepped::Done)
    }

    /// The step of a new authority that comes next, where one is on its way.
    pub(super) fn next(&self) -> Option<Step> {
        match self.authority.trusted[..] {
            [old, _] if self.authority.signs == old => Some(Step::Use),
            [_, _] => Some(Step::Drop),
            _ => None,
        }
    }

    /// Takes a step of a new key's way.
    ///
    /// # Errors
    /// It is not its turn, or a cluster could not read what is written.
    pub(super) fn step_key(&mut self, step: KeyStep) -> Result<Stepped, Refusal> {
        let newest = self.spec_key.keys.iter().copied().max().unwrap_or(0);
        match (step, self.spec_key.next) {
            (KeyStep::Trust, None) => {
                self.spec_key.keys.push(newest + 1);
                self.spec_key.next = Some(newest + 1);
            }
            (KeyStep::Use, Some(next)) => {
                self.all_given(|holder| matches!(holder, Holder::Cluster(_)))?;
                self.spec_key.keys.retain(|key| *key != next);
                self.spec_key.keys.insert(0, next);
                self.spec_key.next = None;
            }
            (KeyStep::Use, None) if newest == 1 => {
                return Err(Refusal::Order {
                    asked: "use",
                    first: "trust",
                });
            }
            _ => return Ok(Stepped::Already),
        }
        self.generation += 1;
        Ok(Stepped::Done)
    }

    /// Adds a cluster, or changes one. Gives what changed, a line each; nothing where nothing did.
    pub(super) fn put(&mut self, name: &str, cluster: Cluster) -> Vec<String> {
        let before = self.clusters.insert(name.to_owned(), cluster.clone());
        let Some(before) = before else {
            return vec![format!("{name} is new, in region {}", cluster.region)];
        };
        let zones = |cluster: &Cluster| match cluster.zones.is_empty() {
            true => "none".to_owned(),
            false => cluster.zones.join(","),
        };
        [
            ("zones", zones(&before), zones(&cluster)),
            ("ingress", before.ingress, cluster.ingress),
            ("peer", before.peer, cluster.peer),
            ("registry", before.registry, cluster.registry),
        ]
        .into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(what, before, after)| format!("{name}: {what} was {before} and is {after} now"))
        .collect()
    }
}

/// A cluster whose Services are at this host, at the ports that they have there.
pub(super) fn at(region: &str, host: &str) -> Cluster {
    Cluster {
        region: region.to_owned(),
        zones: vec![],
        ingress: address::join(host, install::EDGE_OUTSIDE),
        peer: address::join(host, install::PEER_PORT),
        registry: address::join(host, install::REGISTRY_PORT),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::join) fn installation() -> Installation {
        Installation {
            version: VERSION,
            id: "0a1b2c3d".into(),
            namespace: "leeward-system".into(),
            lease_ttl_ms: 15_000,
            quorum: Quorum::Embedded,
            witness: "witness.example:7443".into(),
            clusters: [("west", "w.example"), ("east", "e.example")]
                .map(|(name, host)| (name.to_owned(), at(name, host)))
                .into(),
            members: BTreeMap::new(),
            authority: Authority::first(),
            spec_key: SpecKey::first(),
            generation: 1,
            given: BTreeMap::new(),
        }
    }

    fn give_all(installation: &mut Installation) {
        for holder in installation.holders() {
            installation.give(&holder);
        }
    }

    #[test]
    fn a_new_authority_takes_its_steps_in_order_and_none_before_everybody_has_the_last_one() {
        let mut one = installation();
        let order = |asked, first| Err(Refusal::Order { asked, first });
        assert_eq!(one.step(Step::Use, false), order("use", "trust"));
        assert_eq!(one.step(Step::Drop, false), order("drop", "trust"));
        assert_eq!(one.step(Step::Trust, false), Ok(Stepped::Done));
        assert_eq!(one.step(Step::Trust, false), Ok(Stepped::Already));
        assert_eq!(one.step(Step::Drop, false), order("drop", "use"));
        assert_eq!(
            (one.authority.trusted.as_slice(), one.authority.signs),
            (&[1, 2][..], 1)
        );
        let before = one.clone();
        let refused = one.step(Step::Use, false).unwrap_err();
        assert_eq!(
            refused,
            Refusal::NotGiven(vec!["east".into(), "west".into(), "witness".into()])
        );
        assert!(refused.to_string().contains("leeward join render east"), "{refused}");
        assert_eq!(one, before);
        give_all(&mut one);
        one.members.insert("west".into(), vec!["w.example".into()]);
        let refused = one.step(Step::Use, false).unwrap_err().to_string();
        assert!(refused.contains("leeward join member west --out DIR"), "{refused}");
        give_all(&mut one);
        assert_eq!(one.step(Step::Use, false), Ok(Stepped::Done));
        assert_eq!(one.step(Step::Use, false), Ok(Stepped::Already));
        assert_eq!(one.step(Step::Trust, false), order("trust", "drop"));
        assert!(matches!(one.step(Step::Drop, false), Err(Refusal::NotGiven(_))));
        give_all(&mut one);
        assert_eq!(one.step(Step::Drop, false), Ok(Stepped::Done));
        assert_eq!(one.step(Step::Drop, false), Ok(Stepped::Already));
        assert_eq!((one.authority.trusted.as_slice(), one.authority.signs), (&[2][..], 2));
        assert_eq!(one.step(Step::Trust, false), Ok(Stepped::Done));
        assert_eq!(one.authority.trusted, [2, 3]);
        one.give(&Holder::Witness);
        assert!(matches!(one.step(Step::Use, false), Err(Refusal::NotGiven(_))));
        assert_eq!(one.step(Step::Use, true), Ok(Stepped::Done));
        assert!(matches!(one.step(Step::Drop, true), Err(Refusal::NotGiven(_))));
    }

    #[test]
    fn a_new_key_encrypts_only_once_every_cluster_decrypts_with_it() {
        let mut one = installation();
        assert!(matches!(one.step_key(KeyStep::Use), Err(Refusal::Order { .. })));
        assert_eq!(one.step_key(KeyStep::Trust), Ok(Stepped::Done));
        assert_eq!(one.step_key(KeyStep::Trust), Ok(Stepped::Already));
        assert_eq!(one.spec_key.keys, [1, 2]);
        assert_eq!(
            one.step_key(KeyStep::Use),
            Err(Refusal::NotGiven(vec!["east".into(), "west".into()]))
        );
        // The witness has no key.
        one.give(&Holder::Cluster("west".into()));
        one.give(&Holder::Cluster("east".into()));
        assert_eq!(one.step_key(KeyStep::Use), Ok(Stepped::Done));
        assert_eq!(one.step_key(KeyStep::Use), Ok(Stepped::Already));
        assert_eq!(one.spec_key.keys, [2, 1]);
        assert_eq!(one.step_key(KeyStep::Trust), Ok(Stepped::Done));
        assert_eq!(one.spec_key.keys, [2, 1, 3]);
    }

    #[test]
    fn it_is_said_what_changes_of_a_cluster() {
        let mut one = installation();
        assert_eq!(one.put("west", at("west", "w.example")), Vec::<String>::new());
        let mut other = at("west", "w.example");
        other.peer = "w2.example:7443".into();
        assert_eq!(
            one.put("west", other),
            ["west: peer was w.example:7443 and is w2.example:7443 now"]
        );
        assert_eq!(
            one.put("north", at("north", "n.example")),
            ["north is new, in region north"]
        );
    }
}
