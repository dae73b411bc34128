//! The key cache, the requests that wait and the gate, as they run in the compiled module: random
//! schedules against an independent account of what may come of them. Each request is answered once
//! and in time; nobody is admitted but by a key that the key server gave for their token's key id;
//! fetches keep to their token bucket and queues to their bounds; the counters add up.
//!
//! `ALB_OIDC_SCHEDULES=100000` plays as many, other ones each time. A failing schedule is printed
//! as short as it could be made, and `regressions.txt` keeps what leads to it: such schedules are
//! played first.

mod oracle;
mod schedule;
mod world;

use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestRunner};
use schedule::{Arrival, BEGINNING, Claim, Reply, Signed, Signer, Step, config, kid};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use support::module::{Fate, Process, Response, Vm, headers};
use world::{Tally, Template, World};

/// How many schedules are played, where nobody asks for more; half of them by one worker, half by
/// two.
const SCHEDULES: u32 = 10_000;
/// How many of them, beyond that, by one that knows as many keys as it can keep.
const CROWDED_SCHEDULES: u32 = 500;
/// The most parts of a schedule; most are one step.
const PARTS: usize = 20;
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/regressions.txt");

/// The key ids of genuine tokens, of each source.
const KIDS: [u16; 3] = [0, 1, 2];
/// Those of a worker that keeps as many as it can.
const CROWD: std::ops::Range<u16> = 300..812;

/// What random schedules must come to again and again, or they try nothing.
const OUTCOMES: [&str; 17] = [
    "admitted",
    "skipped",
    "denied.key-invalid",
    "denied.key-not-found",
    "denied.key-unavailable",
    "denied.signature-invalid",
    "denied.signer-unknown",
    "denied.token-expired",
    "denied.token-missing",
    "answers ok",
    "answers not-found",
    "answers invalid",
    "answers failed",
    "fetches",
    "hung up",
    "signatures checked",
    "turned away",
];

/// Plays random schedules in a gateway of so many workers.
fn play(workers: usize, schedules: u32, kids: &[u16], template: &Template) {
    let asked: Option<u32> = std::env::var("ALB_OIDC_SCHEDULES")
        .ok()
        .map(|asked| asked.parse().expect("a number"));
    let schedules = asked.map_or(schedules, |asked| {
        (asked as f64 * f64::from(schedules) / f64::from(SCHEDULES)) as u32
    });
    let config = Config {
        cases: schedules,
        rng_seed: if asked.is_some() {
            RngSeed::Random
        } else {
            RngSeed::Fixed(workers as u64)
        },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let sum = RefCell::new(Tally::new());
    let outcome = TestRunner::new(config).run(&schedule::schedule(workers, kids, PARTS), |steps| {
        let mut world = World::new(template, workers);
        world.play(&steps);
        for (what, count) in world.tally {
            let before = template.tally.get(&what).copied().unwrap_or_default();
            *sum.borrow_mut().entry(what).or_default() += count - before;
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let sum = sum.into_inner();
    println!("{schedules} schedules, {workers} workers: {sum:#?}");
    for outcome in OUTCOMES {
        let count = sum.get(outcome).copied().unwrap_or_default();
        assert!(
            count >= u64::from(schedules / 100),
            "{outcome}: {count} times in {schedules} schedules"
        );
    }
}

#[test]
fn a_worker_keeps_its_promises_whatever_happens() {
    play(1, SCHEDULES / 2, &KIDS, &Template::new());
}

#[test]
fn workers_that_share_keys_keep_their_promises_whatever_happens() {
    play(2, SCHEDULES / 2, &KIDS, &Template::new());
}

#[test]
fn a_worker_that_knows_as_many_keys_as_it_can_keeps_its_promises_whatever_happens() {
    let nobody_knows = Template::new();
    let steps = CROWD.flat_map(|kid| {
        let claim = Claim {
            source: 0,
            kid,
            user: 0,
            signed: Signed::Genuinely,
            expires: 1_000_000,
        };
        [
            Step::Arrives(0, Arrival::With(claim)),
            Step::AnswersAll(Reply::GenuineKey),
            Step::Passes(1000),
        ]
    });
    let crowded = Template::after(World::new(&nobody_knows, 1), &steps.collect::<Vec<_>>());
    let kids: Vec<u16> = KIDS
        .into_iter()
        .cycle()
        .take(CROWD.len())
        .chain(CROWD)
        .collect();
    play(1, CROWDED_SCHEDULES, &kids, &crowded);
}

#[test]
fn a_key_that_dies_while_it_is_fetched_anew_is_not_fetched_twice_at_once() {
    let arrives = |user| Step::Arrives(0, Arrival::With(Worker::claim(user)));
    let steps = [
        arrives(0),
        Step::AnswersAll(Reply::GenuineKey),
        Step::Passes(85_000),
        arrives(1),
        // Withdrawn: from here on it serves until its TTL is over, and no longer.
        Step::AnswersAll(Reply::Status(404)),
        Step::Passes(14_500),
        arrives(2),
        Step::Passes(600),
        arrives(3),
        Step::AnswersAll(Reply::GenuineKey),
    ];
    let nobody_knows = Template::new();
    let mut world = World::new(&nobody_knows, 1);
    world.play(&steps);
    assert_eq!((world.tally["fetches"], world.tally["admitted"]), (3, 4));
}

#[test]
fn a_key_server_that_is_down_for_ten_minutes_harms_nobody_whose_key_is_known() {
    const ROUNDS: u16 = 60;
    let arrives = |worker, user| Step::Arrives(worker, Arrival::With(Worker::claim(user)));
    let mut steps = vec![
        arrives(0, 0),
        Step::AnswersAll(Reply::GenuineKey),
        arrives(1, 0),
    ];
    for user in 1..=ROUNDS {
        steps.extend([
            Step::Passes(10_000),
            arrives(0, user),
            arrives(1, user),
            Step::AnswersAll(Reply::Status(503)),
        ]);
    }
    let nobody_knows = Template::new();
    let mut world = World::new(&nobody_knows, 2);
    world.play(&steps);
    assert_eq!(world.tally["admitted"], 2 + 2 * u64::from(ROUNDS));
    // Each of the two asked for it once a minute, from four fifths of its TTL on.
    assert!(world.tally["answers failed"] >= 2 * 8, "{:#?}", world.tally);
}

/// One worker with one plugin, outside of any schedule.
struct Worker {
    process: Rc<RefCell<Process>>,
    vm: Vm,
    root: u32,
}

impl Worker {
    fn start() -> Worker {
        let process = Process::at(Duration::from_secs(BEGINNING), Duration::from_secs(1000));
        let mut vm = Vm::start(&process, &[]);
        let root = vm.add_plugin(&config("")).expect("a plugin");
        Worker { process, vm, root }
    }

    fn request(&mut self, token: Option<&str>) -> u32 {
        let token = token.map(|token| ("x-amzn-oidc-data", token));
        self.vm.request(
            self.root,
            headers(
                &[(":path", "/")]
                    .into_iter()
                    .chain(token)
                    .collect::<Vec<_>>(),
            ),
        )
    }

    /// Has the fetches made that somebody waits for: the first key is there, no other is.
    fn fetch(&mut self) {
        self.process.borrow_mut().steady += Duration::from_millis(200);
        self.vm.tick(self.root);
        let calls: Vec<_> = self
            .vm
            .calls()
            .iter()
            .map(|(id, call)| (*id, call.header(":path")))
            .collect();
        for (call, path) in calls {
            let is_there = path == format!("/{}", kid(0));
            let answer = if is_there {
                Response::new(200, Signer::Genuine(0, 0).pem())
            } else {
                Response::new(404, "")
            };
            self.vm.answer(call, Some(answer));
        }
    }

    fn claim(user: u16) -> Claim {
        Claim {
            source: 0,
            kid: 0,
            user,
            signed: Signed::Genuinely,
            expires: 1_000_000,
        }
    }
}

#[test]
fn a_flood_in_report_mode_passes_without_identity() {
    let process = Process::at(Duration::from_secs(BEGINNING), Duration::from_secs(1000));
    let mut vm = Vm::start(&process, &[]);
    let mut report: serde_json::Value = serde_json::from_str(&config("")).expect("JSON");
    report["mode"] = "report".into();
    let root = vm.add_plugin(&report.to_string()).expect("a plugin");
    let mut worker = Worker { process, vm, root };
    let forged = |kid| {
        Claim {
            kid,
            signed: Signed::ByAnybody,
            ..Worker::claim(0)
        }
        .token()
        .text
    };
    let requests: Vec<_> = (1..=400)
        .map(|kid| worker.request(Some(&forged(kid))))
        .collect();
    for _ in 0..20 {
        worker.fetch();
    }
    for id in requests {
        let request = worker.vm.end(id);
        assert_eq!(request.fate, Fate::Continued, "{:?}", request.reason());
        assert!(
            ["key-not-found", "key-unavailable"]
                .contains(&request.reason().expect("a reason").as_str())
        );
        assert!(request.header("kubeflow-userid").is_empty());
    }
    let turned_away = worker
        .process
        .borrow()
        .metric("wasm_filter.alb_oidc.key_fetch.over-budget");
    // 144 at once, and those whose turn did not come within three seconds.
    assert!(turned_away >= Some(144 + 200), "{turned_away:?}");
}

#[test]
fn what_a_worker_remembers_of_tokens_is_bounded() {
    /// 15 MiB of them are remembered.
    const TOKEN_BYTES: usize = 4000;
    const TOKENS: u16 = 7_000;
    const MOST_MEMORY: usize = 17 << 20;
    /// Tokens come and go in pieces that do not always fit.
    const SLACK: usize = 1 << 18;
    let mut worker = Worker::start();
    let mut sizes = Vec::new();
    for user in 0..TOKENS {
        let stream = worker.request(Some(&Worker::claim(user).mint(TOKEN_BYTES).text));
        worker.fetch();
        assert_eq!(worker.vm.end(stream).fate, Fate::Continued);
        sizes.push(worker.vm.memory_size());
    }
    let (full, end) = (sizes[sizes.len() * 2 / 3], sizes[sizes.len() - 1]);
    println!(
        "{} bytes at first, {full} after two thirds, {end} at the end",
        sizes[0]
    );
    assert!(
        end <= full + SLACK,
        "the memory grows from {full} to {end} bytes"
    );
    assert!(end <= MOST_MEMORY, "{end} bytes");
}

#[test]
fn nothing_is_kept_of_a_request_that_is_over() {
    const ROUNDS: u16 = 4_000;
    let mut worker = Worker::start();
    let known = Worker::claim(0).token();
    let mut sizes = Vec::new();
    for round in 0..ROUNDS {
        let denied = worker.request(None);
        let admitted = worker.request(Some(&known.text));
        let unknown = Claim {
            kid: 1 + round / 10 % 60,
            signed: Signed::ByAnybody,
            ..Worker::claim(0)
        };
        let gone = (round % 10 == 0).then(|| worker.request(Some(&unknown.token().text)));
        worker.vm.end(denied);
        gone.map(|gone| worker.vm.end(gone));
        worker.fetch();
        assert_eq!(worker.vm.end(admitted).fate, Fate::Continued);
        worker.vm.take_log();
        sizes.push(worker.vm.memory_size());
    }
    let (early, end) = (sizes[sizes.len() / 4], sizes[sizes.len() - 1]);
    assert_eq!(
        early, end,
        "bytes of memory after a quarter of the requests, and after all"
    );
}
