use super::*;

const MS: u64 = 1_000;

/// A read that was answered (`ok`) or given up; milliseconds.
fn read(sent: u64, ended: u64, ok: bool) -> Read {
    Read {
        sent_at: sent * MS,
        ended_at: ended * MS,
        ok,
        cluster: None,
    }
}

/// A write that was acknowledged one millisecond after it was sent; its record is the n-th of the log.
fn ack(n: u64, sent: u64, epoch: u64, cluster: &str) -> Write {
    let outcome = Outcome::Acknowledged {
        epoch,
        cluster: cluster.into(),
        offset: Some(n * 40),
    };
    Write {
        n,
        sent_at: sent * MS,
        answered_at: (sent + 1) * MS,
        outcome,
    }
}

fn without_offset(mut write: Write) -> Write {
    if let Outcome::Acknowledged { offset, .. } = &mut write.outcome {
        *offset = None;
    }
    write
}

fn ended(n: u64, sent: u64, outcome: Outcome) -> Write {
    Write {
        n,
        sent_at: sent * MS,
        answered_at: (sent + 1) * MS,
        outcome,
    }
}

fn record(n: u64, epoch: u64, cluster: &str) -> Record {
    Record {
        client: "c".into(),
        n,
        epoch,
        cluster: cluster.into(),
        micros: 0,
        offset: n * 40,
    }
}

fn count(of: &[Write], kept: &[Record]) -> Writes {
    let fault = Fault {
        began: 1_000 * MS,
        ended: 1_010 * MS,
    };
    writes(of, Volumes { kept, all: kept }, Some(fault))
}

#[test]
fn reads_are_counted_by_their_end() {
    let got = requests(&[read(0, 1, true), read(10, 2010, false), read(20, 21, true)]);
    assert_eq!((got.sent, got.ok, got.failed), (3, 2, 1));
    assert_eq!(requests(&[]), Requests::default());
}

#[test]
fn the_longest_outage_is_the_longest_time_without_an_answer() {
    for (name, reads, expected) in [
        (
            "steady",
            vec![read(0, 1, true), read(10, 11, true), read(20, 21, true)],
            10,
        ),
        (
            "a gap in the middle",
            vec![read(0, 1, true), read(10, 410, true), read(20, 500, true)],
            409,
        ),
        (
            "answers out of order",
            vec![read(0, 300, true), read(10, 11, true), read(20, 21, true)],
            279,
        ),
        (
            "nothing at first",
            vec![read(0, 2000, false), read(10, 700, true), read(1990, 2000, true)],
            1300,
        ),
        (
            "nothing from the start to the first",
            vec![read(0, 900, true), read(10, 901, true)],
            900,
        ),
        (
            "nothing at the end",
            vec![read(0, 1, true), read(10, 2010, false)],
            2009,
        ),
        (
            "nothing at all",
            vec![read(0, 2000, false), read(10, 2010, false)],
            2010,
        ),
    ] {
        assert_eq!(requests(&reads).longest_outage_ms, expected, "{name}");
    }
}

#[test]
fn writes_are_counted_by_their_outcome() {
    let of = [
        ack(1, 0, 1, "west"),
        ended(2, 10, Outcome::Refused),
        ended(3, 20, Outcome::Unknown),
    ];
    let got = count(&of, &[record(1, 1, "west")]);
    assert_eq!((got.acknowledged, got.refused, got.unknown, got.lost), (1, 1, 1, 0));
}

#[test]
fn the_longest_write_is_counted_from_when_it_was_sent_to_its_acknowledgement() {
    let late = |sent: u64, answered: u64| Write {
        answered_at: answered * MS + 1,
        ..ack(2, sent, 1, "west")
    };
    // What was never acknowledged is counted elsewhere.
    let given_up = Write {
        answered_at: 2_000 * MS,
        ..ended(3, 0, Outcome::Unknown)
    };
    for (name, of, expected) in [
        ("all at once", vec![ack(1, 0, 1, "west")], 1),
        ("a late one", vec![ack(1, 0, 1, "west"), late(20, 920)], 901),
        ("one that was given up", vec![ack(1, 0, 1, "west"), given_up], 1),
        ("none", vec![], 0),
    ] {
        assert_eq!(count(&of, &[]).longest_ms, expected, "{name}");
    }
}

#[test]
fn lost_is_what_was_acknowledged_and_is_absent_from_the_new_writers_volume() {
    let of = [
        ack(1, 500, 1, "west"),
        ack(2, 800, 1, "west"),
        ack(3, 900, 1, "west"),
        ended(4, 950, Outcome::Unknown),
    ];
    let got = count(&of, &[record(1, 1, "west")]);
    assert_eq!((got.lost, got.holes), (2, 0));
    // Write 2 was acknowledged at 801 ms; the fault ended at 1010 ms.
    assert_eq!(got.lost_window_ms, 209);
    let whole = [record(1, 1, "west"), record(2, 1, "west"), record(3, 1, "west")];
    assert_eq!((count(&of, &whole).lost, count(&of, &whole).lost_window_ms), (0, 0));
}

#[test]
fn the_lost_window_is_counted_from_the_oldest_acknowledgement_not_the_lowest_number() {
    let mut slow = ack(1, 100, 1, "west");
    slow.answered_at = 990 * MS;
    let of = [slow, ack(2, 700, 1, "west")];
    assert_eq!(count(&of, &[]).lost_window_ms, 309);
}

#[test]
fn the_lost_window_reaches_to_the_last_acknowledgement_of_a_writer_that_lived_on() {
    let of = [
        ack(1, 700, 1, "west"),
        ack(2, 2_900, 1, "west"),
        ack(3, 9_000, 2, "east"),
    ];
    assert_eq!(count(&of, &[record(3, 2, "east")]).lost_window_ms, 2_200);
}

#[test]
fn a_hole_is_a_lost_write_before_a_kept_one_of_the_same_epoch() {
    for (name, writes, kept, holes) in [
        (
            "the tail is lost",
            vec![ack(1, 0, 1, "west"), ack(2, 10, 1, "west")],
            vec![record(1, 1, "west")],
            0,
        ),
        (
            "one in the middle is lost",
            vec![ack(1, 0, 1, "west"), ack(2, 10, 1, "west"), ack(3, 20, 1, "west")],
            vec![record(1, 1, "west"), record(3, 1, "west")],
            1,
        ),
        (
            "what the next epoch wrote behind a lost tail makes no hole",
            vec![ack(1, 0, 1, "west"), ack(2, 10, 1, "west"), ack(3, 20, 2, "east")],
            vec![record(1, 1, "west"), record(3, 2, "east")],
            0,
        ),
        (
            "a kept write whose outcome the client does not know counts as kept",
            vec![ack(1, 0, 1, "west"), ended(2, 10, Outcome::Unknown)],
            vec![record(2, 1, "west")],
            1,
        ),
        (
            "without offsets the order in time decides",
            vec![
                without_offset(ack(1, 0, 1, "west")),
                without_offset(ack(2, 10, 1, "west")),
            ],
            vec![record(2, 1, "west")],
            1,
        ),
        (
            "without offsets, two that overlapped have no order",
            vec![
                without_offset(ack(1, 0, 1, "west")),
                without_offset(ack(2, 0, 1, "west")),
            ],
            vec![record(2, 1, "west")],
            0,
        ),
    ] {
        assert_eq!(count(&writes, &kept).holes, holes, "{name}");
    }
}

#[test]
fn an_acknowledgement_after_the_first_one_of_a_higher_epoch_is_a_conflict() {
    let first_of_2 = ack(10, 100, 2, "east");
    for (name, other, expected) in [
        ("sent before, acknowledged before", ack(1, 50, 1, "west"), 0),
        (
            "sent before the first of the higher epoch was acknowledged",
            ack(1, 100, 1, "west"),
            0,
        ),
        ("sent after it", ack(1, 102, 1, "west"), 1),
        ("refused after it", ended(1, 102, Outcome::Refused), 0),
        ("unknown, and on no volume", ended(1, 102, Outcome::Unknown), 0),
        ("of a higher epoch itself", ack(1, 102, 3, "west"), 0),
    ] {
        assert_eq!(conflicts(&[first_of_2.clone(), other], &[]), expected, "{name}");
    }
}

#[test]
fn the_counter_counts_each_write_of_an_unfenced_old_writer() {
    let mut of: Vec<Write> = (1..=100).map(|n| ack(n, 10 * n, 1, "west")).collect();
    of.extend((101..=200).map(|n| {
        ack(
            n,
            10 * n,
            if n % 2 == 0 { 2 } else { 1 },
            if n % 2 == 0 { "east" } else { "west" },
        )
    }));
    // The first acknowledgement of epoch 2 is that of write 102; 103, 105, ..., 199 went to the old writer after it.
    assert_eq!(conflicts(&of, &[]), 49);
}

#[test]
fn two_regions_in_one_epoch_are_a_conflict() {
    assert_eq!(
        conflicts(
            &[ack(1, 0, 1, "west"), ack(2, 10, 1, "west"), ack(3, 20, 1, "east")],
            &[]
        ),
        1
    );
    assert_eq!(conflicts(&[ack(1, 0, 1, "west"), ack(2, 10, 2, "east")], &[]), 0);
}

#[test]
fn what_stands_on_a_volume_counts_although_the_client_saw_no_acknowledgement() {
    let of = [
        ack(1, 0, 1, "west"),
        ack(2, 100, 2, "east"),
        ended(3, 200, Outcome::Unknown),
    ];
    assert_eq!(conflicts(&of, &[record(1, 1, "west"), record(2, 2, "east")]), 0);
    assert_eq!(conflicts(&of, &[record(1, 1, "west"), record(3, 1, "west")]), 1);
    // And two regions that recorded in one epoch, on the volumes alone.
    assert_eq!(
        conflicts(&[], &[record(1, 1, "west"), record(2, 1, "west"), record(3, 1, "east")]),
        1
    );
}

#[test]
fn a_copy_of_a_record_on_the_standbys_volume_is_no_conflict() {
    let of = [ack(1, 0, 1, "west"), ack(2, 10, 1, "west")];
    let both = [record(1, 1, "west"), record(2, 1, "west"), record(1, 1, "west")];
    assert_eq!(conflicts(&of, &both), 0);
}

#[test]
fn the_recovery_time_runs_from_the_fault_to_the_first_acknowledgement_of_a_write_sent_after_it() {
    let fault = Fault {
        began: 1_000 * MS,
        ended: 1_010 * MS,
    };
    let mut in_flight = ack(1, 995, 1, "west");
    in_flight.answered_at = 1_400 * MS;
    for (name, writes, expected) in [
        ("nothing after it", vec![ack(1, 900, 1, "west")], None),
        (
            "one that was in flight does not count",
            vec![in_flight, ack(2, 4_000, 2, "east")],
            Some(3_001),
        ),
        (
            "one that slipped through while it was made does not",
            vec![ack(1, 1_005, 1, "west"), ack(2, 6_000, 2, "east")],
            Some(5_001),
        ),
        (
            "refusals do not",
            vec![ended(1, 1_500, Outcome::Refused), ack(2, 2_000, 2, "east")],
            Some(1_001),
        ),
        (
            "the first answer, not the first sent",
            vec![
                Write {
                    answered_at: 9_000 * MS,
                    ..ack(1, 2_000, 2, "east")
                },
                ack(2, 3_000, 2, "east"),
            ],
            Some(2_001),
        ),
    ] {
        assert_eq!(rto_ms(&writes, fault, 1), expected, "{name}");
    }
    let lives_on = [ack(1, 1_500, 1, "west"), ack(2, 4_000, 2, "east")];
    assert_eq!(rto_ms(&lives_on, fault, 1), Some(501), "the same region goes on");
    assert_eq!(rto_ms(&lives_on, fault, 2), Some(3_001), "another one takes over");
}

#[test]
fn a_switchover_is_measured_by_its_longest_silence_and_by_what_is_absent() {
    let writes = [
        ack(1, 900, 2, "east"),
        ack(2, 1_000, 2, "east"),
        ended(3, 1_200, Outcome::Refused),
        ack(4, 1_500, 3, "west"),
        ack(5, 5_000, 3, "west"),
    ];
    let kept: Vec<_> = [1, 2, 4, 5].map(|n| record(n, 2, "east")).to_vec();
    let got = switchover(&writes, &kept, 950 * MS, 2).unwrap();
    assert_eq!(
        got,
        Switchover {
            writes_lost: 0,
            outage_ms: 500
        }
    );
    let got = switchover(&writes, &kept[..1], 950 * MS, 2).unwrap();
    assert_eq!(got.writes_lost, 1);
    assert_eq!(switchover(&writes[..3], &kept, 950 * MS, 2), None);
}

#[test]
fn every_epoch_that_wrote_is_listed_once() {
    let writes = [
        ack(1, 0, 1, "west"),
        ack(2, 10, 3, "west"),
        ended(3, 20, Outcome::Unknown),
    ];
    assert_eq!(
        epochs(&writes, &[record(3, 2, "east"), record(1, 1, "west")]),
        [1, 2, 3]
    );
}
