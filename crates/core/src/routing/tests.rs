use proptest::prelude::*;

use super::{
    health::{Sample, State, observe},
    *,
};

fn endpoint(cluster: &str, priority: u8, weight: u16) -> Endpoint {
    Endpoint {
        cluster: cluster.into(),
        address: "127.0.0.1:8080".parse().unwrap(),
        priority,
        weight,
        enabled: true,
    }
}

fn profile(endpoints: Vec<Endpoint>) -> Profile {
    Profile {
        app: AppKey::new("shop", "web"),
        hosts: vec!["web.example".to_owned()],
        writer: None,
        endpoints,
        prefer_local: false,
        probe: Probe::default(),
        timing: Timing::default(),
    }
}

fn table(generation: u64, profiles: Vec<Profile>) -> Table {
    Table {
        generation: Generation(generation),
        profiles,
    }
}

fn chosen<'a>(p: &'a Profile, down: &[&str], local: &str, tried: &[&str], random: u64) -> Option<&'a str> {
    let tried: Vec<ClusterName> = tried.iter().map(|c| (*c).into()).collect();
    route(p, |c| !down.contains(&c.as_str()), &local.into(), &tried, random).map(|e| e.cluster.as_str())
}

#[test]
fn the_lowest_priority_number_is_chosen_among_the_healthy() {
    let p = profile(vec![
        endpoint("west", 2, 1),
        endpoint("east", 1, 1),
        endpoint("north", 3, 1),
    ]);
    let cases: &[(&[&str], &[&str], Option<&str>)] = &[
        (&[], &[], Some("east")),
        (&["east"], &[], Some("west")),
        (&["east", "west"], &[], Some("north")),
        (&["east", "west", "north"], &[], Some("east")),
        (&[], &["east"], Some("west")),
        (&["west"], &["east"], Some("north")),
        (&["west", "north"], &["east"], Some("west")),
        (&[], &["east", "west", "north"], None),
    ];
    for (down, tried, expected) in cases {
        assert_eq!(chosen(&p, down, "west", tried, 7), *expected, "{down:?} {tried:?}");
    }
}

#[test]
fn the_local_cluster_is_preferred_only_where_the_profile_says_so_and_while_it_is_healthy() {
    let mut p = profile(vec![endpoint("west", 1, 1), endpoint("east", 2, 1)]);
    assert_eq!(chosen(&p, &[], "east", &[], 0), Some("west"));
    p.prefer_local = true;
    assert_eq!(chosen(&p, &[], "east", &[], 0), Some("east"));
    assert_eq!(chosen(&p, &["east"], "east", &[], 0), Some("west"));
    assert_eq!(chosen(&p, &[], "east", &["east"], 0), Some("west"));
}

#[test]
fn an_application_with_a_writer_is_answered_by_the_writers_cluster_alone() {
    let mut p = profile(vec![endpoint("west", 1, 1), endpoint("east", 2, 1)]);
    p.writer = Some(Writer {
        cluster: "east".into(),
        epoch: Epoch(3),
    });
    assert_eq!(chosen(&p, &["east"], "west", &[], 0), Some("east"));
    assert_eq!(chosen(&p, &[], "west", &["east"], 0), None);
}

#[test]
fn a_disabled_endpoint_is_never_chosen() {
    let mut p = profile(vec![endpoint("west", 1, 1), endpoint("east", 2, 1)]);
    p.endpoints[0].enabled = false;
    assert_eq!(chosen(&p, &["east"], "west", &[], 0), Some("east"));
    assert_eq!(chosen(&p, &[], "west", &["east"], 0), None);
}

fn arbitrary_profile() -> impl Strategy<Value = Profile> {
    let one = (1u8..=5, 1u16..=1000, any::<bool>());
    (prop::collection::vec(one, 0..6), any::<bool>()).prop_map(|(list, prefer_local)| {
        let endpoints = list
            .iter()
            .enumerate()
            .map(|(i, (priority, weight, enabled))| Endpoint {
                enabled: *enabled,
                ..endpoint(&format!("c{i}"), *priority, *weight)
            });
        Profile {
            prefer_local,
            ..profile(endpoints.collect())
        }
    })
}

proptest! {
    #[test]
    fn a_choice_is_open_healthy_if_any_is_and_of_the_first_priority(
        p in arbitrary_profile(), down in any::<u8>(), tried in any::<u8>(), random in any::<u64>(), local in 0usize..6,
    ) {
        let bit = |set: u8, c: &ClusterName| set >> c.as_str()[1..].parse::<u32>().unwrap() & 1 == 1;
        let tried: Vec<_> = p.endpoints.iter().map(|e| e.cluster.clone()).filter(|c| bit(tried, c)).collect();
        let local = ClusterName::new(format!("c{local}"));
        let open: Vec<_> = p.endpoints.iter().filter(|e| e.enabled && !tried.contains(&e.cluster)).collect();
        let well: Vec<_> = open.iter().filter(|e| !bit(down, &e.cluster)).collect();
        match route(&p, |c| !bit(down, c), &local, &tried, random) {
            None => prop_assert!(open.is_empty()),
            Some(e) => {
                prop_assert!(open.contains(&e));
                prop_assert!(well.is_empty() || well.contains(&&e));
                let rivals = open.iter().filter(|r| well.is_empty() || !bit(down, &r.cluster));
                let first = rivals.map(|r| r.priority).min();
                prop_assert!(Some(e.priority) == first || p.prefer_local && e.cluster == local);
            }
        }
    }

    #[test]
    fn shares_follow_the_weights(weights in prop::collection::vec(1u16..=1000, 1..5)) {
        let p = profile(weights.iter().enumerate().map(|(i, w)| endpoint(&format!("c{i}"), 1, *w)).collect());
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        // Every residue once is an even draw: the shares are then exactly the weights.
        let mut count = vec![0u64; weights.len()];
        for random in 0..total {
            let name = chosen(&p, &[], "none", &[], random).unwrap();
            count[name[1..].parse::<usize>().unwrap()] += 1;
        }
        prop_assert_eq!(count, weights.iter().map(|w| u64::from(*w)).collect::<Vec<_>>());
    }

    #[test]
    fn health_turns_only_after_the_stated_number_in_a_row(
        samples in prop::collection::vec(any::<bool>(), 1..60), tolerated in 0u32..4, required in 1u32..4,
    ) {
        let policy = Probe { tolerated_failures: tolerated, successes_required: required, ..Probe::default() };
        let mut state = State::unknown(0);
        let (mut expected, mut run) = (samples[0], 0);
        for (i, good) in samples.iter().enumerate() {
            let sample = if *good { Sample::Success { rtt_ms: 1 } } else { Sample::Failure("no".to_owned()) };
            state = observe(state, sample, &policy, i as u64);
            run = if *good == expected { 0 } else { run + 1 };
            if run == if expected { tolerated + 1 } else { required } {
                (expected, run) = (*good, 0);
            }
            prop_assert_eq!(state.usable(i as u64), expected, "sample {}", i);
        }
    }
}

#[test]
fn a_failed_request_makes_an_endpoint_suspect_for_one_interval_or_until_a_probe_succeeds() {
    let policy = Probe::default();
    let state = observe(State::unknown(0), Sample::Success { rtt_ms: 2 }, &policy, 10);
    let suspect = state.suspect("connection broke".to_owned(), &policy, 100);
    assert!(!suspect.usable(100));
    assert!(!suspect.usable(1_099));
    assert!(suspect.usable(1_100));
    assert!(suspect.health(1_100).last_error.is_some());
    let probed = observe(suspect, Sample::Success { rtt_ms: 2 }, &policy, 200);
    assert!(probed.usable(200));
}

fn problem(t: &Table, current: Option<&Table>) -> Problem {
    match check(t, current) {
        Err(TableError::Profile { problem, .. }) => problem,
        other => panic!("expected a problem of a profile, got {other:?}"),
    }
}

#[test]
fn a_table_that_would_answer_nothing_or_holds_a_bad_number_is_refused() {
    let good = profile(vec![endpoint("west", 1, 100), endpoint("east", 2, 100)]);
    assert_eq!(check(&table(1, vec![good.clone()]), None), Ok(()));
    type Spoil = fn(&mut Profile);
    let cases: &[(Spoil, &str)] = &[
        (|p| p.hosts.clear(), "no host name"),
        (|p| p.hosts[0] = "Web.Example".to_owned(), "lower case"),
        (|p| p.hosts[0] = "web:80".to_owned(), "without port"),
        (|p| p.endpoints.clear(), "no endpoint is enabled"),
        (
            |p| p.endpoints.iter_mut().for_each(|e| e.enabled = false),
            "no endpoint is enabled",
        ),
        (|p| p.endpoints[1].cluster = "west".into(), "more than once"),
        (|p| p.endpoints[0].priority = 0, "expected 1 to 5"),
        (|p| p.endpoints[0].priority = 6, "expected 1 to 5"),
        (|p| p.endpoints[0].weight = 0, "expected 1 to 1000"),
        (|p| p.endpoints[0].weight = 1001, "expected 1 to 1000"),
        (|p| p.endpoints[0].address.set_port(0), "port 0"),
        (
            |p| {
                p.writer = Some(Writer {
                    cluster: "mars".into(),
                    epoch: Epoch(1),
                })
            },
            "not among its endpoints",
        ),
        (|p| p.probe.path = "healthz".to_owned(), "begins with /"),
        (|p| p.probe.path = "/a b".to_owned(), "no spaces"),
        (|p| p.probe.path = "/a\r\nx: y".to_owned(), "no spaces"),
        (|p| p.probe.interval_ms = 999, "1000 (a second)"),
        (|p| p.probe.timeout_ms = 1_001, "the probe's interval"),
        (|p| p.probe.successes_required = 0, "at least 1"),
        (|p| p.timing.try_ms = 0, "timing.safe_ms"),
        (|p| p.timing.try_ms = 3_000, "timing.safe_ms"),
    ];
    for (spoil, expected) in cases {
        let mut bad = good.clone();
        spoil(&mut bad);
        let text = problem(&table(1, vec![bad]), None).to_string();
        assert!(text.contains(expected), "{text:?} should say {expected:?}");
    }
    let mut twin = good.clone();
    assert_eq!(
        problem(&table(1, vec![good.clone(), twin.clone()]), None),
        Problem::Repeated
    );
    twin.app = AppKey::new("shop", "other");
    assert!(matches!(
        problem(&table(1, vec![good, twin]), None),
        Problem::SharedHost(..)
    ));
}

#[test]
fn neither_the_generation_nor_a_writers_epoch_goes_back() {
    let with = |generation, cluster: &str, epoch| {
        let mut p = profile(vec![endpoint("west", 1, 100), endpoint("east", 2, 100)]);
        p.writer = Some(Writer {
            cluster: cluster.into(),
            epoch: Epoch(epoch),
        });
        table(generation, vec![p])
    };
    let current = with(5, "west", 3);
    assert_eq!(check(&with(5, "west", 3), Some(&current)), Ok(()));
    assert_eq!(check(&with(6, "east", 4), Some(&current)), Ok(()));
    assert!(matches!(
        check(&with(4, "west", 3), Some(&current)),
        Err(TableError::Old { .. })
    ));
    assert!(matches!(
        problem(&with(6, "west", 2), Some(&current)),
        Problem::EpochBack { .. }
    ));
    assert!(matches!(
        problem(&with(6, "east", 3), Some(&current)),
        Problem::TwoWriters(..)
    ));
}

#[test]
fn several_applications_do_not_vanish_at_once() {
    let one = profile(vec![endpoint("west", 1, 100)]);
    let two = Profile {
        app: AppKey::new("shop", "other"),
        hosts: vec!["other.example".to_owned()],
        ..one.clone()
    };
    let empty = table(2, Vec::new());
    assert_eq!(check(&empty, Some(&table(1, vec![one.clone()]))), Ok(()));
    assert_eq!(
        check(&empty, Some(&table(1, vec![one, two]))),
        Err(TableError::Empty { current: 2 })
    );
}

#[test]
fn one_applications_mistake_does_not_hold_up_the_others() {
    let named = |app: &str, host: &str, cluster: &str| Profile {
        app: AppKey::new("shop", app),
        hosts: vec![host.to_owned()],
        ..profile(vec![endpoint(cluster, 1, 100)])
    };
    let current = table(
        1,
        vec![named("a", "a.example", "west"), named("b", "b.example", "west")],
    );
    let mut broken = named("b", "b.example", "east");
    broken.endpoints[0].weight = 0;
    let thief = named("c", "a.example", "east");
    let lame = Profile {
        hosts: vec![],
        ..named("d", "d.example", "east")
    };
    let next = table(
        2,
        vec![
            thief,
            lame,
            broken,
            named("a", "a.example", "east"),
            named("e", "e.example", "east"),
        ],
    );

    let (saved, refused) = salvage(next, Some(&current));
    let mut rows: Vec<_> = saved
        .profiles
        .iter()
        .map(|p| (p.app.name.as_str(), p.endpoints[0].cluster.as_str()))
        .collect();
    rows.sort_unstable();
    assert_eq!(rows, [("a", "east"), ("b", "west"), ("e", "east")]);
    let mut apps: Vec<_> = refused.iter().map(|e| e.to_string()[..6].to_owned()).collect();
    apps.sort_unstable();
    assert_eq!(apps, ["shop/b", "shop/c", "shop/d"]);
    assert_eq!(check(&saved, Some(&current)), Ok(()));
}

fn any_table() -> impl Strategy<Value = Table> {
    let one = (
        0u8..4,
        prop::collection::vec(0u8..5, 0..3),
        0u16..3,
        prop::option::of((0u8..3, 0u64..3)),
    );
    prop::collection::vec(one, 0..5).prop_map(|rows| {
        let profiles = rows.into_iter().map(|(app, hosts, weight, writer)| Profile {
            app: AppKey::new("shop", format!("a{app}")),
            hosts: hosts.iter().map(|h| format!("h{h}.example")).collect(),
            writer: writer.map(|(cluster, epoch)| Writer {
                cluster: ClusterName::new(format!("c{cluster}")),
                epoch: Epoch(epoch),
            }),
            ..profile(vec![endpoint("c0", 1, weight), endpoint("c1", 2, 100)])
        });
        table(1, profiles.collect())
    })
}

proptest! {
    #[test]
    fn what_is_salvaged_passes_the_check_and_a_good_table_is_left_whole(first in any_table(), second in any_table()) {
        let (first, _) = salvage(first, None);
        prop_assert_eq!(check(&first, None), Ok(()));
        let good = check(&second, Some(&first)).is_ok();
        let (saved, refused) = salvage(second.clone(), Some(&first));
        let checked = check(&saved, Some(&first));
        prop_assert!(matches!(checked, Ok(()) | Err(TableError::Empty { .. })), "{:?}", checked);
        if good {
            prop_assert!(refused.is_empty());
            prop_assert_eq!(saved.profiles.len(), second.profiles.len());
        }
    }
}

#[test]
fn a_host_is_found_whatever_its_case_port_and_final_dot() {
    let index = Index::new(table(1, vec![profile(vec![endpoint("west", 1, 1)])]));
    for host in ["web.example", "WEB.Example:8080", "web.example.", "web.example:80"] {
        assert!(index.profile(host).is_some(), "{host}");
    }
    for host in [
        "",
        "example",
        "web.example.evil",
        "xweb.example",
        ":80",
        "web.example:80x",
    ] {
        assert!(index.profile(host).is_none(), "{host}");
    }
}

#[test]
fn a_table_is_read_back_as_it_was_written_and_defaults_fill_what_is_absent() {
    let t = table(4, vec![profile(vec![endpoint("west", 1, 1)])]);
    let text = serde_json::to_string(&t).unwrap();
    assert_eq!(serde_json::from_str::<Table>(&text).unwrap(), t);
    let short = r#"{"generation":4,"profiles":[{"app":"shop/web","hosts":["web.example"],
        "endpoints":[{"cluster":"west","address":"127.0.0.1:8080","priority":1,"weight":1}]}]}"#;
    assert_eq!(serde_json::from_str::<Table>(short).unwrap(), t);
}
