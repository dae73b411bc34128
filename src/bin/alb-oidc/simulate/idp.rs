//! The identity provider: sign-in page, session, sign-out. Has no passwords. Redirects only to the
//! load balancer's callback, or after a sign-out to the same host.

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
use crate::serve::log;

/// The cookie of the provider's own session, with which the next sign-in needs no page. Browsers
/// send it below [`PATH`] only.
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
    /// Present for a new user, absent for a known one.
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
        .route(
            "/idp/authorize",
            get(authorize)
                .post(sign_in)
                .layer(axum::middleware::from_fn(page::same_site)),
        )
        .route("/idp/logout", get(logout))
}

impl Authorize {
    /// Rejects parameters that the load balancer did not issue.
    fn check(&self, simulator: &Simulator) -> Result<(), &'static str> {
        if self.client_id != simulator.options.client {
            return Err("Unknown client_id.");
        }
        let pending = Pending::open(simulator, &self.state)
            .ok_or("The sign-in has expired, or another load balancer started it.")?;
        (pending.redirect_uri == self.redirect_uri)
            .then_some(())
            .ok_or("Unknown redirect_uri.")
    }

    /// The redirect to the load balancer's callback, with an authorization code for `user`.
    fn redirect(&self, simulator: &Simulator, user: User) -> Response {
        let code = lock(&simulator.codes).add(user);
        let query = serde_urlencoded::to_string([("code", code.as_str()), ("state", &self.state)])
            .unwrap_or_default();
        (
            StatusCode::SEE_OTHER,
            [(LOCATION, format!("{}?{query}", self.redirect_uri))],
        )
            .into_response()
    }
}

async fn authorize(
    State(simulator): State<Arc<Simulator>>,
    Query(query): Query<Authorize>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    query
        .check(&simulator)
        .map_err(|text| page::error(StatusCode::BAD_REQUEST, text))?;
    let session = cookie(&headers, COOKIE);
    let user = session.and_then(|session| lock(&simulator.idp_sessions).get(&session));
    match user {
        Some(user) => Ok(query.redirect(&simulator, user)),
        None => Ok(sign_in_page(&simulator, None).into_response()),
    }
}

async fn sign_in(
    State(simulator): State<Arc<Simulator>>,
    Query(query): Query<Authorize>,
    Form(form): Form<SignIn>,
) -> Result<Response, Response> {
    query
        .check(&simulator)
        .map_err(|text| page::error(StatusCode::BAD_REQUEST, text))?;
    let user = match &form.groups {
        Some(groups) => User::typed(&form.name, groups, &form.claims),
        None => lock(&simulator.users)
            .named(&form.name)
            .cloned()
            .ok_or_else(|| format!("unknown user {:?}", form.name)),
    };
    let user = user.map_err(|problem| {
        (
            StatusCode::BAD_REQUEST,
            sign_in_page(&simulator, Some((&problem, &form))),
        )
            .into_response()
    })?;
    if form.groups.is_some()
        && let Err(problem) = lock(&simulator.users).add(user.clone())
    {
        log(format_args!("{problem}"));
    }
    let session = lock(&simulator.idp_sessions).add(user.clone());
    let session = Cookie::build((COOKIE, session))
        .path(PATH)
        .http_only(true)
        .same_site(SameSite::Lax);
    Ok((
        [(SET_COOKIE, session.to_string())],
        query.redirect(&simulator, user),
    )
        .into_response())
}

fn sign_in_page(simulator: &Simulator, rejected: Option<(&str, &SignIn)>) -> Markup {
    let users = lock(&simulator.users);
    let (problem, typed) = rejected.unzip();
    let (name, groups, claims) = typed.map_or(("", "", ""), |form| {
        (
            &form.name,
            form.groups.as_deref().unwrap_or_default(),
            &form.claims,
        )
    });
    page::layout(
        "Sign in",
        html! {
            p { "This is the simulated identity provider of the load balancer. There are no passwords: choose a user." }
            @for user in users.known() {
                form method="post" class="user" {
                    button name="name" value=(user.name) {
                        strong { (user.name) }
                        span { @if user.groups.is_empty() { "no groups" } @else { (user.groups.join(", ")) } }
                    }
                }
            }
            h2 { "Another user" }
            @if let Some(problem) = problem { p role="alert" { (problem) } }
            form method="post" {
                label { "User" input name="name" required maxlength="128" placeholder="carol@example.com" value=(name); }
                label { "Groups (comma-separated)" input name="groups" placeholder="data-science, admins" value=(groups); }
                label { "Extra claims (a JSON object)" textarea name="claims" rows="3" placeholder="{\"name\": \"Carol\", \"email_verified\": \"false\"}" { (claims) } }
                button class="primary" { "Sign in" }
            }
        },
    )
}

/// Ends the provider's session. The load balancer's session is in its own cookies, which only its
/// host can delete.
async fn logout(
    State(simulator): State<Arc<Simulator>>,
    Query(query): Query<Logout>,
    headers: HeaderMap,
) -> Response {
    if let Some(session) = cookie(&headers, COOKIE) {
        lock(&simulator.idp_sessions).remove(&session);
    }
    let Some(host) = host(&headers) else {
        return page::error(
            StatusCode::BAD_REQUEST,
            "The request has no valid Host header.",
        );
    };
    let delete_cookie = [(
        SET_COOKIE,
        Cookie::build((COOKIE, "")).path(PATH).removal().to_string(),
    )];
    match query.logout_uri {
        Some(to) if is_on_host(&to, host.host()) => {
            (StatusCode::SEE_OTHER, delete_cookie, [(LOCATION, to)]).into_response()
        }
        Some(_) => page::error(
            StatusCode::BAD_REQUEST,
            "Unknown logout_uri: expected a URL of this host.",
        ),
        None => {
            let again = format!(
                "http://{}:{}/",
                host.host(),
                simulator.options.listen.port()
            );
            let page = page::layout(
                "You are signed out",
                html! {
                    p { "Your session at the identity provider has ended. The next sign-in asks for a user." }
                    p { a class="button" href=(again) { "Sign in again" } }
                },
            );
            (delete_cookie, page).into_response()
        }
    }
}

/// Whether `url` is of this host, at any port.
fn is_on_host(url: &str, host: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else {
        return false;
    };
    let is_web = matches!(url.scheme_str(), Some("http" | "https"));
    is_web
        && url
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@') && authority.host() == host)
}
