//! The parties around a gateway whose configuration is a file of the repository: a key server with
//! TLS and a service. [`Parties::point`] points the configuration to them and changes nothing else.

use super::client::{Reply, Request, send, send_upgrade};
use super::key_server::{Answer, KeyServer};
use super::tls::{Authority, TlsEnd};
use super::token::{Key, TokenSpec};
use super::upstream::{Seen, Upstream};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tempfile::TempDir;

/// The key server that the configurations name.
pub const KEY_SERVER: &str = "public-keys.auth.elb.us-west-2.amazonaws.com";
/// Where their sign-out leads to.
const SIGN_OUT: &str = "https://example.auth.us-west-2.amazoncognito.com/logout";

/// The running parties, and a folder for the files of the gateway.
pub struct Parties {
    pub upstream: Upstream,
    pub keys: KeyServer,
    tls: TlsEnd,
    folder: TempDir,
}

impl Parties {
    /// Starts them. The key server has a certificate for `name`.
    pub async fn start(name: &str) -> Parties {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Parties::start_at(name, any, any).await
    }

    /// The same, with the service and the key server at these addresses.
    pub async fn start_at(name: &str, service: SocketAddr, key_server: SocketAddr) -> Parties {
        let keys = KeyServer::start().await;
        let authority = Authority::generate();
        let folder = tempfile::Builder::new()
            .prefix("alb-oidc-gateway-")
            .tempdir();
        let parties = Parties {
            upstream: Upstream::start_at(service).await,
            tls: TlsEnd::start(&authority, name, key_server, keys.address()).await,
            keys,
            folder: folder.expect("a temporary folder"),
        };
        std::fs::write(parties.file("authority.pem"), authority.pem()).expect("the authority");
        parties
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Points `value` to the parties: the module's file, the authorities' certificates, and each
    /// address. `service` is the address of the service; other addresses get any port.
    pub fn point(&self, value: &mut Value, service: (&str, u16)) {
        walk(value, &mut |object| {
            if object.contains_key("runtime") && object.contains_key("code") {
                object["code"] = json!({"local": {"filename": super::module()}});
            }
            if let Some(authority) = object.get_mut("trusted_ca") {
                authority["filename"] = json!(self.file("authority.pem"));
            }
            let Some(address) = object.get_mut("socket_address") else {
                return;
            };
            let is = |(host, port): (&str, u16)| {
                address["address"] == host && address["port_value"] == port
            };
            let place = if is(service) {
                self.upstream.address()
            } else if is((KEY_SERVER, 443)) {
                self.tls.address
            } else {
                SocketAddr::from(([127, 0, 0, 1], 0))
            };
            address["address"] = json!(place.ip().to_string());
            address["port_value"] = json!(place.port());
        });
    }

    /// A token of ann@example.com, signed with a key that the key server has.
    pub fn token(&self) -> String {
        let signer = self.keys.signer(Answer::default());
        let spec = TokenSpec::of("ann@example.com");
        spec.mint(&signer.kid, &signer.key).text
    }

    /// The same, signed with another key.
    fn forged(&self) -> String {
        let signer = self.keys.signer(Answer::default());
        let spec = TokenSpec::of("ann@example.com");
        spec.mint(&signer.kid, &Key::generate()).text
    }

    /// The answer, and the user id with which the request reached the service, if it did.
    pub async fn ask(&self, gateway: SocketAddr, request: &Request) -> (Reply, Option<String>) {
        let reply = send(gateway, request).await.expect("an answer");
        let user = |seen: &Seen| seen.header("kubeflow-userid").join(",");
        (reply, self.upstream.take_seen().first().map(user))
    }

    /// Asserts what a gateway with the filter does on `routes`; `what` names the gateway.
    pub async fn pass_core_rows(&self, gateway: SocketAddr, routes: &[&str], what: &str) {
        let (token, forged) = (self.token(), self.forged());
        let ann = Some("ann@example.com");
        let mut rows = vec![
            // Skipped: it reaches the service without the spoofed identity.
            ("/public/", None, 200, "", Some("")),
            ("/logout", Some(&token), 302, "", None),
            ("/healthz/alb", None, 200, "", None),
        ];
        for route in routes {
            rows.push((route, Some(&token), 200, "", ann));
            rows.push((route, None, 401, "token-missing", None));
            rows.push((route, Some(&forged), 401, "signature-invalid", None));
        }
        for (path, token, status, says, user) in rows {
            let request = spoofed(path, token.map(String::as_str));
            let (reply, seen) = self.ask(gateway, &request).await;
            let what = format!("{what} {path}: {}", reply.body);
            assert_eq!(reply.status, status, "{what}");
            assert!(reply.body.contains(says), "{what}");
            assert_eq!(seen.as_deref(), user, "{what}");
            let location: Vec<_> = (status == 302).then_some(SIGN_OUT).into_iter().collect();
            assert_eq!(reply.header("location"), location, "{what}");
        }
        let mut upgrade = spoofed("/socket", Some(&token));
        for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket")] {
            upgrade.headers.push((name.into(), value.into()));
        }
        let upgraded = send_upgrade(gateway, &upgrade).await.expect("an answer");
        assert_eq!(upgraded.0.status, 101, "{what}");
        let seen = self.upstream.take_seen();
        let users: Vec<_> = seen
            .iter()
            .map(|one| one.header("kubeflow-userid"))
            .collect();
        assert_eq!(users, [["ann@example.com"]], "{what}");
        assert_eq!(self.tls.names().first().expect("a fetch"), KEY_SERVER);
    }
}

/// A request with a spoofed identity, and with this token.
pub fn spoofed(path: &str, token: Option<&str>) -> Request {
    let spoofed = [
        ("host", "kubeflow.example.com"),
        ("kubeflow-userid", "root@example.com"),
    ];
    let token = token.map(|token| ("x-amzn-oidc-data", token));
    let headers: Vec<_> = spoofed.into_iter().chain(token).collect();
    Request::get(path, &headers)
}

/// Applies `edit` to each object in `value`, outer ones first.
pub fn walk(value: &mut Value, edit: &mut impl FnMut(&mut serde_json::Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            edit(members);
            members.values_mut().for_each(|member| walk(member, edit));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, edit)),
        _ => {}
    }
}
