//! oauth2-proxy as Kubeflow ships it, behind Envoy's `ext_authz`, and an OIDC provider for it. Its
//! sessions are of a real sign-in. Measures nothing.

use super::setups::Filter;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::access_token::{AccessTokenSpec, fill_in_keys};
use support::client::{Reply, Request, send};
use support::envoy::any;
use support::server::{Body, Broken, Server, full};
use support::token::{Key, now};
use tokio::process::{Child, Command};

/// Envoy's cluster.
pub(crate) const CLUSTER: &str = "oauth2-proxy";
/// `cookie_name` in Kubeflow's configuration.
const COOKIE: &str = "oauth2_proxy_kubeflow";
const KID: &str = "dex-1";
const CLIENT: &str = "kubeflow-oidc-authservice";
/// Seconds: Dex's default lifetime of an ID token.
const LIFETIME: i64 = 24 * 3600;
/// The deadline for the start.
const START_UP: Duration = Duration::from_secs(20);
/// The redirects of a sign-in: to the provider, to the callback, to the application.
const REDIRECTS: usize = 3;
/// The gateway's host, which the provider's issuer and the redirects have.
const HOST: &str = "gateway.test";

/// A running oauth2-proxy, and its provider.
pub(crate) struct Oauth2Proxy {
    process: Child,
    pub(crate) address: SocketAddr,
    provider: Server,
    /// The bytes of the first user's session cookie, and of an ID token.
    pub(crate) sizes: Option<(usize, usize)>,
}

impl Oauth2Proxy {
    /// Starts it; `None` if it was not built. `folder` is for its files.
    pub(crate) async fn start(folder: &Path) -> Option<Oauth2Proxy> {
        let program = PathBuf::from(std::env::var_os("ALB_OIDC_OAUTH2_PROXY")?);
        let provider = Server::start(provide).await;
        // It does not report the port that the system chooses for port 0.
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = free.local_addr().expect("its number");
        drop(free);
        let file = folder.join("oauth2_proxy.cfg");
        std::fs::write(&file, configuration(provider.address)).expect("its configuration");
        let log = std::fs::File::create(folder.join("oauth2-proxy.log")).expect("its log");
        let process = Command::new(&program)
            .arg(format!("--http-address={address}"))
            .arg(format!("--config={}", file.display()))
            // As in base/deployment.yaml, with its parameters' defaults.
            .env("OAUTH2_PROXY_CLIENT_ID", CLIENT)
            .env("OAUTH2_PROXY_CLIENT_SECRET", "secret")
            .env(
                "OAUTH2_PROXY_COOKIE_SECRET",
                "0123456789abcdef0123456789abcdef",
            )
            .env("OAUTH2_PROXY_COOKIE_SECURE", "false")
            .env("OAUTH2_PROXY_SKIP_JWT_BEARER_TOKENS", "true")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("its log"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
        let ready = Request::get("/ready", &[("host", HOST)]);
        let deadline = Instant::now() + START_UP;
        while !matches!(send(address, &ready).await, Ok(reply) if reply.status == 200) {
            assert!(
                Instant::now() < deadline,
                "oauth2-proxy did not start:\n{}",
                std::fs::read_to_string(folder.join("oauth2-proxy.log")).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(Oauth2Proxy {
            process,
            address,
            provider,
            sizes: None,
        })
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id().expect("a running oauth2-proxy")
    }

    /// Signs in `count` users, and writes one header value a line into each file: the session
    /// cookie, and the ID token as a bearer token.
    pub(crate) async fn write_sessions(&mut self, count: usize, cookies: &Path, bearers: &Path) {
        let (mut all_cookies, mut all_bearers) = (String::new(), String::new());
        for user in 0..count {
            let cookie = self.sign_in(user).await;
            let token = id_token(&format!("user-{user:06}"), "");
            self.sizes.get_or_insert((cookie.len(), token.len()));
            writeln!(all_cookies, "{cookie}").expect("a string");
            writeln!(all_bearers, "Bearer {token}").expect("a string");
        }
        std::fs::write(cookies, all_cookies).expect("the cookies");
        std::fs::write(bearers, all_bearers).expect("the tokens");
    }

    /// The session's cookie after a sign-in.
    async fn sign_in(&self, user: usize) -> String {
        let mut cookies: BTreeMap<String, String> = BTreeMap::new();
        let mut location = "/oauth2/start?rd=%2F".to_owned();
        for _ in 0..REDIRECTS {
            // Both are behind the gateway, which routes by path.
            let path = location
                .strip_prefix(&format!("http://{HOST}"))
                .unwrap_or(&location);
            let (to, login) = if path.starts_with("/dex/") {
                (self.provider.address, format!("&login=user-{user:06}"))
            } else {
                (self.address, String::new())
            };
            let cookie = join(&cookies);
            let headers = [("host", HOST), ("cookie", &cookie)];
            let reply = send(to, &Request::get(&format!("{path}{login}"), &headers))
                .await
                .expect("an answer");
            for set in reply.header("set-cookie") {
                let (name, value) = set.split_once('=').expect("a cookie");
                let value = value.split(';').next().unwrap_or_default();
                if value.is_empty() {
                    cookies.remove(name);
                } else {
                    cookies.insert(name.to_owned(), value.to_owned());
                }
            }
            location = redirect(&reply).unwrap_or_else(|| panic!("{path}: {reply:?}"));
            if location == "/" {
                break;
            }
        }
        // One cookie, or several if it is too large for one.
        cookies.retain(|name, _| name.starts_with(COOKIE) && !name.contains("csrf"));
        assert!(!cookies.is_empty(), "no session after the sign-in");
        join(&cookies)
    }
}

fn join(cookies: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = cookies
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("; ")
}

fn redirect(reply: &Reply) -> Option<String> {
    let location = reply.header("location").first()?.to_string();
    (300..400).contains(&reply.status).then_some(location)
}

/// kubeflow/community-distribution, common/oauth2-proxy/base/oauth2_proxy.cfg, with another
/// provider, and without the texts and pictures of the sign-in page.
fn configuration(provider: SocketAddr) -> String {
    let issuer = issuer();
    format!(
        r#"provider = "oidc"
oidc_issuer_url = "{issuer}"
scope = "profile email groups openid"
email_domains = [ "*" ]
upstreams = [ "static://200" ]
skip_auth_routes = [
  "^/dex/",
]
api_routes = [
  "/api/",
  "/apis/",
  "^/ml_metadata",
]
skip_oidc_discovery = true
login_url = "/dex/auth"
redeem_url = "http://{provider}/dex/token"
oidc_jwks_url = "http://{provider}/dex/keys"
skip_provider_button = false
prompt = "none"
set_authorization_header = true
set_xauthrequest = true
cookie_name = "{COOKIE}"
cookie_expire = "24h"
cookie_refresh = 0
code_challenge_method = "S256"
redirect_url = "/oauth2/callback"
relative_redirect_url = true
"#
    )
}

fn issuer() -> String {
    format!("http://{HOST}/dex")
}

/// An OIDC provider as Dex: signs in everybody at once. A code is the user and the nonce.
async fn provide(
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<hyper::Response<Body>, Broken> {
    use http_body_util::BodyExt as _;
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let form = match parts.uri.query() {
        Some(query) => query.to_owned(),
        None => String::from_utf8_lossy(&body).into_owned(),
    };
    let member = |name: &str| {
        form.split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
    };
    let answer = hyper::Response::builder();
    let json = |value: String| {
        hyper::Response::builder()
            .header("content-type", "application/json")
            .body(full(value))
    };
    Ok(match parts.uri.path() {
        "/dex/auth" => answer
            .status(303)
            .header(
                "location",
                format!(
                    "/oauth2/callback?code={}.{}&state={}",
                    member("login"),
                    member("nonce"),
                    member("state")
                ),
            )
            .body(full(""))?,
        "/dex/token" => {
            let (login, nonce) = member("code").split_once('.').unwrap_or_default();
            let token = id_token(login, nonce);
            // Dex's access token is a JWT with the same claims.
            json(
                json!({"access_token": token, "token_type": "bearer", "expires_in": LIFETIME, "id_token": token})
                    .to_string(),
            )?
        }
        "/dex/keys" => json(jwks())?,
        _ => answer.status(404).body(full(""))?,
    })
}

fn jwks() -> String {
    fill_in_keys(r#"{"keys":[{key}]}"#, KID)
}

/// An ID token with Dex's claims and algorithm.
fn id_token(login: &str, nonce: &str) -> String {
    let spec = AccessTokenSpec {
        payload: json!({
            "iss": issuer(),
            "sub": format!("Cg0wLTM4NS0yODA4OS0wEgRtb2Nr{login}"),
            "aud": CLIENT,
            "iat": now(),
            "nonce": nonce,
            "at_hash": "qYcWjq8tAxzsVXtYkPGRvA",
            "c_hash": "5h7CFNqXGGKV0eMeLmGwIQ",
            "email": format!("{login}@example.com"),
            "email_verified": true,
            "groups": ["data-science", "platform"],
            "name": login,
        })
        .as_object()
        .cloned()
        .unwrap_or_default(),
        payload_without: ["client_id", "token_use", "scope", "username"]
            .map(String::from)
            .into(),
        exp: LIFETIME,
        ..AccessTokenSpec::default()
    };
    // Only forgeries are signed with the other key.
    spec.mint(KID, &Key::numbered(0))
}

/// The filters that Istio makes of Kubeflow's `envoyExtAuthzHttp` provider and of its
/// `RequestAuthentication`: components/istio-external-auth-patches and istio-external-auth. Without
/// the RBAC filters of the two `AuthorizationPolicy` resources, so that the peer does not look
/// slower than it is. Its DENY policy is here `requires`.
pub(crate) fn filters() -> Vec<Value> {
    let names = |names: &[&str]| {
        let patterns: Vec<_> = names
            .iter()
            .map(|name| json!({"exact": name, "ignore_case": true}))
            .collect();
        json!({ "patterns": patterns })
    };
    let ext_authz = json!({
        "transport_api_version": "V3",
        "allowed_headers": names(&["authorization", "cookie"]),
        "http_service": {
            "server_uri": {"uri": "http://oauth2-proxy.oauth2-proxy.svc.cluster.local", "cluster": CLUSTER, "timeout": "600s"},
            "authorization_response": {
                "allowed_upstream_headers": names(&["authorization", "path", "x-auth-request-email", "x-auth-request-groups", "x-auth-request-user"]),
                "allowed_client_headers": names(&["content-type", "set-cookie"]),
            },
        },
    });
    // Istio gives it no token cache.
    let jwt_authn = json!({
        "providers": {"dex": {
            "issuer": issuer(),
            "local_jwks": {"inline_string": jwks()},
            "forward": true,
            "claim_to_headers": [
                {"header_name": "kubeflow-userid", "claim_name": "email"},
                {"header_name": "kubeflow-groups", "claim_name": "groups"},
            ],
        }},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "dex"}}],
    });
    vec![
        json!({"name": "ext_authz", "typed_config": any("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", ext_authz)}),
        json!({"name": "jwt_authn", "typed_config": any("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", jwt_authn)}),
    ]
}

/// Checks that a listener answers a request with this session, and no request without one.
pub(crate) async fn check(listener: SocketAddr, filter: Filter, session: &str) {
    let header = filter.header();
    for (value, passes) in [(session, true), ("none", false)] {
        let request = Request::get("/", &[("host", HOST), (header, value)]);
        let reply = send(listener, &request).await.expect("an answer");
        assert_eq!(reply.status == 200, passes, "{header}: {value}: {reply:?}");
    }
}
