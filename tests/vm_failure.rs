//! The effects of a dead VM on waiting requests, later requests and the other workers, for each
//! failure policy, on each supported Envoy. `docs/operations.md`, If the VM dies, lists them.

use support::mortal;

use mortal::{DEADLY_HEADERS, Death};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::client::{Reply, Request, send};
use support::envoy::{Envoy, Plugin, Setup, gateway_config, http_listener, interlock, wasm_filter};
use support::key_server::{Answer, KeyServer, Signer};
use support::token::TokenSpec;
use support::upstream::Upstream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// The time-out of a fetch. A request waits three times as long at most.
const TIMEOUT: Duration = Duration::from_millis(2500);
/// The idle time-out of a stream, on listeners that have one. Longer than any wait for a key.
const IDLE: Duration = Duration::from_secs(8);
/// The deadline for any answer. Envoy waits about a second before it rebuilds a VM.
const PATIENCE: Duration = Duration::from_secs(60);
/// Envoy logs this only when a VM dies.
const DEATH: &str = "/wasm_vm.cc:";

/// A listener with its own VM, which will die.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    policy: &'static str,
    death: Death,
    /// Whether Envoy ends idle streams. On Istio it does not.
    ends_idle_streams: bool,
}

const CASES: [Case; 6] = [
    Case {
        name: "reload",
        policy: "FAIL_RELOAD",
        death: Death::Panic,
        ends_idle_streams: true,
    },
    Case {
        name: "reload-stack",
        policy: "FAIL_RELOAD",
        death: Death::Stack,
        ends_idle_streams: true,
    },
    Case {
        name: "reload-memory",
        policy: "FAIL_RELOAD",
        death: Death::Memory,
        ends_idle_streams: false,
    },
    Case {
        name: "closed",
        policy: "FAIL_CLOSED",
        death: Death::Panic,
        ends_idle_streams: true,
    },
    Case {
        name: "open",
        policy: "FAIL_OPEN",
        death: Death::Panic,
        ends_idle_streams: true,
    },
    Case {
        name: "open-interlocked",
        policy: "FAIL_OPEN",
        death: Death::Panic,
        ends_idle_streams: true,
    },
];

/// What the interlock answers once the VM is dead.
const SHUT: &str = "RBAC: access denied";

/// An Envoy with a listener for each case.
struct World {
    version: String,
    envoy: Envoy,
    keys: KeyServer,
    upstream: Upstream,
    /// Locked while a VM dies: Envoy's log does not say which one.
    turn: Mutex<()>,
}

/// A request of Ann, with a spoofed identity.
fn by_ann(signer: &Signer, path: &str) -> Request {
    let token = TokenSpec::of("ann@example.com")
        .mint(&signer.kid, &signer.key)
        .text;
    Request::get(
        path,
        &[
            ("host", "gateway.test"),
            ("x-amzn-oidc-data", &token),
            ("kubeflow-userid", "root"),
        ],
    )
}

/// The same, with headers that kill the VM.
fn deadly_by_ann(signer: &Signer, path: &str) -> Request {
    let mut request = by_ann(signer, path);
    request
        .headers
        .extend((0..DEADLY_HEADERS).map(|number| (format!("x-{number}"), "1".into())));
    request
}

impl World {
    async fn start(binary: &Path, cases: &[Case], workers: u32) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let module = folder.path().join("mortal.wasm");
        mortal::write(&support::module(), &module);
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        let mut config = gateway_config();
        config["publicKeys"]["timeoutMs"] = json!(TIMEOUT.as_millis());
        let listener = |case: &Case| {
            let plugin = Plugin {
                module: module.clone(),
                failure_policy: case.policy,
                // A different environment creates a different VM.
                env: BTreeMap::from([("CASE".to_owned(), case.name.to_owned())]),
                ..Plugin::new(case.name, &config)
            };
            let idle = if case.ends_idle_streams {
                IDLE.as_secs()
            } else {
                0
            };
            let route = json!({"route": {"cluster": "upstream"}});
            let more = json!({"stream_idle_timeout": format!("{idle}s")});
            let mut filters = vec![wasm_filter(&plugin)];
            if case.name == "open-interlocked" {
                filters.push(interlock(&["admitted", "skipped"]));
            }
            http_listener(case.name, &filters, &route, more)
        };
        let setup = Setup {
            concurrency: workers,
            listeners: cases.iter().map(listener).collect(),
            ..Setup::new(binary, upstream.address(), keys.address())
        };
        let envoy = Envoy::must_start(&setup).await;
        World {
            version: support::version(binary),
            envoy,
            keys,
            upstream,
            turn: Mutex::default(),
        }
    }

    /// Kills a VM and waits until it is dead.
    async fn kill<T>(&self, deed: impl Future<Output = T>) -> T {
        let _turn = self.turn.lock().await;
        let deaths = || self.envoy.log().matches(DEATH).count();
        let before = deaths();
        let done = deed.await;
        let deadline = Instant::now() + PATIENCE;
        while deaths() == before {
            assert!(
                Instant::now() < deadline,
                "[envoy {}] no VM has died",
                self.version
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        done
    }

    async fn stat(&self, name: &str) -> i64 {
        self.envoy.stats(name).await.get(name).copied().unwrap_or(0)
    }
}

fn sent(to: SocketAddr, request: Request) -> JoinHandle<Result<Reply, String>> {
    tokio::spawn(async move { send(to, &request).await })
}

async fn answer(to: SocketAddr, request: &Request) -> Reply {
    send(to, request).await.expect("an answer")
}

async fn play(world: &World, case: Case) {
    let what = format!("[envoy {}, {case:?}]", world.version);
    let gateway = world.envoy.listener(case.name).await.expect("the listener");
    let path = format!("/{}", case.name);
    let known = world.keys.signer(Answer::default());
    assert_eq!(
        answer(gateway, &by_ann(&known, &path)).await.status,
        200,
        "{what} before"
    );

    // Three requests wait. The answer to two of them kills the VM; the key of the third comes too
    // late.
    let size = usize::try_from(case.death.answer_size()).expect("a size");
    let deadly = world.keys.signer(Answer {
        size,
        held: true,
        ..Answer::default()
    });
    let other = world.keys.signer(Answer {
        held: true,
        ..Answer::default()
    });
    let began = Instant::now();
    let waiting = [&deadly, &deadly, &other].map(|signer| sent(gateway, by_ann(signer, &path)));
    let under_way = format!("http.{}.downstream_rq_active", case.name);
    while world.stat(&under_way).await != 3 {
        assert!(began.elapsed() < PATIENCE, "{what} three should wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.keys.until_fetched(&deadly, 1).await;
    world.keys.until_fetched(&other, 1).await;
    world.kill(async { world.keys.release(&deadly) }).await;
    world.keys.release(&other);

    let seen_before = world.upstream.seen_at(&path);
    match case.policy {
        // New requests are denied until the VM is back, then served as before, with the cached
        // keys.
        "FAIL_RELOAD" => {
            until_rebuilt(world, case, gateway, &known, 1).await;
            assert_eq!(
                world.keys.fetches_of(&known),
                1,
                "{what} fetches of a key that was known before"
            );
            let new = world.keys.signer(Answer {
                delay_ms: 200,
                ..Answer::default()
            });
            assert_eq!(
                answer(gateway, &by_ann(&new, &path)).await.status,
                200,
                "{what} a new key after"
            );
        }
        "FAIL_CLOSED" => {
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until {
                let reply = answer(gateway, &by_ann(&known, &path)).await;
                assert_eq!(
                    (reply.status, reply.body.as_str()),
                    (503, ""),
                    "{what} after"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(
                world.upstream.seen_at(&path),
                seen_before,
                "{what} requests upstream after"
            );
        }
        _ if case.name == "open-interlocked" => {
            let reply = answer(gateway, &by_ann(&known, &path)).await;
            assert_eq!(
                (reply.status, reply.body.as_str()),
                (403, SHUT),
                "{what} after"
            );
            assert_eq!(
                world.upstream.seen_at(&path),
                seen_before,
                "{what} requests upstream after"
            );
        }
        // The reason never to choose this policy.
        _ => {
            assert_eq!(
                answer(gateway, &by_ann(&known, &path)).await.status,
                200,
                "{what} after"
            );
            let seen = world.upstream.seen_at(&path);
            assert_eq!(
                seen.last().map(String::as_str),
                Some("root"),
                "{what} the client's own user id"
            );
        }
    }

    for request in waiting {
        if case.ends_idle_streams {
            let reply = request
                .await
                .expect("the client")
                .unwrap_or_else(|error| panic!("{what} {error}"));
            assert_eq!(
                (reply.status, reply.body.as_str()),
                (503, ""),
                "{what} who waited"
            );
            assert!(
                reply.took > IDLE.mul_f32(0.9),
                "{what} who waited was answered after {:?}",
                reply.took
            );
        } else {
            let long =
                (began + IDLE + Duration::from_secs(3)).saturating_duration_since(Instant::now());
            let reply = tokio::time::timeout(long, request).await;
            assert!(reply.is_err(), "{what} who waited: {reply:?}");
        }
    }

    // A request that kills the VM itself is denied at once.
    if case.policy == "FAIL_RELOAD" {
        let seen_before = world.upstream.seen_at(&path);
        let reply = world
            .kill(answer(gateway, &deadly_by_ann(&known, &path)))
            .await;
        assert_eq!(reply.status, 503, "{what} the deadly request");
        assert_eq!(
            world.upstream.seen_at(&path),
            seen_before,
            "{what} the deadly request upstream"
        );
        until_rebuilt(world, case, gateway, &known, 2).await;
    }
    if case.name != "open" {
        let seen = world.upstream.seen_at(&path);
        assert!(
            !seen.is_empty() && seen.iter().all(|user| user == "ann@example.com"),
            "{what} users upstream {seen:?}"
        );
    }
}

/// Sends requests until one has caused the given number of rebuilds. Until then they are denied
/// without delay.
async fn until_rebuilt(world: &World, case: Case, gateway: SocketAddr, known: &Signer, times: i64) {
    let what = format!("[envoy {}, {case:?}]", world.version);
    let rebuilt = format!("wasm.{}.vm_reload_success", case.name);
    let deadline = Instant::now() + PATIENCE;
    let request = by_ann(known, &format!("/{}", case.name));
    loop {
        let reply = answer(gateway, &request).await;
        if world.stat(&rebuilt).await == times {
            break;
        }
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (503, ""),
            "{what} while there is no VM"
        );
        assert!(Instant::now() < deadline, "{what} {rebuilt} is not {times}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..3 {
        assert_eq!(
            answer(gateway, &request).await.status,
            200,
            "{what} rebuilt for the {times}. time"
        );
    }
}

#[tokio::test]
async fn dead_vm_follows_its_failure_policy() {
    let mut playing = Vec::new();
    for binary in support::envoys() {
        let world = Arc::new(World::start(&binary, &CASES, 1).await);
        let cases = CASES.map(|case| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { play(&world, case).await })
        });
        playing.push((world, cases));
    }
    let mut failed = Vec::new();
    for (world, cases) in playing {
        for (case, played) in CASES.iter().zip(cases) {
            if played.await.is_err() {
                failed.push(format!("{} on envoy {}", case.name, world.version));
            }
        }
        // No VM is left to decrement this.
        let left = world.envoy.counters().await["waiting"];
        assert_eq!(
            left,
            3 * i64::try_from(CASES.len()).expect("a few"),
            "[envoy {}] the gauge",
            world.version
        );
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// The outcome of a request: the status, and the user upstream if it gets there.
async fn outcome(world: &World, gateway: SocketAddr, request: &Request) -> (u16, Option<String>) {
    let before = world.upstream.seen_at(&request.path).len();
    let reply = answer(gateway, request).await;
    let user = world
        .upstream
        .seen_at(&request.path)
        .into_iter()
        .nth(before);
    (reply.status, user)
}

#[tokio::test]
async fn dead_vm_does_not_affect_another_worker() {
    let served = (200, Some("ann@example.com".to_owned()));
    let unavailable = (503, None);
    // The reason never to choose FAIL_OPEN without the interlock: the client's own user id.
    let forged = (200, Some("root".to_owned()));
    let shut = (403, None);
    let cases = [
        ("closed", "FAIL_CLOSED", unavailable.clone()),
        ("reload", "FAIL_RELOAD", unavailable.clone()),
        ("open", "FAIL_OPEN", forged),
        ("open-interlocked", "FAIL_OPEN", shut),
    ];
    for (binary, (name, policy, dead)) in support::envoys()
        .iter()
        .flat_map(|binary| cases.iter().map(move |case| (binary, case)))
    {
        let case = Case {
            name,
            policy,
            death: Death::Panic,
            ends_idle_streams: false,
        };
        let world = World::start(binary, &[case], 2).await;
        let what = format!("[envoy {}, {name}]", world.version);
        let gateway = world.envoy.listener(case.name).await.expect("the listener");
        let known = world.keys.signer(Answer::default());
        let request = by_ann(&known, "/");
        let deadly = deadly_by_ann(&known, "/");
        assert_eq!(
            outcome(&world, gateway, &request).await,
            served,
            "{what} before"
        );
        let rebuilt = format!("wasm.{}.vm_reload_success", case.name);
        let deadline = Instant::now() + PATIENCE;
        for killed in 1.. {
            let found = world.kill(outcome(&world, gateway, &deadly)).await;
            assert_eq!(found, unavailable, "{what} the deadly request");
            // The kernel chooses the worker for each connection.
            let mut outcomes = BTreeSet::new();
            for _ in 0..64 {
                outcomes.insert(outcome(&world, gateway, &request).await);
                if outcomes.len() > 1 {
                    break;
                }
            }
            // A VM that was rebuilt this quickly may have answered.
            if world.stat(&rebuilt).await < killed {
                let expected = BTreeSet::from([served.clone(), dead.clone()]);
                assert_eq!(outcomes, expected, "{what}");
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{what} a VM is always back before both workers were asked"
            );
        }
        world.envoy.stop().await;
    }
}
