//! The options of `alb-oidc simulate`. No defaults elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::http::uri::{Authority, Scheme, Uri};
use clap::Args;

use super::misbehave::Misbehaviour;

const EXAMPLE: &str = "\
Example: sign in at http://localhost:8080, with a gateway on port 10000 and tokens that have expired from the start

  alb-oidc simulate --upstream http://127.0.0.1:10000 --users users.yaml --misbehave expired-token

The second address (--keys-listen) is for the gateway, which fetches keys there (/KID, /POOL/.well-known/jwks.json), for
browsers, which sign in there (/idp/authorize, /idp/logout), and for you: its first page has a switch for each misbehaviour
and rotates keys. The same for scripts:

  curl -X POST http://localhost:9000/rotate
  curl -d on=expired-token -d on=key-error http://localhost:9000/misbehave     (those that are not named are switched off)";

/// Stand in for the load balancer, its identity provider and its key server
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Simulate {
    /// Where browsers come: the load balancer
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(super) listen: SocketAddr,
    /// Where signed-in requests go: the gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:10000", value_parser = upstream)]
    pub(super) upstream: Authority,
    /// Where keys, the identity provider and the switches are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    pub(super) keys_listen: SocketAddr,
    /// The load balancer's ARN: the signer of its tokens
    #[arg(
        long,
        default_value = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188"
    )]
    pub(super) arn: String,
    /// The identity provider's issuer. Its last path segment is the user pool
    #[arg(long, value_name = "URL", default_value = "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE")]
    pub(super) issuer: String,
    /// The load balancer's client id at the identity provider
    #[arg(long, value_name = "ID", default_value = "1example23456789")]
    pub(super) client: String,
    /// Sample users, YAML: a list of {name, groups, claims}. Users that are typed in are added to it, if it can be written
    #[arg(long, value_name = "FILE")]
    pub(super) users: Option<PathBuf>,
    /// What the names of the session cookies begin with
    #[arg(long, value_name = "NAME", default_value = "AWSELBAuthSessionCookie")]
    pub(super) session_cookie: String,
    /// How long a session lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 604_800, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub(super) session_lifetime: u64,
    /// How long a token is good for. Each request gets a fresh one
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) token_lifetime: u64,
    /// Leave `Secure` out of the cookies, for browsers on another machine than this, which are not at `localhost`
    #[arg(long)]
    pub(super) insecure_cookies: bool,
    /// Misbehave so from the start; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(super) misbehave: Vec<Misbehaviour>,
}

/// The address of an `http` server, with nothing behind it.
fn upstream(text: &str) -> Result<Authority, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}; expected http://HOST:PORT"))?;
    let parts = uri.into_parts();
    let bare = parts.path_and_query.is_none_or(|path| path == "/");
    match parts.authority {
        Some(authority) if bare && parts.scheme == Some(Scheme::HTTP) => Ok(authority),
        _ => Err("expected http://HOST:PORT".to_owned()),
    }
}
