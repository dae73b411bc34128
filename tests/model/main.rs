//! Random schedules for the key cache, waiting requests and the gate in the compiled module,
//! checked against an independent oracle. Each request is answered once and in time. A request is
//! admitted only with a key that the key server served for its key id. Fetches respect the token
//! bucket, queues their limits, and the counters add up.
//!
//! `ALB_OIDC_SCHEDULES=100000` runs as many new schedules. A failing schedule is printed in its
//! shortest form, and `regressions.txt` keeps its seed, which runs first.

mod oracle;
mod schedule;
mod world;

use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestRunner};
use schedule::{Access, Arrival, BEGINNING, Claim, Reply, Signed, Signer, Step, config, kid};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use support::module::{Fate, Process, Response, Vm, headers};
use world::{Tally, Template, World};

/// The default number of schedules: half with one worker, half with two.
const SCHEDULES: u32 = 10_000;
/// The additional schedules of a worker with a full key cache.
const FULL_CACHE_SCHEDULES: u32 = 500;
/// The additional schedules of a worker that reads access tokens.
const ACCESS_SCHEDULES: u32 = 2_500;
/// The most parts of a schedule; most parts are one step.
const PARTS: usize = 20;
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/regressions.txt");

/// The key ids of genuine tokens, of each source.
const KIDS: [u16; 3] = [0, 1, 2];
/// The key ids of a worker with a full key cache.
const MANY_KIDS: std::ops::Range<u16> = 300..812;

/// Outcomes that must occur often in random schedules, or the test proves nothing.
const OUTCOMES: [&str; 20] = [
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
    "reported.token-missing",
    "reported.key-unavailable",
    "signed_out",
    "signatures checked",
    "turned away",
];

/// Plays random schedules in a gateway with this many workers.
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
    let of_access_tokens = template
        .reads_access_tokens
        .then_some("denied.access-token-invalid");
    for outcome in OUTCOMES.into_iter().chain(of_access_tokens) {
        let count = sum.get(outcome).copied().unwrap_or_default();
        assert!(
            count >= u64::from(schedules / 100),
            "{outcome}: {count} times in {schedules} schedules"
        );
    }
    let unclear = sum.get("unclear").copied().unwrap_or_default();
    assert!(
        unclear <= u64::from(schedules / 50),
        "{unclear} of {schedules} schedules end early"
    );
}

#[test]
fn one_worker_keeps_its_promises() {
    play(1, SCHEDULES / 2, &KIDS, &Template::new());
}

#[test]
fn workers_that_share_keys_keep_their_promises() {
    play(2, SCHEDULES / 2, &KIDS, &Template::new());
}

#[test]
fn worker_that_reads_access_tokens_keeps_its_promises() {
    play(
        1,
        ACCESS_SCHEDULES,
        &KIDS,
        &Template::reading_access_tokens(),
    );
}

#[test]
fn worker_with_full_key_cache_keeps_its_promises() {
    let empty = Template::new();
    let steps = MANY_KIDS.flat_map(|kid| {
        let claim = Claim {
            source: 0,
            kid,
            user: 0,
            signed: Signed::Genuinely,
            expires: 1_000_000,
            access: None,
        };
        [
            Step::Arrives(0, Arrival::With(claim)),
            Step::AnswersAll(Reply::GenuineKey),
            Step::Passes(1000),
        ]
    });
    let full = Template::after(World::new(&empty, 1), &steps.collect::<Vec<_>>());
    let kids: Vec<u16> = KIDS
        .into_iter()
        .cycle()
        .take(MANY_KIDS.len())
        .chain(MANY_KIDS)
        .collect();
    play(1, FULL_CACHE_SCHEDULES, &kids, &full);
}

#[test]
fn expired_key_is_not_fetched_during_its_refresh() {
    let arrives = |user| Step::Arrives(0, Arrival::With(Worker::claim(user)));
    let steps = [
        arrives(0),
        Step::AnswersAll(Reply::GenuineKey),
        Step::Passes(85_000),
        arrives(1),
        // Withdrawn: from here on, the key is used until its TTL ends.
        Step::AnswersAll(Reply::Status(404)),
        Step::Passes(14_500),
        arrives(2),
        Step::Passes(600),
        arrives(3),
        Step::AnswersAll(Reply::GenuineKey),
    ];
    let empty = Template::new();
    let mut world = World::new(&empty, 1);
    world.play(&steps);
    assert_eq!((world.tally["fetches"], world.tally["admitted"]), (3, 4));
}

#[test]
fn known_keys_survive_an_outage_of_ten_minutes() {
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
    let empty = Template::new();
    let mut world = World::new(&empty, 2);
    world.play(&steps);
    assert_eq!(world.tally["admitted"], 2 + 2 * u64::from(ROUNDS));
    // Each of the two requested it once a minute, after four fifths of its TTL.
    assert!(world.tally["answers failed"] >= 2 * 8, "{:#?}", world.tally);
}

/// Plays a schedule with one worker. Returns the number of admitted requests.
fn admissions(steps: &[Step]) -> u64 {
    let empty = Template::new();
    let mut world = World::new(&empty, 1);
    world.play(steps);
    world.tally["admitted"]
}

#[test]
fn new_vm_takes_over_keys_during_an_outage() {
    let arrives = |user| Step::Arrives(0, Arrival::With(Worker::claim(user)));
    for (minutes, is_taken_over) in [(1, true), (2, true), (24 * 60, true), (24 * 60 + 2, false)] {
        let steps = [
            arrives(0),
            Step::AnswersAll(Reply::GenuineKey),
            Step::Passes(minutes * 60_000),
            Step::Restarts(0),
            arrives(1),
            Step::AnswersAll(Reply::Status(503)),
            arrives(2),
        ];
        let admitted = admissions(&steps);
        assert_eq!(admitted, if is_taken_over { 3 } else { 1 }, "{minutes} min");
    }
}

#[test]
fn new_vm_uses_no_withdrawn_key_beyond_its_ttl() {
    let arrives = |user| Step::Arrives(0, Arrival::With(Worker::claim(user)));
    for restarts_again in [false, true] {
        let mut steps = vec![
            arrives(0),
            Step::AnswersAll(Reply::GenuineKey),
            Step::Passes(85_000),
            arrives(1),
            Step::AnswersAll(Reply::Status(404)),
            Step::Restarts(0),
            arrives(2),
            Step::AnswersAll(Reply::Status(503)),
            Step::Passes(20_000),
        ];
        if restarts_again {
            steps.push(Step::Restarts(0));
        }
        steps.extend([arrives(3), Step::AnswersAll(Reply::Status(503))]);
        let admitted = admissions(&steps);
        assert_eq!(admitted, 3, "restarts again: {restarts_again}");
    }
}

#[test]
fn withdrawal_reaches_workers_whose_refresh_fails() {
    let arrives = |worker, user| Step::Arrives(worker, Arrival::With(Worker::claim(user)));
    for reply in [Reply::Status(503), Reply::Garbage, Reply::Reset] {
        let steps = [
            arrives(0, 0),
            Step::AnswersAll(Reply::GenuineKey),
            arrives(1, 0),
            Step::Passes(85_000),
            arrives(0, 1),
            Step::AnswersAll(Reply::Status(404)),
            arrives(1, 1),
            Step::AnswersAll(reply),
            Step::Passes(20_000),
            arrives(0, 2),
            arrives(1, 2),
        ];
        let empty = Template::new();
        let mut world = World::new(&empty, 2);
        world.play(&steps);
        assert_eq!(world.tally["admitted"], 4, "{reply:?}");
    }
}

#[test]
fn late_answer_to_an_early_fetch_clears_no_withdrawal() {
    let arrives = |worker, user| Step::Arrives(worker, Arrival::With(Worker::claim(user)));
    let (slow, quick) = (0, 1);
    let steps = [
        arrives(slow, 0),
        Step::AnswersAll(Reply::GenuineKey),
        arrives(quick, 0),
        Step::Passes(85_000),
        arrives(slow, 1),
        Step::Passes(500),
        arrives(quick, 1),
        Step::Passes(2),
        Step::Answers(1, Reply::Status(404)),
        Step::Answers(0, Reply::GenuineKey),
        Step::Passes(20_000),
        arrives(slow, 2),
        arrives(quick, 2),
        Step::Restarts(slow),
        arrives(slow, 3),
    ];
    let empty = Template::new();
    let mut world = World::new(&empty, 2);
    world.play(&steps);
    assert_eq!(world.tally["admitted"], 4);
}

#[test]
fn late_not_found_to_an_early_fetch_withdraws_nothing() {
    let arrives = |worker, user| Step::Arrives(worker, Arrival::With(Worker::claim(user)));
    let (slow, quick) = (0, 1);
    let steps = [
        arrives(slow, 0),
        Step::AnswersAll(Reply::GenuineKey),
        arrives(quick, 0),
        Step::Passes(85_000),
        arrives(slow, 1),
        Step::Passes(500),
        arrives(quick, 1),
        Step::Passes(2),
        Step::Answers(1, Reply::GenuineKey),
        Step::Answers(0, Reply::Status(404)),
        Step::Passes(85_000),
        // An outage.
        arrives(slow, 2),
        arrives(quick, 2),
        Step::AnswersAll(Reply::Status(503)),
        Step::Passes(20_000),
        arrives(slow, 3),
        arrives(quick, 3),
    ];
    let empty = Template::new();
    let mut world = World::new(&empty, 2);
    world.play(&steps);
    assert_eq!(world.tally["admitted"], 8);
}

#[test]
fn cached_pair_expires_with_its_access_token() {
    let claim = Claim {
        access: Some(Access {
            expires: 60,
            ..Access::VALID
        }),
        ..Worker::claim(0)
    };
    let arrives = Step::Arrives(0, Arrival::With(claim));
    let steps = [
        arrives,
        Step::AnswersAll(Reply::GenuineKey),
        Step::AnswersAll(Reply::GenuineKey),
        // `clockSkewSeconds` is 30.
        Step::Passes(89_000),
        arrives,
        Step::Passes(2_000),
        arrives,
    ];
    let empty = Template::reading_access_tokens();
    let mut world = World::new(&empty, 1);
    world.play(&steps);
    let counts = ["admitted", "denied.access-token-invalid"].map(|what| world.tally[what]);
    assert_eq!(counts, [2, 1]);
}

/// One worker with one plugin, without a schedule.
struct Worker {
    process: Rc<RefCell<Process>>,
    vm: Vm,
    root: u32,
}

impl Worker {
    fn start() -> Worker {
        let process = Process::at(Duration::from_secs(BEGINNING), Duration::from_secs(1000));
        let mut vm = Vm::start(&process, &[]);
        let root = vm
            .add_plugin(&config("", "enforce", false))
            .expect("a plugin");
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

    /// Answers the fetches that requests wait for: the first key exists, the others do not.
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
            access: None,
        }
    }
}

#[test]
fn flood_in_report_mode_passes_without_identity() {
    let process = Process::at(Duration::from_secs(BEGINNING), Duration::from_secs(1000));
    let mut vm = Vm::start(&process, &[]);
    let report = config("", "report", false);
    let root = vm.add_plugin(&report).expect("a plugin");
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
    // 144 at once, and those without a turn within three seconds.
    assert!(turned_away >= Some(144 + 200), "{turned_away:?}");
}

#[test]
fn memory_of_the_token_cache_is_bounded() {
    /// 15 MiB of token cache.
    const TOKEN_BYTES: usize = 4000;
    const TOKENS: u16 = 7_000;
    const MOST_MEMORY: usize = 17 << 20;
    /// Memory fragments as tokens come and go.
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
fn keeps_nothing_of_finished_requests() {
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
