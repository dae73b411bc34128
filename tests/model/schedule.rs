//! Schedules: sequences of events in a gateway, and how often each occurs.

use crate::oracle::{Name, TIMEOUT, TTL};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;
use support::access_token::{AccessTokenSpec, Signature, fill_in_keys};
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
/// The key id in the provider's key sets. Those of the two load balancers' users are the sources
/// after the load balancers' own.
pub(crate) const PROVIDER_KID: &str = "access";

/// The owner of a key that signs a token or is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Signer {
    /// The load balancer of this source, with this key id.
    Genuine(usize, u16),
    /// A stranger.
    Other,
    /// The identity provider, with its first or its second key.
    Provider(bool),
}

impl Signer {
    /// The provider's key for the users of a load balancer, before or after a rotation.
    pub(crate) fn provider(load_balancer: usize, is_rotated: bool) -> Signer {
        Signer::Provider((load_balancer == 0) == is_rotated)
    }

    pub(crate) fn key(self) -> Key {
        match self {
            Signer::Genuine(source, kid) => Key::numbered(1 + (kid % 100) as u8 * 2 + source as u8),
            Signer::Other | Signer::Provider(_) => Key::numbered(255),
        }
    }

    /// The key set with this key of the provider, and with the other one under another id.
    pub(crate) fn key_set(self) -> String {
        let ids = match self {
            Signer::Provider(true) => [PROVIDER_KID, "other"],
            _ => ["other", PROVIDER_KID],
        };
        let first = fill_in_keys("{first}", "").replace("for-id-tokens", ids[0]);
        format!(r#"{{"keys":[{first},{}]}}"#, fill_in_keys("{key}", ids[1]))
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
    /// The access token of the same request.
    pub(crate) access: Option<AccessToken>,
}

#[derive(Clone, Debug)]
pub(crate) struct AccessToken {
    pub(crate) name: Name,
    /// `None`: a forgery.
    pub(crate) signer: Option<Signer>,
    /// Whether its subject is that of the load balancer's token.
    pub(crate) is_own: bool,
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
            access,
            ..
        } = self;
        write!(f, "{name:?} for {user} by {signer:?} until {expires:?}")?;
        let Some(access) = access else { return Ok(()) };
        let AccessToken {
            signer,
            is_own,
            expires,
            ..
        } = access;
        write!(
            f,
            ", access token by {signer:?} until {expires:?}, own: {is_own}"
        )
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
    /// The access token, if there is one.
    pub(crate) access: Option<Access>,
}

/// The access token of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Access {
    pub(crate) signed: SignedAccess,
    /// Whether it is the same user's.
    pub(crate) is_own: bool,
    /// Seconds from the start to its `exp`.
    pub(crate) expires: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SignedAccess {
    Genuinely,
    /// By the key that replaces the genuine one.
    AfterRotation,
    Forged,
}

impl Access {
    pub(crate) const VALID: Access = Access {
        signed: SignedAccess::Genuinely,
        is_own: true,
        expires: 1_000_000,
    };

    /// Mints it for a user of this load balancer.
    fn mint(self, load_balancer: usize) -> AccessToken {
        let is_rotated = self.signed == SignedAccess::AfterRotation;
        let signer = Signer::provider(load_balancer, is_rotated);
        let signature = match (self.signed, signer) {
            (SignedAccess::Forged, _) => Signature::FlippedBit,
            (_, Signer::Provider(true)) => Signature::FirstKey,
            _ => Signature::Genuine,
        };
        let expires = after_beginning(self.expires);
        let mut spec = AccessTokenSpec {
            signature,
            ..AccessTokenSpec::default()
        };
        spec.payload.insert("exp".to_owned(), json!(expires));
        if !self.is_own {
            spec.payload.insert("sub".to_owned(), json!("another"));
        }
        AccessToken {
            name: Name {
                source: REGIONS.len() + load_balancer,
                kid: 0,
            },
            signer: (self.signed != SignedAccess::Forged).then_some(signer),
            is_own: self.is_own,
            expires: Duration::from_secs(expires),
            text: spec.mint(PROVIDER_KID, &Signer::Other.key()),
        }
    }

    fn token(self, load_balancer: usize) -> AccessToken {
        thread_local! {
            static MINTED: RefCell<HashMap<(Access, usize), AccessToken>> = RefCell::default();
        }
        MINTED.with_borrow_mut(|minted| {
            minted
                .entry((self, load_balancer))
                .or_insert_with(|| self.mint(load_balancer))
                .clone()
        })
    }
}

/// The Unix time this many seconds after the start of a schedule.
fn after_beginning(seconds: i64) -> u64 {
    BEGINNING
        .checked_add_signed(seconds)
        .expect("a time after 1970")
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
        let expires = after_beginning(self.expires);
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
            access: self
                .access
                .map(|access| access.token(self.source % REGIONS.len())),
        }
    }
}

/// The session cookie that sign-out expires.
pub(crate) const SESSION: &str = "AWSELBAuthSessionCookie-0";

/// The plugin's configuration. `prefix` distinguishes versions. `reads_access_tokens`: each load
/// balancer's users need an access token, with a key set of their own.
pub(crate) fn config(prefix: &str, mode: &str, reads_access_tokens: bool) -> String {
    let load_balancer = |number: usize| {
        let mut entry = json!({"arn": ARNS[number], "issuer": ISSUER, "clientId": CLIENT});
        if reads_access_tokens {
            entry["accessToken"] = json!({
                "issuer": ISSUER,
                "jwksUri": format!("https://id.example.com/{number}/jwks.json"),
                "jwksCluster": format!("jwks-{number}"),
            });
        }
        entry
    };
    json!({
        "loadBalancers": [load_balancer(0), load_balancer(1)],
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
    /// 200, with a key set without the key. For a load balancer's key: 404.
    WithoutKey,
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

// Boxed: the strategies of a step would not fit on the stack.
fn access() -> BoxedStrategy<Option<Access>> {
    let signed = prop_oneof![
        10 => Just(SignedAccess::Genuinely),
        2 => Just(SignedAccess::AfterRotation),
        1 => Just(SignedAccess::Forged),
    ];
    let is_own = prop_oneof![10 => Just(true), 1 => Just(false)];
    let expires = prop_oneof![2 => select(vec![-31, 1, 60]), 10 => Just(1_000_000)];
    let access = (signed, is_own, expires).prop_map(|(signed, is_own, expires)| Access {
        signed,
        is_own,
        expires,
    });
    prop_oneof![1 => Just(None), 12 => access.prop_map(Some)].boxed()
}

fn claim(kids: &[u16]) -> BoxedStrategy<Claim> {
    let signed = prop_oneof![8 => Just(Signed::Genuinely), 1 => Just(Signed::ByAnybody), 1 => Just(Signed::ByTheOtherSource)];
    let expires =
        prop_oneof![2 => select(vec![-100, -29, 1, 5, 60]), 3 => Just(120), 10 => Just(1_000_000)];
    let kids = select(kids.to_vec());
    (0..2usize, kids, 0..3u16, signed, expires, access())
        .prop_map(|(source, kid, user, signed, expires, access)| Claim {
            source,
            kid,
            user,
            signed,
            expires,
            access,
        })
        .boxed()
}

fn arrival(kids: &[u16]) -> BoxedStrategy<Arrival> {
    let arrival = prop_oneof![
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
    ];
    arrival.boxed()
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        10 => Just(Reply::GenuineKey),
        2 => Just(Reply::AnotherKey),
        3 => select(vec![403, 404, 410]).prop_map(Reply::Status),
        4 => select(vec![201, 301, 429, 500, 503]).prop_map(Reply::Status),
        1 => Just(Reply::Garbage),
        1 => Just(Reply::TooLarge),
        1 => Just(Reply::WithoutKey),
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

/// Two workers refresh a key that is withdrawn, are answered in either order, and refresh it again.
fn withdrawal(workers: usize, kids: &[u16]) -> impl Strategy<Value = Vec<Step>> + use<> {
    let apart = select(vec![0, 1, 300]);
    let withdrawn = Reply::Status(404);
    let replies = select(vec![
        [withdrawn, Reply::GenuineKey],
        [Reply::GenuineKey, withdrawn],
        [withdrawn, Reply::Status(503)],
        [withdrawn, Reply::Garbage],
    ]);
    let answers = (0..2usize, replies, reply());
    let workers = (0..workers, 0..workers);
    (workers, claim(kids), apart, answers, passing()).prop_map(
        |((one, other), claim, apart, (first, [reply, next], last), later)| {
            let arrives = |worker, user| {
                let by = Claim {
                    user,
                    expires: 1_000_000,
                    signed: Signed::Genuinely,
                    ..claim
                };
                Step::Arrives(worker, Arrival::With(by))
            };
            vec![
                arrives(one, 3),
                Step::AnswersAll(Reply::GenuineKey),
                arrives(other, 3),
                Step::Passes(85_000),
                arrives(one, 4),
                Step::Passes(apart),
                arrives(other, 4),
                Step::Passes(2),
                Step::Answers(first, reply),
                Step::Answers(0, next),
                Step::Passes(later),
                arrives(one, 5),
                arrives(other, 5),
                Step::AnswersAll(last),
                Step::Passes(20_000),
                arrives(one, 6),
                arrives(other, 6),
            ]
        },
    )
}

/// A provider's key is used late in its TTL, an event follows, and it is used again. The first
/// access token may expire meanwhile.
fn late_access(workers: usize, kids: &[u16]) -> impl Strategy<Value = Vec<Step>> + use<> {
    let first = select(vec![60, 1_000_000]).prop_map(|expires| {
        Some(Access {
            expires,
            ..Access::VALID
        })
    });
    (0..workers, claim(kids), reply(), first, access(), passing()).prop_map(
        |(worker, claim, reply, first, access, later)| {
            let arrives = |user, access| {
                let by = Claim {
                    user,
                    expires: 1_000_000,
                    signed: Signed::Genuinely,
                    access,
                    ..claim
                };
                Step::Arrives(worker, Arrival::With(by))
            };
            // The first answer is that of the load balancer's key server.
            vec![
                arrives(3, first),
                Step::AnswersAll(Reply::GenuineKey),
                Step::AnswersAll(Reply::GenuineKey),
                Step::Passes(85_000),
                arrives(4, first),
                Step::AnswersAll(reply),
                Step::Passes(later),
                arrives(5, access),
                Step::AnswersAll(reply),
                arrives(4, access),
                arrives(3, first),
            ]
        },
    )
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
        1 => withdrawal(workers, kids),
        1 => late_access(workers, kids),
        1 => reports(workers, kids),
    ];
    proptest::collection::vec(part, 1..parts).prop_map(|parts| parts.concat())
}
