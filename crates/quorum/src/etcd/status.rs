//! How the members are, for `leeward quorum status` and for alarms, and what is wrong with all that a quorum on etcd rests on.

mod space;

use std::collections::{BTreeMap, BTreeSet};

use leeward_core::name::Incarnation;

use super::{
    Config, Etcd, connection, endpoint,
    wire::{AlarmResponse, Empty, MemberListResponse, StatusResponse},
};
use crate::{
    Error, Store as _, Txn,
    certificate::{self, Trouble},
    incarnation, key,
};

pub use space::DEFAULT_QUOTA;

const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
const MEMBERS: &str = "/etcdserverpb.Cluster/MemberList";

/// A raised alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// A member's space is used up: nothing can be written.
    NoSpace,
    /// A member found its data damaged.
    Corrupt,
    /// One that this version does not know.
    Other(i32),
}

/// One member as it answers for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its endpoint.
    pub endpoint: String,
    /// Its state, or why it gives none.
    pub state: Result<State, String>,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its identity.
    pub id: u64,
    /// The identity of its cluster.
    pub cluster: u64,
    /// The incarnation of the quorum in its cluster; none where no majority of it says it.
    pub incarnation: Option<Incarnation>,
    /// etcd's version.
    pub version: String,
    /// The identity of the leader that it knows, zero for none.
    pub leader: u64,
    /// The term of the election.
    pub term: u64,
    /// The store's revision there.
    pub revision: u64,
    /// Bytes of its file.
    pub size: u64,
    /// Bytes of it that are in use.
    pub used: u64,
    /// Bytes that its file may have; none where its version does not say it (before 3.6).
    pub quota: Option<u64>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The cluster's identity, zero where none is known.
    pub cluster: u64,
    /// The incarnation of the quorum; none where no majority says it.
    pub incarnation: Option<Incarnation>,
    /// How many members the cluster has by its own account; a majority of them must answer.
    pub members: usize,
    /// Their identities; none where no majority tells them.
    pub ids: Option<Vec<u64>>,
    /// Each endpoint.
    pub endpoints: Vec<Member>,
    /// The alarms that are raised, with the member that raised each; none where no majority answers.
    pub alarms: Option<Vec<(u64, Alarm)>>,
}

impl Status {
    /// How many members may still be lost before decisions stop; none where they stopped.
    pub fn spare(&self) -> Option<usize> {
        self.answering().checked_sub(self.members / 2 + 1)
    }

    /// How many members answer, however many addresses each of them has.
    fn answering(&self) -> usize {
        self.own().map(|(_, state)| state.id).collect::<BTreeSet<_>>().len()
    }

    /// How many members answer, of how many, where none may be lost any more. Nothing is said where not every member was asked: what an endpoint
    /// less, or one in front of several members, leaves unasked is not known.
    pub fn without_spare(&self) -> Option<String> {
        let all_asked = self.members > 0 && self.endpoints.len() >= self.members;
        let short = all_asked && self.spare().unwrap_or(0) == 0;
        short.then(|| {
            format!(
                "{} of the {} members of the quorum answer",
                self.answering(),
                self.members
            )
        })
    }

    /// What the members of this cluster say, with their endpoints; who is of another one is no member.
    pub fn own(&self) -> impl Iterator<Item = (&str, &State)> {
        let states = self
            .endpoints
            .iter()
            .filter_map(|member| Some((member.endpoint.as_str(), member.state.as_ref().ok()?)));
        states.filter(|(_, state)| state.cluster == self.cluster)
    }
}

/// Asks every endpoint for itself, and those of the cluster for it: of the one that the configuration names, else of the latest incarnation
/// that answers, else of the first one.
///
/// # Errors
/// The configuration cannot be used.
pub async fn ask(config: &Config) -> Result<Status, Error> {
    let mut endpoints = Vec::new();
    let any = Config {
        cluster: 0,
        ..config.clone()
    };
    for url in &config.endpoints {
        let one = connection(vec![endpoint(url, config)?], &any, 0);
        let answer = one.ask::<_, StatusResponse>(STATUS, Empty {}).await;
        endpoints.push(Member {
            endpoint: url.clone(),
            state: answer.map(state).map_err(|error| match error {
                Error::Unreachable(why) => why,
                other => other.to_string(),
            }),
        });
    }
    let mut incarnations: BTreeMap<u64, Option<Incarnation>> = BTreeMap::new();
    for member in &mut endpoints {
        let Ok(state) = &mut member.state else { continue };
        state.incarnation = match incarnations.get(&state.cluster) {
            // Another member of it may answer what this one cannot.
            Some(Some(known)) => Some(*known),
            _ => incarnation_at(&member.endpoint, state.cluster, config).await?,
        };
        incarnations.insert(state.cluster, state.incarnation);
    }
    for state in endpoints.iter_mut().filter_map(|member| member.state.as_mut().ok()) {
        state.incarnation = incarnations.get(&state.cluster).copied().flatten();
    }
    let latest = incarnations.iter().filter(|(_, number)| number.is_some());
    let latest = latest.max_by_key(|(_, number)| **number).map(|(cluster, _)| *cluster);
    let first = || {
        endpoints
            .iter()
            .find_map(|member| Some(member.state.as_ref().ok()?.cluster))
    };
    let cluster = match config.cluster {
        0 => latest.or_else(first).unwrap_or(0),
        named => named,
    };
    let own = endpoints.iter().filter(|member| {
        let state = member.state.as_ref();
        state.is_ok_and(|state| state.cluster == cluster)
    });
    let own: Vec<String> = own.map(|member| member.endpoint.clone()).collect();
    let etcd = Etcd::new(Config {
        endpoints: if own.is_empty() { config.endpoints.clone() } else { own },
        cluster,
        ..config.clone()
    })?;
    // Without a majority neither is answered; then the endpoints are all that is known.
    let members: Result<MemberListResponse, _> = etcd.connection.ask(MEMBERS, Empty {}).await;
    let alarms: Result<AlarmResponse, _> = etcd.connection.ask(ALARM, Empty {}).await;
    let alarm = |number| match number {
        1 => Alarm::NoSpace,
        2 => Alarm::Corrupt,
        other => Alarm::Other(other),
    };
    Ok(Status {
        cluster,
        incarnation: incarnations.get(&cluster).copied().flatten(),
        members: members
            .as_ref()
            .map_or(config.endpoints.len(), |answer| answer.members.len()),
        ids: members
            .ok()
            .map(|answer| answer.members.iter().map(|member| member.id).collect()),
        endpoints,
        alarms: alarms.ok().map(|answer| {
            let raised = answer.alarms.iter();
            raised.map(|raised| (raised.member_id, alarm(raised.alarm))).collect()
        }),
    })
}

/// The incarnation in the cluster of a member; none where it has no majority.
async fn incarnation_at(endpoint: &str, cluster: u64, config: &Config) -> Result<Option<Incarnation>, Error> {
    let etcd = Etcd::new(Config {
        endpoints: vec![endpoint.to_owned()],
        cluster,
        ..config.clone()
    })?;
    let answer = etcd.txn(Txn::default().read(key::INCARNATION)).await;
    Ok(answer.ok().map(|outcome| incarnation::of(&outcome.entries)))
}

/// What is wrong with the members, their space and the certificates, at this time in Unix seconds. A member that does not answer is no news
/// here: whoever asks it something says so.
pub async fn troubles(config: &Config, now: i64) -> Vec<Trouble> {
    let certificates = certificate::look(config).await.unwrap_or_default();
    let certificates = certificates.iter().flatten().filter_map(|one| one.trouble(now));
    let members = ask(config).await.map(|status| status.troubles());
    certificates.chain(members.unwrap_or_default()).collect()
}

fn state(answer: StatusResponse) -> State {
    let header = answer.header.unwrap_or_default();
    let bytes = |size: i64| u64::try_from(size).unwrap_or(0);
    State {
        id: header.member_id,
        cluster: header.cluster_id,
        incarnation: None,
        version: answer.version,
        leader: answer.leader,
        term: header.raft_term,
        revision: bytes(header.revision),
        size: bytes(answer.db_size),
        used: bytes(answer.db_size_in_use),
        quota: Some(bytes(answer.db_size_quota)).filter(|quota| *quota > 0),
    }
}
