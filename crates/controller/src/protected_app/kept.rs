//! What a returning cluster had that the new writer does not have: from the store of points over the report to the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use leeward_api::app::KeptStatus;
use leeward_core::{
    name::Epoch,
    operation::{Journal, StepName},
    plan::Plan,
};
use leeward_state::volumes::target::Kept;

/// When the point was taken that the writer at an epoch went on from, in Unix milliseconds, while the journal still says it.
pub fn since(plan: Option<&Plan>, journal: &Journal, epoch: Epoch) -> Option<u64> {
    let finished = plan?.finished.as_ref().map(|finished| &finished.operation);
    let operation = plan?.operation.as_ref().or(finished)?;
    let promoted = journal.get(&StepName::Promote)?;
    promoted.point_ms.filter(|_| operation.epoch == epoch)
}

/// As a report carries it: a text that [`read`] reads.
pub fn told(kept: &Kept) -> Option<String> {
    let status = KeptStatus {
        files: kept.files,
        bytes: kept.bytes,
        from: kept.from_ms.and_then(time),
        to: kept.to_ms.and_then(time),
        path: kept.path.display().to_string(),
    };
    serde_json::to_string(&status).ok()
}

/// What a report carries; none for what an older agent says of it in words.
pub fn read(text: &str) -> Option<KeptStatus> {
    serde_json::from_str(text).ok()
}

/// Whole seconds, as the API keeps it: with more, what is read back would always differ.
fn time(ms: u64) -> Option<Time> {
    let seconds = i64::try_from(ms / 1000).ok()?;
    jiff::Timestamp::from_second(seconds).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use leeward_core::{
        name::{AppKey, Generation},
        operation::{Finished, Kind, Operation, Outcome, StepRecord},
    };

    use super::*;

    #[test]
    fn what_is_kept_arrives_in_numbers_and_times() {
        let kept = Kept {
            path: "/var/lib/kept/one".into(),
            bytes: 120,
            files: 3,
            from_ms: Some(3_900),
            to_ms: Some(5_250),
        };
        let status = read(&told(&kept).unwrap()).unwrap();
        assert_eq!(
            (status.files, status.bytes, status.path.as_str()),
            (3, 120, "/var/lib/kept/one")
        );
        assert_eq!((status.from, status.to), (time(3_000), time(5_000)));
        assert_eq!(read("3 files, 120 bytes, in /var/lib/kept/one"), None);
    }

    #[test]
    fn it_counts_from_the_point_that_the_writer_of_that_epoch_went_on_from() {
        let operation = Operation {
            id: "o".into(),
            kind: Kind::Failover,
            from: "west".into(),
            to: "east".into(),
            epoch: Epoch(5),
            began_ms: 0,
            decided_ms: 0,
            steps: vec![],
            accepted_loss_ms: None,
        };
        let plan = Plan {
            generation: Generation(2),
            app: AppKey::new("shop", "web"),
            active: "east".into(),
            operation: None,
            finished: Some(Finished {
                operation,
                ended_ms: 9,
                outcome: Outcome::Succeeded,
            }),
        };
        let promoted = StepRecord {
            started_ms: 7,
            ended_ms: Some(8),
            trouble: None,
            point_ms: Some(3_900),
        };
        let journal = Journal::from([(StepName::Promote, promoted)]);
        assert_eq!(since(Some(&plan), &journal, Epoch(5)), Some(3_900));
        assert_eq!(since(Some(&plan), &journal, Epoch(4)), None);
        assert_eq!(since(Some(&plan), &Journal::new(), Epoch(5)), None);
    }
}
