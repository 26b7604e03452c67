//! How the members are, for `leeward quorum status` and for alarms, and what is wrong with all that a quorum on etcd rests on.

mod space;

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
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

/// Asks the members once.
///
/// # Errors
/// The configuration cannot be used.
pub async fn ask(config: &Config) -> Result<Status, Error> {
    Ok(Members::new(config)?.ask().await)
}

/// The endpoints of a quorum, each with a connection of its own that lasts from one question to the next.
pub struct Members {
    config: Config,
    asked: Vec<Etcd>,
}

impl Members {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let asked = config.endpoints.iter().map(|url| alone(url, config));
        Ok(Self {
            asked: asked.collect::<Result<_, _>>()?,
            config: config.clone(),
        })
    }

    /// Whether the members are reached as this configuration says.
    pub fn are_of(&self, config: &Config) -> bool {
        let now = &self.config;
        now.endpoints == config.endpoints && now.tls == config.tls && now.login == config.login
    }

    /// Asks every endpoint for itself, and those of the cluster for it: of the one that the configuration names, else of the latest incarnation
    /// that answers, else of the first one.
    pub async fn ask(&mut self) -> Status {
        let config = &self.config;
        let all = config.endpoints.iter().zip(&mut self.asked);
        let mut endpoints = join_all(all.map(|(url, etcd)| member(url, etcd, config))).await;
        let incarnations = self.incarnations(&mut endpoints).await;
        let latest = incarnations.iter().filter(|(_, number)| number.is_some());
        let latest = latest.max_by_key(|(_, number)| **number).map(|(cluster, _)| *cluster);
        let mut states = endpoints.iter().map(|member| member.state.as_ref().ok());
        let cluster = match self.config.cluster {
            0 => latest
                .or_else(|| states.find_map(|state| Some(state?.cluster)))
                .unwrap_or(0),
            named => named,
        };
        // Of those of the cluster one that knows a leader: what is asked now needs a majority. Without one neither is answered; then the endpoints
        // are all that is known.
        let states = endpoints.iter().map(|member| member.state.as_ref().ok());
        let own = states.zip(&self.asked).filter_map(|(state, etcd)| Some((state?, etcd)));
        let own = own.filter(|(state, _)| state.cluster == cluster);
        let (mut members, mut alarms) = (None, None);
        if let Some((_, etcd)) = own.min_by_key(|(state, _)| state.leader == 0) {
            members = etcd
                .connection
                .ask::<_, MemberListResponse>(MEMBERS, Empty {})
                .await
                .ok();
            alarms = etcd.connection.ask::<_, AlarmResponse>(ALARM, Empty {}).await.ok();
        }
        let members = members.map(|answer| answer.members);
        Status {
            cluster,
            incarnation: incarnations.get(&cluster).copied().flatten(),
            members: members.as_ref().map_or(endpoints.len(), Vec::len),
            ids: members.map(|members| members.iter().map(|member| member.id).collect()),
            endpoints,
            alarms: alarms.map(|answer| {
                let raised = answer.alarms.iter();
                raised.map(|raised| (raised.member_id, alarm(raised.alarm))).collect()
            }),
        }
    }

    /// The incarnation of each cluster that answers, which its members are given, too; none where it has no majority.
    async fn incarnations(&self, endpoints: &mut [Member]) -> BTreeMap<u64, Option<Incarnation>> {
        let mut incarnations: BTreeMap<u64, Option<Incarnation>> = BTreeMap::new();
        for (member, etcd) in endpoints.iter().zip(&self.asked) {
            let Ok(state) = &member.state else { continue };
            // Another member of it may answer what one cannot.
            if incarnations.get(&state.cluster).copied().flatten().is_none() {
                let answer = etcd.txn(Txn::default().read(key::INCARNATION)).await;
                let number = answer.ok().map(|outcome| incarnation::of(&outcome.entries));
                incarnations.insert(state.cluster, number);
            }
        }
        for state in endpoints.iter_mut().filter_map(|member| member.state.as_mut().ok()) {
            state.incarnation = incarnations.get(&state.cluster).copied().flatten();
        }
        incarnations
    }
}

/// One endpoint, whichever cluster is there. It is asked often enough to be found silent, so nothing is sent in between.
fn alone(url: &str, config: &Config) -> Result<Etcd, Error> {
    let any = Config {
        cluster: 0,
        ..config.clone()
    };
    Ok(Etcd {
        connection: connection(vec![endpoint(url, config)?.keep_alive_while_idle(false)], &any, 0),
        prefix: any.prefix,
    })
}

/// What an endpoint says of itself. It may have another cluster than when it was asked before, or be restored: that is for others to judge.
async fn member(url: &str, etcd: &mut Etcd, config: &Config) -> Member {
    let mut answer = etcd.connection.ask(STATUS, Empty {}).await;
    if let Err(Error::Replaced(_)) = answer
        && let Ok(anew) = alone(url, config)
    {
        *etcd = anew;
        answer = etcd.connection.ask(STATUS, Empty {}).await;
    }
    Member {
        endpoint: url.to_owned(),
        state: answer.map(state).map_err(|error| match error {
            Error::Unreachable(why) => why,
            other => other.to_string(),
        }),
    }
}

/// What is wrong with the certificates and, as they were asked, with the members and their space, at this time in Unix seconds. A member that
/// does not answer is no news here: whoever asks it something says so.
pub async fn troubles(config: &Config, status: &Status, now: i64) -> Vec<Trouble> {
    let certificates = certificate::look(config).await.unwrap_or_default();
    let certificates = certificates.iter().flatten().filter_map(|one| one.trouble(now));
    certificates.chain(status.troubles()).collect()
}

fn alarm(number: i32) -> Alarm {
    match number {
        1 => Alarm::NoSpace,
        2 => Alarm::Corrupt,
        other => Alarm::Other(other),
    }
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
