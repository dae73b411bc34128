//! HTTP/2, trailers, gRPC, WebSockets and CORS, on every Envoy: the filter handles them like plain
//! HTTP/1.1 requests.

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use support::client::{Reply, Request, WEBSOCKET, send, send_http2, send_raw, send_upgrade};
use support::envoy::{Envoy, Plugin, Setup, any, gateway_config, http_listener, wasm_filter};
use support::key_server::{Answer, KeyServer};
use support::token::{Key, TokenSpec};
use support::upstream::{ANSWER_BYTES, Seen, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A gateway, and a user with a token. The gateway has no key yet, so the first request waits.
struct World {
    version: String,
    envoy: Envoy,
    gateway: SocketAddr,
    upstream: Upstream,
    _keys: KeyServer,
    token: String,
}

impl World {
    async fn start(binary: &Path) -> World {
        World::of(binary, gateway_config()).await
    }

    async fn of(binary: &Path, config: Value) -> World {
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        let setup = Setup {
            plugins: vec![Plugin::new("gateway", config)],
            ..Setup::new(binary, upstream.address(), keys.address())
        };
        let envoy = Envoy::must_start(&setup).await;
        let gateway = envoy.listener("gateway").await.expect("the listener");
        let (kid, key) = (uuid::Uuid::new_v4().to_string(), Key::generate());
        keys.publish(&format!("/{kid}"), &key, Answer::default());
        let token = TokenSpec::of("ann@example.com").mint(&kid, &key).text;
        World {
            version: support::version(binary),
            envoy,
            gateway,
            upstream,
            _keys: keys,
            token,
        }
    }

    /// A request of the user, with these additional headers.
    fn request(&self, headers: &[(&str, &str)]) -> Request {
        let genuine = [
            ("host", "gateway.test"),
            ("x-amzn-oidc-data", self.token.as_str()),
        ];
        Request::get("/", &[&genuine[..], headers].concat())
    }

    /// Asks for an upgrade that upstream rejects, followed by a second request.
    async fn send_two(&self, upgrade: &str) -> Result<Reply, String> {
        let first = format!(
            "GET /first HTTP/1.1\r\nhost: gateway.test\r\nx-amzn-oidc-data: {}\r\nconnection: Upgrade\r\nupgrade: {upgrade}\r\n\
             {ANSWER_BYTES}: 1\r\n\r\n",
            self.token
        );
        let second = "GET /second HTTP/1.1\r\nhost: gateway.test\r\nkubeflow-userid: root@example.com\r\n\r\n";
        let answer = tokio::time::timeout(
            Duration::from_secs(2),
            send_raw(self.gateway, &[&first, second].concat()),
        )
        .await;
        answer.unwrap_or_else(|_| Err("no whole answer in time".to_owned()))
    }

    /// The path and user id of each request that arrived upstream.
    fn arrived_at(&self) -> Vec<(String, String)> {
        let seen = self.upstream.take_seen().into_iter();
        seen.map(|seen| (seen.path.clone(), seen.header("kubeflow-userid").join(",")))
            .collect()
    }

    /// The one request that arrived upstream.
    fn arrived(&self) -> Seen {
        let mut seen = self.upstream.take_seen();
        assert_eq!(seen.len(), 1, "[envoy {}] requests upstream", self.version);
        seen.remove(0)
    }
}

#[tokio::test]
async fn http2_request_gets_only_the_identity_of_its_token() {
    for envoy in support::envoys() {
        let world = World::start(&envoy).await;
        let spoofed = [
            ("kubeflow-userid", "root"),
            ("kubeflow_userid", "root"),
            ("kubeflow-groups", "admins"),
        ];
        let reply = send_http2(world.gateway, &world.request(&spoofed), &[])
            .await
            .expect("an answer");
        assert_eq!(
            reply.status, 200,
            "[envoy {}] {}",
            world.version, reply.body
        );
        let seen = world.arrived();
        assert_eq!(
            seen.header("kubeflow-userid"),
            ["ann@example.com"],
            "[envoy {}]",
            world.version
        );
        for name in ["kubeflow_userid", "kubeflow-groups", "x-amzn-oidc-data"] {
            assert_eq!(
                seen.header(name),
                [""; 0],
                "[envoy {}] {name}",
                world.version
            );
        }
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn http2_cookie_fields_lose_session_cookies() {
    for envoy in support::envoys() {
        let world = World::start(&envoy).await;
        let crumbs = [
            ("cookie", "AWSELBAuthSessionCookie-0=secret"),
            ("cookie", "theme=dark"),
            ("cookie", "AWSELBAuthSessionCookie-1=secret; lang=de"),
            ("cookie", "last=\"a b\""),
        ];
        let reply = send_http2(world.gateway, &world.request(&crumbs), &[])
            .await
            .expect("an answer");
        assert_eq!(
            reply.status, 200,
            "[envoy {}] {}",
            world.version, reply.body
        );
        let cookies = world.arrived().header("cookie").join("; ");
        assert_eq!(
            cookies, "theme=dark; lang=de; last=\"a b\"",
            "[envoy {}]",
            world.version
        );
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn trailers_carry_no_identity() {
    for envoy in support::envoys() {
        let mut config = gateway_config();
        config["reservedHeaders"] = json!(["x-machine-client"]);
        config["rules"] =
            json!([{"match": {"paths": [{"prefix": "/public/"}]}, "require": "none"}]);
        let world = World::of(&envoy, config).await;
        let trailers = [
            ("kubeflow-userid", "root"),
            ("kubeflow_userid", "root"),
            ("kubeflow-groups", "admins"),
            ("kubeflow_groups", "admins"),
            ("x-amzn-oidc-data", "forged"),
            ("x-machine-client", "root"),
            ("x_machine.client", "root"),
            ("x-original-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("x-harmless", "1"),
        ];
        // The first waits for its key, the second does not, and the third needs no token.
        for (pass, path, user) in [
            ("before the key is known", "/", &["ann@example.com"][..]),
            ("once the key is known", "/", &["ann@example.com"]),
            ("where no token is needed", "/public/", &[]),
        ] {
            let request = Request {
                path: path.into(),
                method: "POST".into(),
                body: "a body".into(),
                ..world.request(&[])
            };
            let reply = send_http2(world.gateway, &request, &trailers)
                .await
                .expect("an answer");
            assert_eq!(
                reply.status, 200,
                "[envoy {}] {pass}: {}",
                world.version, reply.body
            );
            let seen = world.arrived();
            assert_eq!(
                seen.header("kubeflow-userid"),
                user,
                "[envoy {}] {pass}",
                world.version
            );
            assert_eq!(seen.body, "a body", "[envoy {}] {pass}", world.version);
            let harmless = [("x-harmless".to_owned(), "1".to_owned())];
            assert_eq!(
                seen.trailers, harmless,
                "[envoy {}] {pass}: trailers",
                world.version
            );
        }
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn websocket_of_a_user_carries_bytes_both_ways() {
    for envoy in support::envoys() {
        let world = World::start(&envoy).await;
        let request = world.request(&WEBSOCKET);
        let (reply, connection) = send_upgrade(world.gateway, &request)
            .await
            .expect("an answer");
        assert_eq!(
            reply.status, 101,
            "[envoy {}] {}",
            world.version, reply.body
        );
        let seen = world.arrived();
        assert_eq!(
            seen.header("kubeflow-userid"),
            ["ann@example.com"],
            "[envoy {}]",
            world.version
        );
        assert_eq!(
            seen.header("upgrade"),
            ["websocket"],
            "[envoy {}]",
            world.version
        );
        let mut connection = connection.expect("a connection after 101");
        for message in ["first", "second"] {
            connection
                .write_all(message.as_bytes())
                .await
                .expect("bytes sent");
            let mut echo = vec![0; message.len()];
            let read =
                tokio::time::timeout(Duration::from_secs(5), connection.read_exact(&mut echo));
            read.await.expect("an echo in time").expect("an echo");
            assert_eq!(echo, message.as_bytes(), "[envoy {}]", world.version);
        }
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn denies_websocket_without_token() {
    for envoy in support::envoys() {
        let world = World::start(&envoy).await;
        let request = Request::get("/", &[&[("host", "gateway.test")], &WEBSOCKET[..]].concat());
        let (reply, connection) = send_upgrade(world.gateway, &request)
            .await
            .expect("an answer");
        assert_eq!(
            reply.status, 401,
            "[envoy {}] {}",
            world.version, reply.body
        );
        assert!(
            reply.body.contains("token-missing"),
            "[envoy {}] {}",
            world.version,
            reply.body
        );
        assert!(
            connection.is_none(),
            "[envoy {}] a connection",
            world.version
        );
        assert_eq!(
            world.upstream.take_seen().len(),
            0,
            "[envoy {}] requests upstream",
            world.version
        );
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn grpc_call_without_token_gets_unauthenticated() {
    for envoy in support::envoys() {
        let world = World::start(&envoy).await;
        let call = Request::grpc("/package.Service/Call", &[("host", "gateway.test")]);
        let reply = send_http2(world.gateway, &call, &[])
            .await
            .expect("an answer");
        assert_eq!(reply.status, 200, "[envoy {}]", world.version);
        assert_eq!(
            reply.header("grpc-status"),
            ["16"],
            "[envoy {}] {:?}",
            world.version,
            reply.headers
        );
        assert_eq!(
            reply.header("content-type"),
            ["application/grpc"],
            "[envoy {}]",
            world.version
        );
        assert_eq!(reply.body, "", "[envoy {}]", world.version);
        assert_eq!(
            world.upstream.take_seen().len(),
            0,
            "[envoy {}] requests upstream",
            world.version
        );
        world.envoy.stop().await;
    }
}

/// CVE-2026-73548: before 1.38.4 and 1.39.3, Envoy forwards the data after an upgrade other than a
/// WebSocket before upstream has accepted it.
#[tokio::test]
async fn denies_second_request_behind_an_upgrade() {
    for envoy in support::envoys() {
        let world = World::start(&envoy).await;
        for kind in ["SPDY/3.1", "spdy/3.1"] {
            let answer = world.send_two(kind).await;
            assert_eq!(
                world.arrived_at(),
                [],
                "[envoy {}] {kind}: requests upstream",
                world.version
            );
            let reply = answer.expect("an answer");
            assert_eq!(
                reply.status, 403,
                "[envoy {}] {kind}: {}",
                world.version, reply.body
            );
            assert!(
                reply.body.contains("upgrade-not-allowed"),
                "[envoy {}] {kind}: {}",
                world.version,
                reply.body
            );
        }
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn forwards_no_second_request_behind_a_websocket() {
    for envoy in support::envoys() {
        let world = World::start(&envoy).await;
        for kind in ["websocket", "WebSocket"] {
            // Upstream's answer is chunked, and the client reads until the end of the connection.
            drop(world.send_two(kind).await);
            let expected = [("/first".to_owned(), "ann@example.com".to_owned())];
            assert_eq!(
                world.arrived_at(),
                expected,
                "[envoy {}] {kind}: requests upstream",
                world.version
            );
        }
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn opens_an_upgrade_that_the_config_lists() {
    for envoy in support::envoys() {
        let mut config = gateway_config();
        config["upgrades"] = json!(["SPDY/3.1"]);
        let world = World::of(&envoy, config).await;
        let upgrade = [("connection", "Upgrade"), ("upgrade", "spdy/3.1")];
        let (reply, connection) = send_upgrade(world.gateway, &world.request(&upgrade))
            .await
            .expect("an answer");
        assert_eq!(
            reply.status, 101,
            "[envoy {}] {}",
            world.version, reply.body
        );
        assert!(
            connection.is_some(),
            "[envoy {}] a connection",
            world.version
        );
        assert_eq!(
            world.arrived().header("kubeflow-userid"),
            ["ann@example.com"],
            "[envoy {}]",
            world.version
        );
        let (reply, _) = send_upgrade(world.gateway, &world.request(&WEBSOCKET))
            .await
            .expect("an answer");
        assert_eq!(
            reply.status, 403,
            "[envoy {}] {}",
            world.version, reply.body
        );
        world.envoy.stop().await;
    }
}

#[tokio::test]
async fn scripts_of_another_origin_read_answers_only_behind_a_cors_filter() {
    const ORIGIN: &str = "https://app.example.com";
    let named = "access-control-allow-origin";
    for envoy in support::envoys() {
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        let policy = json!({"allow_origin_string_match": [{"exact": ORIGIN}], "allow_credentials": true, "allow_methods": "GET"});
        let action = json!({
            "route": {"cluster": "upstream"},
            "typed_per_filter_config": {"envoy.filters.http.cors": any("envoy.extensions.filters.http.cors.v3.CorsPolicy", policy)},
        });
        let cors = json!({
            "name": "envoy.filters.http.cors",
            "typed_config": any("envoy.extensions.filters.http.cors.v3.Cors", json!({})),
        });
        let listener = |name: &str, is_first: bool| {
            let mut filters = vec![wasm_filter(&Plugin::new(name, gateway_config()))];
            filters.insert(usize::from(!is_first), cors.clone());
            http_listener(name, &filters, &action, json!({}))
        };
        let setup = Setup {
            listeners: vec![listener("before", true), listener("behind", false)],
            ..Setup::new(&envoy, upstream.address(), keys.address())
        };
        let version = support::version(&envoy);
        let envoy = Envoy::must_start(&setup).await;
        let ask = async |listener: &str, method: &str, origin: &str| {
            let address = envoy.listener(listener).await.expect("the listener");
            let headers = [
                ("host", "gateway.test"),
                ("origin", origin),
                ("access-control-request-method", "GET"),
            ];
            let mut request = Request::get("/", &headers);
            request.method = method.to_owned();
            let reply = send(address, &request).await.expect("an answer");
            (reply.status, reply.header(named).join(","))
        };
        let says = |status: u16, origin: &str| (status, origin.to_owned());
        for (listener, method, origin, expected) in [
            // Where Istio puts its CORS filter, behind this one, no script reads the answer.
            ("behind", "GET", ORIGIN, says(401, "")),
            ("behind", "OPTIONS", ORIGIN, says(401, "")),
            ("before", "GET", ORIGIN, says(401, ORIGIN)),
            ("before", "OPTIONS", ORIGIN, says(200, ORIGIN)),
            ("before", "GET", "https://evil.test", says(401, "")),
        ] {
            let found = ask(listener, method, origin).await;
            assert_eq!(
                found, expected,
                "[envoy {version}] {listener} {method} {origin}"
            );
        }
        assert_eq!(upstream.take_seen().len(), 0, "[envoy {version}]");
        envoy.stop().await;
    }
}
