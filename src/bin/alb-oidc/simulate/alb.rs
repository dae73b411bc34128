//! The load balancer as browsers see it: who has no session is sent to the identity provider and comes back with one; who has
//! one is passed on to the gateway. Knows nothing of users but what the identity provider says.

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
use super::request::{cookie, host};
use super::session::{alb_cookie, cookies, read, set};
use super::state::{Simulator, lock, now};
use crate::page;
use crate::serve::say;

/// Where the identity provider sends browsers back to: the one path that the ALB keeps for itself.
const CALLBACK: &str = "/oauth2/idpresponse";
/// Ties a sign-in to the browser that began it.
const NONCE: &str = "AWSALBAuthNonce";
/// How long a user may take to sign in. The ALB's own limit is 15 minutes.
const PATIENCE: u64 = 15 * 60;
/// Over this many bytes of claims and access token, the ALB gives up.
const MAX_SESSION_BYTES: usize = 11 * 1024;

/// A sign-in that has begun, sealed into `state`: nobody but the load balancer can say where it ends.
#[derive(Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) redirect_uri: String,
    original: String,
    nonce: String,
    expires: u64,
}

impl Pending {
    /// The sign-in that `state` is about, if it may go on.
    pub(super) fn open(simulator: &Simulator, state: &str) -> Option<Self> {
        let pending: Self = simulator.seal.open("state", state)?;
        (now() < pending.expires).then_some(pending)
    }
}

#[derive(Deserialize)]
struct Callback {
    code: String,
    state: String,
}

/// A status, and what is wrong.
type Problem = (StatusCode, &'static str);

pub(super) fn routes(simulator: Arc<Simulator>) -> Router {
    Router::new().fallback(logged).with_state(simulator)
}

/// Answers and writes one line about it: no query, which has codes in it, and no header.
async fn logged(
    State(simulator): State<Arc<Simulator>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (user, response) = answer(&simulator, peer, request).await;
    say(format_args!("{method} {path} {} {}", response.status().as_u16(), user.as_deref().unwrap_or("-")));
    response
}

async fn answer(simulator: &Simulator, peer: SocketAddr, request: Request) -> (Option<String>, Response) {
    let Some(host) = host(request.headers()) else {
        return (None, page::problem(StatusCode::BAD_REQUEST, "The request names no host."));
    };
    if request.uri().path() == CALLBACK {
        return (None, signed_in(simulator, &request).unwrap_or_else(|(status, text)| page::problem(status, text)));
    }
    match read(simulator, request.headers()) {
        Some(session) => {
            let response = forward(simulator, peer, &session.user, request).await;
            (Some(session.user.name), response)
        }
        None => (None, to_identity_provider(simulator, &host, &request)),
    }
}

/// Every request without a session goes there, those of scripts too: that is what an ALB does.
fn to_identity_provider(simulator: &Simulator, host: &Authority, request: &Request) -> Response {
    let nonce = cookie(request.headers(), NONCE).unwrap_or_else(|| Uuid::new_v4().to_string());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let pending = Pending {
        redirect_uri: format!("http://{host}{CALLBACK}"),
        original: format!("http://{host}{path}"),
        nonce: nonce.clone(),
        expires: now().saturating_add(PATIENCE),
    };
    let state = simulator.seal.close("state", &pending).unwrap_or_default();
    let query = [
        ("client_id", simulator.options.client.as_str()),
        ("redirect_uri", &pending.redirect_uri),
        ("response_type", "code"),
        ("scope", "openid"),
        ("state", &state),
    ];
    let query = serde_urlencoded::to_string(query).unwrap_or_default();
    let port = simulator.options.keys_listen.port();
    let mut response = redirect(&format!("http://{}:{port}/idp/authorize?{query}", host.host()));
    set(response.headers_mut(), alb_cookie(simulator, Cookie::build((NONCE, nonce))));
    response
}

/// The browser is back with a code: the code's user has a session from now on, and goes where they wanted to.
fn signed_in(simulator: &Simulator, request: &Request) -> Result<Response, Problem> {
    let refused = |text| (StatusCode::UNAUTHORIZED, text);
    let Ok(Query(Callback { code, state })) = Query::try_from_uri(request.uri()) else {
        return Err(refused("The identity provider sent no code and state."));
    };
    let pending =
        Pending::open(simulator, &state).ok_or_else(|| refused("The sign-in took too long, or began elsewhere."))?;
    if cookie(request.headers(), NONCE).as_deref() != Some(&pending.nonce) {
        return Err(refused(
            "The sign-in began in another browser, or this one keeps no cookies (see --insecure-cookies).",
        ));
    }
    let user =
        lock(&simulator.codes).remove(&code).ok_or_else(|| refused("The identity provider's code is used up."))?;
    let failed = |text| (StatusCode::INTERNAL_SERVER_ERROR, text);
    let access_token = simulator.access_token(&user).map_err(|_| failed("The access token cannot be signed."))?;
    let claims = serde_json::Value::Object(user.userinfo(&simulator.options.issuer)).to_string();
    let too_large = || failed("Claims and access token exceed 11 KiB, or four cookies: an ALB answers 500 as well.");
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
        Err(_) => page::problem(StatusCode::BAD_REQUEST, "The request's path is not ASCII."),
    }
}
