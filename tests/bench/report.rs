//! What `make bench` prints and writes. Measures nothing.

use super::instructions::{self, Count};
use super::plot;
use super::setups::{Filter, Tokens};
use super::waiters::Wait;
use super::{Case, SIZES, Sample};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The largest interquartile range, as a share of the median, of a result.
const NOISE: f64 = 0.15;
/// Instead of a result.
const TOO_NOISY: &str = "too noisy";

/// A result over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |quarters: usize| values[(values.len() - 1) * quarters / 4];
        Spread {
            lower: at(1),
            median: at(2),
            upper: at(3),
        }
    }

    /// Whether the machine did too much else for a result.
    pub(crate) fn is_noisy(self) -> bool {
        (self.upper - self.lower) > NOISE * self.median
    }

    fn with_decimals(self, decimals: usize) -> String {
        if self.is_noisy() {
            return TOO_NOISY.to_owned();
        }
        format!("{:.decimals$}", self.median)
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = if self.is_noisy() {
            TOO_NOISY.to_owned()
        } else {
            format!("{:.2} ({:.2}–{:.2})", self.median, self.lower, self.upper)
        };
        f.pad(&text)
    }
}

/// A setup's results.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    pub(crate) setup: &'a str,
    pub(crate) tokens: &'a str,
    pub(crate) token_bytes: usize,
    pub(crate) of_no_filter: Spread,
    /// Compared with `jwt_authn` with the same tokens: without its cache for new tokens, with it
    /// for repeated ones.
    of_jwt_authn: Spread,
    /// Compared with this filter and repeated tokens.
    of_ours: Option<Spread>,
    p50_milliseconds: f64,
    p99_milliseconds: f64,
    /// Microseconds a request.
    cpu: Spread,
    pub(crate) cpu_of_no_filter: Spread,
    cpu_of_ours: Option<Spread>,
    /// The share of a turn in which the setup's processes were on a CPU. If it is small, the load
    /// generator was the limit.
    busy: f64,
    cached: Option<f64>,
    turns: &'a BTreeMap<usize, Sample>,
}

/// Prints the setups' tables, and draws them.
pub(crate) fn throughput(cases: &[Case], sizes: Option<(usize, usize)>) -> Value {
    let lines = lines(cases);
    println!(
        "{:<56} {:>5}  {:<18} {:<18} {:<18} {:>7} {:>7} {:>5} {:>6}",
        "",
        "bytes",
        "× no filter",
        "× jwt_authn",
        "CPU × no filter",
        "p50 ms",
        "p99 ms",
        "busy",
        "cached"
    );
    for line in &lines {
        println!(
            "{:<56} {:>5}  {:<18} {:<18} {:<18} {:>7.2} {:>7.2} {:>5.2} {:>6}",
            format!("{}, {}", line.setup, line.tokens),
            line.token_bytes,
            line.of_no_filter,
            line.of_jwt_authn,
            line.cpu_of_no_filter,
            line.p50_milliseconds,
            line.p99_milliseconds,
            line.busy,
            line.cached
                .map(|share| format!("{share:.2}"))
                .unwrap_or_default()
        );
    }
    peers(&lines, sizes);
    verification(cases);
    plot::write(&support::repository("target/bench.svg"), &lines);
    println!("\nmedian (quartiles) of the rounds; as a picture: target/bench.svg");
    json!(lines)
}

fn find(cases: &[Case], filter: Filter, tokens: Tokens, size: usize) -> Option<&Case> {
    cases
        .iter()
        .find(|case| case.filter == filter && case.tokens == tokens && case.size == size)
}

fn lines(cases: &[Case]) -> Vec<Line<'_>> {
    let line = |case: &'_ Case| {
        let (tokens, size) = (case.tokens, case.size);
        let ratio = |other: &Case, of: fn(&Sample) -> f64| {
            let both = case
                .turns
                .iter()
                .filter_map(|(round, mine)| Some((mine, other.turns.get(round)?)));
            Spread::of(both.map(|(mine, theirs)| of(mine) / of(theirs)))
        };
        let rate = |sample: &Sample| sample.requests_per_second;
        let cpu = |sample: &Sample| sample.cpu_per_request;
        let native = if tokens == Tokens::New {
            Filter::JwtAuthn
        } else {
            Filter::JwtAuthnWithCache
        };
        let none = find(cases, Filter::Nothing, tokens, size).expect("no filter is measured");
        let native = find(cases, native, tokens, size).expect("jwt_authn is measured");
        let ours = find(cases, Filter::Ours, Tokens::Thousand, size);
        (
            ratio(none, rate),
            ratio(native, rate),
            ours.map(|ours| ratio(ours, rate)),
            ratio(none, cpu),
            ours.map(|ours| ratio(ours, cpu)),
        )
    };
    cases
        .iter()
        .map(|case| {
            let (of_no_filter, of_jwt_authn, of_ours, cpu_of_no_filter, cpu_of_ours) = line(case);
            Line {
                setup: case.filter.name(),
                tokens: case.tokens.name(),
                token_bytes: case.size,
                of_no_filter,
                of_jwt_authn,
                of_ours,
                p50_milliseconds: case.p50,
                p99_milliseconds: case.p99,
                cpu: Spread::of(case.turns.values().map(|sample| sample.cpu_per_request)),
                cpu_of_no_filter,
                cpu_of_ours,
                busy: Spread::of(
                    case.turns
                        .values()
                        .map(|sample| sample.requests_per_second * sample.cpu_per_request / 1e6),
                )
                .median,
                cached: case.cached,
                turns: &case.turns,
            }
        })
        .collect()
}

/// The setups of the table in docs/performance.md.
const PEERS: [(Filter, Tokens); 8] = [
    (Filter::Nothing, Tokens::Thousand),
    (Filter::JwtAuthnWithCache, Tokens::Thousand),
    (Filter::Ours, Tokens::Thousand),
    (Filter::Lua, Tokens::Thousand),
    (Filter::JwtAuthn, Tokens::New),
    (Filter::Ours, Tokens::New),
    (Filter::Oauth2ProxyCookie, Tokens::Thousand),
    (Filter::Oauth2ProxyBearer, Tokens::Thousand),
];

/// Prints the table of docs/performance.md.
fn peers(lines: &[Line<'_>], sizes: Option<(usize, usize)>) {
    println!("\n| Setup | Requests/s, × this filter | CPU a request, µs | CPU, × this filter |");
    println!("|---|---|---|---|");
    for (filter, tokens) in PEERS {
        let of_case = |line: &&Line<'_>| {
            (line.setup, line.tokens, line.token_bytes) == (filter.name(), tokens.name(), SIZES[0])
        };
        let Some(line) = lines.iter().find(of_case) else {
            continue;
        };
        let (Some(rate), Some(cpu)) = (line.of_ours, line.cpu_of_ours) else {
            continue;
        };
        println!(
            "| {}, {} | {} | {} | {} |",
            line.setup,
            line.tokens,
            rate.with_decimals(2),
            line.cpu.with_decimals(0),
            cpu.with_decimals(2)
        );
    }
    match sizes {
        None => println!("oauth2-proxy is not measured: it was not built"),
        Some((cookie, token)) => println!(
            "oauth2-proxy: a session cookie has {cookie} bytes, an ID token {token}; the CPU time of its process is included"
        ),
    }
}

fn verification(cases: &[Case]) {
    for size in SIZES {
        let cpu = |filter: Filter, tokens: Tokens| {
            let case = find(cases, filter, tokens, size)?;
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
}

/// Prints what requests cost after their admission.
pub(crate) fn streams(shares: BTreeMap<&str, Vec<f64>>) -> Value {
    println!("\n{:<50} CPU × no filter", "");
    let spreads: BTreeMap<_, _> = shares
        .into_iter()
        .map(|(name, shares)| (name, Spread::of(shares.into_iter())))
        .collect();
    for (name, share) in &spreads {
        println!("{name:<50} {share}");
    }
    json!(spreads)
}

/// Prints what thousands of waiting requests cost.
pub(crate) fn waiting(waits: &[Wait]) -> Value {
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
    json!(waits)
}

/// Prints the instructions of each setup.
pub(crate) fn counts(counts: Option<&[Count]>) -> Value {
    println!(
        "\ninstructions of the worker's for each request with a token of {} bytes, without the kernel's:",
        SIZES[0]
    );
    let Some(counts) = counts else {
        println!("not counted: there is no valgrind");
        return Value::Null;
    };
    println!("\n| Setup | Instructions | Least–most | × no filter | One step more |");
    println!("|---|---|---|---|---|");
    for (number, count) in counts.iter().enumerate() {
        let (median, (least, most)) = (count.median(), count.range());
        let of_none = median as f64 / counts[0].median() as f64;
        let tokens = if count.again { "" } else { ", new tokens" };
        let above = number
            .checked_sub(1)
            .filter(|_| number < instructions::STAIRCASE);
        let more = above.map(|above| format!("{:+}", count.more_than(&counts[above])));
        println!(
            "| {}{tokens} | {median} | {least}–{most} | {of_none:.2} | {} |",
            count.setup,
            more.unwrap_or_default()
        );
    }
    json!(counts)
}
