//! The oracle: a second implementation of the documented promises about keys and waiting requests,
//! without the filter's code. The world reports the key servers' answers, and the oracle lists a
//! request's possible outcomes.

use super::schedule::{REGIONS, Signer, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// `publicKeys.timeoutMs` of the tests' configuration, and the longest wait of a request.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// `publicKeys.cacheTtlSeconds`. A key that is used late in its TTL is refreshed.
pub(crate) const TTL: Duration = Duration::from_secs(100);
const REFRESH_AFTER: Duration = Duration::from_secs(80);
/// How long a key is used beyond its TTL while the key server is unavailable.
const STALE_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
const REFRESHES_APART: Duration = Duration::from_secs(1);
/// A failed refresh of a used key is retried within this time.
const REFRESHED_AGAIN: Duration = Duration::from_secs(61);
const NOT_FOUND_TTL: Duration = Duration::from_secs(60);
const INVALID_TTL: Duration = Duration::from_secs(10);
/// A fetch that failed more recently than this may deny requests, and may be retried.
const FAILURE_MATTERS: Duration = Duration::from_secs(4);
/// `clockSkewSeconds`.
const SKEW: Duration = Duration::from_secs(30);
/// How long the filter keeps a token without a new verification.
const LONGEST_CACHED: Duration = Duration::from_secs(300);
/// The burst and the interval of fetches of unknown keys, for each source.
const FETCH_BURST: i64 = 20;
const FETCH_INTERVAL_MS: i64 = 100;
/// The longest delay between taking a token and the fetch: timers fire every millisecond.
const FETCH_LATENESS_MS: i64 = 5;
/// The number of shared keys, the last ones fetched.
const SHARED: usize = 32;
/// A plugin with fewer keys and refusals evicts none, and never one of this many last used.
const FORGETS_NONE: usize = 500;

/// A key's name: its key server and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) source: usize,
    pub(crate) kid: u16,
}

/// The two clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: Duration,
    pub(crate) steady: Duration,
}

/// A key server's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Key(Signer),
    NotFound,
    Invalid,
    Nothing,
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Admitted,
    Skipped,
    SignedOut,
    /// For this reason. In report mode, it passed without identity.
    Denied(String),
    Waits,
}

pub(crate) fn denied(reason: &str) -> Verdict {
    Verdict::Denied(reason.to_owned())
}

/// The sources: the load balancers' key servers, then the providers' key sets.
pub(crate) const SOURCES: usize = 4;

/// The load balancers' keys that all workers share, by source, in the order of their fetches. They outlive a VM.
/// An answer counts unless the key server answered the opposite to a fetch that was sent later.
#[derive(Clone, Default)]
pub(crate) struct Shared([Vec<SharedKey>; SOURCES]);

#[derive(Clone, Copy)]
struct SharedKey {
    name: Name,
    signer: Signer,
    /// When the fetch that returned it was sent.
    fetched: Duration,
    /// When the fetch that found it withdrawn was sent.
    withdrawn: Option<Duration>,
}

impl Shared {
    fn find(&self, name: Name) -> Option<&SharedKey> {
        self.0[name.source].iter().find(|key| key.name == name)
    }

    fn get(&self, name: Name, now: Now) -> Option<Known> {
        let known = self.find(name).map(|key| Known {
            signer: key.signer,
            fetched: key.fetched,
            withdrawn: key.withdrawn.is_some(),
        });
        known.filter(|known| known.serves(now))
    }

    fn is_withdrawn(&self, name: Name) -> bool {
        self.find(name).is_some_and(|key| key.withdrawn.is_some())
    }

    fn outdates(&self, name: Name, said: Said, sent: Duration) -> bool {
        self.find(name).is_some_and(|key| match said {
            Said::Key(_) => key.withdrawn.is_some_and(|withdrawn| sent <= withdrawn),
            Said::NotFound => sent < key.fetched,
            Said::Invalid | Said::Nothing => false,
        })
    }

    fn put(&mut self, name: Name, signer: Signer, sent: Duration) {
        let is_later = self.find(name).is_some_and(|key| sent < key.fetched);
        if is_later || name.source >= REGIONS.len() {
            return;
        }
        let keys = &mut self.0[name.source];
        keys.retain(|key| key.name != name);
        keys.push(SharedKey {
            name,
            signer,
            fetched: sent,
            withdrawn: None,
        });
        if keys.len() > SHARED {
            keys.remove(0);
        }
    }

    fn withdraw(&mut self, name: Name, sent: Duration) {
        for key in self.0[name.source]
            .iter_mut()
            .filter(|key| key.name == name)
        {
            key.withdrawn = key.withdrawn.max(Some(sent));
        }
    }
}

#[derive(Clone, Copy)]
struct Known {
    signer: Signer,
    fetched: Duration,
    withdrawn: bool,
}

impl Known {
    fn serves(&self, now: Now) -> bool {
        let grace = if self.withdrawn {
            Duration::ZERO
        } else {
            STALE_GRACE
        };
        now.steady < self.fetched + TTL + grace
    }
}

/// The state of one plugin in one worker.
#[derive(Clone, Default)]
pub(crate) struct Oracle {
    known: BTreeMap<Name, Known>,
    /// In the order of last use.
    used: Vec<Name>,
    refused: BTreeMap<Name, (&'static str, Duration)>,
    failed: BTreeMap<Name, Duration>,
    /// By token: the access token with which it was verified, and when it expires.
    cached: BTreeMap<String, (Option<String>, Duration)>,
    reads_access_tokens: bool,
    /// The fetches under way, and when they were sent.
    under_way: BTreeMap<Name, Duration>,
    /// Keys with new requests since the last answer.
    wanted: BTreeSet<Name>,
    refreshed: BTreeMap<Name, Duration>,
    /// Required refreshes, and since when.
    due: BTreeMap<Name, Duration>,
    /// Indexed by source.
    buckets: [TokenBucket; SOURCES],
}

/// The missing tokens, in milliseconds until they are back, and the time of that value.
#[derive(Clone)]
struct TokenBucket(i64, Duration);

impl Default for TokenBucket {
    fn default() -> TokenBucket {
        TokenBucket(FETCH_BURST * FETCH_INTERVAL_MS, Duration::ZERO)
    }
}

impl TokenBucket {
    fn left(&self, now: Now) -> i64 {
        let since = i64::try_from((now.steady - self.1).as_millis()).expect("a time in this era");
        (self.0 + since).min(FETCH_BURST * FETCH_INTERVAL_MS)
    }

    /// Takes a token and returns the number left.
    fn take(&mut self, now: Now) -> i64 {
        *self = TokenBucket(self.left(now) - FETCH_INTERVAL_MS, now.steady);
        self.0
    }
}

/// The state of a key, and whether it is certain.
enum State {
    Known(Signer),
    Refused(&'static str),
    Shared(Known),
    Unknown,
}

/// The result of looking up a key for a request.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Key(Signer),
    Refused(&'static str),
    Waits,
}

const UNAVAILABLE: Found = Found::Refused("key-unavailable");

/// The possible outcomes of a request.
#[derive(Default)]
pub(crate) struct Forecast {
    pub(crate) permitted: Vec<Verdict>,
    /// The possible results of looking up the load balancer's key, if it is looked up.
    first: Vec<Found>,
    /// The same for the provider's key.
    second: Vec<Found>,
}

impl Forecast {
    fn of(verdict: Verdict) -> Forecast {
        Forecast {
            permitted: vec![verdict],
            ..Forecast::default()
        }
    }

    /// Whether the load balancer's key, or the provider's, was certainly found in this outcome.
    fn has_found(found: &[Found], verdict: &Verdict, proofs: &[&str]) -> bool {
        let is_key = |found: &Found| matches!(found, Found::Key(_));
        let proves =
            *verdict == Verdict::Admitted || proofs.iter().any(|reason| *verdict == denied(reason));
        found.iter().any(is_key) && (proves || found.iter().all(is_key))
    }

    fn has_found_first(&self, verdict: &Verdict) -> bool {
        let proofs = ["signature-invalid", "access-token-invalid"];
        Forecast::has_found(&self.first, verdict, &proofs)
    }

    /// Whether the request was decided again after it waited.
    pub(crate) fn is_resumed(&self) -> bool {
        !self.first.is_empty()
    }

    /// Whether it is open which of its two keys the request waits for or lacks.
    pub(crate) fn is_unclear(&self, verdict: &Verdict) -> bool {
        let is_key = |found: &Found| matches!(found, Found::Key(_));
        !self.second.is_empty() && self.first.iter().any(is_key) && !self.has_found_first(verdict)
    }
}

impl Oracle {
    pub(crate) fn new(reads_access_tokens: bool) -> Oracle {
        Oracle {
            reads_access_tokens,
            ..Oracle::default()
        }
    }

    /// The possible outcomes of a request with this token, new or after it waited this long for a
    /// key. If `may_evict`, any request may be evicted.
    pub(crate) fn forecast(
        &self,
        token: &Token,
        waited: Option<(Name, Duration)>,
        may_evict: bool,
        shared: &Shared,
        now: Now,
    ) -> Forecast {
        let verdict = |found: &Found| match found {
            Found::Refused(reason) => denied(reason),
            Found::Key(_) | Found::Waits => Verdict::Waits,
        };
        let ended = waited.map(|(name, waited)| {
            let found = self.after_wait(name, waited, may_evict, shared, now);
            (name, found)
        });
        if let Some((_, found)) = &ended
            && !matches!(found[..], [Found::Key(_)])
        {
            return Forecast {
                permitted: found.iter().map(verdict).collect(),
                ..Forecast::default()
            };
        }
        if self.has_cached(token, now) {
            return Forecast::of(Verdict::Admitted);
        }
        if now.wall >= token.expires + SKEW {
            return Forecast::of(denied("token-expired"));
        }
        let first = match &ended {
            Some((name, found)) if *name == token.name => found.clone(),
            _ => self.look_up(token.name, may_evict, shared, now),
        };
        let mut forecast = Forecast {
            first,
            ..Forecast::default()
        };
        for found in forecast.first.clone() {
            match found {
                Found::Key(signer) if signer != token.signer => {
                    forecast.permitted.push(denied("signature-invalid"));
                }
                Found::Key(_) if !self.reads_access_tokens => {
                    forecast.permitted.push(Verdict::Admitted);
                }
                Found::Key(_) => {
                    let Some(access) = &token.access else {
                        forecast.permitted.push(denied("access-token-invalid"));
                        continue;
                    };
                    forecast.second = match &ended {
                        Some((name, found)) if *name == access.name => found.clone(),
                        _ => self.look_up(access.name, may_evict, shared, now),
                    };
                    let is_valid = |signer: Signer| {
                        access.signer == Some(signer)
                            && access.is_own
                            && now.wall < access.expires + SKEW
                    };
                    let outcomes = forecast.second.iter().map(|found| match found {
                        Found::Key(signer) if is_valid(*signer) => Verdict::Admitted,
                        Found::Key(_) => denied("access-token-invalid"),
                        other => verdict(other),
                    });
                    forecast.permitted.extend(outcomes);
                }
                // After the provider's key, no request waits for the load balancer's.
                Found::Waits if ended.is_some() => {
                    forecast.permitted.push(verdict(&UNAVAILABLE));
                }
                other => forecast.permitted.push(verdict(&other)),
            }
        }
        forecast
    }

    /// The possible results for a request that waited for this key.
    fn after_wait(
        &self,
        name: Name,
        waited: Duration,
        may_evict: bool,
        shared: &Shared,
        now: Now,
    ) -> Vec<Found> {
        match self.state(name, shared, now) {
            State::Refused(reason) => vec![Found::Refused(reason)],
            State::Known(signer) => vec![Found::Key(signer)],
            State::Shared(_) | State::Unknown if waited >= PATIENCE => vec![UNAVAILABLE],
            State::Shared(_) | State::Unknown if self.has_failed(name, now) || may_evict => {
                vec![Found::Waits, UNAVAILABLE]
            }
            State::Shared(_) | State::Unknown => vec![Found::Waits],
        }
    }

    /// The possible results for a request that did not wait for this key.
    fn look_up(&self, name: Name, may_evict: bool, shared: &Shared, now: Now) -> Vec<Found> {
        let failed = self.has_failed(name, now) || may_evict;
        let may_be_forgotten = self.may_be_forgotten(name);
        match self.state(name, shared, now) {
            State::Known(signer) if may_be_forgotten => {
                let shared = shared.get(name, now);
                let shared = shared.map(|known| Found::Key(known.signer));
                [Found::Key(signer), Found::Waits, UNAVAILABLE]
                    .into_iter()
                    .chain(shared)
                    .collect()
            }
            State::Known(signer) => vec![Found::Key(signer)],
            // Refusals are evicted first.
            State::Refused(reason) if self.is_full() => {
                vec![Found::Refused(reason), Found::Waits, UNAVAILABLE]
            }
            State::Refused(reason) => vec![Found::Refused(reason)],
            State::Shared(Known { signer, .. })
                if !self.under_way.contains_key(&name)
                    && !self.wanted.contains(&name)
                    && !failed
                    && !may_be_forgotten =>
            {
                vec![Found::Key(signer)]
            }
            State::Shared(Known { signer, .. }) => {
                vec![Found::Key(signer), Found::Waits, UNAVAILABLE]
            }
            State::Unknown if failed => vec![Found::Waits, UNAVAILABLE],
            State::Unknown => vec![Found::Waits],
        }
    }

    fn state(&self, name: Name, shared: &Shared, now: Now) -> State {
        match self.known.get(&name) {
            Some(known) if known.serves(now) => return State::Known(known.signer),
            // This worker knows better than the others.
            Some(known) if known.withdrawn && !self.may_be_forgotten(name) => {
                return State::Unknown;
            }
            _ => {}
        }
        match self.refused.get(&name) {
            Some((reason, until)) if now.steady < *until => State::Refused(reason),
            _ => shared.get(name, now).map_or(State::Unknown, State::Shared),
        }
    }

    /// Whether a new entry may evict another.
    fn is_full(&self) -> bool {
        self.known.len() + self.refused.len() + self.wanted.len() >= FORGETS_NONE
    }

    /// Whether other entries may have evicted this key.
    fn may_be_forgotten(&self, name: Name) -> bool {
        self.is_full()
            && !self
                .used
                .iter()
                .rev()
                .take(FORGETS_NONE)
                .any(|used| *used == name)
    }

    fn uses(&mut self, name: Name, now: Now) {
        self.used.retain(|used| *used != name);
        self.used.push(name);
        let is_old = self
            .known
            .get(&name)
            .is_some_and(|known| now.steady >= known.fetched + REFRESH_AFTER);
        let before = self.refreshed.get(&name);
        let may_rest = before.is_some_and(|before| now.steady < *before + REFRESHED_AGAIN);
        if is_old
            && !may_rest
            && !self.under_way.contains_key(&name)
            && !self.may_be_forgotten(name)
        {
            self.due.entry(name).or_insert(now.steady);
        }
    }

    /// The keys whose refresh was due before `then` and did not happen.
    pub(crate) fn overdue(&self, then: Duration) -> Vec<Name> {
        self.due
            .iter()
            .filter(|(_, since)| **since < then)
            .map(|(name, _)| *name)
            .collect()
    }

    /// The access token's text, if it is part of the decision.
    fn access_text(&self, token: &Token) -> Option<String> {
        let access = token.access.as_ref().filter(|_| self.reads_access_tokens);
        access.map(|access| access.text.clone())
    }

    fn has_cached(&self, token: &Token, now: Now) -> bool {
        self.cached
            .get(&token.text)
            .is_some_and(|(access, expires)| {
                now.wall < *expires && *access == self.access_text(token)
            })
    }

    /// Records the outcome of a request. Returns the key that it waits for, if it waits.
    pub(crate) fn became(
        &mut self,
        token: &Token,
        verdict: &Verdict,
        forecast: &Forecast,
        shared: &Shared,
        now: Now,
    ) -> Name {
        let has_first = forecast.has_found_first(verdict);
        let mut found = Vec::new();
        found.extend(has_first.then_some(token.name));
        if let Some(access) = &token.access
            && has_first
            && Forecast::has_found(&forecast.second, verdict, &["access-token-invalid"])
        {
            found.push(access.name);
        }
        for name in found {
            if let State::Shared(known) = self.state(name, shared, now) {
                self.known.insert(name, known);
            }
            self.uses(name, now);
        }
        let awaited = match &token.access {
            Some(access) if has_first => access.name,
            _ => token.name,
        };
        match verdict {
            Verdict::Admitted if !self.has_cached(token, now) => {
                let access = token.access.as_ref().filter(|_| self.reads_access_tokens);
                let expires = access.map_or(token.expires, |access| access.expires);
                let expires = expires.min(token.expires) + SKEW;
                let expires = expires.min(now.wall + LONGEST_CACHED);
                let entry = (self.access_text(token), expires);
                self.cached.insert(token.text.clone(), entry);
            }
            // The previous entry has expired or was evicted.
            Verdict::Waits => {
                self.known.remove(&awaited);
                self.refused.remove(&awaited);
                self.wanted.insert(awaited);
            }
            Verdict::Admitted | Verdict::Denied(_) | Verdict::Skipped | Verdict::SignedOut => {}
        }
        awaited
    }

    /// A fetch is made.
    pub(crate) fn fetches(&mut self, name: Name, now: Now) {
        self.due.remove(&name);
        assert_eq!(
            self.under_way.insert(name, now.steady),
            None,
            "{name:?} is fetched while it is being fetched"
        );
        if let Some(known) = self.known.get(&name).filter(|known| known.serves(now)) {
            let age = now.steady.saturating_sub(known.fetched);
            assert!(
                age >= REFRESH_AFTER,
                "{name:?} is fetched anew after {age:?}"
            );
            let before = self.refreshed.insert(name, now.steady);
            let apart = before.map(|before| now.steady - before);
            assert!(
                apart.is_none_or(|apart| apart >= REFRESHES_APART),
                "{name:?} is refreshed again after {apart:?}"
            );
            return;
        }
        let left = self.buckets[name.source].take(now);
        assert!(
            left >= -FETCH_LATENESS_MS,
            "source {} is asked more often than its token bucket allows",
            name.source
        );
    }

    /// Whether a fetch of this key failed recently.
    pub(crate) fn has_failed(&self, name: Name, now: Now) -> bool {
        self.failed
            .get(&name)
            .is_some_and(|at| now.steady <= *at + FAILURE_MATTERS)
    }

    /// Whether this source has had a spare token for longer than a fetch may be delayed.
    pub(crate) fn has_token(&self, source: usize, now: Now) -> bool {
        self.buckets[source].left(now) >= FETCH_INTERVAL_MS + FETCH_LATENESS_MS
    }

    /// A fetch is answered.
    pub(crate) fn answered(&mut self, name: Name, said: Said, shared: &mut Shared, now: Now) {
        let sent = self.under_way.remove(&name).expect("a fetch");
        let said = match shared.outdates(name, said, sent) {
            true => Said::Nothing,
            false => said,
        };
        let is_known = self.known.contains_key(&name);
        if said == Said::NotFound {
            shared.withdraw(name, sent);
        }
        if said != Said::Nothing {
            self.wanted.remove(&name);
        }
        match said {
            Said::Key(signer) => {
                let known = Known {
                    signer,
                    fetched: now.steady,
                    withdrawn: false,
                };
                self.known.insert(name, known);
                self.refused.remove(&name);
                self.failed.remove(&name);
                self.uses(name, now);
                shared.put(name, signer, sent);
            }
            Said::NotFound if is_known => {
                self.known
                    .entry(name)
                    .and_modify(|known| known.withdrawn = true);
            }
            Said::NotFound => {
                self.refused
                    .insert(name, ("key-not-found", now.steady + NOT_FOUND_TTL));
            }
            Said::Invalid if !is_known => {
                self.refused
                    .insert(name, ("key-invalid", now.steady + INVALID_TTL));
            }
            Said::Invalid => {}
            Said::Nothing => {
                self.failed.insert(name, now.steady);
            }
        }
        // Another worker may have learned that the key is withdrawn.
        if matches!(said, Said::Invalid | Said::Nothing)
            && shared.is_withdrawn(name)
            && let Some(known) = self.known.get_mut(&name)
        {
            known.withdrawn = true;
        }
    }
}
