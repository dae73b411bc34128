//! The ledger: sent requests, their outcomes, and whether all records agree. Sends nothing.

use super::{FAULTS, Kind, LISTENERS, PROBE, TIMEOUT_MS, World};
use crate::load::Outcome;
use crate::load::memory::Memory;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::envoy::fetched;
use support::key_server::KeyServer;
use support::upstream::Seen;

/// Headers that clients set and must not set.
pub(crate) const SPOOFED: [&str; 4] = [
    "kubeflow-userid",
    "kubeflow_userid",
    "kubeflow-groups",
    "x-amzn-oidc-identity",
];
/// Headers that upstream must not receive.
const HIDDEN: [&str; 4] = [
    "kubeflow_userid",
    "kubeflow-groups",
    "x-amzn-oidc-identity",
    "x-amzn-oidc-data",
];
/// How late an answer may be, in addition to two of the machine's longest delays of a request
/// without the filter: one before the wait, and one after it.
const SLACK: Duration = Duration::from_secs(1);
/// How much Envoy's heap may grow: buffers, drained listeners, statistics.
const HEAP_SLACK: u64 = 8 << 20;
/// How much its resident memory may grow, without the modules' memory: pages of key answers of 40
/// MB.
const RESIDENT_SLACK: u64 = 128 << 20;
/// The memory of a VM without its token cache.
const LINEAR: u64 = 4 << 20;
/// The growth of a VM's token cache for each sent request: a token of 1.2 KB and its entry, with
/// every other request on this worker, two of three admitted, and two of three of those with a new
/// token.
const CACHED_PER_REQUEST: u64 = 512;
/// The largest token cache of a plugin, rounded up.
const TOKEN_CACHE: u64 = 16 << 20;
const WORKERS: i64 = 2;
/// The burst of fetches of unknown keys, and the rate a second: `docs/architecture.md`, Unknown
/// keys.
const FETCH_BURST: i64 = 20;
const FETCHES_PER_SECOND: i64 = 10;

/// The host from which the plugin of a listener fetches keys.
pub(crate) fn key_host(listener: &str) -> String {
    format!("{listener}.keys.test")
}

/// A sent request.
pub(crate) struct Sent {
    pub(crate) kind: Kind,
    pub(crate) websocket: bool,
    /// The user that upstream may receive, only if the key server served the key.
    pub(crate) may_be: Option<String>,
    /// The key that signed it: its path at the key server, and its PEM.
    pub(crate) key: (String, String),
    pub(crate) uploads: usize,
    pub(crate) downloads: Option<usize>,
    /// Whether the key server was down, or had been shortly before.
    pub(crate) disturbed: bool,
    pub(crate) outcome: Option<Outcome>,
    /// The listener, protocol and form.
    pub(crate) how: String,
}

#[derive(Default)]
pub(crate) struct Ledger {
    sent: Vec<Sent>,
    seen: Vec<Arrived>,
}

/// The record of a request upstream.
struct Arrived {
    path: String,
    users: Vec<String>,
    hidden: bool,
    body: usize,
}

/// A line of the access log.
struct Logged {
    status: u16,
    user: Option<String>,
    reason: Option<String>,
}

/// The failures: the number of each kind, and the first few.
#[derive(Default)]
struct Complaints(BTreeMap<&'static str, (usize, Vec<String>)>);

impl Complaints {
    fn add(&mut self, what: &'static str, about: impl Debug) {
        let (count, examples) = self.0.entry(what).or_default();
        *count += 1;
        if examples.len() < 5 {
            examples.push(format!("{about:?}"));
        }
    }

    fn must(&mut self, what: &'static str, holds: bool, about: impl Debug) {
        if !holds {
            self.add(what, about);
        }
    }
}

impl Ledger {
    pub(crate) fn send(&mut self, sent: Sent) -> usize {
        self.sent.push(sent);
        self.sent.len() - 1
    }

    pub(crate) fn came(&mut self, id: usize, outcome: Outcome, how: String) {
        self.sent[id].outcome = Some(outcome);
        self.sent[id].how = how;
    }

    pub(crate) fn arrived(&mut self, seen: Vec<Seen>) {
        self.seen.extend(
            seen.into_iter()
                .filter(|seen| seen.path != PROBE)
                .map(|seen| Arrived {
                    users: seen
                        .header("kubeflow-userid")
                        .into_iter()
                        .map(ToOwned::to_owned)
                        .collect(),
                    hidden: HIDDEN.iter().any(|name| !seen.header(name).is_empty()),
                    path: seen.path,
                    body: seen.body.len(),
                }),
        );
    }

    /// Checks that each request was answered in time with a possible answer.
    fn judge_answers(&self, machine: Duration, complaints: &mut Complaints) {
        let deadline = Duration::from_millis(3 * TIMEOUT_MS) + SLACK + 2 * machine;
        // If the machine delays requests longer than a fetch may take, keys may be late.
        let too_slow = machine > Duration::from_millis(TIMEOUT_MS);
        for (id, sent) in self.sent.iter().enumerate() {
            let reply = match &sent.outcome {
                Some(Outcome::Answered(reply)) => reply,
                Some(Outcome::HungUp) => continue,
                other => {
                    complaints.add(
                        "requests without an answer",
                        (id, sent.kind, &sent.how, other),
                    );
                    continue;
                }
            };
            let what = sent.answer().unwrap_or_default();
            complaints.must(
                "answers later than the deadline",
                reply.took < deadline,
                (id, sent.kind, &sent.how, &what, reply.took),
            );
            let may = sent.may_be_answered(sent.disturbed || too_slow);
            let about = (id, sent.kind, &sent.how, reply.status, &what, &may);
            complaints.must(
                "answers that this request may not get",
                may.contains(&what.as_str()),
                about,
            );
            if let (Some(size), "admitted") = (sent.downloads, what.as_str()) {
                complaints.must(
                    "downloads cut short",
                    reply.body.len() == size,
                    (id, reply.body.len(), size),
                );
            }
        }
    }

    /// Checks that upstream received the token's user for each request, or nothing.
    fn judge_upstream(&self, keys: &KeyServer, complaints: &mut Complaints) {
        let mut arrivals: HashMap<usize, usize> = HashMap::new();
        for seen in &self.seen {
            let found = seen.path.rsplit('/').next().and_then(|id| id.parse().ok());
            let Some((id, sent)) = found.and_then(|id: usize| Some((id, self.sent.get(id)?)))
            else {
                complaints.add("requests upstream that were not sent", &seen.path);
                continue;
            };
            *arrivals.entry(id).or_default() += 1;
            let right = match &sent.may_be {
                Some(user) => seen.users == [user.as_str()] && keys.gave(&sent.key.0, &sent.key.1),
                None => seen.users.is_empty() && sent.kind == Kind::Open,
            };
            complaints.must(
                "wrong identities upstream",
                right,
                (id, sent.kind, &seen.users, &sent.may_be),
            );
            complaints.must(
                "headers upstream that are to be removed",
                !seen.hidden,
                (id, sent.kind),
            );
            complaints.must(
                "bodies changed on their way",
                seen.body == sent.uploads,
                (id, seen.body, sent.uploads),
            );
        }
        for (id, sent) in self.sent.iter().enumerate() {
            let times = arrivals.get(&id).copied().unwrap_or(0);
            let right = match sent.answer().as_deref() {
                Some("admitted") => times == 1,
                Some(_) => times == 0,
                None => times <= 1,
            };
            complaints.must(
                "answers that do not agree with upstream",
                right,
                (id, sent.kind, sent.answer(), times),
            );
        }
    }

    /// Checks that the access log has a line for each request, and that the counters agree.
    fn judge_counters(
        &self,
        log: &[(usize, Logged)],
        counters: &BTreeMap<String, i64>,
        complaints: &mut Complaints,
    ) {
        let mut lines: HashMap<usize, &Logged> = HashMap::new();
        let mut expected: BTreeMap<String, i64> = BTreeMap::new();
        for (id, logged) in log {
            complaints.must(
                "requests logged twice",
                lines.insert(*id, logged).is_none(),
                id,
            );
            let sent = &self.sent[*id];
            if let Some(user) = &logged.user {
                complaints.must(
                    "wrong identities logged",
                    sent.may_be.as_ref() == Some(user),
                    (id, sent.kind, user),
                );
                *expected.entry("admitted".into()).or_default() += 1;
            }
            if let Some(reason) = &logged.reason {
                *expected.entry(format!("denied.{reason}")).or_default() += 1;
            }
            if sent.kind == Kind::Open {
                *expected.entry("skipped".into()).or_default() += 1;
            }
        }
        for (id, sent) in self.sent.iter().enumerate() {
            let (Some(Outcome::Answered(reply)), line) = (&sent.outcome, lines.get(&id)) else {
                continue;
            };
            let reason = (reply.status >= 400).then(|| sent.answer().unwrap_or_default());
            let agrees =
                line.is_some_and(|line| line.status == reply.status && line.reason == reason);
            let about = line.map(|line| (line.status, line.reason.clone()));
            complaints.must(
                "answers that do not agree with the access log",
                agrees,
                (id, reply.status, reason, about),
            );
        }
        let counted: BTreeMap<String, i64> = counters
            .iter()
            .filter(|(name, count)| {
                **count != 0
                    && (name.starts_with("denied.")
                        || ["admitted", "skipped"].contains(&name.as_str()))
            })
            .map(|(name, count)| (name.clone(), *count))
            .collect();
        complaints.must(
            "counters that do not add up to the requests",
            counted == expected,
            (&counted, &expected),
        );
        let waiting = counters.get("waiting");
        complaints.must(
            "requests that are still counted as waiting",
            waiting == Some(&0),
            waiting,
        );
    }

    /// Checks that the counters agree with the key server's fetches, and that fetches of unknown
    /// keys stay within the token buckets.
    fn judge_fetches(
        keys: &KeyServer,
        counters: &BTreeMap<String, i64>,
        (took, machine, reloads): (Duration, Duration, i64),
        complaints: &mut Complaints,
    ) {
        let fetches = keys.fetches();
        let (counted, seen) = (fetched(counters), count(fetches.len()));
        // A replaced plugin receives no answer.
        let agree = seen <= counted + reloads;
        complaints.must("fetches that were not counted", agree, (counted, seen));
        // A connection may break, or a fetch time out, before the key server receives the request.
        let unseen = if machine > Duration::from_millis(TIMEOUT_MS) {
            counted
        } else {
            4
        };
        complaints.must(
            "fetches that were not made",
            counted <= seen + unseen,
            (counted, seen),
        );
        for (listener, ..) in LISTENERS {
            let host = key_host(listener);
            // A fetch of a key that was served once may be a refresh, which no token bucket limits.
            let unknown = count(
                fetches
                    .iter()
                    .filter(|fetch| fetch.host == host && !fetch.again)
                    .count(),
            );
            // One bucket for each worker, and a full one for each new configuration. That is more
            // than the replaced plugin can use.
            let configurations = if listener == "moving" { reloads } else { 1 };
            let seconds = i64::try_from(took.as_secs()).expect("a few") + 1;
            let allowed = WORKERS * (configurations * FETCH_BURST + seconds * FETCHES_PER_SECOND);
            complaints.must(
                "fetches beyond the rate limit",
                unknown <= allowed,
                (listener, unknown, allowed),
            );
        }
    }

    /// Whether this misbehaviour affected an answer, and the key server was asked for that key
    /// while it was up.
    pub(crate) fn felt(&self, fault: usize, keys: &KeyServer) -> bool {
        let fetches = keys.fetches();
        let answers = FAULTS[fault].2;
        self.sent
            .iter()
            .filter(|sent| sent.kind == Kind::Faulty(fault))
            .any(|sent| {
                sent.answer()
                    .is_some_and(|answer| answers.contains(&answer.as_str()))
                    && fetches
                        .iter()
                        .any(|fetch| !fetch.in_outage && fetch.path == sent.key.0)
            })
    }

    /// Checks that every intended situation occurred.
    fn judge_coverage(
        &self,
        keys: &KeyServer,
        complaints: &mut Complaints,
    ) -> BTreeMap<String, BTreeMap<String, usize>> {
        let mut table: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for sent in &self.sent {
            let what = sent.answer().unwrap_or_else(|| "(hung up)".into());
            *table
                .entry(sent.name())
                .or_default()
                .entry(what)
                .or_default() += 1;
        }
        for (fault, (name, ..)) in FAULTS.iter().enumerate() {
            let about = (name, table.get(&format!("key: {name}")));
            complaints.must(
                "misbehaviours without effect",
                self.felt(fault, keys),
                about,
            );
        }
        let seen = |what: &str, kind: Option<Kind>, and: fn(&Sent) -> bool| {
            self.sent.iter().any(|sent| {
                kind.is_none_or(|kind| kind == sent.kind)
                    && sent.answer().as_deref() == Some(what)
                    && and(sent)
            })
        };
        let steady = self
            .sent
            .iter()
            .find(|sent| sent.kind == Kind::Steady)
            .map(|sent| sent.key.0.as_str());
        let refreshed = keys
            .fetches()
            .iter()
            .any(|fetch| fetch.in_outage && Some(fetch.path.as_str()) == steady);
        for (what, shown) in [
            (
                "a fetch of a known key while the key server was down",
                refreshed,
            ),
            (
                "a new key that could not be had then",
                seen("key-unavailable", Some(Kind::Rotated), |_| true),
            ),
            (
                "a new key that could",
                seen("admitted", Some(Kind::Rotated), |_| true),
            ),
            (
                "a key that was another's a moment before",
                seen("admitted", Some(Kind::Swapped), |_| true),
            ),
            ("an upload", seen("admitted", None, |sent| sent.uploads > 0)),
            (
                "a download",
                seen("admitted", None, |sent| sent.downloads.is_some()),
            ),
            (
                "a client that hung up",
                self.sent
                    .iter()
                    .any(|sent| matches!(sent.outcome, Some(Outcome::HungUp))),
            ),
        ] {
            complaints.must("what was to come and did not", shown, what);
        }
        table
    }
}

impl Sent {
    fn name(&self) -> String {
        match self.kind {
            Kind::Faulty(fault) => format!("key: {}", FAULTS[fault].0),
            kind => format!("{kind:?}"),
        }
    }

    fn took(&self) -> Option<Duration> {
        if let Some(Outcome::Answered(reply)) = &self.outcome {
            Some(reply.took)
        } else {
            None
        }
    }

    /// `admitted`, or the reason; `None`: the client hung up, or an error.
    fn answer(&self) -> Option<String> {
        let Some(Outcome::Answered(reply)) = &self.outcome else {
            return None;
        };
        if reply.status == if self.websocket { 101 } else { 200 } {
            return Some("admitted".into());
        }
        let body: Option<Value> = serde_json::from_str(&reply.body).ok();
        let reason = body.as_ref().and_then(|body| body["reason"].as_str());
        Some(reason.map_or_else(
            || format!("{} {}", reply.status, reply.body),
            ToOwned::to_owned,
        ))
    }

    fn may_be_answered(&self, disturbed: bool) -> Vec<&'static str> {
        match self.kind {
            Kind::Steady | Kind::Open => vec!["admitted"],
            Kind::Rotated if disturbed => vec!["admitted", "key-unavailable"],
            Kind::Rotated => vec!["admitted"],
            Kind::Swapped => vec!["admitted", "signature-invalid", "key-unavailable"],
            // No token may have been left.
            Kind::Faulty(fault) => [FAULTS[fault].2, &["key-unavailable"]].concat(),
            Kind::Invented => vec!["key-not-found", "key-unavailable"],
            Kind::Forged => vec!["signature-invalid"],
            Kind::Expired => vec!["token-expired"],
            Kind::Foreign => vec!["signer-unknown"],
            Kind::Bare => vec!["token-missing"],
        }
    }
}

impl World {
    /// Runs all checks. `earlier` holds earlier memory measurements.
    pub(crate) async fn balance(&self, took: Duration, earlier: &[Memory; 2]) {
        let mut complaints = Complaints::default();
        // Log lines of clients that hung up, and their requests upstream, arrive slightly later.
        let deadline = Instant::now() + Duration::from_secs(30);
        let (mut log, mut counters);
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.ledger
                .lock()
                .expect("the ledger")
                .arrived(self.upstream.take_seen());
            log = read(&self.envoy.access_log_since(0).0);
            counters = self.envoy.counters().await;
            let all = log.len() == self.ledger.lock().expect("the ledger").sent.len();
            let over = fetched(&counters) >= count(self.keys.fetches().len());
            if (all && over && counters.get("waiting") == Some(&0)) || Instant::now() > deadline {
                break;
            }
        }
        let stats = self.envoy.stats("(wasm|http.*rx_reset|lds)").await;
        let [before, half] = earlier;
        // A key answer of 40 MB may be on its way. Leaked memory stays.
        let settled = Instant::now() + Duration::from_secs(30);
        let mut memory = Memory::of(&self.envoy).await;
        while memory.heap >= before.heap + HEAP_SLACK && Instant::now() < settled {
            tokio::time::sleep(Duration::from_secs(1)).await;
            memory = Memory::of(&self.envoy).await;
        }
        let ledger = self.ledger.lock().expect("the ledger");
        let machine = *self.slowest.lock().expect("the longest wait");
        ledger.judge_answers(machine, &mut complaints);
        ledger.judge_upstream(&self.keys, &mut complaints);
        ledger.judge_counters(&log, &counters, &mut complaints);
        let table = ledger.judge_coverage(&self.keys, &mut complaints);

        let logged = self.envoy.log();
        let died: Vec<&str> = logged
            .lines()
            .filter(|line| line.contains("/wasm_vm.cc:") || line.contains("alb-oidc: panic"))
            .collect();
        complaints.must("VMs that died", died.is_empty(), &died);
        let rebuilt: Vec<_> = stats
            .iter()
            .filter(|(name, count)| name.contains(".vm_reload") && **count != 0)
            .collect();
        complaints.must("VMs that were rebuilt", rebuilt.is_empty(), &rebuilt);
        let reloads = stats
            .get("listener_manager.lds.update_success")
            .copied()
            .unwrap_or(0);
        complaints.must(
            "configurations that were not replaced",
            reloads > 2,
            reloads,
        );
        Ledger::judge_fetches(
            &self.keys,
            &counters,
            (took, machine, reloads),
            &mut complaints,
        );
        let messages = self.messages.load(Ordering::Relaxed);
        complaints.must("WebSockets without messages", messages > 0, messages);
        complaints.must(
            "growth of Envoy's heap",
            memory.heap < before.heap + HEAP_SLACK,
            (before, &memory),
        );
        let resident = memory.resident < before.resident + RESIDENT_SLACK;
        complaints.must("growth of resident memory", resident, (before, &memory));
        let sent = ledger.sent.len() as u64;
        let bound = LINEAR + (sent * CACHED_PER_REQUEST).min(TOKEN_CACHE * LISTENERS.len() as u64);
        complaints.must(
            "growth of a VM's memory",
            memory.linear.iter().all(|bytes| *bytes < bound),
            (&memory, bound),
        );

        let fetches = self.keys.fetches();
        println!(
            "envoy {}: {} requests in {took:.1?}, {} fetches, {reloads} configurations, {messages} WebSocket messages",
            support::version(&support::default_envoy()),
            ledger.sent.len(),
            fetches.len(),
        );
        for (name, answers) in &table {
            let answers: Vec<_> = answers
                .iter()
                .map(|(answer, count)| format!("{answer} {count}"))
                .collect();
            println!("  {name:<24} {}", answers.join(", "));
        }
        let longest = ledger
            .sent
            .iter()
            .filter_map(Sent::took)
            .max()
            .unwrap_or_default();
        println!(
            "  longest wait             {longest:.1?}; of who went past the filter {machine:.1?}"
        );
        for (when, memory) in [("before", before), ("half-way", half), ("after", &memory)] {
            println!("  memory {when:<17} {memory}");
        }
        for (listener, ..) in LISTENERS {
            let of: Vec<_> = fetches
                .iter()
                .filter(|fetch| fetch.host == key_host(listener))
                .collect();
            let unknown = of.iter().filter(|fetch| !fetch.again).count();
            println!(
                "  fetches by {listener:<13} {}, of unknown keys {unknown}",
                of.len()
            );
        }
        for (name, count) in stats.iter().filter(|(_, count)| **count != 0) {
            println!("  {count:>8} {name}");
        }
        let mut report = String::new();
        for (what, (count, examples)) in &complaints.0 {
            report += &format!("\n{count} {what}:\n  {}", examples.join("\n  "));
        }
        assert!(report.is_empty(), "CHAOS_SEED={}{report}", self.seed);
    }
}

fn count(of: usize) -> i64 {
    i64::try_from(of).expect("a count")
}

fn read(access_log: &str) -> Vec<(usize, Logged)> {
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| line[name].as_str().map(ToOwned::to_owned);
        let logged = Logged {
            status: u16::try_from(line["status"].as_u64()?).ok()?,
            user: text("user"),
            reason: text("reason"),
        };
        Some((line["row"].as_str()?.parse().ok()?, logged))
    };
    access_log.lines().filter_map(line).collect()
}
