//! A writer that knows what was acknowledged to it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ObjectList, Patch, PatchParams, PostParams};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// What writers do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Write, in the so-and-so-manieth life of the process.
    Write(u64),
    /// Write no more in this life.
    Settle,
    Stop,
}

/// What an object's field says: the writes are counted.
type Value = Option<u64>;

#[derive(Default)]
struct Ledger {
    /// What was acknowledged.
    known: BTreeMap<String, Value>,
    /// The write that nobody answered, and what it would have made.
    doubt: Option<(String, Value)>,
    /// The revisions of acknowledged writes.
    revisions: Vec<u64>,
    count: u64,
}

pub(super) struct Writer {
    index: usize,
    settled: mpsc::Receiver<()>,
    lists: mpsc::Sender<(ObjectList<ConfigMap>, oneshot::Sender<()>)>,
    task: JoinHandle<Vec<u64>>,
}

impl Writer {
    pub(super) fn start(index: usize, maps: Api<ConfigMap>, random: StdRng, phases: watch::Receiver<Phase>) -> Self {
        let (tell, settled) = mpsc::channel(1);
        let (lists, compare) = mpsc::channel(1);
        Self {
            index,
            settled,
            lists,
            task: tokio::spawn(write(index, maps, random, phases, tell, compare)),
        }
    }

    pub(super) async fn settled(&mut self) {
        self.settled
            .recv()
            .await
            .unwrap_or_else(|| panic!("writer {} ended", self.index));
    }

    /// Compares what is there with what was acknowledged.
    pub(super) async fn compare(&mut self, there: &ObjectList<ConfigMap>) {
        let (done, compared) = oneshot::channel();
        let _ = self.lists.send((there.clone(), done)).await;
        compared
            .await
            .unwrap_or_else(|_| panic!("writer {} found something lost", self.index));
    }

    /// The revisions of all that was acknowledged.
    pub(super) async fn finish(self) -> Vec<u64> {
        self.task.await.unwrap()
    }
}

async fn write(
    index: usize,
    maps: Api<ConfigMap>,
    mut random: StdRng,
    mut phases: watch::Receiver<Phase>,
    tell: mpsc::Sender<()>,
    mut compare: mpsc::Receiver<(ObjectList<ConfigMap>, oneshot::Sender<()>)>,
) -> Vec<u64> {
    let mut ledger = Ledger::default();
    let mut life = None;
    loop {
        let phase = *phases.borrow_and_update();
        match phase {
            Phase::Write(now) if life != Some(now) => {
                if ledger.step(index, &maps, &mut random).await.is_err() {
                    // The process is gone; what is to come is the end of this phase.
                    life = Some(now);
                }
                continue;
            }
            Phase::Write(_) => {}
            Phase::Settle => {
                tell.send(()).await.unwrap();
                let (there, done) = compare.recv().await.unwrap();
                ledger.compare(index, &there);
                done.send(()).unwrap();
                // Whoever compares last may be on before this one looks.
                if *phases.borrow() != Phase::Settle {
                    continue;
                }
            }
            Phase::Stop => return ledger.revisions,
        }
        phases.changed().await.unwrap();
    }
}

impl Ledger {
    /// One write; an error when nobody answered it.
    async fn step(&mut self, index: usize, maps: &Api<ConfigMap>, random: &mut StdRng) -> Result<(), ()> {
        let name = format!("w{index}-{}", random.random_range(0..8));
        self.count += 1;
        let shown = if random.random_bool(0.5) { "yes" } else { "no" };
        let content = json!({
            "metadata": {"name": name, "labels": {"shown": shown}}, "data": {"count": self.count.to_string()},
        });
        let known = self.known.get(&name).copied().flatten();
        let (wanted, answer) = match known {
            None => {
                let object = serde_json::from_value(content).unwrap();
                (
                    Some(self.count),
                    maps.create(&PostParams::default(), &object).await.map(Some),
                )
            }
            Some(_) if random.random_bool(0.3) => {
                (None, maps.delete(&name, &DeleteParams::default()).await.map(|_| None))
            }
            Some(_) => {
                let patch = Patch::Merge(content);
                (
                    Some(self.count),
                    maps.patch(&name, &PatchParams::default(), &patch).await.map(Some),
                )
            }
        };
        match answer {
            Ok(object) => {
                let revision = object.and_then(|o: ConfigMap| o.metadata.resource_version);
                self.revisions.extend(revision.map(|text| text.parse::<u64>().unwrap()));
                self.known.insert(name, wanted);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code != 503 => {
                panic!("writer {index} was refused {name}, known as {known:?}: {status:?}")
            }
            Err(_) => {
                self.doubt = Some((name, wanted));
                Err(())
            }
        }
    }

    fn compare(&mut self, index: usize, there: &ObjectList<ConfigMap>) {
        let found: BTreeMap<&str, u64> = there
            .items
            .iter()
            .map(|map| {
                let count = map.data.as_ref().and_then(|data| data.get("count"));
                (
                    map.metadata.name.as_deref().unwrap(),
                    count.map_or(0, |c| c.parse().unwrap()),
                )
            })
            .collect();
        if let Some((name, wanted)) = self.doubt.take() {
            let now = found.get(name.as_str()).copied();
            let before = self.known.get(&name).copied().flatten();
            assert!(
                now == wanted || now == before,
                "{name} is {now:?}, was {before:?}, was to be {wanted:?}"
            );
            self.known.insert(name, now);
        }
        for (name, wanted) in &self.known {
            let now = found.get(name.as_str()).copied();
            assert_eq!(now, *wanted, "{name} of writer {index} is not what was acknowledged");
        }
        let own = format!("w{index}-");
        let unknown = found
            .keys()
            .find(|name| name.starts_with(&own) && !self.known.contains_key(**name));
        assert_eq!(unknown, None, "nobody made it");
        let revision: u64 = there.metadata.resource_version.as_ref().unwrap().parse().unwrap();
        assert!(
            self.revisions.iter().all(|r| *r <= revision),
            "the revision went back to {revision}"
        );
    }
}
