//! What is worth waking an agent's tasks for. While nothing happens leases go on and points follow one another, several times a second, and every
//! task would look at every application for each. Pure.
//!
//! Nobody waits for either: leases that run out are seen by the clock, and figures are read where something rests on them. What they grant wakes
//! by itself (`Agent::grant`), and so do figures while an application is moving.

use std::{collections::BTreeMap, time::Duration};

use leeward_core::{
    lease::{Sight, Timing},
    name::{AppKey, ClusterName},
    report::{AppReport, ClusterReport, MirrorReport, PointReport},
};
use leeward_quorum::known::Known;

/// What a copy of the quorum said before something was learnt.
pub(super) struct Before {
    sights: BTreeMap<ClusterName, Sight>,
    leader: Option<Sight>,
    others: u64,
}

impl Before {
    pub(super) fn of(known: &Known) -> Self {
        Self {
            sights: known.sights.clone(),
            leader: known.leader.clone(),
            others: known.others(),
        }
    }

    /// Whether the copy says more now than that leases go on.
    pub(super) fn differs(&self, known: &Known, timing: &Timing) -> bool {
        let in_time = timing.ttl / 2;
        let is_held_on = |(cluster, sight): (&ClusterName, &Sight)| {
            let before = self.sights.get(cluster);
            before.is_some_and(|before| goes_on(before, sight, in_time))
        };
        let leads_on = match (&self.leader, &known.leader) {
            (Some(before), Some(sight)) => goes_on(before, sight, in_time),
            (before, sight) => before == sight,
        };
        let all = self.sights.len() == known.sights.len() && known.sights.iter().all(is_held_on);
        self.others != known.others() || !all || !leads_on
    }
}

/// Whether the same process has the lease and renewed it in good time: nobody can have begun to take it for silent.
fn goes_on(before: &Sight, sight: &Sight, in_time: Duration) -> bool {
    let (old, new) = (&before.lease, &sight.lease);
    before == sight
        || old.cluster == new.cluster
            && old.holder == new.holder
            && !old.sealed
            && !new.sealed
            && sight.first_seen.since(before.first_seen) < in_time
}

/// Whether two reports say the same of an application, but for how far its data has come.
pub(super) fn only_figures(before: &AppReport, after: &AppReport) -> bool {
    without(before) == without(after)
}

/// The same of two reports of a cluster, of which those that `is_moving` says of are compared with their figures.
pub(super) fn only_figures_of(
    before: &ClusterReport,
    after: &ClusterReport,
    is_moving: impl Fn(&AppKey) -> bool,
) -> bool {
    let same = before.cluster == after.cluster && before.holder == after.holder && before.unseen == after.unseen;
    same && before.apps.len() == after.apps.len()
        && after.apps.iter().all(|(app, report)| {
            let before = before.apps.get(app);
            before.is_some_and(|before| before == report || !is_moving(app) && only_figures(before, report))
        })
}

fn without(report: &AppReport) -> AppReport {
    let mut report = report.clone();
    for role in report.roles.values_mut() {
        // Whether there is one, and of which epoch, is more than a figure.
        role.point = role.point.take().map(|point| PointReport {
            epoch: point.epoch,
            sequence: 0,
            source_ms: 0,
        });
        role.mirror = role.mirror.take().map(|mirror| MirrorReport {
            points: mirror.points.min(1),
            trouble: mirror.trouble,
            ..MirrorReport::default()
        });
    }
    report
}

#[cfg(test)]
mod tests {
    use leeward_core::{
        lease::{Delays, Lease, Moment},
        name::Epoch,
        report::RoleReport,
    };
    use leeward_quorum::{Entry, key};

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }

    fn lease(holder: &str, sequence: u64, sealed: bool) -> Lease {
        Lease {
            cluster: "west".into(),
            holder: holder.into(),
            sequence,
            sealed,
        }
    }

    fn entry(key: &str, value: &impl serde::Serialize, revision: u64) -> Entry {
        Entry {
            key: key.into(),
            value: Some(serde_json::to_string(value).unwrap()),
            revision,
        }
    }

    #[test]
    fn a_lease_that_goes_on_is_no_news_and_everything_else_of_the_quorum_is() {
        let timing = Timing::new(Duration::from_secs(6), Delays::WITHOUT_ELECTIONS).unwrap();
        let west = &key::lease(&"west".into());
        let plan = key::plan(&AppKey::new("shop", "shop"));
        let first = |sealed| {
            vec![
                entry(west, &lease("a", 1, sealed), 1),
                entry(key::LEADER, &lease("a", 1, false), 2),
            ]
        };
        for (name, before, then, at_ms, news) in [
            ("renewed", false, entry(west, &lease("a", 2, false), 9), 1_000, false),
            (
                "heard of twice",
                false,
                entry(west, &lease("a", 1, false), 1),
                5_900,
                false,
            ),
            (
                "renewed late",
                false,
                entry(west, &lease("a", 2, false), 9),
                3_000,
                true,
            ),
            (
                "taken by another process",
                false,
                entry(west, &lease("b", 2, false), 9),
                1_000,
                true,
            ),
            ("sealed", false, entry(west, &lease("a", 2, true), 9), 1_000, true),
            ("held again", true, entry(west, &lease("a", 2, false), 9), 1_000, true),
            (
                "sealed and heard of twice",
                true,
                entry(west, &lease("a", 1, true), 1),
                9_000,
                false,
            ),
            (
                "the leader's, renewed",
                false,
                entry(key::LEADER, &lease("a", 2, false), 9),
                1_000,
                false,
            ),
            (
                "the leader's, taken",
                false,
                entry(key::LEADER, &lease("b", 2, false), 9),
                1_000,
                true,
            ),
            (
                "another region's first",
                false,
                entry(
                    &key::lease(&"east".into()),
                    &Lease {
                        cluster: "east".into(),
                        ..lease("c", 1, false)
                    },
                    9,
                ),
                1_000,
                true,
            ),
            ("a plan", false, entry(&plan, &serde_json::json!({}), 9), 1_000, true),
        ] {
            let mut known = Known::default();
            known.take(first(before), at(0));
            let old = Before::of(&known);
            known.take(vec![then], at(at_ms));
            assert_eq!(old.differs(&known, &timing), news, "{name}");
        }
        let mut known = Known::default();
        known.take(first(false), at(0));
        let old = Before::of(&known);
        // Read as a whole, and this lease is not in it.
        known.sights.clear();
        assert!(old.differs(&known, &timing));
    }

    fn report(role: RoleReport) -> AppReport {
        AppReport {
            roles: [("data".to_owned(), role)].into(),
            ..AppReport::default()
        }
    }

    #[test]
    fn how_far_data_has_come_is_a_figure_and_everything_else_of_a_report_is_not() {
        let point = |epoch, sequence| {
            Some(PointReport {
                epoch: Epoch(epoch),
                sequence,
                source_ms: sequence * 1000,
            })
        };
        let mirror = |points, trouble: Option<&str>| {
            Some(MirrorReport {
                points,
                bytes_sent: points * 100,
                pause_us_max: points,
                trouble: trouble.map(str::to_owned),
            })
        };
        let role = || RoleReport {
            point: point(1, 7),
            mirror: mirror(7, None),
            ..RoleReport::default()
        };
        let before = report(role());
        for (name, after, figures) in [
            ("nothing", report(role()), true),
            (
                "a point",
                report(RoleReport {
                    point: point(1, 8),
                    ..role()
                }),
                true,
            ),
            (
                "what was sent",
                report(RoleReport {
                    mirror: mirror(8, None),
                    ..role()
                }),
                true,
            ),
            (
                "the first point of an epoch",
                report(RoleReport {
                    point: point(2, 1),
                    ..role()
                }),
                false,
            ),
            ("no point", report(RoleReport { point: None, ..role() }), false),
            (
                "trouble",
                report(RoleReport {
                    mirror: mirror(8, Some("slow")),
                    ..role()
                }),
                false,
            ),
            (
                "a pod",
                AppReport {
                    pods: 1,
                    ..report(role())
                },
                false,
            ),
            (
                "something lacking",
                AppReport {
                    missing: vec!["a".into()],
                    ..report(role())
                },
                false,
            ),
        ] {
            assert_eq!(only_figures(&before, &after), figures, "{name}");
            let app = AppKey::new("shop", "shop");
            let of = |report: &AppReport| ClusterReport {
                cluster: "west".into(),
                holder: "a".into(),
                apps: [(app.clone(), report.clone())].into(),
                unseen: vec![],
            };
            assert_eq!(only_figures_of(&of(&before), &of(&after), |_| false), figures, "{name}");
            let same = before == after;
            assert_eq!(
                only_figures_of(&of(&before), &of(&after), |_| true),
                same,
                "{name}, while it moves"
            );
        }
    }
}
