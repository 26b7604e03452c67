use super::*;
use crate::fleet::{
    Answer, View, merge,
    samples::{cluster, operation, shop},
};

fn picture(app: ProtectedApp, silent: &[&str]) -> Picture {
    let view = View {
        clusters: vec![cluster("east", "Held", true), cluster("west", "Lost", false)],
        apps: vec![app],
        operations: vec![operation("failover-4-2", "Succeeded", 2)],
    };
    let answers = ["west", "east"].map(|name| Answer {
        cluster: name.into(),
        view: match silent.contains(&name) {
            true => Err("Connection refused".into()),
            false => Ok(view.clone()),
        },
    });
    merge(answers.into())
}

fn explained(app: ProtectedApp, silent: &[&str]) -> String {
    let picture = picture(app, silent);
    explain(&picture, &picture.apps[0])
}

#[test]
fn a_lost_standby_is_explained_with_what_its_absence_means() {
    let expected = "\
shop/shop (ActivePassive): east is active, epoch 2, plan 5. Said by east.

It is not protected. It waits for:
  1. west is not heard of
     why: its API does not answer (Connection refused); the cluster is lost or cut off, and protection is back when it returns

Who may write:
  role data: no gate is granted it

If east were lost now:
  west could not take over: its API does not answer (Connection refused); missing: its configuration; missing: an image
    role data: at most the last 2 s of writes would be lost (rpo 3 s)
    what only it had when it returned is kept: 3 files, 120 bytes, written from 2026-01-01T00:00:03Z to 2026-01-01T00:00:05Z, in /kept
  nobody could take over: the application would be away until a cluster is ready or the lost one is back

What stands behind it:
  lease of west: Lost (whatever it serves with a writer role is fenced)
  lease of east: Held (it may serve what the plan gives it)
  epoch 2: east alone may write at it, raised by failover failover-4-2; what an older epoch writes is refused
";
    assert_eq!(
        explained(shop(5, "east", &["west is not heard of"]), &["west"]),
        expected
    );
}

#[test]
fn a_protected_application_says_who_would_take_over() {
    let text = explained(shop(5, "west", &[]), &[]);
    for part in [
        "It is protected: it waits for nothing.",
        "If west were lost now:\n  east could take over\n    role data: at most the last 1 s of writes would be lost (rpo 3 s)",
        "Leeward would move it to east by itself, as soon as the lease of west is over",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let mut manual = shop(5, "west", &[]);
    manual.spec.failover.mode = FailoverMode::Manual;
    let text = explained(manual, &[]);
    assert!(
        text.contains("a person would have to move it: leeward failover shop/shop --to east"),
        "{text}"
    );
}

#[test]
fn a_standby_without_room_cannot_take_over_and_one_whose_nodes_are_unknown_can() {
    let lack = "capacity: 3 pods of Deployment shop need 1Gi memory each; the nodes have room for 0: short of memory";
    let mut app = shop(5, "west", &[&format!("east: {lack}")]);
    let placements = &mut app.status.as_mut().unwrap().placements;
    let east = placements
        .iter_mut()
        .find(|placement| placement.cluster == "east")
        .unwrap();
    east.missing = vec![lack.into()];
    let text = explained(app, &[]);
    for part in [
        format!("  1. east: {lack}\n     why: the pods that would start there must find room").as_str(),
        &format!("  east could not take over: missing: {lack}\n"),
        "nobody could take over",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let mut app = shop(5, "west", &[]);
    let placements = &mut app.status.as_mut().unwrap().placements;
    let east = placements
        .iter_mut()
        .find(|placement| placement.cluster == "east")
        .unwrap();
    east.short = vec!["capacity: room for 1".into()];
    east.unknown = vec!["capacity: nodes cannot be read".into()];
    let text = explained(app, &[]);
    let part = "  east could take over\n    role data: at most the last 1 s of writes would be lost (rpo 3 s)\n    with fewer pods than it should have: capacity: room for 1\n    not known: capacity: nodes cannot be read\n";
    assert!(text.contains(part), "{text}");
}

#[test]
fn who_may_write_is_said_with_what_that_rests_on() {
    let mut app = shop(5, "west", &[]);
    let placements = &mut app.status.as_mut().unwrap().placements;
    placements[0].grants = vec![leeward_api::app::GrantStatus {
        role: "data".into(),
        pod: "uid-1".into(),
        // In the second incarnation after the first one.
        epoch: (2 << 40) | 7,
    }];
    placements[1].in_sync = Some(true);
    let text = explained(app.clone(), &[]);
    let expected = "\nWho may write:\n  role data: pod uid-1 in west, at epoch 2.7\n    that rests on the lease of west, and on points that \
                    east confirms within the rpo of 3s\n\n";
    assert!(text.contains(expected), "{text}");
    app.status.as_mut().unwrap().placements[1].in_sync = Some(false);
    assert!(explained(app, &[]).contains("the lease of west alone: no standby is in sync"));
}

#[test]
fn a_writer_without_a_gate_is_fenced_at_best_effort() {
    let mut app = shop(5, "west", &[]);
    let said = |app: &mut ProtectedApp, fenced| {
        let conditions = &mut app.status.as_mut().unwrap().conditions;
        let now = jiff::Timestamp::UNIX_EPOCH;
        leeward_api::condition::set(
            conditions,
            "Fenced",
            fenced,
            "R",
            "no gate is granted role data",
            None,
            now,
        );
        explained(app.clone(), &[])
    };
    let text = said(&mut app, false);
    let expected = "no gate is granted it\n  fenced at best effort: no gate is granted role data\n\n";
    assert!(text.contains(expected), "{text}");
    assert!(!said(&mut app, true).contains("best effort"));
}

#[test]
fn the_loss_follows_from_the_lag_and_the_roles() {
    let lost = |change: fn(&mut ProtectedApp)| {
        let mut app = shop(5, "west", &[]);
        change(&mut app);
        explained(app, &[])
    };
    type Change = fn(&mut ProtectedApp);
    let cases: [(Change, &str); 5] = [
        (
            |app| app.status.as_mut().unwrap().placements[1].state = "Lost".into(),
            "how old its copy is cannot be known while it is not heard of",
        ),
        (
            |app| app.status.as_mut().unwrap().placements[1].lag = Some(std::time::Duration::from_secs(9).into()),
            "the last 9 s of writes would be lost, more than the rpo of 3 s",
        ),
        (
            |app| app.status.as_mut().unwrap().placements[1].lag = None,
            "there is no complete point there, so all of its data would be missing",
        ),
        (
            |app| app.spec.roles.clear(),
            "nothing would be lost: the application has no writer roles",
        ),
        (
            |app| {
                app.spec.model = Model::ActiveActive;
                app.status.as_mut().unwrap().active = None;
                app.status.as_mut().unwrap().placements[1].state = "Active".into();
            },
            "If one of west, east were lost now, the others would go on",
        ),
    ];
    for (change, part) in cases {
        let text = lost(change);
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn what_a_standby_in_sync_may_lack_is_bounded_by_the_rpo_however_long_the_other_is_dead() {
    let mut app = shop(5, "west", &[]);
    let placements = &mut app.status.as_mut().unwrap().placements;
    placements[0].state = "Lost".into();
    placements[1].lag = Some(std::time::Duration::from_secs(14).into());
    placements[1].in_sync = Some(true);
    let text = explained(app.clone(), &["west"]);
    for part in [
        "west is not heard of, and its lease is over: it can write nothing more. If it stays away:",
        "role data: at most the last 3 s of writes would be lost (rpo 3 s)",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    app.status.as_mut().unwrap().placements[1].in_sync = Some(false);
    let text = explained(app, &["west"]);
    assert!(
        text.contains("the last 14 s of writes would be lost, more than the rpo of 3 s"),
        "{text}"
    );
}

#[test]
fn what_is_waited_for_has_a_reason() {
    let cases = [
        ("no plan was made yet", "no agent has been elected leader"),
        (
            "east: no complete point of role data",
            "the first copy of the data is still on its way",
        ),
        (
            "east: image shop:1: not in this region's registry",
            "push the image to any region",
        ),
        ("no ready endpoint in west", "kubectl -n shop get pods,events"),
        (
            "mirror of role data: east: 4000 ms behind",
            "not confirmed by the standby in time",
        ),
        (
            "failover-4-2: Promote in east",
            "an operation is under way; `leeward status shop/shop`",
        ),
    ];
    for (wait, part) in cases {
        let text = explained(shop(5, "west", &[wait]), &[]);
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn an_application_whose_quorum_can_lose_no_member_more_promises_no_failover() {
    let wait = format!(
        "2 of the 3 members of the quorum answer{}",
        leeward_core::report::NO_SPARE
    );
    let mut app = shop(5, "west", &[]);
    app.status.as_mut().unwrap().waiting_for = vec![wait];
    let text = explained(app, &[]);
    for part in [
        "`leeward quorum status` says which of them does not answer",
        "nothing would be moved where a member of the quorum is lost with west",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("by itself, as soon as"), "{text}");
}

#[test]
fn a_paused_application_says_who_would_have_to_move_it() {
    let mut app = shop(5, "west", &[]);
    app.spec.paused = true;
    app.status.as_mut().unwrap().waiting_for = vec![leeward_core::report::PAUSED.into()];
    let text = explained(app, &[]);
    for part in [
        "`leeward resume shop/shop` ends that",
        "since it is paused: leeward failover shop/shop --to east",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("by itself, as soon as"), "{text}");
}
