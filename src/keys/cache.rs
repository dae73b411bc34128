//! The key cache: which keys are known, which are being fetched, who waits for them, and how often
//! the key server may be asked. A state machine without I/O: the time, the clients' addresses and
//! the seed of its random numbers are arguments, fetches are orders to the caller, and the caller
//! says what came of them. Nothing here may look at a token.

use std::time::Duration;

use super::client_address::ClientAddress;
use super::queue::{Addresses, Queue, Queued};
use super::random::Random;
use super::rate_limit::TokenBucket;
use super::source::{FetchResult, KeyName, KeySourceId};
use super::waiters::{ListId, Waiter, Waiters};
use crate::crypto::PublicKey;
use crate::reason::Reason;
use crate::time::Timestamp;

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
/// How many fetches of unknown keys of one source may be made at once, before [`FETCH_INTERVAL`]
/// limits them.
const FETCH_BURST: u32 = 20;
/// How often one more fetch of an unknown key is allowed.
const FETCH_INTERVAL: Duration = Duration::from_millis(100);
/// The most entries that are kept, known keys and refused ones together.
const MAX_KEYS: usize = 512;
/// The most requests that may wait at once.
const MAX_WAITERS: usize = 16 * 1024;
/// The most requests that may wait for a queued key which has not been asked for yet.
const MAX_QUEUED_WAITERS: usize = 64;

/// What the ring knows of a key.
pub enum Lookup {
    /// The key.
    Ready(PublicKey),
    /// The key server's answer was no key; remembered for a while.
    Refused(Reason),
    /// Nothing yet: [`KeyCache::wait`] for it.
    Unknown,
}

/// Requests whose waiting is over.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Woken {
    /// These find their key now.
    pub ready: Vec<Waiter>,
    /// These do not get one.
    pub refused: Vec<(Waiter, Reason)>,
    /// Nor do these, with [`Reason::KeyUnavailable`]: their key was not even asked for.
    pub turned_away: Vec<Waiter>,
}

/// What [`KeyCache::tick`] asks of the caller.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Actions {
    /// Keys to fetch now. Each is owed a [`KeyCache::answered`].
    pub fetch: Vec<KeyName>,
    /// Requests whose deadline has passed, and those that gave way to others.
    pub woken: Woken,
}

enum Entry {
    Fetching(Fetching),
    Ready(ReadyKey),
    Refused { reason: Reason, until: Timestamp },
}

/// A key that is not known yet, and has its token.
struct Fetching {
    /// When to fetch it; while the fetch is under way, when that is given up for lost and made
    /// again.
    ask: Timestamp,
    failures: u32,
    list: ListId,
    /// Those that were read while it was queued.
    addresses: Addresses,
}

struct ReadyKey {
    key: PublicKey,
    fetched: Timestamp,
    used: Timestamp,
    /// When to ask for it again; as [`Fetching::ask`].
    refresh: Option<Timestamp>,
    failures: u32,
    /// No refresh is tried before this.
    not_before: Timestamp,
    /// The key server said since that it has no such key: then it does not outlive its TTL.
    withdrawn: bool,
}

/// What each source has of its own: invented key ids of the one must not keep the other's from
/// being fetched.
struct Source {
    /// How long a request may wait for a key.
    patience: Duration,
    bucket: TokenBucket,
    /// The ids that wait for a token.
    queue: Queue,
    /// No request in the queue has an earlier deadline; `None` where there is no request.
    first_deadline: Option<Timestamp>,
}

/// The keys of one plugin in one worker. Its times are those of a steady clock
/// ([`crate::time::Now::steady`]).
pub struct KeyCache {
    ttl: Duration,
    /// The age from which a key that is used is fetched anew: four fifths of its TTL.
    refresh_after: Duration,
    /// By [`KeySourceId`].
    sources: Vec<Source>,
    /// In the order of their names.
    entries: Vec<(KeyName, Entry)>,
    waiters: Waiters,
    /// Requests that gave way to others, until a tick tells the caller.
    evicted: Vec<Waiter>,
    random: Random,
    /// [`KeyCache::has_changed`].
    changed: bool,
}

impl KeyCache {
    /// An empty ring whose keys are used for `ttl`. `timeouts` has how long one fetch may take, by
    /// [`KeySourceId`]. From `seed` come the random numbers by which queued keys are drawn.
    pub fn new(ttl: Duration, timeouts: impl IntoIterator<Item = Duration>, seed: u64) -> Self {
        Self {
            ttl,
            refresh_after: ttl.saturating_sub(ttl.checked_div(5).unwrap_or_default()),
            sources: timeouts.into_iter().map(Source::new).collect(),
            entries: Vec::new(),
            waiters: Waiters::default(),
            evicted: Vec::new(),
            random: Random::new(seed),
            changed: false,
        }
    }

    /// What is known of `name`. A key that is used late in its life is refreshed by the next
    /// [`KeyCache::tick`].
    pub fn find(&mut self, name: KeyName, now: Timestamp) -> Lookup {
        match entry(&mut self.entries, name) {
            Some(Entry::Ready(ready)) if now < ready.dies(self.ttl) => {
                ready.used = now;
                let refresh_from = ready.fetched.plus(self.refresh_after).max(ready.not_before);
                if ready.refresh.is_none() && now >= refresh_from {
                    ready.refresh = Some(now);
                    self.changed = true;
                }
                Lookup::Ready(ready.key.clone())
            }
            Some(Entry::Refused { reason, until }) if now < *until => Lookup::Refused(*reason),
            _ => Lookup::Unknown,
        }
    }

    /// Has `waiter` wait for the key, which a tick will fetch unless it is being fetched already.
    /// Where no token is left for that, the key is queued, and `client` says from which address the
    /// request comes.
    ///
    /// # Errors
    /// Refuses with [`Reason::KeyUnavailable`] where too many requests wait, or too many for this
    /// key, or where the queue is full and this key is the one that gives way.
    pub fn wait(
        &mut self,
        name: KeyName,
        waiter: Waiter,
        client: impl Fn() -> ClientAddress,
        now: Timestamp,
    ) -> Result<(), Reason> {
        let Some(source) = self.sources.get_mut(name.source.0) else {
            return Err(Reason::KeyUnavailable);
        };
        let deadline = now.plus(source.patience);
        if let Some(queued) = source.queue.get_mut(name.id) {
            // Counted though it may not wait: the requests of one client must not take the others'
            // weight from a key.
            queued.addresses.add(client());
            if !queued.is_retry() && self.waiters.waiting(queued.list) >= MAX_QUEUED_WAITERS {
                return Err(Reason::KeyUnavailable);
            }
        }
        if !self.make_room() {
            return Err(Reason::KeyUnavailable);
        }
        self.changed = true;
        let list = self
            .list_of_fetch(name, now)
            .or_else(|| self.list_in_queue(name, client, now));
        self.waiters
            .join(list.ok_or(Reason::KeyUnavailable)?, waiter, deadline);
        Ok(())
    }

    /// Has queued keys give way until one more request may wait; `false` if none is left to do so.
    /// A retry does not give way here: any number of requests may wait for it, as for the fetch
    /// before.
    fn make_room(&mut self) -> bool {
        while self.waiters.len() >= MAX_WAITERS {
            let waiters = &self.waiters;
            let requests = |source: &Source| {
                let unasked = source.queue.iter().filter(|queued| !queued.is_retry());
                unasked
                    .map(|queued| waiters.waiting(queued.list))
                    .fold(0, usize::saturating_add)
            };
            let longest = self
                .sources
                .iter_mut()
                .max_by_key(|source| requests(source));
            let gives_way = longest.and_then(|source| {
                source
                    .queue
                    .give_way(&mut self.random, |queued| !queued.is_retry())
            });
            let Some(gives_way) = gives_way else {
                return false;
            };
            self.evict(gives_way.list);
        }
        true
    }

    /// Ends the waiting of the requests in a list, whose key gives way to another.
    fn evict(&mut self, list: ListId) {
        self.evicted.extend(self.waiters.close(list));
        self.changed = true;
    }

    /// The requests that wait for a fetch of the key which is under way, or which may be made at
    /// once.
    fn list_of_fetch(&mut self, name: KeyName, now: Timestamp) -> Option<ListId> {
        // A key may die while it is fetched anew: that fetch is waited for.
        let under_way = match entry(&mut self.entries, name) {
            Some(Entry::Fetching(fetching)) => return Some(fetching.list),
            Some(Entry::Ready(ready)) => ready.refresh,
            _ => None,
        };
        let queue_and_bucket = |source: &mut Source| {
            let is_first = source.queue.get_mut(name.id).is_none() && !source.queue.has_due(now);
            is_first && source.bucket.take(now)
        };
        if under_way.is_none()
            && !self
                .sources
                .get_mut(name.source.0)
                .is_some_and(queue_and_bucket)
        {
            return None;
        }
        let (ask, list) = (under_way.unwrap_or(now), self.waiters.open(name));
        let fetching = Fetching {
            ask,
            failures: 0,
            list,
            addresses: Addresses::default(),
        };
        self.insert(name, Entry::Fetching(fetching), now);
        Some(list)
    }

    /// The requests that wait for the queued key, which is put into the queue if it is not there.
    /// `None` if it gives way.
    fn list_in_queue(
        &mut self,
        name: KeyName,
        client: impl Fn() -> ClientAddress,
        now: Timestamp,
    ) -> Option<ListId> {
        let source = self.sources.get_mut(name.source.0)?;
        source
            .first_deadline
            .get_or_insert(now.plus(source.patience));
        if let Some(queued) = source.queue.get_mut(name.id) {
            queued.is_awaited = true;
            return Some(queued.list);
        }
        let list = self.waiters.open(name);
        let mut addresses = source.queue.former_addresses(name.id);
        addresses.add(client());
        let queued = Queued::new(name.id, list, addresses, now, 0);
        let Some(gives_way) = source.queue.add(queued, &mut self.random) else {
            return Some(list);
        };
        self.evict(gives_way.list);
        (gives_way.list != list).then_some(list)
    }

    /// Forgets `waiter`, whose client has gone. Its fetch goes on, if it has begun: the next
    /// request will want the key.
    pub fn leave(&mut self, waiter: Waiter) {
        let Some((name, was_last)) = self.waiters.leave(waiter) else {
            let before = self.evicted.len();
            self.evicted.retain(|evicted| *evicted != waiter);
            self.changed |= self.evicted.len() != before;
            return;
        };
        self.changed = true;
        if was_last
            && let Some(source) = self.sources.get_mut(name.source.0)
            && let Some(queued) = source.queue.get_mut(name.id)
        {
            queued.is_awaited = false;
            // A retry stays until it is due: who comes by then waits for it, and does not begin
            // anew.
            if !queued.is_retry()
                && let Some(queued) = source.queue.remove(name.id)
            {
                source.queue.leaves(queued.id, queued.addresses);
                self.waiters.close(queued.list);
            }
        }
    }

    /// Whether the key is being fetched.
    pub fn is_fetching(&self, name: KeyName) -> bool {
        let entry = place(&self.entries, name)
            .ok()
            .and_then(|place| self.entries.get(place));
        matches!(entry, Some((_, Entry::Fetching(_))))
    }

    /// Takes in a key that another worker fetched `age` ago, unless this ring is fetching it
    /// itself. Requests that wait for it find it now.
    #[must_use]
    pub fn adopt(&mut self, name: KeyName, key: PublicKey, age: Duration, now: Timestamp) -> Woken {
        if self.is_fetching(name) {
            Woken::default()
        } else {
            self.put(name, key, now.minus(age), now)
        }
    }

    /// Puts in a key. Those who wait for it find it now.
    fn put(&mut self, name: KeyName, key: PublicKey, fetched: Timestamp, now: Timestamp) -> Woken {
        let ready = ReadyKey {
            key,
            fetched,
            used: now,
            refresh: None,
            failures: 0,
            not_before: fetched,
            withdrawn: false,
        };
        let before = self.insert(name, Entry::Ready(ready), now);
        let mut woken = self.release(before, Ok(()));
        let queued = self
            .sources
            .get_mut(name.source.0)
            .and_then(|source| source.queue.remove(name.id));
        if let Some(queued) = queued {
            woken.ready.extend(self.waiters.close(queued.list));
            self.changed = true;
        }
        woken
    }

    /// Takes the answer to a fetch of `name` that a tick asked for.
    pub fn answered(&mut self, name: KeyName, answer: FetchResult, now: Timestamp) -> Woken {
        self.changed = true;
        let reason = match answer {
            FetchResult::Key(key) => return self.put(name, key, now, now),
            FetchResult::NotFound => Reason::KeyNotFound,
            FetchResult::Invalid => Reason::KeyInvalid,
            FetchResult::Failed => Reason::KeyUnavailable,
        };
        let refused_for = match entry(&mut self.entries, name) {
            None => return Woken::default(),
            Some(Entry::Ready(ready)) => {
                ready.withdrawn |= reason == Reason::KeyNotFound;
                ready.failures = ready.failures.saturating_add(1);
                ready.not_before = now.plus(
                    backoff(ready.failures)
                        .saturating_mul(10)
                        .min(LONGEST_BACKOFF),
                );
                ready.refresh = None;
                return Woken::default();
            }
            Some(Entry::Fetching(fetching)) => {
                fetching.failures = fetching.failures.saturating_add(1);
                let retry = now.plus(backoff(fetching.failures));
                // A retry is worth its fetch while somebody still waits for its answer.
                let is_awaited = self
                    .waiters
                    .last_deadline(fetching.list)
                    .is_some_and(|last| retry < last);
                match reason {
                    Reason::KeyNotFound => NOT_FOUND_TTL,
                    Reason::KeyInvalid => INVALID_TTL,
                    _ if is_awaited => return self.queue_again(name, retry),
                    _ => UNAVAILABLE_TTL,
                }
            }
            Some(Entry::Refused { .. }) => return Woken::default(),
        };
        let before = self.insert(
            name,
            Entry::Refused {
                reason,
                until: now.plus(refused_for),
            },
            now,
        );
        self.release(before, Err(reason))
    }

    /// Puts a key whose fetch failed into the queue, with the requests that wait for it.
    fn queue_again(&mut self, name: KeyName, not_before: Timestamp) -> Woken {
        // Nothing is refused by this: its time is over.
        let nothing = Entry::Refused {
            reason: Reason::KeyUnavailable,
            until: Timestamp::from_millis(0),
        };
        let removed = entry(&mut self.entries, name).map(|entry| std::mem::replace(entry, nothing));
        let (Some(Entry::Fetching(fetching)), Some(source)) =
            (removed, self.sources.get_mut(name.source.0))
        else {
            return Woken::default();
        };
        let Fetching {
            failures,
            list,
            addresses,
            ..
        } = fetching;
        let queued = Queued::new(name.id, list, addresses, not_before, failures);
        source.first_deadline = source
            .first_deadline
            .into_iter()
            .chain(self.waiters.first_deadline(list))
            .min();
        match source.queue.add(queued, &mut self.random) {
            Some(gives_way) if gives_way.list == list => {
                let refused = self
                    .waiters
                    .close(list)
                    .into_iter()
                    .map(|waiter| (waiter, Reason::KeyUnavailable));
                return Woken {
                    refused: refused.collect(),
                    ..Woken::default()
                };
            }
            Some(gives_way) => self.evict(gives_way.list),
            None => {}
        }
        Woken::default()
    }

    /// What is due at `now`: fetches to make, requests to give up. To be called no later than
    /// [`KeyCache::next_tick`].
    pub fn tick(&mut self, now: Timestamp) -> Actions {
        self.changed = true;
        let mut due = Actions::default();
        due.woken.turned_away = std::mem::take(&mut self.evicted);
        for (name, entry) in &mut self.entries {
            if let Entry::Fetching(fetching) = entry {
                let expired = self.waiters.expire(fetching.list, now).into_iter();
                due.woken
                    .refused
                    .extend(expired.map(|waiter| (waiter, Reason::KeyUnavailable)));
                // Those who waited for a retry may have left since it was asked for.
                if fetching.ask <= now
                    && fetching.failures > 0
                    && self.waiters.waiting(fetching.list) == 0
                {
                    self.waiters.close(fetching.list);
                    *entry = Entry::Refused {
                        reason: Reason::KeyUnavailable,
                        until: now.plus(UNAVAILABLE_TTL),
                    };
                }
            }
            let ask = match entry {
                Entry::Fetching(fetching) => Some(&mut fetching.ask),
                Entry::Ready(ready) => ready.refresh.as_mut(),
                Entry::Refused { .. } => None,
            };
            if let Some(ask) = ask
                && *ask <= now
            {
                *ask = now.plus(
                    self.sources
                        .get(name.source.0)
                        .map_or(Duration::ZERO, |source| source.patience),
                );
                due.fetch.push(*name);
            }
        }
        for number in 0..self.sources.len() {
            self.serve_queue(KeySourceId(number), now, &mut due);
        }
        due
    }

    /// Gives up the requests in a source's queue that have waited for too long, and its tokens to
    /// the keys whose turn it is.
    fn serve_queue(&mut self, id: KeySourceId, now: Timestamp, due: &mut Actions) {
        let Some(source) = self.sources.get_mut(id.0) else {
            return;
        };
        source.first_deadline = None;
        for queued in source.queue.iter_mut() {
            let expired = self.waiters.expire(queued.list, now);
            queued.is_awaited = self.waiters.waiting(queued.list) > 0;
            source.first_deadline = source
                .first_deadline
                .into_iter()
                .chain(self.waiters.first_deadline(queued.list))
                .min();
            if queued.is_retry() {
                due.woken.refused.extend(
                    expired
                        .into_iter()
                        .map(|waiter| (waiter, Reason::KeyUnavailable)),
                );
            } else {
                due.woken.turned_away.extend(expired);
            }
        }
        while let Some(unawaited) = self
            .sources
            .get_mut(id.0)
            .and_then(|source| source.queue.remove_unawaited(now))
        {
            self.waiters.close(unawaited.list);
            if unawaited.is_retry() {
                let until = now.plus(UNAVAILABLE_TTL);
                let refused = Entry::Refused {
                    reason: Reason::KeyUnavailable,
                    until,
                };
                self.insert(
                    KeyName {
                        source: id,
                        id: unawaited.id,
                    },
                    refused,
                    now,
                );
            }
        }
        while let Some((ask, drawn)) = self.draw(id, now) {
            let Queued {
                id: key,
                list,
                addresses,
                failures,
                ..
            } = drawn;
            let name = KeyName {
                source: id,
                id: key,
            };
            self.insert(
                name,
                Entry::Fetching(Fetching {
                    ask,
                    failures,
                    list,
                    addresses,
                }),
                now,
            );
            due.fetch.push(name);
        }
    }

    /// The queued key that gets a token now, and when its fetch is given up for lost.
    fn draw(&mut self, id: KeySourceId, now: Timestamp) -> Option<(Timestamp, Queued)> {
        let source = self.sources.get_mut(id.0)?;
        let has_token = source.queue.has_due(now) && source.bucket.take(now);
        let drawn = if has_token {
            source.queue.next(now, &mut self.random)
        } else {
            None
        };
        Some((now.plus(source.patience), drawn?))
    }

    /// When the next tick is due; `None`: not before another call asks for one.
    pub fn next_tick(&self) -> Option<Timestamp> {
        if !self.evicted.is_empty() {
            return Some(Timestamp::from_millis(0));
        }
        let mut next = None;
        let mut at = |at: Option<Timestamp>| next = next.into_iter().chain(at).min();
        for (_, entry) in &self.entries {
            match entry {
                Entry::Fetching(fetching) => {
                    at(Some(fetching.ask));
                    at(self.waiters.first_deadline(fetching.list));
                }
                Entry::Ready(ready) => at(ready.refresh),
                Entry::Refused { .. } => {}
            }
        }
        for source in &self.sources {
            at(source.first_deadline);
            at(source
                .queue
                .next_due()
                .map(|due| due.max(source.bucket.next_token())));
        }
        next
    }

    /// Whether [`KeyCache::next_tick`] or [`KeyCache::waiting`] may have changed since
    /// [`KeyCache::settled`].
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// Takes note that the caller has acted on the changes.
    pub fn settled(&mut self) {
        self.changed = false;
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiters.len().saturating_add(self.evicted.len())
    }

    fn release(&mut self, before: Option<Entry>, outcome: Result<(), Reason>) -> Woken {
        let mut woken = Woken::default();
        if let Some(Entry::Fetching(fetching)) = before {
            let waiters = self.waiters.close(fetching.list);
            match outcome {
                Ok(()) => woken.ready = waiters,
                Err(reason) => {
                    woken.refused = waiters.into_iter().map(|waiter| (waiter, reason)).collect()
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

    /// Drops what is worth least: refusals first, then the key unused for longest. What is being
    /// fetched stays: the token bucket and the fetches' time-out bound it.
    fn drop_least(&mut self, now: Timestamp) {
        let worth = |entry: &Entry| match entry {
            Entry::Refused { until, .. } => Some((0, *until)),
            Entry::Ready(ready) if now >= ready.dies(self.ttl) => Some((0, ready.used)),
            Entry::Ready(ready) => Some((1, ready.used)),
            Entry::Fetching(_) => None,
        };
        let least = self
            .entries
            .iter()
            .filter_map(|(name, entry)| Some((worth(entry)?, *name)))
            .min();
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
        let grace = if self.withdrawn {
            Duration::ZERO
        } else {
            STALE_GRACE
        };
        self.fetched.plus(ttl).plus(grace)
    }
}

impl Source {
    fn new(timeout: Duration) -> Self {
        Self {
            patience: timeout.saturating_mul(WAIT_IN_TIMEOUTS),
            bucket: TokenBucket::new(FETCH_BURST, FETCH_INTERVAL),
            queue: Queue::default(),
            first_deadline: None,
        }
    }
}

fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_BACKOFF.saturating_mul(2u32.saturating_pow(doublings))
}

#[cfg(test)]
mod tests {
    use super::super::queue::MAX_QUEUED;
    use super::*;
    use crate::crypto::es256::{P256Key, known_answer};
    use crate::keys::source::KeyId;
    use std::net::Ipv4Addr;

    const TTL: Duration = Duration::from_secs(1000);
    const TIMEOUT: Duration = Duration::from_secs(1);

    fn ring() -> KeyCache {
        KeyCache::new(TTL, [TIMEOUT], 1)
    }

    fn name(number: usize) -> KeyName {
        let id = format!("{number:08}-0000-4000-8000-000000000000");
        KeyName {
            source: KeySourceId(0),
            id: KeyId::uuid(id.as_bytes()).unwrap(),
        }
    }

    fn key() -> PublicKey {
        PublicKey::P256(P256Key::from_spki(&known_answer::SPKI).unwrap())
    }

    fn address(number: u32) -> ClientAddress {
        ClientAddress::V4(Ipv4Addr::from_bits(number))
    }

    /// Of a request whose address does not matter.
    fn client() -> ClientAddress {
        ClientAddress::Unknown
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000 + millis)
    }

    #[test]
    fn a_request_waits_once_for_each_source() {
        let of = |source| KeyName {
            source: KeySourceId(source),
            ..name(1)
        };
        for (before, now, may) in [
            (None, 0, true),
            (None, 1, true),
            (Some(0), 1, true),
            (Some(0), 0, false),
            (Some(1), 0, false),
            (Some(1), 1, false),
        ] {
            assert_eq!(
                of(now).may_be_waited_for_after(before.map(of)),
                may,
                "{before:?}, {now}"
            );
        }
    }

    /// The requests that wait for so many invented keys of a source, each from the same address;
    /// how many were refused.
    fn flood(ring: &mut KeyCache, source: usize, from: usize, count: usize, millis: u64) -> usize {
        let wait = |number: &usize| {
            let name = KeyName {
                source: KeySourceId(source),
                ..name(*number)
            };
            ring.wait(name, *number as Waiter, || address(1), at(millis))
                .is_err()
        };
        (from..from + count).filter(wait).count()
    }

    /// How many fetches are made from now on if each second has ten ticks.
    fn fetches(ring: &mut KeyCache, from_millis: u64, to_millis: u64) -> Vec<KeyName> {
        (from_millis..to_millis)
            .step_by(100)
            .flat_map(|now| ring.tick(at(now)).fetch)
            .collect()
    }

    #[test]
    fn flood_of_one_source_does_not_delay_another() {
        let mut ring = KeyCache::new(TTL, [TIMEOUT, TIMEOUT], 1);
        flood(&mut ring, 1, 1000, 5000, 0);
        assert_eq!(ring.wait(name(1), 1, client, at(0)), Ok(()));
        assert!(ring.tick(at(0)).fetch.contains(&name(1)));
    }

    fn is_ready(ring: &mut KeyCache, number: usize, millis: u64) -> bool {
        matches!(ring.find(name(number), at(millis)), Lookup::Ready(_))
    }

    fn refusal(ring: &mut KeyCache, number: usize, millis: u64) -> Option<Reason> {
        match ring.find(name(number), at(millis)) {
            Lookup::Refused(reason) => Some(reason),
            _ => None,
        }
    }

    /// Has one request wait for the key and fetches it.
    fn fetch(ring: &mut KeyCache, number: usize, millis: u64) {
        ring.wait(name(number), 1, client, at(millis)).unwrap();
        assert_eq!(ring.tick(at(millis)).fetch, [name(number)]);
        assert_eq!(
            ring.answered(name(number), FetchResult::Key(key()), at(millis))
                .ready,
            [1]
        );
    }

    #[test]
    fn however_many_wait_a_key_is_fetched_once_and_wakes_them_all() {
        let mut ring = ring();
        for waiter in 0..100 {
            ring.wait(name(1), waiter, client, at(0)).unwrap();
        }
        assert_eq!(ring.next_tick(), Some(at(0)));
        assert_eq!(ring.tick(at(0)).fetch, [name(1)]);
        assert_eq!(ring.tick(at(1)).fetch, []);
        let woken = ring.answered(name(1), FetchResult::Key(key()), at(5));
        assert_eq!(
            (woken.ready.len(), woken.refused.len(), ring.waiting()),
            (100, 0, 0)
        );
        assert!(is_ready(&mut ring, 1, 6));
        assert_eq!(ring.next_tick(), None);
    }

    #[test]
    fn no_more_than_so_many_requests_wait_at_once() {
        let mut ring = ring();
        for waiter in 0..MAX_WAITERS {
            ring.wait(name(waiter % 2), waiter as Waiter, client, at(0))
                .unwrap();
        }
        assert_eq!(
            ring.wait(name(1), MAX_WAITERS as Waiter, client, at(0)),
            Err(Reason::KeyUnavailable)
        );
        ring.leave(0);
        assert_eq!(
            ring.wait(name(1), MAX_WAITERS as Waiter, client, at(0)),
            Ok(())
        );
    }

    #[test]
    fn requests_that_left_make_room_for_others() {
        let mut ring = ring();
        for waiter in 0..MAX_WAITERS {
            ring.wait(name(1), waiter as Waiter, client, at(0)).unwrap();
            ring.leave(waiter as Waiter);
        }
        assert_eq!(ring.waiting(), 0);
        assert_eq!(
            ring.wait(name(1), MAX_WAITERS as Waiter, client, at(0)),
            Ok(())
        );
    }

    #[test]
    fn one_who_left_is_not_woken() {
        let mut ring = ring();
        ring.wait(name(1), 7, client, at(0)).unwrap();
        ring.wait(name(1), 8, client, at(0)).unwrap();
        ring.tick(at(0));
        ring.leave(7);
        ring.leave(7);
        assert_eq!(
            ring.answered(name(1), FetchResult::Key(key()), at(1)).ready,
            [8]
        );
    }

    #[test]
    fn a_failed_fetch_is_retried_with_backoff_until_the_deadline() {
        let mut ring = ring();
        ring.wait(name(1), 7, client, at(0)).unwrap();
        let mut fetches = Vec::new();
        let mut now = 0;
        while ring.waiting() > 0 {
            let due = ring.tick(at(now));
            for name in due.fetch {
                fetches.push(now);
                ring.answered(name, FetchResult::Failed, at(now));
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
        ring.wait(name(1), 7, client, at(0)).unwrap();
        ring.tick(at(0));
        ring.answered(name(1), FetchResult::Failed, at(10));
        ring.leave(7);
        assert_eq!(ring.tick(at(110)).fetch, []);
        assert_eq!(refusal(&mut ring, 1, 110), Some(Reason::KeyUnavailable));
        assert_eq!(refusal(&mut ring, 1, 1110), None);
    }

    #[test]
    fn a_hanging_fetch_keeps_nobody_beyond_the_deadline() {
        let mut ring = ring();
        ring.wait(name(1), 7, client, at(0)).unwrap();
        ring.wait(name(1), 8, client, at(500)).unwrap();
        ring.tick(at(0));
        assert_eq!(ring.next_tick(), Some(at(3000)));
        assert_eq!(ring.tick(at(2999)).woken, Woken::default());
        assert_eq!(
            ring.tick(at(3000)).woken.refused,
            [(7, Reason::KeyUnavailable)]
        );
        assert_eq!(
            ring.tick(at(3500)).woken.refused,
            [(8, Reason::KeyUnavailable)]
        );
        assert_eq!(ring.waiting(), 0);
    }

    #[test]
    fn an_answer_that_never_came_does_not_block_its_key_for_ever() {
        let mut ring = ring();
        ring.wait(name(1), 7, client, at(0)).unwrap();
        assert_eq!(ring.tick(at(0)).fetch, [name(1)]);
        assert_eq!(ring.tick(at(3000)).fetch, [name(1)]);
    }

    #[test]
    fn a_key_that_does_not_exist_is_remembered_for_a_minute() {
        let mut ring = ring();
        ring.wait(name(1), 7, client, at(0)).unwrap();
        ring.tick(at(0));
        assert_eq!(
            ring.answered(name(1), FetchResult::NotFound, at(0)).refused,
            [(7, Reason::KeyNotFound)]
        );
        assert_eq!(refusal(&mut ring, 1, 59_999), Some(Reason::KeyNotFound));
        assert_eq!(refusal(&mut ring, 1, 60_000), None);
    }

    #[test]
    fn an_answer_that_is_no_key_is_remembered_for_a_while_and_not_retried() {
        let mut ring = ring();
        ring.wait(name(1), 7, client, at(0)).unwrap();
        ring.tick(at(0));
        assert_eq!(
            ring.answered(name(1), FetchResult::Invalid, at(0)).refused,
            [(7, Reason::KeyInvalid)]
        );
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
        ring.answered(name(1), FetchResult::Key(key()), at(800_002));
        assert!(is_ready(&mut ring, 1, 1_600_001));
        assert_eq!(ring.tick(at(1_600_001)).fetch, []);
    }

    #[test]
    fn the_old_key_serves_for_a_day_while_the_key_server_is_down_and_is_asked_for_ever_less_often()
    {
        let mut ring = ring();
        fetch(&mut ring, 1, 0);
        let day = 24 * 60 * 60 * 1000;
        let mut fetches = 0;
        for second in 800..1000 + day / 1000 {
            assert!(is_ready(&mut ring, 1, second * 1000), "after {second} s");
            for name in ring.tick(at(second * 1000)).fetch {
                fetches += 1;
                ring.answered(name, FetchResult::Failed, at(second * 1000));
            }
        }
        assert!(
            (day / 60_000 - 10..day / 60_000 + 20).contains(&fetches),
            "{fetches} fetches"
        );
        assert!(!is_ready(&mut ring, 1, 1_000_000 + day));
    }

    #[test]
    fn a_withdrawn_key_does_not_outlive_its_ttl() {
        let mut ring = ring();
        fetch(&mut ring, 1, 0);
        assert!(is_ready(&mut ring, 1, 900_000));
        ring.tick(at(900_000));
        ring.answered(name(1), FetchResult::NotFound, at(900_000));
        assert!(is_ready(&mut ring, 1, 999_999));
        assert!(!is_ready(&mut ring, 1, 1_000_000));
    }

    #[test]
    fn a_key_that_dies_while_it_is_fetched_anew_is_waited_for_and_not_fetched_twice() {
        let mut ring = ring();
        fetch(&mut ring, 1, 0);
        assert!(is_ready(&mut ring, 1, 900_000));
        ring.tick(at(900_000));
        ring.answered(name(1), FetchResult::NotFound, at(900_000));
        assert!(is_ready(&mut ring, 1, 999_900));
        assert_eq!(ring.tick(at(999_900)).fetch, [name(1)]);
        assert!(!is_ready(&mut ring, 1, 1_000_000));
        ring.wait(name(1), 7, client, at(1_000_000)).unwrap();
        assert_eq!(ring.tick(at(1_000_000)).fetch, []);
        assert_eq!(
            ring.answered(name(1), FetchResult::Key(key()), at(1_000_100))
                .ready,
            [7]
        );
    }

    #[test]
    fn fetches_burst_and_then_ten_a_second() {
        let mut ring = ring();
        assert_eq!(flood(&mut ring, 0, 0, 200, 0), 0);
        assert_eq!(ring.tick(at(0)).fetch.len(), 20);
        assert_eq!(ring.tick(at(99)).fetch.len(), 0);
        assert_eq!(ring.next_tick(), Some(at(100)));
        assert_eq!(fetches(&mut ring, 100, 2000).len(), 19);
    }

    #[test]
    fn reads_no_address_before_a_key_is_queued() {
        let mut ring = ring();
        for number in 0..20 {
            ring.wait(
                name(number),
                number as Waiter,
                || panic!("an address is read"),
                at(0),
            )
            .unwrap();
        }
        ring.tick(at(0));
        ring.wait(name(1), 100, || panic!("an address is read"), at(0))
            .unwrap();
    }

    #[test]
    fn starts_no_fetch_past_a_queue() {
        let mut ring = ring();
        flood(&mut ring, 0, 0, 30, 0);
        ring.tick(at(0));
        // There is a token again, and the queue has a claim to it.
        ring.wait(name(100), 100, || address(1), at(150)).unwrap();
        assert!(!ring.is_fetching(name(100)));
        assert_eq!(ring.tick(at(150)).fetch.len(), 1);
    }

    #[test]
    fn queue_is_bounded_in_ids_and_in_requests_for_an_id() {
        let mut ring = ring();
        flood(&mut ring, 0, 0, 20, 0);
        ring.tick(at(0));
        assert_eq!(flood(&mut ring, 0, 1000, MAX_QUEUED, 0), 0);
        for number in 0..1000 {
            let _ = ring.wait(
                name(2000 + number),
                2000 + number as Waiter,
                || address(1),
                at(0),
            );
            let _ = ring.wait(name(1000), 10_000 + number as Waiter, || address(1), at(0));
        }
        let queued: Vec<_> = ring.sources[0]
            .queue
            .iter()
            .map(|queued| ring.waiters.waiting(queued.list))
            .collect();
        assert_eq!(queued.len(), MAX_QUEUED);
        assert!(
            queued.iter().all(|waiting| *waiting <= MAX_QUEUED_WAITERS),
            "{queued:?}"
        );
        let told = ring.tick(at(1)).woken.turned_away.len();
        assert_eq!(ring.waiting(), 20 + queued.iter().sum::<usize>());
        assert!(told > 500, "{told} requests gave way");
    }

    #[test]
    fn counts_the_address_of_a_request_that_finds_no_place() {
        let mut ring = ring();
        flood(&mut ring, 0, 0, 200, 0);
        ring.tick(at(0));
        for waiter in 0..64 {
            ring.wait(name(1000), 1000 + waiter, || address(1), at(0))
                .unwrap();
        }
        assert_eq!(
            ring.wait(name(1000), 2000, || address(2), at(0)),
            Err(Reason::KeyUnavailable)
        );
        // Of two addresses, and so the first.
        assert_eq!(ring.tick(at(100)).fetch, [name(1000)]);
    }

    #[test]
    fn queued_requests_give_way_to_one_that_joins_a_fetch() {
        let mut ring = KeyCache::new(TTL, [TIMEOUT, TIMEOUT], 1);
        let of_second = KeyName {
            source: KeySourceId(1),
            ..name(2)
        };
        ring.wait(name(1), 1, client, at(0)).unwrap();
        flood(&mut ring, 0, 100, 19, 0);
        ring.tick(at(0));
        for waiter in 1020..1000 + MAX_WAITERS {
            let queued = name(1000 + waiter % MAX_QUEUED);
            ring.wait(queued, waiter as Waiter, || address(1), at(0))
                .unwrap();
        }
        assert_eq!(ring.waiters.len(), MAX_WAITERS);
        assert_eq!(ring.wait(name(1), 2, client, at(0)), Ok(()));
        assert_eq!(ring.wait(of_second, 3, client, at(0)), Ok(()));
        let due = ring.tick(at(1));
        assert_eq!(due.fetch, [of_second]);
        assert!((1..=MAX_QUEUED_WAITERS).contains(&due.woken.turned_away.len()));
    }

    #[test]
    fn a_retry_does_not_give_way_to_one_more_request() {
        let mut ring = ring();
        for waiter in 0..MAX_WAITERS {
            ring.wait(name(1), waiter as Waiter, client, at(0)).unwrap();
        }
        ring.tick(at(0));
        ring.answered(name(1), FetchResult::Failed, at(10));
        assert_eq!(
            ring.wait(name(1), MAX_WAITERS as Waiter, client, at(20)),
            Err(Reason::KeyUnavailable)
        );
        assert_eq!(ring.waiters.len(), MAX_WAITERS);
    }

    #[test]
    fn an_id_leaves_the_queue_with_its_last_request() {
        let mut ring = ring();
        flood(&mut ring, 0, 0, 20, 0);
        ring.tick(at(0));
        flood(&mut ring, 0, 1000, 100, 0);
        (1000..1100).for_each(|waiter| ring.leave(waiter));
        assert_eq!(ring.sources[0].queue.iter().count(), 0);
        assert_eq!(fetches(&mut ring, 100, 1000), []);
    }

    #[test]
    fn no_request_waits_in_the_queue_beyond_its_deadline() {
        let mut ring = ring();
        flood(&mut ring, 0, 0, 220, 0);
        ring.tick(at(0));
        fetches(&mut ring, 100, 3000);
        assert_eq!(ring.next_tick(), Some(at(3000)));
        let due = ring.tick(at(3000));
        assert_eq!(
            (due.woken.turned_away.len(), due.woken.refused.len()),
            (200 - 29, 20 + 29)
        );
        assert_eq!(ring.waiting(), 0);
    }

    #[test]
    fn a_request_that_gave_way_and_hung_up_is_forgotten() {
        let mut ring = ring();
        flood(&mut ring, 0, 0, 400, 0);
        let gave_way = ring.evicted.clone();
        assert_eq!(ring.next_tick(), Some(Timestamp::from_millis(0)));
        ring.leave(gave_way[0]);
        assert_eq!(ring.tick(at(0)).woken.turned_away, gave_way[1..]);
    }

    #[test]
    fn a_key_of_another_worker_wakes_those_who_wait_in_the_queue() {
        let mut ring = ring();
        flood(&mut ring, 0, 0, 21, 0);
        assert_eq!(
            ring.adopt(name(20), key(), Duration::ZERO, at(0)).ready,
            [20]
        );
        assert!(is_ready(&mut ring, 20, 0));
        ring.tick(at(0));
        assert_eq!(ring.tick(at(100)).fetch, []);
    }

    #[test]
    fn a_retry_is_not_starved_by_a_flood() {
        let mut ring = ring();
        ring.wait(name(1), 1, client, at(0)).unwrap();
        ring.tick(at(0));
        flood(&mut ring, 0, 1000, 300, 1);
        ring.answered(name(1), FetchResult::Failed, at(10));
        for (waiter, client) in [(2, 7), (3, 8)] {
            ring.wait(name(1), waiter, || address(client), at(20))
                .unwrap();
        }
        let drawn = fetches(&mut ring, 100, 400);
        assert!(drawn.contains(&name(1)), "{} others", drawn.len());
        assert_eq!(
            ring.answered(name(1), FetchResult::Key(key()), at(400))
                .ready,
            [1, 2, 3]
        );
    }

    #[test]
    fn those_who_leave_in_any_order_are_counted_out() {
        let mut ring = ring();
        for waiter in [9, 8, 7, 6, 5] {
            ring.wait(name(1), waiter, client, at(0)).unwrap();
        }
        for waiter in [7, 9, 5, 8, 6] {
            ring.leave(waiter);
        }
        assert_eq!(ring.waiting(), 0);
    }

    #[test]
    fn an_adopted_key_is_as_old_as_it_was_elsewhere() {
        let mut ring = ring();
        assert_eq!(
            ring.adopt(name(1), key(), Duration::from_secs(900), at(0)),
            Woken::default()
        );
        assert!(is_ready(&mut ring, 1, 0));
        assert_eq!(ring.tick(at(0)).fetch, [name(1)]);
    }

    #[test]
    fn a_known_key_is_found_during_a_flood() {
        let mut ring = ring();
        fetch(&mut ring, 1, 0);
        flood(&mut ring, 0, 1000, 5000, 0);
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
        ring.wait(name(9999), 5, client, at(millis + 2000)).unwrap();
        ring.tick(at(millis + 2000));
        ring.answered(name(9999), FetchResult::NotFound, at(millis + 2000));
        fetch(&mut ring, 10_000, millis + 3000);
        assert_eq!(refusal(&mut ring, 9999, millis + 3000), None);
        assert!(is_ready(&mut ring, 3, millis + 3000));
    }
}
