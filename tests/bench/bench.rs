//! `make bench`: the filter's cost compared with no filter, Envoy's own `jwt_authn`, a Lua filter
//! that only decodes, and oauth2-proxy, on one worker of one Envoy. The setups
//! take turns of a quarter of a second, and the result is each one's share of another's throughput
//! in the same round, because ratios on a shared machine are more stable than times. Each setup has
//! a listener for each kind of token, so that they share no cache.
//!
//! `BENCH_STAGE` runs a single stage of [`STAGES`]; `target/bench.json` receives its results.
//! `BENCH_ONLY` (words) runs only setups with these words in their name, and their baselines.
//! `BENCH_ROUNDS` (default 50) sets the turns of each setup. `BENCH_REQUESTS` configures the stage
//! `memory`. `BENCH_OTHER` is another build of the filter, whose instructions are counted in the
//! same Envoys.

mod flat;
mod instructions;
mod peers;
mod plot;
mod report;
mod setups;
mod staircase;
mod streams;
mod waiters;

use instructions::Count;
use peers::Oauth2Proxy;
use serde::Serialize;
use serde_json::{Map, Value, json};
use setups::{Filter, Modules, Tokens};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use streams::Stream;
use support::envoy::{Envoy, Setup};
use support::key_server::{Answer, KeyServer};
use support::load::processor::Workers;
use support::server::Server;
use support::token::{Key, TokenSpec};
use tokio::process::Command;

/// The connections of each setup's load.
const CONNECTIONS: usize = 16;
/// Milliseconds of a turn, as in load.lua.
const TURN: usize = 240;
/// The sizes of a token in bytes: a user with few claims, and one with the most.
const SIZES: [usize; 2] = [1200, 4000];
/// More tokens than a token cache holds: each is evicted before its turn comes again.
const NEW: usize = 20_000;
/// Seconds of each warm-up step, until each reused token has come once.
const WARM_UP: usize = 2;
/// Seconds of the latency measurement of each setup.
const ALONE: usize = 2;
/// The measurements of each kind of stream.
const STREAMS: usize = 10;
/// The measurements with thousands of waiting requests.
const WAITS: usize = 5;
/// The listener for them.
const WAITING: &str = "waiting";

/// The result of one setup in one turn.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    requests_per_second: f64,
    /// CPU time of Envoy's worker, and of oauth2-proxy where it takes part, in microseconds.
    cpu_per_request: f64,
}

/// One line of the table: a setup and its tokens.
struct Case {
    name: String,
    listener: String,
    filter: Filter,
    tokens: Tokens,
    size: usize,
    /// The requests so far: the next one has the next token.
    sent: u64,
    /// Milliseconds of requests without other load, [`CONNECTIONS`] at a time.
    p50: f64,
    p99: f64,
    /// The filter's cache hit rate meanwhile.
    cached: Option<f64>,
    /// Indexed by round.
    turns: BTreeMap<usize, Sample>,
}

/// The parts of a run, as `BENCH_STAGE` names them.
const STAGES: [&str; 5] = ["throughput", "streams", "waiting", "instructions", "memory"];

#[tokio::main]
async fn main() {
    let only = std::env::var("BENCH_STAGE").ok();
    if let Some(only) = &only {
        assert!(
            STAGES.contains(&only.as_str()),
            "BENCH_STAGE={only}: expected one of {STAGES:?}"
        );
    }
    let wants = |stage: &str| only.as_deref().is_none_or(|only| only == stage);
    let signed = Signed::tokens().await;
    let mut results = Map::from_iter([(
        "envoy".to_owned(),
        json!(support::version(&support::default_envoy())),
    )]);
    let mut keep = |stage: &str, result: Value| {
        results.insert(stage.to_owned(), result);
    };
    if wants("throughput") || wants("streams") || wants("waiting") {
        let peer = signed.peer(wants("throughput")).await;
        let mut cases = if wants("throughput") {
            cases(peer.is_some())
        } else {
            Vec::new()
        };
        let stage = Stage::start(&cases, &signed, peer).await;
        if wants("throughput") {
            stage.throughput(&mut cases).await;
            let sizes = stage.peer.as_ref().and_then(|peer| peer.sizes);
            keep("throughput", report::throughput(&cases, sizes));
        }
        if wants("streams") {
            keep("streams", report::streams(stage.streams().await));
            stage.check().await;
        }
        if wants("waiting") {
            let mut waits = Vec::new();
            for _ in 0..WAITS {
                let gateway = stage.listeners[WAITING];
                waits.push(waiters::run(gateway, &signed.keys, &stage.known).await);
            }
            keep("waiting", report::waiting(&waits));
        }
        keep("envoy_memory", json!(stage.memory().await));
        stage.envoy.stop().await;
    }
    if wants("instructions") {
        keep(
            "instructions",
            report::counts(signed.count().await.as_deref()),
        );
    }
    if wants("memory") {
        keep("memory", json!(signed.flat().await));
    }
    let text = serde_json::to_string_pretty(&results).expect("JSON");
    std::fs::write(support::repository("target/bench.json"), text).expect("target/bench.json");
    println!("\nall of it, round by round: target/bench.json");
}

/// The setups with their tokens that `BENCH_ONLY` selects, and their baselines.
fn cases(with_peer: bool) -> Vec<Case> {
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let small = setups::CASES.map(|case| (SIZES[0], case));
    let large = setups::LARGE.map(|case| (SIZES[1], case));
    let mut cases = Vec::new();
    for (size, (filter, tokens)) in small.into_iter().chain(large) {
        let name = format!("{}, {}", filter.name(), tokens.name());
        let is_reference = matches!(
            filter,
            Filter::Nothing | Filter::JwtAuthn | Filter::JwtAuthnWithCache
        );
        if (filter.is_oauth2_proxy() && !with_peer) || (!is_reference && !name.contains(&only)) {
            continue;
        }
        cases.push(Case {
            listener: format!("{name}, {size} bytes"),
            name,
            filter,
            tokens,
            size,
            sent: 0,
            p50: 0.0,
            p99: 0.0,
            cached: None,
            turns: BTreeMap::new(),
        });
    }
    cases
}

fn rounds() -> usize {
    std::env::var("BENCH_ROUNDS").map_or(50, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("BENCH_ROUNDS={text}: not a number"))
    })
}

/// The files of tokens and other files, and the key of the tokens.
struct Signed {
    folder: tempfile::TempDir,
    keys: KeyServer,
    kid: String,
    key: Key,
    modules: Modules,
}

impl Signed {
    async fn tokens() -> Signed {
        let keys = KeyServer::start().await;
        let (kid, key) = (uuid::Uuid::new_v4().to_string(), Key::generate());
        keys.publish(&format!("/{kid}"), &key, Answer::default());
        let folder = tempfile::tempdir().expect("a temporary folder");
        for size in SIZES {
            setups::write_tokens(&folder.path().join(size.to_string()), NEW, size, &kid, &key);
        }
        std::fs::write(folder.path().join("load.lua"), include_str!("load.lua"))
            .expect("the script");
        let modules = Modules::assemble(folder.path());
        Signed {
            folder,
            keys,
            kid,
            key,
            modules,
        }
    }

    /// The file of tokens of about this size.
    fn file(&self, size: usize) -> PathBuf {
        self.folder.path().join(size.to_string())
    }

    /// The file with the header's values for this filter.
    fn values(&self, filter: Filter, size: usize) -> PathBuf {
        match filter {
            Filter::Oauth2ProxyCookie | Filter::Oauth2ProxyBearer => {
                self.folder.path().join(filter.header())
            }
            _ => self.file(size),
        }
    }

    /// oauth2-proxy with as many sessions as there are repeated tokens, if it is wanted and built.
    async fn peer(&self, wanted: bool) -> Option<Oauth2Proxy> {
        if !wanted {
            return None;
        }
        let mut peer = Oauth2Proxy::start(self.folder.path()).await?;
        let files = [Filter::Oauth2ProxyCookie, Filter::Oauth2ProxyBearer]
            .map(|filter| self.values(filter, SIZES[0]));
        peer.write_sessions(Tokens::Thousand.count(), &files[0], &files[1])
            .await;
        Some(peer)
    }

    async fn count(&self) -> Option<Vec<Count>> {
        let signed = (self.kid.as_str(), &self.key);
        instructions::count(
            self.folder.path(),
            &self.file(SIZES[0]),
            &self.keys,
            signed,
            &self.modules,
        )
        .await
    }

    async fn flat(&self) -> Vec<flat::Sample> {
        println!(
            "\nmemory under {} requests with tokens of {} bytes:",
            flat::requests(),
            SIZES[0]
        );
        println!(
            "{:>10}  {:>10}  {:>15}  {:>8}",
            "requests", "cached", "linear MiB", "resident"
        );
        let signed = (self.kid.as_str(), &self.key);
        flat::run(
            self.folder.path(),
            &self.file(SIZES[0]),
            &self.keys,
            signed,
            &self.modules,
        )
        .await
    }
}

/// The Envoy with all setups, and its surroundings.
struct Stage<'a> {
    signed: &'a Signed,
    envoy: Envoy,
    listeners: BTreeMap<String, SocketAddr>,
    /// A token with a key that the gateway has cached.
    known: String,
    /// The file with the CPU time of Envoy's worker.
    workers: Workers,
    peer: Option<Oauth2Proxy>,
    _upstream: Server,
}

impl Stage<'_> {
    async fn start<'a>(cases: &[Case], signed: &'a Signed, peer: Option<Oauth2Proxy>) -> Stage<'a> {
        let upstream = streams::upstream().await;
        let Signed {
            keys,
            kid,
            key,
            modules,
            ..
        } = signed;
        let mut setup = Setup::new(&support::default_envoy(), upstream.address, keys.address());
        setup.log_level = "error";
        if let Some(peer) = &peer {
            setup
                .clusters
                .insert(peers::CLUSTER.to_owned(), Some(peer.address));
        }
        let at_once = json!({"direct_response": {"status": 200}});
        let onward = json!({"route": {"cluster": "upstream", "timeout": "0s"}});
        let mut names: Vec<_> = cases
            .iter()
            .map(|case| (case.filter, case.listener.as_str(), &at_once))
            .collect();
        names.extend(streams::FILTERS.map(|filter| (filter, before_streams(filter), &onward)));
        names.push((Filter::Ours, WAITING, &at_once));
        for (filter, name, action) in &names {
            setup
                .listeners
                .push(filter.listener(name, action, kid, key, modules));
        }
        let envoy = Envoy::must_start(&setup).await;
        let mut listeners = BTreeMap::new();
        for (_, name, _) in names {
            listeners.insert(
                name.to_owned(),
                envoy.listener(name).await.expect("the listener"),
            );
        }
        let spec = TokenSpec {
            exp: 6 * 3600,
            payload_exp: 6 * 3600,
            ..TokenSpec::of("ann@example.com")
        };
        let known = spec.mint(kid, key).text;
        let workers = Workers::of(envoy.process_id());
        Stage {
            signed,
            envoy,
            listeners,
            known,
            workers,
            peer,
            _upstream: upstream,
        }
    }

    /// Measures the setups, each alone and then in turns.
    async fn throughput(&self, cases: &mut [Case]) {
        for case in cases.iter().filter(|case| case.filter.is_oauth2_proxy()) {
            let values = std::fs::read_to_string(self.signed.values(case.filter, case.size));
            let values = values.expect("the sessions");
            let session = values.lines().next().expect("a session");
            peers::check(self.listeners[&case.listener], case.filter, session).await;
        }
        for case in &mut *cases {
            self.alone(case).await;
        }
        let rounds = rounds();
        for cases in cases.chunk_by_mut(|one, next| one.size == next.size) {
            eprintln!(
                "{rounds} rounds of {} setups with tokens of {} bytes",
                cases.len(),
                cases[0].size
            );
            self.in_turns(cases, rounds).await;
        }
    }

    /// The shares of CPU time for each kind of stream.
    async fn streams(&self) -> BTreeMap<&'static str, Vec<f64>> {
        let mut streamed = BTreeMap::from(Stream::ALL.map(|stream| (stream.name(), Vec::new())));
        for round in 0..STREAMS {
            for stream in Stream::ALL {
                streamed
                    .entry(stream.name())
                    .or_default()
                    .push(self.stream(stream, round).await);
            }
        }
        streamed
    }

    /// The CPU time with this filter as a share of the one without. Their order alternates.
    async fn stream(&self, stream: Stream, round: usize) -> f64 {
        let mut used = BTreeMap::new();
        let [none, ours] = streams::FILTERS.map(before_streams);
        for name in if round.is_multiple_of(2) {
            [none, ours]
        } else {
            [ours, none]
        } {
            let before = self.workers.time();
            stream.run(self.listeners[name], &self.known).await;
            used.insert(name, (self.workers.time() - before).as_secs_f64());
        }
        used[ours] / used[none]
    }

    /// Warms up a setup, and measures its latency.
    async fn alone(&self, case: &mut Case) {
        let to_come = if case.tokens == Tokens::New {
            1
        } else {
            case.tokens.count() as u64
        };
        while case.sent < to_come {
            let [requests, ..] = self
                .load(std::slice::from_ref(&*case), WARM_UP)
                .await
                .result;
            case.sent += requests as u64;
        }
        let before = self.cached().await;
        let [requests, p50, p99] = self.load(std::slice::from_ref(&*case), ALONE).await.result;
        case.sent += requests as u64;
        (case.p50, case.p99) = (p50 / 1000.0, p99 / 1000.0);
        if matches!(case.filter, Filter::Ours | Filter::OursAlone) {
            let hits = self.cached().await - before;
            // Requests that the last run cut off are repeated.
            let new = case.tokens != Tokens::New || hits <= CONNECTIONS as i64;
            assert!(
                new,
                "{}: {hits} of {requests} tokens were cached",
                case.name
            );
            case.cached = Some(hits as f64 / requests);
        }
    }

    async fn cached(&self) -> i64 {
        self.envoy
            .counters()
            .await
            .get("token_cache_hit")
            .copied()
            .unwrap_or(0)
    }

    async fn in_turns(&self, cases: &mut [Case], rounds: usize) {
        // The first and the last round may be partial.
        let seconds = ((rounds + 2) * cases.len() * TURN).div_ceil(1000);
        for line in self.load(cases, seconds).await.turns {
            let [number, round, requests, nanoseconds, used] = line;
            let sample = Sample {
                requests_per_second: requests / nanoseconds * 1e9,
                cpu_per_request: used / requests / 1000.0,
            };
            let before = cases[number as usize - 1]
                .turns
                .insert(round as usize, sample);
            assert!(
                before.is_none(),
                "two turns of setup {number} in round {round}"
            );
        }
    }

    /// Loads these setups in turns with `wrk`.
    async fn load(&self, cases: &[Case], seconds: usize) -> Load {
        let mut plan = format!(
            "return {{ processor = {:?}, cases = {{\n",
            self.workers.first_schedstat()
        );
        for case in cases {
            let port = self.listeners[&case.listener].port();
            let tokens = self.signed.values(case.filter, case.size);
            let (header, count, sent) = (case.filter.header(), case.tokens.count(), case.sent);
            let peer = self.peer.as_ref().filter(|_| case.filter.is_oauth2_proxy());
            let process = peer.map_or("nil".to_owned(), |peer| peer.process_id().to_string());
            writeln!(
                plan,
                "{{ port = \"{port}\", header = {header:?}, tokens = {tokens:?}, count = {count}, sent = {sent}, process = {process} }},"
            )
            .expect("a string");
        }
        let file = self.signed.folder.path().join("plan.lua");
        std::fs::write(&file, plan + "} }\n").expect("the plan");
        let output = Command::new("wrk")
            .args([
                "--threads",
                &cases.len().to_string(),
                "--connections",
                &(cases.len() * CONNECTIONS).to_string(),
            ])
            .args(["--duration", &format!("{seconds}s"), "--script"])
            .arg(self.signed.folder.path().join("load.lua"))
            .arg(format!("http://{}/", self.listeners[&cases[0].listener]))
            .env("PLAN", &file)
            .output()
            .await
            .unwrap_or_else(|error| panic!("cannot run wrk: {error}"));
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers = |line: &str| -> Vec<f64> {
            line.split(' ')
                .map(|word| word.parse().unwrap_or_else(|_| panic!("{line}: {word}")))
                .collect()
        };
        let Some(result) = text.lines().find_map(|line| line.strip_prefix("RESULT ")) else {
            panic!(
                "{}: no result:\n{text}{}",
                cases[0].name,
                String::from_utf8_lossy(&output.stderr)
            )
        };
        let [requests, p50, p99, failed] = numbers(result)[..] else {
            panic!("{result}")
        };
        assert!(
            failed == 0.0,
            "{}: {failed} of {requests} requests were not answered with 200",
            cases[0].name
        );
        let turns = text
            .lines()
            .filter_map(|line| line.strip_prefix("TURN "))
            .map(|line| {
                numbers(line)
                    .try_into()
                    .unwrap_or_else(|numbers| panic!("{line}: {numbers:?}"))
            });
        Load {
            result: [requests, p50, p99],
            turns: turns.collect(),
        }
    }

    /// Checks that the measurement is valid: no token was denied.
    async fn check(&self) {
        let counters = self.envoy.counters().await;
        let count = |name: &str| counters.get(name).copied().unwrap_or(0);
        assert!(
            count("admitted") > 0 && count("verified.host") > 0 && count("token_cache_hit") > 0,
            "{counters:#?}"
        );
        let denied: i64 = counters
            .iter()
            .filter(|(name, _)| name.starts_with("denied."))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(denied, 0, "{counters:#?}");
    }

    async fn memory(&self) -> BTreeMap<String, i64> {
        self.envoy.stats("server.memory").await
    }
}

/// The listener's name.
fn before_streams(filter: Filter) -> &'static str {
    if filter == Filter::Nothing {
        "streams, no filter"
    } else {
        "streams, this filter"
    }
}

/// The output of `wrk`.
struct Load {
    /// Requests, and the 50th and 99th percentile of their time in microseconds.
    result: [f64; 3],
    /// A setup's number from 1, the round, requests, nanoseconds from the first request to the last
    /// answer, and nanoseconds of CPU time of Envoy's worker.
    turns: Vec<[f64; 5]>,
}
