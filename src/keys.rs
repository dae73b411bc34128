//! The key ring: which keys are known, which are being fetched, who waits for them, and how often the key server may
//! be asked. A state machine without I/O: the time is an argument, fetches are orders to the caller, and the caller
//! says what came of them. Nothing here may look at a token.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::KeySourceId;
use crate::reason::Reason;
use crate::signature::PublicKey;
use crate::time::Timestamp;
use crate::token::KeyId;

/// How many fetch time-outs a request waits for its key, at most.
const WAIT_IN_TIMEOUTS: u32 = 3;
/// The pause before the first retry of a failed fetch; each further one is twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause between two attempts to refresh a key that is in use.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// How long `key-not-found` is remembered.
const NOT_FOUND_TTL: Duration = Duration::from_secs(60);
/// How long `key-invalid` is remembered.
const INVALID_TTL: Duration = Duration::from_secs(10);
/// How long `key-unavailable` is remembered once all retries failed.
const UNAVAILABLE_TTL: Duration = Duration::from_secs(1);
/// How long a key serves beyond its TTL while the key server cannot be asked.
const STALE_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// How many fetches of unknown keys of one source may be made at once, before [`BUDGET_INTERVAL`] limits them.
const BUDGET: u32 = 20;
/// How often one more fetch of an unknown key is allowed.
const BUDGET_INTERVAL: Duration = Duration::from_secs(1);
/// The most entries that are kept, known keys and refused ones together.
const MAX_KEYS: usize = 512;
/// The most requests that may wait at once.
const MAX_WAITERS: usize = 16 * 1024;

/// A key's full name: key ids are unique only within their key server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    /// Which key server.
    pub source: KeySourceId,
    /// Which of its keys.
    pub id: KeyId,
}

impl KeyName {
    /// Whether a request that has waited for `before` may wait for this key too: once for each source, in their order. First
    /// comes the load balancer's key, then the access token's; so no request waits without end.
    pub fn may_be_waited_for_after(self, before: Option<Self>) -> bool {
        before.is_none_or(|before| before.source < self.source)
    }
}

/// A request that waits, by the caller's number for it.
pub type Waiter = u32;

/// What the ring knows of a key.
pub enum Found {
    /// The key.
    Ready(PublicKey),
    /// The key server's answer was no key; remembered for a while.
    Refused(Reason),
    /// Nothing yet: [`KeyRing::wait`] for it.
    Unknown,
}

/// What came of a fetch.
pub enum Answer {
    /// One public key of the source's kind.
    Key(PublicKey),
    /// The key server has no such key.
    NotFound,
    /// The key server answered with something else than one public key of the source's kind.
    Invalid,
    /// No usable answer: time-out, reset, a server error.
    Failed,
}

/// Requests whose waiting is over.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Woken {
    /// These find their key now.
    pub ready: Vec<Waiter>,
    /// These do not get one.
    pub refused: Vec<(Waiter, Reason)>,
}

/// What [`KeyRing::tick`] asks of the caller.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Due {
    /// Keys to fetch now. Each is owed a [`KeyRing::answered`].
    pub fetch: Vec<KeyName>,
    /// Requests whose deadline has passed.
    pub woken: Woken,
}

enum Entry {
    /// Not known yet. `ask` is when to fetch it; while a fetch is under way, when that is given up for lost and made again.
    /// The waiters stand in the order in which they came, which is that of their deadlines.
    Fetching {
        ask: Timestamp,
        failures: u32,
        waiters: VecDeque<Waiting>,
    },
    Ready(ReadyKey),
    Refused {
        reason: Reason,
        until: Timestamp,
    },
}

struct Waiting {
    waiter: Waiter,
    deadline: Timestamp,
    left: bool,
}

struct ReadyKey {
    key: PublicKey,
    fetched: Timestamp,
    used: Timestamp,
    /// When to ask for it again; as [`Entry::Fetching`]'s.
    refresh: Option<Timestamp>,
    failures: u32,
    /// No refresh is tried before this.
    not_before: Timestamp,
    /// The key server said since that it has no such key: then it does not outlive its TTL.
    withdrawn: bool,
}

struct Source {
    /// How long a request may wait for a key.
    patience: Duration,
    /// Of each source its own: invented key ids of the one must not keep the other's from being fetched.
    budget: Budget,
}

/// The keys of one plugin in one worker. Its times are those of a steady clock ([`crate::time::Now::steady`]).
pub struct KeyRing {
    ttl: Duration,
    /// The age from which a key that is used is fetched anew: four fifths of its TTL.
    refresh_after: Duration,
    /// By [`KeySourceId`].
    sources: Vec<Source>,
    /// In the order of their names.
    entries: Vec<(KeyName, Entry)>,
    /// How many requests wait, for whichever key.
    waiting: usize,
    /// [`KeyRing::has_changed`].
    changed: bool,
}

impl KeyRing {
    /// An empty ring whose keys are used for `ttl`. `timeouts` has how long one fetch may take, by [`KeySourceId`].
    pub fn new(ttl: Duration, timeouts: impl IntoIterator<Item = Duration>) -> Self {
        Self {
            ttl,
            refresh_after: ttl.saturating_sub(ttl.checked_div(5).unwrap_or_default()),
            sources: timeouts.into_iter().map(Source::new).collect(),
            entries: Vec::new(),
            waiting: 0,
            changed: false,
        }
    }

    /// What is known of `name`. A key that is used late in its life is refreshed by the next [`KeyRing::tick`].
    pub fn find(&mut self, name: KeyName, now: Timestamp) -> Found {
        match entry(&mut self.entries, name) {
            Some(Entry::Ready(ready)) if now < ready.dies(self.ttl) => {
                ready.used = now;
                let refresh_from = ready.fetched.plus(self.refresh_after).max(ready.not_before);
                if ready.refresh.is_none() && now >= refresh_from {
                    ready.refresh = Some(now);
                    self.changed = true;
                }
                Found::Ready(ready.key.clone())
            }
            Some(Entry::Refused { reason, until }) if now < *until => Found::Refused(*reason),
            _ => Found::Unknown,
        }
    }

    /// Has `waiter` wait for the key, which a tick will fetch unless it is being fetched already.
    ///
    /// # Errors
    /// Refuses with [`Reason::KeyUnavailable`] where the fetch budget is used up or too many requests wait.
    pub fn wait(&mut self, name: KeyName, waiter: Waiter, now: Timestamp) -> Result<(), Reason> {
        let Some(source) = self.sources.get_mut(name.source.0) else { return Err(Reason::KeyUnavailable) };
        let deadline = now.plus(source.patience);
        if self.waiting >= MAX_WAITERS {
            return Err(Reason::KeyUnavailable);
        }
        match entry(&mut self.entries, name) {
            // Those who left count too: a client must not fill the memory by hanging up.
            Some(Entry::Fetching { waiters, .. }) if waiters.len() >= MAX_WAITERS => {
                return Err(Reason::KeyUnavailable);
            }
            Some(Entry::Fetching { waiters, .. }) => {
                waiters.push_back(Waiting { waiter, deadline, left: false });
            }
            before => {
                if !source.budget.take(now) {
                    return Err(Reason::KeyUnavailable);
                }
                // A key may die while it is fetched anew: that fetch is waited for.
                let under_way = match before {
                    Some(Entry::Ready(ready)) => ready.refresh,
                    _ => None,
                };
                let waiters = VecDeque::from([Waiting { waiter, deadline, left: false }]);
                let fetching = Entry::Fetching { ask: under_way.unwrap_or(now), failures: 0, waiters };
                self.insert(name, fetching, now);
            }
        }
        self.waiting = self.waiting.saturating_add(1);
        self.changed = true;
        Ok(())
    }

    /// Forgets `waiter`, whose client has gone. Its fetch goes on: the next request will want the key.
    pub fn leave(&mut self, waiter: Waiter) {
        if self.waiting == 0 {
            return;
        }
        for (_, entry) in &mut self.entries {
            if let Entry::Fetching { waiters, .. } = entry
                && let Some(waiting) = waiters.iter_mut().find(|waiting| waiting.waiter == waiter && !waiting.left)
            {
                waiting.left = true;
                self.waiting = self.waiting.saturating_sub(1);
                self.changed = true;
                return;
            }
        }
    }

    /// Whether the key is being fetched.
    pub fn is_fetching(&self, name: KeyName) -> bool {
        let entry = place(&self.entries, name).ok().and_then(|place| self.entries.get(place));
        matches!(entry, Some((_, Entry::Fetching { .. })))
    }

    /// Takes in a key that another worker fetched `age` ago, unless this ring is fetching it itself.
    pub fn adopt(&mut self, name: KeyName, key: PublicKey, age: Duration, now: Timestamp) {
        if !self.is_fetching(name) {
            self.put(name, key, now.minus(age), now);
        }
    }

    /// Puts in a key. Those who wait for it find it now.
    fn put(&mut self, name: KeyName, key: PublicKey, fetched: Timestamp, now: Timestamp) -> Woken {
        let ready =
            ReadyKey { key, fetched, used: now, refresh: None, failures: 0, not_before: fetched, withdrawn: false };
        let before = self.insert(name, Entry::Ready(ready), now);
        self.release(before, Ok(()))
    }

    /// Takes the answer to a fetch of `name` that a tick asked for.
    pub fn answered(&mut self, name: KeyName, answer: Answer, now: Timestamp) -> Woken {
        self.changed = true;
        let reason = match answer {
            Answer::Key(key) => return self.put(name, key, now, now),
            Answer::NotFound => Reason::KeyNotFound,
            Answer::Invalid => Reason::KeyInvalid,
            Answer::Failed => Reason::KeyUnavailable,
        };
        let refused_for = match entry(&mut self.entries, name) {
            None => return Woken::default(),
            Some(Entry::Ready(ready)) => {
                ready.withdrawn |= reason == Reason::KeyNotFound;
                ready.failures = ready.failures.saturating_add(1);
                ready.not_before = now.plus(backoff(ready.failures).saturating_mul(10).min(LONGEST_BACKOFF));
                ready.refresh = None;
                return Woken::default();
            }
            Some(Entry::Fetching { ask, failures, waiters }) => {
                *failures = failures.saturating_add(1);
                let retry = now.plus(backoff(*failures));
                // A retry is worth its fetch while somebody still waits for its answer.
                let last = waiters.iter().rev().find(|waiting| !waiting.left);
                let awaited = last.is_some_and(|waiting| retry < waiting.deadline);
                if reason == Reason::KeyUnavailable
                    && awaited
                    && self.sources.get_mut(name.source.0).is_some_and(|source| source.budget.take(now))
                {
                    *ask = retry;
                    return Woken::default();
                }
                match reason {
                    Reason::KeyNotFound => NOT_FOUND_TTL,
                    Reason::KeyInvalid => INVALID_TTL,
                    _ => UNAVAILABLE_TTL,
                }
            }
            Some(Entry::Refused { .. }) => return Woken::default(),
        };
        let before = self.insert(name, Entry::Refused { reason, until: now.plus(refused_for) }, now);
        self.release(before, Err(reason))
    }

    /// What is due at `now`: fetches to make, requests to give up. To be called no later than [`KeyRing::next_tick`].
    pub fn tick(&mut self, now: Timestamp) -> Due {
        self.changed = true;
        let mut due = Due::default();
        for (name, entry) in &mut self.entries {
            if let Entry::Fetching { ask, failures, waiters } = entry {
                while waiters.front().is_some_and(|first| first.deadline <= now) {
                    if let Some(Waiting { waiter, left: false, .. }) = waiters.pop_front() {
                        self.waiting = self.waiting.saturating_sub(1);
                        due.woken.refused.push((waiter, Reason::KeyUnavailable));
                    }
                }
                // Who waited for this retry may have left since it was planned.
                if *ask <= now && *failures > 0 && waiters.iter().all(|waiting| waiting.left) {
                    *entry = Entry::Refused { reason: Reason::KeyUnavailable, until: now.plus(UNAVAILABLE_TTL) };
                }
            }
            let ask = match entry {
                Entry::Fetching { ask, .. } => Some(ask),
                Entry::Ready(ready) => ready.refresh.as_mut(),
                Entry::Refused { .. } => None,
            };
            if let Some(ask) = ask
                && *ask <= now
            {
                *ask = now.plus(self.sources.get(name.source.0).map_or(Duration::ZERO, |source| source.patience));
                due.fetch.push(*name);
            }
        }
        due
    }

    /// When the next tick is due; `None`: not before another call asks for one.
    pub fn next_tick(&self) -> Option<Timestamp> {
        let of_entry = |(_, entry): &(KeyName, Entry)| match entry {
            Entry::Fetching { ask, waiters, .. } => {
                waiters.front().map(|first| first.deadline).into_iter().chain([*ask]).min()
            }
            Entry::Ready(ready) => ready.refresh,
            Entry::Refused { .. } => None,
        };
        self.entries.iter().filter_map(of_entry).min()
    }

    /// Whether [`KeyRing::next_tick`] or [`KeyRing::waiting`] may have changed since [`KeyRing::settled`].
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// Takes note that the caller has acted on the changes.
    pub fn settled(&mut self) {
        self.changed = false;
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn release(&mut self, before: Option<Entry>, outcome: Result<(), Reason>) -> Woken {
        let mut woken = Woken::default();
        if let Some(Entry::Fetching { waiters, .. }) = before {
            for Waiting { waiter, .. } in waiters.into_iter().filter(|waiting| !waiting.left) {
                self.waiting = self.waiting.saturating_sub(1);
                match outcome {
                    Ok(()) => woken.ready.push(waiter),
                    Err(reason) => woken.refused.push((waiter, reason)),
                }
            }
        }
        woken
    }

    /// Puts `entry` in place of what stood under `name`, which it returns.
    fn insert(&mut self, name: KeyName, entry: Entry, now: Timestamp) -> Option<Entry> {
        if let Some(place) = self::entry(&mut self.entries, name) {
            return Some(std::mem::replace(place, entry));
        }
        if self.entries.len() >= MAX_KEYS {
            self.drop_least(now);
        }
        let (Ok(place) | Err(place)) = place(&self.entries, name);
        self.entries.insert(place, (name, entry));
        None
    }

    /// Drops what is worth least: refusals first, then the key unused for longest. What is being fetched stays; the
    /// budget bounds it.
    fn drop_least(&mut self, now: Timestamp) {
        let worth = |entry: &Entry| match entry {
            Entry::Refused { until, .. } => Some((0, *until)),
            Entry::Ready(ready) if now >= ready.dies(self.ttl) => Some((0, ready.used)),
            Entry::Ready(ready) => Some((1, ready.used)),
            Entry::Fetching { .. } => None,
        };
        let least = self.entries.iter().filter_map(|(name, entry)| Some((worth(entry)?, *name))).min();
        if let Some((_, least)) = least {
            self.entries.retain(|(name, _)| *name != least);
        }
    }
}

fn entry(entries: &mut [(KeyName, Entry)], name: KeyName) -> Option<&mut Entry> {
    let place = place(entries, name).ok()?;
    entries.get_mut(place).map(|(_, entry)| entry)
}

/// Where `name` is, or would have to be put.
fn place(entries: &[(KeyName, Entry)], name: KeyName) -> Result<usize, usize> {
    entries.binary_search_by(|(known, _)| known.cmp(&name))
}

impl ReadyKey {
    fn dies(&self, ttl: Duration) -> Timestamp {
        let grace = if self.withdrawn { Duration::ZERO } else { STALE_GRACE };
        self.fetched.plus(ttl).plus(grace)
    }
}

impl Source {
    fn new(timeout: Duration) -> Self {
        Self {
            patience: timeout.saturating_mul(WAIT_IN_TIMEOUTS),
            budget: Budget { left: BUDGET, refilled: Timestamp::from_millis(0) },
        }
    }
}

fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_BACKOFF.saturating_mul(2u32.saturating_pow(doublings))
}

/// A token bucket for fetches of unknown keys: invented key ids must not make the gateway hammer the key server.
struct Budget {
    left: u32,
    refilled: Timestamp,
}

impl Budget {
    fn take(&mut self, now: Timestamp) -> bool {
        while self.left < BUDGET && self.refilled.plus(BUDGET_INTERVAL) <= now {
            self.left = self.left.saturating_add(1);
            self.refilled = self.refilled.plus(BUDGET_INTERVAL);
        }
        // What is not taken while it is full is lost.
        if self.left >= BUDGET {
            self.refilled = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{P256Key, known_answer};

    const TTL: Duration = Duration::from_secs(1000);
    const TIMEOUT: Duration = Duration::from_secs(1);

    fn ring() -> KeyRing {
        KeyRing::new(TTL, [TIMEOUT])
    }

    fn name(number: usize) -> KeyName {
        let id = format!("{number:08}-0000-4000-8000-000000000000");
        KeyName { source: KeySourceId(0), id: KeyId::uuid(id.as_bytes()).unwrap() }
    }

    fn key() -> PublicKey {
        PublicKey::P256(P256Key::from_spki(&known_answer::SPKI).unwrap())
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000 + millis)
    }

    #[test]
    fn a_request_waits_once_for_each_source() {
        let of = |source| KeyName { source: KeySourceId(source), ..name(1) };
        for (before, now, may) in [
            (None, 0, true),
            (None, 1, true),
            (Some(0), 1, true),
            (Some(0), 0, false),
            (Some(1), 0, false),
            (Some(1), 1, false),
        ] {
            assert_eq!(of(now).may_be_waited_for_after(before.map(of)), may, "{before:?}, {now}");
        }
    }

    #[test]
    fn invented_key_ids_of_one_source_do_not_keep_the_keys_of_another_from_being_fetched() {
        let mut ring = KeyRing::new(TTL, [TIMEOUT, TIMEOUT]);
        let of_second = |number| KeyName { source: KeySourceId(1), ..name(number) };
        let refused =
            (0..100).filter(|number| ring.wait(of_second(*number), *number as Waiter, at(0)).is_err()).count();
        assert_eq!(refused, 80);
        assert_eq!(ring.wait(name(1), 1000, at(0)), Ok(()));
    }

    fn is_ready(ring: &mut KeyRing, number: usize, millis: u64) -> bool {
        matches!(ring.find(name(number), at(millis)), Found::Ready(_))
    }

    fn refusal(ring: &mut KeyRing, number: usize, millis: u64) -> Option<Reason> {
        match ring.find(name(number), at(millis)) {
            Found::Refused(reason) => Some(reason),
            _ => None,
        }
    }

    /// Has one request wait for the key and fetches it.
    fn fetch(ring: &mut KeyRing, number: usize, millis: u64) {
        ring.wait(name(number), 1, at(millis)).unwrap();
        assert_eq!(ring.tick(at(millis)).fetch, [name(number)]);
        assert_eq!(ring.answered(name(number), Answer::Key(key()), at(millis)).ready, [1]);
    }

    #[test]
    fn however_many_wait_a_key_is_fetched_once_and_wakes_them_all() {
        let mut ring = ring();
        for waiter in 0..100 {
            ring.wait(name(1), waiter, at(0)).unwrap();
        }
        assert_eq!(ring.next_tick(), Some(at(0)));
        assert_eq!(ring.tick(at(0)).fetch, [name(1)]);
        assert_eq!(ring.tick(at(1)).fetch, []);
        let woken = ring.answered(name(1), Answer::Key(key()), at(5));
        assert_eq!((woken.ready.len(), woken.refused.len(), ring.waiting()), (100, 0, 0));
        assert!(is_ready(&mut ring, 1, 6));
        assert_eq!(ring.next_tick(), None);
    }

    #[test]
    fn no_more_than_so_many_requests_wait_at_once() {
        let mut ring = ring();
        for waiter in 0..MAX_WAITERS {
            ring.wait(name(waiter % 2), waiter as Waiter, at(0)).unwrap();
        }
        assert_eq!(ring.wait(name(1), MAX_WAITERS as Waiter, at(0)), Err(Reason::KeyUnavailable));
        ring.leave(0);
        assert_eq!(ring.wait(name(1), MAX_WAITERS as Waiter, at(0)), Ok(()));
    }

    #[test]
    fn who_hangs_up_makes_no_room_for_more_who_wait_for_the_same_key() {
        let mut ring = ring();
        for waiter in 0..MAX_WAITERS {
            ring.wait(name(1), waiter as Waiter, at(0)).unwrap();
            ring.leave(waiter as Waiter);
        }
        assert_eq!(ring.waiting(), 0);
        assert_eq!(ring.wait(name(1), MAX_WAITERS as Waiter, at(0)), Err(Reason::KeyUnavailable));
        assert_eq!(ring.wait(name(2), MAX_WAITERS as Waiter, at(0)), Ok(()));
    }

    #[test]
    fn one_who_left_is_not_woken() {
        let mut ring = ring();
        ring.wait(name(1), 7, at(0)).unwrap();
        ring.wait(name(1), 8, at(0)).unwrap();
        ring.tick(at(0));
        ring.leave(7);
        ring.leave(7);
        assert_eq!(ring.answered(name(1), Answer::Key(key()), at(1)).ready, [8]);
    }

    #[test]
    fn a_failed_fetch_is_retried_with_backoff_until_the_deadline() {
        let mut ring = ring();
        ring.wait(name(1), 7, at(0)).unwrap();
        let mut fetches = Vec::new();
        let mut now = 0;
        while ring.waiting() > 0 {
            let due = ring.tick(at(now));
            for name in due.fetch {
                fetches.push(now);
                ring.answered(name, Answer::Failed, at(now));
            }
            now += 50;
        }
        assert_eq!(fetches, [0, 100, 300, 700, 1500]);
        assert!(now <= 3050, "answered after {now} ms");
        assert_eq!(refusal(&mut ring, 1, 1600), Some(Reason::KeyUnavailable));
    }

    #[test]
    fn a_retry_for_which_nobody_waits_any_more_is_not_made() {
        let mut ring = ring();
        ring.wait(name(1), 7, at(0)).unwrap();
        ring.tick(at(0));
        ring.answered(name(1), Answer::Failed, at(10));
        ring.leave(7);
        assert_eq!(ring.tick(at(110)).fetch, []);
        assert_eq!(refusal(&mut ring, 1, 110), Some(Reason::KeyUnavailable));
        assert_eq!(refusal(&mut ring, 1, 1110), None);
    }

    #[test]
    fn a_hanging_fetch_keeps_nobody_beyond_the_deadline() {
        let mut ring = ring();
        ring.wait(name(1), 7, at(0)).unwrap();
        ring.wait(name(1), 8, at(500)).unwrap();
        ring.tick(at(0));
        assert_eq!(ring.next_tick(), Some(at(3000)));
        assert_eq!(ring.tick(at(2999)).woken, Woken::default());
        assert_eq!(ring.tick(at(3000)).woken.refused, [(7, Reason::KeyUnavailable)]);
        assert_eq!(ring.tick(at(3500)).woken.refused, [(8, Reason::KeyUnavailable)]);
        assert_eq!(ring.waiting(), 0);
    }

    #[test]
    fn an_answer_that_never_came_does_not_block_its_key_for_ever() {
        let mut ring = ring();
        ring.wait(name(1), 7, at(0)).unwrap();
        assert_eq!(ring.tick(at(0)).fetch, [name(1)]);
        assert_eq!(ring.tick(at(3000)).fetch, [name(1)]);
    }

    #[test]
    fn a_key_that_does_not_exist_is_remembered_for_a_minute() {
        let mut ring = ring();
        ring.wait(name(1), 7, at(0)).unwrap();
        ring.tick(at(0));
        assert_eq!(ring.answered(name(1), Answer::NotFound, at(0)).refused, [(7, Reason::KeyNotFound)]);
        assert_eq!(refusal(&mut ring, 1, 59_999), Some(Reason::KeyNotFound));
        assert_eq!(refusal(&mut ring, 1, 60_000), None);
    }

    #[test]
    fn an_answer_that_is_no_key_is_remembered_for_a_while_and_not_retried() {
        let mut ring = ring();
        ring.wait(name(1), 7, at(0)).unwrap();
        ring.tick(at(0));
        assert_eq!(ring.answered(name(1), Answer::Invalid, at(0)).refused, [(7, Reason::KeyInvalid)]);
        assert_eq!(refusal(&mut ring, 1, 9_999), Some(Reason::KeyInvalid));
        assert_eq!(refusal(&mut ring, 1, 10_000), None);
    }

    #[test]
    fn a_key_is_refreshed_before_its_ttl_runs_out_and_serves_meanwhile() {
        let mut ring = ring();
        fetch(&mut ring, 1, 0);
        assert!(is_ready(&mut ring, 1, 799_999));
        assert_eq!(ring.tick(at(799_999)).fetch, []);
        assert!(is_ready(&mut ring, 1, 800_000));
        assert_eq!(ring.tick(at(800_000)).fetch, [name(1)]);
        assert!(is_ready(&mut ring, 1, 800_001));
        assert_eq!(ring.tick(at(800_001)).fetch, []);
        ring.answered(name(1), Answer::Key(key()), at(800_002));
        assert!(is_ready(&mut ring, 1, 1_600_001));
        assert_eq!(ring.tick(at(1_600_001)).fetch, []);
    }

    #[test]
    fn the_old_key_serves_for_a_day_while_the_key_server_is_down_and_is_asked_for_ever_less_often() {
        let mut ring = ring();
        fetch(&mut ring, 1, 0);
        let day = 24 * 60 * 60 * 1000;
        let mut fetches = 0;
        for second in 800..1000 + day / 1000 {
            assert!(is_ready(&mut ring, 1, second * 1000), "after {second} s");
            for name in ring.tick(at(second * 1000)).fetch {
                fetches += 1;
                ring.answered(name, Answer::Failed, at(second * 1000));
            }
        }
        assert!((day / 60_000 - 10..day / 60_000 + 20).contains(&fetches), "{fetches} fetches");
        assert!(!is_ready(&mut ring, 1, 1_000_000 + day));
    }

    #[test]
    fn a_withdrawn_key_does_not_outlive_its_ttl() {
        let mut ring = ring();
        fetch(&mut ring, 1, 0);
        assert!(is_ready(&mut ring, 1, 900_000));
        ring.tick(at(900_000));
        ring.answered(name(1), Answer::NotFound, at(900_000));
        assert!(is_ready(&mut ring, 1, 999_999));
        assert!(!is_ready(&mut ring, 1, 1_000_000));
    }

    #[test]
    fn a_key_that_dies_while_it_is_fetched_anew_is_waited_for_and_not_fetched_twice() {
        let mut ring = ring();
        fetch(&mut ring, 1, 0);
        assert!(is_ready(&mut ring, 1, 900_000));
        ring.tick(at(900_000));
        ring.answered(name(1), Answer::NotFound, at(900_000));
        assert!(is_ready(&mut ring, 1, 999_900));
        assert_eq!(ring.tick(at(999_900)).fetch, [name(1)]);
        assert!(!is_ready(&mut ring, 1, 1_000_000));
        ring.wait(name(1), 7, at(1_000_000)).unwrap();
        assert_eq!(ring.tick(at(1_000_000)).fetch, []);
        assert_eq!(ring.answered(name(1), Answer::Key(key()), at(1_000_100)).ready, [7]);
    }

    #[test]
    fn invented_key_ids_use_up_a_budget_that_refills_by_the_second() {
        let mut ring = ring();
        let granted = |ring: &mut KeyRing, from: usize, millis| {
            (from..from + 200).filter(|number| ring.wait(name(*number), *number as Waiter, at(millis)).is_ok()).count()
        };
        assert_eq!(granted(&mut ring, 0, 0), 20);
        assert_eq!(granted(&mut ring, 1000, 999), 0);
        assert_eq!(granted(&mut ring, 2000, 5000), 5);
        assert_eq!(granted(&mut ring, 3000, 1_000_000), 20);
    }

    #[test]
    fn a_budget_asked_for_all_the_time_grants_one_fetch_a_second() {
        let mut budget = Budget { left: 0, refilled: at(0) };
        let granted = (1..=100).filter(|step| budget.take(at(step * 999))).count();
        assert_eq!(granted, 99);
    }

    #[test]
    fn those_who_leave_in_any_order_are_counted_out() {
        let mut ring = ring();
        for waiter in [9, 8, 7, 6, 5] {
            ring.wait(name(1), waiter, at(0)).unwrap();
        }
        for waiter in [7, 9, 5, 8, 6] {
            ring.leave(waiter);
        }
        assert_eq!(ring.waiting(), 0);
    }

    #[test]
    fn an_adopted_key_is_as_old_as_it_was_elsewhere() {
        let mut ring = ring();
        ring.adopt(name(1), key(), Duration::from_secs(900), at(0));
        assert!(is_ready(&mut ring, 1, 0));
        assert_eq!(ring.tick(at(0)).fetch, [name(1)]);
    }

    #[test]
    fn a_known_key_is_found_though_the_budget_is_used_up() {
        let mut ring = ring();
        fetch(&mut ring, 1, 0);
        while ring.wait(name(2 + ring.waiting()), 10 + ring.waiting() as Waiter, at(0)).is_ok() {}
        assert!(is_ready(&mut ring, 1, 1));
    }

    #[test]
    fn a_full_ring_drops_refusals_before_keys_and_the_key_unused_for_longest() {
        let mut ring = ring();
        let mut millis = 0;
        for number in 0..MAX_KEYS {
            millis += 1000;
            fetch(&mut ring, number, millis);
        }
        ring.find(name(0), at(millis));
        fetch(&mut ring, MAX_KEYS, millis + 1000);
        assert!(is_ready(&mut ring, 0, millis + 1000));
        assert!(!is_ready(&mut ring, 1, millis + 1000));
        assert_eq!(ring.entries.len(), MAX_KEYS);
        ring.wait(name(9999), 5, at(millis + 2000)).unwrap();
        ring.tick(at(millis + 2000));
        ring.answered(name(9999), Answer::NotFound, at(millis + 2000));
        fetch(&mut ring, 10_000, millis + 3000);
        assert_eq!(refusal(&mut ring, 9999, millis + 3000), None);
        assert!(is_ready(&mut ring, 3, millis + 3000));
    }
}
