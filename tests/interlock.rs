//! The interlock on every Envoy: an RBAC filter before the router that admits a request only if the
//! filter has written the filter state `wasm.alb_oidc` on it. Without the filter, or behind it, no
//! request passes. The rows of `scenarios/` run behind the same interlock.

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use support::client::{Reply, Request, WEBSOCKET, send, send_http2, send_upgrade};
use support::envoy::{Envoy, Plugin, Setup, gateway_config, http_listener, interlock, wasm_filter};
use support::key_server::{Answer, KeyServer};
use support::token::TokenSpec;
use support::upstream::{REDIRECT_TO, Seen, Upstream};

const ANY_STATE: [&str; 3] = ["admitted", "skipped", "reported"];

/// What Envoy's RBAC filter answers.
const SHUT: (u16, &str) = (403, "RBAC: access denied");

/// A client with a spoofed identity and filter state.
const FORGED: [(&str, &str); 6] = [
    ("host", "gateway.test"),
    ("kubeflow-userid", "root@example.com"),
    ("wasm.alb_oidc", "admitted"),
    ("alb_oidc", "admitted"),
    ("x-envoy-wasm-alb_oidc", "admitted"),
    ("x-envoy-filter-state", "wasm.alb_oidc=admitted"),
];

/// One Envoy with these listeners, and a token of ann@example.com.
struct World {
    version: String,
    envoy: Envoy,
    upstream: Upstream,
    _keys: KeyServer,
    token: String,
}

/// A listener with these filters, whose route follows redirects inside Envoy.
fn listener(name: &str, filters: &[Value]) -> Value {
    let route = json!({"route": {
        "cluster": "upstream",
        "internal_redirect_policy": {"max_internal_redirects": 1},
    }});
    http_listener(name, filters, &route, json!({}))
}

fn filter(name: &str, change: Value) -> Value {
    let mut config = gateway_config();
    let members = change.as_object().cloned().unwrap_or_default();
    config.as_object_mut().expect("an object").extend(members);
    config["rules"] = json!([{"match": {"paths": [{"prefix": "/open/"}]}, "require": "none"}]);
    wasm_filter(&Plugin::new(name, config))
}

impl World {
    async fn start(binary: &Path) -> World {
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        let report = json!({"mode": "report"});
        let forward = json!({"forward": {"oidcData": true}});
        let setup = Setup {
            listeners: vec![
                listener(
                    "complete",
                    &[filter("complete", json!({})), interlock(&ANY_STATE)],
                ),
                listener(
                    "forwarding",
                    &[filter("forwarding", forward), interlock(&ANY_STATE)],
                ),
                listener(
                    "report",
                    &[filter("report", report.clone()), interlock(&ANY_STATE)],
                ),
                listener(
                    "report-shut",
                    &[
                        filter("report-shut", report),
                        interlock(&["admitted", "skipped"]),
                    ],
                ),
                listener("without-filter", &[interlock(&ANY_STATE)]),
                listener(
                    "filter-behind",
                    &[interlock(&ANY_STATE), filter("filter-behind", json!({}))],
                ),
            ],
            ..Setup::new(binary, upstream.address(), keys.address())
        };
        let signer = keys.signer(Answer::default());
        let token = TokenSpec::of("ann@example.com").mint(&signer.kid, &signer.key);
        World {
            version: support::version(binary),
            envoy: Envoy::must_start(&setup).await,
            upstream,
            _keys: keys,
            token: token.text,
        }
    }

    async fn address(&self, listener: &str) -> SocketAddr {
        self.envoy.listener(listener).await.expect("the listener")
    }

    /// A forging client's request with ann's token.
    fn signed_in(&self, path: &str, headers: &[(&str, &str)]) -> Request {
        Request::get(path, &[&self.signed_in_headers(), headers].concat())
    }

    /// As [`World::signed_in`], with gRPC.
    fn signed_in_grpc(&self) -> Request {
        Request::grpc("/package.Service/Call", &self.signed_in_headers())
    }

    fn signed_in_headers(&self) -> Vec<(&str, &str)> {
        let token = [("x-amzn-oidc-data", self.token.as_str())];
        [&FORGED[..], &token].concat()
    }

    async fn ask(&self, listener: &str, request: &Request) -> (Reply, Vec<Seen>) {
        let reply = send(self.address(listener).await, request).await;
        let reply = reply.unwrap_or_else(|error| panic!("[envoy {}] {error}", self.version));
        (reply, self.upstream.take_seen())
    }

    /// The user ids with which a request reached upstream; it must.
    async fn user_of(&self, listener: &str, request: &Request) -> Vec<String> {
        let (reply, seen) = self.ask(listener, request).await;
        assert_eq!(reply.status, 200, "[envoy {}] {}", self.version, reply.body);
        let [seen] = &seen[..] else {
            panic!("[envoy {}] {} requests upstream", self.version, seen.len());
        };
        let users = seen.header("kubeflow-userid");
        users.into_iter().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn passes_requests_that_the_filter_passed() {
    for envoy in support::envoys() {
        let world = World::start(&envoy).await;
        let anonymous = Request::get("/open/", &FORGED);
        let at = |path| world.signed_in(path, &[]);
        for (listener, request, user) in [
            ("complete", at("/"), Some("ann@example.com")),
            ("complete", at("/again"), Some("ann@example.com")),
            ("complete", at("/open/"), None),
            ("complete", anonymous.clone(), None),
            ("report", at("/"), Some("ann@example.com")),
            ("report", Request::get("/", &FORGED), None),
            ("report-shut", at("/"), Some("ann@example.com")),
            ("report-shut", anonymous, None),
        ] {
            let users = world.user_of(listener, &request).await;
            let expected: Vec<_> = user.into_iter().collect();
            assert_eq!(
                users, expected,
                "[envoy {}] {listener} {}",
                world.version, request.path
            );
        }
        let upgrade = world.signed_in("/socket", &WEBSOCKET);
        let (reply, _) = send_upgrade(world.address("complete").await, &upgrade)
            .await
            .expect("an answer");
        assert_eq!(
            reply.status, 101,
            "[envoy {}] {}",
            world.version, reply.body
        );
        assert_eq!(world.upstream.seen_at("/socket"), ["ann@example.com"]);
        let call = world.signed_in_grpc();
        send_http2(world.address("complete").await, &call, &[])
            .await
            .expect("an answer");
        assert_eq!(
            world.upstream.seen_at("/package.Service/Call"),
            ["ann@example.com"]
        );
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn denies_requests_that_the_filter_did_not_see() {
    for envoy in support::envoys() {
        let world = World::start(&envoy).await;
        for listener in ["without-filter", "filter-behind"] {
            let what = format!("[envoy {}] {listener}", world.version);
            for request in [
                Request::get("/", &FORGED),
                Request::get("/open/", &FORGED),
                world.signed_in("/", &[]),
            ] {
                let (reply, seen) = world.ask(listener, &request).await;
                assert_eq!((reply.status, reply.body.as_str()), SHUT, "{what}");
                assert_eq!(seen.len(), 0, "{what}: requests upstream");
            }
            let address = world.address(listener).await;
            let reply = send_http2(address, &world.signed_in("/", &[]), &[]).await;
            assert_eq!(reply.expect("an answer").status, 403, "{what} HTTP/2");
            let call = world.signed_in_grpc();
            let reply = send_http2(address, &call, &[]).await.expect("an answer");
            assert_eq!(reply.header("grpc-status"), ["7"], "{what} gRPC");
            let upgrade = world.signed_in("/", &WEBSOCKET);
            let (reply, _) = send_upgrade(address, &upgrade).await.expect("an answer");
            assert_eq!(reply.status, 403, "{what} WebSocket");
            assert_eq!(
                world.upstream.take_seen().len(),
                0,
                "{what}: requests upstream"
            );
        }
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn denies_reported_requests_unless_it_lists_them() {
    for envoy in support::envoys() {
        let world = World::start(&envoy).await;
        let (reply, seen) = world.ask("report-shut", &Request::get("/", &FORGED)).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            SHUT,
            "[envoy {}]",
            world.version
        );
        assert_eq!(seen.len(), 0, "[envoy {}] requests upstream", world.version);
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn demands_the_filter_again_after_an_internal_redirect() {
    for envoy in support::envoys() {
        let world = World::start(&envoy).await;
        // Envoy follows absolute addresses only.
        let redirect = |to: &str| {
            let to = format!("http://gateway.test{to}");
            world.signed_in("/redirect", &[(REDIRECT_TO, to.as_str())])
        };
        let users = |seen: &[Seen]| -> Vec<(String, String)> {
            seen.iter()
                .map(|seen| (seen.path.clone(), seen.header("kubeflow-userid").join(",")))
                .collect()
        };
        let ann = |path: &str| (path.to_owned(), "ann@example.com".to_owned());

        // The first pass removed the token, so that the second one finds none.
        let (reply, seen) = world.ask("complete", &redirect("/next")).await;
        assert_eq!(
            reply.status, 401,
            "[envoy {}] {}",
            world.version, reply.body
        );
        assert!(reply.body.contains("token-missing"), "{}", reply.body);
        assert_eq!(
            users(&seen),
            [ann("/redirect")],
            "[envoy {}]",
            world.version
        );

        // Nor does the user id of the first pass survive where no token is needed.
        let (reply, seen) = world.ask("complete", &redirect("/open/")).await;
        assert_eq!(
            reply.status, 200,
            "[envoy {}] {}",
            world.version, reply.body
        );
        let anonymous = ("/open/".to_owned(), String::new());
        assert_eq!(
            users(&seen),
            [ann("/redirect"), anonymous],
            "[envoy {}]",
            world.version
        );

        let (reply, seen) = world.ask("forwarding", &redirect("/next")).await;
        assert_eq!(
            reply.status, 200,
            "[envoy {}] {}",
            world.version, reply.body
        );
        assert_eq!(
            users(&seen),
            [ann("/redirect"), ann("/next")],
            "[envoy {}]",
            world.version
        );
        world.envoy.stop().await;
    }
}
