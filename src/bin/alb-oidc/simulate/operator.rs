//! The operator's page: what the stand-in says of itself, a switch for each misbehaviour, and new keys on demand. Each change
//! is made by a POST that no other site's page can make a browser send.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use clap::ValueEnum as _;
use maud::{Markup, html};

use super::misbehave::Misbehaviour;
use super::request::host;
use super::state::{Simulator, lock};
use crate::page;
use crate::serve::say;

pub(super) fn routes() -> Router<Arc<Simulator>> {
    let changes = Router::new().route("/rotate", post(rotate)).route("/misbehave", post(misbehave));
    Router::new().route("/", get(show)).merge(changes.layer(axum::middleware::from_fn(page::same_site)))
}

async fn show(State(simulator): State<Arc<Simulator>>, headers: HeaderMap) -> Markup {
    let options = &simulator.options;
    let kids: Vec<String> = lock(&simulator.keys).ids().collect();
    let active = lock(&simulator.misbehaviours).clone();
    let front = host(&headers).map(|host| format!("http://{}:{}/", host.host(), options.listen.port()));
    let switches = |of_the_key_server: bool| {
        let all =
            Misbehaviour::value_variants().iter().filter(move |how| how.is_of_the_key_server() == of_the_key_server);
        all.map(|how| (how.describe(), active.contains(how))).collect::<Vec<_>>()
    };
    page::layout(
        "A load balancer that is none",
        html! {
            p {
                "Browsers come to " @if let Some(front) = &front { a href=(front) { (front) } } @else { (options.listen) }
                ", signed-in requests go to " code { "http://" (options.upstream) } "."
            }
            dl {
                dt { "Signer (ARN)" } dd { code { (options.arn) } }
                dt { "Issuer" } dd { code { (options.issuer) } }
                dt { "Client id" } dd { code { (options.client) } }
                dt { "Signing key" } dd {
                    @for (at, kid) in kids.iter().enumerate() {
                        a href={ "/" (kid) } { code { (kid) } } @if at == 0 { " signs now" } br;
                    }
                }
                dt { "User pool's keys" } dd { a href={ "/" (simulator.pool()) "/.well-known/jwks.json" } { "jwks.json" } }
                dt { "Identity provider" } dd { a href="/idp/logout" { "forget who is signed in" } }
            }
            form method="post" action="/rotate" { button { "Sign with new keys" } }
            h2 { "Misbehave" }
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
                p { "Switching on what the key server does makes new keys too: the gateway fetches only those that it does not know." }
                button class="primary" { "Apply" }
            }
        },
    )
}

async fn rotate(State(simulator): State<Arc<Simulator>>) -> Response {
    let rotated = lock(&simulator.keys).rotate();
    match rotated {
        Ok(()) => {
            say(format_args!("signing with new keys"));
            Redirect::to("/").into_response()
        }
        Err(error) => page::problem(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

/// Switches on what the form names, and everything else off.
async fn misbehave(State(simulator): State<Arc<Simulator>>, Form(form): Form<Vec<(String, String)>>) -> Response {
    let wanted = form.iter().filter(|(field, _)| field == "on").map(|(_, name)| {
        Misbehaviour::from_str(name, false)
            .map_err(|_| format!("{name:?} is no misbehaviour; alb-oidc simulate --help lists them"))
    });
    let wanted: BTreeSet<_> = match wanted.collect::<Result<_, _>>() {
        Ok(wanted) => wanted,
        Err(problem) => return page::problem(StatusCode::BAD_REQUEST, &problem),
    };
    let names: Vec<_> = wanted.iter().map(|how| how.describe().0).collect();
    say(format_args!("misbehaving: {}", if names.is_empty() { "no".to_owned() } else { names.join(", ") }));
    let before = std::mem::replace(&mut *lock(&simulator.misbehaviours), wanted.clone());
    if wanted.difference(&before).any(|how| how.is_of_the_key_server()) {
        return rotate(State(simulator)).await;
    }
    Redirect::to("/").into_response()
}
