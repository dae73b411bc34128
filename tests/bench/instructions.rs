//! What a request costs Envoy in instructions, without the kernel's: counted by callgrind, where valgrind is installed, and the
//! same on every machine. Measures no time.

use super::setups::{Filter, Modules, Tokens};
use super::support;
use super::support::client::{Connection, Request};
use super::support::envoy::{Envoy, Setup};
use super::support::key_server::KeyServer;
use super::support::server::full;
use super::support::token::Key;
use serde::Serialize;
use serde_json::json;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Requests before the count, and counted.
const WARM_UP: usize = 60;
const COUNTED: usize = 200;
/// How many tokens come again and again.
const AGAIN: usize = 20;
const CASES: [(Filter, Tokens); 7] = [
    (Filter::Nothing, Tokens::Thousand),
    (Filter::EmptyModule, Tokens::Thousand),
    (Filter::JwtAuthnWithCache, Tokens::Thousand),
    (Filter::LeastModule, Tokens::Thousand),
    (Filter::Ours, Tokens::Thousand),
    (Filter::Ours, Tokens::New),
    (Filter::JwtAuthn, Tokens::New),
];

/// What was counted of one setup.
#[derive(Serialize)]
pub(crate) struct Count {
    pub(crate) setup: &'static str,
    /// The token is one of those that came before.
    pub(crate) again: bool,
    /// For each request.
    pub(crate) instructions: u64,
}

/// Counts; `None` where there is no valgrind. `tokens` are of `key`, which `keys` serves under `kid`; `folder` is for files.
pub(crate) async fn count(
    folder: &Path,
    tokens: &Path,
    keys: &KeyServer,
    (kid, key): (&str, &Key),
    modules: &Modules,
) -> Option<Vec<Count>> {
    Command::new("valgrind").arg("--version").output().ok()?;
    let envoy = support::default_envoy();
    // In Envoy's place: the same arguments, under callgrind. What the VM compiles is code that changes.
    let (counted, counts) = (folder.join("counted"), folder.join("counts"));
    let script = format!(
        "#!/bin/sh\nexec valgrind --tool=callgrind --smc-check=all-non-file --instr-atstart=no --callgrind-out-file={} {} \"$@\"\n",
        counts.display(),
        envoy.display()
    );
    std::fs::write(&counted, script).expect("the script");
    std::fs::set_permissions(&counted, std::fs::Permissions::from_mode(0o755)).expect("the script");
    let mut setup = Setup::new(&counted, keys.address(), keys.address());
    setup.log_level = "error";
    let name = |(filter, tokens): (Filter, Tokens)| format!("{}, {}", filter.name(), tokens.name());
    let at_once = json!({"direct_response": {"status": 200}});
    for case in CASES {
        setup.listeners.push(case.0.listener(&name(case), &at_once, kid, key, modules));
    }
    let envoy = Envoy::must_start(&setup).await;
    let text = std::fs::read_to_string(tokens).expect("the tokens");
    let mut found = Vec::new();
    for case in CASES {
        let gateway = envoy.listener(&name(case)).await.expect("the listener");
        let again = case.1 != Tokens::New;
        let mut tokens: Box<dyn Iterator<Item = &str>> =
            if again { Box::new(text.lines().take(AGAIN).cycle()) } else { Box::new(text.lines()) };
        send(gateway, tokens.by_ref().take(WARM_UP)).await;
        control(&envoy, &["--instr=on"]);
        // What is counted on the way there is forgotten.
        send(gateway, tokens.by_ref().take(3)).await;
        control(&envoy, &["--zero"]);
        send(gateway, tokens.by_ref().take(COUNTED)).await;
        control(&envoy, &["--dump"]);
        control(&envoy, &["--instr=off"]);
        let dump = folder.join(format!("counts.{}", found.len() + 1));
        let dump = std::fs::read_to_string(&dump).unwrap_or_else(|error| panic!("{}: {error}", dump.display()));
        let total = dump.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
        let total: u64 = total.and_then(|total| total.trim().parse().ok()).expect("a total in callgrind's dump");
        found.push(Count { setup: case.0.name(), again, instructions: total / COUNTED as u64 });
    }
    envoy.stop().await;
    Some(found)
}

/// Tells callgrind what to do next, which it does before it returns.
fn control(envoy: &Envoy, what: &[&str]) {
    let output = Command::new("callgrind_control").args(what).arg(envoy.process_id().to_string()).output();
    let output = output.expect("callgrind_control");
    assert!(output.status.success(), "callgrind_control: {}", String::from_utf8_lossy(&output.stderr));
}

/// Sends a request with each of these tokens, one after the other.
async fn send(gateway: SocketAddr, tokens: impl Iterator<Item = &str>) {
    let mut connection = Connection::http1(gateway).await.expect("a connection");
    for token in tokens {
        let headers =
            [("host", "gateway.test"), ("x-amzn-oidc-data", token), ("accept", "*/*"), ("user-agent", "bench")];
        let request = Request::get("/", &headers);
        let reply = loop {
            match connection.send(&request, full("")).await.expect("an answer") {
                Some(reply) => break reply,
                None => connection = Connection::http1(gateway).await.expect("a connection"),
            }
        };
        assert_eq!(reply.status, 200);
    }
}
