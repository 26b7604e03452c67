//! Keeps the copy of the quorum up to date, and takes sight of every lease the moment it is heard of: a leader that was
//! elected just now need not begin to wait.

use std::{sync::Arc, time::Duration};

use leeward_quorum::{Entry, known::Known};
use tokio_util::sync::CancellationToken;

use super::Agent;
use crate::clock;

/// How long one question waits for a change.
const WAIT: Duration = Duration::from_secs(10);
/// The pause after a question that was not answered.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows the quorum until `stop`.
pub async fn run(agent: Arc<Agent>, stop: CancellationToken) {
    let mut after = 0;
    let mut silent = false;
    let mut replaced = false;
    loop {
        let changes = tokio::select! {
            () = stop.cancelled() => return,
            changes = agent.quorum.changes(after, WAIT) => changes,
        };
        match changes {
            Ok(changes) => {
                let revision = changes.revision;
                if silent {
                    tracing::info!("the quorum answers again");
                }
                silent = false;
                // A store that went back is another one; nothing of the old copy may be mixed with it. It goes once everything is read, so that no
                // application seems to be gone meanwhile.
                if revision < after {
                    tracing::error!(
                        had = after,
                        has = revision,
                        "the quorum went back: it was replaced or restored"
                    );
                    (after, replaced) = (0, true);
                    continue;
                }
                after = revision;
                if changes.whole || !changes.entries.is_empty() {
                    let anew = std::mem::take(&mut replaced);
                    agent.learn(|known| {
                        if anew {
                            *known = Known::default();
                        }
                        known.follow(changes, clock::now());
                    });
                    // Whatever it says is not what was known.
                    if anew {
                        agent.wake();
                    }
                }
            }
            Err(error) => {
                if !silent {
                    tracing::warn!(%error, "the quorum is not followed");
                }
                silent = true;
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
}

/// Merges entries into the copy and takes sight of the leases among them.
pub(crate) fn take(known: &mut Known, entries: Vec<Entry>) {
    known.take(entries, clock::now());
}
