//! What an agent and a witness say of themselves, compared with the one table that says what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use leeward_api::metrics::{self, Kind, Metric};
use leeward_api::operation::OperationType;
use leeward_api::{Operation, ProtectedApp};
use leeward_testing::Cluster;
use serde_json::json;

use crate::application::{active, replicas};
use crate::operations::{ask, phase};
use crate::resource::{protect, protected};
use crate::stage::{Stage, until};

/// A sample: its name, its labels in their order, its value.
type Sample = (String, Vec<(String, String)>, f64);

/// A page as it was read.
pub(crate) struct Page {
    /// By family: type, unit, meaning.
    families: BTreeMap<String, (String, Option<String>, String)>,
    samples: Vec<Sample>,
}

/// Answers to who looks from outside: status and text.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = reqwest::Client::new()
        .get(format!("http://{address}{path}"))
        .send()
        .await;
    let answer = answer.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

impl Page {
    pub(crate) async fn of(address: SocketAddr) -> Self {
        let answer = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
        assert_eq!(
            answer.headers()["content-type"],
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        Self::parse(&answer.text().await.unwrap())
    }

    fn parse(text: &str) -> Self {
        assert!(text.ends_with("# EOF\n"), "{text}");
        let (mut families, mut samples) = (BTreeMap::<String, (String, Option<String>, String)>::new(), vec![]);
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some("TYPE"), Some(family), Some(kind)) => {
                    kind.clone_into(&mut families.entry(family.to_owned()).or_default().0);
                }
                (Some("#"), Some("UNIT"), Some(family), Some(unit)) => {
                    families.entry(family.to_owned()).or_default().1 = Some(unit.to_owned());
                }
                (Some("#"), Some("HELP"), Some(family), Some(help)) => {
                    help.clone_into(&mut families.entry(family.to_owned()).or_default().2);
                }
                (Some("#"), Some("EOF"), ..) => {}
                _ => samples.push(sample(line)),
            }
        }
        Self { families, samples }
    }

    /// The value of the one sample with these labels, if there is one.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &&Sample| {
            let mut wanted = labels.iter();
            let is =
                |(name, value): &(&str, &str)| sample.1.iter().any(|label| (&*label.0, &*label.1) == (*name, *value));
            sample.0 == name && wanted.all(is)
        };
        let found: Vec<_> = self.samples.iter().filter(has).collect();
        assert!(found.len() < 2, "{name} {labels:?}: {found:?}");
        found.first().map(|sample| sample.2)
    }

    /// The sum of the samples with this label.
    pub(crate) fn sum(&self, name: &str, label: (&str, &str)) -> f64 {
        let has = |labels: &[(String, String)]| labels.iter().any(|(name, value)| (&**name, &**value) == label);
        let found = self.samples.iter().filter(|sample| sample.0 == name && has(&sample.1));
        found.map(|sample| sample.2).sum()
    }

    /// Everything that is there is in the table, as the table says, and nothing of it is missing.
    pub(crate) fn is_documented(&self, has: impl Fn(&Metric) -> bool) {
        let wanted: BTreeMap<_, _> = metrics::ALL
            .iter()
            .filter(|metric| has(metric))
            .map(|metric| {
                let (kind, unit) = (
                    metric.kind.as_str().to_owned(),
                    metric.unit.map(|unit| unit.as_str().to_owned()),
                );
                (metric.family.to_owned(), (kind, unit, metric.meaning.to_owned()))
            })
            .collect();
        assert_eq!(self.families, wanted);
        for (name, labels, _) in &self.samples {
            let metric = metrics::ALL.iter().find(|metric| metric.samples().contains(name));
            let metric = metric.unwrap_or_else(|| panic!("{name} is not in the table"));
            let names: Vec<_> = labels
                .iter()
                .map(|label| label.0.as_str())
                .filter(|name| *name != "le")
                .collect();
            assert_eq!(names, metric.labels, "{name}");
        }
    }

    /// The families that have no sample.
    fn empty(&self) -> BTreeSet<&'static str> {
        let named: BTreeSet<_> = self.samples.iter().map(|sample| sample.0.as_str()).collect();
        let has = |metric: &Metric| metric.samples().iter().any(|name| named.contains(name.as_str()));
        let here = metrics::ALL
            .iter()
            .filter(|metric| self.families.contains_key(metric.family));
        here.filter(|metric| !has(metric)).map(|metric| metric.family).collect()
    }
}

/// `NAME{LABEL="VALUE",...} VALUE`; no value of these tests has a quote in it.
fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap();
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once('=').unwrap();
        (name.to_owned(), value.trim_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect(), value.parse().unwrap())
}

/// Reads a page until it is as it should be.
async fn until_page(address: SocketAddr, what: &str, holds: impl Fn(&Page) -> bool) -> Page {
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let page = Page::of(address).await;
        if holds(&page) {
            return page;
        }
        assert!(tokio::time::Instant::now() < end, "{what}: {:#?}", page.samples);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn what_an_agent_says_of_itself_is_what_is_documented(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "west").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    until(&stage.west.api::<ProtectedApp>(), "web", "protected", protected).await;
    until(&stage.east.api::<Deployment>(), "web", "carried", |web| {
        replicas(web) == Some(0)
    })
    .await;
    let app = [("namespace", &*stage.namespace), ("app", "web")];
    let of = |label| [app[0], app[1], label];
    let (west, east) = (stage.west.metrics(), stage.east.metrics());
    for (agent, me) in [(west, "west"), (east, "east")] {
        let page = until_page(agent, "known to both", |page| {
            page.value("leeward_app_condition", &of(("condition", "Protected"))) == Some(1.0)
        })
        .await;
        page.is_documented(|metric| metric.by.agent());
        assert_eq!(page.value("leeward_app_active", &of(("cluster", "west"))), Some(1.0));
        assert_eq!(page.value("leeward_app_active", &of(("cluster", "east"))), Some(0.0));
        assert_eq!(page.value("leeward_app_rpo_objective_seconds", &app), Some(10.0));
        assert_eq!(
            page.value("leeward_cluster_lease_held", &[("cluster", "east")]),
            Some(1.0)
        );
        assert_eq!(page.value("leeward_kubernetes_up", &[]), Some(1.0));
        assert!(page.value("leeward_lease_remaining_seconds", &[("cluster", me)]) > Some(0.0));
        assert!(page.value("leeward_lease_renewals_total", &[("outcome", "renewed")]) > Some(0.0));
        assert!(page.value("leeward_quorum_round_trip_seconds_count", &[]) > Some(0.0));
        assert!(
            page.value(
                "leeward_kubernetes_requests_total",
                &[("verb", "watch"), ("resource", "pods")]
            ) > Some(0.0)
        );
        let buckets = page.value("leeward_quorum_round_trip_seconds_bucket", &[("le", "+Inf")]);
        assert_eq!(buckets, page.value("leeward_quorum_round_trip_seconds_count", &[]));
    }
    Page::of(stage.witness_metrics)
        .await
        .is_documented(|metric| metric.by.witness());
    // One of them leads.
    let leads = [Page::of(west).await, Page::of(east).await].map(|page| page.value("leeward_leader", &[]));
    assert_eq!(leads.iter().flatten().sum::<f64>(), 1.0);

    // A user's request is counted once, where the user is; what becomes of it depends on what is at the played pod's address.
    let user = reqwest::Client::new().get(format!("http://{}", stage.east.ingress()));
    let user = user.header("host", format!("{}.example", stage.namespace));
    let class = format!("{}xx", user.send().await.unwrap().status().as_u16() / 100);
    let page = Page::of(east).await;
    assert_eq!(
        page.value("leeward_edge_requests_total", &of(("code", &class))),
        Some(1.0)
    );
    assert_eq!(
        page.value("leeward_edge_request_duration_seconds_count", &[]),
        Some(1.0)
    );

    let name = ask(&stage.east, OperationType::Switchover, "east").await;
    until(&stage.east.api::<Operation>(), &name, "ended", |operation| {
        phase(operation) == "Succeeded"
    })
    .await;
    until(&stage.east.api::<ProtectedApp>(), "web", "active in east", |app| {
        active(app, "east")
    })
    .await;
    for agent in [west, east] {
        let ended = [app[0], app[1], ("kind", "Switchover"), ("outcome", "Succeeded")];
        let page = until_page(agent, "counted", |page| {
            page.value("leeward_operations_total", &ended) == Some(1.0)
        })
        .await;
        page.is_documented(|metric| metric.by.agent());
        assert_eq!(page.value("leeward_app_active", &of(("cluster", "east"))), Some(1.0));
        let took = page.value("leeward_operation_duration_seconds_count", &[("kind", "Switchover")]);
        assert_eq!(took, Some(1.0));
        assert_eq!(
            page.value("leeward_operation_step_duration_seconds_count", &[("step", "Start")]),
            Some(1.0)
        );
        // What nothing of this can give a value to: there are no roles, and nothing failed over or runs.
        let no_roles = metrics::ALL.iter().filter(|metric| {
            metric.labels.contains(&"role") || [metrics::APP_LOSS, metrics::APP_IN_SYNC].contains(metric)
        });
        let not_yet = [
            metrics::APP_LAST_RPO,
            metrics::APP_LAST_RTO,
            metrics::APP_OPERATION,
            metrics::PROBE_ROUND_TRIP,
        ];
        let allowed: BTreeSet<_> = no_roles.chain(&not_yet).map(|metric| metric.family).collect();
        let edge = metrics::EDGE_REQUESTS.family;
        let empty: Vec<_> = page
            .empty()
            .into_iter()
            .filter(|family| !allowed.contains(family) && *family != edge)
            .collect();
        assert_eq!(empty, Vec::<&str>::new(), "families that never have a value");
    }
    assert!(metrics::ALL.iter().any(|metric| metric.kind == Kind::Info));
    // Of an application that is not protected any more nothing is said.
    stage
        .west
        .api::<ProtectedApp>()
        .delete("web", &Default::default())
        .await
        .unwrap();
    for agent in [west, east] {
        let page = until_page(agent, "forgotten", |page| {
            page.value("leeward_app_paused", &app).is_none()
        })
        .await;
        page.is_documented(|metric| metric.by.agent());
    }
    stage.close().await;
}

/// What is said of an application with roles whose data is mirrored from west to east.
pub(crate) async fn roles_are_seen(stage: &Stage, epoch: u64) {
    let app = [("namespace", &*stage.namespace), ("app", "web")];
    let role = [app[0], app[1], ("role", "data")];
    let (lag, east) = (
        [role[0], role[1], role[2], ("cluster", "east")],
        [app[0], app[1], ("cluster", "east")],
    );
    for (agent, mirrors) in [(stage.west.metrics(), true), (stage.east.metrics(), false)] {
        let in_sync = |page: &Page| page.value("leeward_app_in_sync", &east) == Some(1.0);
        let page = until_page(agent, "in sync", in_sync).await;
        page.is_documented(|metric| metric.by.agent());
        let lag = page.value("leeward_role_lag_seconds", &lag).unwrap();
        assert!((0.0..60.0).contains(&lag), "{lag}");
        // The rpo of 10 s bounds it while the standby is in sync.
        let loss = page.value("leeward_app_loss_seconds", &east).unwrap();
        assert!((0.0..=10.0).contains(&loss), "{loss}");
        assert_eq!(page.value("leeward_role_epoch", &role), Some(epoch as f64));
        let points = page.value("leeward_mirror_points_total", &role);
        assert_eq!(points.is_some_and(|points| points > 0.0), mirrors, "{points:?}");
        let fenced = [app[0], app[1], ("condition", "Fenced")];
        assert_eq!(page.value("leeward_app_condition", &fenced), Some(0.0));
    }
}

async fn until_it_listens(agent: SocketAddr) {
    let asked = async {
        while reqwest::get(format!("http://{agent}/readyz")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap();
}

pub(crate) async fn an_agent_is_ready_from_the_first_answer_on_and_while_nobody_answers(cluster: Arc<Cluster>) {
    let mut stage = Stage::open(&cluster, "east").await;
    let (agent, ready) = (stage.east.metrics(), (200, "ok\n".to_owned()));
    until_it_listens(agent).await;
    let started = async {
        while get(agent, "/readyz").await != ready {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), started).await.unwrap();
    assert_eq!(get(agent, "/livez").await, ready);
    assert_eq!(get(stage.witness_metrics, "/readyz").await, ready);
    assert_eq!(get(stage.witness_metrics, "/livez").await, ready);
    assert_eq!(get(agent, "/other").await.0, 404);
    let posted = reqwest::Client::new()
        .post(format!("http://{agent}/metrics"))
        .send()
        .await;
    assert_eq!(posted.unwrap().status().as_u16(), 405);

    // The quorum goes: the edge has its table, and the agent stays in service.
    stage.end_the_witness();
    let failures = |page: &Page| page.value("leeward_lease_renewals_total", &[("outcome", "unanswered")]);
    until_page(agent, "the quorum missed", |page| failures(page) > Some(0.0)).await;
    assert_eq!(get(agent, "/readyz").await, ready);
    assert_eq!(get(agent, "/livez").await, ready);

    // Begun anew where neither quorum nor API can be reached, it is not.
    stage.east.stop().await;
    stage.east.cut_off();
    stage.east.start();
    until_it_listens(agent).await;
    let (status, why) = get(agent, "/readyz").await;
    assert_eq!(status, 503);
    assert!(why.contains("neither the quorum nor the Kubernetes API"), "{why}");
    assert_eq!(get(agent, "/livez").await, ready);
    assert_eq!(Page::of(agent).await.value("leeward_kubernetes_up", &[]), Some(0.0));
    stage.close().await;
}
