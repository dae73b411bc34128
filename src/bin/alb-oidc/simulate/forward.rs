//! What the load balancer does with a signed-in request: passes it on to the gateway, with its own headers. Bodies stream both
//! ways and upgraded connections are joined. Decides nothing about who is signed in.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CONNECTION, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::uri::{PathAndQuery, Scheme, Uri};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::misbehave::Misbehaviour;
use super::state::Simulator;
use super::users::User;
use crate::page;
use crate::serve::say;

/// Headers that say something of one connection only (RFC 9110, section 7.6.1).
const OF_ONE_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Passes the request on as one of `user`'s.
pub(super) async fn forward(simulator: &Simulator, peer: SocketAddr, user: &User, mut request: Request) -> Response {
    let from_client = taken_upgrade(&mut request);
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let target = Uri::builder().scheme(Scheme::HTTP).authority(simulator.options.upstream.clone());
    match target.path_and_query(path).build() {
        Ok(target) => *request.uri_mut() = target,
        Err(error) => return page::problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
    if let Err(error) = add_headers(simulator, peer.ip(), user, request.headers_mut()) {
        return page::problem(StatusCode::INTERNAL_SERVER_ERROR, &error);
    }
    let mut response = match simulator.gateway.request(request).await {
        Ok(response) => response,
        Err(error) => {
            say(format_args!("no answer from {}: {error}", simulator.options.upstream));
            return page::problem(StatusCode::BAD_GATEWAY, "The gateway does not answer.");
        }
    };
    let to_gateway = (response.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut response));
    match (from_client, to_gateway) {
        (Some((_, from_client)), Some(to_gateway)) => drop(tokio::spawn(join(from_client, to_gateway))),
        _ => remove_of_one_connection(response.headers_mut()),
    }
    response.map(Body::new)
}

/// The protocol that the client wants to change to, and its connection once it has. The request keeps asking for it.
fn taken_upgrade(request: &mut Request) -> Option<(HeaderValue, OnUpgrade)> {
    let asks = values(request.headers(), &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let protocol = request.headers().get(UPGRADE).cloned().filter(|_| asks);
    remove_of_one_connection(request.headers_mut());
    let protocol = protocol?;
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers_mut().insert(UPGRADE, protocol.clone());
    Some((protocol, hyper::upgrade::on(request)))
}

/// Lets the two ends of an upgraded connection talk until one hangs up.
async fn join(from_client: OnUpgrade, to_gateway: OnUpgrade) {
    if let (Ok(client), Ok(gateway)) = tokio::join!(from_client, to_gateway) {
        let (mut client, mut gateway) = (TokioIo::new(client), TokioIo::new(gateway));
        // How it ends is for the two ends to see.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut gateway).await;
    }
}

/// The load balancer's own headers. Whatever else a client sends goes through, identity headers included: an ALB strips none.
fn add_headers(simulator: &Simulator, peer: IpAddr, user: &User, headers: &mut HeaderMap) -> Result<(), String> {
    let before: Vec<_> = values(headers, &HeaderName::from_static("x-forwarded-for")).map(str::to_owned).collect();
    let chain = before.into_iter().chain([peer.to_string()]).collect::<Vec<_>>().join(", ");
    let own = [
        ("x-forwarded-for", chain),
        ("x-forwarded-proto", "http".to_owned()),
        ("x-forwarded-port", simulator.options.listen.port().to_string()),
    ];
    for (name, value) in own {
        headers.insert(name, header(value)?);
    }
    if simulator.misbehaves(Misbehaviour::NoToken) {
        return Ok(());
    }
    let of_user = [
        ("x-amzn-oidc-data", simulator.oidc_data(user)?),
        ("x-amzn-oidc-accesstoken", simulator.access_token(user)?),
        ("x-amzn-oidc-identity", user.subject(&simulator.options.issuer)),
    ];
    for (name, value) in of_user {
        if simulator.misbehaves(Misbehaviour::KeepClientHeaders) {
            headers.append(name, header(value)?);
        } else {
            headers.insert(name, header(value)?);
        }
    }
    Ok(())
}

fn header(value: String) -> Result<HeaderValue, String> {
    value.try_into().map_err(|error| format!("a claim that no header can hold: {error}"))
}

fn remove_of_one_connection(headers: &mut HeaderMap) {
    let named: Vec<_> = values(headers, &CONNECTION).filter_map(|name| name.parse::<HeaderName>().ok()).collect();
    for name in named.iter().chain(&OF_ONE_CONNECTION) {
        headers.remove(name);
    }
}

/// The members of a header that is a list.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty())
}
