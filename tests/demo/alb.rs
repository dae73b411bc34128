//! A stand-in for the Application Load Balancer: signs users in without asking for a password, and signs each request of
//! theirs as the ALB does. Like the ALB, it passes on every other header that a client sends.

use super::support::client::{self, to_text};
use super::support::server::{Broken, Server, full};
use super::support::token::{Key, TokenSpec};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::net::SocketAddr;
use std::sync::Arc;

/// The cookie that holds a session. The ALB encrypts it; here it is the user's email address.
const SESSION: &str = "AWSELBAuthSessionCookie-0";

/// A running load balancer.
pub(crate) struct Alb {
    server: Server,
}

struct Signer {
    gateway: SocketAddr,
    kid: String,
    key: Key,
}

impl Alb {
    /// Starts one in front of `gateway` that signs with this key.
    pub(crate) async fn start(gateway: SocketAddr, kid: &str, key: &Key) -> Alb {
        let signer = Arc::new(Signer { gateway, kid: kid.into(), key: key.clone() });
        Alb { server: Server::start(move |request| forward(Arc::clone(&signer), request)).await }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }
}

async fn forward(
    signer: Arc<Signer>,
    request: Request<Incoming>,
) -> Result<Response<super::support::server::Body>, Broken> {
    let (head, body) = request.into_parts();
    // `?sign-in=EMAIL` takes the place of the identity provider's page.
    if let Some(email) = head.uri.query().and_then(|query| query.strip_prefix("sign-in=")) {
        let cookie = format!("{SESSION}={email}; Path=/; Secure; HttpOnly");
        let answer = Response::builder().status(302).header("location", head.uri.path()).header("set-cookie", cookie);
        return Ok(answer.body(full(""))?);
    }
    let mut headers: Vec<(String, String)> =
        head.headers.iter().map(|(name, value)| (name.to_string(), to_text(value.as_bytes()))).collect();
    let cookies = headers.iter().filter(|(name, _)| name == "cookie").flat_map(|(_, value)| value.split("; "));
    let session = cookies.filter_map(|cookie| cookie.split_once('=')).find(|(name, _)| *name == SESSION);
    let Some((_, email)) = session else {
        return Ok(Response::builder().status(401).body(full("sign in with ?sign-in=EMAIL\n"))?);
    };
    let token = TokenSpec::of(email).mint(&signer.kid, &signer.key).text;
    headers.retain(|(name, _)| !name.starts_with("x-amzn-oidc-"));
    let of_alb = [
        ("x-amzn-oidc-data", token.as_str()),
        ("x-amzn-oidc-identity", "7f3c1c1e-5d0a-4a0e-9a53-0a3f1f7f2b11"),
        ("x-amzn-oidc-accesstoken", "opaque"),
        ("x-forwarded-proto", "https"),
    ];
    headers.extend(of_alb.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let body = to_text(&body.collect().await?.to_bytes());
    let request = client::Request { method: head.method.to_string(), path: head.uri.to_string(), headers, body };
    let reply = client::send(signer.gateway, &request).await?;
    let mut answer = Response::builder().status(reply.status);
    for (name, value) in reply.headers.iter().filter(|(name, _)| name != "transfer-encoding" && name != "connection") {
        answer = answer.header(name, client::to_bytes(value));
    }
    Ok(answer.body(full(client::to_bytes(&reply.body)))?)
}
