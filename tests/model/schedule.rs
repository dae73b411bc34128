//! Schedules: sequences of events in a gateway, and how often each occurs.

use crate::oracle::{Name, TIMEOUT, TTL};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;
use support::token::{ARN, CLIENT, ISSUER, Key, TokenSpec};

/// The wall clock at the start of a schedule.
pub(crate) const BEGINNING: u64 = 1_800_000_000;
/// A load balancer of another region, with another key server. It has other keys with the same key
/// ids.
const EASTERN_ARN: &str = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
/// A foreign load balancer in the region of the first.
const STRANGERS_ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:999999999999:loadbalancer/app/kubeflow/50dc6c495c0c9188";
/// The trusted load balancers by source, followed by an untrusted one.
const ARNS: [&str; 3] = [ARN, EASTERN_ARN, STRANGERS_ARN];
const STRANGER: usize = 2;
/// The path prefixes of their key servers.
pub(crate) const REGIONS: [&str; 2] = ["us-west-2", "eu-central-1"];

/// The owner of a key that signs a token or is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Signer {
    /// The load balancer of this source, with this key id.
    Genuine(usize, u16),
    /// A stranger.
    Other,
}

impl Signer {
    pub(crate) fn key(self) -> Key {
        match self {
            Signer::Genuine(source, kid) => Key::numbered(1 + (kid % 100) as u8 * 2 + source as u8),
            Signer::Other => Key::numbered(255),
        }
    }

    /// The key server's answer with this key.
    pub(crate) fn pem(self) -> String {
        thread_local! {
            static WRITTEN: RefCell<HashMap<Signer, String>> = RefCell::default();
        }
        WRITTEN.with_borrow_mut(|written| {
            written
                .entry(self)
                .or_insert_with(|| self.key().pem())
                .clone()
        })
    }
}

/// A minted token, and its contents.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) name: Name,
    pub(crate) signer: Signer,
    pub(crate) user: String,
    /// By the wall clock.
    pub(crate) expires: Duration,
    pub(crate) text: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Token {
            name,
            signer,
            user,
            expires,
            ..
        } = self;
        write!(f, "{name:?} for {user} by {signer:?} until {expires:?}")
    }
}

pub(crate) fn kid(number: u16) -> String {
    format!("{number:08x}-dd77-4b60-bdd0-68378b356ad2")
}

/// The token of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    pub(crate) source: usize,
    pub(crate) kid: u16,
    pub(crate) user: u16,
    pub(crate) signed: Signed,
    /// Seconds from the start to the token's `exp`.
    pub(crate) expires: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Signed {
    /// By the key with this key id.
    Genuinely,
    /// By a stranger's key.
    ByAnybody,
    /// By the other source's key with this key id.
    ByTheOtherSource,
}

impl Claim {
    pub(crate) fn token(self) -> Token {
        thread_local! {
            static MINTED: RefCell<HashMap<Claim, Token>> = RefCell::default();
        }
        MINTED.with_borrow_mut(|minted| minted.entry(self).or_insert_with(|| self.mint(0)).clone())
    }

    /// Mints a token of about this many bytes, or fewer if they are not needed.
    pub(crate) fn mint(self, bytes: usize) -> Token {
        let signer = match self.signed {
            Signed::Genuinely => Signer::Genuine(self.source, self.kid),
            Signed::ByAnybody => Signer::Other,
            Signed::ByTheOtherSource => Signer::Genuine(1 - self.source, self.kid),
        };
        let user = format!("user-{}@example.com", self.user);
        let expires = BEGINNING
            .checked_add_signed(self.expires)
            .expect("a time after 1970");
        let mut spec = TokenSpec::of(&user);
        spec.header
            .insert("signer".to_owned(), json!(ARNS[self.source]));
        for member in [&mut spec.header, &mut spec.payload] {
            member.insert("exp".to_owned(), json!(expires));
        }
        let fill = bytes.saturating_sub(1000) * 3 / 4;
        spec.payload
            .insert("fill".to_owned(), json!("x".repeat(fill)));
        let text = spec.mint(&kid(self.kid), &signer.key()).text;
        let name = Name {
            source: self.source,
            kid: self.kid,
        };
        Token {
            name,
            signer,
            user,
            expires: Duration::from_secs(expires),
            text,
        }
    }
}

/// The session cookie that sign-out expires.
pub(crate) const SESSION: &str = "AWSELBAuthSessionCookie-0";

/// The plugin's configuration. `prefix` distinguishes versions.
pub(crate) fn config(prefix: &str, mode: &str) -> String {
    let load_balancer = |arn: &str| json!({"arn": arn, "issuer": ISSUER, "clientId": CLIENT});
    json!({
        "loadBalancers": [load_balancer(ARN), load_balancer(EASTERN_ARN)],
        "publicKeys": {"cacheTtlSeconds": TTL.as_secs(), "timeoutMs": TIMEOUT.as_millis() as u64},
        "userId": {"prefix": prefix},
        "accessLog": {"user": true},
        "rules": [
            {"match": {"paths": [{"prefix": "/open/"}]}, "require": "none"},
            {"match": {"paths": [{"prefix": "/optional/"}]}, "require": "optional"},
        ],
        "logout": {"path": "/logout", "redirectTo": "https://id.example.com/"},
        "mode": mode,
    })
    .to_string()
}

/// The kind of an arriving request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// With this token.
    With(Claim),
    /// The same, with spoofed identity headers and trailers.
    Spoofed(Claim),
    /// For a path that needs no token.
    Open(Claim),
    WithoutToken,
    /// For a path with an optional token, with one.
    OptionalWith(Claim),
    /// For the same path, without one.
    OptionalWithout,
    /// To sign out.
    SignsOut(Claim),
    /// Signed by an untrusted load balancer.
    ByAStranger(Claim),
}

/// What a key server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    GenuineKey,
    AnotherKey,
    Status(u16),
    /// 200 without a key.
    Garbage,
    /// 200, with the key in a body over the size limit.
    TooLarge,
    Reset,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A request comes to a worker.
    Arrives(usize, Arrival),
    /// Requests with this many invented key ids, starting with this one.
    Flood {
        worker: usize,
        from: u16,
        count: u16,
    },
    /// The client of a waiting request hangs up.
    HangsUp(usize),
    /// A fetch is answered.
    Answers(usize, Reply),
    /// All fetches are answered, including those that are due.
    AnswersAll(Reply),
    /// Time passes; timers fire, and fetches may time out.
    Passes(u64),
    /// The wall clock is set by this many seconds.
    WallJumps(i64),
    /// A worker's host stops sending fetches, or resumes.
    RefusesFetches(usize, bool),
    /// Another worker writes the shared keys first, this many times.
    LosesRaces(u32),
    /// A new configuration replaces the old one, which keeps its waiting requests. With `true` it
    /// only reports.
    Reconfigures(usize, bool),
    /// A new VM replaces the worker's, which keeps its waiting requests.
    Restarts(usize),
}

fn claim(kids: &[u16]) -> impl Strategy<Value = Claim> + use<> {
    let signed = prop_oneof![8 => Just(Signed::Genuinely), 1 => Just(Signed::ByAnybody), 1 => Just(Signed::ByTheOtherSource)];
    let expires =
        prop_oneof![2 => select(vec![-100, -29, 1, 5, 60]), 3 => Just(120), 10 => Just(1_000_000)];
    (0..2usize, select(kids.to_vec()), 0..3u16, signed, expires).prop_map(
        |(source, kid, user, signed, expires)| Claim {
            source,
            kid,
            user,
            signed,
            expires,
        },
    )
}

fn arrival(kids: &[u16]) -> impl Strategy<Value = Arrival> + use<> {
    prop_oneof![
        16 => claim(kids).prop_map(Arrival::With),
        3 => claim(kids).prop_map(Arrival::Spoofed),
        1 => claim(kids).prop_map(Arrival::Open),
        1 => Just(Arrival::WithoutToken),
        1 => claim(kids).prop_map(Arrival::OptionalWith),
        1 => Just(Arrival::OptionalWithout),
        1 => claim(kids).prop_map(Arrival::SignsOut),
        1 => claim(kids).prop_map(|claim| {
            Arrival::ByAStranger(Claim { source: STRANGER, signed: Signed::Genuinely, ..claim })
        }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        10 => Just(Reply::GenuineKey),
        2 => Just(Reply::AnotherKey),
        3 => select(vec![403, 404, 410]).prop_map(Reply::Status),
        4 => select(vec![201, 301, 429, 500, 503]).prop_map(Reply::Status),
        1 => Just(Reply::Garbage),
        1 => Just(Reply::TooLarge),
        2 => Just(Reply::Reset),
    ]
}

fn passing() -> impl Strategy<Value = u64> {
    prop_oneof![
        10 => 0..5u64,
        8 => 5..1000u64,
        5 => 1000..4000u64,
        2 => 10_000..70_000u64,
        4 => 75_000..105_000u64,
        1 => Just(86_400_000),
    ]
}

/// More keys than there are tokens; occasionally, more than the queue holds.
fn flood(workers: usize) -> impl Strategy<Value = Step> + use<> {
    let keys = prop_oneof![4 => (100..140u16, 15..30u16), 1 => (2000..2100u16, 150..400u16)];
    (0..workers, keys).prop_map(|(worker, (from, count))| Step::Flood {
        worker,
        from,
        count,
    })
}

/// A step, for this many workers and these key ids of genuine tokens.
fn step(workers: usize, kids: &[u16]) -> impl Strategy<Value = Step> + use<> {
    let worker = 0..workers;
    let few = 0..1000usize;
    prop_oneof![
        60 => (worker.clone(), arrival(kids)).prop_map(|(worker, arrival)| Step::Arrives(worker, arrival)),
        1 => flood(workers),
        6 => few.clone().prop_map(Step::HangsUp),
        16 => (few, reply()).prop_map(|(place, reply)| Step::Answers(place, reply)),
        30 => reply().prop_map(Step::AnswersAll),
        24 => passing().prop_map(Step::Passes),
        1 => (-4000..4000i64).prop_map(Step::WallJumps),
        2 => select(vec![-3600, -30, 30, 3600]).prop_map(Step::WallJumps),
        2 => (worker.clone(), any::<bool>()).prop_map(|(worker, refuses)| Step::RefusesFetches(worker, refuses)),
        1 => (1..3u32).prop_map(Step::LosesRaces),
        1 => (worker.clone(), any::<bool>()).prop_map(|(worker, reports)| Step::Reconfigures(worker, reports)),
        1 => worker.prop_map(Step::Restarts),
    ]
}

/// A key is used late in its TTL, an event follows, and it is used again.
fn late_use(workers: usize, kids: &[u16]) -> impl Strategy<Value = Vec<Step>> + use<> {
    (0..workers, claim(kids), reply(), passing()).prop_map(|(worker, claim, reply, later)| {
        let by = |user| {
            Arrival::With(Claim {
                user,
                expires: 1_000_000,
                ..claim
            })
        };
        let arrives = |user| Step::Arrives(worker, by(user));
        vec![
            arrives(3),
            Step::AnswersAll(Reply::GenuineKey),
            Step::Passes(85_000),
            arrives(4),
            Step::AnswersAll(reply),
            Step::Passes(later),
            arrives(5),
        ]
    })
}

/// A configuration in report mode, and requests that it would deny.
fn reports(workers: usize, kids: &[u16]) -> impl Strategy<Value = Vec<Step>> + use<> {
    (0..workers, arrival(kids), arrival(kids), reply()).prop_map(|(worker, one, other, reply)| {
        let arrives = |arrival| Step::Arrives(worker, arrival);
        vec![
            Step::Reconfigures(worker, true),
            arrives(Arrival::WithoutToken),
            arrives(one),
            Step::AnswersAll(reply),
            arrives(other),
            Step::Passes(4000),
        ]
    })
}

/// A schedule.
pub(crate) fn schedule(
    workers: usize,
    kids: &[u16],
    parts: usize,
) -> impl Strategy<Value = Vec<Step>> + use<> {
    let part = prop_oneof![
        25 => step(workers, kids).prop_map(|step| vec![step]),
        1 => late_use(workers, kids),
        1 => reports(workers, kids),
    ];
    proptest::collection::vec(part, 1..parts).prop_map(|parts| parts.concat())
}
