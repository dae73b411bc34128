//! The queue of key ids that wait for a fetch token. Invented ids must not keep a genuine one from
//! being fetched, so the id with the most client addresses comes first. No I/O: time and random
//! numbers are arguments.

use super::client_address::ClientAddress;
use super::random::Random;
use super::waiters::ListId;
use crate::keys::source::KeyId;
use crate::time::Timestamp;

/// The most queued key ids.
pub(super) const MAX_QUEUED: usize = 256;
/// The most counted client addresses for one key id.
const MAX_ADDRESSES: usize = 64;
/// The most ids that left the queue and keep their addresses.
const MAX_FORMER: usize = 512;

/// The distinct client addresses of requests for a key id, up to [`MAX_ADDRESSES`].
#[derive(Default)]
pub(super) struct Addresses(Vec<ClientAddress>);

impl Addresses {
    /// Counts an address once.
    pub(super) fn add(&mut self, address: ClientAddress) {
        if self.0.len() < MAX_ADDRESSES
            && let Err(place) = self.0.binary_search(&address)
        {
            self.0.insert(place, address);
        }
    }
}

/// A hash of the id: comparing whole ids with a common prefix is slow.
fn digest(id: &KeyId) -> u64 {
    let step = |digest: u64, byte: &u8| (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    id.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// A queued key id.
pub(super) struct Queued {
    pub(super) id: KeyId,
    digest: u64,
    /// The requests that wait for it.
    pub(super) list: ListId,
    pub(super) addresses: Addresses,
    /// The earliest next fetch, after a failed one.
    pub(super) not_before: Timestamp,
    /// The number of failed fetches.
    pub(super) failures: u32,
    /// Whether a request waits for it.
    pub(super) is_awaited: bool,
}

impl Queued {
    /// An id with its first request.
    pub(super) fn new(
        id: KeyId,
        list: ListId,
        addresses: Addresses,
        not_before: Timestamp,
        failures: u32,
    ) -> Self {
        Self {
            id,
            digest: digest(&id),
            list,
            addresses,
            not_before,
            failures,
            is_awaited: true,
        }
    }

    /// Whether a fetch of it failed before.
    pub(super) fn is_retry(&self) -> bool {
        self.failures > 0
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.is_awaited && self.not_before <= now
    }

    /// The number of counted addresses. At least one: the addresses for a retry may be unknown.
    fn weight(&self) -> usize {
        if self.is_awaited {
            self.addresses.0.len().max(1)
        } else {
            0
        }
    }
}

/// The queued key ids of one source.
#[derive(Default)]
pub(super) struct Queue {
    queued: Vec<Queued>,
    /// The ids that left without a fetch, and their addresses. If requested again, an id keeps them.
    /// Otherwise a genuine key might lose every draw before its next address is counted.
    former: Vec<(u64, KeyId, Addresses)>,
    oldest_former: usize,
    /// Whether the next token goes to a random id, instead of one with the most addresses.
    at_random: bool,
}

impl Queue {
    /// The queued ids, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.queued.iter()
    }

    /// The queued ids, mutable.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Queued> {
        self.queued.iter_mut()
    }

    /// The queued key with this id.
    pub(super) fn get_mut(&mut self, id: KeyId) -> Option<&mut Queued> {
        self.place(id).and_then(|place| self.queued.get_mut(place))
    }

    /// Whether an id can be fetched now.
    pub(super) fn has_due(&self, now: Timestamp) -> bool {
        self.queued.iter().any(|queued| queued.is_due(now))
    }

    /// The time at which the first id is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.queued.iter().map(|queued| queued.not_before).min()
    }

    /// Takes the addresses of an id that was queued before.
    pub(super) fn former_addresses(&mut self, id: KeyId) -> Addresses {
        let wanted = digest(&id);
        let is_it =
            |(digest, former, _): &&mut (u64, KeyId, Addresses)| *digest == wanted && *former == id;
        let mut former = self
            .former
            .iter_mut()
            .filter(is_it)
            .map(|(.., addresses)| std::mem::take(addresses));
        former
            .find(|addresses| !addresses.0.is_empty())
            .unwrap_or_default()
    }

    /// Keeps the addresses of an id that leaves the queue, in place of the oldest ones.
    pub(super) fn leaves(&mut self, id: KeyId, addresses: Addresses) {
        match self.former.get_mut(self.oldest_former) {
            Some(place) => *place = (digest(&id), id, addresses),
            None => self.former.push((digest(&id), id, addresses)),
        }
        self.oldest_former = self.oldest_former.saturating_add(1) % MAX_FORMER;
    }

    /// Adds an id. If the queue is full, returns the evicted one, possibly the same.
    pub(super) fn add(&mut self, queued: Queued, random: &mut Random) -> Option<Queued> {
        self.queued.push(queued);
        if self.queued.len() > MAX_QUEUED {
            self.evict(random, |_| true)
        } else {
            None
        }
    }

    /// Removes a random one of the ids with the fewest addresses, among those that `may_be`
    /// evicted.
    pub(super) fn evict(
        &mut self,
        random: &mut Random,
        may_be: fn(&Queued) -> bool,
    ) -> Option<Queued> {
        let fewest = self
            .queued
            .iter()
            .filter(|queued| may_be(queued))
            .map(Queued::weight)
            .min()?;
        let mut evicted =
            self.draw(random, |queued| may_be(queued) && queued.weight() == fewest)?;
        self.leaves(evicted.id, std::mem::take(&mut evicted.addresses));
        Some(evicted)
    }

    /// Removes the id that gets the next token: alternately one with the most addresses, and any.
    pub(super) fn next(&mut self, now: Timestamp, random: &mut Random) -> Option<Queued> {
        let most = self
            .queued
            .iter()
            .filter(|queued| queued.is_due(now))
            .map(Queued::weight)
            .max()?;
        let least = if self.at_random { 0 } else { most };
        self.at_random = !self.at_random;
        self.draw(random, |queued| {
            queued.is_due(now) && queued.weight() >= least
        })
    }

    /// Removes this id.
    pub(super) fn remove(&mut self, id: KeyId) -> Option<Queued> {
        let place = self.place(id)?;
        self.take(place)
    }

    /// Removes the entry at this index and moves the last one there.
    fn take(&mut self, place: usize) -> Option<Queued> {
        let last = self.queued.pop()?;
        match self.queued.get_mut(place) {
            Some(taken) => Some(std::mem::replace(taken, last)),
            None => Some(last),
        }
    }

    fn place(&self, id: KeyId) -> Option<usize> {
        let digest = digest(&id);
        self.queued
            .iter()
            .position(|queued| queued.digest == digest && queued.id == id)
    }

    /// Removes an id without requests that needs no retry.
    pub(super) fn remove_unawaited(&mut self, now: Timestamp) -> Option<Queued> {
        let is_over = |queued: &Queued| {
            !queued.is_awaited && (!queued.is_retry() || queued.not_before <= now)
        };
        let place = self.queued.iter().position(is_over)?;
        let mut unawaited = self.take(place)?;
        self.leaves(unawaited.id, std::mem::take(&mut unawaited.addresses));
        Some(unawaited)
    }

    /// Removes one of the candidates, each with the same probability.
    fn draw(&mut self, random: &mut Random, may_be: impl Fn(&Queued) -> bool) -> Option<Queued> {
        let candidates = || {
            self.queued
                .iter()
                .enumerate()
                .filter(|(_, queued)| may_be(queued))
        };
        let drawn = random.below(candidates().count());
        let place = candidates().nth(drawn).map(|(place, _)| place)?;
        self.take(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::source::KeyName;
    use crate::keys::source::KeySourceId;
    use crate::keys::waiters::Waiters;
    use std::net::Ipv4Addr;

    fn id(number: usize) -> KeyId {
        KeyId::uuid(format!("{number:08}-0000-4000-8000-000000000000").as_bytes()).unwrap()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// An id with this many addresses.
    fn queued(number: usize, addresses: u32) -> Queued {
        let list = Waiters::default().open(KeyName {
            source: KeySourceId(0),
            id: id(number),
        });
        let mut queued = Queued::new(id(number), list, Addresses::default(), at(0), 0);
        (0..addresses).for_each(|number| {
            queued
                .addresses
                .add(ClientAddress::V4(Ipv4Addr::from_bits(number)))
        });
        queued
    }

    fn full(random: &mut Random, addresses: u32) -> Queue {
        let mut queue = Queue::default();
        for number in 0..MAX_QUEUED {
            assert!(queue.add(queued(number, addresses), random).is_none());
        }
        queue
    }

    #[test]
    fn counts_each_address_once_and_a_bounded_number() {
        let mut queued = queued(1, 1000);
        assert_eq!(queued.weight(), MAX_ADDRESSES);
        queued.addresses = Addresses::default();
        (0..3).for_each(|_| queued.addresses.add(ClientAddress::Unknown));
        assert_eq!(queued.weight(), 1);
    }

    #[test]
    fn evicts_randomly_among_ids_of_fewest_addresses() {
        let mut evicted = [0; 2];
        let mut random = Random::new(1);
        let mut queue = full(&mut random, 1);
        queue.get_mut(id(7)).unwrap().addresses = queued(7, 2).addresses;
        for _ in 0..10_000 {
            let lost = queue.add(queued(1000, 1), &mut random).unwrap();
            assert_ne!(lost.id, id(7));
            evicted[0] += u32::from(lost.id == id(1000));
            evicted[1] += u32::from(lost.id == id(100));
            if queue.remove(id(1000)).is_some() {
                queue.add(lost, &mut random);
            }
        }
        // About one in 256 of the draws each.
        assert!(
            evicted.iter().all(|count| (15..80).contains(count)),
            "{evicted:?}"
        );
    }

    #[test]
    fn keeps_the_addresses_of_ids_that_left() {
        let mut random = Random::new(1);
        let mut queue = full(&mut random, 3);
        assert_eq!(
            queue.add(queued(1000, 2), &mut random).map(|lost| lost.id),
            Some(id(1000))
        );
        assert_eq!(queue.former_addresses(id(1000)).0.len(), 2);
        assert_eq!(queue.former_addresses(id(1000)).0.len(), 0);
        (0..2 * MAX_FORMER)
            .for_each(|number| drop(queue.add(queued(2000 + number, 1), &mut random)));
        assert_eq!(queue.former.len(), MAX_FORMER);
    }

    #[test]
    fn evicts_ids_without_requests_first() {
        let mut random = Random::new(1);
        let mut queue = full(&mut random, 1);
        queue.get_mut(id(9)).unwrap().is_awaited = false;
        assert_eq!(queue.add(queued(1000, 1), &mut random).unwrap().id, id(9));
    }

    #[test]
    fn every_second_token_goes_to_the_most_addresses() {
        let mut random = Random::new(1);
        let mut queue = full(&mut random, 1);
        for number in [1000, 1001, 1002] {
            queue.remove(id(number - 1000));
            queue.add(queued(number, 3), &mut random);
        }
        let mut drawn: Vec<_> = (0..6)
            .filter_map(|_| queue.next(at(0), &mut random))
            .map(|next| next.weight())
            .collect();
        assert_eq!(
            (drawn.remove(0), drawn.remove(1), drawn.remove(2)),
            (3, 3, 3)
        );
        assert!(drawn.iter().all(|weight| *weight == 1), "{drawn:?}");
    }

    #[test]
    fn gives_no_token_before_the_backoff_is_over() {
        let mut random = Random::new(1);
        let mut queue = Queue::default();
        queue.add(
            Queued {
                not_before: at(100),
                failures: 1,
                ..queued(1, 1)
            },
            &mut random,
        );
        assert_eq!(
            (queue.has_due(at(99)), queue.next_due()),
            (false, Some(at(100)))
        );
        assert!(queue.next(at(99), &mut random).is_none());
        assert_eq!(
            queue.next(at(100), &mut random).map(|next| next.id),
            Some(id(1))
        );
    }
}
