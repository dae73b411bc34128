//! `alb-oidc simulate`: stands in for the load balancer, the identity provider and the key server, so that sign-in can be
//! tried without AWS. Two listeners: what browsers talk to, and everything that is elsewhere in the real world. Here is
//! what the two share, and nothing of what either answers.

mod alb;
mod forward;
mod idp;
mod keys;
mod misbehave;
mod operator;
mod session;
mod users;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alb_oidc_filter::Config;
use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::http::uri::{Authority, Scheme, Uri};
use clap::Args;
use serde_json::json;

use crate::clock;
use crate::input::Trouble;
use crate::serve::{self, Listener, say};
use forward::Upstream;
use keys::Keys;
use misbehave::Misbehaviour;
use session::Seal;
use users::Users;

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
    listen: SocketAddr,
    /// Where signed-in requests go: the gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:10000", value_parser = upstream)]
    upstream: Authority,
    /// Where keys, the identity provider and the switches are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    keys_listen: SocketAddr,
    /// The load balancer's ARN: the signer of its tokens
    #[arg(
        long,
        default_value = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188"
    )]
    arn: String,
    /// The identity provider's issuer. Its last path segment is the user pool
    #[arg(long, value_name = "URL", default_value = "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE")]
    issuer: String,
    /// The load balancer's client id at the identity provider
    #[arg(long, value_name = "ID", default_value = "1example23456789")]
    client: String,
    /// Sample users, YAML: a list of {name, groups, claims}. Users that are typed in are added to it, if it can be written
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// What the names of the session cookies begin with
    #[arg(long, value_name = "NAME", default_value = "AWSELBAuthSessionCookie")]
    session_cookie: String,
    /// How long a session lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 604_800, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    session_lifetime: u64,
    /// How long a token is good for. Each request gets a fresh one
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    token_lifetime: u64,
    /// Leave `Secure` out of the cookies, for browsers on another machine than this, which are not at `localhost`
    #[arg(long)]
    insecure_cookies: bool,
    /// Misbehave so from the start; may be given more than once
    #[arg(long, value_name = "NAME")]
    misbehave: Vec<Misbehaviour>,
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

/// What both listeners know.
struct Simulator {
    options: Simulate,
    seal: Seal,
    keys: Mutex<Keys>,
    misbehaviours: Mutex<BTreeSet<Misbehaviour>>,
    users: Mutex<Users>,
    idp: idp::Sessions,
    upstream: Upstream,
}

impl Simulator {
    fn new(mut options: Simulate) -> Result<Self, Trouble> {
        // What no gateway would believe is wrong here too.
        let config = json!({
            "loadBalancers": [{"arn": options.arn, "issuer": options.issuer, "clientId": options.client}],
            "publicKeys": {"endpoint": "http://localhost"},
            "logout": {"sessionCookie": options.session_cookie},
        });
        Config::from_value(&config)
            .map_err(|mistakes| Trouble(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        let misbehaviours = Mutex::new(std::mem::take(&mut options.misbehave).into_iter().collect());
        Ok(Self {
            seal: Seal::new().map_err(Trouble)?,
            keys: Mutex::new(Keys::generate().map_err(Trouble)?),
            users: Mutex::new(Users::read(options.users.clone()).map_err(Trouble)?),
            idp: idp::Sessions::default(),
            upstream: Upstream::at(options.upstream.clone()),
            misbehaviours,
            options,
        })
    }

    fn misbehaves(&self, how: Misbehaviour) -> bool {
        lock(&self.misbehaviours).contains(&how)
    }

    /// The last path segment of the issuer: Cognito's name for the user pool.
    fn pool(&self) -> &str {
        self.options.issuer.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }
}

impl Simulate {
    /// Serves both listeners until told to stop.
    pub(crate) fn run(mut self) -> Result<ExitCode, Trouble> {
        serve::run(async {
            let alb = Listener::bind(self.listen).await?;
            let elsewhere = Listener::bind(self.keys_listen).await?;
            // Port 0 is any that is free: from here on the one that it became.
            (self.listen, self.keys_listen) = (alb.address(), elsewhere.address());
            let simulator = Arc::new(Simulator::new(self)?);
            say(format_args!("sign in at http://{}", browsable(alb.address())));
            say(format_args!("keys, identity provider and switches at http://{}", browsable(elsewhere.address())));
            let pages = Router::new().merge(keys::routes()).merge(idp::routes()).merge(operator::routes());
            let pages = pages.with_state(Arc::clone(&simulator));
            tokio::try_join!(alb.serve(alb::routes(simulator)), elsewhere.serve(pages))?;
            Ok(())
        })
    }
}

/// How a browser on this machine writes the address. Browsers keep `Secure` cookies of plain HTTP for `localhost`.
fn browsable(address: SocketAddr) -> String {
    let here = address.ip().is_loopback() || address.ip().is_unspecified();
    if here { format!("localhost:{}", address.port()) } else { address.to_string() }
}

/// The host and port that the browser asked; `None` if it named none that is one.
fn host(headers: &HeaderMap) -> Option<Authority> {
    let authority: Authority = headers.get(HOST)?.to_str().ok()?.parse().ok()?;
    (!authority.as_str().contains('@')).then_some(authority)
}

/// What is behind the lock, even if a thread panicked with it: each change to it is made at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since the epoch.
fn now() -> u64 {
    clock::seconds().unwrap_or_default()
}
