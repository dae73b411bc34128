//! The routes of the two key servers: of the region's load balancers, and of the user pool. Signs
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::misbehave::Misbehaviour;
use super::state::{Simulator, lock};

/// A delay within the filter's default fetch timeout.
const SLOW: Duration = Duration::from_millis(500);
/// A delay beyond every fetch timeout.
const HANGING: Duration = Duration::from_secs(60);

pub(super) fn routes() -> Router<Arc<Simulator>> {
    Router::new()
        .route("/{kid}", get(pem))
        .route("/{pool}/.well-known/jwks.json", get(jwks))
}

async fn pem(State(simulator): State<Arc<Simulator>>, Path(kid): Path<String>) -> Response {
    let found = lock(&simulator.keys).pem(&kid);
    let found = found.map(|pem| ([(CONTENT_TYPE, "binary/octet-stream")], pem).into_response());
    published(&simulator, found).await
}

async fn jwks(State(simulator): State<Arc<Simulator>>, Path(pool): Path<String>) -> Response {
    let found =
        (pool == simulator.pool()).then(|| Json(lock(&simulator.keys).jwks()).into_response());
    published(&simulator, found).await
}

/// The response `found`, or a misbehaviour that is switched on.
async fn published(simulator: &Simulator, found: Option<Response>) -> Response {
    if simulator.misbehaves(Misbehaviour::KeySlow) {
        tokio::time::sleep(SLOW).await;
    }
    if simulator.misbehaves(Misbehaviour::KeyHang) {
        tokio::time::sleep(HANGING).await;
    }
    if simulator.misbehaves(Misbehaviour::KeyError) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if simulator.misbehaves(Misbehaviour::KeyGarbage) {
        return "<html>not a key</html>".into_response();
    }
    found
        .filter(|_| !simulator.misbehaves(Misbehaviour::KeyMissing))
        .unwrap_or(StatusCode::NOT_FOUND.into_response())
}
