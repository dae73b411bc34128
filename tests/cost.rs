//! The cost of a request, in values that do not depend on the machine's load: instructions of the
//! compiled module, counted by an interpreter; host calls; copied bytes; memory; and how long one
//! entry occupies the worker. `make bench` measures time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use support::envoy::gateway_config;
use support::module::{Fate, Headers, Meter, Process, Response, Vm, headers};
use support::token::{ARN, CLIENT, ISSUER, Key, TokenSpec, now};

const MIB: usize = 1 << 20;
/// The size of a token of a user with few claims.
const TOKEN_BYTES: usize = 1200;
const KID: &str = "31d3e334-9a02-440a-867b-356248ecfb7d";

/// The host calls for a request with a cached token.
const CALLS: [(&str, u64); 6] = [
    ("proxy_get_header_map_pairs", 1),
    ("proxy_get_current_time_nanoseconds", 1),
    // The token and the user's plain-text name.
    ("proxy_remove_header_map_value", 2),
    ("proxy_replace_header_map_value", 1),
    ("proxy_increment_metric", 2),
    ("proxy_set_property", 1),
];

/// A worker with the key in its cache.
struct Worker {
    process: Rc<RefCell<Process>>,
    vm: Vm,
    root: u32,
    key: Key,
}

impl Worker {
    fn start() -> Worker {
        Worker::of(Key::generate(), &gateway_config(), &[])
    }

    /// A worker with this config and these environment variables, in the region where this key
    /// signs.
    fn of(key: Key, config: &Value, environment: &[(&str, &str)]) -> Worker {
        Worker::taking(key, config, environment).expect("a config that is taken")
    }

    /// As [`Worker::of`]; `None` if the config is rejected.
    fn taking(key: Key, config: &Value, environment: &[(&str, &str)]) -> Option<Worker> {
        let wall = Duration::from_secs(u64::try_from(now()).expect("a time after 1970"));
        let process = Process::at(wall, Duration::from_secs(1000));
        let mut vm = Vm::start(&process, environment);
        let root = vm.add_plugin(&config.to_string())?;
        Some(Worker {
            process,
            vm,
            root,
            key,
        })
    }

    fn with_key() -> Worker {
        Worker::start().with_key_cached()
    }

    fn with_key_cached(mut self) -> Worker {
        let waiting = self.send(&self.token(0));
        self.fetch();
        assert_eq!(self.vm.end(waiting).fate, Fate::Continued);
        self.vm.take_meter();
        self
    }

    fn token(&self, user: usize) -> String {
        let token = spec(user).mint(KID, &self.key).text;
        assert!(
            token.len().abs_diff(TOKEN_BYTES) < 60,
            "{} bytes",
            token.len()
        );
        token
    }

    /// A browser's request, as forwarded by an ALB.
    fn head(token: &str) -> Headers {
        headers(&[
            (":authority", "kubeflow.example.com"),
            (":path", "/pipeline/apis/v2beta1/runs?page_size=10"),
            (":method", "GET"),
            (":scheme", "https"),
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
            (
                "x-amzn-trace-id",
                "Root=1-67891233-abcdef012345678912345678",
            ),
            (
                "x-amzn-oidc-identity",
                "0e14d7a4-1a2b-4c3d-8e9f-000000000000",
            ),
            ("x-amzn-oidc-data", token),
            (
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            ),
            ("accept", "application/json"),
            ("accept-language", "en-GB,en;q=0.5"),
            ("x-request-id", "7b0dd4f5-8b3c-4d4b-9d3a-6f0b9b7d4a11"),
        ])
    }

    fn send(&mut self, token: &str) -> u32 {
        self.vm.request(self.root, Worker::head(token))
    }

    /// Sends a request with this token, which must be admitted.
    fn pass(&mut self, token: &str) {
        let id = self.send(token);
        let stream = self.vm.end(id);
        assert_eq!(stream.fate, Fate::Continued);
    }

    /// Answers the fetch of the key.
    fn fetch(&mut self) {
        self.process.borrow_mut().steady += Duration::from_millis(1);
        self.vm.tick(self.root);
        let call = *self.vm.calls().keys().next().expect("a fetch");
        self.vm
            .answer(call, Some(Response::new(200, self.key.pem())));
    }

    fn cost(&mut self, token: &str) -> Meter {
        self.vm.take_meter();
        self.pass(token);
        self.vm.take_meter()
    }

    /// The instructions to deny a request for this path without a token.
    fn without_a_token(&mut self, path: &str) -> u64 {
        self.vm.take_meter();
        let head = [
            (":authority", "a.example.com"),
            (":path", path),
            (":method", "GET"),
            (":scheme", "https"),
        ];
        let id = self.vm.request(self.root, headers(&head));
        self.vm.end(id);
        self.vm.take_meter().fuel
    }

    /// The instructions to deny this token.
    fn denial(&mut self, token: &str) -> u64 {
        self.vm.take_meter();
        let id = self.send(token);
        let stream = self.vm.end(id);
        assert!(
            matches!(stream.fate, Fate::Answered(_)),
            "{:?}",
            stream.fate
        );
        self.vm.take_meter().fuel
    }
}

fn spec(user: usize) -> TokenSpec {
    let mut spec = TokenSpec::of(&format!("user-{user:06}@example.com"));
    (spec.exp, spec.payload_exp) = (3600, 3600);
    spec.payload
        .insert("profile".into(), Value::from("x".repeat(310)));
    spec
}

/// Checks entries and host calls exactly, and the instructions against a bound. The bound leaves a
/// fifth for differences between toolchains.
fn assert_cost(found: &Meter, calls: &[(&str, u64)], most_instructions: u64) {
    assert_eq!(
        found
            .calls
            .iter()
            .map(|(name, count)| (*name, *count))
            .collect::<BTreeMap<_, _>>(),
        calls.iter().copied().collect()
    );
    println!("{} instructions", found.fuel);
    // Create, decide, delete.
    assert_eq!(found.entries, 3, "{found:?}");
    assert!(
        found.fuel <= most_instructions,
        "{} instructions, expected at most {most_instructions}",
        found.fuel
    );
    assert!(
        found.fuel * 2 > most_instructions,
        "{} instructions: lower the bound of {most_instructions}",
        found.fuel
    );
}

#[test]
fn cached_token_takes_eight_host_calls_and_one_copy() {
    let mut worker = Worker::with_key();
    let token = worker.token(1);
    worker.pass(&token);
    let found = worker.cost(&token);
    assert_cost(&found, &CALLS, 30_000);
    let head: usize = Worker::head(&token)
        .iter()
        .map(|(name, value)| name.len() + value.len() + 10)
        .sum();
    let clock = size_of::<u64>();
    assert!(
        found.bytes_in <= (head + clock + 64) as u64,
        "{} bytes copied of a head of {head}",
        found.bytes_in
    );
    assert!(
        found.bytes_out < 256,
        "{} bytes copied to the host",
        found.bytes_out
    );
}

#[test]
fn new_token_takes_two_more_host_calls() {
    let mut worker = Worker::with_key();
    let token = worker.token(1);
    let found = worker.cost(&token);
    // The steady clock, for the key's age.
    let more = [("proxy_call_foreign_function", 1), ("clock_time_get", 1)];
    let calls = [&CALLS[..], &more].concat();
    assert_cost(&found, &calls, 230_000);
    assert!(
        found.bytes_out < token.len() as u64 + 512,
        "{} bytes copied to the host",
        found.bytes_out
    );
}

#[test]
fn forged_token_costs_less_than_a_valid_one() {
    let mut worker = Worker::with_key();
    let good = worker.token(1);
    let good = worker.cost(&good);
    let stranger = Key::generate();
    let forged = TokenSpec::of("root@example.com").mint(KID, &stranger).text;
    worker.vm.take_meter();
    let id = worker.send(&forged);
    assert_eq!(
        worker.vm.end(id).reason().as_deref(),
        Some("signature-invalid")
    );
    let forged = worker.vm.take_meter();
    assert!(
        forged.fuel < good.fuel,
        "{} instructions, {} for a good token",
        forged.fuel,
        good.fuel
    );
}

/// The most instructions in regexes. Measured on Envoy 1.36 and 1.40 with the most expensive
/// regexes below: 17.1 million in 0.67 ms, and 10.9 million in 0.60 ms.
const REGEX_FUEL: u64 = 18_000_000;

/// The slowest regexes for their compiled size, at the largest allowed size, on the longest paths
/// that they are tried on.
#[test]
fn regexes_take_less_than_a_millisecond() {
    type Make = fn(usize) -> Vec<String>;
    let costly: [(&str, Make); 10] = [
        ("bounded class", |count| {
            vec![format!("[a-z0-9.-]{{1,{count}}}/healthz$")]
        }),
        ("bounded negation", |count| {
            vec![format!("[^/]{{1,{count}}}xN")]
        }),
        ("options", |count| vec![format!("(?:a?){{{count}}}x")]),
        ("alternation", |count| {
            vec![format!("(?:{}|a)*x", vec!["1"; count].join("|"))]
        }),
        ("literal", |count| vec![format!("{}2", "1".repeat(count))]),
        ("stars", |count| vec![format!("{}2", "1*".repeat(count))]),
        ("any", |count| vec![format!("{}x", ".*".repeat(count))]),
        ("looks", |count| {
            vec![format!("{}1.*x", r"(?:\b|\B)".repeat(count))]
        }),
        ("anchored", |count| {
            vec!["^/v[0-9]+/ready$".to_owned(); count]
        }),
        ("short", |count| vec!["q".to_owned(); count]),
    ];
    let worker = |regexes: &[String]| {
        let paths: Vec<_> = regexes
            .iter()
            .map(|regex| json!({"regex": regex}))
            .collect();
        let mut config = gateway_config();
        config["rules"] = json!([{"match": {"paths": paths}, "require": "none"}]);
        Worker::taking(Key::generate(), &config, &[])
    };
    let (mut without, mut most) = (Worker::start(), 0);
    for (name, make) in costly {
        let counts: Vec<_> = (1..200).collect();
        let count = counts.partition_point(|count| worker(&make(*count)).is_some());
        assert!(
            (1..199).contains(&count),
            "{name}: {count} times is the most that is taken"
        );
        let largest = make(count);
        // A small regex is tried on longer paths.
        for mut worker in [largest, make(2)]
            .into_iter()
            .filter_map(|regexes| worker(&regexes))
        {
            let plain = [170, 240, 300, 400, 500, 700, 1000, 1400, 2040]
                .into_iter()
                .flat_map(|length| {
                    [("/a", "a"), ("/1", "1"), ("/v1", "1")]
                        .map(|(start, text)| format!("{start}{}", text.repeat(length)))
                });
            let odd = ["a;x/%2e%2e/b//c", "1;1%2f1//1/../1", "%25252e;1"]
                .map(|path| format!("/{path}{}", "1".repeat(20)));
            for path in plain.chain(odd) {
                let fuel = worker
                    .without_a_token(&path)
                    .saturating_sub(without.without_a_token(&path));
                let bytes = path.len();
                assert!(
                    fuel < REGEX_FUEL,
                    "{name}, {count} times: {fuel} instructions for {bytes} bytes: {path:.30}"
                );
                most = most.max(fuel);
            }
        }
    }
    println!("{most} instructions");
    assert!(
        most * 2 > REGEX_FUEL,
        "{most} instructions: lower the bound of {REGEX_FUEL}"
    );
}

/// Regexes run on any path before a client is authenticated.
#[test]
fn no_path_occupies_the_worker_for_long() {
    let patterns = ["/api/[a-z]+/admin$", "^/(health|ready)z?$", r"\.(css|js)$"];
    let rules =
        patterns.map(|regex| json!({"match": {"paths": [{"regex": regex}]}, "require": "none"}));
    let mut config = gateway_config();
    config["rules"] = json!(rules);
    let mut worker = Worker::of(Key::generate(), &config, &[]);
    for (path, length) in [
        ("/", 400),
        ("/", 2047),
        ("/", 60_000),
        ("/a%20b", 1000),
        ("//a;x/%2e%2e", 1000),
        ("/a;x/%2e%2e/b//c", 40),
        ("/a;x/%2e%2e/b//c", 1000),
        ("/%25252e;x\\", 200),
    ] {
        let path = format!("{path}{}", "a".repeat(length));
        let fuel = worker.without_a_token(&path);
        assert!(
            fuel < 16_000_000,
            "{fuel} instructions for {} bytes: {path:.30}",
            path.len()
        );
    }
}

#[test]
fn module_verification_takes_thirty_times_as_long() {
    let mut worker = Worker::of(
        Key::generate(),
        &gateway_config(),
        &[("ALB_OIDC_VERIFIER", "module")],
    )
    .with_key_cached();
    let token = worker.token(1);
    let found = worker.cost(&token);
    let calls = [&CALLS[..], &[("clock_time_get", 1)]].concat();
    assert_cost(&found, &calls, 8_000_000);
}

/// Two workers that differ only in the signature of their cached token: another key signs in the
/// other's region. Any difference in the cost of a denial comes from that signature.
struct Pair {
    workers: [Worker; 2],
    /// The cached token of the first worker.
    token: String,
    /// The offsets of the payload, and of the hashed part of the signature.
    payload: usize,
    hashed: usize,
}

impl Pair {
    fn start() -> Pair {
        let mut workers = [1, 2]
            .map(|key| Worker::of(Key::numbered(key), &gateway_config(), &[]).with_key_cached());
        let mut spec = spec(1);
        // The same in both, even if a second passes.
        for claims in [&mut spec.header, &mut spec.payload] {
            claims.insert("exp".into(), Value::from(now() + 3600));
        }
        let [token, other] = workers.each_mut().map(|worker| {
            let token = spec.mint(KID, &worker.key).text;
            worker.pass(&token);
            token
        });
        let signature = token.rfind('.').expect("a signature") + 1;
        assert_eq!(
            (&token[..signature], token.len()),
            (&other[..signature], other.len())
        );
        assert_ne!(token, other);
        let (payload, hashed) = (token.find('.').expect("a payload") + 1, token.len() - 64);
        Pair {
            workers,
            token,
            payload,
            hashed,
        }
    }

    /// The instructions to deny this token on the first worker, and the difference to the second.
    fn denial(&mut self, token: &str) -> (u64, i64) {
        let [one, other] = self.workers.each_mut().map(|worker| worker.denial(token));
        (one, one as i64 - other as i64)
    }

    /// The first worker's token with another letter in one of these places, once for each.
    fn guesses(&self, places: Range<usize>) -> Vec<String> {
        let mut guesses = Vec::new();
        for (place, letter) in places.flat_map(|place| b"aZ5k".map(|letter| (place, letter))) {
            let mut guess = self.token.clone().into_bytes();
            let before = std::mem::replace(&mut guess[place], letter);
            if before != letter && before != b'.' && before != b'=' {
                guesses.push(String::from_utf8(guess).expect("text"));
            }
        }
        guesses
    }
}

/// Checks that almost none differ. The hash table compares seven bits of each entry's hash first:
/// one or two of a hundred other tokens share them by chance, and are then compared in full.
fn assert_none(differences: &[i64]) {
    let found = differences
        .iter()
        .filter(|difference| **difference != 0)
        .count();
    assert!(
        differences.len() > 100 && found <= differences.len() / 8,
        "{found} of {}",
        differences.len()
    );
}

#[test]
fn denial_time_does_not_reveal_a_cached_signature() {
    let mut pair = Pair::start();
    let guesses = pair.guesses(pair.hashed..pair.token.len());
    assert_none(
        &guesses
            .iter()
            .map(|guess| pair.denial(guess).1)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn tokens_are_compared_only_after_a_signature_match() {
    let mut pair = Pair::start();
    // An attacker who knows the last 62 letters of the signature knows the token.
    let guesses = pair.guesses(pair.payload..pair.hashed);
    let found: Vec<_> = guesses.iter().map(|guess| pair.denial(guess).1).collect();
    let (first, last) = (found[0], found[found.len() - 1]);
    println!(
        "{first} instructions more where the payload's first letter differs, {last} where the last does that is not hashed"
    );
    assert!(found.iter().all(|more| more.abs() < 3000), "{found:?}");
}

#[test]
fn early_denials_do_not_depend_on_the_cache() {
    let mut pair = Pair::start();
    let mut differences = Vec::new();
    for (name, value) in [("signer", ARN), ("iss", ISSUER), ("client", CLIENT)] {
        // They are no secrets: a later difference costs more.
        let costs = [0, value.len() / 2, value.len() - 1].map(|place| {
            let mut spec = spec(1);
            let mut other = value.to_owned();
            other.replace_range(place..=place, "~");
            spec.header.insert(name.into(), other.into());
            let forged = (3..19).map(|key| spec.mint(KID, &Key::numbered(key)).text);
            let (costs, more): (Vec<_>, Vec<_>) = forged.map(|token| pair.denial(&token)).unzip();
            differences.extend(more);
            costs.into_iter().min().expect("a cost")
        });
        println!(
            "{name} that differs in its first letter, the middle, the last: {costs:?} instructions"
        );
    }
    assert_none(&differences);
}

#[test]
fn memory_of_ten_thousand_users_is_bounded() {
    const USERS: usize = 10_000;
    let mut worker = Worker::with_key();
    assert!(
        worker.vm.memory_size() <= 4 * MIB,
        "{} bytes idle",
        worker.vm.memory_size()
    );
    let first: Vec<_> = (0..USERS).map(|user| worker.token(user)).collect();
    for token in &first {
        worker.pass(token);
    }
    assert!(
        worker.vm.memory_size() <= 16 * MIB,
        "{} bytes with {USERS} users",
        worker.vm.memory_size()
    );
    worker.vm.take_meter();
    for token in &first {
        worker.pass(token);
    }
    let verified = worker
        .vm
        .take_meter()
        .calls
        .get("proxy_call_foreign_function")
        .copied()
        .unwrap_or_default();
    assert_eq!(verified, 0, "{verified} of {USERS} tokens were forgotten");
    // By then the table was rebuilt while tokens came and went, and has doubled.
    for user in USERS..USERS * 7 / 4 {
        worker.pass(&worker.token(user));
    }
    let full = worker.vm.memory_size();
    assert!(full <= 16 * MIB, "{full} bytes, once it is full");
    for user in USERS * 7 / 4..USERS * 2 {
        worker.pass(&worker.token(user));
    }
    // A page or two for fragmentation.
    let grown = worker.vm.memory_size() - full;
    assert!(
        grown <= 4 * 64 * 1024 && full + grown <= 16 * MIB,
        "{grown} bytes more, once {full} were full"
    );
}

#[test]
fn memory_of_users_with_many_groups_is_bounded() {
    const USERS: usize = 1000;
    let mut config = gateway_config();
    config["groups"] = json!({"memberHeaderPrefix": "x-group-"});
    let mut worker = Worker::of(Key::generate(), &config, &[]).with_key_cached();
    let groups: Vec<_> = (0..512).map(|group| format!("{group:x}")).collect();
    let mut full = 0;
    for user in 0..USERS {
        let mut spec = TokenSpec::of(&format!("user-{user:06}@example.com"));
        (spec.exp, spec.payload_exp) = (3600, 3600);
        spec.payload.insert("custom:groups".into(), json!(groups));
        worker.pass(&spec.mint(KID, &worker.key).text);
        full = full.max(worker.vm.memory_size());
    }
    assert!(full <= 17 * MIB, "{full} bytes");
}

/// A client that hangs up while thousands of requests are being resumed costs no more than others.
#[test]
fn leaves_in_constant_time_while_thousands_are_woken() {
    let mut worker = Worker::start();
    // So that one slice resumes few of them.
    worker.process.borrow_mut().verification = Duration::from_millis(1);
    let waiting: Vec<_> = (0..5000)
        .map(|user| worker.send(&worker.token(user)))
        .collect();
    worker.fetch();
    worker.vm.take_meter();
    let last = *waiting.last().expect("a request");
    assert_eq!(worker.vm.end(last).fate, Fate::Waiting);
    let fuel = worker.vm.take_meter().fuel;
    println!("{fuel} instructions");
    assert!(fuel < 5000, "{fuel} instructions");
}

#[test]
fn wakes_five_thousand_requests_in_short_slices() {
    const WAITING: usize = 5000;
    let verification = Duration::from_micros(200);
    let mut worker = Worker::start();
    worker.process.borrow_mut().verification = verification;
    let waiting: Vec<_> = (0..WAITING)
        .map(|user| worker.send(&worker.token(user)))
        .collect();
    let steady = |worker: &Worker| worker.process.borrow().steady;
    let begin = steady(&worker);
    worker.fetch();
    let mut longest = steady(&worker) - begin;
    let mut entries = 1;
    while worker
        .vm
        .streams()
        .values()
        .any(|stream| stream.fate == Fate::Waiting)
    {
        let at = worker
            .vm
            .next_tick(worker.root)
            .expect("a tick while requests wait");
        assert!(
            at <= steady(&worker) + Duration::from_millis(1),
            "the others are kept waiting"
        );
        worker.process.borrow_mut().steady = at;
        worker.vm.tick(worker.root);
        longest = longest.max(steady(&worker) - at);
        entries += 1;
    }
    let took = steady(&worker) - begin;
    assert!(longest <= Duration::from_millis(7), "{longest:?} in one go");
    let least = verification * WAITING as u32;
    assert!(
        took <= least.mul_f64(1.3),
        "{took:?} in {entries} goes, of which {least:?} to verify"
    );
    for id in waiting {
        assert_eq!(worker.vm.end(id).fate, Fate::Continued);
    }
    assert_eq!(worker.vm.calls().len(), 0, "one fetch for all");
}

/// The most requests that wait.
const MOST_WAITING: usize = 16 * 1024;

/// However the waiting of all requests ends, no entry takes long, and each millisecond has one.
#[test]
fn ends_all_waiting_in_short_slices() {
    for end in ["deadline", "not found"] {
        let mut worker = Worker::start();
        let token = worker.token(0);
        let waiting: Vec<_> = (0..MOST_WAITING).map(|_| worker.send(&token)).collect();
        let pass = |worker: &Worker, by| worker.process.borrow_mut().steady += by;
        pass(&worker, Duration::from_millis(1));
        worker.vm.tick(worker.root);
        worker.vm.take_meter();
        let call = *worker.vm.calls().keys().next().expect("a fetch");
        match end {
            "deadline" => {
                pass(&worker, Duration::from_secs(60));
                worker.vm.tick(worker.root);
            }
            _ => worker.vm.answer(call, Some(Response::new(404, ""))),
        }
        let mut fuels = vec![worker.vm.take_meter().fuel];
        let is_waiting = |worker: &Worker| {
            let mut streams = worker.vm.streams().values();
            streams.any(|stream| stream.fate == Fate::Waiting)
        };
        while is_waiting(&worker) {
            pass(&worker, Duration::from_millis(1));
            worker.vm.tick(worker.root);
            fuels.push(worker.vm.take_meter().fuel);
        }
        for id in waiting {
            let fate = worker.vm.end(id).fate;
            assert!(matches!(fate, Fate::Answered(_)), "{fate:?}");
        }
        let longest = *fuels.iter().max().expect("an entry");
        println!(
            "{end}: {longest} instructions at most in one of {} entries, {} in the first, {} in all",
            fuels.len(),
            fuels[0],
            fuels.iter().sum::<u64>()
        );
        assert_eq!(
            worker
                .process
                .borrow()
                .metric("wasm_filter.alb_oidc.waiting"),
            Some(0)
        );
        assert!(fuels.len() <= 100, "{} entries", fuels.len());
        // The first entry also queues all of them, and answers no more than others.
        assert!(longest <= 17_000_000, "{end}: {longest} instructions");
    }
}

#[test]
fn flood_of_invented_keys_costs_little() {
    let mut worker = Worker::with_key();
    let before = worker.vm.memory_size();
    let genuine = spec(0).mint(KID, &worker.key);
    let header = String::from_utf8(URL_SAFE.decode(&genuine.header).expect("base64"))
        .expect("a JOSE header");
    let mut fuels = Vec::new();
    let mut waiting = Vec::new();
    // Each id once, then 256 ids in turn, until the limit of waiting requests.
    let ids = (0..1000).chain((0..MOST_WAITING + 1000).map(|count| 1000 + count % 256));
    for (count, id) in ids.enumerate() {
        let header = header.replace(KID, &format!("{id:08x}-0000-4000-8000-000000000000"));
        let token = format!(
            "{}.{}.{}",
            URL_SAFE.encode(header),
            genuine.payload,
            genuine.signature
        );
        let mut head = Worker::head(&token);
        // From 64 addresses, the most that are counted for each id.
        let address = format!("198.51.100.{}", count / 256 % 64);
        let forwarded = head
            .iter_mut()
            .find(|(name, _)| name == b"x-forwarded-for")
            .expect("an address");
        forwarded.1 = address.into_bytes();
        worker.vm.take_meter();
        waiting.push(worker.vm.request(worker.root, head));
        fuels.push(worker.vm.take_meter().fuel);
    }
    let grown = worker.vm.memory_size() - before;
    let gauge = "wasm_filter.alb_oidc.waiting";
    let mean = fuels.iter().sum::<u64>() / fuels.len() as u64;
    let longest = *fuels.iter().max().expect("a request");
    println!(
        "{} instructions for each of the first thousand",
        fuels.iter().take(1000).sum::<u64>() / 1000
    );
    println!(
        "{:?} wait, {grown} bytes more, {mean} instructions, {longest} at most",
        worker.process.borrow().metric(gauge)
    );
    // At the limit, each of the last requests evicts others.
    let evicting = *fuels[MOST_WAITING + 500..].iter().max().expect("a request");
    // The first ticks answer the evicted requests.
    worker.vm.take_meter();
    let ticks: Vec<_> = (0..20)
        .map(|_| {
            worker.process.borrow_mut().steady += Duration::from_millis(1);
            worker.vm.tick(worker.root);
            worker.vm.take_meter().fuel
        })
        .collect();
    assert!(worker.process.borrow().metric(gauge) >= Some(MOST_WAITING as i64 - 64));
    let answering = *ticks.iter().max().expect("a tick");
    let ticking = *ticks.last().expect("a tick");
    let leaving: Vec<_> = waiting
        .iter()
        .map(|id| {
            worker.vm.end(*id);
            worker.vm.take_meter().fuel
        })
        .collect();
    let fuel = leaving.iter().sum::<u64>() / leaving.len() as u64;
    let leaving = *leaving.iter().max().expect("a request");
    println!(
        "{fuel} instructions for each that hangs up, {leaving} at most; {evicting} for one that evicts, {ticking} for a tick, {answering} at most"
    );
    assert_eq!(worker.process.borrow().metric(gauge), Some(0));
    assert!(grown <= 4 * MIB, "{grown} bytes more");
    assert!(mean <= 150_000, "{mean} instructions for a request");
    // The index of waiting requests has grown.
    assert!(
        longest <= 2_000_000,
        "{longest} instructions for one request"
    );
    assert!(fuel <= 10_000, "{fuel} instructions for one that hangs up");
    assert!(
        leaving <= 60_000,
        "{leaving} instructions for one that hangs up"
    );
    assert!(
        evicting <= 300_000,
        "{evicting} instructions for one that evicts"
    );
    assert!(ticking <= 300_000, "{ticking} instructions for a tick");
    assert!(
        answering <= 9_000_000,
        "{answering} instructions for a tick that answers evicted requests"
    );
}
