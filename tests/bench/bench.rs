//! `make bench`: the filter's cost compared with no filter, Envoy's own `jwt_authn`, an empty
//! module and a Lua filter that only decodes, on one worker of one Envoy. The setups take turns of
//! a quarter of a second, and the result is each one's share of another's throughput in the same
//! round, because ratios on a shared machine are more stable than times. Each setup has a listener
//! for each kind of token, so that they share no cache.
//!
//! `BENCH_ONLY` (words) runs only setups with these words in their name, and their baselines.
//! `BENCH_ROUNDS` (default 50) sets the turns of each setup. `target/bench.json` receives all
//! results. `BENCH_STAGE` runs a single stage without turns and results: `instructions`, or
//! `memory`, which `BENCH_REQUESTS` configures. `BENCH_OTHER` is another build of the filter, whose
//! instructions are counted in the same Envoys.

mod flat;
mod instructions;
mod plot;
mod setups;
mod streams;
mod waiters;

use instructions::Count;
use serde::Serialize;
use serde_json::json;
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
use waiters::Wait;

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
    /// CPU time of Envoy's worker, in microseconds.
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

#[tokio::main]
async fn main() {
    let signed = Signed::tokens().await;
    match std::env::var("BENCH_STAGE").as_deref() {
        Err(_) => everything(signed).await,
        Ok("instructions") => report_counts(signed.count().await.as_deref()),
        Ok("memory") => {
            signed.flat().await;
        }
        Ok(other) => panic!("BENCH_STAGE={other}: there is no such stage"),
    }
}

async fn everything(signed: Signed) {
    let rounds = rounds();
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let mut cases = Vec::new();
    for size in SIZES {
        for (filter, tokens) in setups::CASES {
            let name = format!("{}, {}", filter.name(), tokens.name());
            let is_reference = matches!(
                filter,
                Filter::Nothing | Filter::JwtAuthn | Filter::JwtAuthnWithCache | Filter::Lua
            );
            if !is_reference && !only.is_empty() && !name.contains(&only) {
                continue;
            }
            let listener = format!("{name}, {size} bytes");
            cases.push(Case {
                name,
                listener,
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
    }
    let stage = Stage::start(&cases, &signed).await;
    for case in &mut cases {
        stage.alone(case).await;
    }
    for cases in cases.chunk_by_mut(|one, next| one.size == next.size) {
        eprintln!(
            "{rounds} rounds of {} setups with tokens of {} bytes",
            cases.len(),
            cases[0].size
        );
        stage.in_turns(cases, rounds).await;
    }
    let mut streamed = BTreeMap::from(Stream::ALL.map(|stream| (stream.name(), Vec::new())));
    for round in 0..STREAMS {
        for stream in Stream::ALL {
            streamed
                .entry(stream.name())
                .or_default()
                .push(stage.stream(stream, round).await);
        }
    }
    stage.check().await;
    let mut waits = Vec::new();
    for _ in 0..WAITS {
        waits.push(waiters::run(stage.listeners[WAITING], &signed.keys, &stage.known).await);
    }
    let memory = stage.memory().await;
    stage.envoy.stop().await;
    let counts = signed.count().await;
    report(
        &cases,
        streamed,
        &waits,
        counts.as_deref(),
        &memory,
        &signed.flat().await,
    );
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
    _upstream: Server,
}

impl Stage<'_> {
    async fn start<'a>(cases: &[Case], signed: &'a Signed) -> Stage<'a> {
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
            _upstream: upstream,
        }
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
            let tokens = self.signed.file(case.size);
            let (count, sent) = (case.tokens.count(), case.sent);
            writeln!(
                plan,
                "{{ port = \"{port}\", tokens = {tokens:?}, count = {count}, sent = {sent} }},"
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

/// Median and quartiles.
#[derive(Clone, Copy, Serialize)]
struct Spread {
    lower: f64,
    median: f64,
    upper: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |quarters: usize| values[(values.len() - 1) * quarters / 4];
        Spread {
            lower: at(1),
            median: at(2),
            upper: at(3),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>6.2} ({:.2}–{:.2})",
            self.median, self.lower, self.upper
        )
    }
}

#[derive(Serialize)]
struct Line<'a> {
    setup: &'a str,
    tokens: &'a str,
    token_bytes: usize,
    of_no_filter: Spread,
    /// Compared with `jwt_authn` with the same tokens: without its cache for new tokens, with it
    /// for repeated ones.
    of_jwt_authn: Spread,
    /// Compared with Lua with new tokens, or with 1,000: it has no cache.
    of_lua: Spread,
    /// Compared with the minimal module, if measured.
    of_least: Option<Spread>,
    p50_milliseconds: f64,
    p99_milliseconds: f64,
    /// Compared with no filter.
    cpu_of_no_filter: Spread,
    /// The share of a turn in which Envoy's worker was on a CPU. If it is small, the load generator
    /// was the limit.
    busy: f64,
    cached: Option<f64>,
    turns: &'a BTreeMap<usize, Sample>,
}

fn report(
    cases: &[Case],
    streamed: BTreeMap<&str, Vec<f64>>,
    waits: &[Wait],
    counts: Option<&[Count]>,
    memory: &BTreeMap<String, i64>,
    flat: &[flat::Sample],
) {
    let find = |filter: Filter, tokens: Tokens, size: usize| {
        let same =
            |case: &&Case| case.filter == filter && case.tokens == tokens && case.size == size;
        cases.iter().find(same)
    };
    let mut lines = Vec::new();
    println!(
        "{:<50} {:>6}  {:<20} {:<20} {:<20} {:<20} {:<20} {:>7} {:>7} {:>5} {:>10}",
        "",
        "bytes",
        "× no filter",
        "× jwt_authn",
        "× Lua",
        "× least module",
        "CPU × no filter",
        "p50 ms",
        "p99 ms",
        "busy",
        "cached"
    );
    for case in cases {
        let (tokens, size) = (case.tokens, case.size);
        let ratio = |other: &Case, of: fn(&Sample) -> f64| {
            let both = case
                .turns
                .iter()
                .filter_map(|(round, mine)| Some((mine, other.turns.get(round)?)));
            Spread::of(both.map(|(mine, theirs)| of(mine) / of(theirs)))
        };
        let rate = |sample: &Sample| sample.requests_per_second;
        let rate_of = |filter, tokens| find(filter, tokens, size).map(|other| ratio(other, rate));
        let native = if tokens == Tokens::New {
            Filter::JwtAuthn
        } else {
            Filter::JwtAuthnWithCache
        };
        let lua = if tokens == Tokens::New {
            Tokens::New
        } else {
            Tokens::Thousand
        };
        let none = find(Filter::Nothing, tokens, size).expect("no filter is always measured");
        let line = Line {
            setup: case.filter.name(),
            tokens: tokens.name(),
            token_bytes: size,
            of_no_filter: ratio(none, rate),
            of_jwt_authn: rate_of(native, tokens).expect("jwt_authn is always measured"),
            of_lua: rate_of(Filter::Lua, lua).expect("Lua is always measured"),
            of_least: rate_of(Filter::LeastModule, tokens),
            p50_milliseconds: case.p50,
            p99_milliseconds: case.p99,
            cpu_of_no_filter: ratio(none, |sample| sample.cpu_per_request),
            busy: Spread::of(
                case.turns
                    .values()
                    .map(|sample| sample.requests_per_second * sample.cpu_per_request / 1e6),
            )
            .median,
            cached: case.cached,
            turns: &case.turns,
        };
        println!(
            "{:<50} {:>6}  {:<20} {:<20} {:<20} {:<20} {:<20} {:>7.2} {:>7.2} {:>5.2} {:>10}",
            case.name,
            size,
            line.of_no_filter.to_string(),
            line.of_jwt_authn.to_string(),
            line.of_lua.to_string(),
            line.of_least
                .map(|spread| spread.to_string())
                .unwrap_or_default(),
            line.cpu_of_no_filter.to_string(),
            line.p50_milliseconds,
            line.p99_milliseconds,
            line.busy,
            line.cached
                .map(|share| format!("{share:.2}"))
                .unwrap_or_default()
        );
        lines.push(line);
    }
    for size in SIZES {
        let cpu = |filter: Filter, tokens: Tokens| {
            let case = find(filter, tokens, size)?;
            Some(Spread::of(case.turns.values().map(|sample| sample.cpu_per_request)).median)
        };
        if let (Some(new), Some(alone), Some(cached)) = (
            cpu(Filter::Ours, Tokens::New),
            cpu(Filter::OursAlone, Tokens::New),
            cpu(Filter::Ours, Tokens::Thousand),
        ) {
            let times = (alone - cached) / (new - cached);
            println!(
                "what a new token of {size} bytes costs beyond a cached one, where the module verifies: {times:.1} × where the host does"
            );
        }
    }
    println!("\n{:<50}     CPU × no filter", "");
    let streamed: BTreeMap<_, _> = streamed
        .into_iter()
        .map(|(name, shares)| (name, Spread::of(shares.into_iter())))
        .collect();
    for (name, share) in &streamed {
        println!("{name:<50}        {share}");
    }
    println!(
        "\n{} requests at once whose key has to be fetched, {} times over:",
        waits[0].requests,
        waits.len()
    );
    let each = |name: &str, of: fn(&Wait) -> f64| {
        let values: Vec<_> = waits
            .iter()
            .map(|wait| format!("{:.2}", of(wait)))
            .collect();
        println!("{name:<65} {}", values.join("  "));
    };
    each("fetches", |wait| wait.fetches as f64);
    each(
        "the last is answered, × the time of as many with a known key",
        |wait| wait.after_the_key / wait.with_the_key_known,
    );
    each("others wait meanwhile, milliseconds at most", |wait| {
        wait.others_meanwhile
    });
    each("others wait otherwise, milliseconds at most", |wait| {
        wait.others_otherwise
    });
    report_counts(counts);
    plot::write(&support::repository("target/bench.svg"), &lines);
    let json = json!({
        "lines": lines,
        "streams": streamed,
        "waits": waits,
        "instructions": counts,
        "envoy": support::version(&support::default_envoy()),
        "memory": memory,
        "flat": flat,
    });
    let path = support::repository("target/bench.json");
    std::fs::write(&path, serde_json::to_string_pretty(&json).expect("JSON"))
        .expect("target/bench.json");
    println!(
        "\nmedian (quartiles) of the rounds; all of it: target/bench.json, as a picture: target/bench.svg"
    );
}

fn report_counts(counts: Option<&[Count]>) {
    println!(
        "\ninstructions of the worker's for each request with a token of {} bytes, without the kernel's:",
        SIZES[0]
    );
    match counts {
        None => println!("not counted: there is no valgrind"),
        Some(counts) => {
            println!(
                "{:<50} {:>9}  {:<19} {:>13}  {:>11}",
                "", "median", "least–most", "× no filter", "a step more"
            );
            for (number, count) in counts.iter().enumerate() {
                let (median, (least, most)) = (count.median(), count.range());
                let of_none = median as f64 / counts[0].median() as f64;
                let setup = format!(
                    "{}{}",
                    count.setup,
                    if count.again { "" } else { ", every token new" }
                );
                let range = format!("{least}–{most}");
                let above = number
                    .checked_sub(1)
                    .filter(|_| number < instructions::STAIRCASE);
                let more = above
                    .map(|above| format!("{:+}", median as i64 - counts[above].median() as i64));
                println!(
                    "{setup:<50} {median:>9}  {range:<19} {of_none:>13.2}  {:>11}",
                    more.unwrap_or_default()
                );
            }
        }
    }
}
