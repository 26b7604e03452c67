//! What was carried to this cluster, compared with what is here: when either changes, at a bounded pace, and now and then.

use std::{sync::Arc, time::Duration};

use leeward_core::{app::App, lease::Moment, name::ClusterName};
use leeward_state::config::{self, Bundle, Id, Keeper, Kind, Override, Receiver, Running, cluster};

use super::{Round, chosen};
use crate::clock;

/// What was carried is compared with what is here when either changes, and at least this often: what no watch tells, such as a storage class.
const COMPARE: Duration = Duration::from_secs(600);
/// The same while something is lacking.
const COMPARE_LACKING: Duration = Duration::from_secs(30);
/// A start that waits for it tries again this soon.
const COMPARE_TO_SERVE: Duration = Duration::from_millis(200);

/// The last comparison of what was carried with what is here.
pub(super) struct Compared {
    /// What was to be here.
    state: String,
    when: Moment,
    /// How often the namespace had changed before.
    touched: u64,
    failed: Option<String>,
}

impl Round {
    /// Makes this cluster's objects what the active one's are, less what is its own.
    pub(super) async fn carry(&mut self, app: &App, running: Running) -> Result<(), String> {
        let Some(bundle) = self.carried.newest() else {
            return Err("its configuration has not come yet".into());
        };
        let now = clock::now();
        let state = format!("{} {:?} {} {running:?}", bundle.hash, bundle.secrets, app.observed);
        // What changes from here on is seen the next time.
        let touched = *self.touched.borrow_and_update();
        if let Some(last) = self.compared.as_ref().filter(|last| last.state == state)
            && now < self.due(last, touched, running)
        {
            return last.failed.clone().map_or(Ok(()), Err);
        }
        self.pace.looks(now);
        let failed = self.compare(app, &bundle, running).await.err();
        self.compared = Some(Compared {
            state,
            when: now,
            touched,
            failed: failed.clone(),
        });
        failed.map_or(Ok(()), Err)
    }

    /// When the same is compared again.
    fn due(&self, last: &Compared, touched: u64, running: Running) -> Moment {
        match (&last.failed, running) {
            (Some(_), Running::Serve) => last.when.after(COMPARE_TO_SERVE),
            (Some(_), Running::Standby(_)) => self.pace.next(last.when),
            (None, _) if last.touched != touched => self.pace.next(last.when),
            (None, _) if self.lacking.is_empty() => last.when.after(COMPARE),
            (None, _) => last.when.after(COMPARE_LACKING),
        }
    }

    async fn compare(&mut self, app: &App, bundle: &Bundle, running: Running) -> Result<(), String> {
        let context = Arc::clone(&self.context);
        let overrides = overrides(app, &context.agent.me);
        let receiver = Receiver {
            cluster: context.agent.me.clone(),
            authority: app.authority.clone(),
            secrets: chosen::secrets(app),
        };
        let desired = config::desired(bundle, &overrides, running).map_err(|e| e.to_string())?;
        let existing = cluster::fetch(&context.client, &app.key.namespace)
            .await
            .map_err(|e| e.to_string())?;
        let changes = config::plan(bundle, &desired, &existing, &receiver);
        let writes = changes
            .iter()
            .any(|c| matches!(c, config::Change::Apply(_) | config::Change::Delete(_)));
        let failed = cluster::apply(&context.client, &app.key, &changes).await;
        if let Some(error) = failed.first() {
            return Err(error.to_string());
        }
        let existing = match writes {
            true => cluster::fetch(&context.client, &app.key.namespace)
                .await
                .map_err(|e| e.to_string())?,
            false => existing,
        };
        let classes = cluster::storage_classes(&context.client)
            .await
            .map_err(|e| e.to_string())?;
        let priorities = cluster::priority_classes(&context.client)
            .await
            .map_err(|e| e.to_string())?;
        self.lacking = config::missing(bundle, &existing, &classes);
        self.lacking.extend(config::missing_priorities(&desired, &priorities));
        let drift = changes
            .iter()
            .filter(|change| matches!(change, config::Change::Drift { .. }));
        self.lacking.extend(drift.map(ToString::to_string));
        let stale =
            |change: &&config::Change| matches!(change, config::Change::Kept { id, .. } if id.kind == Kind::Secret);
        self.doubtful = changes.iter().filter(stale).map(ToString::to_string).collect();
        let kept = |object| Some((Id::of(object)?, Keeper::of(object)?));
        self.keepers = existing.iter().filter_map(kept).collect();
        Ok(())
    }
}

/// What is different in this cluster.
pub(super) fn overrides(app: &App, me: &ClusterName) -> Vec<Override> {
    let placement = app.placement(me).into_iter();
    let patches = placement.flat_map(|placement| &placement.overrides);
    patches
        .map(|(kind, name, patch)| Override {
            kind: kind.clone(),
            name: name.clone(),
            patch: patch.clone(),
        })
        .collect()
}
