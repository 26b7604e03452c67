//! Whether the pods that an application would start in a cluster have room on its nodes.
//!
//! Flow: [`pod`] counts what one pod asks for, [`room`] keeps what each node has left, and [`lacking`] puts the pods onto the nodes and
//! says of each workload whether all of them found a place.
//!
//! A node takes a pod when it is ready, has no taint that the pod does not tolerate, matches the pod's node selector, and has left what the
//! pod requests. Left out: affinity, topology spread, ports, volumes that only some nodes reach, quotas, and priority, except that pods
//! of a negative one make room ([`room`]). So a scheduler may still find no place where one is seen here, and the answer rests on
//! what was seen last: it is a reason not to begin, never a promise.
//!
//! Invariant: no pod is put where a request exceeds what the node has left.

pub mod pod;
pub mod room;

use std::{collections::BTreeMap, fmt};

use self::{
    pod::{Amounts, PODS, Pod},
    room::{Node, Refusal, Room},
};

/// The beginning of what is said of a workload that has no room.
pub const CAPACITY: &str = "capacity: ";

/// The pods of one workload that do not run here yet and would have to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The workload, for the message: `Deployment web`.
    pub workload: String,
    /// How many more pods.
    pub pods: u32,
    /// How many of it run here already.
    pub running: u32,
    /// What each of them asks of its node.
    pub pod: Pod,
}

/// A workload whose pods do not all have room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What was to be started.
    pub demand: Demand,
    /// How many of its pods have room.
    pub room_for: u32,
    /// The resources that most of the nodes that would take such a pod lack.
    pub short_of: Vec<String>,
    /// Why the other nodes do not take such a pod, and how many.
    pub refusals: BTreeMap<Refusal, u32>,
}

impl Lack {
    /// Whether not a single pod would run. With fewer pods than it should have, a workload still serves.
    pub fn is_whole(&self) -> bool {
        self.demand.running + self.room_for == 0
    }
}

/// The workloads that do not have room here, all of them to be started together.
///
/// Who has the fewest nodes to choose from is placed first, and of those the largest; each pod goes to the first node that has room.
pub fn lacking(room: &Room, demands: &[Demand]) -> Vec<Lack> {
    let mut wanted: Vec<_> = demands
        .iter()
        .filter(|demand| demand.pods > 0)
        .map(|demand| {
            let (nodes, refusals) = choose(room, &demand.pod);
            (demand, nodes, refusals)
        })
        .collect();
    let size = |demand: &Demand| ["memory", "cpu"].map(|name| demand.pod.requests.get(name));
    wanted.sort_by(|(one, few, _), (other, many, _)| {
        let larger_first = size(other).cmp(&size(one));
        few.len().cmp(&many.len()).then(larger_first)
    });
    let mut placed: BTreeMap<&str, Amounts> = BTreeMap::new();
    let mut lacks = Vec::new();
    for (demand, nodes, refusals) in wanted {
        let mut left = demand.pods;
        for (name, node) in &nodes {
            if left == 0 {
                break;
            }
            let free = free(room, name, node, &placed);
            let here = demand.pod.requests.times_in(&free).min(left);
            if here > 0 {
                placed.entry(name).or_default().add(&demand.pod.requests, here);
                left -= here;
            }
        }
        if left > 0 {
            let frees = nodes.iter().map(|(name, node)| free(room, name, node, &placed));
            lacks.push(Lack {
                demand: demand.clone(),
                room_for: demand.pods - left,
                short_of: shortest(&demand.pod.requests, frees),
                refusals,
            });
        }
    }
    lacks
}

/// The nodes that would take such a pod if they had room, and why the others would not.
fn choose<'a>(room: &'a Room, pod: &Pod) -> (Vec<(&'a str, &'a Node)>, BTreeMap<Refusal, u32>) {
    let mut refusals = BTreeMap::new();
    let mut nodes = Vec::new();
    for (name, node) in room.nodes() {
        match node.refuses(pod) {
            None => nodes.push((name, node)),
            Some(refusal) => *refusals.entry(refusal).or_default() += 1,
        }
    }
    (nodes, refusals)
}

fn free(room: &Room, name: &str, node: &Node, placed: &BTreeMap<&str, Amounts>) -> Amounts {
    let mut free = node.allocatable.clone();
    for taken in room.used(name).into_iter().chain(placed.get(name)) {
        free.subtract(taken);
    }
    free
}

/// What the most nodes have too little of.
fn shortest(requests: &Amounts, frees: impl Iterator<Item = Amounts>) -> Vec<String> {
    let mut nodes: BTreeMap<&str, u32> = BTreeMap::new();
    for free in frees {
        for name in requests.exceeding(&free) {
            *nodes.entry(name).or_default() += 1;
        }
    }
    let most = nodes.values().max().copied().unwrap_or(0);
    let short = nodes.into_iter().filter(|(_, count)| *count == most);
    short.map(|(name, _)| name.to_owned()).collect()
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Demand {
            workload, pods, pod, ..
        } = &self.demand;
        let (noun, verb, each) = match pods {
            1 => ("pod", "needs", ""),
            _ => ("pods", "need", " each"),
        };
        let mut asked: Vec<String> = pod
            .requests
            .iter()
            .filter(|(name, _)| *name != PODS)
            .map(|(name, amount)| format!("{amount} {name}"))
            .collect();
        if asked.is_empty() {
            asked.push("a place".to_owned());
        }
        write!(
            f,
            "{CAPACITY}{pods} {noun} of {workload} {verb} {}{each}; the nodes have room for {}: ",
            asked.join(", "),
            self.room_for
        )?;
        let refusals: Vec<String> = self.refusals.iter().map(|(why, count)| why.of(*count)).collect();
        let refusals = refusals.join(", ");
        if !self.short_of.is_empty() {
            let short = self.short_of.iter().map(|name| match name.as_str() {
                PODS => "places for pods",
                name => name,
            });
            write!(f, "short of {}", short.collect::<Vec<_>>().join(", "))?;
            return match refusals.is_empty() {
                true => Ok(()),
                false => write!(f, " ({refusals})"),
            };
        }
        match refusals.is_empty() {
            true => f.write_str("this cluster has no node"),
            false => write!(f, "no node takes them ({refusals})"),
        }
    }
}

#[cfg(test)]
mod tests;
