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
    Extension, Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::get,
};
use futures::StreamExt as _;
use kube::Client;
use leeward_core::{
    app::App,
    execute::Mode,
    lease::Moment,
    name::{AppKey, ClusterName, Generation},
};
use leeward_state::config::{Bundle, Id, Kind, Secrets, cluster, select};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::chosen;
use crate::{agent::Agent, clock, pace::Pace, peer::PeerName};

/// A peer's question waits this long for news.
const WAIT: Duration = Duration::from_secs(10);

type Offer = watch::Sender<Option<Offered>>;

/// What this cluster offers of an application.
#[derive(Clone)]
pub struct Offered {
    /// The objects.
    pub bundle: Arc<Bundle>,
    /// Whether an agent of the version before cannot be given them: it would take Secrets that are left out for gone, and delete them where it stands
    /// by; and it refuses what holds a kind that it does not carry.
    newer: bool,
}

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
    pub fn watch(&self, app: &AppKey) -> watch::Receiver<Option<Offered>> {
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
                Ok(new) => {
                    stale = None;
                    under = Some((spec.observed, generation));
                    bundles.complain(&app, None);
                    offered.send_if_modified(|old| {
                        let same = old.as_ref().is_some_and(|old| {
                            let of_new = &new.bundle;
                            let same = old.bundle.generation == of_new.generation && old.newer == new.newer;
                            same && !differs(&old.bundle, &of_new.hash, &of_new.secrets)
                        });
                        if !same {
                            *old = Some(new);
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

async fn collect(agent: &Agent, client: &Client, app: &App, generation: Generation) -> Result<Offered, cluster::Error> {
    let objects = cluster::fetch(client, &app.key.namespace).await?;
    Ok(choose(&agent.me, app, generation, &objects))
}

/// What is offered of an application, of the objects in its namespace.
fn choose(me: &ClusterName, app: &App, generation: Generation, objects: &[Value]) -> Offered {
    let claims: Vec<String> = app.roles.iter().flat_map(|role| role.claims.clone()).collect();
    // An accepted specification's selector was read from a resource, so that it can be read again.
    let selector = serde_json::from_value(app.selector.clone()).unwrap_or_default();
    let secrets = chosen::secrets(app);
    let with = |secrets| select(&app.key, &selector, &claims, secrets, objects).unwrap_or_default();
    let chosen = with(&secrets);
    let scales = |object: &Value| Id::of(object).is_some_and(|id| id.kind == Kind::HorizontalPodAutoscaler);
    let newer = chosen.iter().any(scales) || with(&Secrets::All) != chosen;
    let bundle = Bundle::new(app.key.clone(), me.clone(), None, generation, chosen);
    Offered {
        bundle: Arc::new(bundle.with(secrets)),
        newer,
    }
}

/// Whether a bundle is another one than that with these objects and this choice of Secrets.
fn differs(bundle: &Bundle, hash: &str, secrets: &Secrets) -> bool {
    bundle.hash != hash || bundle.secrets != *secrets
}

/// What a peer has. The hash is of the objects alone, as agents before this choice made it.
#[derive(Deserialize)]
struct Have {
    #[serde(default)]
    have: String,
    /// Which Secrets are among them, as JSON; an agent that always carries them says nothing, and is given nothing that lacks some.
    secrets: Option<String>,
}

impl Have {
    fn differs(&self, offered: &Offered) -> bool {
        let bundle = &offered.bundle;
        let secrets = self
            .secrets
            .as_ref()
            .map(|secrets| serde_json::from_str::<Secrets>(secrets));
        match secrets {
            None => bundle.hash != self.have && !offered.newer,
            Some(secrets) => secrets.map_or(true, |secrets| differs(bundle, &self.have, &secrets)),
        }
    }
}

/// Whether a peer is given an application's objects: only one that it runs or stands by in. There may be Secrets among them.
fn may_have(app: Option<&App>, peer: &str) -> bool {
    app.is_some_and(|app| app.placement(&ClusterName::new(peer)).is_some())
}

/// Where peers ask for the configuration of an application.
pub fn router(agent: Arc<Agent>, bundles: Bundles) -> Router {
    Router::new()
        .route("/v1/config/{namespace}/{name}", get(answer))
        .with_state((agent, bundles))
}

async fn answer(
    State((agent, bundles)): State<(Arc<Agent>, Bundles)>,
    Extension(PeerName(peer)): Extension<PeerName>,
    Path((namespace, name)): Path<(String, String)>,
    Query(have): Query<Have>,
) -> Result<Json<Bundle>, StatusCode> {
    let app = AppKey::new(namespace, name);
    let mut offered = bundles.watch(&app);
    let differs = |offered: &Option<Offered>| offered.as_ref().is_some_and(|offered| have.differs(offered));
    let news = tokio::time::timeout(WAIT, offered.wait_for(differs)).await;
    let Ok(Ok(offered)) = news.map(|news| news.map(|offered| offered.clone())) else {
        return Err(StatusCode::NO_CONTENT);
    };
    // As it is now, and not as it was when the peer asked.
    let situation = agent.known().situation(&app);
    if !may_have(situation.as_ref().map(|situation| &situation.app.value), &peer) {
        tracing::warn!(%app, peer, "asked for the configuration of an application that has no placement there: refused");
        return Err(StatusCode::FORBIDDEN);
    }
    offered
        .map(|offered| Json(Bundle::clone(&offered.bundle)))
        .ok_or(StatusCode::NO_CONTENT)
}

/// Asks a peer for what it offers of an application, when that is not what is here already. None: nothing new.
///
/// # Errors
/// When the peer does not answer, or what it sends is not a bundle of this application.
pub async fn pull(
    http: &reqwest::Client,
    peer: &str,
    app: &AppKey,
    have: Option<&Bundle>,
) -> Result<Option<Bundle>, String> {
    let url = format!("{peer}/v1/config/{}/{}", app.namespace, app.name);
    let hash = have.map_or("", |have| have.hash.as_str());
    let secrets = have.map(|have| &have.secrets);
    let secrets = serde_json::to_string(&secrets).map_err(|e| e.to_string())?;
    let request = http
        .get(url)
        .query(&[("have", hash), ("secrets", &secrets)])
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

    fn offered(asked: Secrets, newer: bool) -> Offered {
        let app = AppKey::new("shop", "web");
        let bundle = Bundle::new(app, "west".into(), None, Generation(3), vec![]).with(asked);
        Offered {
            bundle: Arc::new(bundle),
            newer,
        }
    }

    #[test]
    fn a_peer_is_given_what_differs_and_one_that_always_carries_secrets_nothing_that_lacks_some() {
        let hash = offered(Secrets::All, false).bundle.hash.clone();
        let named = Secrets::Named(["db".to_owned()].into());
        let said = |secrets: &Secrets| Some(serde_json::to_string(secrets).unwrap());
        let nothing = || Some("null".to_owned());
        for (have, secrets, asked, newer, given) in [
            (hash.as_str(), said(&Secrets::All), Secrets::All, false, false),
            ("other", said(&Secrets::All), Secrets::All, false, true),
            (&hash, said(&Secrets::None), Secrets::All, false, true),
            (&hash, said(&named), named.clone(), true, false),
            (&hash, said(&named), Secrets::None, true, true),
            ("", nothing(), Secrets::None, true, true),
            // Of the version before.
            ("other", None, Secrets::All, false, true),
            ("other", None, Secrets::None, false, true),
            ("other", None, Secrets::None, true, false),
            ("", None, named, true, false),
        ] {
            let asks = Have {
                have: have.to_owned(),
                secrets: secrets.clone(),
            };
            let case = format!("{have} {secrets:?} {asked:?} {newer}");
            assert_eq!(asks.differs(&offered(asked, newer)), given, "{case}");
        }
    }

    fn app(configuration: Value) -> App {
        let placement = |cluster: &str| serde_json::json!({ "cluster": cluster, "priority": 1, "weight": 1, "standby_replicas": 0, "overrides": [] });
        serde_json::from_value(serde_json::json!({
            "key": "shop/web", "authority": "west", "observed": 1, "model": "ActivePassive",
            "placements": [placement("west"), placement("east")],
            "rpo": { "secs": 5, "nanos": 0 }, "rto": { "secs": 5, "nanos": 0 }, "automatic": true, "roles": [], "traffic": null,
            "selector": { "matchLabels": { "app": "web" } }, "resource": { "configuration": configuration },
        }))
        .unwrap()
    }

    #[test]
    fn an_agent_of_the_version_before_is_given_nothing_that_it_would_take_for_less_or_refuse() {
        let object = |version: &str, kind: &str| serde_json::json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "web", "namespace": "shop", "labels": { "app": "web" } } });
        let (map, secret) = (object("v1", "ConfigMap"), object("v1", "Secret"));
        let scaler = object("autoscaling/v2", "HorizontalPodAutoscaler");
        for (objects, asked, newer) in [
            (vec![map.clone()], "None", false),
            (vec![map.clone(), secret.clone()], "All", false),
            (vec![map.clone(), secret], "None", true),
            (vec![map, scaler], "All", true),
        ] {
            let app = app(serde_json::json!({ "secrets": asked }));
            let offered = choose(&"west".into(), &app, Generation(1), &objects);
            assert_eq!(offered.newer, newer, "{asked} {objects:?}");
            assert_eq!(offered.bundle.check(), Ok(()));
        }
    }

    #[test]
    fn only_a_cluster_that_an_application_is_placed_in_is_given_its_objects() {
        let app = app(serde_json::json!(null));
        for (peer, may) in [
            ("east", true),
            ("west", true),
            ("north", false),
            ("witness", false),
            ("", false),
        ] {
            assert_eq!(may_have(Some(&app), peer), may, "{peer}");
        }
        assert!(!may_have(None, "east"), "it is not protected any more");
    }

    #[test]
    fn an_api_that_does_not_answer_is_not_said_to_refuse() {
        let away = read(kube::Error::ReadEvents(std::io::ErrorKind::ConnectionReset.into()));
        assert_eq!(refused(&away), None);
    }
}
