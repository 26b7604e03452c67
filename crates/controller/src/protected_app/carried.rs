//! What was carried here of one application: in memory, and on this cluster's own disk, so that an agent that starts while the active
//! region is lost can take over.
//!
//! Flow: [`follow`] reads what is kept once it is known whom this cluster follows, then asks that one for news, again and again; what comes is
//! on disk before anybody sees it.
//!
//! Invariants: a cluster that was active since begins with nothing, since its own objects are newer than what it once followed; nothing is kept of
//! what this cluster does not follow any more, whatever was on its way.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use leeward_core::{
    execute,
    name::{AppKey, ClusterName},
    plan::Plan,
};
use leeward_state::config::{Bundle, Kept, KeptError};

use super::carry;
use crate::agent::Agent;

/// After something failed it is tried again this much later.
const PAUSE: Duration = Duration::from_millis(500);

/// What was carried here of one application.
pub struct Carried {
    agent: Arc<Agent>,
    app: AppKey,
    kept: Kept,
    newest: Mutex<Option<Arc<Bundle>>>,
    /// Held while the file changes.
    file: Mutex<()>,
    trouble: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each guarded value is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Carried {
    /// Nothing yet of an application.
    pub fn new(agent: Arc<Agent>, app: AppKey, kept: Kept) -> Arc<Self> {
        Arc::new(Self {
            agent,
            app,
            kept,
            newest: Mutex::default(),
            file: Mutex::default(),
            trouble: Mutex::default(),
        })
    }

    /// The newest.
    pub fn newest(&self) -> Option<Arc<Bundle>> {
        lock(&self.newest).clone()
    }

    /// Why what came cannot be kept.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// The cluster that this one follows, and its peer link.
    fn source(&self) -> Option<(ClusterName, String)> {
        let known = self.agent.known();
        let situation = known.situation(&self.app)?;
        situation.app.value.placement(&self.agent.me)?;
        let from = execute::follows(&situation.app.value, situation.plan(), &self.agent.me)?;
        let peers = self.agent.peers();
        let peer = peers.iter().find(|peer| peer.cluster == *from)?;
        Some((from.clone(), peer.url.clone()))
    }

    /// Takes what is kept, once it is known what it has to fit.
    fn load(&self) {
        match self.kept.read(&self.app) {
            Ok(Some(bundle)) => {
                let known = self.agent.known();
                let situation = known.situation(&self.app);
                let plan = situation.as_ref().and_then(|situation| situation.plan());
                if plan.is_some_and(|plan| is_of(&bundle, plan)) {
                    *lock(&self.newest) = Some(Arc::new(bundle));
                } else {
                    tracing::warn!(app = %self.app, "what was carried here is of an earlier protection, and is asked for again");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(app = %self.app, %error, "what was carried here"),
        }
    }

    /// Keeps what came from a cluster, and takes it; not where another one is followed since.
    fn take(&self, from: &ClusterName, bundle: Bundle) -> Result<(), KeptError> {
        let _file = lock(&self.file);
        if self.source().is_some_and(|(now, _)| now == *from) {
            self.kept.write(&bundle)?;
            *lock(&self.newest) = Some(Arc::new(bundle));
        }
        Ok(())
    }

    /// This cluster is active, or has no part in the application: what is kept is of no use any more. It can be called again and again.
    pub async fn forget(self: &Arc<Self>) {
        if !self.kept.has(&self.app) {
            return;
        }
        let carried = Arc::clone(self);
        let removed = tokio::task::spawn_blocking(move || {
            let _file = lock(&carried.file);
            carried.kept.remove(&carried.app)
        });
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(app = %self.app, %error, "what was carried here could not be removed");
        }
    }

    /// What is in memory is of no use any more either.
    pub fn clear(&self) {
        *lock(&self.newest) = None;
        *lock(&self.trouble) = None;
    }

    fn complain(&self, trouble: Option<String>) {
        let mut before = lock(&self.trouble);
        if *before != trouble {
            if let Some(trouble) = &trouble {
                tracing::warn!(app = %self.app, trouble, "what came could not be kept");
            }
            *before = trouble;
            drop(before);
            self.agent.wake();
        }
    }
}

/// Whether a bundle was read under this plan or one before it. Plans only grow, unless the application was given up and protected anew.
fn is_of(bundle: &Bundle, plan: &Plan) -> bool {
    bundle.generation <= plan.generation
}

/// Asks the cluster that is followed for its configuration, again and again. Ends only with its task.
pub async fn follow(carried: Arc<Carried>) {
    let mut changes = carried.agent.changes();
    let mut loaded = false;
    loop {
        let Some((from, url)) = carried.source() else {
            let _ = changes.changed().await;
            continue;
        };
        if !loaded {
            blocking(&carried, Carried::load).await;
            loaded = true;
            carried.agent.wake();
        }
        // What is not kept has to come again.
        let have = carried.newest().filter(|_| carried.kept.has(&carried.app));
        match carry::pull(&carried.agent.http, &url, &carried.app, have.as_deref()).await {
            Ok(Some(bundle)) => {
                let taken = blocking(&carried, move |carried| carried.take(&from, bundle)).await;
                let failed = taken.and_then(Result::err).map(|error| error.to_string());
                let wait = failed.is_some();
                carried.complain(failed);
                carried.agent.wake();
                if wait {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Ok(None) => carried.complain(None),
            Err(error) => {
                tracing::debug!(app = %carried.app, error, "the configuration could not be asked for");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// None where the agent ends.
async fn blocking<T: Send + 'static>(
    carried: &Arc<Carried>,
    work: impl FnOnce(&Carried) -> T + Send + 'static,
) -> Option<T> {
    let carried = Arc::clone(carried);
    tokio::task::spawn_blocking(move || work(&carried)).await.ok()
}

#[cfg(test)]
mod tests {
    use leeward_core::name::{Generation, Incarnation};

    use super::*;

    #[test]
    fn what_was_read_under_a_later_plan_is_of_an_earlier_protection_and_a_new_incarnation_keeps_what_was_read_before() {
        let app = AppKey::new("shop", "web");
        let bundle = |generation| {
            let west = ClusterName::new("west");
            Bundle::new(app.clone(), west, None, Generation(generation), vec![])
        };
        let plan = |generation| Plan {
            generation,
            app: app.clone(),
            active: ClusterName::new("west"),
            operation: None,
            finished: None,
        };
        assert!(is_of(&bundle(3), &plan(Generation(3))) && is_of(&bundle(3), &plan(Generation(5))));
        assert!(!is_of(&bundle(3), &plan(Generation(1))));
        assert!(is_of(&bundle(3), &plan(Generation(3).in_incarnation(Incarnation(1)))));
    }
}
