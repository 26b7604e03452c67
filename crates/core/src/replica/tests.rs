use super::*;
use crate::lease::Delays;

mod together;

const T: u64 = 6000;

fn at(ms: u64) -> Moment {
    Moment(Duration::from_millis(100_000 + ms))
}

fn timing() -> Timing {
    Timing::new(Duration::from_millis(T), Delays::WITHOUT_ELECTIONS).unwrap()
}

fn lease(holder: &str, sequence: u64) -> Lease {
    Lease {
        cluster: "west".into(),
        holder: holder.into(),
        sequence,
        sealed: false,
    }
}

/// What "a" hears, each with its moment.
#[derive(Debug, Clone, Copy)]
enum Hears {
    /// It renewed the lease.
    Renewed,
    /// An answer that the lease of "b" is at this revision, which it was asked for at this moment.
    Read(u64),
    /// Its copy has this one's lease, at a revision.
    Known(&'static str, u64),
    Shown(&'static str),
}
use Hears::{Known, Read, Renewed, Shown as Named};

fn replica(has_others: bool, heard: &[(u64, Hears)]) -> Replica {
    let mut replica = Replica::new("a", has_others, timing(), at(0));
    for (ms, hears) in heard {
        let now = at(*ms);
        match hears {
            Renewed => replica.hear(Event::Renewed(now), now),
            Read(revision) => {
                let lease = &lease("b", *revision);
                let revision = *revision;
                replica.hear(
                    Event::Read {
                        lease,
                        revision,
                        sent: now,
                    },
                    now,
                );
            }
            Known(holder, revision) => {
                let before = replica.known.clone();
                let sight = Sight::observe(before, lease(holder, *revision), *revision, now);
                replica.hear(Event::Known(Some(&sight)), now);
            }
            Named(holder) => replica.hear(Event::Shown(Some(holder)), now),
        }
    }
    replica
}

#[test]
fn whether_it_acts_by_what_it_heard() {
    let lives = [(0, Known("b", 1)), (0, Read(1)), (1000, Known("b", 2)), (1000, Read(2))];
    let and = |more: &[(u64, Hears)]| [&lives[..], more].concat();
    let holds = [(0, Renewed), (0, Known("a", 2)), (0, Named("a"))];
    let held_and = |more: &[(u64, Hears)]| [&holds[..], more].concat();
    for (what, has_others, heard, now, acts) in [
        ("the only one, from its start", false, vec![], 0, true),
        (
            "the only one, after its predecessor",
            false,
            vec![(0, Known("b", 1))],
            0,
            true,
        ),
        ("a replica that knows nothing", true, vec![], 90_000, false),
        (
            "a replica, while another one has the lease",
            true,
            vec![(0, Known("b", 1))],
            0,
            false,
        ),
        ("who has the lease", true, holds.to_vec(), 100, true),
        // The other one renews: this one keeps still for two thirds of the lease after the last time.
        ("before two thirds", true, and(&[(4900, Read(2))]), 4900, false),
        ("after two thirds", true, and(&[(5000, Read(2))]), 5001, true),
        (
            "it was renewed after all",
            true,
            and(&[(5000, Read(2)), (5100, Known("b", 3))]),
            5100,
            false,
        ),
        // The quorum does not answer: nobody knows, however long it takes.
        ("no answer", true, lives.to_vec(), 60_000, false),
        // One that stepped in loses the quorum, and the other one comes back.
        (
            "told, and another one seen",
            true,
            and(&[(5000, Read(2)), (5000, Named("a")), (5100, Named("b"))]),
            6999,
            true,
        ),
        (
            "not told, and another one seen",
            true,
            and(&[(5000, Read(2)), (5000, Named("a")), (5100, Named("b"))]),
            7000,
            false,
        ),
        (
            "not told, and nobody seen",
            true,
            and(&[(5000, Read(2)), (5000, Named("a"))]),
            60_000,
            true,
        ),
        // What is left by one that ended before this one began is waited for half as long.
        (
            "before a third",
            true,
            vec![(0, Known("b", 1)), (0, Read(1)), (1900, Read(1))],
            1901,
            false,
        ),
        (
            "after a third",
            true,
            vec![(0, Known("b", 1)), (0, Read(1)), (2000, Read(1))],
            2001,
            true,
        ),
        // Who lost the quorum goes on until another one is seen to act.
        ("over, and nobody seen", true, holds.to_vec(), 60_000, true),
        (
            "over, and another one seen",
            true,
            held_and(&[(5000, Named("b"))]),
            5940,
            false,
        ),
        (
            "not over, and another one seen",
            true,
            held_and(&[(5000, Named("b"))]),
            5939,
            true,
        ),
        (
            "named again after that",
            true,
            held_and(&[(5000, Named("b")), (5100, Named("a"))]),
            60_000,
            true,
        ),
        (
            "another one was named before it",
            true,
            vec![(0, Named("b")), (0, Known("a", 2))],
            60_000,
            true,
        ),
        // Another one has the lease, and renews it: also for one that began as the only one.
        (
            "the only one, and taken",
            false,
            vec![(0, Renewed), (100, Read(3)), (100, Known("b", 3))],
            200,
            false,
        ),
    ] {
        assert_eq!(replica(has_others, &heard).acts(at(now)), acts, "{what}");
    }
}

#[test]
fn a_seal_is_no_sign_of_life() {
    let mut seen = replica(true, &[(0, Read(1))]);
    let sealed = Lease {
        sealed: true,
        ..lease("b", 1)
    };
    let read = Event::Read {
        lease: &sealed,
        revision: 2,
        sent: at(100),
    };
    seen.hear(read, at(100));
    assert!(!seen.witnessed);
}

#[test]
fn since_when_it_acts_is_since_it_last_began_to() {
    let alone = replica(false, &[(700, Known("b", 1)), (900, Known("a", 2))]);
    assert_eq!(alone.since(at(1000)), Some(at(0)));
    let silent = [(0, Known("b", 1)), (0, Read(1)), (2000, Read(1))];
    let steps_in = replica(true, &silent);
    assert_eq!(
        (steps_in.since(at(1999)), steps_in.since(at(3000))),
        (Some(at(2000)), Some(at(2000)))
    );
    // It is given the lease while it acts.
    let holds = [
        &silent[..],
        &[(6100, Renewed), (6100, Known("a", 2)), (6100, Named("a"))],
    ]
    .concat();
    assert_eq!(replica(true, &holds).since(at(6200)), Some(at(2000)));
    // It stops by the passing of time, and begins anew.
    let stops = [&holds[..], &[(9000, Named("b"))]].concat();
    let stopped = replica(true, &stops);
    assert_eq!(
        (stopped.since(at(12_039)), stopped.since(at(12_040))),
        (Some(at(2000)), None)
    );
    let again = [&stops[..], &[(20_000, Renewed)]].concat();
    assert_eq!(replica(true, &again).since(at(20_001)), Some(at(20_000)));
}

#[test]
fn one_that_steps_in_speaks_once_it_has_looked_at_everything_or_for_long_enough() {
    let silent = replica(true, &[(0, Known("b", 1)), (0, Read(1)), (2000, Read(1))]);
    for (now, looked, speaks) in [
        (2000, false, false),
        (2000, true, true),
        (4000, false, false),
        (4001, false, true),
    ] {
        assert_eq!(silent.speaks(|| looked, at(now)), speaks, "{now} {looked}");
    }
    assert!(replica(false, &[]).speaks(|| false, at(0)));
    assert!(!replica(true, &[]).speaks(|| true, at(9000)));
}
