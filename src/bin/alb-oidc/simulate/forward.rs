//! Forwards a request of a signed-in user to the gateway, with the load balancer's headers. Streams
//! bodies and upgraded connections. Reads no session.

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
use crate::serve::log;

/// Hop-by-hop headers (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Forwards the request with a token of `user`.
pub(super) async fn forward(
    simulator: &Simulator,
    peer: SocketAddr,
    user: &User,
    mut request: Request,
) -> Response {
    let from_client = take_upgrade(&mut request);
    let path = request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"));
    let target = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(simulator.options.upstream.clone());
    match target.path_and_query(path).build() {
        Ok(target) => *request.uri_mut() = target,
        Err(error) => return page::error(StatusCode::BAD_REQUEST, &error.to_string()),
    }
    if let Err(error) = add_headers(simulator, peer.ip(), user, request.headers_mut()) {
        return page::error(StatusCode::INTERNAL_SERVER_ERROR, &error);
    }
    let mut response = match simulator.gateway.request(request).await {
        Ok(response) => response,
        Err(error) => {
            log(format_args!(
                "no answer from {}: {error}",
                simulator.options.upstream
            ));
            return page::error(StatusCode::BAD_GATEWAY, "The gateway does not answer.");
        }
    };
    let to_gateway = (response.status() == StatusCode::SWITCHING_PROTOCOLS)
        .then(|| hyper::upgrade::on(&mut response));
    match (from_client, to_gateway) {
        (Some((_, from_client)), Some(to_gateway)) => {
            drop(tokio::spawn(join(from_client, to_gateway)))
        }
        _ => remove_hop_by_hop(response.headers_mut()),
    }
    response.map(Body::new)
}

/// The protocol of a requested upgrade, and the client's connection after it. The forwarded request
/// asks for the same upgrade.
fn take_upgrade(request: &mut Request) -> Option<(HeaderValue, OnUpgrade)> {
    let asks =
        values(request.headers(), &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let protocol = request.headers().get(UPGRADE).cloned().filter(|_| asks);
    remove_hop_by_hop(request.headers_mut());
    let protocol = protocol?;
    request
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers_mut().insert(UPGRADE, protocol.clone());
    Some((protocol, hyper::upgrade::on(request)))
}

/// Copies bytes between the two ends of an upgraded connection until one closes it.
async fn join(from_client: OnUpgrade, to_gateway: OnUpgrade) {
    if let (Ok(client), Ok(gateway)) = tokio::join!(from_client, to_gateway) {
        let (mut client, mut gateway) = (TokioIo::new(client), TokioIo::new(gateway));
        // Both ends see for themselves how the connection ends.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut gateway).await;
    }
}

/// Adds the load balancer's headers. Forwards all other headers of the client, identity headers
/// included: an ALB strips none.
fn add_headers(
    simulator: &Simulator,
    peer: IpAddr,
    user: &User,
    headers: &mut HeaderMap,
) -> Result<(), String> {
    let before: Vec<_> = values(headers, &HeaderName::from_static("x-forwarded-for"))
        .map(str::to_owned)
        .collect();
    let chain = before
        .into_iter()
        .chain([peer.to_string()])
        .collect::<Vec<_>>()
        .join(", ");
    let own = [
        ("x-forwarded-for", chain),
        ("x-forwarded-proto", "http".to_owned()),
        (
            "x-forwarded-port",
            simulator.options.listen.port().to_string(),
        ),
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
        (
            "x-amzn-oidc-identity",
            user.subject(&simulator.options.issuer),
        ),
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
    value
        .try_into()
        .map_err(|error| format!("a claim is not a valid header value: {error}"))
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<_> = values(headers, &CONNECTION)
        .filter_map(|name| name.parse::<HeaderName>().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The members of a comma-separated header.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
}
