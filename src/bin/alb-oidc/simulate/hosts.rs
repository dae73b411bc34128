//! The check of the Host header. Against DNS rebinding: a page of another site whose name resolves
//! to this machine has a Host of its own.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::Response;

use super::options::Simulate;
use super::request::host;
use super::state::Simulator;
use crate::page;

/// Rejects a request with a Host that is not this machine's.
pub(super) async fn check(
    State(simulator): State<Arc<Simulator>>,
    request: Request,
    next: Next,
) -> Response {
    match checked(&simulator.options, &request) {
        Ok(_) => next.run(request).await,
        Err(response) => *response,
    }
}

/// The Host of `request`.
///
/// # Errors
/// The answer to a request whose Host is invalid or not this machine's.
pub(super) fn checked(options: &Simulate, request: &Request) -> Result<Authority, Box<Response>> {
    let Some(host) = host(request.headers()) else {
        return Err(Box::new(page::error(
            StatusCode::BAD_REQUEST,
            "The request has no valid Host header.",
        )));
    };
    if is_own(options, host.host()) {
        return Ok(host);
    }
    let name = host.host();
    Err(Box::new(page::error(
        StatusCode::MISDIRECTED_REQUEST,
        &format!(
            "The Host {name} is neither localhost nor a loopback address. To use it, start alb-oidc simulate with --host {name}."
        ),
    )))
}

/// Whether `name` is `localhost`, a loopback address, an address that the simulator listens on, or
/// a name of `--host`.
fn is_own(options: &Simulate, name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        let address = address.to_canonical();
        let listens = [options.listen, options.keys_listen];
        let listens = listens.map(|listen| listen.ip().to_canonical());
        // Loopback addresses and those of `--listen` need no `--host`.
        if address.is_loopback() || (!address.is_unspecified() && listens.contains(&address)) {
            return true;
        }
    }
    name.eq_ignore_ascii_case("localhost")
        || options
            .host
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name))
}
