//! The options of `alb-oidc simulate` and their defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::http::uri::{Authority, Scheme, Uri};
use clap::Args;

use super::misbehave::Misbehaviour;

const EXAMPLE: &str = "\
Example: a gateway on port 10000, and expired tokens from the start. Sign in at http://localhost:8080

  alb-oidc simulate --upstream http://127.0.0.1:10000 --users users.yaml --misbehave expired-token

The second address (--keys-listen) has three parts:
  key server         /KID and /POOL/.well-known/jwks.json, for the gateway
  identity provider  /idp/authorize and /idp/logout, for browsers
  control page       /, to switch misbehaviours on and off and to rotate the keys

From scripts:

  curl -X POST http://localhost:9000/rotate
  curl -d on=expired-token -d on=key-error http://localhost:9000/misbehave     (switches all others off)";

/// Simulate an AWS load balancer, its identity provider and its key server
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Simulate {
    /// The address of the load balancer, for browsers
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(super) listen: SocketAddr,
    /// The gateway, which receives the requests of signed-in users
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:10000", value_parser = upstream)]
    pub(super) upstream: Authority,
    /// The address of the key server, the identity provider and the control page
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    pub(super) keys_listen: SocketAddr,
    /// A name of this machine that browsers may use as Host (repeatable). Always allowed are
    /// localhost, loopback addresses and the addresses above
    #[arg(long, value_name = "NAME", value_parser = host)]
    pub(super) host: Vec<String>,
    /// The load balancer's ARN, the `signer` of its tokens
    #[arg(
        long,
        default_value = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188"
    )]
    pub(super) arn: String,
    /// The identity provider's issuer. Its last path segment is the user pool's id
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE"
    )]
    pub(super) issuer: String,
    /// The load balancer's client id at the identity provider
    #[arg(long, value_name = "ID", default_value = "1example23456789")]
    pub(super) client: String,
    /// A YAML file of sample users: a list of {name, groups, claims}. Users that sign in under a
    /// new name are added to it
    #[arg(long, value_name = "FILE")]
    pub(super) users: Option<PathBuf>,
    /// The prefix of the session cookies' names
    #[arg(long, value_name = "NAME", default_value = "AWSELBAuthSessionCookie")]
    pub(super) session_cookie: String,
    /// The lifetime of a session
    #[arg(long, value_name = "SECONDS", default_value_t = 604_800, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub(super) session_lifetime: u64,
    /// The lifetime of a token. Each request gets a new token
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) token_lifetime: u64,
    /// Omit `Secure` from the cookies. Browsers on another machine need this: they do not connect
    /// to `localhost`
    #[arg(long)]
    pub(super) insecure_cookies: bool,
    /// Start with this misbehaviour (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(super) misbehave: Vec<Misbehaviour>,
}

/// Parses a host without a port.
fn host(text: &str) -> Result<String, String> {
    let authority: Option<Authority> = text.parse().ok();
    authority
        .filter(|authority| authority.host() == text && !text.is_empty())
        .map(|_| text.to_owned())
        .ok_or_else(|| "expected a host name without a port".to_owned())
}

/// Parses an `http` URL without a path.
fn upstream(text: &str) -> Result<Authority, String> {
    let uri: Uri = text
        .parse()
        .map_err(|error| format!("{error}; expected http://HOST:PORT"))?;
    let parts = uri.into_parts();
    let bare = parts.path_and_query.is_none_or(|path| path == "/");
    match parts.authority {
        Some(authority) if bare && parts.scheme == Some(Scheme::HTTP) => Ok(authority),
        _ => Err("expected http://HOST:PORT".to_owned()),
    }
}
