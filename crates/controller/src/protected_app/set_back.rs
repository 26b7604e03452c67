//! Workloads that stand by and that the tool which keeps them scales up again: each time they are scaled down, and the person who can tell the tool is
//! told how. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use leeward_core::lease::Moment;
use leeward_state::config::{Id, Keeper, set_back};

use super::workloads::Workload;

/// It is told for so long after it was seen last: such tools look every few minutes.
const TOLD: Duration = Duration::from_secs(600);

/// What was seen of one application's workloads.
#[derive(Debug, Default)]
pub(super) struct SetBack {
    /// How many replicas each was seen with that stood by as it should.
    held: BTreeMap<Id, i32>,
    told: BTreeMap<Id, (String, Moment)>,
}

impl SetBack {
    /// Looks at the workloads before they are scaled to stand by with `standby` replicas.
    pub(super) fn look(&mut self, workloads: &[Workload], keepers: &BTreeMap<Id, Keeper>, standby: i32, now: Moment) {
        for workload in workloads {
            let Some(id) = Id::of(&workload.object) else { continue };
            if workload.replicas == standby {
                self.held.insert(id, standby);
                continue;
            }
            // That a person asks for another number of replicas is nobody's doing here.
            let was_held = self.held.get(&id) == Some(&standby);
            let said = keepers
                .get(&id)
                .and_then(|keeper| set_back(keeper, &workload.object, standby));
            if let Some(said) = said.filter(|_| was_held) {
                self.told.insert(id, (said, now));
            }
        }
    }

    /// What there is to tell.
    pub(super) fn told(&self, now: Moment) -> impl Iterator<Item = String> {
        let told = self.told.values();
        told.filter(move |(_, at)| now.since(*at) < TOLD)
            .map(|(said, _)| said.clone())
    }

    /// It serves: whatever was before says nothing.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(s: u64) -> Moment {
        Moment(Duration::from_secs(s))
    }

    fn web(replicas: i32) -> Vec<Workload> {
        let annotations = json!({ "leeward.dev/replicas": "2" });
        vec![Workload {
            kind: "Deployment",
            name: "web".into(),
            pods: Default::default(),
            object: json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "annotations": annotations },
                "spec": { "replicas": replicas } }),
            replicas,
            ready: 0,
            autoscaler: None,
        }]
    }

    #[test]
    fn what_its_tool_scales_up_again_is_told_for_a_while_and_what_a_person_asks_for_is_not() {
        let id = Id::of(&web(0)[0].object).unwrap();
        let keepers = [(id, Keeper::ArgoCd(None))].into();
        let mut seen = SetBack::default();
        let told = |seen: &SetBack, now| seen.told(at(now)).count();
        seen.look(&web(2), &keepers, 0, at(1));
        assert_eq!(told(&seen, 1), 0, "it was never as it should be");
        seen.look(&web(0), &keepers, 0, at(2));
        seen.look(&web(0), &keepers, 1, at(3));
        assert_eq!(told(&seen, 3), 0, "the placement asks for one more");
        seen.look(&web(1), &keepers, 1, at(4));
        seen.look(&web(2), &keepers, 1, at(5));
        assert_eq!(told(&seen, 5), 1);
        seen.look(&web(1), &keepers, 1, at(6));
        assert_eq!((told(&seen, 604), told(&seen, 605)), (1, 0));
        seen.look(&web(2), &keepers, 1, at(700));
        assert_eq!(told(&seen, 700), 1, "again");
        seen.clear();
        assert_eq!(told(&seen, 700), 0);
        let mut nobodys = SetBack::default();
        nobodys.look(&web(0), &BTreeMap::new(), 0, at(1));
        nobodys.look(&web(2), &BTreeMap::new(), 0, at(2));
        assert_eq!(told(&nobodys, 2), 0, "no tool keeps it");
    }
}
