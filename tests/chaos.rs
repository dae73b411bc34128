//! Many faults at once on a real Envoy with two workers: a misbehaving key server, key rotation,
//! clients that hang up, repeated configuration updates, bodies and WebSockets, mixed with requests
//! of well-behaved users. The ledger then compares what each client sent with its answer, the
//! request upstream, the access log and the counters.
//!
//! `CHAOS_REQUESTS` and `CHAOS_SEED` set the number of requests and the random seed. `make chaos`
//! sends 20,000.

#[path = "chaos/ledger.rs"]
mod ledger;
use support::load;

use fastrand::Rng;
use hyper::body::Bytes;
use ledger::{Ledger, Sent};
use load::memory::Memory;
use load::{Lane, Outcome, Protocol, number};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::client::{Request, WEBSOCKET, send_upgrade};
use support::envoy::{Envoy, Plugin, Setup, gateway_config, http_listener, write_listeners};
use support::key_server::{Answer, Fault, KeyServer, Signer};
use support::token::{Key, TokenSpec};
use support::upstream::{ANSWER_BYTES, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

/// New requests a second.
const RATE: u64 = 220;
/// The most requests under way at once. A slow machine gets fewer a second.
const AT_ONCE: usize = 128;
const USERS: u32 = 500;
/// A user's token is reused up to this age.
const TOKEN_LIVES: Duration = Duration::from_secs(60);
/// The time-out of a fetch. A request waits three times as long.
const TIMEOUT_MS: u64 = 500;
/// After an outage, the token buckets need this long to refill before every new key is fetched at
/// once.
const RECOVERY: Duration = Duration::from_secs(10);

/// The kind of a request, apart from its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    /// By a user whose key every worker has.
    Steady,
    /// By a user whose key was just published.
    Rotated,
    /// By a user whose key was published under the id of another key, which may have replaced it
    /// since.
    Swapped,
    /// By a user whose key the key server serves with one of [`FAULTS`].
    Faulty(usize),
    /// With a key id that does not exist.
    Invented,
    /// With a known key's id and another key's signature.
    Forged,
    Expired,
    /// By another load balancer.
    Foreign,
    /// Without a token.
    Bare,
    /// For a path that needs no token.
    Open,
}

/// A misbehaviour: its name, how the key is served, and the users' possible answers.
type Misbehaviour = (&'static str, fn() -> Answer, &'static [&'static str]);

const FAULTS: [Misbehaviour; 12] = [
    (
        "recovers",
        || Answer {
            times: Some(1),
            ..answer(500, "")
        },
        &["admitted"],
    ),
    ("not found", || answer(404, "not found"), &["key-not-found"]),
    (
        "another P-256 key",
        || answer(200, "{other}"),
        &["signature-invalid"],
    ),
    (
        "RSA key",
        || answer(200, "{file:rsa-2048}"),
        &["key-invalid"],
    ),
    (
        "slow",
        || Answer {
            delay_ms: 300,
            ..Answer::default()
        },
        &["admitted"],
    ),
    (
        "garbage",
        || answer(200, "\u{0}\u{7f}garbage{pem}garbage"),
        &["key-invalid"],
    ),
    (
        "server error",
        || answer(500, "{pem}"),
        &["key-unavailable"],
    ),
    (
        "40 MB",
        || Answer {
            size: 40_000_000,
            ..Answer::default()
        },
        &["key-unavailable", "key-invalid"],
    ),
    ("resets", || broken(Fault::Close), &["key-unavailable"]),
    ("cut off", || broken(Fault::CutOff), &["key-unavailable"]),
    (
        "a byte a second",
        || Answer {
            byte_ms: 1000,
            ..broken(Fault::Trickle)
        },
        &["key-unavailable"],
    ),
    ("hangs", || broken(Fault::Hang), &["key-unavailable"]),
];

fn broken(fault: Fault) -> Answer {
    Answer {
        fault: Some(fault),
        ..Answer::default()
    }
}

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status,
        body: body.into(),
        ..Answer::default()
    }
}

/// A listener: its name, its share of the requests, and the weight of each kind of request.
type Listener = (&'static str, usize, &'static [(Kind, usize)]);

/// The listener without the filter, and the path of requests that measure the machine's speed.
const BARE: &str = "bare";
const PROBE: &str = "/probe";
/// The size of these requests and answers, and the number under way at once.
const PROBE_BYTES: usize = 16 << 10;
const PROBES: usize = 4;
const FAULTY: Kind = Kind::Faulty(0);
const LISTENERS: [Listener; 4] = [
    // Keys are used for two seconds only, so an outage of the key server is many TTLs long.
    ("known", 10, &[(Kind::Steady, 1)]),
    (
        "calm",
        40,
        &[
            (Kind::Steady, 50),
            (Kind::Rotated, 20),
            (Kind::Forged, 8),
            (Kind::Expired, 5),
            (Kind::Foreign, 4),
            (Kind::Bare, 5),
            (Kind::Open, 8),
        ],
    ),
    // Its fetches compete for tokens.
    (
        "storm",
        30,
        &[
            (Kind::Steady, 40),
            (FAULTY, 45),
            (Kind::Swapped, 10),
            (Kind::Forged, 5),
        ],
    ),
    // Its configuration is replaced.
    (
        "moving",
        20,
        &[
            (Kind::Steady, 50),
            (FAULTY, 35),
            (Kind::Invented, 5),
            (Kind::Bare, 10),
        ],
    ),
];

/// The form of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Upload(usize),
    Download(usize),
    WebSocket,
}

/// The keys in use.
struct Signers {
    steady: Arc<Signer>,
    rotated: VecDeque<Arc<Signer>>,
    /// Two keys with one key id.
    swapped: [Arc<Signer>; 2],
    faulty: VecDeque<(usize, Arc<Signer>)>,
    stranger: Arc<Signer>,
}

struct World {
    seed: u64,
    requests: usize,
    envoy: Envoy,
    keys: KeyServer,
    upstream: Upstream,
    lanes: HashMap<&'static str, Lane>,
    signers: Mutex<Signers>,
    /// Reused tokens, by user and key.
    tokens: Mutex<HashMap<(u32, String), (String, Instant)>>,
    ledger: Mutex<Ledger>,
    /// The number of started requests.
    begun: AtomicUsize,
    /// True while the key server is down, and until the token buckets are full again.
    disturbed: AtomicBool,
    messages: AtomicUsize,
    /// The longest time that a request to the listener without the filter took.
    slowest: Mutex<Duration>,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

/// Each plugin has its own key server name, to tell their fetches apart.
fn config(listener: &str, ttl_seconds: u64, timeout_ms: u64) -> Value {
    let mut config = gateway_config();
    config["publicKeys"]["endpoint"] = json!(format!("https://{}", ledger::key_host(listener)));
    config["publicKeys"]["timeoutMs"] = json!(timeout_ms);
    config["publicKeys"]["cacheTtlSeconds"] = json!(ttl_seconds);
    config["rules"] = json!([{"match": {"paths": [{"prefix": "/open/"}]}, "require": "none"}]);
    config["accessLog"] = json!({"user": true});
    config
}

fn moving(version: u64) -> Plugin {
    Plugin::new(
        "moving",
        config("moving", 86_400, TIMEOUT_MS - version % 3 * 50),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_and_identities_stay_correct_under_faults() {
    let seed = number("CHAOS_SEED", fastrand::u64(..1_000_000));
    let requests = usize::try_from(number("CHAOS_REQUESTS", 3500)).expect("a number of requests");
    println!("seed {seed}: CHAOS_SEED={seed} CHAOS_REQUESTS={requests} draws the same again");
    let world = Arc::new(World::start(seed, requests).await);
    world.warm_up().await;
    let before = Memory::of(&world.envoy).await;
    let director = tokio::spawn(direct(Arc::clone(&world)));
    let probes: Vec<_> = (0..PROBES)
        .map(|_| tokio::spawn(probe(Arc::clone(&world))))
        .collect();
    let mut half = None;
    let mut running = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    for number in 0..requests {
        ticks.tick().await;
        let rng = Rng::with_seed(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .wrapping_add(number as u64),
        );
        load::at_most(AT_ONCE, &mut running).await;
        world.begun.store(number, Ordering::Relaxed);
        running.spawn(Arc::clone(&world).request(rng));
        if number % 100 == 0 {
            let seen = world.upstream.take_seen();
            world.ledger.lock().expect("the ledger").arrived(seen);
        }
        if number == requests / 2 {
            half = Some(Memory::of(&world.envoy).await);
        }
    }
    load::at_most(0, &mut running).await;
    director.abort();
    world.keys.set_outage(None);
    world.catch_up().await;
    probes.iter().for_each(JoinHandle::abort);
    let took = began.elapsed();
    world.lanes.values().for_each(Lane::close);
    world.balance(took, &[before, half.expect("a half")]).await;
}

impl World {
    async fn start(seed: u64, requests: usize) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("listeners.json");
        write_listeners(&file, 1, &[moving(0)]);
        let (keys, upstream) = (KeyServer::start().await, Upstream::start().await);
        let setup = Setup {
            concurrency: 2,
            // One line for each denial.
            log_level: "info",
            plugins: [("known", 2), ("calm", 60), ("storm", 3)]
                .map(|(name, ttl)| Plugin::new(name, config(name, ttl, TIMEOUT_MS)))
                .into(),
            listeners: vec![http_listener(
                BARE,
                &[],
                &json!({"route": {"cluster": "upstream"}}),
                json!({}),
            )],
            drain: Duration::from_secs(30),
            watched_listeners: Some(file.clone()),
            ..Setup::new(
                &support::default_envoy(),
                upstream.address(),
                keys.address(),
            )
        };
        let envoy = Envoy::must_start(&setup).await;
        let steady = Arc::new(Signer::new());
        keys.publish(&steady.path(), &steady.key, Answer::default());
        let one = Signer::new();
        let other = Signer {
            kid: one.kid.clone(),
            key: Key::generate(),
        };
        keys.publish(&one.path(), &one.key, Answer::default());
        let stranger = Arc::new(Signer {
            kid: steady.kid.clone(),
            key: Key::generate(),
        });
        let signers = Signers {
            steady,
            rotated: VecDeque::new(),
            swapped: [Arc::new(one), Arc::new(other)],
            faulty: VecDeque::new(),
            stranger,
        };
        let mut lanes = HashMap::new();
        for name in LISTENERS
            .map(|listener| listener.0)
            .into_iter()
            .chain([BARE])
        {
            let mut address = None;
            while address.is_none() {
                address = envoy.listener(name).await;
            }
            lanes.insert(name, Lane::to(address.expect("the listener")));
        }
        let world = World {
            seed,
            requests,
            envoy,
            keys,
            upstream,
            lanes,
            signers: Mutex::new(signers),
            tokens: Mutex::default(),
            ledger: Mutex::default(),
            begun: AtomicUsize::new(0),
            disturbed: AtomicBool::new(false),
            messages: AtomicUsize::new(0),
            slowest: Mutex::default(),
            file,
            _folder: folder,
        };
        world.rotate();
        world.misbehave(0);
        world
    }

    /// Makes every worker fetch the steady key on each listener: the kernel chooses the worker for
    /// each connection.
    async fn warm_up(self: &Arc<World>) {
        for (listener, ..) in LISTENERS {
            for _ in 0..40 {
                let (id, request, _) =
                    self.prepare(&mut Rng::with_seed(0), Kind::Steady, Form::Plain);
                let lane = Lane::to(self.lanes[listener].address);
                let outcome = lane
                    .send(Protocol::Http1, &request, Bytes::new(), None)
                    .await;
                self.ledger
                    .lock()
                    .expect("the ledger")
                    .came(id, outcome, "warm-up".into());
            }
        }
    }

    /// Publishes a new key.
    fn rotate(&self) {
        let signer = Arc::new(Signer::new());
        self.keys
            .publish(&signer.path(), &signer.key, Answer::default());
        push(
            &mut self.signers.lock().expect("the keys").rotated,
            signer,
            5,
        );
    }

    /// Publishes a key with one of [`FAULTS`].
    fn misbehave(&self, fault: usize) {
        let signer = Arc::new(Signer::new());
        self.keys
            .publish(&signer.path(), &signer.key, FAULTS[fault].1());
        push(
            &mut self.signers.lock().expect("the keys").faulty,
            (fault, signer),
            2,
        );
    }

    /// Repeats the misbehaviours that affected no request, because the key server was down or no
    /// token was left. Now they come one by one, without competition for tokens.
    async fn catch_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        for fault in 0..FAULTS.len() {
            while !self
                .ledger
                .lock()
                .expect("the ledger")
                .felt(fault, &self.keys)
                && Instant::now() < deadline
            {
                self.signers.lock().expect("the keys").faulty.clear();
                self.misbehave(fault);
                let (id, request, _) = self.prepare(&mut Rng::with_seed(0), FAULTY, Form::Plain);
                let outcome = self.lanes["calm"]
                    .send(Protocol::Http1, &request, Bytes::new(), None)
                    .await;
                self.ledger
                    .lock()
                    .expect("the ledger")
                    .came(id, outcome, "catching up".into());
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// Draws one request, sends it, and records it in the ledger.
    async fn request(self: Arc<World>, mut rng: Rng) {
        let (listener, _, kinds) = *weighted(
            &mut rng,
            LISTENERS.iter().map(|listener| (listener, listener.1)),
        );
        let kind = weighted(&mut rng, kinds.iter().copied());
        let form = match rng.u32(..100) {
            0..2 => Form::Upload(rng.usize(1..(1 << 20))),
            2..5 => Form::Download(rng.usize(1..(1 << 20))),
            5..8 => Form::WebSocket,
            _ => Form::Plain,
        };
        let lane = &self.lanes[listener];
        let (id, request, body) = self.prepare(&mut rng, kind, form);
        // Mostly waiting clients lose their patience.
        let waits = matches!(
            kind,
            Kind::Faulty(_) | Kind::Invented | Kind::Rotated | Kind::Swapped
        );
        let hangs_up = (form != Form::WebSocket && rng.u32(..100) < if waits { 25 } else { 2 })
            .then(|| Duration::from_millis(rng.u64(1..800)));
        let protocol = if rng.bool() {
            Protocol::Http1
        } else {
            Protocol::Http2
        };
        let outcome = match form {
            Form::WebSocket => self.talk(lane, &request, &mut rng).await,
            _ => lane.send(protocol, &request, body.into(), hangs_up).await,
        };
        let how = format!("{listener}, {protocol:?}, {form:?}");
        self.ledger
            .lock()
            .expect("the ledger")
            .came(id, outcome, how);
    }

    /// Opens a WebSocket, and exchanges a few messages if it is accepted.
    async fn talk(&self, lane: &Lane, request: &Request, rng: &mut Rng) -> Outcome {
        let (reply, connection) = match send_upgrade(lane.address, request).await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Broken(error),
        };
        let Some(mut connection) = connection else {
            return Outcome::Answered(reply);
        };
        for _ in 0..rng.usize(1..6) {
            let message: Vec<u8> = (0..rng.usize(1..2000)).map(|_| rng.u8(..)).collect();
            let mut echo = vec![0; message.len()];
            let exchange = async {
                connection.write_all(&message).await?;
                connection.read_exact(&mut echo).await
            };
            match tokio::time::timeout(load::PATIENCE, exchange).await {
                Ok(Ok(_)) if echo == message => self.messages.fetch_add(1, Ordering::Relaxed),
                other => return Outcome::Broken(format!("a message over a WebSocket: {other:?}")),
            };
            tokio::time::sleep(Duration::from_millis(rng.u64(..300))).await;
        }
        Outcome::Answered(reply)
    }

    /// A request, recorded in the ledger as sent, and its body.
    fn prepare(&self, rng: &mut Rng, mut kind: Kind, form: Form) -> (usize, Request, String) {
        let user = rng.u32(..USERS);
        let signer = {
            let signers = self.signers.lock().expect("the keys");
            match kind {
                Kind::Rotated => Arc::clone(&signers.rotated[rng.usize(..signers.rotated.len())]),
                Kind::Swapped => Arc::clone(&signers.swapped[rng.usize(..2)]),
                Kind::Faulty(_) => {
                    let (fault, signer) = &signers.faulty[rng.usize(..signers.faulty.len())];
                    kind = Kind::Faulty(*fault);
                    Arc::clone(signer)
                }
                Kind::Invented => Arc::new(Signer {
                    kid: uuid::Uuid::new_v4().to_string(),
                    key: signers.steady.key.clone(),
                }),
                Kind::Forged => Arc::clone(&signers.stranger),
                _ => Arc::clone(&signers.steady),
            }
        };
        let email = format!("user-{user}@example.com");
        let mut spec = TokenSpec::of(&email);
        let token = match kind {
            Kind::Bare | Kind::Open => None,
            Kind::Expired => {
                spec = TokenSpec {
                    exp: -3600,
                    payload_exp: -3600,
                    ..spec
                };
                Some(spec.mint(&signer.kid, &signer.key).text)
            }
            Kind::Foreign => {
                let another = "arn:aws:elasticloadbalancing:us-west-2:999999999999:loadbalancer/app/evil/50dc6c495c0c9188";
                spec.header.insert("signer".into(), json!(another));
                Some(spec.mint(&signer.kid, &signer.key).text)
            }
            Kind::Steady | Kind::Rotated if rng.u32(..100) < 60 => {
                let mut tokens = self.tokens.lock().expect("the tokens");
                let mint = || (spec.mint(&signer.kid, &signer.key).text, Instant::now());
                let token = tokens
                    .entry((user, signer.kid.clone()))
                    .or_insert_with(mint);
                if token.1.elapsed() > TOKEN_LIVES {
                    *token = mint();
                }
                Some(token.0.clone())
            }
            _ => Some(spec.mint(&signer.kid, &signer.key).text),
        };
        let genuine = token.is_some()
            && !matches!(
                kind,
                Kind::Forged | Kind::Expired | Kind::Foreign | Kind::Invented
            );
        let body = match form {
            Form::Upload(size) => "u".repeat(size),
            _ => String::new(),
        };
        let id = self.ledger.lock().expect("the ledger").send(Sent {
            kind,
            websocket: form == Form::WebSocket,
            may_be: genuine.then_some(email),
            key: (signer.path(), signer.key.pem()),
            uploads: body.len(),
            downloads: if let Form::Download(size) = form {
                Some(size)
            } else {
                None
            },
            disturbed: self.disturbed.load(Ordering::Relaxed),
            outcome: None,
            how: String::new(),
        });
        let place = if kind == Kind::Open { "/open" } else { "" };
        let number = id.to_string();
        let mut headers = vec![("host", "gateway.test"), ("x-row", &number)];
        headers.extend(
            token
                .as_ref()
                .map(|token| ("x-amzn-oidc-data", token.as_str())),
        );
        let size = match form {
            Form::Upload(_) => "0".to_owned(),
            Form::Download(size) => size.to_string(),
            _ => String::new(),
        };
        if !size.is_empty() {
            headers.push((ANSWER_BYTES, &size));
        }
        if form == Form::WebSocket {
            headers.extend(WEBSOCKET);
        }
        if rng.u32(..100) < 40 {
            headers.extend(ledger::SPOOFED.map(|name| (name, "root")));
        }
        let method = if matches!(form, Form::Upload(_)) {
            "POST"
        } else {
            "GET"
        };
        let request = Request {
            method: method.into(),
            ..Request::get(&format!("{place}/{id}"), &headers)
        };
        (id, request, body)
    }
}

/// Measures how long the machine delays requests without the filter: each on a new connection, so
/// that the kernel spreads them over the workers, and through upstream with a body both ways.
async fn probe(world: Arc<World>) {
    let size = PROBE_BYTES.to_string();
    let request = Request::get(PROBE, &[("host", "gateway.test"), (ANSWER_BYTES, &size)]);
    let request = Request {
        method: "POST".into(),
        ..request
    };
    loop {
        let began = Instant::now();
        let lane = Lane::to(world.lanes[BARE].address);
        lane.send(
            Protocol::Http1,
            &request,
            Bytes::from_static(&[b'p'; PROBE_BYTES]),
            None,
        )
        .await;
        {
            let mut slowest = world.slowest.lock().expect("the longest wait");
            *slowest = began.elapsed().max(*slowest);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Rotates keys, lets the key server misbehave and fail, and replaces the configuration, until it
/// is stopped. It counts requests instead of seconds, so a slow machine rotates as many keys for as
/// many requests, and tokens suffice.
async fn direct(world: Arc<World>) {
    let mut rng = Rng::with_seed(world.seed);
    let whole = Duration::from_secs_f64(world.requests as f64 / RATE as f64);
    let share = |of: f64, least_ms: u64| whole.mul_f64(of).max(Duration::from_millis(least_ms));
    // Two rounds of each fault.
    let (fault_turn, rotation, swap, reload) = (
        share(0.5 / FAULTS.len() as f64, 400),
        share(0.02, 600),
        share(0.04, 500),
        share(0.05, 1000),
    );
    // Longer than the shortest TTL and the longest wait together.
    let outage = (whole.mul_f64(0.4), whole.mul_f64(0.4) + share(0.2, 6000));
    let elapsed =
        || Duration::from_secs_f64(world.begun.load(Ordering::Relaxed) as f64 / RATE as f64);
    let due =
        |count: u64, every: Duration| elapsed().as_secs_f64() > count as f64 * every.as_secs_f64();
    let (mut faults, mut rotations, mut swaps, mut reloads) = (1, 1, 1, 1);
    let mut is_down = false;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = elapsed();
        let down = now > outage.0 && now < outage.1;
        if down != is_down {
            is_down = down;
            let modes = [
                broken(Fault::Hang),
                broken(Fault::Close),
                answer(500, "down"),
            ];
            world
                .keys
                .set_outage(down.then(|| modes[rng.usize(..modes.len())].clone()));
        }
        let nearly = Duration::from_secs(2);
        world.disturbed.store(
            now + nearly > outage.0 && now < outage.1 + RECOVERY,
            Ordering::Relaxed,
        );
        if due(faults, fault_turn) {
            world.misbehave(usize::try_from(faults).expect("a few") % FAULTS.len());
            faults += 1;
        }
        if due(rotations, rotation) {
            world.rotate();
            rotations += 1;
        }
        if due(swaps, swap) {
            let signers = world.signers.lock().expect("the keys");
            let next = &signers.swapped[usize::try_from(swaps % 2).expect("one of two")];
            world
                .keys
                .publish(&next.path(), &next.key, Answer::default());
            swaps += 1;
        }
        if due(reloads, reload) {
            write_listeners(
                &world.file,
                u32::try_from(reloads).expect("a few") + 1,
                &[moving(reloads)],
            );
            reloads += 1;
        }
    }
}

fn weighted<T>(rng: &mut Rng, choices: impl Iterator<Item = (T, usize)> + Clone) -> T {
    let all: usize = choices.clone().map(|(_, weight)| weight).sum();
    let mut drawn = rng.usize(..all);
    let mut is_it = |weight| {
        let found = drawn < weight;
        drawn = drawn.saturating_sub(weight);
        found
    };
    choices
        .into_iter()
        .find(|(_, weight)| is_it(*weight))
        .expect("less than all of them")
        .0
}

/// Appends one, and drops the oldest if there are more than `most`.
fn push<T>(queue: &mut VecDeque<T>, one: T, most: usize) {
    queue.push_back(one);
    if queue.len() > most {
        queue.pop_front();
    }
}
