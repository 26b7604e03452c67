//! Which faults are made, in which order, to whom, and what has to hold meanwhile. Pure.
//!
//! What a kubeconfig cannot do is done by commands that the user names, the hooks. A fault without its hook is skipped, and said to be.

use std::collections::BTreeMap;

use serde::Serialize;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Every pod of the application in the active cluster is deleted.
    DeletePods,
    /// The agent that acts in the active cluster is deleted.
    DeleteAgent,
    /// Every agent of the standby is deleted.
    DeleteStandbyAgents,
    /// A node with the application's pods is drained of them, and uncordoned later.
    DrainNode,
    /// The application's namespace in the standby is deleted.
    DeleteStandbyNamespace,
    /// The API server of the active cluster is stopped.
    StopApi,
    /// The standby is cut off from everybody.
    CutStandby,
    /// The active cluster is cut off from everybody.
    CutActive,
    /// Everything of the active cluster is ended, its control plane and its nodes.
    KillActive,
}

/// All of them, in the order in which they are made: what is mended by itself comes first.
pub(crate) const ALL: [Kind; 9] = [
    Kind::DeletePods,
    Kind::DeleteAgent,
    Kind::DeleteStandbyAgents,
    Kind::DrainNode,
    Kind::DeleteStandbyNamespace,
    Kind::StopApi,
    Kind::CutStandby,
    Kind::CutActive,
    Kind::KillActive,
];

impl Kind {
    /// Its name on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DeletePods => "delete-pods",
            Self::DeleteAgent => "delete-agent",
            Self::DeleteStandbyAgents => "delete-standby-agents",
            Self::DrainNode => "drain-node",
            Self::DeleteStandbyNamespace => "delete-standby-namespace",
            Self::StopApi => "stop-api",
            Self::CutStandby => "cut-standby",
            Self::CutActive => "cut-active",
            Self::KillActive => "kill-active",
        }
    }
}

/// Those with `only` in their name.
///
/// # Errors
/// There is none.
pub(crate) fn chosen(only: Option<&str>) -> Result<Vec<Kind>, String> {
    let fits = |kind: &Kind| only.is_none_or(|only| kind.name().contains(only));
    let chosen: Vec<Kind> = ALL.into_iter().filter(fits).collect();
    match chosen.is_empty() {
        false => Ok(chosen),
        true => {
            let all: Vec<&str> = ALL.iter().map(|kind| kind.name()).collect();
            Err(format!("no fault has that in its name; there are {}", all.join(", ")))
        }
    }
}

/// The commands of the user, for each cluster by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hooks {
    pub(crate) cut: BTreeMap<String, String>,
    pub(crate) heal: BTreeMap<String, String>,
    pub(crate) kill: BTreeMap<String, String>,
    pub(crate) start: BTreeMap<String, String>,
    pub(crate) stop_api: BTreeMap<String, String>,
    pub(crate) start_api: BTreeMap<String, String>,
}

/// A command and what ends its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) make: String,
    pub(crate) end: String,
}

impl Hooks {
    /// Why they make no sense: one of a pair is missing, or a cluster is not there.
    pub(crate) fn flaw(&self, clusters: &[&str]) -> Option<String> {
        for (make, made, end, ended) in [
            ("--cut", &self.cut, "--heal", &self.heal),
            ("--kill", &self.kill, "--start", &self.start),
            ("--stop-api", &self.stop_api, "--start-api", &self.start_api),
        ] {
            for (here, others, option, other) in [(made, ended, make, end), (ended, made, end, make)] {
                for name in here.keys() {
                    if !clusters.contains(&name.as_str()) {
                        return Some(format!("{option} {name}=...: there is no --cluster {name}"));
                    }
                    if !others.contains_key(name) {
                        return Some(format!("{option} {name}=... needs {other} {name}=..., too"));
                    }
                }
            }
        }
        None
    }

    fn pair(&self, kind: Kind, cluster: &str) -> Result<Pair, String> {
        let (make, end, option) = match kind {
            Kind::StopApi => (&self.stop_api, &self.start_api, "--stop-api"),
            Kind::KillActive => (&self.kill, &self.start, "--kill"),
            _ => (&self.cut, &self.heal, "--cut"),
        };
        match (make.get(cluster), end.get(cluster)) {
            (Some(make), Some(end)) => Ok(Pair {
                make: make.clone(),
                end: end.clone(),
            }),
            _ => Err(format!(
                "a kubeconfig cannot do it, and there is no {option} {cluster}=COMMAND"
            )),
        }
    }
}

/// From when on users have to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// From the beginning of the fault, within the limit.
    Meanwhile,
    /// From its end: until then there is no node for the application's pods.
    Afterwards,
}

/// A fault that can be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// The cluster that it is made in.
    pub(crate) target: String,
    /// The hooks, where it is made by them.
    pub(crate) hooks: Option<Pair>,
    /// Who has to take over; nobody may where it is none.
    pub(crate) successor: Option<String>,
    /// The clusters whose edges users reach meanwhile.
    pub(crate) edges: Vec<String>,
    /// From when on both applications are judged.
    pub(crate) answered: Answered,
}

/// What is true before a fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before<'a> {
    /// The cluster that the ActivePassive application is active in.
    pub(crate) active: &'a str,
    /// The other one.
    pub(crate) standby: &'a str,
    /// How many nodes the active cluster has that take pods.
    pub(crate) nodes: usize,
}

/// A fault of this kind; or why it is skipped.
///
/// # Errors
/// Its hook is not named.
pub(crate) fn fault(kind: Kind, before: Before<'_>, hooks: &Hooks) -> Result<Fault, String> {
    let (active, standby) = (before.active.to_owned(), before.standby.to_owned());
    let target = match kind {
        Kind::DeleteStandbyAgents | Kind::DeleteStandbyNamespace | Kind::CutStandby => standby.clone(),
        _ => active.clone(),
    };
    let hooks = match kind {
        Kind::StopApi | Kind::CutStandby | Kind::CutActive | Kind::KillActive => Some(hooks.pair(kind, &target)?),
        _ => None,
    };
    let edges = match kind {
        Kind::CutActive | Kind::KillActive => vec![standby.clone()],
        Kind::CutStandby => vec![active],
        _ => vec![active, standby.clone()],
    };
    Ok(Fault {
        kind,
        target,
        hooks,
        successor: matches!(kind, Kind::CutActive | Kind::KillActive).then_some(standby),
        edges,
        answered: match kind {
            Kind::DrainNode if before.nodes < 2 => Answered::Afterwards,
            _ => Answered::Meanwhile,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, command): &(&str, &str)| ((*name).to_owned(), (*command).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn west_cut() -> Hooks {
        Hooks {
            cut: named(&[("west", "down")]),
            heal: named(&[("west", "up")]),
            ..Hooks::default()
        }
    }

    #[test]
    fn a_fault_that_a_kubeconfig_cannot_make_is_skipped_without_its_hook_and_never_made_elsewhere() {
        let of = |active, standby| Before {
            active,
            standby,
            nodes: 2,
        };
        let hooks = west_cut();
        for (kind, active, standby, made) in [
            (Kind::CutActive, "west", "east", true),
            (Kind::CutActive, "east", "west", false),
            (Kind::CutStandby, "east", "west", true),
            (Kind::CutStandby, "west", "east", false),
            (Kind::KillActive, "west", "east", false),
            (Kind::StopApi, "west", "east", false),
            (Kind::DeletePods, "west", "east", true),
            (Kind::DeleteStandbyNamespace, "west", "east", true),
        ] {
            let got = fault(kind, of(active, standby), &hooks);
            assert_eq!(got.is_ok(), made, "{kind:?} {active}: {got:?}");
            if let Err(why) = got {
                let target = if kind == Kind::CutStandby { standby } else { active };
                assert!(why.contains(&format!("{target}=COMMAND")), "{why}");
            }
        }
        let cut = fault(Kind::CutActive, of("west", "east"), &hooks).unwrap();
        let pair = cut.hooks.unwrap();
        assert_eq!((pair.make.as_str(), pair.end.as_str()), ("down", "up"));
    }

    #[test]
    fn only_the_loss_of_the_active_cluster_has_a_successor_and_only_its_edge_answers_then() {
        let before = Before {
            active: "west",
            standby: "east",
            nodes: 1,
        };
        let all = |command: &str| named(&[("west", command), ("east", command)]);
        let hooks = Hooks {
            cut: all("a"),
            heal: all("b"),
            kill: all("c"),
            start: all("d"),
            stop_api: all("e"),
            start_api: all("f"),
        };
        for kind in ALL {
            let made = fault(kind, before, &hooks).unwrap();
            let (successor, edges): (_, &[&str]) = match kind {
                Kind::CutActive | Kind::KillActive => (Some("east"), &["east"]),
                Kind::CutStandby => (None, &["west"]),
                _ => (None, &["west", "east"]),
            };
            assert_eq!(made.successor.as_deref(), successor, "{kind:?}");
            assert_eq!(made.edges, edges, "{kind:?}");
            // Pods that have no other node come back once theirs takes them again.
            let late = made.answered == Answered::Afterwards;
            assert_eq!(late, kind == Kind::DrainNode, "{kind:?}");
        }
        let more = Before { nodes: 2, ..before };
        let drained = fault(Kind::DrainNode, more, &hooks).unwrap();
        assert_eq!(drained.answered, Answered::Meanwhile);
    }

    #[test]
    fn a_hook_without_the_one_that_ends_it_is_refused_and_so_is_one_of_a_cluster_that_is_not_there() {
        let clusters = ["west", "east"];
        assert_eq!(west_cut().flaw(&clusters), None);
        assert!(west_cut().flaw(&["east"]).unwrap().contains("--cluster west"));
        let mut hooks = west_cut();
        hooks.heal.clear();
        assert!(hooks.flaw(&clusters).unwrap().contains("--heal west"));
        let hooks = Hooks {
            start_api: named(&[("east", "up")]),
            ..Hooks::default()
        };
        assert!(hooks.flaw(&clusters).unwrap().contains("--stop-api east"));
    }

    #[test]
    fn faults_are_chosen_by_a_part_of_their_name() {
        assert_eq!(chosen(None).unwrap(), ALL);
        assert_eq!(chosen(Some("cut")).unwrap(), [Kind::CutStandby, Kind::CutActive]);
        assert!(chosen(Some("flood")).unwrap_err().contains("delete-pods"));
        for kind in ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
