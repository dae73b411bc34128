//! The requests that wait, in one list for each key. Joining and leaving take constant time,
//! however many wait. No I/O.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::source::KeyName;
use crate::time::Timestamp;

/// A request that waits, by the caller's number for it.
pub type Waiter = u32;

/// A list of requests that wait for one key. Valid from [`Waiters::open`] to [`Waiters::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListId(usize);

/// A list is cleared of requests that have left once it is this long and fewer than half of it
/// still wait.
const SHORTEST_CLEARED: usize = 64;

struct List {
    name: KeyName,
    /// In the order in which they came, which is that of their deadlines. Those that are elsewhere
    /// in the index, or nowhere, have left.
    waiters: VecDeque<(Waiter, Timestamp)>,
    waiting: usize,
}

/// Every request that waits.
#[derive(Default)]
pub(super) struct Waiters {
    /// Which list a request is in.
    index: HashMap<Waiter, ListId>,
    lists: Vec<Option<List>>,
}

impl Waiters {
    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// A new list of requests that wait for `name`.
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

    /// Ends a list; the requests that waited in it, in the order in which they came.
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

    /// Adds a request, which waits until `deadline`: no earlier than that of the request before.
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

    /// Forgets a request; the key that it waited for, and whether nobody waits for that any more.
    /// `None` if it does not wait.
    pub(super) fn leave(&mut self, waiter: Waiter) -> Option<(KeyName, bool)> {
        let list = self
            .lists
            .get_mut(self.index.remove(&waiter)?.0)?
            .as_mut()?;
        list.waiting = list.waiting.saturating_sub(1);
        Some((list.name, list.waiting == 0))
    }

    /// Takes out of a list the requests whose deadline has come.
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

    /// How many requests wait in a list.
    pub(super) fn waiting(&self, id: ListId) -> usize {
        self.list(id).map_or(0, |list| list.waiting)
    }

    /// No request of a list has an earlier deadline. One that has left may have had it.
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
    fn closes_a_list_with_those_who_still_wait_in_order() {
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
    fn bounds_the_memory_of_requests_that_have_left() {
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
