//! The instructions of Envoy's worker for a request, without the kernel's, counted by callgrind if
//! valgrind is installed. Counts differ between Envoy processes, so several are used. Measures no
//! time.

use super::setups::{Filter, Modules, Tokens};
use super::staircase;
use serde::Serialize;
use serde_json::json;
use std::iter;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use support::client::{Connection, Request};
use support::envoy::{Envoy, Setup};
use support::key_server::KeyServer;
use support::server::full;
use support::token::Key;

/// The requests before the count, and during it.
const WARM_UP: usize = 60;
const COUNTED: usize = 800;
/// The number of Envoy processes.
const TIMES: usize = 3;
/// The prefix of callgrind's dumps.
const DUMPS: &str = "counts";
/// The number of repeated tokens.
const AGAIN: usize = 20;
/// The first setups: each does the same as the previous one, and more.
pub(crate) const STAIRCASE: usize = staircase::LENGTH + 2;
const OTHERS: [(Filter, Tokens); 5] = [
    (Filter::Ours, Tokens::New),
    (Filter::JwtAuthnWithCache, Tokens::Thousand),
    (Filter::JwtAuthn, Tokens::New),
    (Filter::OtherBuild, Tokens::Thousand),
    (Filter::OtherBuild, Tokens::New),
];

/// No filter, the staircase, this filter, and the others.
fn cases(modules: &Modules) -> Vec<(Filter, Tokens)> {
    let steps = (0..staircase::LENGTH).map(Filter::Step);
    let staircase = iter::once(Filter::Nothing)
        .chain(steps)
        .chain([Filter::Ours])
        .map(|filter| (filter, Tokens::Thousand));
    staircase
        .chain(OTHERS)
        .filter(|(filter, _)| *filter != Filter::OtherBuild || modules.other.is_some())
        .collect()
}

/// The counts of one setup.
#[derive(Serialize)]
pub(crate) struct Count {
    pub(crate) setup: &'static str,
    /// Whether the token is a repeated one.
    pub(crate) again: bool,
    /// The instructions of a request in each Envoy.
    pub(crate) instructions: Vec<u64>,
}

impl Count {
    pub(crate) fn median(&self) -> u64 {
        median(self.instructions.iter().copied())
    }

    /// The least and the largest count.
    pub(crate) fn range(&self) -> (u64, u64) {
        let counts = self.instructions.iter().copied();
        (
            counts.clone().min().unwrap_or_default(),
            counts.max().unwrap_or_default(),
        )
    }

    /// The median of how much more it is than another count in the same Envoy.
    pub(crate) fn more_than(&self, other: &Count) -> i64 {
        let both = self.instructions.iter().zip(&other.instructions);
        median(both.map(|(mine, theirs)| *mine as i64 - *theirs as i64))
    }
}

fn median<T: Ord + Copy>(counts: impl Iterator<Item = T>) -> T {
    let mut counts: Vec<T> = counts.collect();
    counts.sort_unstable();
    counts[counts.len() / 2]
}

/// Counts; `None` without valgrind. `keys` serves `key`, which signs the tokens, under `kid`.
/// `folder` is for files.
pub(crate) async fn count(
    folder: &Path,
    tokens: &Path,
    keys: &KeyServer,
    (kid, key): (&str, &Key),
    modules: &Modules,
) -> Option<Vec<Count>> {
    Command::new("valgrind").arg("--version").output().ok()?;
    let envoy = support::default_envoy();
    // Replaces Envoy: the same arguments, under callgrind. The VM's compiled code counts as
    // self-modifying.
    let (counted, counts) = (folder.join("counted"), folder.join(DUMPS));
    let script = format!(
        "#!/bin/sh\nexec valgrind --tool=callgrind --smc-check=all-non-file --separate-threads=yes --instr-atstart=no --callgrind-out-file={} {} \"$@\"\n",
        counts.display(),
        envoy.display()
    );
    std::fs::write(&counted, script).expect("the script");
    std::fs::set_permissions(&counted, std::fs::Permissions::from_mode(0o755)).expect("the script");
    let mut setup = Setup::new(&counted, keys.address(), keys.address());
    setup.log_level = "error";
    let name = |(filter, tokens): (Filter, Tokens)| format!("{}, {}", filter.name(), tokens.name());
    let at_once = json!({"direct_response": {"status": 200}});
    let cases = cases(modules);
    for &case in &cases {
        setup
            .listeners
            .push(case.0.listener(&name(case), &at_once, kid, key, modules));
    }
    let text = std::fs::read_to_string(tokens).expect("the tokens");
    let mut found: Vec<_> = cases
        .iter()
        .map(|(filter, tokens)| Count {
            setup: filter.name(),
            again: *tokens != Tokens::New,
            instructions: Vec::new(),
        })
        .collect();
    for _ in 0..TIMES {
        let envoy = Envoy::must_start(&setup).await;
        for (number, &case) in cases.iter().enumerate() {
            let gateway = envoy.listener(&name(case)).await.expect("the listener");
            send_counted(&envoy, gateway, found[number].again, &text).await;
            found[number]
                .instructions
                .push(of_worker(folder) / COUNTED as u64);
        }
        envoy.stop().await;
    }
    Some(found)
}

/// Sends requests with these tokens, and makes callgrind dump the instructions of [`COUNTED`] of
/// them.
async fn send_counted(envoy: &Envoy, gateway: SocketAddr, again: bool, tokens: &str) {
    let mut tokens: Box<dyn Iterator<Item = &str>> = if again {
        Box::new(tokens.lines().take(AGAIN).cycle())
    } else {
        Box::new(tokens.lines())
    };
    send(gateway, tokens.by_ref().take(WARM_UP)).await;
    control(envoy, &["--instr=on"]);
    // Discards the count so far.
    send(gateway, tokens.by_ref().take(3)).await;
    control(envoy, &["--zero"]);
    send(gateway, tokens.by_ref().take(COUNTED)).await;
    control(envoy, &["--dump"]);
    control(envoy, &["--instr=off"]);
}

/// The worker's instructions in callgrind's dumps in `folder`, which are removed. The worker is the
/// thread with the most.
fn of_worker(folder: &Path) -> u64 {
    let mut most = 0;
    for file in std::fs::read_dir(folder).expect("the dumps") {
        let file = file.expect("a dump");
        if file
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("{DUMPS}."))
        {
            let text = std::fs::read_to_string(file.path()).expect("a dump");
            let total = text.lines().find_map(|line| {
                line.strip_prefix("totals: ")
                    .or(line.strip_prefix("summary: "))
            });
            let total = total.and_then(|total| total.trim().parse().ok());
            most = total.unwrap_or(0).max(most);
            std::fs::remove_file(file.path()).expect("a dump");
        }
    }
    assert!(most > 0, "callgrind dumped no total");
    most
}

/// Sends a command to callgrind, which executes it before it returns.
fn control(envoy: &Envoy, what: &[&str]) {
    let output = Command::new("callgrind_control")
        .args(what)
        .arg(envoy.process_id().to_string())
        .output();
    let output = output.expect("callgrind_control");
    assert!(
        output.status.success(),
        "callgrind_control: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Sends a request with each of these tokens in order.
async fn send(gateway: SocketAddr, tokens: impl Iterator<Item = &str>) {
    let mut connection = Connection::http1(gateway).await.expect("a connection");
    for token in tokens {
        let headers = [
            ("host", "gateway.test"),
            ("x-amzn-oidc-data", token),
            ("accept", "*/*"),
            ("user-agent", "bench"),
        ];
        let request = Request::get("/", &headers);
        let reply = loop {
            match connection
                .send(&request, full(""))
                .await
                .expect("an answer")
            {
                Some(reply) => break reply,
                None => connection = Connection::http1(gateway).await.expect("a connection"),
            }
        };
        assert_eq!(reply.status, 200);
    }
}
