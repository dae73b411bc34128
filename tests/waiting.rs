//! Requests that wait for a key: all of them for one fetch, counted while they wait and forgotten when their client hangs
//! up; on every Envoy.

// A test may panic: that is how it fails.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Bytes;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use support::client::{Reply, Request, send, send_body};
use support::envoy::{Envoy, Plugin, Setup, gateway_config};
use support::key_server::{Answer, Fault, KeyServer};
use support::server::Broken;
use support::token::{Key, TokenSpec};
use support::upstream::Upstream;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const MODULE: &str = "wasmcustom.wasm_filter.alb_oidc";
/// A key that takes this long leaves the time to see who waits for it.
const SLOW_MS: u64 = 1500;

fn slow() -> Answer {
    Answer { delay_ms: SLOW_MS, ..Answer::default() }
}

/// A gateway that knows no key yet.
struct World {
    version: String,
    envoy: Envoy,
    gateway: SocketAddr,
    keys: KeyServer,
    upstream: Upstream,
}

/// A load balancer's key.
struct Signer {
    kid: String,
    key: Key,
}

impl Signer {
    /// A new user's request.
    fn request(&self, user: usize) -> Request {
        let token = TokenSpec::of(&format!("user-{user}@example.com")).mint(&self.kid, &self.key).text;
        Request::get("/", &[("host", "gateway.test"), ("x-amzn-oidc-data", &token)])
    }
}

/// Plays a scene on every Envoy. One is started after the other; the scenes, which mostly wait, overlap.
async fn on_every_envoy<F: Future<Output = ()> + Send + 'static>(timeout_ms: u64, scene: impl Fn(World) -> F) {
    let mut scenes = Vec::new();
    for binary in support::envoys() {
        let world = World::start(&binary, timeout_ms).await;
        scenes.push((world.version.clone(), tokio::spawn(scene(world))));
    }
    let mut failed = Vec::new();
    for (version, scene) in scenes {
        if scene.await.is_err() {
            failed.push(version);
        }
    }
    assert!(failed.is_empty(), "failed on envoy {failed:?}");
}

impl World {
    /// One fetch of a key may take `timeout_ms`.
    async fn start(binary: &Path, timeout_ms: u64) -> World {
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        let mut config = gateway_config();
        config["publicKeys"]["timeoutMs"] = json!(timeout_ms);
        let setup = Setup {
            plugins: vec![Plugin::new("gateway", config)],
            ..Setup::new(binary, upstream.address(), keys.address())
        };
        let envoy = Envoy::must_start(&setup).await;
        let gateway = envoy.listener("gateway").await.expect("the listener");
        World { version: support::version(binary), envoy, gateway, keys, upstream }
    }

    /// A new key, served as `answer` tells.
    fn signer(&self, answer: Answer) -> Signer {
        let signer = Signer { kid: uuid::Uuid::new_v4().to_string(), key: Key::generate() };
        self.keys.publish(&format!("/{}", signer.kid), &signer.key, answer);
        signer
    }

    /// Sends a request whose answer is read later.
    fn send(&self, request: Request) -> JoinHandle<Result<Reply, String>> {
        let gateway = self.gateway;
        tokio::spawn(async move { send(gateway, &request).await })
    }

    /// Sends a request; the client hangs up where the connection is dropped.
    async fn send_and_hold(&self, request: Request) -> TcpStream {
        let mut head = String::from("GET / HTTP/1.1\r\n");
        for (name, value) in request.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut connection = TcpStream::connect(self.gateway).await.expect("a connection");
        connection.write_all(format!("{head}\r\n").as_bytes()).await.expect("a request sent");
        connection
    }

    /// How often the key server was asked for this key.
    fn fetches(&self, signer: &Signer) -> usize {
        self.keys.fetches().iter().filter(|fetch| fetch.path.contains(&signer.kid)).count()
    }

    /// A counter or gauge of the module.
    async fn stat(&self, name: &str) -> i64 {
        self.stats().await[&format!("{MODULE}.{name}")]
    }

    async fn stats(&self) -> BTreeMap<String, i64> {
        self.envoy.stats(MODULE).await
    }

    /// Waits until so many requests wait, and no fetch has come to an end.
    async fn until_waiting(&self, requests: i64) {
        let (gauge, fetched) = (format!("{MODULE}.waiting"), format!("{MODULE}.key_fetch."));
        let deadline = Instant::now() + Duration::from_millis(SLOW_MS);
        loop {
            let stats = self.stats().await;
            let over = stats.iter().any(|(name, count)| name.starts_with(&fetched) && *count > 0);
            if stats[&gauge] == requests && !over {
                return;
            }
            assert!(
                !over && Instant::now() < deadline,
                "[envoy {}] {requests} requests should wait before a fetch is over: {stats:#?}",
                self.version
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until nobody waits.
    async fn until_nobody_waits(&self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.stat("waiting").await != 0 {
            assert!(Instant::now() < deadline, "[envoy {}] {:#?}", self.version, self.stats().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the key server was asked so many times for this key.
    async fn until_fetched(&self, signer: &Signer, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(3);
        while self.fetches(signer) < times {
            assert!(Instant::now() < deadline, "[envoy {}] {} of {times} fetches", self.version, self.fetches(signer));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn requests_that_come_before_their_key_wait_for_one_fetch_and_are_counted_while_they_do() {
    on_every_envoy(5000, async |world: World| {
        let signer = world.signer(slow());
        let sent: Vec<_> = (0..5).map(|user| world.send(signer.request(user))).collect();
        world.until_waiting(5).await;
        for reply in sent {
            let reply = reply.await.expect("the client").expect("an answer");
            assert_eq!(reply.status, 200, "[envoy {}] {}", world.version, reply.body);
        }
        world.until_nobody_waits().await;
        assert_eq!(world.fetches(&signer), 1, "[envoy {}] fetches of one key", world.version);
        let mut users: Vec<_> =
            world.upstream.take_seen().iter().map(|seen| seen.header("kubeflow-userid").join(",")).collect();
        users.sort();
        let expected: Vec<_> = (0..5).map(|user| format!("user-{user}@example.com")).collect();
        assert_eq!(users, expected, "[envoy {}]", world.version);
        world.envoy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_hangs_up_waits_no_longer_and_the_others_are_admitted() {
    on_every_envoy(5000, async |world: World| {
        let signer = world.signer(slow());
        let before = world.send(signer.request(0));
        let impatient = world.send_and_hold(signer.request(1)).await;
        let after = world.send(signer.request(2));
        world.until_waiting(3).await;
        drop(impatient);
        world.until_waiting(2).await;
        for reply in [before, after] {
            let reply = reply.await.expect("the client").expect("an answer");
            assert_eq!(reply.status, 200, "[envoy {}] {}", world.version, reply.body);
        }
        world.until_nobody_waits().await;
        assert_eq!(world.stat("admitted").await, 2, "[envoy {}]", world.version);
        assert_eq!(world.upstream.take_seen().len(), 2, "[envoy {}]", world.version);
        world.envoy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_fetch_that_failed_is_not_repeated_once_nobody_waits_for_it() {
    on_every_envoy(1000, async |world: World| {
        let hangs = world.signer(Answer { fault: Some(Fault::Hang), ..Answer::default() });
        let fails_late = world.signer(Answer { status: 500, delay_ms: 600, ..Answer::default() });
        let fails_at_once = world.signer(Answer { status: 500, ..Answer::default() });
        let mut clients = Vec::new();
        for signer in [&hangs, &fails_late, &fails_at_once] {
            clients.push(world.send_and_hold(signer.request(0)).await);
        }
        world.until_fetched(&hangs, 1).await;
        world.until_fetched(&fails_late, 1).await;
        // The first retry is 100 ms after the failure, the others would be 200, 400 and 800 ms after the one before.
        world.until_fetched(&fails_at_once, 2).await;
        drop(clients);
        world.until_nobody_waits().await;
        // One that was on its way when the client hung up may still arrive.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let planned = world.fetches(&fails_at_once);
        tokio::time::sleep(Duration::from_millis(1600)).await;
        assert_eq!(world.fetches(&hangs), 1, "[envoy {}] fetches of a key server that hangs", world.version);
        assert_eq!(world.fetches(&fails_late), 1, "[envoy {}] fetches of a key server that fails late", world.version);
        let fetches = world.fetches(&fails_at_once);
        assert_eq!(fetches, planned, "[envoy {}] fetches of a key server that fails at once", world.version);
        world.until_nobody_waits().await;
        assert_eq!(world.upstream.take_seen().len(), 0, "[envoy {}]", world.version);
        world.envoy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_begins_before_the_key_is_there_reaches_upstream_whole() {
    on_every_envoy(5000, async |world: World| {
        const LENGTH: usize = 8 << 20;
        const PIECE: usize = 1 << 16;
        // No two lines are alike, so that none can be lost, repeated or put elsewhere unseen.
        let body: String = (0..LENGTH / 16).map(|line| format!("{line:015}\n")).collect();
        let pieces = Bytes::from(body.clone());
        let (mut sender, channel) = Channel::<Bytes, Broken>::new(1);
        let sent = tokio::spawn(async move {
            for start in (0..LENGTH).step_by(PIECE) {
                sender.send_data(pieces.slice(start..start + PIECE)).await.expect("a client that takes the body");
            }
        });
        let gateway = world.gateway;
        let request = Request { method: "POST".into(), ..world.signer(slow()).request(0) };
        let upload = tokio::spawn(async move { send_body(gateway, &request, channel.boxed()).await });
        world.until_waiting(1).await;
        let reply = upload.await.expect("the client").expect("an answer");
        assert_eq!(reply.status, 200, "[envoy {}]", world.version);
        sent.await.expect("the whole body sent");
        let seen = world.upstream.take_seen();
        assert_eq!(seen.len(), 1, "[envoy {}]", world.version);
        assert_eq!(seen[0].header("kubeflow-userid"), ["user-0@example.com"], "[envoy {}]", world.version);
        assert_eq!(seen[0].body.len(), LENGTH, "[envoy {}] bytes upstream", world.version);
        assert!(seen[0].body == body, "[envoy {}] the body was changed", world.version);
        world.envoy.stop().await;
    })
    .await;
}
