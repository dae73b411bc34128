//! The load balancer's routes: redirects requests without a session to the identity provider,
//! handles the callback, and forwards the other requests to the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::LOCATION;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use cookie::Cookie;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::forward::forward;
use super::hosts;
use super::request::cookie;
use super::session::{alb_cookie, cookies, read, set};
use super::state::{Simulator, lock, now};
use crate::page;
use crate::serve::log;

/// The identity provider redirects browsers to this path. The ALB does not forward it.
const CALLBACK: &str = "/oauth2/idpresponse";
/// The cookie that binds a sign-in to the browser that started it.
const NONCE: &str = "AWSALBAuthNonce";
/// The time limit of a sign-in, in seconds. The ALB has the same.
const SIGN_IN_TIMEOUT: u64 = 15 * 60;
/// The ALB's limit on the bytes of claims and access token together.
const MAX_SESSION_BYTES: usize = 11 * 1024;

/// An unfinished sign-in. `state` carries it encrypted, so that a client cannot change its redirect
/// target.
#[derive(Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) redirect_uri: String,
    original: String,
    nonce: String,
    expires: u64,
}

impl Pending {
    /// The sign-in in `state`; `None` if it has expired or this process did not start it.
    pub(super) fn open(simulator: &Simulator, state: &str) -> Option<Self> {
        let pending: Self = simulator.sealer.open("state", state)?;
        (now() < pending.expires).then_some(pending)
    }
}

#[derive(Deserialize)]
struct CallbackQuery {
    code: String,
    state: String,
}

/// A status and a message.
type Problem = (StatusCode, &'static str);

pub(super) fn routes(simulator: Arc<Simulator>) -> Router {
    Router::new().fallback(logged).with_state(simulator)
}

/// Answers, and logs one line. It has no query, which may contain a code, and no headers.
async fn logged(
    State(simulator): State<Arc<Simulator>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (user, response) = answer(&simulator, peer, request).await;
    log(format_args!(
        "{method} {path} {} {}",
        response.status().as_u16(),
        user.as_deref().unwrap_or("-")
    ));
    response
}

async fn answer(
    simulator: &Simulator,
    peer: SocketAddr,
    request: Request,
) -> (Option<String>, Response) {
    let host = match hosts::checked(&simulator.options, &request) {
        Ok(host) => host,
        Err(response) => return (None, *response),
    };
    if request.uri().path() == CALLBACK {
        return (
            None,
            callback(simulator, &request)
                .unwrap_or_else(|(status, text)| page::error(status, text)),
        );
    }
    match read(simulator, request.headers()) {
        Some(session) => {
            let response = forward(simulator, peer, &session.user, request).await;
            (Some(session.user.name), response)
        }
        None => (None, to_identity_provider(simulator, &host, &request)),
    }
}

/// The redirect to the identity provider. Every request without a session gets it, API calls
/// included, as from an ALB.
fn to_identity_provider(simulator: &Simulator, host: &Authority, request: &Request) -> Response {
    let nonce = cookie(request.headers(), NONCE).unwrap_or_else(|| Uuid::new_v4().to_string());
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let pending = Pending {
        redirect_uri: format!("http://{host}{CALLBACK}"),
        original: format!("http://{host}{path}"),
        nonce: nonce.clone(),
        expires: now().saturating_add(SIGN_IN_TIMEOUT),
    };
    let state = simulator.sealer.seal("state", &pending).unwrap_or_default();
    let query = [
        ("client_id", simulator.options.client.as_str()),
        ("redirect_uri", &pending.redirect_uri),
        ("response_type", "code"),
        ("scope", "openid"),
        ("state", &state),
    ];
    let query = serde_urlencoded::to_string(query).unwrap_or_default();
    let port = simulator.options.keys_listen.port();
    let mut response = redirect(&format!(
        "http://{}:{port}/idp/authorize?{query}",
        host.host()
    ));
    set(
        response.headers_mut(),
        alb_cookie(simulator, Cookie::build((NONCE, nonce))),
    );
    response
}

/// Starts a session for the user of the callback's code, and redirects to the original URL.
fn callback(simulator: &Simulator, request: &Request) -> Result<Response, Problem> {
    let unauthorized = |text| (StatusCode::UNAUTHORIZED, text);
    let Ok(Query(CallbackQuery { code, state })) = Query::try_from_uri(request.uri()) else {
        return Err(unauthorized("The callback has no code or no state."));
    };
    let pending = Pending::open(simulator, &state).ok_or_else(|| {
        unauthorized("The sign-in has expired, or another load balancer started it.")
    })?;
    if cookie(request.headers(), NONCE).as_deref() != Some(&pending.nonce) {
        return Err(unauthorized(
            "The sign-in started in another browser, or this browser does not store the cookies (see --insecure-cookies).",
        ));
    }
    let user = lock(&simulator.codes)
        .remove(&code)
        .ok_or_else(|| unauthorized("The authorization code is unknown or already used."))?;
    let failed = |text| (StatusCode::INTERNAL_SERVER_ERROR, text);
    let access_token = simulator
        .access_token(&user)
        .map_err(|_| failed("The access token cannot be signed."))?;
    let claims = serde_json::Value::Object(user.userinfo(&simulator.options.issuer)).to_string();
    let too_large = || {
        failed("Claims and access token exceed 11 KiB or four cookies. An ALB answers 500, too.")
    };
    if claims.len().saturating_add(access_token.len()) > MAX_SESSION_BYTES {
        return Err(too_large());
    }
    let cookies = cookies(simulator, user, request.headers()).ok_or_else(too_large)?;
    let mut response = redirect(&pending.original);
    set(response.headers_mut(), cookies);
    Ok(response)
}

fn redirect(to: &str) -> Response {
    match HeaderValue::from_str(to) {
        Ok(to) => (StatusCode::FOUND, [(LOCATION, to)]).into_response(),
        Err(_) => page::error(StatusCode::BAD_REQUEST, "The request's path is not ASCII."),
    }
}
