//! Sustained load on a real Envoy with two workers, with users that come and go and replaced
//! tokens. Compares memory, CPU time, latency and counters at start and end. Fails if memory grows,
//! or if a request costs more CPU time. Latency is only printed: a busy machine changes it.
//!
//! `SOAK_SECONDS` sets the duration; `make soak` runs for an hour.

use support::load;

use fastrand::Rng;
use hyper::body::Bytes;
use load::memory::Memory;
use load::processor::Workers;
use load::{Lane, Outcome, Protocol, number};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::client::Request;
use support::envoy::{Envoy, Plugin, Setup, gateway_config, http_listener};
use support::key_server::{Answer, KeyServer, Signer};
use support::token::{Key, TokenSpec};
use support::upstream::Upstream;
use tokio::task::JoinSet;

/// New requests a second, to each listener.
const RATE: u64 = 250;
/// The new tokens that fill both workers' token caches, 15 MiB each. Memory grows before that.
const WARM_UP: usize = 36_000;
/// The most requests under way at once.
const AT_ONCE: usize = 64;
const USERS: u32 = 2000;
/// How much the heap and the resident memory may grow in total, independent of the load.
const SLACK: u64 = 8 << 20;
/// How much a VM may grow once its token cache is full: its table doubles.
const LINEAR_SLACK: u64 = 512 << 10;
/// The memory of a VM with one plugin: below 16 MiB with a full token cache, rounded up.
const LINEAR: u64 = (16 << 20) + (600 << 10);
/// The least number of key rotations, key refreshes and replaced tokens.
const SEVERAL: usize = 3;
/// The largest growth of the workers' CPU time per request. A machine that is busy at one end only
/// adds about half: caches are shared.
const GROWTH: f64 = 2.0;

/// Lifetimes. Short runs have shorter ones, so that every run contains several of each.
#[derive(Clone, Copy)]
struct Lives {
    /// A new key signs after this time.
    key: Duration,
    /// How long the test reuses a user's token.
    token: Duration,
    /// The TTL of keys: a key in use is refreshed after four fifths of it, before its replacement.
    ttl: Duration,
}

impl Lives {
    fn of(run: Duration) -> Lives {
        let key = (run / 8).clamp(Duration::from_secs(2), Duration::from_secs(30));
        Lives {
            key,
            token: key * 2,
            ttl: key / 2,
        }
    }
}

/// A user's current token.
struct Token {
    text: String,
    since: Instant,
}

struct World {
    envoy: Envoy,
    workers: Workers,
    keys: KeyServer,
    upstream: Upstream,
    gateway: Lane,
    bare: Lane,
    lives: Lives,
    signer: Mutex<(Signer, Instant)>,
    tokens: Mutex<Vec<Option<Token>>>,
    sent: AtomicU64,
    rotations: AtomicUsize,
    replaced: AtomicUsize,
}

/// The measurements in one time span.
struct Sample {
    memory: Memory,
    /// The workers' CPU time per pair of requests: one with the filter and one without.
    processor: Duration,
    /// Latencies of requests with a token, with the filter and without.
    filtered: Latency,
    bare: Latency,
    counters: BTreeMap<String, i64>,
}

#[derive(Clone, Copy)]
struct Latency {
    p50: Duration,
    p99: Duration,
}

impl Latency {
    fn of(mut times: Vec<Duration>) -> Latency {
        times.sort();
        let at = |share: usize| {
            times
                .get(times.len() * share / 100)
                .copied()
                .unwrap_or_default()
        };
        Latency {
            p50: at(50),
            p99: at(99),
        }
    }
}

/// The kind of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Forged,
    Expired,
    Bare,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_latency_stay_flat() {
    let time = Duration::from_secs(number("SOAK_SECONDS", 30));
    let world = Arc::new(World::start(Lives::of(time)).await);
    world.warm_up().await;
    // A span at each end; between them, load without measurement.
    let span = (time / 5).clamp(Duration::from_secs(5), Duration::from_secs(300));
    let rest = time.saturating_sub(span * 2);
    let first = world.run(span).await;
    if !rest.is_zero() {
        world.run(rest).await;
    }
    let last = world.run(span).await;
    world.report(&first, &last).await;
}

impl World {
    async fn start(lives: Lives) -> World {
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        let mut config = gateway_config();
        config["publicKeys"]["cacheTtlSeconds"] = json!(lives.ttl.as_secs());
        // A stall of the machine is not the filter's fault.
        config["publicKeys"]["timeoutMs"] = json!(10_000);
        let route = json!({"route": {"cluster": "upstream"}});
        let setup = Setup {
            concurrency: 2,
            // No log line for each denial, for an hour.
            log_level: "error",
            plugins: Vec::new(),
            listeners: vec![
                http_listener(
                    "gateway",
                    &[support::envoy::wasm_filter(&Plugin::new("gateway", config))],
                    &route,
                    json!({}),
                ),
                http_listener("bare", &[], &route, json!({})),
            ],
            ..Setup::new(
                &support::default_envoy(),
                upstream.address(),
                keys.address(),
            )
        };
        let envoy = Envoy::must_start(&setup).await;
        let gateway = Lane::to(envoy.listener("gateway").await.expect("the listener"));
        let bare = Lane::to(envoy.listener("bare").await.expect("the listener"));
        let signer = keys.signer(Answer::default());
        World {
            workers: Workers::of(envoy.process_id()),
            envoy,
            keys,
            upstream,
            gateway,
            bare,
            lives,
            signer: Mutex::new((signer, Instant::now())),
            tokens: Mutex::new((0..USERS).map(|_| None).collect()),
            sent: AtomicU64::new(0),
            rotations: AtomicUsize::new(0),
            replaced: AtomicUsize::new(0),
        }
    }

    /// Switches to a new key once the current one has signed long enough. Like a load balancer's,
    /// old keys stay published.
    fn rotate(&self) {
        let mut signer = self.signer.lock().expect("the key");
        if signer.1.elapsed() > self.lives.key {
            *signer = (self.keys.signer(Answer::default()), Instant::now());
            self.rotations.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn mint(&self, user: u32, kind: Kind) -> String {
        let (kid, key) = {
            let signer = &self.signer.lock().expect("the key").0;
            (signer.kid.clone(), signer.key.clone())
        };
        let seconds = if kind == Kind::Expired { -3600 } else { 120 };
        let spec = TokenSpec {
            exp: seconds,
            payload_exp: seconds,
            ..TokenSpec::of(&email(user))
        };
        spec.mint(
            &kid,
            &if kind == Kind::Forged {
                Key::generate()
            } else {
                key
            },
        )
        .text
    }

    /// The user's token; a new one if the old one is used up.
    fn token(&self, user: u32) -> String {
        let mut tokens = self.tokens.lock().expect("the tokens");
        match &mut tokens[user as usize] {
            Some(token) if token.since.elapsed() < self.lives.token => token.text.clone(),
            place => {
                self.replaced
                    .fetch_add(usize::from(place.is_some()), Ordering::Relaxed);
                let text = self.mint(user, Kind::User);
                place
                    .insert(Token {
                        text,
                        since: Instant::now(),
                    })
                    .text
                    .clone()
            }
        }
    }

    /// Sends new tokens as fast as possible until each worker has evicted the first.
    async fn warm_up(self: &Arc<World>) {
        let mut under_way = JoinSet::new();
        for number in 0..WARM_UP {
            load::at_most(AT_ONCE, &mut under_way).await;
            let world = Arc::clone(self);
            under_way.spawn(async move {
                let user = u32::try_from(number).expect("a user");
                let token = world.mint(user, Kind::User);
                world
                    .exchange(Protocol::Http1, user, Kind::User, Some(token))
                    .await;
            });
            if number % 100 == 0 {
                self.upstream.take_seen();
            }
        }
        load::at_most(0, &mut under_way).await;
        self.keys.forget_fetches();
    }

    async fn run(self: &Arc<World>, time: Duration) -> Sample {
        let (filtered, bare) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(Mutex::new(Vec::new())),
        );
        let mut under_way = JoinSet::new();
        let (began, mut rng) = (Instant::now(), Rng::new());
        let (used, mut pairs) = (self.workers.time(), 0);
        let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
        // Requests missed during a stall are not repeated.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while began.elapsed() < time {
            ticks.tick().await;
            self.rotate();
            let kind = match rng.u32(..100) {
                0..3 => Kind::Forged,
                3..5 => Kind::Expired,
                5..10 => Kind::Bare,
                _ => Kind::User,
            };
            let (user, protocol) = (
                rng.u32(..USERS),
                if rng.bool() {
                    Protocol::Http1
                } else {
                    Protocol::Http2
                },
            );
            let token = match kind {
                Kind::User => Some(self.token(user)),
                Kind::Bare => None,
                _ => Some(self.mint(user, kind)),
            };
            load::at_most(AT_ONCE, &mut under_way).await;
            pairs += 1;
            let (world, filtered, bare) =
                (Arc::clone(self), Arc::clone(&filtered), Arc::clone(&bare));
            under_way.spawn(async move {
                let with = world.exchange(protocol, user, kind, token.clone());
                let (with, without) = (with.await, world.exchange_bare(protocol, token).await);
                if kind == Kind::User {
                    filtered.lock().expect("the times").push(with);
                    bare.lock().expect("the times").push(without);
                }
            });
            // Each is also in its own answer.
            self.upstream.take_seen();
        }
        load::at_most(0, &mut under_way).await;
        let processor = (self.workers.time() - used) / pairs;
        let take = |times: &Mutex<Vec<Duration>>| {
            Latency::of(std::mem::take(&mut *times.lock().expect("the times")))
        };
        Sample {
            memory: Memory::of(&self.envoy).await,
            processor,
            filtered: take(&filtered),
            bare: take(&bare),
            counters: self.envoy.stats("wasm").await,
        }
    }

    /// Sends a request through the filter, and checks upstream's echo of the user.
    async fn exchange(
        &self,
        protocol: Protocol,
        user: u32,
        kind: Kind,
        token: Option<String>,
    ) -> Duration {
        let reply = match self
            .gateway
            .send(protocol, &request(token), Bytes::new(), None)
            .await
        {
            Outcome::Answered(reply) => reply,
            other => panic!("{other:?}"),
        };
        self.sent.fetch_add(1, Ordering::Relaxed);
        let expected = match kind {
            Kind::User => (200, format!("\"{}\"", email(user))),
            Kind::Forged => (401, "signature-invalid".to_owned()),
            Kind::Expired => (401, "token-expired".to_owned()),
            Kind::Bare => (401, "token-missing".to_owned()),
        };
        assert_eq!(reply.status, expected.0, "{}", reply.body);
        assert!(
            reply.body.contains(&expected.1) && !reply.body.contains("root"),
            "{} {}",
            expected.1,
            reply.body
        );
        reply.took
    }

    async fn exchange_bare(&self, protocol: Protocol, token: Option<String>) -> Duration {
        match self
            .bare
            .send(protocol, &request(token), Bytes::new(), None)
            .await
        {
            Outcome::Answered(reply) => reply.took,
            other => panic!("{other:?}"),
        }
    }

    async fn report(&self, first: &Sample, last: &Sample) {
        let count = |sample: &Sample, name: &str| {
            sample
                .counters
                .get(&format!("wasmcustom.wasm_filter.alb_oidc.{name}"))
                .copied()
                .unwrap_or(0)
        };
        let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let mut lines: Vec<(String, String, String)> = vec![
            (
                "resident".into(),
                mebibytes(first.memory.resident),
                mebibytes(last.memory.resident),
            ),
            (
                "Envoy's heap".into(),
                mebibytes(first.memory.heap),
                mebibytes(last.memory.heap),
            ),
        ];
        for (first, last) in first.memory.linear.iter().zip(&last.memory.linear) {
            lines.push((
                "linear memory of a VM".into(),
                mebibytes(*first),
                mebibytes(*last),
            ));
        }
        type Of = fn(&Sample) -> Duration;
        let times: [(&str, Of); 5] = [
            (
                "CPU time of a request with, and one without the filter",
                |sample| sample.processor,
            ),
            ("p50", |sample| sample.filtered.p50),
            ("p99", |sample| sample.filtered.p99),
            ("p50 without the filter", |sample| sample.bare.p50),
            ("p99 without the filter", |sample| sample.bare.p99),
        ];
        for (name, of) in times {
            lines.push((
                name.into(),
                format!("{:.2?}", of(first)),
                format!("{:.2?}", of(last)),
            ));
        }
        for name in last
            .counters
            .keys()
            .filter(|name| last.counters[*name] != 0)
        {
            let of = |sample: &Sample| sample.counters.get(name).copied().unwrap_or(0).to_string();
            lines.push((name.clone(), of(first), of(last)));
        }
        println!(
            "envoy {}: {} requests",
            support::version(&support::default_envoy()),
            self.sent.load(Ordering::Relaxed)
        );
        let replaced = self.rotations.load(Ordering::Relaxed);
        // Two workers may fetch a new key at the same time.
        let anew = self
            .keys
            .fetches()
            .iter()
            .filter(|fetch| fetch.again)
            .count()
            .saturating_sub(replaced);
        let happened = [
            ("keys that were replaced", replaced),
            ("fetches of a key that was known", anew),
            (
                "tokens that were replaced",
                self.replaced.load(Ordering::Relaxed),
            ),
        ];
        for (what, count) in happened {
            println!("{count} {what}");
        }
        println!("{:<60} {:>14} {:>14}", "", "at the start", "at the end");
        for (name, first, last) in &lines {
            println!("{name:<60} {first:>14} {last:>14}");
        }

        let flat = |what: &str, first: u64, last: u64, slack: u64| {
            assert!(
                last < first + slack,
                "{what} grew from {} to {}",
                mebibytes(first),
                mebibytes(last)
            );
        };
        flat(
            "resident memory",
            first.memory.resident,
            last.memory.resident,
            SLACK,
        );
        flat("Envoy's heap", first.memory.heap, last.memory.heap, SLACK);
        assert_eq!(first.memory.linear.len(), last.memory.linear.len(), "VMs");
        for (first, last) in first.memory.linear.iter().zip(&last.memory.linear) {
            flat("a VM's linear memory", *first, *last, LINEAR_SLACK);
            assert!(
                *last <= LINEAR,
                "a VM's linear memory is {}",
                mebibytes(*last)
            );
        }
        let grown = last.processor.as_secs_f64() / first.processor.as_secs_f64();
        assert!(
            grown < GROWTH,
            "the CPU time of a request has grown to {grown:.1} times"
        );
        for (what, count) in happened {
            assert!(count >= SEVERAL, "{count} {what}");
        }
        let denied: i64 = last
            .counters
            .iter()
            .filter(|(name, _)| name.contains(".denied."))
            .map(|(_, count)| count)
            .sum();
        let sent = i64::try_from(self.sent.load(Ordering::Relaxed)).expect("a count");
        assert_eq!(count(last, "admitted") + denied, sent, "requests counted");
        assert_eq!(count(last, "waiting"), 0, "requests that wait");
        let rebuilt: i64 = last
            .counters
            .iter()
            .filter(|(name, _)| name.contains(".vm_reload"))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(rebuilt, 0, "VMs rebuilt");
        assert!(
            !self.envoy.log().contains("/wasm_vm.cc:"),
            "{}",
            self.envoy.log()
        );
    }
}

fn email(user: u32) -> String {
    format!("user-{user}@example.com")
}

fn request(token: Option<String>) -> Request {
    let mut headers = vec![("host", "gateway.test"), ("kubeflow-groups", "root")];
    headers.extend(
        token
            .as_ref()
            .map(|token| ("x-amzn-oidc-data", token.as_str())),
    );
    Request::get("/", &headers)
}
