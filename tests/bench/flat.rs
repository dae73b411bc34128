//! Checks that the filter's memory stays flat under sustained load. Most requests have a repeated
//! token; the others a new or evicted one, so that the token cache is replaced over and over.
//! Measures no time. `BENCH_REQUESTS` sets the number of requests: 300,000 by default and at least,
//! because the first tenth must contain each token; 10,000,000 for a night.

use super::setups::{Filter, Modules};
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use support::envoy::{Envoy, Setup};
use support::key_server::KeyServer;
use support::load::memory::Memory;
use support::token::Key;
use tokio::process::Command;

const CONNECTIONS: usize = 16;
/// The number of memory samples, at equal distances.
const PARTS: u64 = 10;
/// A VM's linear memory with a full token cache: 16.6 MiB.
const MOST: u64 = 166 * (1 << 20) / 10;
/// How much it may grow after the first part, which contains each token: a few WebAssembly pages.
const GROWTH: u64 = 4 * 65536;

/// The measurements after this many requests.
#[derive(Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) requests: u64,
    /// The requests with a cached token.
    pub(crate) cached: u64,
    /// The linear memory of the worker's VM, in bytes.
    pub(crate) linear: u64,
    /// Envoy's resident memory, in bytes.
    pub(crate) resident: u64,
}

/// The number of requests.
pub(crate) fn requests() -> u64 {
    std::env::var("BENCH_REQUESTS").map_or(300_000, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("BENCH_REQUESTS={text}: not a number"))
    })
}

/// Sends them. `keys` serves `key`, which signs the tokens, under `kid`. `folder` is for files.
pub(crate) async fn run(
    folder: &Path,
    tokens: &Path,
    keys: &KeyServer,
    (kid, key): (&str, &Key),
    modules: &Modules,
) -> Vec<Sample> {
    const NAME: &str = "flat";
    let requests = requests();
    let mut setup = Setup::new(&support::default_envoy(), keys.address(), keys.address());
    setup.log_level = "error";
    let at_once = json!({"direct_response": {"status": 200}});
    setup
        .listeners
        .push(Filter::Ours.listener(NAME, &at_once, kid, key, modules));
    let envoy = Envoy::must_start(&setup).await;
    let script = folder.join("flat.lua");
    std::fs::write(&script, include_str!("flat.lua")).expect("the script");
    // It is killed after enough requests.
    let mut wrk = Command::new("wrk")
        .args([
            "--threads",
            "1",
            "--connections",
            &CONNECTIONS.to_string(),
            "--duration",
            "24h",
            "--script",
        ])
        .arg(&script)
        .arg(format!(
            "http://{}/",
            envoy.listener(NAME).await.expect("the listener")
        ))
        .env("TOKENS", tokens)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run wrk: {error}"));
    let mut samples: Vec<Sample> = Vec::new();
    for part in 1..=PARTS {
        let (admitted, cached) = loop {
            assert_eq!(wrk.try_wait().expect("wrk"), None, "wrk ended early");
            let counters = envoy.counters().await;
            let of = |name: &str| {
                u64::try_from(counters.get(name).copied().unwrap_or(0)).expect("a count")
            };
            let (admitted, cached) = (of("admitted"), of("token_cache_hit"));
            if admitted * PARTS >= requests * part {
                break (admitted, cached);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let memory = Memory::of(&envoy).await;
        // The main thread also has a VM, which receives no tokens.
        let linear = *memory.linear.first().expect("a VM");
        let sample = Sample {
            requests: admitted,
            cached,
            linear,
            resident: memory.resident,
        };
        println!("{sample}");
        samples.push(sample);
    }
    let id = wrk.id().expect("wrk runs").to_string();
    let told = Command::new("kill")
        .args(["-INT", &id])
        .status()
        .await
        .expect("kill");
    assert!(told.success(), "wrk could not be ended");
    let output = wrk.wait_with_output().await.expect("wrk");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.lines().any(|line| line == "FAILED 0"),
        "not each request was answered with 200:\n{text}"
    );
    envoy.stop().await;
    let (first, last) = (&samples[0], &samples[samples.len() - 1]);
    let most = samples
        .iter()
        .map(|sample| sample.linear)
        .max()
        .unwrap_or_default();
    assert!(
        most <= MOST,
        "{most} bytes of linear memory, expected at most {MOST}"
    );
    assert!(
        most <= first.linear + GROWTH,
        "linear memory grew from {} to {most} bytes",
        first.linear
    );
    assert!(last.cached < last.requests, "no token was new");
    samples
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let share = self.cached as f64 / self.requests as f64;
        let (linear, resident) = (mebibytes(self.linear), mebibytes(self.resident));
        write!(
            f,
            "{:>10}  {share:>10.2}  {linear:>15.2}  {resident:>8.1}",
            self.requests
        )
    }
}
