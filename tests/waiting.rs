//! Requests that wait for a key share one fetch, are counted while they wait, and are forgotten
//! when their client hangs up. On each supported Envoy.

use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Bytes;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use support::client::{Reply, Request, send, send_body};
use support::envoy::{Envoy, Plugin, Setup, fetched, gateway_config};
use support::key_server::{Answer, Fault, KeyServer, Signer};
use support::server::Broken;
use support::token::TokenSpec;
use support::upstream::{ANSWER_BYTES, Upstream};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// The time-out of fetches that must not time out.
const PATIENT_MS: u64 = 10_000;
/// The deadline for any event.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer that is held until all expected requests wait.
fn held() -> Answer {
    Answer {
        held: true,
        ..Answer::default()
    }
}

/// A gateway with an empty key cache.
struct World {
    version: String,
    envoy: Envoy,
    gateway: SocketAddr,
    keys: KeyServer,
    upstream: Upstream,
}

/// A request of a new user.
fn by_user(user: usize, signer: &Signer) -> Request {
    let token = TokenSpec::of(&format!("user-{user}@example.com"))
        .mint(&signer.kid, &signer.key)
        .text;
    Request::get(
        "/",
        &[("host", "gateway.test"), ("x-amzn-oidc-data", &token)],
    )
}

/// Plays a scene on each Envoy. They start one after the other, but the scenes overlap, as they
/// mostly wait.
async fn on_every_envoy<F: Future<Output = ()> + Send + 'static>(
    timeout_ms: u64,
    scene: impl Fn(World) -> F,
) {
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
    /// The time-out of a fetch is `timeout_ms`.
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
        World {
            version: support::version(binary),
            envoy,
            gateway,
            keys,
            upstream,
        }
    }

    /// Sends a request whose answer is read later.
    fn send(&self, request: Request) -> JoinHandle<Result<Reply, String>> {
        let gateway = self.gateway;
        tokio::spawn(async move { send(gateway, &request).await })
    }

    /// Sends a request. The client hangs up when the connection is dropped.
    async fn send_and_hold(&self, request: Request) -> TcpStream {
        let mut head = String::from("GET / HTTP/1.1\r\n");
        for (name, value) in request.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut connection = TcpStream::connect(self.gateway)
            .await
            .expect("a connection");
        connection
            .write_all(format!("{head}\r\n").as_bytes())
            .await
            .expect("a request sent");
        connection
    }

    /// A counter or gauge of the module.
    async fn stat(&self, name: &str) -> i64 {
        self.envoy.counters().await[name]
    }

    /// Waits until this many requests wait. No fetch may end meanwhile.
    async fn until_waiting(&self, requests: i64) {
        let counters = self.until(|counters| counters["waiting"] == requests).await;
        assert_eq!(
            fetched(&counters),
            0,
            "[envoy {}] fetches that were over too soon",
            self.version
        );
    }

    async fn until_nobody_waits(&self) {
        self.until(|counters| counters["waiting"] == 0).await;
    }

    /// Waits until the counters and gauges match, and returns them.
    async fn until(
        &self,
        they_are: impl Fn(&BTreeMap<String, i64>) -> bool,
    ) -> BTreeMap<String, i64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counters = self.envoy.counters().await;
            if they_are(&counters) {
                return counters;
            }
            assert!(
                Instant::now() < deadline,
                "[envoy {}] {counters:#?}",
                self.version
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn requests_for_an_unknown_key_share_one_fetch() {
    on_every_envoy(PATIENT_MS, async |world: World| {
        let signer = world.keys.signer(held());
        let sent: Vec<_> = (0..5)
            .map(|user| world.send(by_user(user, &signer)))
            .collect();
        world.until_waiting(5).await;
        world.keys.release(&signer);
        for reply in sent {
            let reply = reply.await.expect("the client").expect("an answer");
            assert_eq!(
                reply.status, 200,
                "[envoy {}] {}",
                world.version, reply.body
            );
        }
        world.until_nobody_waits().await;
        assert_eq!(
            world.keys.fetches_of(&signer),
            1,
            "[envoy {}] fetches of one key",
            world.version
        );
        let mut users: Vec<_> = world
            .upstream
            .take_seen()
            .iter()
            .map(|seen| seen.header("kubeflow-userid").join(","))
            .collect();
        users.sort();
        let expected: Vec<_> = (0..5)
            .map(|user| format!("user-{user}@example.com"))
            .collect();
        assert_eq!(users, expected, "[envoy {}]", world.version);
        world.envoy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn hung_up_client_does_not_affect_others() {
    on_every_envoy(PATIENT_MS, async |world: World| {
        let signer = world.keys.signer(held());
        let before = world.send(by_user(0, &signer));
        let impatient = world.send_and_hold(by_user(1, &signer)).await;
        let after = world.send(by_user(2, &signer));
        world.until_waiting(3).await;
        drop(impatient);
        world.until_waiting(2).await;
        world.keys.release(&signer);
        for reply in [before, after] {
            let reply = reply.await.expect("the client").expect("an answer");
            assert_eq!(
                reply.status, 200,
                "[envoy {}] {}",
                world.version, reply.body
            );
        }
        world.until_nobody_waits().await;
        assert_eq!(world.stat("admitted").await, 2, "[envoy {}]", world.version);
        assert_eq!(
            world.upstream.take_seen().len(),
            2,
            "[envoy {}]",
            world.version
        );
        world.envoy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn skips_retry_after_all_clients_hung_up() {
    on_every_envoy(3000, async |world: World| {
        let hangs = world.keys.signer(Answer {
            fault: Some(Fault::Hang),
            ..Answer::default()
        });
        let fails_late = world.keys.signer(Answer {
            status: 500,
            ..held()
        });
        let fails_at_once = world.keys.signer(Answer {
            status: 500,
            ..Answer::default()
        });
        let mut clients = Vec::new();
        for signer in [&hangs, &fails_late, &fails_at_once] {
            clients.push(world.send_and_hold(by_user(0, signer)).await);
        }
        world.keys.until_fetched(&hangs, 1).await;
        world.keys.until_fetched(&fails_late, 1).await;
        // The first retry comes 100 ms after the failure, the others 200, 400 and 800 ms after the
        // previous one.
        world.keys.until_fetched(&fails_at_once, 2).await;
        drop(clients);
        world.until_nobody_waits().await;
        world.keys.release(&fails_late);
        // A retry that was under way when the client hung up still arrives.
        let made =
            || [&hangs, &fails_late, &fails_at_once].map(|signer| world.keys.fetches_of(signer));
        world
            .until(|counters| usize::try_from(fetched(counters)) == Ok(made().iter().sum()))
            .await;
        let planned = made();
        assert_eq!(
            planned[..2],
            [1, 1],
            "[envoy {}] fetches of key servers that hang and that fail late",
            world.version
        );
        tokio::time::sleep(Duration::from_millis(1000)).await;
        assert_eq!(
            made(),
            planned,
            "[envoy {}] fetches without waiting requests",
            world.version
        );
        assert_eq!(
            world.upstream.take_seen().len(),
            0,
            "[envoy {}]",
            world.version
        );
        world.envoy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn upload_during_a_wait_reaches_upstream_whole() {
    const LENGTH: usize = 8 << 20;
    const PIECE: usize = 1 << 16;
    // All lines differ, so a lost, repeated or moved line is noticed.
    let body = Bytes::from(
        (0..LENGTH / 16)
            .map(|line| format!("{line:015}\n"))
            .collect::<String>(),
    );
    on_every_envoy(PATIENT_MS, move |world: World| {
        let body = body.clone();
        async move {
            let pieces = body.clone();
            let (mut sender, channel) = Channel::<Bytes, Broken>::new(1);
            let sent = tokio::spawn(async move {
                for start in (0..LENGTH).step_by(PIECE) {
                    sender
                        .send_data(pieces.slice(start..start + PIECE))
                        .await
                        .expect("a client that takes the body");
                }
            });
            let gateway = world.gateway;
            let signer = world.keys.signer(held());
            let mut request = Request {
                method: "POST".into(),
                ..by_user(0, &signer)
            };
            // Upstream's echo would be as long as the body.
            request.headers.push((ANSWER_BYTES.into(), "0".into()));
            let upload =
                tokio::spawn(async move { send_body(gateway, &request, channel.boxed()).await });
            world.until_waiting(1).await;
            world.keys.release(&signer);
            let reply = upload.await.expect("the client").expect("an answer");
            assert_eq!(reply.status, 200, "[envoy {}]", world.version);
            sent.await.expect("the whole body sent");
            let seen = world.upstream.take_seen();
            assert_eq!(seen.len(), 1, "[envoy {}]", world.version);
            assert_eq!(
                seen[0].header("kubeflow-userid"),
                ["user-0@example.com"],
                "[envoy {}]",
                world.version
            );
            assert_eq!(
                seen[0].body.len(),
                LENGTH,
                "[envoy {}] bytes upstream",
                world.version
            );
            assert!(
                seen[0].body.as_bytes() == body,
                "[envoy {}] the body was changed",
                world.version
            );
            world.envoy.stop().await;
        }
    })
    .await;
}
