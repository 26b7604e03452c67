//! Serves the webhook that brings gates into pods ([`crate::inject::webhook`]).
//!
//! It knows nothing that its answers depend on but the question, the image it brings and what images run, so that every agent of a region can
//! serve it, whether it holds the lease or not. It changes nothing anywhere, and so asks nobody who he is: only the API server is listened to by
//! its pods.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    routing::post,
};
use leeward_api::install::WEBHOOK_PATH;
use leeward_images::inventory::Inventory;
use serde_json::Value;

use crate::inject::{
    With,
    webhook::{MAX_BYTES, review},
};

/// What answers depend on.
struct Webhook {
    image: String,
    inventory: Inventory,
}

/// The route. Gates are brought from `image`; what a writer's image runs is looked up in `inventory`.
pub fn router(image: String, inventory: Inventory) -> Router {
    Router::new()
        .route(WEBHOOK_PATH, post(inject))
        .layer(DefaultBodyLimit::max(MAX_BYTES))
        .with_state(Arc::new(Webhook { image, inventory }))
}

async fn inject(State(webhook): State<Arc<Webhook>>, body: Bytes) -> Result<Json<Value>, (StatusCode, String)> {
    let with = With {
        image: &webhook.image,
        entry: &|image| webhook.inventory.entry(image),
    };
    let answer = review(&body, &with).map_err(|error| {
        tracing::debug!(%error, "a question to the webhook was refused");
        (StatusCode::BAD_REQUEST, error.to_string())
    })?;
    if answer["response"]["allowed"] == false {
        let why = answer["response"]["status"]["message"].as_str().unwrap_or_default();
        tracing::warn!(
            why,
            "a pod asks for a gate in a way that cannot be kept, and was not let in"
        );
    }
    Ok(Json(answer))
}
