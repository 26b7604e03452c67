//! What is shown while the demo runs: a line for each event with its time, and below them, on a terminal, a live line.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::{sync::watch, task::JoinHandle};

use super::{client::Live, stage::Stage};
use crate::output;

/// The picture.
pub(crate) struct Picture {
    began: Instant,
    bar: ProgressBar,
    following: Mutex<Option<JoinHandle<()>>>,
}

impl Picture {
    /// An empty one. Without a terminal there is no live line.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            began: Instant::now(),
            bar,
            following: Mutex::new(None),
        }
    }

    /// Shows an event.
    pub(crate) fn say(&self, what: &str) {
        let line = format!("{:>7.2} s  {what}", self.began.elapsed().as_secs_f64());
        if self.bar.is_hidden() {
            output::say(line)
        } else {
            self.bar.println(line)
        }
    }

    /// Shows what is waited for, on a terminal only.
    pub(crate) fn hint(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Shows the client's figures, who serves and how far the standby is behind.
    pub(crate) fn follow(&self, live: watch::Receiver<Live>, stage: &Stage) -> anyhow::Result<()> {
        if self.bar.is_hidden() {
            return Ok(());
        }
        let bar = self.bar.clone();
        let clients: Vec<_> = stage
            .instance()?
            .regions()
            .iter()
            .map(|region| Ok((region.clone(), stage.client(region)?)))
            .collect::<anyhow::Result<_>>()?;
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(250));
            loop {
                ticks.tick().await;
                let regions = regions(&clients).await;
                let now = live.borrow().clone();
                bar.set_message(format!(
                    "{regions} | answered by {} | reads {} ok {} failed | writes {} ok {} refused {} unknown",
                    now.read_from.unwrap_or_else(|| "nobody".into()),
                    now.reads_ok,
                    now.reads_failed,
                    now.acknowledged,
                    now.refused,
                    now.unknown
                ));
            }
        });
        if let Ok(mut following) = self.following.lock() {
            *following = Some(task);
        }
        Ok(())
    }

    /// Takes the live line away.
    pub(crate) fn end(&self) {
        if let Ok(mut following) = self.following.lock()
            && let Some(task) = following.take()
        {
            task.abort();
        }
        self.bar.finish_and_clear();
    }
}

/// Each region's state, by the first region that answers with the newest plan.
async fn regions(clients: &[(String, kube::Client)]) -> String {
    let mut newest: Option<leeward_api::ProtectedAppStatus> = None;
    for (_, client) in clients {
        let api: kube::Api<leeward_api::ProtectedApp> =
            kube::Api::namespaced(client.clone(), crate::manifests::NAMESPACE);
        let asked = tokio::time::timeout(Duration::from_millis(200), api.get(crate::manifests::APP)).await;
        if let Ok(Ok(app)) = asked
            && let Some(status) = app.status
            && newest
                .as_ref()
                .is_none_or(|newest| newest.generation <= status.generation)
        {
            newest = Some(status);
        }
    }
    let Some(status) = newest else {
        return "no region answers".into();
    };
    let places = status.placements.iter().map(|p| {
        let lag = p.lag.map(|lag| format!(" {lag:?} behind")).unwrap_or_default();
        format!("{} {}{lag}", p.cluster, p.state)
    });
    places.collect::<Vec<_>>().join(", ")
}
