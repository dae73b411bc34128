//! The waiting requests, in one list for each key. Joining and leaving take constant time. No I/O.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::source::KeyName;
use crate::time::Timestamp;

/// A waiting request: a number that the caller chose.
pub type Waiter = u32;

/// A list of requests that wait for one key. Valid from [`Waiters::open`] to [`Waiters::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListId(usize);

/// A list of at least this length is compacted once fewer than half of its requests still wait.
const SHORTEST_CLEARED: usize = 64;

struct List {
    name: KeyName,
    /// In the order of arrival and of deadlines. Requests that the index does not assign to this
    /// list have left.
    waiters: VecDeque<(Waiter, Timestamp)>,
    waiting: usize,
}

/// All waiting requests.
#[derive(Default)]
pub(super) struct Waiters {
    /// The list of each request.
    index: HashMap<Waiter, ListId>,
    lists: Vec<Option<List>>,
}

impl Waiters {
    /// The number of waiting requests.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Opens a list for requests that wait for `name`.
    pub(super) fn open(&mut self, name: KeyName) -> ListId {
        let list = Some(List {
            name,
            waiters: VecDeque::new(),
            waiting: 0,
        });
        match self
            .lists
            .iter_mut()
            .enumerate()
            .find(|(_, place)| place.is_none())
        {
            Some((number, place)) => {
                *place = list;
                ListId(number)
            }
            None => {
                self.lists.push(list);
                ListId(self.lists.len().saturating_sub(1))
            }
        }
    }

    /// Closes a list and returns its waiting requests in order.
    pub(super) fn close(&mut self, id: ListId) -> Vec<Waiter> {
        let list = self.lists.get_mut(id.0).and_then(Option::take);
        let waiters = list.map(|list| list.waiters).unwrap_or_default();
        let mut waits = |waiter: &Waiter| {
            self.index.get(waiter) == Some(&id) && self.index.remove(waiter).is_some()
        };
        waiters
            .into_iter()
            .map(|(waiter, _)| waiter)
            .filter(|waiter| waits(waiter))
            .collect()
    }

    /// Adds a request that waits until `deadline`, which must not be earlier than the previous one.
    pub(super) fn join(&mut self, id: ListId, waiter: Waiter, deadline: Timestamp) {
        let Some(Some(list)) = self.lists.get_mut(id.0) else {
            return;
        };
        if list.waiters.len() >= SHORTEST_CLEARED && list.waiting < list.waiters.len() / 2 {
            let waits = |(waiter, _): &(Waiter, Timestamp)| self.index.get(waiter) == Some(&id);
            list.waiters = list.waiters.iter().copied().filter(waits).collect();
        }
        list.waiters.push_back((waiter, deadline));
        list.waiting = list.waiting.saturating_add(1);
        self.index.insert(waiter, id);
    }

    /// Removes a request. Returns the key it waited for, and whether it was the last one. `None` if
    /// it does not wait.
    pub(super) fn leave(&mut self, waiter: Waiter) -> Option<(KeyName, bool)> {
        let list = self
            .lists
            .get_mut(self.index.remove(&waiter)?.0)?
            .as_mut()?;
        list.waiting = list.waiting.saturating_sub(1);
        Some((list.name, list.waiting == 0))
    }

    /// Removes and returns the requests of a list whose deadline has passed.
    pub(super) fn expire(&mut self, id: ListId, now: Timestamp) -> Vec<Waiter> {
        let mut expired = Vec::new();
        let Some(Some(list)) = self.lists.get_mut(id.0) else {
            return expired;
        };
        while let Some((waiter, deadline)) = list.waiters.front().copied()
            && deadline <= now
        {
            list.waiters.pop_front();
            if self.index.get(&waiter) == Some(&id) {
                self.index.remove(&waiter);
                list.waiting = list.waiting.saturating_sub(1);
                expired.push(waiter);
            }
        }
        expired
    }

    /// The number of requests that wait in a list.
    pub(super) fn waiting(&self, id: ListId) -> usize {
        self.list(id).map_or(0, |list| list.waiting)
    }

    /// At most the earliest deadline in a list: that request may have left.
    pub(super) fn first_deadline(&self, id: ListId) -> Option<Timestamp> {
        self.list(id)?
            .waiters
            .front()
            .map(|(_, deadline)| *deadline)
    }

    /// The latest deadline of the requests that wait in a list.
    pub(super) fn last_deadline(&self, id: ListId) -> Option<Timestamp> {
        let waits = |waiter: &Waiter| self.index.get(waiter) == Some(&id);
        self.list(id)?
            .waiters
            .iter()
            .rev()
            .find(|(waiter, _)| waits(waiter))
            .map(|(_, deadline)| *deadline)
    }

    fn list(&self, id: ListId) -> Option<&List> {
        self.lists.get(id.0)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::source::KeyId;
    use crate::keys::source::KeySourceId;

    fn name(number: usize) -> KeyName {
        let id = format!("{number:08}-0000-4000-8000-000000000000");
        KeyName {
            source: KeySourceId(0),
            id: KeyId::uuid(id.as_bytes()).unwrap(),
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn closing_returns_waiting_requests_in_order() {
        let mut waiters = Waiters::default();
        let (one, other) = (waiters.open(name(1)), waiters.open(name(2)));
        for waiter in [9, 8, 7, 6] {
            waiters.join(one, waiter, at(10));
        }
        waiters.join(other, 5, at(10));
        assert_eq!(waiters.leave(8), Some((name(1), false)));
        assert_eq!(waiters.leave(8), None);
        assert_eq!((waiters.len(), waiters.waiting(one)), (4, 3));
        assert_eq!(waiters.close(one), [9, 7, 6]);
        assert_eq!(waiters.leave(5), Some((name(2), true)));
        assert_eq!(waiters.len(), 0);
        assert_eq!(waiters.open(name(3)), one);
    }

    #[test]
    fn expires_each_request_once() {
        let mut waiters = Waiters::default();
        let list = waiters.open(name(1));
        for (waiter, deadline) in [(1, 10), (2, 10), (3, 20)] {
            waiters.join(list, waiter, at(deadline));
        }
        waiters.leave(1);
        assert_eq!(waiters.first_deadline(list), Some(at(10)));
        assert!(waiters.expire(list, at(9)).is_empty());
        assert_eq!(waiters.expire(list, at(10)), [2]);
        assert_eq!(
            (waiters.last_deadline(list), waiters.waiting(list)),
            (Some(at(20)), 1)
        );
        waiters.leave(3);
        assert_eq!(waiters.last_deadline(list), None);
    }

    #[test]
    fn compacts_lists_of_requests_that_left() {
        let mut waiters = Waiters::default();
        let list = waiters.open(name(1));
        for waiter in 0..100_000 {
            waiters.join(list, waiter, at(10));
            waiters.leave(waiter);
        }
        let length = waiters.list(list).map(|list| list.waiters.len());
        assert!(length <= Some(SHORTEST_CLEARED), "{length:?}");
    }
}
