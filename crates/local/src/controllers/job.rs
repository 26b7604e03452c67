//! Job: pods that run to their end, until enough of them have succeeded or too many have failed.
//!
//! Every end is counted once. A pod of a Job carries a finalizer; when it has ended, its uid is first written to
//! `status.uncountedTerminatedPods`, then the finalizer goes, and only when that is seen gone the uid becomes part of a number. So a pod
//! that somebody deletes is counted all the same, and a controller that ends in between counts nothing twice.
//!
//! Not acted on: `podFailurePolicy`, `successPolicy`, `backoffLimitPerIndex` and `maxFailedIndexes`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec, JobStatus},
        core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::core::ObjectMeta;
use serde_json::json;

use self::indexes::Indexes;
use super::{
    action::{self, Action, Kind, News, Target},
    object::{self, is_active, is_terminating},
    replica_set::victims,
};

mod finish;
mod indexes;
mod status;

const FROM: &str = "job-controller";
/// What keeps a pod until its end is counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// The first wait after a failure; it doubles with each one that follows.
const BACKOFF: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_BACKOFF: SignedDuration = SignedDuration::from_mins(10);
/// How many pods one plan creates at most; the next one goes on.
const BURST: usize = 50;

/// What to do for one Job. `pods` are those that it controls; `seed` differs from plan to plan.
pub fn plan(job: &Job, pods: &[&Pod], now: Timestamp, seed: u64) -> Vec<Action> {
    let Some(spec) = &job.spec else { return Vec::new() };
    let elsewhere = spec.managed_by.as_deref().unwrap_or("kubernetes.io/job-controller");
    if elsewhere != "kubernetes.io/job-controller" {
        return Vec::new();
    }
    if let Some(ended) = finish::ended_at(job) {
        return finish::expire(job, ended, now);
    }
    let mut view = View::of(job, spec, pods, now);
    let mut actions = view.count();
    if is_terminating(&job.metadata) {
        actions.extend(view.write(&[]));
        return actions;
    }
    view.start();
    let verdict = view.verdict();
    if let Some(verdict) = &verdict {
        actions.extend(view.stop_all());
        view.announce(verdict);
    } else {
        actions.extend(view.manage(seed));
        view.resume_or_suspend();
    }
    let finished = verdict.and_then(|verdict| view.finish(&verdict));
    let mut news = view.news.clone();
    news.extend(finished);
    actions.extend(view.write(&news));
    actions.extend(view.look_again());
    actions
}

/// Lets go the pods whose Job is gone or has ended: nobody counts them any more.
pub fn release<'a>(jobs: &[&Job], pods: impl Iterator<Item = &'a Pod>) -> Vec<Action> {
    let counts = |pod: &Pod| {
        let job = jobs.iter().find(|job| object::controls(&job.metadata, &pod.metadata));
        job.is_some_and(|job| finish::ended_at(job).is_none())
    };
    let left = pods.filter(|pod| has_finalizer(pod) && !counts(pod));
    left.map(remove_finalizer).collect()
}

fn has_finalizer(pod: &Pod) -> bool {
    let finalizers = pod.metadata.finalizers.iter().flatten();
    finalizers.into_iter().any(|finalizer| finalizer == FINALIZER)
}

// The list is replaced as a whole, so it must be the one that was read.
fn remove_finalizer(pod: &Pod) -> Action {
    let left = pod.metadata.finalizers.iter().flatten();
    let left: Vec<&String> = left.filter(|finalizer| *finalizer != FINALIZER).collect();
    Action::patch(
        Target::new(Kind::Pod, &pod.metadata),
        json!({"metadata": {"resourceVersion": pod.metadata.resource_version, "finalizers": left}}),
    )
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

// When a pod came to its end: the last of its containers, or as close as can be known.
fn ended_at(pod: &Pod) -> Timestamp {
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    let ends = containers.unwrap_or_default().iter().filter_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        ended.finished_at.as_ref().map(|time| time.0)
    });
    let unready = || {
        object::pod_condition(pod, "Ready")?
            .last_transition_time
            .as_ref()
            .map(|time| time.0)
    };
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    ends.max()
        .or_else(unready)
        .or_else(deleted)
        .or_else(created)
        .unwrap_or(Timestamp::MIN)
}

// A Job, and its status as it is to become.
struct View<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [&'a Pod],
    active: Vec<&'a Pod>,
    status: JobStatus,
    // The indexes that have succeeded, of an Indexed job.
    done: Option<Indexes>,
    // Created and told to end by this plan.
    created: usize,
    stopped: Vec<&'a Pod>,
    news: Vec<News>,
    waits: Vec<Timestamp>,
    now: Timestamp,
}

impl<'a> View<'a> {
    fn of(job: &'a Job, spec: &'a JobSpec, pods: &'a [&'a Pod], now: Timestamp) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        Self {
            job,
            spec,
            pods,
            active: pods.iter().copied().filter(|pod| is_active(pod)).collect(),
            done: indexed.then(|| Indexes::read(status.completed_indexes.as_deref().unwrap_or_default())),
            status,
            created: 0,
            stopped: Vec::new(),
            news: Vec::new(),
            waits: Vec::new(),
            now,
        }
    }

    fn suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn replaces_only_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    fn has_failed(&self, pod: &Pod) -> bool {
        let phase = object::phase(pod);
        let deleted = is_terminating(&pod.metadata) && phase != "Succeeded";
        phase == "Failed" || deleted && !self.replaces_only_failed()
    }

    // A time is written with whole seconds.
    fn time(&self) -> Time {
        object::time(Timestamp::from_second(self.now.as_second()).unwrap_or(self.now))
    }

    fn start(&mut self) {
        if self.status.start_time.is_none() && !self.suspended() {
            self.status.start_time = Some(self.time());
        }
    }

    fn terminating(&self) -> usize {
        self.pods.iter().filter(|pod| object::is_ending(pod)).count()
    }

    // Creates and ends pods until there are as many as are wanted now.
    fn manage(&mut self, seed: u64) -> Vec<Action> {
        let succeeded = self.succeeded();
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let wanted = match self.spec.completions {
            _ if self.suspended() => 0,
            // Any success is enough; then nothing is started any more.
            None if succeeded > 0 => self.active.len(),
            None => parallelism,
            Some(completions) => usize::try_from(completions)
                .unwrap_or(0)
                .saturating_sub(succeeded)
                .min(parallelism),
        };
        let surplus = self.active.len().saturating_sub(wanted);
        if surplus > 0 {
            return self.stop_some(surplus);
        }
        let ending = if self.replaces_only_failed() {
            self.terminating()
        } else {
            0
        };
        let missing = wanted.saturating_sub(self.active.len() + ending).min(BURST);
        if missing == 0 {
            return Vec::new();
        }
        if let Some(from) = self.backoff().filter(|from| *from > self.now) {
            self.waits.push(from);
            return Vec::new();
        }
        let indexes: Vec<Option<i32>> = match &self.done {
            Some(done) => self.free_indexes(done, missing).into_iter().map(Some).collect(),
            None => vec![None; missing],
        };
        self.created = indexes.len();
        let created = indexes.into_iter().enumerate();
        created
            .flat_map(|(number, index)| self.create(number, index, seed))
            .collect()
    }

    fn free_indexes(&self, done: &Indexes, count: usize) -> Vec<i32> {
        let takes_place = |pod: &&&Pod| is_active(pod) || self.replaces_only_failed() && object::is_ending(pod);
        let taken: Vec<i32> = self
            .pods
            .iter()
            .filter(takes_place)
            .filter_map(|pod| index_of(pod))
            .collect();
        (0..self.spec.completions.unwrap_or(0))
            .filter(|index| !taken.contains(index) && !done.contains(*index))
            .take(count)
            .collect()
    }

    // Until when no pod is started, because the last ones have failed.
    fn backoff(&self) -> Option<Timestamp> {
        let ends = |kind: &dyn Fn(&Pod) -> bool| {
            let ended = self.pods.iter().filter(|pod| kind(pod));
            ended.map(|pod| ended_at(pod)).collect::<Vec<_>>()
        };
        let success = ends(&|pod| object::phase(pod) == "Succeeded").into_iter().max();
        let mut failures = ends(&|pod| self.has_failed(pod));
        failures.retain(|failure| success.is_none_or(|success| *failure > success));
        let last = failures.iter().max()?;
        let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(10);
        let wait = BACKOFF.checked_mul(1 << doublings).unwrap_or(LONGEST_BACKOFF);
        last.checked_add(wait.min(LONGEST_BACKOFF)).ok()
    }

    fn create(&self, number: usize, index: Option<i32>, seed: u64) -> [Action; 2] {
        let job = self.job.metadata.name.as_deref().unwrap_or_default();
        let owner = self.job.metadata.uid.as_deref().unwrap_or_default();
        let prefix = index.map_or_else(|| format!("{job}-"), |index| format!("{job}-{index}-"));
        let parts = [owner.as_bytes(), &seed.to_le_bytes(), &number.to_le_bytes()];
        let stem = object::cut(prefix.trim_end_matches('-'), 57);
        let name = format!("{stem}-{}", object::short_hash(&parts, 5));
        let template = self.spec.template.clone();
        let meta = template.metadata.unwrap_or_default();
        let mut finalizers = meta.finalizers.unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        finalizers.push(FINALIZER.to_owned());
        let mut pod = Pod {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                generate_name: Some(prefix),
                namespace: self.job.metadata.namespace.clone(),
                labels: meta.labels,
                annotations: meta.annotations,
                finalizers: Some(finalizers),
                owner_references: Some(vec![object::owner_reference(self.job)]),
                ..ObjectMeta::default()
            },
            spec: template.spec,
            ..Pod::default()
        };
        if let Some(index) = index {
            let mark = [(INDEX.to_owned(), index.to_string())];
            pod.metadata.labels.get_or_insert_default().extend(mark.clone());
            pod.metadata.annotations.get_or_insert_default().extend(mark);
            let spec = pod.spec.get_or_insert_default();
            spec.hostname = Some(format!("{job}-{index}"));
            let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
            containers.for_each(|container| tell_index(container.env.get_or_insert_default()));
        }
        [
            action::create(Kind::Pod, &pod),
            self.tell(News::normal(FROM, "SuccessfulCreate", format!("Created pod: {name}"))),
        ]
    }

    fn tell(&self, news: News) -> Action {
        Action::told(Target::new(Kind::Job, &self.job.metadata), news)
    }

    fn stop(&self, pod: &Pod) -> [Action; 2] {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        [
            Action::delete(Target::new(Kind::Pod, &pod.metadata)),
            self.tell(News::normal(FROM, "SuccessfulDelete", format!("Deleted pod: {name}"))),
        ]
    }

    // A pod that is ended because it is too many is no failure, so it is let go before.
    fn stop_some(&mut self, count: usize) -> Vec<Action> {
        self.stopped = match &self.done {
            Some(_) => {
                let mut active = self.active.clone();
                active.sort_by_key(|pod| std::cmp::Reverse(index_of(pod)));
                active.truncate(count);
                active
            }
            None => victims(&self.active, count),
        };
        let stopped = self.stopped.iter().flat_map(|pod| {
            let kept = has_finalizer(pod).then(|| remove_finalizer(pod));
            kept.into_iter().chain(self.stop(pod))
        });
        stopped.collect()
    }

    fn stop_all(&mut self) -> Vec<Action> {
        self.stopped = self.active.clone();
        self.stopped.iter().flat_map(|pod| self.stop(pod)).collect()
    }

    fn look_again(&self) -> Option<Action> {
        self.waits.iter().min().map(|at| Action::LookAgain(*at))
    }
}

fn tell_index(env: &mut Vec<EnvVar>) {
    if env.iter().any(|var| var.name == INDEX_ENV) {
        return;
    }
    env.push(EnvVar {
        name: INDEX_ENV.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{INDEX}']"),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}

#[cfg(test)]
mod tests;
