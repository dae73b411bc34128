//! Users by random id: the identity provider's authorization codes and sessions. No I/O.

use std::collections::VecDeque;

use uuid::Uuid;

use super::users::User;

/// The most entries. A further one evicts the oldest.
const CAPACITY: usize = 1024;

/// Users by random id, the oldest first.
#[derive(Default)]
pub(super) struct UsersById(VecDeque<(String, User)>);

impl UsersById {
    /// Adds `user` and returns its new id.
    pub(super) fn add(&mut self, user: User) -> String {
        let id = Uuid::new_v4().to_string();
        self.0.push_back((id.clone(), user));
        while self.0.len() > CAPACITY {
            self.0.pop_front();
        }
        id
    }

    pub(super) fn get(&self, id: &str) -> Option<User> {
        self.0
            .iter()
            .find(|(known, _)| known == id)
            .map(|(_, user)| user.clone())
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<User> {
        let position = self.0.iter().position(|(known, _)| known == id)?;
        self.0.remove(position).map(|(_, user)| user)
    }
}
