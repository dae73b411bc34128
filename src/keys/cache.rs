//! The key cache: known keys, fetches, waiting requests and rate limits. A state machine without
//! I/O: time, client addresses and the random seed are arguments. The caller makes the fetches and
//! reports their results. Sees no token.

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

/// The longest wait for a key, in fetch time-outs.
const WAIT_IN_TIMEOUTS: u32 = 3;
/// The backoff before the first retry of a failed fetch. It doubles with each retry.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest backoff between two refreshes of a key in use.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// The TTL of `key-not-found`.
const NOT_FOUND_TTL: Duration = Duration::from_secs(60);
/// The TTL of `key-invalid`.
const INVALID_TTL: Duration = Duration::from_secs(10);
/// The TTL of `key-unavailable`, once all retries failed.
const UNAVAILABLE_TTL: Duration = Duration::from_secs(1);
/// How long a key is used beyond its TTL while the key server is unavailable.
const STALE_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// The burst of fetches of unknown keys, for each source.
const FETCH_BURST: u32 = 20;
/// The interval between further fetches of unknown keys.
const FETCH_INTERVAL: Duration = Duration::from_millis(100);
/// The most entries, known keys and refusals together.
const MAX_KEYS: usize = 512;
/// The most waiting requests.
const MAX_WAITERS: usize = 16 * 1024;
/// The most requests that wait for a queued key before its first fetch.
const MAX_QUEUED_WAITERS: usize = 64;

/// The cache's answer for a key.
pub enum Lookup {
    /// The key.
    Ready(PublicKey),
    /// The last fetch did not return a key; cached for a while.
    Refused(Reason),
    /// Not cached: [`KeyCache::wait`] for it.
    Unknown,
}

/// Requests that no longer wait.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Woken {
    /// Their key is cached now.
    pub ready: Vec<Waiter>,
    /// Their key could not be fetched.
    pub refused: Vec<(Waiter, Reason)>,
    /// Rejected with [`Reason::KeyUnavailable`] before their key was fetched.
    pub turned_away: Vec<Waiter>,
}

/// What the caller of [`KeyCache::tick`] must do.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Actions {
    /// Keys to fetch now. The caller reports each result to [`KeyCache::answered`].
    pub fetch: Vec<KeyName>,
    /// Requests past their deadline, and evicted requests.
    pub woken: Woken,
}

enum Entry {
    Fetching(Fetching),
    Ready(ReadyKey),
    Refused { reason: Reason, until: Timestamp },
}

/// An unknown key that holds a token of the rate limit, and may be fetched.
struct Fetching {
    /// The time of the fetch. During a fetch, the time at which it counts as lost and is repeated.
    ask: Timestamp,
    failures: u32,
    list: ListId,
    /// The addresses counted while the key was queued.
    addresses: Addresses,
}

struct ReadyKey {
    key: PublicKey,
    fetched: Timestamp,
    used: Timestamp,
    /// The time of the next refresh, as [`Fetching::ask`].
    refresh: Option<Timestamp>,
    failures: u32,
    /// The earliest next refresh.
    not_before: Timestamp,
    /// The key server no longer has the key, so it is not used beyond its TTL.
    withdrawn: bool,
}

/// State for each source: invented key ids of one must not delay keys of another.
struct Source {
    /// The longest wait of a request.
    max_wait: Duration,
    bucket: TokenBucket,
    /// The key ids that wait for a token.
    queue: Queue,
    /// At most the earliest deadline in the queue; `None` if the queue is empty.
    first_deadline: Option<Timestamp>,
}

/// The keys of one plugin in one worker. Times are of a steady clock
/// ([`crate::time::Now::steady`]).
pub struct KeyCache {
    ttl: Duration,
    /// The age at which a used key is refreshed: four fifths of its TTL.
    refresh_after: Duration,
    /// Indexed by [`KeySourceId`].
    sources: Vec<Source>,
    /// Sorted by name.
    entries: Vec<(KeyName, Entry)>,
    waiters: Waiters,
    /// Evicted requests, until the next tick.
    evicted: Vec<Waiter>,
    random: Random,
    /// [`KeyCache::has_changed`].
    changed: bool,
}

impl KeyCache {
    /// An empty cache for keys with this `ttl`. `timeouts` are the fetch time-outs, by
    /// [`KeySourceId`]. `seed` is for draws among queued keys.
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

    /// Looks up `name`. The next [`KeyCache::tick`] refreshes a key that is used late in its TTL.
    pub fn find(&mut self, name: KeyName, now: Timestamp) -> Lookup {
        match entry(&mut self.entries, name) {
            Some(Entry::Ready(ready)) if now < ready.expires(self.ttl) => {
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

    /// Adds `waiter` to the requests for the key. A tick fetches the key, unless a fetch is under
    /// way. Without a token for the fetch, the key is queued, and `client` is called for the
    /// request's address.
    ///
    /// # Errors
    /// [`Reason::KeyUnavailable`] if too many requests wait, in total or for this key, or if the
    /// queue is full and this key is evicted.
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
        let deadline = now.plus(source.max_wait);
        if let Some(queued) = source.queue.get_mut(name.id) {
            // Counted even if the request is rejected: one client's requests must not cost a key
            // the weight of others.
            queued.addresses.add(client());
            if !queued.is_retry() && self.waiters.waiting(queued.list) >= MAX_QUEUED_WAITERS {
                return Err(Reason::KeyUnavailable);
            }
        }
        if !self.evict_until_below_limit() {
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

    /// Evicts queued keys until one more request may wait; `false` if none is left. Retries are not
    /// evicted: their requests were already waiting for a fetch.
    fn evict_until_below_limit(&mut self) -> bool {
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
            let evicted = longest.and_then(|source| {
                source
                    .queue
                    .evict(&mut self.random, |queued| !queued.is_retry())
            });
            let Some(evicted) = evicted else {
                return false;
            };
            self.evict(evicted.list);
        }
        true
    }

    /// Ends the waiting of all requests in an evicted key's list.
    fn evict(&mut self, list: ListId) {
        self.evicted.extend(self.waiters.close(list));
        self.changed = true;
    }

    /// The list for a fetch of the key that is under way or may start now.
    fn list_of_fetch(&mut self, name: KeyName, now: Timestamp) -> Option<ListId> {
        // A key may expire while it is refreshed: that fetch serves its requests.
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

    /// The list of the queued key, which is added to the queue if needed. `None` if it is evicted.
    fn list_in_queue(
        &mut self,
        name: KeyName,
        client: impl Fn() -> ClientAddress,
        now: Timestamp,
    ) -> Option<ListId> {
        let source = self.sources.get_mut(name.source.0)?;
        source
            .first_deadline
            .get_or_insert(now.plus(source.max_wait));
        if let Some(queued) = source.queue.get_mut(name.id) {
            queued.is_awaited = true;
            return Some(queued.list);
        }
        let list = self.waiters.open(name);
        let mut addresses = source.queue.former_addresses(name.id);
        addresses.add(client());
        let queued = Queued::new(name.id, list, addresses, now, 0);
        let Some(evicted) = source.queue.add(queued, &mut self.random) else {
            return Some(list);
        };
        self.evict(evicted.list);
        (evicted.list != list).then_some(list)
    }

    /// Removes `waiter`, because its client has gone. A fetch under way continues, for the next
    /// request.
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
            // A retry stays queued until it is due, so that new requests join it instead of
            // starting over.
            if !queued.is_retry()
                && let Some(queued) = source.queue.remove(name.id)
            {
                source.queue.leaves(queued.id, queued.addresses);
                self.waiters.close(queued.list);
            }
        }
    }

    /// Whether a fetch of the key is under way or scheduled.
    pub fn is_fetching(&self, name: KeyName) -> bool {
        let entry = place(&self.entries, name)
            .ok()
            .and_then(|place| self.entries.get(place));
        matches!(entry, Some((_, Entry::Fetching(_))))
    }

    /// Adds a key that another worker, or an earlier VM, fetched at `fetched`, if this cache would
    /// still use it. Wakes its waiting requests. Not while this cache fetches the key, and not
    /// after the key server withdrew it from this cache.
    #[must_use]
    pub fn adopt(
        &mut self,
        name: KeyName,
        key: PublicKey,
        fetched: Timestamp,
        withdrawn: bool,
        now: Timestamp,
    ) -> Woken {
        let ready = ReadyKey {
            withdrawn,
            ..ReadyKey::new(key, fetched, now)
        };
        let is_refused = match entry(&mut self.entries, name) {
            Some(Entry::Fetching(_)) => true,
            Some(Entry::Ready(known)) => known.withdrawn,
            Some(Entry::Refused { .. }) | None => false,
        };
        if is_refused || fetched > now || now >= ready.expires(self.ttl) {
            Woken::default()
        } else {
            self.put(name, ready, now)
        }
    }

    /// Marks a known key as withdrawn, because the key server answered so to another worker.
    pub fn withdraw(&mut self, name: KeyName) {
        if let Some(Entry::Ready(ready)) = entry(&mut self.entries, name) {
            ready.withdrawn = true;
        }
    }

    /// Adds a key and wakes its waiting requests.
    fn put(&mut self, name: KeyName, ready: ReadyKey, now: Timestamp) -> Woken {
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

    /// Processes the result of a fetch that a tick ordered.
    pub fn answered(&mut self, name: KeyName, answer: FetchResult, now: Timestamp) -> Woken {
        self.changed = true;
        let reason = match answer {
            FetchResult::Key(key) => return self.put(name, ReadyKey::new(key, now, now), now),
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
                // A retry is only worth a fetch if a request still waits for it.
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

    /// Queues a key again after a failed fetch, with its waiting requests.
    fn queue_again(&mut self, name: KeyName, not_before: Timestamp) -> Woken {
        // A placeholder that has already expired.
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
            Some(evicted) if evicted.list == list => {
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
            Some(evicted) => self.evict(evicted.list),
            None => {}
        }
        Woken::default()
    }

    /// Returns what is due at `now`: keys to fetch, requests to wake. Must be called no later than
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
                // The requests may have left since the retry was scheduled.
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
                        .map_or(Duration::ZERO, |source| source.max_wait),
                );
                due.fetch.push(*name);
            }
        }
        for number in 0..self.sources.len() {
            self.serve_queue(KeySourceId(number), now, &mut due);
        }
        due
    }

    /// Expires requests in a source's queue, and gives the available tokens to queued keys.
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

    /// Draws the queued key that gets a token now, and the time at which its fetch counts as lost.
    fn draw(&mut self, id: KeySourceId, now: Timestamp) -> Option<(Timestamp, Queued)> {
        let source = self.sources.get_mut(id.0)?;
        let has_token = source.queue.has_due(now) && source.bucket.take(now);
        let drawn = if has_token {
            source.queue.next(now, &mut self.random)
        } else {
            None
        };
        Some((now.plus(source.max_wait), drawn?))
    }

    /// The time of the next tick; `None` if nothing is due.
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

    /// Clears [`KeyCache::has_changed`].
    pub fn settled(&mut self) {
        self.changed = false;
    }

    /// The number of waiting requests.
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

    /// Sets the entry of `name` and returns the previous one.
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

    /// Evicts the least valuable entry: refusals first, then the least recently used key. Fetches
    /// stay: the token bucket and the time-out bound their number.
    fn drop_least(&mut self, now: Timestamp) {
        let worth = |entry: &Entry| match entry {
            Entry::Refused { until, .. } => Some((0, *until)),
            Entry::Ready(ready) if now >= ready.expires(self.ttl) => Some((0, ready.used)),
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

/// The index of `name`, or where to insert it.
fn place(entries: &[(KeyName, Entry)], name: KeyName) -> Result<usize, usize> {
    entries.binary_search_by(|(known, _)| known.cmp(&name))
}

impl ReadyKey {
    fn new(key: PublicKey, fetched: Timestamp, used: Timestamp) -> Self {
        Self {
            key,
            fetched,
            used,
            refresh: None,
            failures: 0,
            not_before: fetched,
            withdrawn: false,
        }
    }

    fn expires(&self, ttl: Duration) -> Timestamp {
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
            max_wait: timeout.saturating_mul(WAIT_IN_TIMEOUTS),
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

    fn cache() -> KeyCache {
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

    /// The address of a request if it does not matter.
    fn client() -> ClientAddress {
        ClientAddress::Unknown
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000 + millis)
    }

    #[test]
    fn request_waits_once_for_each_source() {
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

    /// Requests for `count` invented keys of a source, all from one address. Returns the number of
    /// rejected ones.
    fn flood(cache: &mut KeyCache, source: usize, from: usize, count: usize, millis: u64) -> usize {
        let wait = |number: &usize| {
            let name = KeyName {
                source: KeySourceId(source),
                ..name(*number)
            };
            cache
                .wait(name, *number as Waiter, || address(1), at(millis))
                .is_err()
        };
        (from..from + count).filter(wait).count()
    }

    /// The number of fetches from now on, with ten ticks a second.
    fn fetches(cache: &mut KeyCache, from_millis: u64, to_millis: u64) -> Vec<KeyName> {
        (from_millis..to_millis)
            .step_by(100)
            .flat_map(|now| cache.tick(at(now)).fetch)
            .collect()
    }

    #[test]
    fn flood_of_one_source_does_not_delay_another() {
        let mut cache = KeyCache::new(TTL, [TIMEOUT, TIMEOUT], 1);
        flood(&mut cache, 1, 1000, 5000, 0);
        assert_eq!(cache.wait(name(1), 1, client, at(0)), Ok(()));
        assert!(cache.tick(at(0)).fetch.contains(&name(1)));
    }

    fn is_ready(cache: &mut KeyCache, number: usize, millis: u64) -> bool {
        matches!(cache.find(name(number), at(millis)), Lookup::Ready(_))
    }

    fn refusal(cache: &mut KeyCache, number: usize, millis: u64) -> Option<Reason> {
        match cache.find(name(number), at(millis)) {
            Lookup::Refused(reason) => Some(reason),
            _ => None,
        }
    }

    /// Lets one request wait for the key and fetches it.
    fn fetch(cache: &mut KeyCache, number: usize, millis: u64) {
        cache.wait(name(number), 1, client, at(millis)).unwrap();
        assert_eq!(cache.tick(at(millis)).fetch, [name(number)]);
        assert_eq!(
            cache
                .answered(name(number), FetchResult::Key(key()), at(millis))
                .ready,
            [1]
        );
    }

    #[test]
    fn fetches_key_once_for_concurrent_requests() {
        let mut cache = cache();
        for waiter in 0..100 {
            cache.wait(name(1), waiter, client, at(0)).unwrap();
        }
        assert_eq!(cache.next_tick(), Some(at(0)));
        assert_eq!(cache.tick(at(0)).fetch, [name(1)]);
        assert_eq!(cache.tick(at(1)).fetch, []);
        let woken = cache.answered(name(1), FetchResult::Key(key()), at(5));
        assert_eq!(
            (woken.ready.len(), woken.refused.len(), cache.waiting()),
            (100, 0, 0)
        );
        assert!(is_ready(&mut cache, 1, 6));
        assert_eq!(cache.next_tick(), None);
    }

    #[test]
    fn limits_waiting_requests() {
        let mut cache = cache();
        for waiter in 0..MAX_WAITERS {
            cache
                .wait(name(waiter % 2), waiter as Waiter, client, at(0))
                .unwrap();
        }
        assert_eq!(
            cache.wait(name(1), MAX_WAITERS as Waiter, client, at(0)),
            Err(Reason::KeyUnavailable)
        );
        cache.leave(0);
        assert_eq!(
            cache.wait(name(1), MAX_WAITERS as Waiter, client, at(0)),
            Ok(())
        );
    }

    #[test]
    fn requests_that_left_free_their_places() {
        let mut cache = cache();
        for waiter in 0..MAX_WAITERS {
            cache
                .wait(name(1), waiter as Waiter, client, at(0))
                .unwrap();
            cache.leave(waiter as Waiter);
        }
        assert_eq!(cache.waiting(), 0);
        assert_eq!(
            cache.wait(name(1), MAX_WAITERS as Waiter, client, at(0)),
            Ok(())
        );
    }

    #[test]
    fn wakes_no_request_that_left() {
        let mut cache = cache();
        cache.wait(name(1), 7, client, at(0)).unwrap();
        cache.wait(name(1), 8, client, at(0)).unwrap();
        cache.tick(at(0));
        cache.leave(7);
        cache.leave(7);
        assert_eq!(
            cache
                .answered(name(1), FetchResult::Key(key()), at(1))
                .ready,
            [8]
        );
    }

    #[test]
    fn retries_with_backoff_until_the_deadline() {
        let mut cache = cache();
        cache.wait(name(1), 7, client, at(0)).unwrap();
        let mut fetches = Vec::new();
        let mut now = 0;
        while cache.waiting() > 0 {
            let due = cache.tick(at(now));
            for name in due.fetch {
                fetches.push(now);
                cache.answered(name, FetchResult::Failed, at(now));
            }
            now += 50;
        }
        assert_eq!(fetches, [0, 100, 300, 700, 1500]);
        assert!(now <= 3050, "answered after {now} ms");
        assert_eq!(refusal(&mut cache, 1, 1600), Some(Reason::KeyUnavailable));
    }

    #[test]
    fn skips_a_retry_without_requests() {
        let mut cache = cache();
        cache.wait(name(1), 7, client, at(0)).unwrap();
        cache.tick(at(0));
        cache.answered(name(1), FetchResult::Failed, at(10));
        cache.leave(7);
        assert_eq!(cache.tick(at(110)).fetch, []);
        assert_eq!(refusal(&mut cache, 1, 110), Some(Reason::KeyUnavailable));
        assert_eq!(refusal(&mut cache, 1, 1110), None);
    }

    #[test]
    fn rejects_at_deadline_while_a_fetch_hangs() {
        let mut cache = cache();
        cache.wait(name(1), 7, client, at(0)).unwrap();
        cache.wait(name(1), 8, client, at(500)).unwrap();
        cache.tick(at(0));
        assert_eq!(cache.next_tick(), Some(at(3000)));
        assert_eq!(cache.tick(at(2999)).woken, Woken::default());
        assert_eq!(
            cache.tick(at(3000)).woken.refused,
            [(7, Reason::KeyUnavailable)]
        );
        assert_eq!(
            cache.tick(at(3500)).woken.refused,
            [(8, Reason::KeyUnavailable)]
        );
        assert_eq!(cache.waiting(), 0);
    }

    #[test]
    fn repeats_a_lost_fetch() {
        let mut cache = cache();
        cache.wait(name(1), 7, client, at(0)).unwrap();
        assert_eq!(cache.tick(at(0)).fetch, [name(1)]);
        assert_eq!(cache.tick(at(3000)).fetch, [name(1)]);
    }

    #[test]
    fn caches_key_not_found_for_a_minute() {
        let mut cache = cache();
        cache.wait(name(1), 7, client, at(0)).unwrap();
        cache.tick(at(0));
        assert_eq!(
            cache
                .answered(name(1), FetchResult::NotFound, at(0))
                .refused,
            [(7, Reason::KeyNotFound)]
        );
        assert_eq!(refusal(&mut cache, 1, 59_999), Some(Reason::KeyNotFound));
        assert_eq!(refusal(&mut cache, 1, 60_000), None);
    }

    #[test]
    fn caches_key_invalid_without_retry() {
        let mut cache = cache();
        cache.wait(name(1), 7, client, at(0)).unwrap();
        cache.tick(at(0));
        assert_eq!(
            cache.answered(name(1), FetchResult::Invalid, at(0)).refused,
            [(7, Reason::KeyInvalid)]
        );
        assert_eq!(refusal(&mut cache, 1, 9_999), Some(Reason::KeyInvalid));
        assert_eq!(refusal(&mut cache, 1, 10_000), None);
    }

    #[test]
    fn refreshes_a_used_key_before_its_ttl() {
        let mut cache = cache();
        fetch(&mut cache, 1, 0);
        assert!(is_ready(&mut cache, 1, 799_999));
        assert_eq!(cache.tick(at(799_999)).fetch, []);
        assert!(is_ready(&mut cache, 1, 800_000));
        assert_eq!(cache.tick(at(800_000)).fetch, [name(1)]);
        assert!(is_ready(&mut cache, 1, 800_001));
        assert_eq!(cache.tick(at(800_001)).fetch, []);
        cache.answered(name(1), FetchResult::Key(key()), at(800_002));
        assert!(is_ready(&mut cache, 1, 1_600_001));
        assert_eq!(cache.tick(at(1_600_001)).fetch, []);
    }

    #[test]
    fn uses_a_stale_key_for_a_day_with_backoff() {
        let mut cache = cache();
        fetch(&mut cache, 1, 0);
        let day = 24 * 60 * 60 * 1000;
        let mut fetches = 0;
        for second in 800..1000 + day / 1000 {
            assert!(is_ready(&mut cache, 1, second * 1000), "after {second} s");
            for name in cache.tick(at(second * 1000)).fetch {
                fetches += 1;
                cache.answered(name, FetchResult::Failed, at(second * 1000));
            }
        }
        assert!(
            (day / 60_000 - 10..day / 60_000 + 20).contains(&fetches),
            "{fetches} fetches"
        );
        assert!(!is_ready(&mut cache, 1, 1_000_000 + day));
    }

    #[test]
    fn withdrawn_key_expires_with_its_ttl() {
        let mut cache = cache();
        fetch(&mut cache, 1, 0);
        assert!(is_ready(&mut cache, 1, 900_000));
        cache.tick(at(900_000));
        cache.answered(name(1), FetchResult::NotFound, at(900_000));
        assert!(is_ready(&mut cache, 1, 999_999));
        assert!(!is_ready(&mut cache, 1, 1_000_000));
    }

    #[test]
    fn key_withdrawn_elsewhere_expires_with_its_ttl() {
        let mut cache = cache();
        fetch(&mut cache, 1, 0);
        cache.withdraw(name(1));
        cache.withdraw(name(2));
        assert!(is_ready(&mut cache, 1, 999_999));
        assert!(!is_ready(&mut cache, 1, 1_000_000));
        assert_eq!(refusal(&mut cache, 2, 0), None);
        // A later fetch has the key again.
        fetch(&mut cache, 1, 1_000_000);
        assert!(is_ready(&mut cache, 1, 2_000_000));
    }

    #[test]
    fn joins_the_refresh_of_an_expired_key() {
        let mut cache = cache();
        fetch(&mut cache, 1, 0);
        assert!(is_ready(&mut cache, 1, 900_000));
        cache.tick(at(900_000));
        cache.answered(name(1), FetchResult::NotFound, at(900_000));
        assert!(is_ready(&mut cache, 1, 999_900));
        assert_eq!(cache.tick(at(999_900)).fetch, [name(1)]);
        assert!(!is_ready(&mut cache, 1, 1_000_000));
        cache.wait(name(1), 7, client, at(1_000_000)).unwrap();
        assert_eq!(cache.tick(at(1_000_000)).fetch, []);
        assert_eq!(
            cache
                .answered(name(1), FetchResult::Key(key()), at(1_000_100))
                .ready,
            [7]
        );
    }

    #[test]
    fn fetches_in_a_burst_then_ten_a_second() {
        let mut cache = cache();
        assert_eq!(flood(&mut cache, 0, 0, 200, 0), 0);
        assert_eq!(cache.tick(at(0)).fetch.len(), 20);
        assert_eq!(cache.tick(at(99)).fetch.len(), 0);
        assert_eq!(cache.next_tick(), Some(at(100)));
        assert_eq!(fetches(&mut cache, 100, 2000).len(), 19);
    }

    #[test]
    fn reads_no_address_before_a_key_is_queued() {
        let mut cache = cache();
        for number in 0..20 {
            cache
                .wait(
                    name(number),
                    number as Waiter,
                    || panic!("an address is read"),
                    at(0),
                )
                .unwrap();
        }
        cache.tick(at(0));
        cache
            .wait(name(1), 100, || panic!("an address is read"), at(0))
            .unwrap();
    }

    #[test]
    fn starts_no_fetch_past_a_queue() {
        let mut cache = cache();
        flood(&mut cache, 0, 0, 30, 0);
        cache.tick(at(0));
        // There is a token again, but the queue comes first.
        cache.wait(name(100), 100, || address(1), at(150)).unwrap();
        assert!(!cache.is_fetching(name(100)));
        assert_eq!(cache.tick(at(150)).fetch.len(), 1);
    }

    #[test]
    fn queue_is_bounded_in_ids_and_in_requests_for_an_id() {
        let mut cache = cache();
        flood(&mut cache, 0, 0, 20, 0);
        cache.tick(at(0));
        assert_eq!(flood(&mut cache, 0, 1000, MAX_QUEUED, 0), 0);
        for number in 0..1000 {
            let _ = cache.wait(
                name(2000 + number),
                2000 + number as Waiter,
                || address(1),
                at(0),
            );
            let _ = cache.wait(name(1000), 10_000 + number as Waiter, || address(1), at(0));
        }
        let queued: Vec<_> = cache.sources[0]
            .queue
            .iter()
            .map(|queued| cache.waiters.waiting(queued.list))
            .collect();
        assert_eq!(queued.len(), MAX_QUEUED);
        assert!(
            queued.iter().all(|waiting| *waiting <= MAX_QUEUED_WAITERS),
            "{queued:?}"
        );
        let told = cache.tick(at(1)).woken.turned_away.len();
        assert_eq!(cache.waiting(), 20 + queued.iter().sum::<usize>());
        assert!(told > 500, "{told} requests gave way");
    }

    #[test]
    fn counts_the_address_of_a_rejected_request() {
        let mut cache = cache();
        flood(&mut cache, 0, 0, 200, 0);
        cache.tick(at(0));
        for waiter in 0..64 {
            cache
                .wait(name(1000), 1000 + waiter, || address(1), at(0))
                .unwrap();
        }
        assert_eq!(
            cache.wait(name(1000), 2000, || address(2), at(0)),
            Err(Reason::KeyUnavailable)
        );
        // Counted for two addresses, so it comes first.
        assert_eq!(cache.tick(at(100)).fetch, [name(1000)]);
    }

    #[test]
    fn evicts_queued_requests_for_one_that_joins_a_fetch() {
        let mut cache = KeyCache::new(TTL, [TIMEOUT, TIMEOUT], 1);
        let of_second = KeyName {
            source: KeySourceId(1),
            ..name(2)
        };
        cache.wait(name(1), 1, client, at(0)).unwrap();
        flood(&mut cache, 0, 100, 19, 0);
        cache.tick(at(0));
        for waiter in 1020..1000 + MAX_WAITERS {
            let queued = name(1000 + waiter % MAX_QUEUED);
            cache
                .wait(queued, waiter as Waiter, || address(1), at(0))
                .unwrap();
        }
        assert_eq!(cache.waiters.len(), MAX_WAITERS);
        assert_eq!(cache.wait(name(1), 2, client, at(0)), Ok(()));
        assert_eq!(cache.wait(of_second, 3, client, at(0)), Ok(()));
        let due = cache.tick(at(1));
        assert_eq!(due.fetch, [of_second]);
        assert!((1..=MAX_QUEUED_WAITERS).contains(&due.woken.turned_away.len()));
    }

    #[test]
    fn evicts_no_retry_for_one_more_request() {
        let mut cache = cache();
        for waiter in 0..MAX_WAITERS {
            cache
                .wait(name(1), waiter as Waiter, client, at(0))
                .unwrap();
        }
        cache.tick(at(0));
        cache.answered(name(1), FetchResult::Failed, at(10));
        assert_eq!(
            cache.wait(name(1), MAX_WAITERS as Waiter, client, at(20)),
            Err(Reason::KeyUnavailable)
        );
        assert_eq!(cache.waiters.len(), MAX_WAITERS);
    }

    #[test]
    fn removes_an_id_with_its_last_request() {
        let mut cache = cache();
        flood(&mut cache, 0, 0, 20, 0);
        cache.tick(at(0));
        flood(&mut cache, 0, 1000, 100, 0);
        (1000..1100).for_each(|waiter| cache.leave(waiter));
        assert_eq!(cache.sources[0].queue.iter().count(), 0);
        assert_eq!(fetches(&mut cache, 100, 1000), []);
    }

    #[test]
    fn expires_queued_requests_at_their_deadline() {
        let mut cache = cache();
        flood(&mut cache, 0, 0, 220, 0);
        cache.tick(at(0));
        fetches(&mut cache, 100, 3000);
        assert_eq!(cache.next_tick(), Some(at(3000)));
        let due = cache.tick(at(3000));
        assert_eq!(
            (due.woken.turned_away.len(), due.woken.refused.len()),
            (200 - 29, 20 + 29)
        );
        assert_eq!(cache.waiting(), 0);
    }

    #[test]
    fn forgets_an_evicted_request_that_left() {
        let mut cache = cache();
        flood(&mut cache, 0, 0, 400, 0);
        let evicted = cache.evicted.clone();
        assert_eq!(cache.next_tick(), Some(Timestamp::from_millis(0)));
        cache.leave(evicted[0]);
        assert_eq!(cache.tick(at(0)).woken.turned_away, evicted[1..]);
    }

    #[test]
    fn adopted_key_wakes_queued_requests() {
        let mut cache = cache();
        flood(&mut cache, 0, 0, 21, 0);
        assert_eq!(
            cache.adopt(name(20), key(), at(0), false, at(0)).ready,
            [20]
        );
        assert!(is_ready(&mut cache, 20, 0));
        cache.tick(at(0));
        assert_eq!(cache.tick(at(100)).fetch, []);
    }

    #[test]
    fn flood_does_not_starve_a_retry() {
        let mut cache = cache();
        cache.wait(name(1), 1, client, at(0)).unwrap();
        cache.tick(at(0));
        flood(&mut cache, 0, 1000, 300, 1);
        cache.answered(name(1), FetchResult::Failed, at(10));
        for (waiter, client) in [(2, 7), (3, 8)] {
            cache
                .wait(name(1), waiter, || address(client), at(20))
                .unwrap();
        }
        let drawn = fetches(&mut cache, 100, 400);
        assert!(drawn.contains(&name(1)), "{} others", drawn.len());
        assert_eq!(
            cache
                .answered(name(1), FetchResult::Key(key()), at(400))
                .ready,
            [1, 2, 3]
        );
    }

    #[test]
    fn counts_requests_that_leave_in_any_order() {
        let mut cache = cache();
        for waiter in [9, 8, 7, 6, 5] {
            cache.wait(name(1), waiter, client, at(0)).unwrap();
        }
        for waiter in [7, 9, 5, 8, 6] {
            cache.leave(waiter);
        }
        assert_eq!(cache.waiting(), 0);
    }

    /// Whether a key with this age in milliseconds and this mark is adopted.
    fn is_adopted(cache: &mut KeyCache, number: usize, age: u64, withdrawn: bool) -> bool {
        let now = at(1_000_000_000);
        let fetched = now.minus(Duration::from_millis(age));
        let woken = cache.adopt(name(number), key(), fetched, withdrawn, now);
        assert_eq!(woken, Woken::default());
        is_ready(cache, number, 1_000_000_000)
    }

    #[test]
    fn adopts_a_key_as_long_as_it_would_use_its_own() {
        let mut cache = cache();
        let (ttl, grace) = (1_000_000, 24 * 60 * 60 * 1000);
        assert!(is_adopted(&mut cache, 1, ttl + grace - 1, false));
        assert!(!is_adopted(&mut cache, 2, ttl + grace, false));
        assert!(is_adopted(&mut cache, 3, ttl - 1, true));
        assert!(!is_adopted(&mut cache, 4, ttl, true));
        // Late in their TTL, both are refreshed at once.
        assert_eq!(cache.tick(at(1_000_000_000)).fetch, [name(1), name(3)]);
        let soon = at(1_000_000_000).plus(Duration::from_millis(1));
        let woken = cache.adopt(name(5), key(), soon, false, at(1_000_000_000));
        assert_eq!(woken, Woken::default());
        assert!(!is_ready(&mut cache, 5, 1_000_000_000));
    }

    #[test]
    fn adopted_withdrawn_key_expires_with_its_ttl() {
        let mut cache = cache();
        assert!(is_adopted(&mut cache, 1, 900_000, true));
        assert!(is_ready(&mut cache, 1, 1_000_099_999));
        assert!(!is_ready(&mut cache, 1, 1_000_100_000));
    }

    #[test]
    fn adopts_no_key_that_was_withdrawn_here() {
        let mut cache = cache();
        fetch(&mut cache, 1, 1_000_000_000 - 1_000_000);
        assert!(is_ready(&mut cache, 1, 1_000_000_000 - 1));
        cache.tick(at(1_000_000_000 - 1));
        cache.answered(name(1), FetchResult::NotFound, at(1_000_000_000 - 1));
        assert!(!is_adopted(&mut cache, 1, 1_000_000, false));
    }

    #[test]
    fn finds_a_known_key_during_a_flood() {
        let mut cache = cache();
        fetch(&mut cache, 1, 0);
        flood(&mut cache, 0, 1000, 5000, 0);
        assert!(is_ready(&mut cache, 1, 1));
    }

    #[test]
    fn evicts_refusals_then_least_recently_used() {
        let mut cache = cache();
        let mut millis = 0;
        for number in 0..MAX_KEYS {
            millis += 1000;
            fetch(&mut cache, number, millis);
        }
        cache.find(name(0), at(millis));
        fetch(&mut cache, MAX_KEYS, millis + 1000);
        assert!(is_ready(&mut cache, 0, millis + 1000));
        assert!(!is_ready(&mut cache, 1, millis + 1000));
        assert_eq!(cache.entries.len(), MAX_KEYS);
        cache
            .wait(name(9999), 5, client, at(millis + 2000))
            .unwrap();
        cache.tick(at(millis + 2000));
        cache.answered(name(9999), FetchResult::NotFound, at(millis + 2000));
        fetch(&mut cache, 10_000, millis + 3000);
        assert_eq!(refusal(&mut cache, 9999, millis + 3000), None);
        assert!(is_ready(&mut cache, 3, millis + 3000));
    }
}
