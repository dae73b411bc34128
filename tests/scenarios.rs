//! Runs the table of scenarios (`tests/scenarios/*.toml`, format in `support/table.rs`) on each
//! supported Envoy.
//!
//! For each row it compares the client's and upstream's view, all counters, the key server's
//! requests and the log with the row. `SCENARIO=words` runs only the rows with these words in their
//! name.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use support::client::{Reply, Request, send, send_raw};
use support::envoy::{Envoy, Setup, fetched};
use support::expect::{self, Access, Denial, Sent};
use support::key_server::{CLUSTERS, KeyServer};
use support::server::{Server, full};
use support::table::{Count, Mint, Row, Step, Table};
use support::token::{ARN, CLIENT, ISSUER, Key, Token, TokenSpec};
use support::upstream::Upstream;
use tokio::net::TcpSocket;
use uuid::Uuid;

/// The path of the pool's key set in the rows' configurations.
const JWKS_HOST: &str = "cognito-idp.us-west-2.amazonaws.com";
const JWKS_PATH: &str = "/us-west-2_EXAMPLE/.well-known/jwks.json";

/// The deadline for the last counters and log lines of a row.
const SETTLED: Duration = Duration::from_secs(10);

#[tokio::test]
async fn every_row_holds_on_every_envoy() {
    let mut table = Table::read(&support::repository("tests/scenarios"));
    if let Ok(words) = std::env::var("SCENARIO") {
        table.rows.retain(|row| row.name.contains(&words));
    }
    assert!(!table.rows.is_empty(), "no row to run");
    let mut failures = Vec::new();
    for envoy in support::envoys() {
        let start = Instant::now();
        let (version, before) = (support::version(&envoy), failures.len());
        World::start(&envoy, &table)
            .await
            .run(&table, &mut failures)
            .await;
        let failed = failures.len() - before;
        say(&format!(
            "envoy {version}: {} rows passed, {failed} failed, {:.1} s",
            table.rows.len() - failed,
            start.elapsed().as_secs_f64()
        ));
    }
    assert!(
        failures.is_empty(),
        "{} rows failed:\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

/// `Table::read` panics if two rows have the same name.
#[test]
fn row_names_are_unique_and_at_most_80_characters() {
    let names = Table::read(&support::repository("tests/scenarios"))
        .rows
        .into_iter()
        .map(|row| row.name);
    let long: Vec<_> = names.filter(|name| name.chars().count() > 80).collect();
    assert!(long.is_empty(), "shorten these names: {long:#?}");
}

/// Prints immediately, even if the test runner captures output.
fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// One Envoy and its surroundings, and what was observed up to the present row.
struct World {
    version: String,
    envoy: Envoy,
    addresses: BTreeMap<String, SocketAddr>,
    /// Plugins whose VM must verify signatures in the module.
    verified_by_module: BTreeSet<String>,
    /// By cluster.
    keys: BTreeMap<&'static str, KeyServer>,
    upstream: Upstream,
    _not_the_key_server: Server,
    _closed: TcpSocket,
    /// Counters and gauges after the previous row.
    counters: BTreeMap<String, i64>,
    /// The length of the log after the previous row.
    logged: u64,
    /// The length of the access log after the previous row.
    accessed: u64,
    /// Texts that must never be logged.
    secrets: BTreeSet<String>,
}

impl World {
    async fn start(binary: &Path, table: &Table) -> World {
        let upstream = Upstream::start().await;
        let mut keys = BTreeMap::new();
        for cluster in CLUSTERS {
            keys.insert(cluster, KeyServer::start().await);
        }
        // A cluster with an HTTP server that answers every request with a page and has no keys.
        let not_the_key_server =
            Server::start(|_| async { Ok(hyper::Response::new(full("<html>It works</html>"))) })
                .await;
        // A closed port that no other program gets, such as one of Envoy's own listeners.
        let closed = TcpSocket::new_v4().expect("a socket");
        closed.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let mut setup = Setup::new(binary, upstream.address(), keys["keys"].address());
        setup.plugins = table.plugins.clone();
        setup.clusters.extend([
            ("web".to_owned(), Some(not_the_key_server.address)),
            (
                "closed".to_owned(),
                Some(closed.local_addr().expect("its port")),
            ),
            ("empty".to_owned(), None),
        ]);
        setup.clusters.extend(
            keys.iter()
                .map(|(cluster, server)| ((*cluster).to_owned(), Some(server.address()))),
        );
        let envoy = Envoy::must_start(&setup).await;
        let log = envoy.log();
        let started = concat!(
            "alb-oidc: version ",
            env!("CARGO_PKG_VERSION"),
            ", built with "
        );
        let started = log
            .lines()
            .find_map(|line| Some(line.split_once(started)?.1))
            .expect("the start-up log line");
        assert!(
            started.contains("rustc 1.") && started.contains(", signatures verified by the "),
            "{started}"
        );
        say(&format!(
            "envoy {}: the module is built with {started}",
            support::version(binary)
        ));
        let mut addresses = BTreeMap::new();
        for plugin in &table.plugins {
            addresses.insert(
                plugin.name.clone(),
                envoy
                    .listener(&plugin.name)
                    .await
                    .expect("the plugin's listener"),
            );
        }
        let by_module = table.plugins.iter().filter(|plugin| {
            plugin
                .env
                .get("ALB_OIDC_VERIFIER")
                .is_some_and(|value| value == "module")
        });
        let mut world = World {
            version: support::version(binary),
            addresses,
            verified_by_module: by_module.map(|plugin| plugin.name.clone()).collect(),
            keys,
            upstream,
            _not_the_key_server: not_the_key_server,
            _closed: closed,
            counters: BTreeMap::new(),
            logged: envoy.log_since(0).1,
            accessed: 0,
            secrets: BTreeSet::new(),
            envoy,
        };
        world.counters = world.envoy.counters().await;
        world
    }

    async fn run(mut self, table: &Table, failures: &mut Vec<String>) {
        for (number, row) in table.rows.iter().enumerate() {
            let wrong = self.run_row(number, row).await;
            if !wrong.is_empty() {
                failures.push(format!(
                    "[envoy {}] {}\n  {}",
                    self.version,
                    row.name,
                    wrong.join("\n  ")
                ));
            }
        }
        let log = self.envoy.log();
        let mut wrong: Vec<String> = self
            .secrets
            .iter()
            .filter(|secret| log.contains(*secret))
            .map(|secret| format!("logged: {secret}"))
            .collect();
        wrong.extend(
            log.lines()
                .filter(|line| line.contains("][error]") || line.contains("][critical]"))
                // Rows with unreachable key servers log an error for the operator.
                .filter(|line| !line.contains("alb-oidc: key fetch failed"))
                .map(|line| format!("an error: {line}")),
        );
        if !wrong.is_empty() {
            failures.push(format!(
                "[envoy {}] the log of the whole run\n  {}",
                self.version,
                wrong.join("\n  ")
            ));
        }
        self.envoy.stop().await;
    }

    /// Runs one row and returns the differences.
    async fn run_row(&mut self, number: usize, row: &Row) -> Vec<String> {
        let mut scene = Scene::new(row, number);
        self.keys.values().for_each(KeyServer::forget_fetches);
        self.keys[row.fetch_cluster.as_str()].publish(
            &scene.fill(&row.fetch_path),
            &scene.key,
            row.key.clone(),
        );
        self.keys["keys"].publish_set(JWKS_PATH, &scene.access_kid, row.jwks.clone());
        let mut wrong = Vec::new();
        for step in &row.requests {
            tokio::time::sleep(Duration::from_millis(step.after_ms)).await;
            let outcomes = send_step(self.addresses[&row.plugin], step, &mut scene).await;
            let seen = self.upstream.take_seen();
            for (sent, reply) in outcomes {
                wrong.extend(expect::request(&sent, step, reply, &seen));
            }
        }
        tokio::time::sleep(Duration::from_millis(row.settle_ms)).await;
        wrong.extend(self.settle(row, &scene).await);
        self.secrets.append(&mut scene.secrets);
        wrong
    }

    /// Waits until counters, fetches and log match the row, or returns the differences.
    async fn settle(&mut self, row: &Row, scene: &Scene<'_>) -> Vec<String> {
        let backend = if self.verified_by_module.contains(&row.plugin) {
            "module"
        } else {
            "host"
        };
        let expected = row.expected_counters(backend);
        // Each unknown kid has its own path.
        let one_path = row.requests.iter().all(|step| step.mint != Mint::EachKid);
        let path = if one_path {
            scene.fill(&row.fetch_path)
        } else {
            String::new()
        };
        let deadline = Instant::now() + SETTLED;
        loop {
            let counters = self.envoy.counters().await;
            let (log, logged) = self.envoy.log_since(self.logged);
            let mut wrong = expect::counters(&expected, &self.counters, &counters);
            // Requests still under way would count in the next row.
            let seen: usize = self
                .keys
                .values()
                .map(|server| server.fetches().len())
                .sum();
            if fetched(&counters) - fetched(&self.counters) < i64::try_from(seen).expect("a count")
            {
                wrong.push(format!("{seen} fetches, and not all of them are over"));
            }
            for (cluster, server) in &self.keys {
                let (count, path, host) = match &row.elsewhere {
                    _ if *cluster == row.fetch_cluster => {
                        (row.fetches(), path.clone(), &row.fetch_host)
                    }
                    Some(other) if *cluster == other.cluster => {
                        (other.fetches, scene.fill(&other.path), &other.host)
                    }
                    _ => (Count::exactly(0), String::new(), &row.fetch_host),
                };
                let (of_sets, of_keys): (Vec<_>, Vec<_>) = server
                    .fetches()
                    .into_iter()
                    .partition(|fetch| fetch.path == JWKS_PATH);
                wrong.extend(expect::fetches(count, &path, host, &of_keys));
                let sets = if *cluster == "keys" {
                    row.jwks_fetches()
                } else {
                    Count::exactly(0)
                };
                wrong.extend(expect::fetches(sets, JWKS_PATH, JWKS_HOST, &of_sets));
            }
            wrong.extend(expect::denials(&scene.denials, &log));
            let texts = row.log_says.iter().map(|text| scene.fill(text));
            let unsaid = texts.filter(|text| !log.contains(text.as_str()));
            wrong.extend(unsaid.map(|text| format!("expected in the log: {text}")));
            let (accesses, accessed) = self.envoy.access_log_since(self.accessed);
            wrong.extend(expect::accesses(&scene.accesses, &accesses));
            if wrong.is_empty() || Instant::now() > deadline {
                self.counters = counters;
                self.logged = logged;
                self.accessed = accessed;
                return wrong;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A running row: its key, its tokens, and the values to check afterwards.
struct Scene<'a> {
    row: &'a Row,
    number: usize,
    sent: usize,
    key: Key,
    access_kid: String,
    /// The values for templates.
    names: BTreeMap<String, String>,
    denials: Vec<Denial>,
    accesses: Vec<Access>,
    secrets: BTreeSet<String>,
}

impl<'a> Scene<'a> {
    fn new(row: &'a Row, number: usize) -> Scene<'a> {
        let uuid = Uuid::new_v4().to_string();
        let kid = row
            .kid
            .replace("{uuid}", &uuid)
            .replace("{UUID}", &uuid.to_uppercase());
        let shards = (0..1000)
            .map(|shard| format!("AWSELBAuthSessionCookie-{shard}=x; "))
            .collect();
        let (dots, climbs) = (".".repeat(16_000), "/%252e%252e;x".repeat(70));
        let names = [
            ("kid", kid),
            ("shards", shards),
            ("dots", dots),
            ("climbs", climbs),
        ];
        let names = names.map(|(name, text)| (name.to_owned(), text)).into();
        let mut scene = Scene {
            row,
            number,
            sent: 0,
            key: Key::generate(),
            access_kid: row.access_kid.replace("{uuid}", &uuid),
            names,
            denials: Vec::new(),
            accesses: Vec::new(),
            secrets: BTreeSet::new(),
        };
        for (name, spec) in [
            ("access_token", &row.access_token),
            ("other_access_token", &row.other_access_token),
        ] {
            let Some(spec) = spec else { continue };
            let token = spec.mint(&scene.access_kid, &scene.key);
            scene.secrets.extend(
                token
                    .split('.')
                    .filter(|part| part.len() >= 8)
                    .map(str::to_owned),
            );
            scene.names.insert(name.into(), token);
        }
        for (name, spec) in &row.tokens {
            scene.mint(name, spec);
        }
        scene.mint("token", &row.token);
        scene
    }

    fn mint(&mut self, name: &str, spec: &TokenSpec) {
        let token = spec.mint(&self.names["kid"], &self.key);
        self.secrets.extend(secrets_of(&token));
        let Token {
            header,
            payload,
            signature,
            text,
        } = token;
        for (part, value) in [
            (".header", header),
            (".payload", payload),
            (".signature", signature),
            ("", text),
        ] {
            self.names.insert(format!("{name}{part}"), value);
        }
    }

    /// Fills in `{name}`. An unknown name is a mistake in the row.
    fn fill(&self, template: &str) -> String {
        let mut filled = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let name = after.split('}').next().unwrap_or_default();
            filled += before;
            if after.len() > name.len()
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_')
                && !name.is_empty()
            {
                filled += self
                    .names
                    .get(name)
                    .unwrap_or_else(|| panic!("{:?}: there is no {{{name}}}", self.row.name));
                rest = &after[name.len() + 1..];
            } else {
                filled.push('{');
                rest = after;
            }
        }
        filled + rest
    }

    /// The next request of a step.
    fn prepare(&mut self, step: &Step) -> Sent {
        self.sent += 1;
        let id = format!("row-{}-{}", self.number, self.sent);
        self.names.insert("id".into(), id.clone());
        match step.mint {
            Mint::Once => {}
            Mint::EachTime => self.mint_anew(self.row.token.clone()),
            Mint::EachKid => {
                let mut spec = self.row.token.clone();
                spec.header
                    .insert("kid".into(), Uuid::new_v4().to_string().into());
                self.mint_anew(spec);
            }
        }
        let mut headers = vec![
            ("host".to_owned(), step.host.clone()),
            ("x-row".to_owned(), id.clone()),
        ];
        headers.extend(
            step.oidc_data
                .iter()
                .map(|value| ("x-amzn-oidc-data".to_owned(), self.fill(value))),
        );
        let access_tokens = step.access_tokens.clone().unwrap_or_else(|| {
            self.row
                .access_token
                .iter()
                .map(|_| "{access_token}".to_owned())
                .collect()
        });
        headers.extend(
            access_tokens
                .iter()
                .map(|value| ("x-amzn-oidc-accesstoken".to_owned(), self.fill(value))),
        );
        for header in &step.headers {
            let (name, value) = header
                .split_once(": ")
                .unwrap_or_else(|| panic!("{:?}: not `name: value`: {header:?}", self.row.name));
            headers.push((name.to_owned(), self.fill(value)));
        }
        let own_id = step.raw.is_some() || headers.iter().any(|(name, _)| name == "x-request-id");
        if !own_id {
            headers.push(("x-request-id".to_owned(), id.clone()));
        }
        let reasons: Vec<String> = step
            .reasons()
            .into_iter()
            .chain(step.report.as_deref())
            .map(str::to_owned)
            .collect();
        // Requests that Envoy itself denies have no headers yet, so their log lines name no row.
        if step.refused.is_none() {
            self.accesses.push(Access {
                id: id.clone(),
                passed: step.passed(),
                user: (self.row.logs_user && step.is_admitted()).then(|| step.user.clone()),
                reasons: reasons.clone(),
                details: step.details().map(str::to_owned),
            });
        }
        if !reasons.is_empty() {
            let request_id = (!own_id).then(|| id.clone());
            self.denials.push(Denial {
                report: step.report.is_some(),
                reasons,
                request_id,
                detail: step.logged.clone(),
            });
        }
        let request = Request {
            method: step.method.clone(),
            path: self.fill(&step.path),
            headers,
            body: step.body.clone(),
        };
        let upstream = step.upstream.iter().map(|(name, values)| {
            (
                name.clone(),
                values.iter().map(|value| self.fill(value)).collect(),
            )
        });
        Sent {
            id,
            request,
            raw: step.raw.as_ref().map(|raw| self.fill(raw)),
            upstream: upstream.collect(),
        }
    }

    /// A token with the row's settings, but not the same one.
    fn mint_anew(&mut self, mut spec: TokenSpec) {
        spec.payload
            .insert("jti".into(), Uuid::new_v4().to_string().into());
        self.mint("token", &spec);
    }
}

/// The parts of a token and the texts in its claims, which must not be logged.
fn secrets_of(token: &Token) -> Vec<String> {
    let mut secrets = vec![
        token.text.clone(),
        token.header.clone(),
        token.payload.clone(),
        token.signature.clone(),
    ];
    let claims = base64::Engine::decode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        token.payload.trim_end_matches('='),
    );
    if let Some(Value::Object(claims)) = claims
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
    {
        let texts = claims
            .iter()
            .filter(|(name, _)| *name != "iss")
            .filter_map(|(_, value)| value.as_str())
            // A denial logs the signer, issuer or client of the JOSE header: these are in no
            // secret. Google's `hd` is a part of the hosts that the log names.
            .filter(|text| ![ARN, ISSUER, CLIENT, "example.com"].contains(text));
        secrets.extend(texts.map(str::to_owned));
    }
    // Short texts occur in any log.
    secrets.retain(|secret| secret.len() >= 8);
    secrets
}

/// Sends the requests of a step, in order or all at once.
async fn send_step(
    to: SocketAddr,
    step: &Step,
    scene: &mut Scene<'_>,
) -> Vec<(Sent, Option<Result<Reply, String>>)> {
    let mut running = Vec::new();
    let mut outcomes = Vec::new();
    for _ in 0..step.times {
        let sent = scene.prepare(step);
        let hang_up = step.hang_up_ms.map(Duration::from_millis);
        let exchange = tokio::spawn(exchange(to, sent.clone(), hang_up));
        if step.at_once {
            running.push((sent, exchange));
        } else {
            outcomes.push((sent, exchange.await.expect("the exchange")));
        }
    }
    for (sent, exchange) in running {
        outcomes.push((sent, exchange.await.expect("the exchange")));
    }
    outcomes
}

/// One request and its answer; `None` if the client hung up first.
async fn exchange(
    to: SocketAddr,
    sent: Sent,
    hang_up: Option<Duration>,
) -> Option<Result<Reply, String>> {
    let answer = async {
        match &sent.raw {
            Some(raw) => send_raw(to, raw).await,
            None => send(to, &sent.request).await,
        }
    };
    match hang_up {
        Some(after) => tokio::time::timeout(after, answer).await.ok(),
        None => Some(answer.await),
    }
}
