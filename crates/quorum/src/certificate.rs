//! When the certificates end that agents and etcd's members show each other.
//!
//! Flow: [`of_files`] reads what the agent was given, [`of_member`] what a member presents, in a handshake that is judged as every other
//! one; [`Certificate::trouble`], a pure function of the time, says what is wrong and what to do.
//!
//! A connection that is open goes on after a certificate ended. So nothing is noticed at first, and then, at the next connection, everybody
//! stands still at once: that is why it is said [`SOON`] before.

mod read;

use std::fmt;

use jiff::Timestamp;

pub use read::{look, of_files, of_member};

/// So long before its end a certificate is warned of: time enough for a person who makes a new one. Seconds.
pub const SOON: i64 = 30 * DAY;
/// Seconds.
const DAY: i64 = 24 * 3600;

/// Whose certificate it is. The first three are those of the quorum on etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// The authority that the members' certificates are checked with.
    Authority,
    /// What this agent shows the members.
    Client,
    /// What the member at this endpoint shows.
    Member(String),
    /// What this process shows its peers.
    Own,
    /// The authority that the peers' certificates are checked with.
    Peers,
}

/// For how long a certificate counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub whose: Whose,
    /// Its subject, as it stands in the certificate.
    pub subject: String,
    /// From when, Unix seconds.
    pub from: i64,
    /// Until when, Unix seconds.
    pub until: i64,
}

/// Certificates that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file holds none.
    #[error("{0} cannot be read: {1}; write one in PEM to its file")]
    Unreadable(Whose, String),
}

/// What is wrong with a certificate, or with a member of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It ends soon, or there is soon no space any more.
    Soon(String),
    /// It has ended, or has not begun: no new connection rests on it. Or an alarm is raised.
    Over(String),
}

impl Trouble {
    /// What is wrong, what it means, and what to do.
    pub fn text(&self) -> &str {
        match self {
            Self::Soon(text) | Self::Over(text) => text,
        }
    }
}

impl Whose {
    fn meaning(&self) -> &'static str {
        match self {
            Self::Authority => "this agent trusts no member of etcd",
            Self::Client => "no member of etcd takes a new connection of this agent",
            Self::Member(_) => "no agent connects to this member any more",
            Self::Own => "no agent, witness or gate takes a new connection from here or to here",
            Self::Peers => "nobody of this installation takes a new connection of anybody",
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Authority => {
                "write the new authority's certificate to the file that quorum.etcd.ca (or peer_ca) of the agent's configuration names, beside the \
                 old one until every member has a new certificate; it is read anew"
            }
            Self::Client => {
                "write a new certificate and its key to the files that quorum.etcd.cert and key (or peer_cert and peer_key) of the agent's \
                 configuration name; they are read anew"
            }
            Self::Member(_) => "write a new one to the files of its --cert-file and --key-file, which it reads anew",
            Self::Own => {
                "make a new one with `leeward join rotate`, and apply what `leeward join render` prints then; it is taken without a restart"
            }
            Self::Peers => "begin a new authority with `leeward join authority trust`",
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("the certificate of the quorum's authority"),
            Self::Client => f.write_str("this agent's certificate for the quorum"),
            Self::Member(endpoint) => write!(f, "the certificate of {endpoint}"),
            Self::Own => f.write_str("the certificate for peers"),
            Self::Peers => f.write_str("the certificate of the peers' authority"),
        }
    }
}

impl Certificate {
    /// What is wrong with it at this time, Unix seconds, if anything is.
    pub fn trouble(&self, now: i64) -> Option<Trouble> {
        let (meaning, advice) = (self.whose.meaning(), self.whose.advice());
        let name = format!("{} ({})", self.whose, self.subject);
        if now < self.from {
            let from = date(self.from);
            return Some(Trouble::Over(format!(
                "{name} counts only from {from} on: until then {meaning}; look whether the clocks are right, else {advice}"
            )));
        }
        if now >= self.until {
            let until = date(self.until);
            return Some(Trouble::Over(format!(
                "{name} has ended on {until}: {meaning}; {advice}"
            )));
        }
        (self.until - now < SOON).then(|| {
            let (until, left) = (date(self.until), left(self.until - now));
            Trouble::Soon(format!(
                "{name} ends in {left}, on {until}: from then on {meaning}; {advice}"
            ))
        })
    }

    /// Whether it counts, and for how much longer, in a few words.
    pub fn term(&self, now: i64) -> String {
        match () {
            () if now < self.from => format!("not before {}", date(self.from)),
            () if now >= self.until => format!("ended on {}", date(self.until)),
            () => format!("until {}, {} left", date(self.until), left(self.until - now)),
        }
    }
}

/// A day and minute in UTC, as a person reads it.
fn date(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => "a day that no calendar has".to_owned(),
    }
}

fn left(seconds: i64) -> String {
    match seconds / DAY {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests;
