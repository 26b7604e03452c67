//! How the members are, for `leeward quorum status` and for alarms.

use leeward_core::name::Incarnation;

use super::{
    Config, Etcd, connection, endpoint,
    wire::{AlarmResponse, Empty, MemberListResponse, StatusResponse},
};
use crate::{Error, Store as _, Txn, incarnation, key};

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
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The cluster's identity.
    pub cluster: u64,
    /// The incarnation of the quorum; none where no majority says it.
    pub incarnation: Option<Incarnation>,
    /// How many members the cluster has by its own account; a majority of them must answer.
    pub members: usize,
    /// Each endpoint.
    pub endpoints: Vec<Member>,
    /// The alarms that are raised, with the member that raised each; none where no majority answers.
    pub alarms: Option<Vec<(u64, Alarm)>>,
}

impl Status {
    /// How many members may still be lost before decisions stop; none where they stopped.
    pub fn spare(&self) -> Option<usize> {
        let up = self.endpoints.iter().filter(|member| member.state.is_ok()).count();
        up.checked_sub(self.members / 2 + 1)
    }
}

/// Asks every endpoint for itself, and any that answers for the cluster.
///
/// # Errors
/// The configuration cannot be used.
pub async fn ask(config: &Config) -> Result<Status, Error> {
    let mut endpoints = Vec::new();
    for url in &config.endpoints {
        let one = connection(vec![endpoint(url, config)?], config, 0);
        let answer = one.ask::<_, StatusResponse>(STATUS, Empty {}).await;
        endpoints.push(Member {
            endpoint: url.clone(),
            state: answer.map(state).map_err(|error| match error {
                Error::Unreachable(why) => why,
                other => other.to_string(),
            }),
        });
    }
    let etcd = Etcd::new(config.clone())?;
    // Without a majority neither is answered; then the endpoints are all that is known.
    let members: Result<MemberListResponse, _> = etcd.connection.ask(MEMBERS, Empty {}).await;
    let alarms: Result<AlarmResponse, _> = etcd.connection.ask(ALARM, Empty {}).await;
    let begun = etcd.txn(Txn::default().read(key::INCARNATION)).await;
    let alarm = |number| match number {
        1 => Alarm::NoSpace,
        2 => Alarm::Corrupt,
        other => Alarm::Other(other),
    };
    Ok(Status {
        cluster: etcd.cluster(),
        incarnation: begun.ok().map(|outcome| incarnation::of(&outcome.entries)),
        members: members.map_or(config.endpoints.len(), |answer| answer.members.len()),
        endpoints,
        alarms: alarms.ok().map(|answer| {
            let raised = answer.alarms.iter();
            raised.map(|raised| (raised.member_id, alarm(raised.alarm))).collect()
        }),
    })
}

fn state(answer: StatusResponse) -> State {
    let header = answer.header.unwrap_or_default();
    let bytes = |size: i64| u64::try_from(size).unwrap_or(0);
    State {
        id: header.member_id,
        version: answer.version,
        leader: answer.leader,
        term: header.raft_term,
        revision: bytes(header.revision),
        size: bytes(answer.db_size),
        used: bytes(answer.db_size_in_use),
    }
}
