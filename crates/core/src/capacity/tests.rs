use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    pod::{Containers, Taint, Toleration},
    *,
};
use crate::quantity::Amount;

fn amounts(all: &[(&str, &str)]) -> Amounts {
    let each = all.iter();
    each.map(|(name, amount)| ((*name).to_owned(), Amount::parse(amount).unwrap()))
        .collect()
}

fn node(allocatable: &[(&str, &str)]) -> Node {
    let mut node = Node {
        ready: true,
        allocatable: amounts(allocatable),
        ..Node::default()
    };
    if node.allocatable.get(PODS) == Amount::ZERO {
        node.allocatable.set(PODS, Amount::whole(110));
    }
    node
}

fn pod(requests: &[(&str, &str)]) -> Pod {
    let containers = Containers {
        main: vec![amounts(requests)],
        ..Containers::default()
    };
    Pod {
        requests: containers.requests(),
        ..Pod::default()
    }
}

fn demand(workload: &str, pods: u32, pod: Pod) -> Demand {
    let workload = workload.to_owned();
    Demand {
        workload,
        pods,
        running: 0,
        pod,
    }
}

fn room(nodes: &[(&str, Node)]) -> Room {
    let mut room = Room::default();
    for (name, node) in nodes {
        room.set_node(name, node.clone());
    }
    room
}

fn said(room: &Room, demands: &[Demand]) -> Vec<String> {
    lacking(room, demands).iter().map(ToString::to_string).collect()
}

#[test]
fn pods_that_fit_lack_nothing() {
    let room = room(&[
        ("a", node(&[("cpu", "1"), ("memory", "2Gi")])),
        ("b", node(&[("cpu", "500m"), ("memory", "2Gi")])),
    ]);
    let web = pod(&[("cpu", "0.5"), ("memory", "1Gi")]);
    assert_eq!(said(&room, &[demand("Deployment web", 3, web)]), [""; 0]);
    assert_eq!(said(&room, &[]), [""; 0]);
    assert_eq!(
        said(&Room::default(), &[demand("Deployment web", 0, pod(&[]))]),
        [""; 0]
    );
}

#[test]
fn what_is_lacking_is_named_with_how_many_have_room() {
    let mut room = room(&[
        ("a", node(&[("cpu", "4"), ("memory", "2Gi")])),
        ("b", node(&[("cpu", "4"), ("memory", "1Gi")])),
    ]);
    room.bind("shop/other", "a", pod(&[("memory", "512Mi")]).requests);
    room.bind("shop/older", "b", pod(&[("memory", "512Mi")]).requests);
    let web = || demand("Deployment web", 3, pod(&[("cpu", "0.5"), ("memory", "1Gi")]));
    assert_eq!(
        said(&room, &[web()]),
        [
            "capacity: 3 pods of Deployment web need 500m cpu, 1Gi memory each; the nodes have room for 1: short of memory"
        ]
    );
    room.release("shop/other");
    room.release("shop/older");
    assert_eq!(said(&room, &[web()]), [""; 0]);
}

#[test]
fn places_for_pods_and_resources_of_other_kinds_count() {
    let full = room(&[("a", node(&[(PODS, "1"), ("cpu", "4")]))]);
    assert_eq!(
        said(&full, &[demand("StatefulSet db", 2, pod(&[]))]),
        ["capacity: 2 pods of StatefulSet db need a place each; the nodes have room for 1: short of places for pods"]
    );
    let gpu = pod(&[("example.com/gpu", "1")]);
    assert_eq!(
        said(&full, &[demand("Deployment ml", 1, gpu)]),
        [
            "capacity: 1 pod of Deployment ml needs 1 example.com/gpu; the nodes have room for 0: short of example.com/gpu"
        ]
    );
}

#[test]
fn nodes_that_take_no_such_pod_are_told_apart() {
    let wide = || node(&[("cpu", "64"), ("memory", "1Ti")]);
    let taint = |key: &str, effect: &str| Taint {
        key: key.into(),
        value: "yes".into(),
        effect: effect.into(),
    };
    let nodes = [
        ("silent", Node { ready: false, ..wide() }),
        (
            "cordoned",
            Node {
                cordoned: true,
                ..wide()
            },
        ),
        (
            "tainted",
            Node {
                taints: vec![taint("soft", "PreferNoSchedule"), taint("dedicated", "NoSchedule")],
                ..wide()
            },
        ),
        (
            "leaving",
            Node {
                taints: vec![taint("leaving", "NoExecute")],
                ..wide()
            },
        ),
    ];
    let web = pod(&[("cpu", "1")]);
    let room = room(&nodes);
    assert_eq!(
        said(&room, &[demand("Deployment web", 1, web.clone())]),
        [
            "capacity: 1 pod of Deployment web needs 1 cpu; the nodes have room for 0: no node takes them (1 is not ready, \
             1 is cordoned, 1 has the taint dedicated, 1 has the taint leaving)"
        ]
    );
    assert_eq!(
        said(&Room::default(), &[demand("Deployment web", 1, web.clone())]),
        ["capacity: 1 pod of Deployment web needs 1 cpu; the nodes have room for 0: this cluster has no node"]
    );
    for (toleration, fits) in [
        (("dedicated", true, "", None), true),
        (("dedicated", false, "yes", Some("NoSchedule")), true),
        (("dedicated", false, "no", None), false),
        (("dedicated", true, "", Some("NoExecute")), false),
        (("leaving", false, "yes", None), true),
        (("node.kubernetes.io/unschedulable", true, "", None), true),
        (("", true, "", Some("NoSchedule")), true),
        (("", false, "yes", None), false),
    ] {
        let (key, any_value, value, effect): (&str, bool, &str, Option<&str>) = toleration;
        let mut web = web.clone();
        web.tolerations = vec![Toleration {
            key: (!key.is_empty()).then(|| key.to_owned()),
            any_value,
            value: value.into(),
            effect: effect.map(str::to_owned),
        }];
        let lacks = lacking(&room, &[demand("Deployment web", 1, web)]);
        assert_eq!(lacks.is_empty(), fits, "{toleration:?}");
    }
}

#[test]
fn a_workload_lacks_its_place_as_a_whole_only_where_none_of_its_pods_would_run() {
    let room = room(&[("a", node(&[("cpu", "1")]))]);
    let whole = |pods, running, cpu: &str| {
        let mut web = demand("Deployment web", pods, pod(&[("cpu", cpu)]));
        web.running = running;
        lacking(&room, &[web])[0].is_whole()
    };
    assert!(whole(2, 0, "2"));
    assert!(!whole(2, 0, "1"));
    assert!(!whole(2, 1, "2"));
}

#[test]
fn who_can_choose_among_fewer_nodes_chooses_first() {
    let fast = Node {
        labels: BTreeMap::from([("disk".into(), "ssd".into())]),
        ..node(&[("cpu", "1")])
    };
    let room = room(&[("a", fast), ("b", node(&[("cpu", "1")]))]);
    let any = demand("Deployment any", 1, pod(&[("cpu", "1"), ("memory", "0")]));
    let mut chooser = demand("Deployment chooser", 1, pod(&[("cpu", "1")]));
    chooser.pod.node_selector.insert("disk".into(), "ssd".into());
    assert_eq!(said(&room, &[any.clone(), chooser.clone()]), [""; 0]);
    chooser.pod.node_selector.insert("disk".into(), "tape".into());
    assert_eq!(
        said(&room, &[any, chooser]),
        [
            "capacity: 1 pod of Deployment chooser needs 1 cpu; the nodes have room for 0: no node takes them (2 do not match the \
             node selector)"
        ]
    );
}

#[test]
fn a_pod_asks_for_what_kubernetes_counts() {
    let cpu = |amount: &str| amounts(&[("cpu", amount)]);
    let of = |main: &[&str], init: &[(bool, &str)]| Containers {
        main: main.iter().map(|amount| cpu(amount)).collect(),
        init: init.iter().map(|(sidecar, amount)| (*sidecar, cpu(amount))).collect(),
        ..Containers::default()
    };
    for (containers, expected) in [
        (of(&["1", "500m"], &[]), "1.5"),
        (of(&["1"], &[(false, "3"), (false, "2")]), "3"),
        (of(&["1"], &[(false, "500m")]), "1"),
        // A sidecar runs beside whatever starts after it.
        (of(&["1"], &[(true, "2"), (false, "3")]), "5"),
        (of(&["1"], &[(false, "3"), (true, "2")]), "3"),
        (of(&["2"], &[(false, "3"), (true, "2")]), "4"),
    ] {
        assert_eq!(
            containers.requests().get("cpu"),
            Amount::parse(expected).unwrap(),
            "{containers:?}"
        );
    }
    let mut whole = of(&["1"], &[(false, "3")]);
    whole.whole = cpu("2");
    whole.overhead = amounts(&[("cpu", "100m"), ("memory", "16Mi")]);
    assert_eq!(
        whole.requests(),
        amounts(&[("cpu", "2100m"), ("memory", "16Mi"), (PODS, "1")])
    );
}

#[test]
fn what_is_said_again_changes_nothing() {
    let mut room = room(&[("a", node(&[("cpu", "1")]))]);
    room.bind("shop/web", "a", amounts(&[("cpu", "1")]));
    let version = room.version();
    room.bind("shop/web", "a", amounts(&[("cpu", "1")]));
    room.set_node("a", node(&[("cpu", "1")]));
    room.release("shop/other");
    room.forget_node("b");
    assert_eq!(room.version(), version);
    room.bind("shop/web", "a", amounts(&[("cpu", "2")]));
    assert!(room.version() > version);
    assert_eq!(room.used("a"), Some(&amounts(&[("cpu", "2")])));
}

/// One thing that is heard of a cluster's pods.
#[derive(Debug, Clone)]
enum Heard {
    Bound(u8, u8, u16),
    Gone(u8),
    Only(u8),
}

fn heard() -> impl Strategy<Value = Heard> {
    prop_oneof![
        (0..8_u8, 0..3_u8, 0..500_u16).prop_map(|(pod, node, cpu)| Heard::Bound(pod, node, cpu)),
        (0..8_u8).prop_map(Heard::Gone),
        (0..8_u8).prop_map(Heard::Only),
    ]
}

proptest! {
    #[test]
    fn what_is_used_is_the_sum_of_the_pods_that_are_there(story in proptest::collection::vec(heard(), 0..60)) {
        let mut room = Room::default();
        let mut pods: BTreeMap<u8, (u8, u16)> = BTreeMap::new();
        for heard in story {
            match heard {
                Heard::Bound(pod, node, cpu) => {
                    room.bind(&pod.to_string(), &node.to_string(), amounts(&[("cpu", &format!("{cpu}m"))]));
                    pods.insert(pod, (node, cpu));
                }
                Heard::Gone(pod) => {
                    room.release(&pod.to_string());
                    pods.remove(&pod);
                }
                Heard::Only(below) => {
                    room.keep_pods(|pod| pod.parse::<u8>().unwrap() < below);
                    pods.retain(|pod, _| *pod < below);
                }
            }
            for node in 0..3_u8 {
                let sum: u32 = pods.values().filter(|(on, _)| *on == node).map(|(_, cpu)| u32::from(*cpu)).sum();
                let used = room.used(&node.to_string()).cloned().unwrap_or_default();
                prop_assert_eq!(used, amounts(&[("cpu", &format!("{sum}m"))]));
            }
        }
    }

    #[test]
    fn equal_pods_find_exactly_the_room_there_is(
        nodes in proptest::collection::vec((0..4000_u32, 0..4000_u32, 0..6_u32), 0..5),
        cpu in 0..1500_u32,
        memory in 0..1500_u32,
        wanted in 1..20_u32,
    ) {
        let each = |(number, (cpu, memory, pods)): (usize, &(u32, u32, u32))| {
            let mut node = node(&[("cpu", &format!("{cpu}m")), ("memory", &format!("{memory}Ki"))]);
            node.allocatable.set(PODS, Amount::whole(*pods));
            (number.to_string(), node)
        };
        let named: Vec<(String, Node)> = nodes.iter().enumerate().map(each).collect();
        let mut room = Room::default();
        named.iter().for_each(|(name, node)| room.set_node(name, node.clone()));
        let web = demand("Deployment web", wanted, pod(&[("cpu", &format!("{cpu}m")), ("memory", &format!("{memory}Ki"))]));
        // One pod after the other, by plain numbers.
        let mut fit = 0;
        for (mut cpus, mut memories, mut pods) in nodes {
            while fit < wanted && cpus >= cpu && memories >= memory && pods > 0 {
                (cpus, memories, pods, fit) = (cpus - cpu, memories - memory, pods - 1, fit + 1);
            }
        }
        match &lacking(&room, &[web])[..] {
            [] => prop_assert_eq!(fit, wanted),
            [lack] => {
                prop_assert!(fit < wanted && lack.room_for == fit, "{lack}: {fit}");
                prop_assert_eq!(lack.short_of.is_empty(), named.is_empty());
            }
            more => prop_assert!(false, "{more:?}"),
        }
    }

    #[test]
    fn more_room_never_lacks_more(pods in 1..10_u32, cpu in 1..2000_u32, first in 0..4000_u32, second in 0..4000_u32, taken in 0..1000_u32) {
        let cores = |cpu: u32| node(&[("cpu", &format!("{cpu}m"))]);
        let mut room = room(&[("a", cores(first))]);
        room.bind("shop/other", "a", pod(&[("cpu", &format!("{taken}m"))]).requests);
        let web = [demand("Deployment web", pods, pod(&[("cpu", &format!("{cpu}m"))]))];
        let room_for = |room: &Room| lacking(room, &web).first().map_or(pods, |lack| lack.room_for);
        let before = room_for(&room);
        room.set_node("b", cores(second));
        let with_node = room_for(&room);
        room.release("shop/other");
        prop_assert!(before <= with_node && with_node <= room_for(&room));
    }
}
