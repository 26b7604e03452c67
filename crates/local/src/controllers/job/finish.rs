//! When a Job has come to its end, how it says so, and when it is removed.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition};

use super::{FROM, View};
use crate::controllers::{
    action::{Action, Kind, News, Target},
    object,
};

/// What has been decided about a Job whose pods may still be ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    success: bool,
    reason: String,
    message: String,
}

impl Verdict {
    fn failure(reason: &str, message: &str) -> Self {
        Self {
            success: false,
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }

    fn kinds(&self) -> (&'static str, &'static str) {
        if self.success {
            ("SuccessCriteriaMet", "Complete")
        } else {
            ("FailureTarget", "Failed")
        }
    }
}

fn find<'a>(conditions: Option<&'a Vec<JobCondition>>, kind: &str) -> Option<&'a JobCondition> {
    conditions?.iter().find(|condition| condition.type_ == kind)
}

fn holds<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref();
    find(conditions, kind).filter(|condition| condition.status == "True")
}

/// When the Job ended.
pub(super) fn ended_at(job: &Job) -> Option<Timestamp> {
    let condition = holds(job, "Complete").or_else(|| holds(job, "Failed"))?;
    Some(
        condition
            .last_transition_time
            .as_ref()
            .map_or(Timestamp::MIN, |time| time.0),
    )
}

/// Removes a Job that has ended when its time has come.
pub(super) fn expire(job: &Job, ended: Timestamp, now: Timestamp) -> Vec<Action> {
    let seconds = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let Some(seconds) = seconds.filter(|_| !object::is_terminating(&job.metadata)) else {
        return Vec::new();
    };
    let end = ended.checked_add(SignedDuration::from_secs(i64::from(seconds)));
    match end {
        Ok(end) if end > now => vec![Action::LookAgain(end)],
        _ => vec![Action::delete(Target::new(Kind::Job, &job.metadata))],
    }
}

impl View<'_> {
    /// What has been decided before, or is now.
    pub(super) fn verdict(&mut self) -> Option<Verdict> {
        for (kind, success) in [("SuccessCriteriaMet", true), ("FailureTarget", false)] {
            if let Some(known) = holds(self.job, kind) {
                return Some(Verdict {
                    success,
                    reason: known.reason.clone().unwrap_or_default(),
                    message: known.message.clone().unwrap_or_default(),
                });
            }
        }
        let limit = usize::try_from(self.spec.backoff_limit.unwrap_or(6)).unwrap_or(0);
        if self.failed() > limit || self.restarts_exceed(limit) {
            let message = "Job has reached the specified backoff limit";
            return Some(Verdict::failure("BackoffLimitExceeded", message));
        }
        if let Some(end) = self.deadline() {
            if end <= self.now {
                let message = "Job was active longer than specified deadline";
                return Some(Verdict::failure("DeadlineExceeded", message));
            }
            self.waits.push(end);
        }
        let succeeded = self.succeeded();
        let complete = match self.spec.completions {
            None => succeeded > 0,
            Some(completions) => succeeded >= usize::try_from(completions).unwrap_or(0),
        };
        (complete && self.active.is_empty()).then(|| Verdict {
            success: true,
            reason: "CompletionsReached".to_owned(),
            message: "Reached expected number of succeeded pods".to_owned(),
        })
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.spec.active_deadline_seconds.filter(|_| !self.suspended())?;
        let start = self.status.start_time.as_ref()?.0;
        start.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    // Containers that are started again in the same pod are failures, too.
    fn restarts_exceed(&self, limit: usize) -> bool {
        let spec = self.spec.template.spec.as_ref();
        if spec.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|pod| !object::has_ended(pod));
        let statuses = running.filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            init.chain(status.container_statuses.iter().flatten())
        });
        let restarts: usize = statuses
            .map(|status| usize::try_from(status.restart_count).unwrap_or(0))
            .sum();
        restarts >= limit.max(1)
    }

    /// Says what was decided, before any pod is let go.
    pub(super) fn announce(&mut self, verdict: &Verdict) {
        self.set(verdict.kinds().0, &verdict.reason, &verdict.message);
    }

    /// Ends the Job, once every pod is gone or counted.
    pub(super) fn finish(&mut self, verdict: &Verdict) -> Option<News> {
        let announced = holds(self.job, verdict.kinds().0).is_some();
        if !announced || self.is_counting() || self.terminating() > 0 || !self.active.is_empty() {
            return None;
        }
        self.set(verdict.kinds().1, &verdict.reason, &verdict.message);
        if verdict.success {
            self.status.completion_time = Some(self.time());
            return Some(News::normal(FROM, "Completed", "Job completed"));
        }
        let reason = match verdict.reason.as_str() {
            "DeadlineExceeded" => "DeadlineExceeded",
            _ => "BackoffLimitExceeded",
        };
        Some(News::warning(FROM, reason, verdict.message.clone()))
    }

    /// Says that the Job waits, or goes on.
    pub(super) fn resume_or_suspend(&mut self) {
        let known = find(self.status.conditions.as_ref(), "Suspended").map(|condition| condition.status == "True");
        match (self.suspended(), known) {
            (true, None | Some(false)) => {
                self.put("Suspended", "True", "JobSuspended", "Job suspended");
                self.status.start_time = None;
                self.news.push(News::normal(FROM, "Suspended", "Job suspended"));
            }
            (false, Some(true)) => {
                self.put("Suspended", "False", "JobResumed", "Job resumed");
                self.status.start_time = Some(self.time());
                self.news.push(News::normal(FROM, "Resumed", "Job resumed"));
            }
            _ => {}
        }
    }

    fn set(&mut self, kind: &str, reason: &str, message: &str) {
        if find(self.status.conditions.as_ref(), kind).is_none() {
            self.put(kind, "True", reason, message);
        }
    }

    fn put(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let now = self.time();
        let condition = JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(now.clone()),
            last_transition_time: Some(now),
        };
        let conditions = self.status.conditions.get_or_insert_default();
        match conditions.iter_mut().find(|there| there.type_ == kind) {
            Some(there) => *there = condition,
            None => conditions.push(condition),
        }
    }
}
