//! What the nodes of a cluster have left.
//!
//! It is kept up to date one change at a time, since a cluster has many pods and every application asks: nobody has to look at all
//! of them again. A pod of a negative priority is no pod here. Such pods hold room for others, for whom Kubernetes ends them.
//!
//! Invariant: what is used on a node is the sum of the pods that were told to be bound to it, in whatever order that was.

use std::collections::{BTreeMap, HashMap};

use super::pod::{Amounts, Pod, Taint};

/// A node as a scheduler sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Whether it says that it is ready.
    pub ready: bool,
    /// Whether a person or program has cordoned it (`spec.unschedulable`).
    pub cordoned: bool,
    /// What keeps pods off it.
    pub taints: Vec<Taint>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it has for pods, in all.
    pub allocatable: Amounts,
}

/// Why a node does not take a pod, whatever it has left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is not ready.
    NotReady,
    /// It is cordoned.
    Cordoned,
    /// It has a taint of this key that the pod does not tolerate.
    Taint(String),
    /// The pod selects other nodes.
    Selector,
}

impl Refusal {
    /// It as a phrase about this many nodes.
    pub fn of(&self, count: u32) -> String {
        let (is, has, does) = match count {
            1 => ("is", "has", "does"),
            _ => ("are", "have", "do"),
        };
        match self {
            Self::NotReady => format!("{count} {is} not ready"),
            Self::Cordoned => format!("{count} {is} cordoned"),
            Self::Taint(key) => format!("{count} {has} the taint {key}"),
            Self::Selector => format!("{count} {does} not match the node selector"),
        }
    }
}

impl Node {
    /// Why it does not take such a pod, if it does not.
    pub fn refuses(&self, pod: &Pod) -> Option<Refusal> {
        if !self.ready {
            return Some(Refusal::NotReady);
        }
        // What Kubernetes taints a cordoned node with, also before it has done so.
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            value: String::new(),
            effect: "NoSchedule".to_owned(),
        };
        if self.cordoned && !pod.tolerates(&cordon) {
            return Some(Refusal::Cordoned);
        }
        let keeps_off = |taint: &&Taint| ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str());
        let mut taints = self.taints.iter().filter(keeps_off);
        if let Some(taint) = taints.find(|taint| !pod.tolerates(taint)) {
            return Some(Refusal::Taint(taint.key.clone()));
        }
        let selected = |(key, value)| self.labels.get(key) == Some(value);
        (!pod.node_selector.iter().all(selected)).then_some(Refusal::Selector)
    }
}

/// What each node has and what is used of it.
#[derive(Debug, Clone, Default)]
pub struct Room {
    nodes: BTreeMap<String, Node>,
    bound: HashMap<String, (String, Amounts)>,
    used: HashMap<String, Amounts>,
    version: u64,
}

impl Room {
    /// Grows whenever an answer may have become another one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// What the pods of a node take of it.
    pub fn used(&self, node: &str) -> Option<&Amounts> {
        self.used.get(node)
    }

    /// A node is as given.
    pub fn set_node(&mut self, name: &str, node: Node) {
        if self.nodes.get(name) != Some(&node) {
            self.nodes.insert(name.to_owned(), node);
            self.version += 1;
        }
    }

    /// These are the nodes, and no others.
    pub fn set_nodes(&mut self, nodes: BTreeMap<String, Node>) {
        if self.nodes != nodes {
            self.nodes = nodes;
            self.version += 1;
        }
    }

    /// A node is gone.
    pub fn forget_node(&mut self, name: &str) {
        if self.nodes.remove(name).is_some() {
            self.version += 1;
        }
    }

    /// A pod is bound to a node and takes this much of it.
    pub fn bind(&mut self, pod: &str, node: &str, requests: Amounts) {
        let same = |(before, amounts): &(String, Amounts)| before == node && *amounts == requests;
        if self.bound.get(pod).is_some_and(same) {
            return;
        }
        self.release(pod);
        self.used.entry(node.to_owned()).or_default().add(&requests, 1);
        self.bound.insert(pod.to_owned(), (node.to_owned(), requests));
        self.version += 1;
    }

    /// A pod has ended, is gone, or has no node.
    pub fn release(&mut self, pod: &str) {
        let Some((node, requests)) = self.bound.remove(pod) else {
            return;
        };
        if let Some(used) = self.used.get_mut(&node) {
            used.subtract(&requests);
            if used.iter().next().is_none() {
                self.used.remove(&node);
            }
        }
        self.version += 1;
    }

    /// No pods but these are there: whoever is not among them is gone.
    pub fn keep_pods(&mut self, is_there: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.bound.keys().filter(|pod| !is_there(pod)).cloned().collect();
        for pod in gone {
            self.release(&pod);
        }
    }
}
