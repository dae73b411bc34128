//! The identity provider: its sign-in page, its own session, its sign-out. Asks for no password, and sends browsers nowhere
//! but where the load balancer sealed that they go, or back to the host they came from.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::uri::Uri;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use cookie::{Cookie, SameSite};
use maud::{Markup, html};
use serde::Deserialize;

use super::alb::Pending;
use super::request::{cookie, host};
use super::state::{Simulator, lock};
use super::users::User;
use crate::page;
use crate::serve::say;

/// The provider's own cookie, which signs its user in again without a question. It is not sent to the load balancer's paths.
const COOKIE: &str = "idp-session";
const PATH: &str = "/idp";

#[derive(Deserialize)]
struct Authorize {
    client_id: String,
    redirect_uri: String,
    state: String,
}

#[derive(Deserialize)]
struct SignIn {
    name: String,
    /// Typed in, together with claims; absent where a known user was chosen.
    groups: Option<String>,
    #[serde(default)]
    claims: String,
}

#[derive(Deserialize)]
struct Logout {
    logout_uri: Option<String>,
}

pub(super) fn routes() -> Router<Arc<Simulator>> {
    Router::new()
        .route("/idp/authorize", get(authorize).post(sign_in).layer(axum::middleware::from_fn(page::same_site)))
        .route("/idp/logout", get(logout))
}

impl Authorize {
    /// Only what the load balancer asked for itself goes on.
    fn check(&self, simulator: &Simulator) -> Result<(), &'static str> {
        if self.client_id != simulator.options.client {
            return Err("No such client is registered here.");
        }
        let pending = Pending::open(simulator, &self.state).ok_or("The sign-in took too long, or began elsewhere.")?;
        (pending.redirect_uri == self.redirect_uri).then_some(()).ok_or("No such redirect_uri is registered here.")
    }

    /// Back to the load balancer, with a code for this user.
    fn back(&self, simulator: &Simulator, user: User) -> Response {
        let code = lock(&simulator.codes).add(user);
        let query = serde_urlencoded::to_string([("code", code.as_str()), ("state", &self.state)]).unwrap_or_default();
        (StatusCode::SEE_OTHER, [(LOCATION, format!("{}?{query}", self.redirect_uri))]).into_response()
    }
}

async fn authorize(
    State(simulator): State<Arc<Simulator>>,
    Query(query): Query<Authorize>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    query.check(&simulator).map_err(|text| page::problem(StatusCode::BAD_REQUEST, text))?;
    let session = cookie(&headers, COOKIE);
    let user = session.and_then(|session| lock(&simulator.idp_sessions).get(&session));
    match user {
        Some(user) => Ok(query.back(&simulator, user)),
        None => Ok(sign_in_page(&simulator, None).into_response()),
    }
}

async fn sign_in(
    State(simulator): State<Arc<Simulator>>,
    Query(query): Query<Authorize>,
    Form(form): Form<SignIn>,
) -> Result<Response, Response> {
    query.check(&simulator).map_err(|text| page::problem(StatusCode::BAD_REQUEST, text))?;
    let user = match &form.groups {
        Some(groups) => User::typed(&form.name, groups, &form.claims),
        None => lock(&simulator.users)
            .named(&form.name)
            .cloned()
            .ok_or_else(|| format!("user {:?} is not known", form.name)),
    };
    let user = user.map_err(|problem| {
        (StatusCode::BAD_REQUEST, sign_in_page(&simulator, Some((&problem, &form)))).into_response()
    })?;
    if form.groups.is_some()
        && let Err(problem) = lock(&simulator.users).remember(user.clone())
    {
        say(format_args!("{problem}"));
    }
    let session = lock(&simulator.idp_sessions).add(user.clone());
    let session = Cookie::build((COOKIE, session)).path(PATH).http_only(true).same_site(SameSite::Lax);
    Ok(([(SET_COOKIE, session.to_string())], query.back(&simulator, user)).into_response())
}

fn sign_in_page(simulator: &Simulator, refused: Option<(&str, &SignIn)>) -> Markup {
    let users = lock(&simulator.users);
    let (problem, typed) = refused.unzip();
    let (name, groups, claims) =
        typed.map_or(("", "", ""), |form| (&form.name, form.groups.as_deref().unwrap_or_default(), &form.claims));
    page::layout(
        "Sign in",
        html! {
            p { "This stands in for the identity provider of the load balancer. There are no passwords: choose who you are." }
            @for user in users.known() {
                form method="post" class="user" {
                    button name="name" value=(user.name) {
                        strong { (user.name) }
                        span { @if user.groups.is_empty() { "no groups" } @else { (user.groups.join(", ")) } }
                    }
                }
            }
            h2 { "Somebody else" }
            @if let Some(problem) = problem { p role="alert" { (problem) } }
            form method="post" {
                label { "User" input name="name" required maxlength="128" placeholder="carol@example.com" value=(name); }
                label { "Groups, separated by commas" input name="groups" placeholder="data-science, admins" value=(groups); }
                label { "Extra claims, a JSON object" textarea name="claims" rows="3" placeholder="{\"name\": \"Carol\", \"email_verified\": \"false\"}" { (claims) } }
                button class="primary" { "Sign in" }
            }
        },
    )
}

/// Forgets the provider's session. The load balancer's is in its own cookies, which only its host can take back.
async fn logout(State(simulator): State<Arc<Simulator>>, Query(query): Query<Logout>, headers: HeaderMap) -> Response {
    if let Some(session) = cookie(&headers, COOKIE) {
        lock(&simulator.idp_sessions).remove(&session);
    }
    let Some(host) = host(&headers) else {
        return page::problem(StatusCode::BAD_REQUEST, "The request names no host.");
    };
    let forget = [(SET_COOKIE, Cookie::build((COOKIE, "")).path(PATH).removal().to_string())];
    match query.logout_uri {
        Some(to) if is_of(&to, host.host()) => (StatusCode::SEE_OTHER, forget, [(LOCATION, to)]).into_response(),
        Some(_) => {
            page::problem(StatusCode::BAD_REQUEST, "No such logout_uri is registered here: only URLs of this host are.")
        }
        None => {
            let again = format!("http://{}:{}/", host.host(), simulator.options.listen.port());
            let page = page::layout(
                "You are signed out",
                html! {
                    p { "The identity provider has forgotten you. Whoever comes next is asked who they are." }
                    p { a class="button" href=(again) { "Sign in again" } }
                },
            );
            (forget, page).into_response()
        }
    }
}

/// Whether `url` is a page of this host, on whatever port.
fn is_of(url: &str, host: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let is_web = matches!(url.scheme_str(), Some("http" | "https"));
    is_web && url.authority().is_some_and(|authority| !authority.as_str().contains('@') && authority.host() == host)
}
