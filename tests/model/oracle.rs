//! The oracle: a second implementation of the documented promises about keys and waiting requests,
//! without the filter's code. The world reports the key servers' answers, and the oracle lists a
//! request's possible outcomes.

use super::schedule::{Signer, Token};
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

/// The keys that all workers share, by source, in the order of their fetches. They outlive a VM.
#[derive(Clone, Default)]
pub(crate) struct Shared([Vec<(Name, Known)>; 2]);

impl Shared {
    fn get(&self, name: Name, now: Now) -> Option<Known> {
        let (_, known) = self.0[name.source]
            .iter()
            .find(|(shared, _)| *shared == name)?;
        known.serves(now).then_some(*known)
    }

    fn put(&mut self, name: Name, known: Known) {
        let keys = &mut self.0[name.source];
        keys.retain(|(shared, _)| *shared != name);
        keys.push((name, known));
        if keys.len() > SHARED {
            keys.remove(0);
        }
    }

    fn withdraw(&mut self, name: Name) {
        for (_, known) in self.0[name.source]
            .iter_mut()
            .filter(|(shared, _)| *shared == name)
        {
            known.withdrawn = true;
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
    cached: BTreeMap<String, Duration>,
    under_way: BTreeSet<Name>,
    /// Keys with new requests since the last answer.
    wanted: BTreeSet<Name>,
    refreshed: BTreeMap<Name, Duration>,
    /// Required refreshes, and since when.
    due: BTreeMap<Name, Duration>,
    /// Indexed by source.
    buckets: [TokenBucket; 2],
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

impl Oracle {
    /// The possible outcomes of a request with this token, new or after it `waited`. If
    /// `may_evict`, any request may be evicted.
    pub(crate) fn permitted(
        &self,
        token: &Token,
        waited: Option<Duration>,
        may_evict: bool,
        shared: &Shared,
        now: Now,
    ) -> Vec<Verdict> {
        let unavailable = denied("key-unavailable");
        let by = |signer: Signer| match signer == token.signer {
            true => Verdict::Admitted,
            false => denied("signature-invalid"),
        };
        let failed = self.has_failed(token.name, now) || may_evict;
        let state = self.state(token.name, shared, now);
        if let Some(waited) = waited {
            return match state {
                State::Refused(reason) => vec![denied(reason)],
                State::Known(_)
                    if now.wall >= token.expires + SKEW && !self.has_cached(token, now) =>
                {
                    vec![denied("token-expired")]
                }
                State::Known(signer) => vec![by(signer)],
                State::Shared(..) | State::Unknown if waited >= PATIENCE => vec![unavailable],
                State::Shared(..) | State::Unknown if failed => vec![Verdict::Waits, unavailable],
                State::Shared(..) | State::Unknown => vec![Verdict::Waits],
            };
        }
        if self.has_cached(token, now) {
            return vec![Verdict::Admitted];
        }
        if now.wall >= token.expires + SKEW {
            return vec![denied("token-expired")];
        }
        let is_under_way = self.under_way.contains(&token.name);
        let may_be_forgotten = self.may_be_forgotten(token.name);
        match state {
            State::Known(signer) if may_be_forgotten => {
                let shared = shared.get(token.name, now).map(|known| by(known.signer));
                [by(signer), Verdict::Waits, unavailable]
                    .into_iter()
                    .chain(shared)
                    .collect()
            }
            State::Known(signer) => vec![by(signer)],
            State::Refused(reason) if may_be_forgotten => {
                vec![denied(reason), Verdict::Waits, unavailable]
            }
            State::Refused(reason) => vec![denied(reason)],
            State::Shared(Known { signer, .. })
                if !is_under_way
                    && !self.wanted.contains(&token.name)
                    && !failed
                    && !may_be_forgotten =>
            {
                vec![by(signer)]
            }
            State::Shared(Known { signer, .. }) => {
                vec![by(signer), Verdict::Waits, unavailable]
            }
            State::Unknown if failed => vec![Verdict::Waits, unavailable],
            State::Unknown => vec![Verdict::Waits],
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

    /// Whether other entries may have evicted it.
    fn may_be_forgotten(&self, name: Name) -> bool {
        let entries = self.known.len() + self.refused.len() + self.wanted.len();
        entries >= FORGETS_NONE
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
        if is_old && !may_rest && !self.under_way.contains(&name) && !self.may_be_forgotten(name) {
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

    fn has_cached(&self, token: &Token, now: Now) -> bool {
        self.cached
            .get(&token.text)
            .is_some_and(|expires| now.wall < *expires)
    }

    /// Records the outcome of a request.
    pub(crate) fn became(&mut self, token: &Token, verdict: &Verdict, shared: &Shared, now: Now) {
        let name = token.name;
        match verdict {
            Verdict::Admitted | Verdict::Denied(_) => {
                let has_judged =
                    *verdict == Verdict::Admitted || *verdict == denied("signature-invalid");
                if let State::Shared(known) = self.state(name, shared, now)
                    && has_judged
                    && !self.has_cached(token, now)
                {
                    self.known.insert(name, known);
                }
                if has_judged && !self.has_cached(token, now) {
                    self.uses(name, now);
                }
                if *verdict == Verdict::Admitted {
                    self.cached.insert(token.text.clone(), token.expires + SKEW);
                }
            }
            // The previous entry has expired or was evicted.
            Verdict::Waits => {
                self.known.remove(&name);
                self.refused.remove(&name);
                self.wanted.insert(name);
            }
            Verdict::Skipped | Verdict::SignedOut => {}
        }
    }

    /// A fetch is made.
    pub(crate) fn fetches(&mut self, name: Name, now: Now) {
        self.due.remove(&name);
        assert!(
            self.under_way.insert(name),
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
        assert!(self.under_way.remove(&name), "an answer to a fetch");
        let is_known = self.known.contains_key(&name);
        if said == Said::NotFound {
            shared.withdraw(name);
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
                shared.put(name, known);
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
            Said::Nothing => self.fetch_failed(name, now),
        }
    }

    fn fetch_failed(&mut self, name: Name, now: Now) {
        self.failed.insert(name, now.steady);
    }

    /// The host does not send fetches.
    pub(crate) fn fetches_are_refused(&mut self, now: Now) {
        let refused = std::mem::take(&mut self.due);
        self.refreshed
            .extend(refused.into_keys().map(|name| (name, now.steady)));
        for name in self
            .wanted
            .difference(&self.under_way)
            .copied()
            .collect::<Vec<_>>()
        {
            self.fetch_failed(name, now);
        }
    }
}
