//! The mirrors of this region on the peer link. A point is taken only from the cluster that the quorum gave the role to, at exactly the epoch
//! that it gave, as far as this agent knows; who asks is known by its certificate.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::Request,
    middleware::{self, Next},
    response::Response,
};
use leeward_core::{lease::Role, name::ClusterName};
use leeward_quorum::key;
use leeward_state::volumes::target::{
    Target, http,
    right::{Rule, Sender, judge},
};

use crate::{agent::Agent, peer::PeerName};

/// Where other regions' points are received.
pub fn router(agent: Arc<Agent>, target: Arc<Target>) -> Router {
    let rule: Rule = Arc::new(move |Sender(sender), role, epoch| {
        let known = agent.known().view.get::<Role>(&key::role(role));
        judge(sender, role, epoch, known.as_ref().map(|role| &role.value))
    });
    http::router(target, rule).layer(middleware::from_fn(name))
}

async fn name(Extension(PeerName(name)): Extension<PeerName>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Sender(ClusterName::new(name)));
    next.run(request).await
}
