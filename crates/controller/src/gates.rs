//! Where the gates of this region's pods ask for grants.
//!
//! Flow: the agent writes a Secret into an application's namespace ([`Gates::secret`]), which the pod mounts for its gate; with what is in
//! it the gate asks here. What is granted is decided in [`leeward_core::gates`]; here is only looked at who asks.
//!
//! The token belongs to one application in one region: it is derived from the region's own key, so nothing has to be kept, and a restarted
//! agent knows it again. Whoever has it can only ask for pods that the agent sees to be that application's.

use std::{path::Path, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    routing::post,
};
use leeward_core::{
    gates::{Asker, Granted, Refused},
    name::AppKey,
};
use leeward_gate::wire::{Answer, Ask, Closed, MAX_BYTES, Reason, VERSION};
use ring::hmac;
use serde_json::{Value, json};

use crate::{agent::Agent, cache::Cache, peer::Credentials, protected_app::workloads};

/// What the token of an application is made from, besides the key.
const PURPOSE: &str = "leeward gate v1";

/// The service.
pub struct Gates {
    agent: Arc<Agent>,
    cache: Cache,
    asked_at: String,
    credentials: Credentials,
    key: hmac::Key,
}

impl Gates {
    /// A service that gates are told to ask at `asked_at`, `HOST:PORT`. Its certificate is signed by an authority of `credentials`; tokens are derived
    /// from the file `key`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn new(
        agent: Arc<Agent>,
        cache: Cache,
        asked_at: String,
        credentials: Credentials,
        key: &Path,
    ) -> std::io::Result<Self> {
        Ok(Self {
            agent,
            cache,
            asked_at,
            credentials,
            key: hmac::Key::new(hmac::HMAC_SHA256, &std::fs::read(key)?),
        })
    }

    /// The authorities that a gate is told to trust: when they change, it has to be told anew.
    pub fn authorities(&self) -> String {
        self.credentials.authorities()
    }

    fn message(app: &AppKey) -> String {
        format!("{PURPOSE} {app}")
    }

    /// What a gate of the application has to know, as the Secret that its pod mounts.
    pub fn secret(&self, app: &AppKey) -> Value {
        let token = hex::encode(hmac::sign(&self.key, Self::message(app).as_bytes()));
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": leeward_api::gate_secret(&app.name),
                "namespace": app.namespace,
                "annotations": { "leeward.dev/about": "where the gate of this application's writer asks, and with what" },
            },
            "stringData": { "agent": self.asked_at, "ca.crt": self.authorities(), "token": token },
        })
    }

    fn may_ask(&self, app: &AppKey, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given
            .and_then(|value| value.strip_prefix("Bearer "))
            .and_then(|hex| hex::decode(hex).ok());
        token.is_some_and(|token| hmac::verify(&self.key, Self::message(app).as_bytes(), &token).is_ok())
    }

    fn decide(&self, ask: &Ask, app: &AppKey) -> Result<Granted, (Reason, String)> {
        let situation = self.agent.known().situation(app);
        let situation = situation.ok_or((Reason::NotHeld, format!("application {app} is not known here yet")))?;
        let app = &situation.app.value;
        if let Some(role) = ask.roles.iter().find(|role| app.role_keys().all(|key| key != **role)) {
            return Err((
                Reason::Invalid,
                format!("application {} has no role {}", app.key, role.role),
            ));
        }
        if !workloads::has_pod(&self.cache, app, &ask.pod) {
            let text = format!("pod {} is not one of application {}'s here", ask.pod, app.key);
            return Err((Reason::UnknownPod, text));
        }
        let asker = Asker {
            pod: &ask.pod,
            gate: &ask.gate,
            nonce: &ask.nonce,
        };
        let granted = self.agent.ask_gate(asker, &ask.roles, app.rpo);
        granted.map_err(|refused| {
            let reason = match &refused {
                Refused::NotHeld(_) => Reason::NotHeld,
                Refused::StandbyAway(_) => Reason::StandbyAway,
                Refused::AnotherGate { .. } => Reason::AnotherGate,
            };
            (reason, refused.to_string())
        })
    }
}

/// The routes.
pub fn router(gates: Arc<Gates>) -> Router {
    Router::new()
        .route("/v1/grant", post(grant))
        .route("/v1/closed", post(closed))
        .layer(DefaultBodyLimit::max(MAX_BYTES))
        .with_state(gates)
}

type Fault = (StatusCode, String);

/// The one application that the roles are of.
fn only_app<'a>(roles: impl IntoIterator<Item = &'a leeward_core::name::RoleKey>) -> Option<AppKey> {
    let mut roles = roles.into_iter();
    let app = &roles.next()?.app;
    roles.all(|role| role.app == *app).then(|| app.clone())
}

fn read<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Fault> {
    serde_json::from_slice(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("not of the grant protocol: {error}")))
}

fn denied() -> Fault {
    let text = "the token is not that of the application; the agent writes it into the application's Secret";
    (StatusCode::UNAUTHORIZED, text.into())
}

async fn grant(State(gates): State<Arc<Gates>>, headers: HeaderMap, body: Bytes) -> Result<Json<Answer>, Fault> {
    let ask: Ask = read(&body)?;
    let app = only_app(&ask.roles).ok_or((StatusCode::BAD_REQUEST, "expected roles of one application".into()))?;
    if !gates.may_ask(&app, &headers) {
        return Err(denied());
    }
    let decided = if ask.version == VERSION {
        gates.decide(&ask, &app)
    } else {
        let text = format!(
            "this agent speaks version {VERSION} of the grant protocol, the gate {}",
            ask.version
        );
        Err((Reason::Version, text))
    };
    Ok(Json(match decided {
        Ok(granted) => Answer::granted(ask, gates.agent.me.clone(), granted),
        Err((reason, text)) => Answer::refused(ask, reason, text),
    }))
}

async fn closed(State(gates): State<Arc<Gates>>, headers: HeaderMap, body: Bytes) -> Result<(), Fault> {
    let closed: Closed = read(&body)?;
    let app = only_app(&closed.roles).ok_or((StatusCode::BAD_REQUEST, "expected roles of one application".into()))?;
    if !gates.may_ask(&app, &headers) {
        return Err(denied());
    }
    gates.agent.gate_closed(&closed);
    Ok(())
}
