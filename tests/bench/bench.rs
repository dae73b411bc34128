//! `make bench`: what the filter costs, side by side with no filter, Envoy's own `jwt_authn`, a module that does nothing and a Lua
//! filter that only decodes, on one worker of one Envoy. The setups take turns in rounds, and what is told is each one's share
//! of another's throughput in the same round: times of a shared machine say little, ratios say something. Each setup has a listener
//! for each kind of token, so that what one run leaves in a cache is not what another finds there.
//!
//! `BENCH_ONLY` (words) runs only what has them in its name, beside no filter; `BENCH_ROUNDS` (default 11) and `BENCH_SECONDS`
//! (default 1, for each setup in each round) set how long it takes. Everything that was measured is left in `target/bench.json`.

// A benchmark may panic: that is how it fails.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod plot;
mod setups;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod waiters;

use serde::Serialize;
use serde_json::json;
use setups::{Filter, Modules, Tokens};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;
use streams::Stream;
use support::envoy::{Envoy, Setup};
use support::key_server::{Answer, KeyServer};
use support::server::Server;
use support::token::{Key, TokenSpec};
use tokio::process::Command;
use waiters::Wait;

/// Connections that the load comes over.
const CONNECTIONS: u32 = 16;
/// The sizes of a token, in bytes: a user with few claims, and one with as many as fit.
const SIZES: [usize; 2] = [1200, 4000];
/// So many that each is forgotten before its turn comes again: they are more than a token cache holds.
const NEW: usize = 40_000;
/// The first round warms up, in seconds for each setup: long enough for each token of a case to have come once.
const WARM_UP: u32 = 4;
/// How often thousands of requests wait for one key.
const WAITS: usize = 5;
/// The listener that they come to.
const WAITING: &str = "waiting";

/// What one setup did in one round.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Sample {
    requests_per_second: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
    /// Microseconds that Envoy was on a processor.
    cpu_per_request: f64,
}

/// One line of the table: a setup and the tokens that it got.
struct Case {
    name: String,
    listener: String,
    filter: Filter,
    tokens: Tokens,
    size: usize,
    /// How many requests it got so far: the next one has the token after the last one's.
    sent: u64,
    rounds: Vec<Sample>,
}

#[tokio::main]
async fn main() {
    let rounds = number("BENCH_ROUNDS", 11);
    let seconds = number("BENCH_SECONDS", 1);
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let mut cases = Vec::new();
    for size in SIZES {
        for (filter, tokens) in setups::CASES {
            let name = format!("{}, {}", filter.name(), tokens.name());
            let is_reference =
                matches!(filter, Filter::Nothing | Filter::JwtAuthn | Filter::JwtAuthnWithCache | Filter::Lua);
            if !is_reference && !only.is_empty() && !name.contains(&only) {
                continue;
            }
            let listener = format!("{name}, {size} bytes");
            cases.push(Case { name, listener, filter, tokens, size, sent: 0, rounds: Vec::new() });
        }
    }
    let stage = Stage::start(&cases).await;
    let mut streamed = BTreeMap::from(Stream::ALL.map(|stream| (stream.name(), Vec::new())));
    for round in 0..=rounds {
        for case in &mut cases {
            let sample = stage.measure(case, if round > 0 { seconds } else { WARM_UP }).await;
            if round > 0 {
                case.rounds.push(sample);
            }
        }
        for stream in Stream::ALL {
            let share = stage.stream(stream).await;
            if round > 0 {
                streamed.entry(stream.name()).or_default().push(share);
            }
        }
        eprintln!("round {round} of {rounds}");
    }
    stage.check().await;
    let mut waits = Vec::new();
    for _ in 0..WAITS {
        waits.push(waiters::run(stage.listeners[WAITING], &stage.keys, &stage.known).await);
    }
    let memory = stage.memory().await;
    stage.envoy.stop().await;
    report(&cases, streamed, &waits, &memory);
}

fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: not a number")))
}

/// The Envoy, its surroundings, and the files of tokens.
struct Stage {
    envoy: Envoy,
    listeners: BTreeMap<String, SocketAddr>,
    folder: tempfile::TempDir,
    keys: KeyServer,
    /// A token of a key that the gateway has.
    known: String,
    _upstream: Server,
}

impl Stage {
    async fn start(cases: &[Case]) -> Stage {
        let (keys, upstream) = (KeyServer::start().await, streams::upstream().await);
        let (kid, key) = (uuid::Uuid::new_v4().to_string(), Key::generate());
        keys.publish(&format!("/{kid}"), &key, Answer::default());
        let folder = tempfile::tempdir().expect("a temporary folder");
        for size in SIZES {
            setups::write_tokens(&folder.path().join(size.to_string()), NEW, size, &kid, &key);
        }
        std::fs::write(folder.path().join("load.lua"), include_str!("load.lua")).expect("the script");
        let modules = Modules::assemble(folder.path());
        let mut setup = Setup::new(&support::default_envoy(), upstream.address, keys.address());
        setup.log_level = "error";
        let at_once = json!({"direct_response": {"status": 200}});
        let onward = json!({"route": {"cluster": "upstream", "timeout": "0s"}});
        let mut names: Vec<_> = cases.iter().map(|case| (case.filter, case.listener.as_str(), &at_once)).collect();
        names.extend(streams::FILTERS.map(|filter| (filter, before_streams(filter), &onward)));
        names.push((Filter::Ours, WAITING, &at_once));
        for (filter, name, action) in &names {
            setup.listeners.push(filter.listener(name, action, &kid, &key, &modules));
        }
        let envoy = Envoy::must_start(&setup).await;
        let mut listeners = BTreeMap::new();
        for (_, name, _) in names {
            listeners.insert(name.to_owned(), envoy.listener(name).await.expect("the listener"));
        }
        let spec = TokenSpec { exp: 6 * 3600, payload_exp: 6 * 3600, ..TokenSpec::of("ann@example.com") };
        let known = spec.mint(&kid, &key).text;
        Stage { envoy, listeners, folder, keys, known, _upstream: upstream }
    }

    /// How much of the speed without a filter is left with this one before it.
    async fn stream(&self, stream: Stream) -> f64 {
        let mut took = Vec::new();
        for filter in streams::FILTERS {
            took.push(stream.run(self.listeners[before_streams(filter)], &self.known).await.as_secs_f64());
        }
        took[0] / took[1]
    }

    async fn measure(&self, case: &mut Case, seconds: u32) -> Sample {
        let before = on_processor(self.envoy.process_id());
        let start = Instant::now();
        let output = Command::new("wrk")
            .args(["--threads", "1", "--connections", &CONNECTIONS.to_string(), "--latency"])
            .args(["--duration", &format!("{seconds}s"), "--script"])
            .arg(self.folder.path().join("load.lua"))
            .arg(format!("http://{}/", self.listeners[&case.listener]))
            .env("TOKENS", self.folder.path().join(case.size.to_string()))
            .env("COUNT", case.tokens.count().to_string())
            .env("SENT", case.sent.to_string())
            .output()
            .await
            .unwrap_or_else(|error| panic!("cannot run wrk: {error}"));
        let used = on_processor(self.envoy.process_id()) - before;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("RESULT ")).unwrap_or_else(|| {
            panic!(
                "{}: no result after {:?}:\n{text}{}",
                case.name,
                start.elapsed(),
                String::from_utf8_lossy(&output.stderr)
            )
        });
        let numbers: Vec<f64> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
        let [requests, microseconds, p50, p99, failed] = numbers[..] else { panic!("{line}") };
        case.sent += requests as u64;
        assert!(failed == 0.0, "{}: {failed} of {requests} requests were not answered with 200", case.name);
        Sample {
            requests_per_second: requests / microseconds * 1e6,
            p50: p50 / 1000.0,
            p99: p99 / 1000.0,
            cpu_per_request: used / requests,
        }
    }

    /// That what was measured was what is claimed: no token was refused, and those that were to be new were.
    async fn check(&self) {
        let stats = self.envoy.stats("wasm_filter.alb_oidc").await;
        let count = |name: &str| stats.get(&format!("wasmcustom.wasm_filter.alb_oidc.{name}")).copied().unwrap_or(0);
        assert!(count("admitted") > 0 && count("verified.host") > 0 && count("token_cache_hit") > 0, "{stats:#?}");
        let denied: i64 = stats.iter().filter(|(name, _)| name.contains(".denied.")).map(|(_, count)| count).sum();
        assert_eq!(denied, 0, "{stats:#?}");
    }

    async fn memory(&self) -> BTreeMap<String, i64> {
        self.envoy.stats("server.memory").await
    }
}

/// The listener's name.
fn before_streams(filter: Filter) -> &'static str {
    if filter == Filter::Nothing { "streams, no filter" } else { "streams, this filter" }
}

/// Microseconds that the threads of a process have been on a processor.
fn on_processor(process: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("the threads of Envoy");
    let time = |path: &Path| -> Option<f64> {
        std::fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    tasks.flatten().filter_map(|task| time(&task.path())).sum::<f64>() / 1000.0
}

/// Least, median and greatest.
#[derive(Clone, Copy, Serialize)]
struct Spread {
    least: f64,
    median: f64,
    greatest: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Spread { least: values[0], median: values[values.len() / 2], greatest: values[values.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>6.2} ({:.2}–{:.2})", self.median, self.least, self.greatest)
    }
}

#[derive(Serialize)]
struct Line<'a> {
    setup: &'a str,
    tokens: &'a str,
    token_bytes: usize,
    of_no_filter: Spread,
    /// Of `jwt_authn` with the same tokens: without its cache where each is new, with it where they come again.
    of_jwt_authn: Spread,
    of_lua: Spread,
    /// Of the least module, where that was measured.
    of_least: Option<Spread>,
    p50_milliseconds: f64,
    p99_milliseconds: f64,
    /// Of what no filter takes.
    cpu_of_no_filter: Spread,
    rounds: &'a [Sample],
}

fn report(cases: &[Case], streamed: BTreeMap<&str, Vec<f64>>, waits: &[Wait], memory: &BTreeMap<String, i64>) {
    let find = |filter: Filter, tokens: Tokens, size: usize| {
        let same = |case: &&Case| case.filter == filter && case.tokens == tokens && case.size == size;
        cases.iter().find(same)
    };
    let mut lines = Vec::new();
    println!(
        "{:<44} {:>6}  {:<20} {:<20} {:<20} {:<20} {:<20} {:>7} {:>7}",
        "", "bytes", "× no filter", "× jwt_authn", "× Lua", "× least module", "CPU × no filter", "p50 ms", "p99 ms"
    );
    for case in cases {
        let (tokens, size) = (case.tokens, case.size);
        let ratio = |other: &Case, of: fn(&Sample) -> f64| {
            Spread::of(case.rounds.iter().zip(&other.rounds).map(|(mine, theirs)| of(mine) / of(theirs)))
        };
        let rate = |sample: &Sample| sample.requests_per_second;
        let rate_of = |filter, tokens| find(filter, tokens, size).map(|other| ratio(other, rate));
        let native = if tokens == Tokens::New { Filter::JwtAuthn } else { Filter::JwtAuthnWithCache };
        let lua = if tokens == Tokens::New { Tokens::New } else { Tokens::Thousand };
        let none = find(Filter::Nothing, tokens, size).expect("no filter is always measured");
        let median = |of: fn(&Sample) -> f64| Spread::of(case.rounds.iter().map(of)).median;
        let line = Line {
            setup: case.filter.name(),
            tokens: tokens.name(),
            token_bytes: size,
            of_no_filter: ratio(none, rate),
            of_jwt_authn: rate_of(native, tokens).expect("jwt_authn is always measured"),
            of_lua: rate_of(Filter::Lua, lua).expect("Lua is always measured"),
            of_least: rate_of(Filter::LeastModule, tokens),
            p50_milliseconds: median(|sample| sample.p50),
            p99_milliseconds: median(|sample| sample.p99),
            cpu_of_no_filter: ratio(none, |sample| sample.cpu_per_request),
            rounds: &case.rounds,
        };
        println!(
            "{:<44} {:>6}  {:<20} {:<20} {:<20} {:<20} {:<20} {:>7.2} {:>7.2}",
            case.name,
            size,
            line.of_no_filter.to_string(),
            line.of_jwt_authn.to_string(),
            line.of_lua.to_string(),
            line.of_least.map(|spread| spread.to_string()).unwrap_or_default(),
            line.cpu_of_no_filter.to_string(),
            line.p50_milliseconds,
            line.p99_milliseconds
        );
        lines.push(line);
    }
    println!("\n{:<44}         × no filter", "");
    let streamed: BTreeMap<_, _> =
        streamed.into_iter().map(|(name, shares)| (name, Spread::of(shares.into_iter()))).collect();
    for (name, share) in &streamed {
        println!("{name:<44}        {share}");
    }
    println!("\n{} requests at once whose key has to be fetched, {} times over:", waits[0].requests, waits.len());
    let fetches: Vec<_> = waits.iter().map(|wait| wait.fetches).collect();
    println!("{:<60} {fetches:?}", "fetches");
    let of = |of: fn(&Wait) -> f64| Spread::of(waits.iter().map(of));
    let after = of(|wait| wait.after_the_key / wait.with_the_key_known);
    println!("{:<60} {after}", "the last is answered, × the time of as many with a known key");
    println!("{:<60} {}", "others wait meanwhile, milliseconds at most", of(|wait| wait.others_meanwhile));
    println!("{:<60} {}", "others wait otherwise, milliseconds at most", of(|wait| wait.others_otherwise));
    plot::write(&support::repository("target/bench.svg"), &lines);
    let json = json!({
        "lines": lines,
        "streams": streamed,
        "waits": waits,
        "envoy": support::version(&support::default_envoy()),
        "memory": memory,
    });
    let path = support::repository("target/bench.json");
    std::fs::write(&path, serde_json::to_string_pretty(&json).expect("JSON")).expect("target/bench.json");
    println!("\nmedian (least–greatest) of the rounds; all of it: target/bench.json, as a picture: target/bench.svg");
}
