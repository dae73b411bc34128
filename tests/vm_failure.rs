//! What happens when the VM dies all the same: to the requests that wait in it, to those that come after, and to the other
//! workers', with each failure policy, on every Envoy. The README's table "If the VM dies" says what is shown here.

// A test may panic: that is how it fails.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "support/mortal.rs"]
mod mortal;
mod support;

use mortal::{DEADLY_HEADERS, Death};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::client::{Reply, Request, send};
use support::envoy::{Envoy, Plugin, Setup, gateway_config, http_listener, wasm_filter};
use support::key_server::{Answer, KeyServer};
use support::token::{Key, TokenSpec};
use support::upstream::Upstream;
use tokio::task::JoinHandle;

/// How long the key server thinks about the answer that kills: time for the others to join the wait.
const THINKS: Duration = Duration::from_millis(1000);
/// How long one fetch may take. A request waits three times as long at most.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// After this, a stream without a byte is ended by Envoy, where the listener says so. Longer than any wait for a key.
const IDLE: Duration = Duration::from_secs(5);
/// A rebuilt VM is there by then: Envoy waits about a second before it tries again.
const REBUILT: Duration = Duration::from_secs(10);

/// One listener with a VM of its own that is going to die.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    policy: &'static str,
    death: Death,
    /// Whether Envoy ends idle streams there. Istio has it not do so.
    ends_idle_streams: bool,
}

const CASES: [Case; 5] = [
    Case { name: "reload", policy: "FAIL_RELOAD", death: Death::Panic, ends_idle_streams: true },
    Case { name: "reload-stack", policy: "FAIL_RELOAD", death: Death::Stack, ends_idle_streams: true },
    Case { name: "reload-memory", policy: "FAIL_RELOAD", death: Death::Memory, ends_idle_streams: false },
    Case { name: "closed", policy: "FAIL_CLOSED", death: Death::Panic, ends_idle_streams: true },
    Case { name: "open", policy: "FAIL_OPEN", death: Death::Panic, ends_idle_streams: true },
];

/// An Envoy with a listener for each case.
struct World {
    version: String,
    envoy: Envoy,
    keys: KeyServer,
    upstream: Upstream,
}

/// A load balancer's key, by the path at which the key server has it.
struct Signer {
    kid: String,
    key: Key,
}

impl Signer {
    /// A request of Ann's, who would rather be root.
    fn request(&self, path: &str) -> Request {
        let token = TokenSpec::of("ann@example.com").mint(&self.kid, &self.key).text;
        Request::get(path, &[("host", "gateway.test"), ("x-amzn-oidc-data", &token), ("kubeflow-userid", "root")])
    }
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
                // Another environment is another VM.
                env: BTreeMap::from([("CASE".to_owned(), case.name.to_owned())]),
                ..Plugin::new(case.name, &config)
            };
            let idle = if case.ends_idle_streams { IDLE.as_secs() } else { 0 };
            let route = json!({"route": {"cluster": "upstream"}});
            let more = json!({"stream_idle_timeout": format!("{idle}s")});
            http_listener(case.name, &[wasm_filter(&plugin)], &route, more)
        };
        let setup = Setup {
            concurrency: workers,
            listeners: cases.iter().map(listener).collect(),
            ..Setup::new(binary, upstream.address(), keys.address())
        };
        let envoy = Envoy::must_start(&setup).await;
        World { version: support::version(binary), envoy, keys, upstream }
    }

    fn signer(&self, answer: Answer) -> Signer {
        let signer = Signer { kid: uuid::Uuid::new_v4().to_string(), key: Key::generate() };
        self.keys.publish(&format!("/{}", signer.kid), &signer.key, answer);
        signer
    }

    fn fetches(&self, signer: &Signer) -> usize {
        self.keys.fetches().iter().filter(|fetch| fetch.path.contains(&signer.kid)).count()
    }

    async fn until_fetched(&self, signer: &Signer) {
        let deadline = Instant::now() + THINKS;
        while self.fetches(signer) == 0 {
            assert!(Instant::now() < deadline, "[envoy {}] no fetch", self.version);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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
    let known = world.signer(Answer::default());
    assert_eq!(answer(gateway, &known.request(&path)).await.status, 200, "{what} before");

    // Three wait. The answer to two of them kills the VM, the third waits for a key that would come.
    let size = usize::try_from(case.death.answer_size()).expect("a size");
    let millis = |time: Duration| u64::try_from(time.as_millis()).expect("milliseconds");
    let deadly = world.signer(Answer { size, delay_ms: millis(THINKS), ..Answer::default() });
    let other = world.signer(Answer { delay_ms: millis(THINKS.mul_f32(1.3)), ..Answer::default() });
    let began = Instant::now();
    let mut waiting = vec![sent(gateway, deadly.request(&path))];
    world.until_fetched(&deadly).await;
    waiting.extend([&deadly, &other].map(|signer| sent(gateway, signer.request(&path))));
    world.until_fetched(&other).await;
    tokio::time::sleep((began + THINKS + Duration::from_millis(300)).saturating_duration_since(Instant::now())).await;

    let seen_before = world.upstream.seen_at(&path);
    match case.policy {
        // New requests are refused until the VM is there again, and then served as before: the keys it had are still known.
        "FAIL_RELOAD" => {
            until_rebuilt(world, case, gateway, &known, 1).await;
            assert_eq!(world.fetches(&known), 1, "{what} fetches of a key that was known before");
            let new = world.signer(Answer { delay_ms: 200, ..Answer::default() });
            assert_eq!(answer(gateway, &new.request(&path)).await.status, 200, "{what} a new key after");
        }
        "FAIL_CLOSED" => {
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until {
                let reply = answer(gateway, &known.request(&path)).await;
                assert_eq!((reply.status, reply.body.as_str()), (503, ""), "{what} after");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(world.upstream.seen_at(&path), seen_before, "{what} requests upstream after");
        }
        // Why it may never be chosen.
        _ => {
            assert_eq!(answer(gateway, &known.request(&path)).await.status, 200, "{what} after");
            let seen = world.upstream.seen_at(&path);
            assert_eq!(seen.last().map(String::as_str), Some("root"), "{what} the client's own user id");
        }
    }

    for request in waiting {
        let patience = (began + IDLE + Duration::from_secs(3)).saturating_duration_since(Instant::now());
        match (tokio::time::timeout(patience, request).await, case.ends_idle_streams) {
            (Ok(reply), true) => {
                let reply = reply.expect("the client").unwrap_or_else(|error| panic!("{what} {error}"));
                assert_eq!((reply.status, reply.body.as_str()), (503, ""), "{what} who waited");
                assert!(reply.took > IDLE.mul_f32(0.9), "{what} who waited was answered after {:?}", reply.took);
            }
            (Err(_), false) => {}
            (reply, _) => panic!("{what} who waited: {reply:?}"),
        }
    }

    // A request that kills the VM itself is refused there and then.
    let mut request = known.request(&path);
    request.headers.extend((0..DEADLY_HEADERS).map(|number| (format!("x-{number}"), "1".into())));
    if case.policy == "FAIL_RELOAD" {
        let seen_before = world.upstream.seen_at(&path);
        assert_eq!(answer(gateway, &request).await.status, 503, "{what} the deadly request");
        assert_eq!(world.upstream.seen_at(&path), seen_before, "{what} the deadly request upstream");
        until_rebuilt(world, case, gateway, &known, 2).await;
    }
    if case.policy != "FAIL_OPEN" {
        let seen = world.upstream.seen_at(&path);
        assert!(
            !seen.is_empty() && seen.iter().all(|user| user == "ann@example.com"),
            "{what} users upstream {seen:?}"
        );
    }
}

/// Sends requests until one of them has had the VM rebuilt for the so-many-th time; meanwhile they are refused, and not later.
async fn until_rebuilt(world: &World, case: Case, gateway: SocketAddr, known: &Signer, times: i64) {
    let what = format!("[envoy {}, {case:?}]", world.version);
    let rebuilt = format!("wasm.{}.vm_reload_success", case.name);
    let deadline = Instant::now() + REBUILT;
    let request = known.request(&format!("/{}", case.name));
    loop {
        let reply = answer(gateway, &request).await;
        if world.stat(&rebuilt).await == times {
            break;
        }
        assert_eq!((reply.status, reply.body.as_str()), (503, ""), "{what} while there is no VM");
        assert!(Instant::now() < deadline, "{what} {rebuilt} is not {times}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..3 {
        assert_eq!(answer(gateway, &request).await.status, 200, "{what} rebuilt for the {times}. time");
    }
}

#[tokio::test]
async fn a_vm_that_dies_lets_nobody_through_unless_told_to_and_is_rebuilt_where_told_to() {
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
        // What nobody is left to count down.
        let left = world.stat("wasmcustom.wasm_filter.alb_oidc.waiting").await;
        assert_eq!(left, 3 * i64::try_from(CASES.len()).expect("a few"), "[envoy {}] the gauge", world.version);
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

#[tokio::test]
async fn a_vm_that_dies_in_one_worker_leaves_the_other_worker_alone() {
    for (binary, policy) in
        support::envoys().iter().flat_map(|binary| ["FAIL_CLOSED", "FAIL_RELOAD"].map(|policy| (binary, policy)))
    {
        let case = Case { name: "one-of-two", policy, death: Death::Panic, ends_idle_streams: false };
        let world = World::start(binary, &[case], 2).await;
        let what = format!("[envoy {}, {policy}]", world.version);
        let gateway = world.envoy.listener(case.name).await.expect("the listener");
        let known = world.signer(Answer::default());
        let mut request = known.request("/");
        assert_eq!(answer(gateway, &request).await.status, 200, "{what} before");
        request.headers.extend((0..DEADLY_HEADERS).map(|number| (format!("x-{number}"), "1".into())));
        assert_eq!(answer(gateway, &request).await.status, 503, "{what} the deadly request");
        // The kernel chooses the worker for each connection.
        let mut statuses = BTreeMap::new();
        for _ in 0..64 {
            *statuses.entry(answer(gateway, &known.request("/")).await.status).or_insert(0) += 1;
        }
        let found: Vec<_> = statuses.keys().copied().collect();
        assert_eq!(found, [200, 503], "{what} {statuses:?}");
        // By which other tests know that no VM has died.
        assert!(world.envoy.log().contains("/wasm_vm.cc:"), "{what} {}", world.envoy.log());
        world.envoy.stop().await;
    }
}
