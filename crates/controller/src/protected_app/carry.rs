//! Configuration between clusters: the active one offers its objects, the others ask for them and wait for news.
//!
//! Flow: [`offer`] watches the active cluster's objects and puts a [`Bundle`] into [`Bundles`]; [`router`] gives it to a peer
//! as soon as it differs from what the peer has; [`pull`] is that question.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::get,
};
use futures::StreamExt as _;
use kube::Client;
use leeward_core::{
    execute::Mode,
    lease::Moment,
    name::{AppKey, Generation},
};
use leeward_state::config::{Bundle, cluster};
use serde::Deserialize;
use tokio::sync::watch;

use crate::{agent::Agent, clock, pace::Pace};

/// A peer's question waits this long for news.
const WAIT: Duration = Duration::from_secs(10);

type Offer = watch::Sender<Option<Arc<Bundle>>>;

/// What this cluster offers of each application.
#[derive(Clone, Default)]
pub struct Bundles {
    by_app: Arc<Mutex<HashMap<AppKey, Offer>>>,
    /// Why what is offered of an application is not its newest.
    refused: Arc<Mutex<HashMap<AppKey, String>>>,
}

impl Bundles {
    fn sender(&self, app: &AppKey) -> Offer {
        let mut by_app = self.by_app.lock().unwrap_or_else(PoisonError::into_inner);
        by_app
            .entry(app.clone())
            .or_insert_with(|| watch::Sender::new(None))
            .clone()
    }

    /// Why this cluster cannot offer the application's newest objects.
    pub fn trouble(&self, app: &AppKey) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get(app).cloned()
    }

    /// Notes why, or that all is well again; whether that is news.
    fn complain(&self, app: &AppKey, why: Option<String>) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &why {
            Some(why) => refused.insert(app.clone(), why.clone()),
            None => refused.remove(app),
        };
        before != why
    }

    /// What is offered of an application, and its changes.
    pub fn watch(&self, app: &AppKey) -> watch::Receiver<Option<Arc<Bundle>>> {
        self.sender(app).subscribe()
    }
}

/// Offers an application's objects while this cluster is the one that the others follow. `touched` grows with every change in the application's
/// namespace, whoever follows whom. Ends only with its task.
pub async fn offer(agent: Arc<Agent>, client: Client, bundles: Bundles, app: AppKey, touched: watch::Sender<u64>) {
    let offered = bundles.sender(&app);
    let mut news = Box::pin(cluster::changes(&client, &app.namespace));
    let mut changes = agent.changes();
    let mut under = None;
    // Since when what is offered is stale.
    let mut stale = Some(Moment::default());
    let mut pace = Pace::default();
    loop {
        let known = agent.known();
        let situation = known.situation(&app);
        let source = situation.as_ref().and_then(|situation| {
            let plan = situation.plan()?;
            let serves = matches!(situation.mode(&agent.me), Mode::Serve { .. });
            (plan.active == agent.me && serves && plan.operation.is_none() && agent.acts())
                .then(|| (situation.app.value.clone(), plan.generation))
        });
        let generation = source.as_ref().map(|(app, generation)| (app.observed, *generation));
        let due = stale.map(|heard| pace.next(heard));
        let is_due = due.is_some_and(|due| clock::now() >= due);
        if let Some((spec, generation)) = source.filter(|_| is_due || under != generation) {
            pace.looks(clock::now());
            match collect(&agent, &client, &spec, generation).await {
                Ok(bundle) => {
                    stale = None;
                    under = Some((spec.observed, generation));
                    bundles.complain(&app, None);
                    offered.send_if_modified(|old| {
                        let same = old
                            .as_ref()
                            .is_some_and(|old| old.hash == bundle.hash && old.generation == bundle.generation);
                        if !same {
                            *old = Some(Arc::new(bundle));
                        }
                        !same
                    });
                    agent.wake();
                }
                Err(error) => {
                    tracing::debug!(%app, %error, "the application's objects could not be read");
                    if bundles.complain(&app, refused(&error)) {
                        agent.wake();
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    continue;
                }
            }
        } else if generation.is_none() && under.is_some() {
            under = None;
            stale = Some(clock::now());
            bundles.complain(&app, None);
        }
        let until_due = due.map(|due| due.since(clock::now())).unwrap_or_default();
        tokio::select! {
            Some(told) = news.next() => {
                touched.send_modify(|count| *count += 1);
                if told == cluster::News::Carried {
                    stale.get_or_insert_with(clock::now);
                }
            }
            _ = changes.changed() => { changes.borrow_and_update(); }
            () = tokio::time::sleep(until_due), if stale.is_some() && generation.is_some() => {}
        }
    }
}

/// What is said of objects that could not be read: that the API refuses it, which does not pass by itself. That it does not answer is said elsewhere.
fn refused(error: &cluster::Error) -> Option<String> {
    match error {
        cluster::Error::Read { source, .. } if matches!(**source, kube::Error::Api(_)) => {
            Some(format!("{error}; until then standbys keep what they have"))
        }
        _ => None,
    }
}

async fn collect(
    agent: &Agent,
    client: &Client,
    app: &leeward_core::app::App,
    generation: Generation,
) -> Result<Bundle, cluster::Error> {
    let objects = cluster::fetch(client, &app.key.namespace).await?;
    let claims: Vec<String> = app.roles.iter().flat_map(|role| role.claims.clone()).collect();
    // An accepted specification's selector was read from a resource, so that it can be read again.
    let selector = serde_json::from_value(app.selector.clone()).unwrap_or_default();
    let chosen = leeward_state::config::select(&app.key, &selector, &claims, &objects).unwrap_or_default();
    Ok(Bundle::new(app.key.clone(), agent.me.clone(), None, generation, chosen))
}

#[derive(Deserialize)]
struct Have {
    #[serde(default)]
    have: String,
}

/// Where peers ask for the configuration of an application.
pub fn router(bundles: Bundles) -> Router {
    Router::new()
        .route("/v1/config/{namespace}/{name}", get(answer))
        .with_state(bundles)
}

async fn answer(
    State(bundles): State<Bundles>,
    Path((namespace, name)): Path<(String, String)>,
    Query(Have { have }): Query<Have>,
) -> Result<Json<Bundle>, StatusCode> {
    let mut offered = bundles.watch(&AppKey::new(namespace, name));
    let differs = |bundle: &Option<Arc<Bundle>>| bundle.as_ref().is_some_and(|bundle| bundle.hash != have);
    let news = tokio::time::timeout(WAIT, offered.wait_for(differs)).await;
    match news {
        Ok(Ok(bundle)) => bundle
            .as_ref()
            .map(|bundle| Json(Bundle::clone(bundle)))
            .ok_or(StatusCode::NO_CONTENT),
        _ => Err(StatusCode::NO_CONTENT),
    }
}

/// Asks a peer for what it offers of an application, when that is not what `have` is the hash of. None: nothing new.
///
/// # Errors
/// When the peer does not answer, or what it sends is not a bundle of this application.
pub async fn pull(http: &reqwest::Client, peer: &str, app: &AppKey, have: &str) -> Result<Option<Bundle>, String> {
    let url = format!("{peer}/v1/config/{}/{}", app.namespace, app.name);
    let request = http
        .get(url)
        .query(&[("have", have)])
        .timeout(WAIT + Duration::from_secs(5));
    let answer = request.send().await.map_err(|e| e.without_url().to_string())?;
    if answer.status() == reqwest::StatusCode::NO_CONTENT {
        return Ok(None);
    }
    let answer = answer.error_for_status().map_err(|e| e.without_url().to_string())?;
    let bundle: Bundle = answer.json().await.map_err(|e| e.without_url().to_string())?;
    bundle.check().map_err(|e| e.to_string())?;
    if bundle.app != *app {
        return Err(format!("it is of {}", bundle.app));
    }
    Ok(Some(bundle))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn read(source: kube::Error) -> cluster::Error {
        cluster::Error::Read {
            what: "Secret",
            namespace: "shop".into(),
            source: Box::new(source),
        }
    }

    #[test]
    fn that_the_api_refuses_to_be_read_is_said_until_it_does_not() {
        let (bundles, app) = (Bundles::default(), AppKey::new("shop", "web"));
        let message =
            "secrets is forbidden: User \"system:serviceaccount:leeward-system:leeward\" cannot list resource";
        let forbidden = read(kube::Error::Api(
            Status::failure(message, "Forbidden").with_code(403).boxed(),
        ));
        let why = refused(&forbidden).unwrap();
        assert!(
            why.contains("cannot read Secret in namespace shop") && why.contains(message),
            "{why}"
        );
        assert!(bundles.complain(&app, Some(why.clone())) && !bundles.complain(&app, Some(why.clone())));
        assert_eq!(bundles.trouble(&app), Some(why));
        assert!(bundles.complain(&app, None) && !bundles.complain(&app, None));
        assert_eq!(bundles.trouble(&app), None);
    }

    #[test]
    fn an_api_that_does_not_answer_is_not_said_to_refuse() {
        let away = read(kube::Error::ReadEvents(std::io::ErrorKind::ConnectionReset.into()));
        assert_eq!(refused(&away), None);
    }
}
