//! The queue of requests that no longer wait and are not yet resumed. No host calls: the plugin
//! resumes them.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::keys::waiters::Waiter;

/// The requests to resume, in the order in which their waiting ended, each with how it ended. One
/// that its client ends meanwhile leaves in constant time: thousands may be woken at once.
pub(super) struct WokenRequests<E> {
    /// It may still name requests that have left.
    order: VecDeque<Waiter>,
    endings: HashMap<Waiter, E>,
}

impl<E> Default for WokenRequests<E> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            endings: HashMap::new(),
        }
    }
}

impl<E> WokenRequests<E> {
    /// Adds a request.
    pub(super) fn push(&mut self, id: Waiter, ending: E) {
        self.order.push_back(id);
        self.endings.insert(id, ending);
    }

    /// Removes the request that was added first.
    pub(super) fn pop(&mut self) -> Option<(Waiter, E)> {
        while let Some(id) = self.order.pop_front() {
            if let Some(ending) = self.endings.remove(&id) {
                return Some((id, ending));
            }
        }
        None
    }

    /// Removes a request that is over.
    pub(super) fn leave(&mut self, id: Waiter) {
        self.endings.remove(&id);
        if self.endings.is_empty() {
            self.order.clear();
        }
    }

    /// How many requests are to be resumed.
    pub(super) fn len(&self) -> usize {
        self.endings.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.endings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumes_in_order_and_skips_requests_that_left() {
        let mut woken = WokenRequests::default();
        (1..=4).for_each(|id| woken.push(id, id * 10));
        woken.leave(2);
        woken.leave(7);
        assert_eq!((woken.pop(), woken.len()), (Some((1, 10)), 2));
        assert_eq!(
            (woken.pop(), woken.pop(), woken.pop()),
            (Some((3, 30)), Some((4, 40)), None)
        );
        assert!(woken.is_empty());
    }

    #[test]
    fn keeps_nothing_of_requests_that_left() {
        let mut woken = WokenRequests::default();
        woken.push(1, ());
        woken.leave(1);
        assert!(woken.is_empty() && woken.order.is_empty());
    }
}
