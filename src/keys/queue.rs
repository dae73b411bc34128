//! Key ids that wait for a token to be fetched, and which of them gets it. Invented ids must not
//! keep a genuine one from being fetched: the id that most clients ask for comes first. No I/O; the
//! time and the random numbers are arguments.

use super::client_address::ClientAddress;
use super::random::Random;
use super::waiters::ListId;
use crate::keys::source::KeyId;
use crate::time::Timestamp;

/// The most key ids that are queued.
pub(super) const MAX_QUEUED: usize = 256;
/// The most client addresses that are counted for one key id.
const MAX_ADDRESSES: usize = 64;
/// Of how many ids that left the queue the addresses are kept.
const MAX_FORMER: usize = 512;

/// The distinct addresses of the clients that have asked for a key id, up to [`MAX_ADDRESSES`].
#[derive(Default)]
pub(super) struct Addresses(Vec<ClientAddress>);

impl Addresses {
    /// Counts an address that has not been counted yet.
    pub(super) fn add(&mut self, address: ClientAddress) {
        if self.0.len() < MAX_ADDRESSES
            && let Err(place) = self.0.binary_search(&address)
        {
            self.0.insert(place, address);
        }
    }
}

/// A number by which most ids differ: comparing whole ids that begin alike takes long.
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
    /// It is not fetched before this: its last fetch failed.
    pub(super) not_before: Timestamp,
    /// How often its fetch has failed.
    pub(super) failures: u32,
    /// Whether a request waits for it.
    pub(super) is_awaited: bool,
}

impl Queued {
    /// An id that a request begins to wait for.
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

    /// Whether it was fetched before, in vain.
    pub(super) fn is_retry(&self) -> bool {
        self.failures > 0
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.is_awaited && self.not_before <= now
    }

    /// How many addresses ask for it. A retry whose clients' addresses were never read has at least
    /// one client.
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
    /// The ids that left without being fetched, and the addresses that asked for them. If they are
    /// asked for again, they go on from there: else each request for a genuine key might lose the
    /// lot before the next address asks for it.
    former: Vec<(u64, KeyId, Addresses)>,
    oldest_former: usize,
    /// Whether the next token goes to an id by lot, and not to the one that most addresses ask for.
    by_lot: bool,
}

impl Queue {
    /// The queued ids, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.queued.iter()
    }

    /// The same, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Queued> {
        self.queued.iter_mut()
    }

    /// What is queued for this id.
    pub(super) fn get_mut(&mut self, id: KeyId) -> Option<&mut Queued> {
        self.place(id).and_then(|place| self.queued.get_mut(place))
    }

    /// Whether an id could be fetched now.
    pub(super) fn has_due(&self, now: Timestamp) -> bool {
        self.queued.iter().any(|queued| queued.is_due(now))
    }

    /// From when on an id is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.queued.iter().map(|queued| queued.not_before).min()
    }

    /// The addresses that have asked for an id which was in the queue before.
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

    /// Keeps the addresses that have asked for an id which leaves the queue, in the place of the
    /// one that left longest ago.
    pub(super) fn leaves(&mut self, id: KeyId, addresses: Addresses) {
        match self.former.get_mut(self.oldest_former) {
            Some(place) => *place = (digest(&id), id, addresses),
            None => self.former.push((digest(&id), id, addresses)),
        }
        self.oldest_former = self.oldest_former.saturating_add(1) % MAX_FORMER;
    }

    /// Adds an id. Where that is one too many, returns the one that gives way, perhaps the same.
    pub(super) fn add(&mut self, queued: Queued, random: &mut Random) -> Option<Queued> {
        self.queued.push(queued);
        if self.queued.len() > MAX_QUEUED {
            self.give_way(random, |_| true)
        } else {
            None
        }
    }

    /// Removes one of the ids that the fewest addresses ask for, among those that may be removed.
    pub(super) fn give_way(
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
        let mut gives_way =
            self.draw(random, |queued| may_be(queued) && queued.weight() == fewest)?;
        self.leaves(gives_way.id, std::mem::take(&mut gives_way.addresses));
        Some(gives_way)
    }

    /// Removes the id that the next token goes to: in turn one that most addresses ask for, and any
    /// one.
    pub(super) fn next(&mut self, now: Timestamp, random: &mut Random) -> Option<Queued> {
        let most = self
            .queued
            .iter()
            .filter(|queued| queued.is_due(now))
            .map(Queued::weight)
            .max()?;
        let least = if self.by_lot { 0 } else { most };
        self.by_lot = !self.by_lot;
        self.draw(random, |queued| {
            queued.is_due(now) && queued.weight() >= least
        })
    }

    /// Removes this id.
    pub(super) fn remove(&mut self, id: KeyId) -> Option<Queued> {
        let place = self.place(id)?;
        self.take(place)
    }

    /// Removes what stands in this place; the last one takes it.
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

    /// Removes an id that nobody waits for and that need not be kept for its retry.
    pub(super) fn remove_unawaited(&mut self, now: Timestamp) -> Option<Queued> {
        let is_over = |queued: &Queued| {
            !queued.is_awaited && (!queued.is_retry() || queued.not_before <= now)
        };
        let place = self.queued.iter().position(is_over)?;
        let mut unawaited = self.take(place)?;
        self.leaves(unawaited.id, std::mem::take(&mut unawaited.addresses));
        Some(unawaited)
    }

    /// Removes one of those that may be drawn, each with the same chance.
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

    /// An id that so many addresses ask for.
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
    fn evicts_by_lot_among_ids_of_fewest_addresses() {
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
        // One in 256 of them each.
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
    fn evicts_a_retry_that_nobody_waits_for_first() {
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
