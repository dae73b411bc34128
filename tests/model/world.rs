//! Workers with the compiled module that play a schedule. After each event, the outcome of every
//! request is compared with the oracle's, and the counters with the observed events.

use crate::oracle::{Name, Now, Oracle, PATIENCE, SOURCES, Said, Shared, TIMEOUT, Verdict, denied};
use crate::schedule::{
    Arrival, BEGINNING, Claim, PROVIDER_KID, REGIONS, Reply, SESSION, Signed, Signer, Step, Token,
    config, kid,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use support::module::{
    Call, Fate, INTERNAL_FAILURE, Image, OK, Process, Response, Stream, Vm, headers,
};

const METRICS: &str = "wasm_filter.alb_oidc.";
/// The host's timers fire at most every millisecond.
const GRAIN: Duration = Duration::from_millis(1);
/// More ticks than this without another event are a busy loop.
const MOST_TICKS: usize = 500;
/// The limits of each source's queue: key ids, and requests for each of them.
const MOST_QUEUED: usize = 256;
const MOST_QUEUED_REQUESTS: usize = 64;
/// A queue with fewer ids evicts none. Retries without requests come in addition.
const EVICTS_FROM: usize = 200;
/// The limit of a worker's memory in any schedule.
const MOST_MEMORY: usize = 4 << 20;

/// The number of each event: requests by outcome, fetches by answer, signatures.
pub(crate) type Tally = BTreeMap<String, u64>;

/// A worker's initial state: a VM with one plugin, its oracle, and its process.
pub(crate) struct Template {
    pub(crate) reads_access_tokens: bool,
    process: Process,
    image: Image,
    root: u32,
    oracle: Oracle,
    shared: Shared,
    counted: BTreeMap<String, i64>,
    pub(crate) tally: Tally,
}

impl Template {
    /// A worker with empty caches.
    pub(crate) fn new() -> Template {
        Template::of(false)
    }

    /// A worker with empty caches that reads access tokens.
    pub(crate) fn reading_access_tokens() -> Template {
        Template::of(true)
    }

    fn of(reads_access_tokens: bool) -> Template {
        let process = Process::at(Duration::from_secs(BEGINNING), Duration::from_secs(1000));
        let mut vm = Vm::start(&process, &[]);
        let config = config("", "enforce", reads_access_tokens);
        let root = vm.add_plugin(&config).expect("a plugin");
        let image = vm.image();
        let process = process.borrow().clone();
        let (oracle, shared) = (Oracle::new(reads_access_tokens), Shared::default());
        Template {
            reads_access_tokens,
            process,
            image,
            root,
            oracle,
            shared,
            counted: BTreeMap::new(),
            tally: Tally::new(),
        }
    }

    /// The only worker of this world, after a schedule.
    pub(crate) fn after(mut world: World, steps: &[Step]) -> Template {
        world.play(steps);
        let plugin = &world.plugins[0];
        Template {
            reads_access_tokens: world.template.reads_access_tokens,
            process: world.process.borrow().clone(),
            image: world.vms[0].image(),
            root: plugin.root,
            oracle: plugin.oracle.clone(),
            shared: world.shared.clone(),
            counted: world.counted.clone(),
            tally: world.tally.clone(),
        }
    }
}

/// A plugin in a worker.
struct Plugin {
    vm: usize,
    root: u32,
    prefix: String,
    /// In report mode.
    reports: bool,
    /// Replaced: new requests go to another plugin.
    is_old: bool,
    /// The last time at which requests may have been evicted.
    last_eviction: Option<Duration>,
    oracle: Oracle,
}

struct Waiting {
    plugin: usize,
    stream: u32,
    token: Token,
    /// The key that it waits for, and since when.
    awaits: Name,
    since: Duration,
    spoofed: bool,
}

pub(crate) struct World<'t> {
    template: &'t Template,
    process: Rc<RefCell<Process>>,
    vms: Vec<Vm>,
    /// The plugin that gets each worker's requests.
    workers: Vec<usize>,
    plugins: Vec<Plugin>,
    shared: Shared,
    waiting: Vec<Waiting>,
    /// Fetches under way: plugin, number of the call, name.
    fetches: Vec<(usize, u32, Name)>,
    /// Whether the oracle no longer knows which key a request waits for. This ends the schedule.
    is_unclear: bool,
    counted: BTreeMap<String, i64>,
    pub(crate) tally: Tally,
}

impl<'t> World<'t> {
    pub(crate) fn new(template: &'t Template, workers: usize) -> World<'t> {
        let process = Rc::new(RefCell::new(template.process.clone()));
        let mut world = World {
            template,
            process,
            vms: Vec::new(),
            workers: Vec::new(),
            plugins: Vec::new(),
            shared: template.shared.clone(),
            waiting: Vec::new(),
            fetches: Vec::new(),
            is_unclear: false,
            counted: template.counted.clone(),
            tally: template.tally.clone(),
        };
        world.workers = (0..workers).map(|_| world.add_vm()).collect();
        world
    }

    /// Plays a schedule to its end, until no request waits.
    pub(crate) fn play(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(*step);
            if self.is_unclear {
                self.count("unclear");
                return;
            }
            self.compare_counters();
        }
        // A request may wait for two keys.
        self.pass(2 * PATIENCE + TIMEOUT);
        if self.is_unclear {
            self.count("unclear");
            return;
        }
        self.compare_counters();
        assert!(
            self.waiting.is_empty(),
            "{} requests wait for ever",
            self.waiting.len()
        );
    }

    fn step(&mut self, step: Step) {
        self.count("steps");
        match step {
            Step::Arrives(worker, arrival) => self.arrive(worker, arrival),
            Step::Flood {
                worker,
                from,
                count,
            } => {
                for kid in from..from + count {
                    let claim = Claim {
                        source: 0,
                        kid,
                        user: 0,
                        signed: Signed::ByAnybody,
                        expires: 100_000,
                        access: None,
                    };
                    self.arrive(worker, Arrival::With(claim));
                }
            }
            Step::HangsUp(place) if !self.waiting.is_empty() => {
                let gone = self.waiting.remove(place % self.waiting.len());
                let vm = self.plugins[gone.plugin].vm;
                self.vms[vm].end(gone.stream);
                self.count("hung up");
            }
            Step::Answers(place, reply) if !self.fetches.is_empty() => {
                self.answer(place % self.fetches.len(), reply);
            }
            Step::AnswersAll(reply) => {
                self.pass(GRAIN);
                while !self.fetches.is_empty() {
                    self.answer(0, reply);
                }
            }
            Step::Passes(millis) => self.pass(Duration::from_millis(millis)),
            Step::WallJumps(seconds) => {
                let mut process = self.process.borrow_mut();
                let wall = process.wall.as_secs().saturating_add_signed(seconds);
                process.wall = Duration::from_secs(wall);
            }
            Step::RefusesFetches(worker, refuses) => {
                let vm = self.plugins[self.workers[worker]].vm;
                self.vms[vm].refuse(
                    "proxy_http_call",
                    if refuses { INTERNAL_FAILURE } else { OK },
                );
            }
            Step::LosesRaces(times) => self.process.borrow_mut().lost_races = times,
            Step::Reconfigures(worker, reports) => {
                let old = self.workers[worker];
                let vm = self.plugins[old].vm;
                let prefix = format!("{}:", self.plugins.len());
                let mode = if reports { "report" } else { "enforce" };
                let reads_access_tokens = self.template.reads_access_tokens;
                let config = config(&prefix, mode, reads_access_tokens);
                let root = self.vms[vm].add_plugin(&config).expect("a plugin");
                self.vms[vm].take_meter();
                self.plugins[old].is_old = true;
                let oracle = Oracle::new(reads_access_tokens);
                self.plugins.push(Plugin {
                    vm,
                    root,
                    prefix,
                    reports,
                    is_old: false,
                    last_eviction: None,
                    oracle,
                });
                self.workers[worker] = self.plugins.len() - 1;
                self.remove_old_plugins();
            }
            Step::Restarts(worker) => {
                self.plugins[self.workers[worker]].is_old = true;
                self.workers[worker] = self.add_vm();
                self.remove_old_plugins();
            }
            Step::HangsUp(_) | Step::Answers(..) => {}
        }
    }

    fn count(&mut self, what: &str) {
        *self.tally.entry(what.to_owned()).or_default() += 1;
    }

    fn expect(&mut self, counter: &str, by: i64) {
        *self.counted.entry(counter.to_owned()).or_default() += by;
    }

    fn add_vm(&mut self) -> usize {
        let vm = self.vms.len();
        self.vms
            .push(Vm::of_image(&self.template.image, &self.process));
        let (root, prefix, oracle) = (
            self.template.root,
            String::new(),
            self.template.oracle.clone(),
        );
        self.plugins.push(Plugin {
            vm,
            root,
            prefix,
            reports: false,
            is_old: false,
            last_eviction: None,
            oracle,
        });
        self.plugins.len() - 1
    }

    /// Envoy drops a replaced plugin after its last request.
    fn remove_old_plugins(&mut self) {
        for (number, plugin) in self
            .plugins
            .iter_mut()
            .enumerate()
            .filter(|(_, plugin)| plugin.is_old)
        {
            if self.waiting.iter().all(|waiting| waiting.plugin != number) {
                let vm = &mut self.vms[plugin.vm];
                vm.remove_plugin(plugin.root);
                self.fetches.retain(|(of, ..)| *of != number);
                plugin.is_old = false;
                plugin.root = 0;
            }
        }
    }

    fn now(&self) -> Now {
        let process = self.process.borrow();
        Now {
            wall: process.wall,
            steady: process.steady,
        }
    }

    fn arrive(&mut self, worker: usize, arrival: Arrival) {
        self.count("requests");
        let number = self.workers[worker];
        let (path, claim, spoofed) = match arrival {
            Arrival::With(claim) => ("/", Some(claim), false),
            Arrival::Spoofed(claim) => ("/", Some(claim), true),
            Arrival::Open(claim) => ("/open/x", Some(claim), true),
            Arrival::WithoutToken => ("/", None, true),
            Arrival::OptionalWith(claim) => ("/optional/x", Some(claim), true),
            Arrival::OptionalWithout => ("/optional/x", None, true),
            Arrival::SignsOut(claim) => ("/logout", Some(claim), false),
            Arrival::ByAStranger(claim) => ("/", Some(claim), false),
        };
        let token = claim.map(Claim::token);
        let client = format!("198.51.100.{}", claim.map_or(0, |claim| claim.user));
        let mut sent = vec![
            (":method", "GET"),
            (":path", path),
            (":authority", "gateway.test"),
            ("x-kept", "1"),
        ];
        sent.push(("x-forwarded-for", &client));
        let session = format!("{SESSION}=x");
        if matches!(arrival, Arrival::SignsOut(_)) {
            sent.push(("cookie", &session));
        }
        if spoofed {
            let forged = [
                "kubeflow-userid",
                "Kubeflow_UserId",
                "kubeflow-groups",
                "x-amzn-oidc-identity",
            ];
            sent.extend(forged.map(|name| (name, "root@example.com")));
        }
        sent.extend(
            token
                .iter()
                .map(|token| ("x-amzn-oidc-data", token.text.as_str())),
        );
        let access = token.as_ref().and_then(|token| token.access.as_ref());
        sent.extend(access.map(|access| ("x-amzn-oidc-accesstoken", access.text.as_str())));
        let Plugin { vm, root, .. } = self.plugins[number];
        let stream = self.vms[vm].request(root, headers(&sent));
        let (now, verdict) = (self.now(), self.verdict(vm, stream));
        self.note_evictions(number);
        let may_evict = self.may_evict(number);
        let oracle = &self.plugins[number].oracle;
        let forecast = token
            .as_ref()
            .map(|token| oracle.forecast(token, None, may_evict, &self.shared, now));
        let permitted = match (arrival, &forecast) {
            (Arrival::Open(_) | Arrival::OptionalWithout, _) => vec![Verdict::Skipped],
            (Arrival::SignsOut(_), _) => vec![Verdict::SignedOut],
            (Arrival::ByAStranger(_), _) => vec![denied("signer-unknown")],
            (_, Some(forecast)) => forecast.permitted.clone(),
            (_, None) => vec![denied("token-missing")],
        };
        self.judge(
            number,
            stream,
            &verdict,
            &permitted,
            token.as_ref(),
            spoofed,
        );
        let needs_token = matches!(
            arrival,
            Arrival::With(_) | Arrival::Spoofed(_) | Arrival::OptionalWith(_)
        );
        let (Some(token), Some(forecast), true) = (token, forecast, needs_token) else {
            return;
        };
        self.is_unclear |= forecast.is_unclear(&verdict);
        let oracle = &mut self.plugins[number].oracle;
        let awaits = oracle.became(&token, &verdict, &forecast, &self.shared, now);
        if verdict == Verdict::Waits {
            self.waiting.push(Waiting {
                plugin: number,
                stream,
                token,
                awaits,
                since: now.steady,
                spoofed,
            });
        }
    }

    /// The outcome of a request.
    fn verdict(&self, vm: usize, stream: u32) -> Verdict {
        let stream = self.vms[vm].stream(stream);
        match &stream.fate {
            Fate::Waiting => Verdict::Waits,
            Fate::Continued => match stream.notes.get("alb_oidc").map(Vec::as_slice) {
                Some(b"admitted") => Verdict::Admitted,
                Some(b"skipped") => Verdict::Skipped,
                Some(b"reported") => Verdict::Denied(stream.reason().expect("a reason")),
                other => panic!("passed with the filter state {other:?}"),
            },
            Fate::Answered(reply) if reply.details == "alb_oidc_signed_out" => {
                let cookie = reply.headers.iter().find(|(name, _)| name == b"set-cookie");
                let cookie = cookie.map(|(_, value)| String::from_utf8_lossy(value));
                let expired = cookie.expect("an expired cookie");
                assert!(expired.starts_with(&format!("{SESSION}=;")), "{expired}");
                assert_eq!((reply.status, stream.reason()), (302, None));
                Verdict::SignedOut
            }
            Fate::Answered(reply) => {
                let reason = stream.reason().expect("a reason of each denial");
                assert_eq!(reply.details, format!("alb_oidc_{reason}"));
                let status = match reason.as_str() {
                    "key-unavailable" => 503,
                    _ => 401,
                };
                assert_eq!(reply.status, status, "{reason}");
                Verdict::Denied(reason)
            }
            Fate::Judged => panic!("a request that the module has not judged"),
        }
    }

    /// Compares the outcome of a request, which may be over, with the possible ones.
    fn judge(
        &mut self,
        number: usize,
        stream: u32,
        verdict: &Verdict,
        permitted: &[Verdict],
        token: Option<&Token>,
        spoofed: bool,
    ) {
        let Plugin { vm, prefix, .. } = &self.plugins[number];
        let (vm, prefix) = (*vm, prefix.clone());
        assert!(
            permitted.contains(verdict),
            "{verdict:?}, expected {permitted:?}: {token:?} at {:?}",
            self.now()
        );
        let counter = match verdict {
            Verdict::Waits => return,
            Verdict::Admitted => "admitted".to_owned(),
            Verdict::Skipped => "skipped".to_owned(),
            Verdict::SignedOut => "signed_out".to_owned(),
            Verdict::Denied(reason) => {
                let passed = self.vms[vm].stream(stream).fate == Fate::Continued;
                assert_eq!(
                    passed, self.plugins[number].reports,
                    "{reason} in this mode"
                );
                let what = if passed { "reported" } else { "denied" };
                format!("{what}.{reason}")
            }
        };
        self.expect(&counter, 1);
        self.count(&counter);
        if spoofed
            && *verdict != Verdict::Skipped
            && self.vms[vm].stream(stream).fate == Fate::Continued
        {
            let trailers = [
                ("kubeflow-userid", "root@example.com"),
                ("kubeflow_groups", "root"),
                ("x-kept", "1"),
            ];
            assert!(
                self.vms[vm].trailers(stream, headers(&trailers)),
                "trailers go on"
            );
        }
        let over = self.vms[vm].end(stream);
        if over.fate != Fate::Continued {
            assert_eq!(over.notes.get("alb_oidc"), None, "the interlock's state");
        } else {
            let user = token
                .filter(|_| *verdict == Verdict::Admitted)
                .map(|token| format!("{prefix}{}", token.user));
            compare_upstream(&over, user);
        }
    }

    /// Compares the outcomes of this plugin's waiting requests with the possible ones.
    fn judge_waiting(&mut self, number: usize) {
        let (now, vm, may_evict) = (self.now(), self.plugins[number].vm, self.may_evict(number));
        // In order of arrival: the first admission caches the token for the others.
        let (of_plugin, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.plugin == number);
        self.waiting = others;
        for mut waiting in of_plugin {
            let verdict = self.verdict(vm, waiting.stream);
            let waited = now.steady - waiting.since;
            assert!(waited <= PATIENCE + GRAIN, "a request waits for {waited:?}");
            let oracle = &self.plugins[number].oracle;
            let mut forecast = oracle.forecast(
                &waiting.token,
                Some((waiting.awaits, waited)),
                may_evict,
                &self.shared,
                now,
            );
            // The timer may fire up to a grain after the deadline.
            if waited >= PATIENCE && waited < PATIENCE + GRAIN {
                forecast.permitted.push(Verdict::Waits);
            }
            self.judge(
                number,
                waiting.stream,
                &verdict,
                &forecast.permitted,
                Some(&waiting.token),
                waiting.spoofed,
            );
            self.is_unclear |= forecast.is_unclear(&verdict);
            if verdict != Verdict::Waits || forecast.is_resumed() {
                let oracle = &mut self.plugins[number].oracle;
                let awaits = oracle.became(&waiting.token, &verdict, &forecast, &self.shared, now);
                (waiting.awaits, waiting.since) = (awaits, now.steady);
            }
            if verdict == Verdict::Waits {
                self.waiting.push(waiting);
            }
        }
        self.remove_old_plugins();
    }

    /// Lets time pass, and processes what is due.
    fn pass(&mut self, by: Duration) {
        let end = self.now().steady + by;
        let mut ticks = 0;
        loop {
            let timers = self
                .plugins
                .iter()
                .enumerate()
                .filter(|(_, plugin)| plugin.root != 0);
            let timer = timers
                .filter_map(|(number, plugin)| {
                    Some((self.vms[plugin.vm].next_tick(plugin.root)?, number))
                })
                .min();
            let overdue = self
                .fetches
                .iter()
                .enumerate()
                .map(|(place, (number, call, _))| {
                    let call = &self.vms[self.plugins[*number].vm].calls()[call];
                    (call.made + call.timeout, place)
                });
            let overdue = overdue.min();
            let next = [timer.map(|(at, _)| at), overdue.map(|(at, _)| at)]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.set_time(next);
            match (timer, overdue) {
                (Some((at, number)), _) if at == next => {
                    ticks += 1;
                    assert!(
                        ticks < MOST_TICKS,
                        "{ticks} ticks without anything else happening"
                    );
                    self.tick(number);
                }
                (_, Some((_, place))) => {
                    self.answer_with(place, Some(Response::timeout()), Said::Nothing)
                }
                _ => {}
            }
        }
        self.set_time(end);
        for plugin in self.plugins.iter().filter(|plugin| plugin.root != 0) {
            let overdue = plugin.oracle.overdue(end.saturating_sub(GRAIN));
            assert!(
                overdue.is_empty(),
                "{overdue:?} are used late in their lives and not fetched anew"
            );
        }
        if by > 2 * GRAIN {
            self.check_queues();
        }
    }

    /// This plugin's requests that wait without a fetch under way: the number for each key.
    fn queued(&self, number: usize) -> BTreeMap<Name, usize> {
        let mut queued = BTreeMap::new();
        for waiting in self
            .waiting
            .iter()
            .filter(|waiting| waiting.plugin == number)
        {
            *queued.entry(waiting.awaits).or_default() += 1;
        }
        queued.retain(|name, _| {
            !self
                .fetches
                .iter()
                .any(|(of, _, fetched)| *of == number && fetched == name)
        });
        queued
    }

    fn note_evictions(&mut self, number: usize) {
        if self.queued(number).len() >= EVICTS_FROM {
            self.plugins[number].last_eviction = Some(self.now().steady);
        }
    }

    /// Whether requests may just have been evicted. They are answered when the timer fires.
    fn may_evict(&self, number: usize) -> bool {
        let now = self.now().steady;
        self.plugins[number]
            .last_eviction
            .is_some_and(|last_eviction| now <= last_eviction + 2 * GRAIN)
    }

    /// Checks that the queues stay within their limits, and that no key waits while a token is
    /// left.
    fn check_queues(&self) {
        let now = self.now();
        for (number, plugin) in self
            .plugins
            .iter()
            .enumerate()
            .filter(|(_, plugin)| plugin.root != 0)
        {
            let mut queued = self.queued(number);
            queued.retain(|name, _| !plugin.oracle.has_failed(*name, now));
            for source in 0..SOURCES {
                let of_source = || queued.iter().filter(|(name, _)| name.source == source);
                let (ids, most) = (
                    of_source().count(),
                    of_source().map(|(_, requests)| *requests).max(),
                );
                assert!(ids <= MOST_QUEUED, "{ids} ids are queued");
                assert!(
                    most <= Some(MOST_QUEUED_REQUESTS),
                    "{most:?} requests wait for a queued key"
                );
                let is_starved = ids > 0 && plugin.oracle.has_token(source, now);
                assert!(
                    !is_starved,
                    "{ids} keys wait though source {source} has a token"
                );
            }
        }
    }

    fn set_time(&mut self, steady: Duration) {
        let mut process = self.process.borrow_mut();
        let by = steady.saturating_sub(process.steady);
        process.steady += by;
        process.wall += by;
    }

    fn tick(&mut self, of: usize) {
        let now = self.now();
        let Plugin { vm, root, .. } = self.plugins[of];
        self.vms[vm].tick(root);
        let calls = self.vms[vm]
            .calls()
            .iter()
            .filter(|(_, call)| call.root == root);
        let known = |id: u32| {
            self.fetches
                .iter()
                .any(|(by, known, _)| self.plugins[*by].vm == vm && *known == id)
        };
        let new: Vec<_> = calls
            .filter(|(id, _)| !known(**id))
            .map(|(id, call)| (*id, fetched_name(call)))
            .collect();
        for (id, name) in new {
            self.plugins[of].oracle.fetches(name, now);
            self.fetches.push((of, id, name));
            self.count("fetches");
        }
        for call in self.vms[vm].take_refused_calls() {
            let oracle = &mut self.plugins[of].oracle;
            let name = fetched_name(&call);
            oracle.fetches(name, now);
            oracle.answered(name, Said::Nothing, &mut self.shared, now);
            self.expect("key_fetch.failed", 1);
            self.count("fetches refused");
        }
        self.judge_waiting(of);
    }

    fn answer(&mut self, place: usize, reply: Reply) {
        let (_, _, name) = self.fetches[place];
        let (response, said) = match name.source.checked_sub(REGIONS.len()) {
            None => load_balancer_answer(name, reply),
            Some(load_balancer) => provider_answer(load_balancer, reply),
        };
        self.answer_with(place, response, said);
    }

    fn answer_with(&mut self, place: usize, response: Option<Response>, said: Said) {
        let (number, call, name) = self.fetches.remove(place);
        let outcome = match said {
            Said::Key(_) => "ok",
            Said::NotFound => "not-found",
            Said::Invalid => "invalid",
            Said::Nothing => "failed",
        };
        self.expect(&format!("key_fetch.{outcome}"), 1);
        self.count(&format!("answers {outcome}"));
        let (now, vm) = (self.now(), self.plugins[number].vm);
        self.vms[vm].answer(call, response);
        self.plugins[number]
            .oracle
            .answered(name, said, &mut self.shared, now);
        // A retry may fetch one key too many.
        self.note_evictions(number);
        self.judge_waiting(number);
    }

    /// Checks that the module's counters match the observed events.
    fn compare_counters(&mut self) {
        let process = self.process.borrow();
        let count = |name: &str| {
            process
                .metric(&format!("{METRICS}{name}"))
                .unwrap_or_default()
        };
        for (name, expected) in &self.counted {
            assert_eq!(count(name), *expected, "{name}");
        }
        assert_eq!(count("waiting"), self.waiting.len() as i64, "waiting");
        let of = |prefix: &str| -> i64 {
            let prefix = format!("{METRICS}{prefix}");
            let metrics = process.metrics();
            metrics
                .iter()
                .filter(|(name, _)| name.starts_with(&prefix))
                .map(|(_, value)| value)
                .sum()
        };
        let over =
            of("admitted") + of("skipped") + of("denied.") + of("reported.") + of("signed_out");
        let seen = ["requests", "hung up"].map(|what| *self.tally.get(what).unwrap_or(&0) as i64);
        assert_eq!(
            over + count("waiting"),
            seen[0] - seen[1],
            "requests that are over or wait"
        );
        assert_eq!(of("denied.internal-error"), 0);
        let unavailable: i64 = ["denied", "reported"]
            .iter()
            .filter_map(|what| self.counted.get(&format!("{what}.key-unavailable")))
            .sum();
        let turned_away = count("key_fetch.over-budget");
        assert!(turned_away <= unavailable, "requests that were turned away");
        let verified = count("verified.host");
        drop(process);
        self.tally
            .insert("turned away".to_owned(), turned_away as u64);
        for vm in &mut self.vms {
            let made = vm
                .take_meter()
                .calls
                .get("proxy_call_foreign_function")
                .copied()
                .unwrap_or_default();
            *self
                .tally
                .entry("signatures checked".to_owned())
                .or_default() += made;
        }
        assert_eq!(
            verified, self.tally["signatures checked"] as i64,
            "signatures that were checked"
        );
        for vm in &mut self.vms {
            assert!(
                vm.memory_size() <= MOST_MEMORY,
                "{} bytes of memory",
                vm.memory_size()
            );
            for (_, line) in vm.take_log() {
                assert!(
                    !line.contains("eyJ") && !line.contains("@example.com"),
                    "the log tells {line}"
                );
            }
        }
    }
}

/// What a load balancer's key server answers for this key.
fn load_balancer_answer(name: Name, reply: Reply) -> (Option<Response>, Said) {
    let genuine = Signer::Genuine(name.source, name.kid);
    let ok = |body: String| Some(Response::new(200, body));
    match reply {
        Reply::GenuineKey => (ok(genuine.pem()), Said::Key(genuine)),
        Reply::AnotherKey => (ok(Signer::Other.pem()), Said::Key(Signer::Other)),
        Reply::Status(status) => answer_with_status(status, genuine.pem()),
        Reply::WithoutKey => answer_with_status(404, genuine.pem()),
        Reply::Garbage => (
            ok(genuine.pem().replace("PUBLIC", "PRIVATE")),
            Said::Invalid,
        ),
        Reply::TooLarge => (ok(genuine.pem() + &"\n".repeat(4096)), Said::Invalid),
        Reply::Reset => (None, Said::Nothing),
    }
}

/// What the provider answers for the users of this load balancer.
fn provider_answer(load_balancer: usize, reply: Reply) -> (Option<Response>, Said) {
    let [genuine, rotated] =
        [false, true].map(|is_rotated| Signer::provider(load_balancer, is_rotated));
    let ok = |body: String| Some(Response::new(200, body));
    match reply {
        Reply::GenuineKey => (ok(genuine.key_set()), Said::Key(genuine)),
        Reply::AnotherKey => (ok(rotated.key_set()), Said::Key(rotated)),
        Reply::Status(status) => answer_with_status(status, genuine.key_set()),
        Reply::WithoutKey => {
            let others = genuine
                .key_set()
                .replace(&format!("\"{PROVIDER_KID}\""), "\"third\"");
            (ok(others), Said::NotFound)
        }
        Reply::Garbage => (ok(genuine.key_set().replace("RSA", "EC")), Said::Invalid),
        Reply::TooLarge => (ok(genuine.key_set() + &" ".repeat(64 << 10)), Said::Invalid),
        Reply::Reset => (None, Said::Nothing),
    }
}

/// An answer with a status other than 200, and with the key.
fn answer_with_status(status: u16, body: String) -> (Option<Response>, Said) {
    let said = if [403, 404, 410].contains(&status) {
        Said::NotFound
    } else {
        Said::Nothing
    };
    (Some(Response::new(status, body)), said)
}

/// The key that this call fetches.
fn fetched_name(call: &Call) -> Name {
    assert_eq!(
        (call.header(":method").as_str(), call.timeout),
        ("GET", TIMEOUT)
    );
    let (authority, path) = (call.header(":authority"), call.header(":path"));
    if let Some(number) = call.cluster.strip_prefix("jwks-") {
        assert_eq!(authority, "id.example.com");
        assert_eq!(path, format!("/{number}/jwks.json"));
        let load_balancer: usize = number.parse().expect("a load balancer");
        return Name {
            source: REGIONS.len() + load_balancer,
            kid: 0,
        };
    }
    let source = REGIONS
        .iter()
        .position(|region| authority.contains(region))
        .expect("a key server");
    assert!(
        call.cluster.contains(REGIONS[source]),
        "{} at {authority}",
        call.cluster
    );
    let number = path
        .get(1..9)
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
        .unwrap_or_default();
    assert_eq!(path, format!("/{}", kid(number)));
    Name {
        source,
        kid: number,
    }
}

/// Checks what upstream receives: the user, if any, and no spoofed header.
fn compare_upstream(stream: &Stream, user: Option<String>) {
    let names = |map: &[(Vec<u8>, Vec<u8>)]| -> Vec<String> {
        map.iter()
            .map(|(name, _)| {
                String::from_utf8_lossy(name)
                    .to_lowercase()
                    .replace('_', "-")
            })
            .collect()
    };
    let expected = [
        ":method",
        ":path",
        ":authority",
        "x-forwarded-for",
        "x-kept",
    ]
    .into_iter()
    .chain(user.iter().map(|_| "kubeflow-userid"));
    let (mut seen, mut expected) = (names(&stream.headers), expected.collect::<Vec<_>>());
    seen.sort();
    expected.sort_unstable();
    assert_eq!(seen, expected, "the headers that upstream sees");
    assert_eq!(
        stream.header("kubeflow-userid"),
        user.clone().into_iter().collect::<Vec<_>>(),
        "the user"
    );
    let noted = stream
        .notes
        .get("alb_oidc_user")
        .map(|user| String::from_utf8_lossy(user).into_owned());
    assert_eq!(noted, user, "the user in the access log");
    assert!(
        names(&stream.trailers).iter().all(|name| name == "x-kept"),
        "the trailers that upstream sees"
    );
}
