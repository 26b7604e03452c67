//! What a Job says about its pods, and how their ends are counted.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::{View, has_finalizer, index_of, remove_finalizer, uid};
use crate::controllers::{
    action::{Action, Kind, News, Target, value},
    object::{self, is_ready},
    replica_set::{differs, omit_zero},
};

impl View<'_> {
    fn listed(&self, succeeded: bool) -> &[String] {
        let lists = self.status.uncounted_terminated_pods.as_ref();
        let list = lists.and_then(|lists| if succeeded { &lists.succeeded } else { &lists.failed }.as_deref());
        list.unwrap_or_default()
    }

    // An index outside of the job's is nobody's.
    fn index_in_range(&self, pod: &Pod) -> Option<i32> {
        index_of(pod).filter(|index| (0..self.spec.completions.unwrap_or(0)).contains(index))
    }

    // One step for every pod that has ended: to the list, free of its finalizer, into the number.
    pub(super) fn count(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let held = |uid_: &String| self.pods.iter().any(|pod| uid(pod) == uid_ && has_finalizer(pod));
        let mut lists = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        for (list, number) in [
            (&mut lists.succeeded, &mut self.status.succeeded),
            (&mut lists.failed, &mut self.status.failed),
        ] {
            let all = list.take().unwrap_or_default();
            let (kept, gone): (Vec<String>, Vec<String>) = all.into_iter().partition(held);
            let gone = i32::try_from(gone.len()).unwrap_or(i32::MAX);
            *number = Some(number.unwrap_or(0).saturating_add(gone)).filter(|number| *number > 0);
            *list = (!kept.is_empty()).then_some(kept);
        }
        let ending = super::is_terminating(&self.job.metadata);
        for pod in self.pods.iter().filter(|pod| has_finalizer(pod)) {
            let listed = |list: &Option<Vec<String>>| list.iter().flatten().any(|other| other == uid(pod));
            let succeeded = object::phase(pod) == "Succeeded" && !listed(&lists.failed);
            if !succeeded && !self.has_failed(pod) && !ending {
                continue;
            }
            let index = self.index_in_range(pod);
            let counted = match (&mut self.done, succeeded) {
                // The index itself says that it is counted.
                (Some(done), true) => index.is_none_or(|index| {
                    let before = done.contains(index);
                    done.insert(index);
                    before
                }),
                (Some(_), false) if index.is_none() => true,
                (_, true) => listed(&lists.succeeded),
                (_, false) => listed(&lists.failed),
            };
            if counted || ending {
                actions.push(remove_finalizer(pod));
            } else if self.done.is_none() || !succeeded {
                let list = if succeeded {
                    &mut lists.succeeded
                } else {
                    &mut lists.failed
                };
                list.get_or_insert_default().push(uid(pod).to_owned());
            }
        }
        if let Some(done) = &self.done {
            self.status.succeeded = i32::try_from(done.len()).ok().filter(|number| *number > 0);
            let text = done.write();
            self.status.completed_indexes = (!text.is_empty()).then_some(text);
        }
        self.status.uncounted_terminated_pods = Some(lists);
        actions
    }

    fn number(&self, counted: Option<i32>, listed: &[String]) -> usize {
        usize::try_from(counted.unwrap_or(0)).unwrap_or(0) + listed.len()
    }

    pub(super) fn succeeded(&self) -> usize {
        self.number(self.status.succeeded, self.listed(true))
    }

    pub(super) fn failed(&self) -> usize {
        self.number(self.status.failed, self.listed(false))
    }

    /// Whether an end is still to be counted.
    pub(super) fn is_counting(&self) -> bool {
        !self.listed(true).is_empty() || !self.listed(false).is_empty()
    }

    pub(super) fn write(&self, news: &[News]) -> Vec<Action> {
        let left = self.active.len() - self.stopped.len() + self.created;
        let is_stopped = |pod: &Pod| self.stopped.iter().any(|other| uid(other) == uid(pod));
        let ready = self
            .active
            .iter()
            .filter(|pod| is_ready(pod) && !is_stopped(pod))
            .count();
        let status = &self.status;
        let list = |succeeded| match self.listed(succeeded) {
            [] => serde_json::Value::Null,
            list => json!(list),
        };
        let wanted = json!({
            "active": omit_zero(left),
            "ready": ready,
            "terminating": self.terminating() + self.stopped.len(),
            "succeeded": status.succeeded,
            "failed": status.failed,
            "startTime": status.start_time,
            "completionTime": status.completion_time,
            "completedIndexes": status.completed_indexes,
            "uncountedTerminatedPods": {"succeeded": list(true), "failed": list(false)},
            "conditions": status.conditions,
        });
        if !differs(&value(&self.job.status), &wanted) {
            return Vec::new();
        }
        let mut actions = vec![Action::status(Target::new(Kind::Job, &self.job.metadata), wanted)];
        actions.extend(news.iter().map(|news| self.tell(news.clone())));
        actions
    }
}
