//! The control page: the simulator's settings, a switch for each misbehaviour, and key rotation. A
//! page of another site cannot make changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use clap::ValueEnum as _;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::misbehave::Misbehaviour;
use super::request::host;
use super::state::{Simulator, lock};
use crate::page;
use crate::serve::log;

pub(super) fn routes() -> Router<Arc<Simulator>> {
    let changes = Router::new()
        .route("/rotate", post(rotate))
        .route("/misbehave", post(misbehave));
    Router::new()
        .route("/", get(show))
        .merge(changes.layer(axum::middleware::from_fn(page::same_site)))
}

/// The change that the page confirms. The redirect after a change carries it.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Done {
    Rotated,
    Applied,
    AppliedAndRotated,
}

#[derive(Deserialize, Serialize)]
struct Confirmation {
    done: Option<Done>,
}

async fn show(
    State(simulator): State<Arc<Simulator>>,
    Query(Confirmation { done }): Query<Confirmation>,
    headers: HeaderMap,
) -> Markup {
    let options = &simulator.options;
    let kids: Vec<String> = lock(&simulator.keys).ids().collect();
    let active = lock(&simulator.misbehaviours).clone();
    let front =
        host(&headers).map(|host| format!("http://{}:{}/", host.host(), options.listen.port()));
    let switches = |of_the_key_server: bool| {
        let all = Misbehaviour::value_variants()
            .iter()
            .filter(move |how| how.is_of_the_key_server() == of_the_key_server);
        all.map(|how| (how.describe(), active.contains(how)))
            .collect::<Vec<_>>()
    };
    page::layout(
        "Simulated load balancer",
        html! {
            @if let Some(done) = done { p role="status" { (confirm(done, &active)) } }
            @if !active.is_empty() {
                p role="alert" { "Misbehaviours are on: " (names(&active)) ". Requests may be denied because of them." }
            }
            p {
                "Browsers connect to " @if let Some(front) = &front { a href=(front) { (front) } } @else { (options.listen) }
                ". Requests of signed-in users are forwarded to " code { "http://" (options.upstream) } "."
            }
            dl {
                dt { "Signer (ARN)" } dd { code { (options.arn) } }
                dt { "Issuer" } dd { code { (options.issuer) } }
                dt { "Client id" } dd { code { (options.client) } }
                dt { "Signing keys" } dd {
                    @for (at, kid) in kids.iter().enumerate() {
                        a href={ "/" (kid) } { code { (kid) } } @if at == 0 { " (current)" } br;
                    }
                }
                dt { "Keys of the user pool" } dd { a href={ "/" (simulator.pool()) "/.well-known/jwks.json" } { "jwks.json" } }
                dt { "Identity provider" } dd { a href="/idp/logout" { "sign out" } }
            }
            form method="post" action="/rotate" { button { "Rotate keys" } }
            h2 { "Misbehaviours" }
            form method="post" action="/misbehave" {
                @for (title, of_the_key_server) in [("Tokens", false), ("Key server", true)] {
                    fieldset {
                        legend { (title) }
                        @for ((name, text), on) in switches(of_the_key_server) {
                            label class="switch" {
                                input type="checkbox" name="on" value=(name) checked[on];
                                span { code { (name) } " " (text) }
                            }
                        }
                    }
                }
                p { "Switching on a misbehaviour of the key server also rotates the keys: the gateway fetches only keys that are not in its cache." }
                button class="primary" { "Apply" }
            }
        },
    )
}

/// One sentence about a change.
fn confirm(done: Done, active: &BTreeSet<Misbehaviour>) -> String {
    let applied = if active.is_empty() {
        "All misbehaviours are off".to_owned()
    } else {
        format!("On: {}. All others are off", names(active))
    };
    match done {
        Done::Rotated => "Rotated the keys: new tokens have a new key id.".to_owned(),
        Done::Applied => format!("Applied. {applied}."),
        Done::AppliedAndRotated => format!("Applied, and rotated the keys. {applied}."),
    }
}

/// The names of misbehaviours.
fn names(misbehaviours: &BTreeSet<Misbehaviour>) -> String {
    let names: Vec<_> = misbehaviours.iter().map(|how| how.describe().0).collect();
    names.join(", ")
}

/// The redirect to the page, which confirms the change.
fn show_again(done: Done) -> Response {
    let query = serde_urlencoded::to_string(Confirmation { done: Some(done) });
    Redirect::to(&format!("/?{}", query.unwrap_or_default())).into_response()
}

async fn rotate(State(simulator): State<Arc<Simulator>>) -> Response {
    rotate_then(&simulator, Done::Rotated)
}

fn rotate_then(simulator: &Simulator, done: Done) -> Response {
    let rotated = lock(&simulator.keys).rotate();
    match rotated {
        Ok(()) => {
            log(format_args!("rotated the keys"));
            show_again(done)
        }
        Err(error) => page::error(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

/// Switches on the misbehaviours that the form names, and all others off.
async fn misbehave(
    State(simulator): State<Arc<Simulator>>,
    Form(form): Form<Vec<(String, String)>>,
) -> Response {
    let wanted = form
        .iter()
        .filter(|(field, _)| field == "on")
        .map(|(_, name)| {
            Misbehaviour::from_str(name, false).map_err(|_| {
                format!("unknown misbehaviour {name:?}; alb-oidc simulate --help lists them")
            })
        });
    let wanted: BTreeSet<_> = match wanted.collect::<Result<_, _>>() {
        Ok(wanted) => wanted,
        Err(problem) => return page::error(StatusCode::BAD_REQUEST, &problem),
    };
    let logged = match wanted.is_empty() {
        true => "none".to_owned(),
        false => names(&wanted),
    };
    log(format_args!("misbehaviours: {logged}"));
    let before = std::mem::replace(&mut *lock(&simulator.misbehaviours), wanted.clone());
    if wanted
        .difference(&before)
        .any(|how| how.is_of_the_key_server())
    {
        return rotate_then(&simulator, Done::AppliedAndRotated);
    }
    show_again(Done::Applied)
}
