//! Whether this cluster's Kubernetes API answers, said once when it stops and once when it answers again. Every request tells; who asked
//! tries again by itself, so that nothing else needs to be said. And how many requests there were, by what was asked for.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Method, Request, Uri};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::util::{MapFutureLayer, MapRequestLayer};

/// A cluster's API that cannot be reached as the configuration says.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path}: {reason}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no kubeconfig, and no service account.
    #[error(
        "no kubeconfig is given, and there is no service account of a pod: {0}; give `kubeconfig` in the configuration, or run it in a pod with \
         automountServiceAccountToken"
    )]
    InCluster(String),
    /// What they say cannot be used.
    #[error("the Kubernetes API cannot be used as it is configured: {0}")]
    Unusable(String),
}

impl ReachError {
    /// What is configured cannot be used.
    pub fn unusable(error: kube::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// How this cluster's API is reached: by a kubeconfig, or by the service account of the pod that this runs in.
///
/// # Errors
/// There is neither, or it cannot be used.
pub async fn config(kubeconfig: Option<&Path>) -> Result<kube::Config, ReachError> {
    let Some(path) = kubeconfig else {
        return kube::Config::incluster().map_err(|error| ReachError::InCluster(error.to_string()));
    };
    let error = |reason: String| ReachError::Kubeconfig {
        path: path.display().to_string(),
        reason,
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|e| error(e.to_string()))?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|e| error(e.to_string()))
}

/// A client that says when the API is away, and tells `reach` of every request.
///
/// # Errors
/// The configuration cannot be used.
pub fn client(config: kube::Config, reach: &Arc<Reach>) -> Result<Client, kube::Error> {
    let counted = Arc::clone(reach);
    let count = MapRequestLayer::new(move |request: Request<Body>| {
        counted.count(verb(request.method(), request.uri()), resource(request.uri().path()));
        request
    });
    let reach = Arc::clone(reach);
    let layer = MapFutureLayer::new(move |answer| {
        let (reach, began) = (Arc::clone(&reach), Instant::now());
        async move {
            let result = answer.await;
            reach.say(&result, began);
            result
        }
    });
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&layer)
        .with_layer(&count)
        .build())
}

/// What is asked for, in the words of Kubernetes' own rights.
const VERBS: [&str; 8] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];

/// The place of a request among [`VERBS`].
fn verb(method: &Method, uri: &Uri) -> usize {
    let watches = |query: &str| query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"));
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if is_collection(uri.path()) => "deletecollection",
        Method::DELETE => "delete",
        _ if uri.query().is_some_and(watches) => "watch",
        _ if is_collection(uri.path()) => "list",
        _ => "get",
    };
    VERBS.iter().position(|known| *known == verb).unwrap_or_default()
}

/// Whether a path names all objects of a kind, in a namespace or in all of them.
fn is_collection(path: &str) -> bool {
    within(path).len() == 1
}

/// What a path is about, in the words of Kubernetes' own rights: `pods`, `deployments/scale`; `-` for what is no kind's.
fn resource(path: &str) -> String {
    match within(path).as_slice() {
        [] => "-".to_owned(),
        [kind] | [kind, _] => (*kind).to_owned(),
        [kind, _, part, ..] => format!("{kind}/{part}"),
    }
}

/// The parts of a path from the kind on. What is neither in `/api/v1` nor in a group is no kind's.
fn within(path: &str) -> Vec<&str> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let rest = match parts.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => &[],
    };
    match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest.to_vec(),
        rest => rest.to_vec(),
    }
}

/// Whether requests are answered, and since when; and what was asked for.
#[derive(Debug, Default)]
pub struct Reach {
    state: Mutex<(bool, Option<Instant>)>,
    answered: AtomicBool,
    /// By verb and resource: as many as the agent's code has requests.
    requests: Mutex<BTreeMap<(usize, String), u64>>,
}

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Away,
    Back(Duration),
}

impl Reach {
    /// Whether the API has answered yet.
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether it answers now.
    pub fn answers(&self) -> bool {
        let (away, _) = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_answered() && !away
    }

    /// How many requests there were, by verb and resource.
    pub fn requests(&self) -> Vec<(&'static str, String, u64)> {
        let counts = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.iter();
        counts
            .map(|((verb, resource), count)| (VERBS[*verb], resource.clone(), *count))
            .collect()
    }

    fn count(&self, verb: usize, resource: String) {
        let mut counts = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((verb, resource)).or_default() += 1;
    }

    fn say<A, E: Display>(&self, result: &Result<A, E>, began: Instant) {
        if result.is_ok() {
            self.answered.store(true, Ordering::Relaxed);
        }
        match (self.look(result.is_ok(), began, Instant::now()), result) {
            (Some(News::Away), Err(error)) => tracing::warn!(%error, "the Kubernetes API does not answer"),
            (Some(News::Back(after)), _) => {
                tracing::info!(after_s = after.as_secs(), "the Kubernetes API answers again");
            }
            _ => {}
        }
    }

    /// A request that began before the last change says nothing of what is since: its answer may have been on its way all the time.
    fn look(&self, answered: bool, began: Instant, now: Instant) -> Option<News> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (away, since) = *state;
        if answered != away || since.is_some_and(|since| began < since) {
            return None;
        }
        *state = (!answered, Some(now));
        match (answered, since) {
            (true, Some(since)) => Some(News::Back(now.duration_since(since))),
            (true, None) => None,
            (false, _) => Some(News::Away),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_news_once() {
        let (reach, start) = (Reach::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let said: Vec<_> = [(true, 0), (false, 1), (false, 2), (true, 5), (true, 6), (false, 7)]
            .into_iter()
            .map(|(answered, seconds)| reach.look(answered, at(seconds), at(seconds)))
            .collect();
        let back = Some(News::Back(Duration::from_secs(4)));
        assert_eq!(said, [None, Some(News::Away), None, back, None, Some(News::Away)]);
    }

    #[test]
    fn a_request_is_counted_by_what_it_asks_for() {
        let verb = |method: Method, uri: &'static str| VERBS[verb(&method, &Uri::from_static(uri))];
        for (method, uri, wanted, about) in [
            (
                Method::GET,
                "/api/v1/pods?watch=true&resourceVersion=5",
                "watch",
                "pods",
            ),
            (Method::GET, "/api/v1/pods?limit=500", "list", "pods"),
            (Method::GET, "/api/v1/namespaces", "list", "namespaces"),
            (Method::GET, "/api/v1/namespaces/shop", "get", "namespaces"),
            (Method::GET, "/api/v1/namespaces/shop/pods", "list", "pods"),
            (Method::GET, "/api/v1/namespaces/shop/pods/web", "get", "pods"),
            (
                Method::GET,
                "/apis/leeward.dev/v1alpha1/clusters/west",
                "get",
                "clusters",
            ),
            (Method::GET, "/version", "get", "-"),
            (
                Method::PATCH,
                "/apis/leeward.dev/v1alpha1/clusters/west/status",
                "patch",
                "clusters/status",
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/shop/deployments/web",
                "delete",
                "deployments",
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/shop/deployments",
                "deletecollection",
                "deployments",
            ),
            (Method::POST, "/api/v1/namespaces/shop/events", "create", "events"),
        ] {
            assert_eq!(verb(method, uri), wanted, "{uri}");
            let path = Uri::from_static(uri).path().to_owned();
            assert_eq!(resource(&path), about, "{uri}");
        }
    }

    #[test]
    fn a_request_that_was_under_way_at_a_change_is_no_news_of_what_is_since() {
        let (reach, start) = (Reach::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(reach.look(false, at(0), at(2)), Some(News::Away));
        assert_eq!(reach.look(true, at(1), at(3)), None);
        assert_eq!(reach.look(true, at(4), at(5)), Some(News::Back(Duration::from_secs(3))));
        assert_eq!(reach.look(false, at(4), at(6)), None);
        assert_eq!(reach.look(false, at(7), at(8)), Some(News::Away));
    }
}
