//! ALB keys that some worker of the Envoy fetched, as bytes of its shared data. A worker looks here
//! before it fetches an unknown key, and so does a VM that starts anew. Keys of a key set are not
//! shared. No host calls.

use super::source::KeyId;
use crate::crypto::es256::{P256Key, SPKI_LENGTH};
use crate::time::Timestamp;

/// ALB keys that workers share as one value of Envoy's shared data: the last [`SharedKeys::MAX`]
/// fetched.
///
/// One value, because shared data never deletes a key. A record is the key id, the
/// SubjectPublicKeyInfo, and two times in milliseconds of the steady clock, little-endian: when the
/// fetch that returned the key was sent, and when the fetch that found it withdrawn was sent,
/// otherwise 0. The workers of a process have one steady clock.
///
/// Answers are ordered by the times at which their fetches were sent, so it does not matter which
/// worker writes first.
#[derive(Default)]
pub(crate) struct SharedKeys(Vec<SharedKey>);

struct SharedKey {
    id: KeyId,
    spki: [u8; SPKI_LENGTH],
    fetched: Timestamp,
    withdrawn: Option<Timestamp>,
}

/// A key that some worker fetched.
pub(crate) struct FoundKey {
    pub(crate) key: P256Key,
    /// When its fetch was sent, by the steady clock.
    pub(crate) fetched: Timestamp,
    /// Whether the key server no longer has it.
    pub(crate) withdrawn: bool,
}

/// How an answer relates to the answers that other workers shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merged {
    /// It changed the shared keys.
    Changed,
    /// It changed nothing.
    Unchanged,
    /// A later fetch had the opposite result.
    Outdated,
}

impl SharedKeys {
    /// The most shared keys.
    pub(crate) const MAX: usize = 32;

    /// Parses a value from [`SharedKeys::to_bytes`]. Skips malformed records.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut records = Vec::new();
        let mut rest = bytes;
        while let Some((id, after_id)) = rest.split_first_chunk::<{ KeyId::UUID_LENGTH }>()
            && let Some((spki, after_spki)) = after_id.split_first_chunk::<SPKI_LENGTH>()
            && let Some((fetched, after_fetched)) = after_spki.split_first_chunk::<8>()
            && let Some((withdrawn, after)) = after_fetched.split_first_chunk::<8>()
        {
            if let Some(id) = KeyId::uuid(id) {
                let withdrawn = u64::from_le_bytes(*withdrawn);
                records.push(SharedKey {
                    id,
                    spki: *spki,
                    fetched: Timestamp::from_millis(u64::from_le_bytes(*fetched)),
                    withdrawn: (withdrawn != 0).then_some(Timestamp::from_millis(withdrawn)),
                });
            }
            rest = after;
        }
        Self(records)
    }

    /// The value to store.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let record = |key: &SharedKey| {
            let fetched = key.fetched.millis().to_le_bytes();
            let withdrawn = key.withdrawn.map_or(0, Timestamp::millis).to_le_bytes();
            [key.id.as_bytes(), &key.spki, &fetched, &withdrawn].concat()
        };
        self.0.iter().flat_map(record).collect()
    }

    fn find(&self, id: KeyId) -> Option<&SharedKey> {
        self.0.iter().find(|shared| shared.id == id)
    }

    /// The key `id`. [`super::cache::KeyCache::adopt`] checks its age.
    pub(crate) fn get(&self, id: KeyId) -> Option<FoundKey> {
        let shared = self.find(id)?;
        Some(FoundKey {
            key: P256Key::from_spki(&shared.spki)?,
            fetched: shared.fetched,
            withdrawn: shared.withdrawn.is_some(),
        })
    }

    /// Whether the key server has withdrawn the key `id`.
    pub(crate) fn is_withdrawn(&self, id: KeyId) -> bool {
        self.find(id)
            .is_some_and(|shared| shared.withdrawn.is_some())
    }

    /// Adds a key from a fetch that was sent at `sent`. Replaces the one with the same id, or else
    /// the oldest.
    pub(crate) fn put(&mut self, id: KeyId, key: &P256Key, sent: Timestamp) -> Merged {
        if let Some(shared) = self.find(id) {
            if shared.withdrawn.is_some_and(|withdrawn| sent <= withdrawn) {
                return Merged::Outdated;
            }
            if sent < shared.fetched {
                return Merged::Unchanged;
            }
        }
        self.0.retain(|shared| shared.id != id);
        self.0.push(SharedKey {
            id,
            spki: *key.spki(),
            fetched: sent,
            withdrawn: None,
        });
        if self.0.len() > Self::MAX {
            let oldest = self.0.first().map(|shared| shared.id);
            self.0.retain(|shared| Some(shared.id) != oldest);
        }
        Merged::Changed
    }

    /// Marks the key `id` as withdrawn, as a fetch that was sent at `sent` found.
    pub(crate) fn withdraw(&mut self, id: KeyId, sent: Timestamp) -> Merged {
        let Some(shared) = self.0.iter_mut().find(|shared| shared.id == id) else {
            return Merged::Unchanged;
        };
        if sent < shared.fetched {
            return Merged::Outdated;
        }
        if shared.withdrawn >= Some(sent) {
            return Merged::Unchanged;
        }
        shared.withdrawn = Some(sent);
        Merged::Changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::es256::known_answer;

    fn id(number: usize) -> KeyId {
        KeyId::uuid(format!("{number:08}-0000-4000-8000-000000000000").as_bytes()).unwrap()
    }

    fn p256() -> P256Key {
        P256Key::from_spki(&known_answer::SPKI).unwrap()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000 + millis)
    }

    /// The time of the fetch and the mark of the key `number`, after a round trip.
    fn stored(shared: &SharedKeys, number: usize) -> Option<(Timestamp, bool)> {
        let found = SharedKeys::from_bytes(&shared.to_bytes()).get(id(number))?;
        assert_eq!(found.key.spki(), &known_answer::SPKI);
        Some((found.fetched, found.withdrawn))
    }

    #[test]
    fn shares_time_and_withdrawal() {
        let mut shared = SharedKeys::default();
        assert_eq!(shared.put(id(1), &p256(), at(5)), Merged::Changed);
        assert_eq!(shared.put(id(2), &p256(), at(6)), Merged::Changed);
        assert_eq!(stored(&shared, 1), Some((at(5), false)));
        assert_eq!(shared.withdraw(id(1), at(8)), Merged::Changed);
        assert_eq!(shared.withdraw(id(1), at(8)), Merged::Unchanged);
        assert_eq!(shared.withdraw(id(3), at(8)), Merged::Unchanged);
        assert_eq!(stored(&shared, 1), Some((at(5), true)));
        assert_eq!(stored(&shared, 2), Some((at(6), false)));
        assert_eq!(stored(&shared, 3), None);
        assert!(shared.is_withdrawn(id(1)) && !shared.is_withdrawn(id(2)));
        assert!(!shared.is_withdrawn(id(3)));
        assert_eq!(shared.put(id(1), &p256(), at(9)), Merged::Changed);
        assert_eq!(stored(&shared, 1), Some((at(9), false)));
    }

    #[test]
    fn late_answers_to_early_fetches_change_nothing() {
        let mut shared = SharedKeys::default();
        shared.put(id(1), &p256(), at(5));
        shared.withdraw(id(1), at(8));
        for sent in [at(4), at(7), at(8)] {
            assert_eq!(shared.put(id(1), &p256(), sent), Merged::Outdated);
            assert_eq!(stored(&shared, 1), Some((at(5), true)));
        }
        // The mark stays that of the latest fetch.
        assert_eq!(shared.withdraw(id(1), at(6)), Merged::Unchanged);
        assert_eq!(shared.put(id(1), &p256(), at(8)), Merged::Outdated);
        assert_eq!(shared.put(id(1), &p256(), at(9)), Merged::Changed);
        assert_eq!(shared.put(id(1), &p256(), at(7)), Merged::Unchanged);
        assert_eq!(shared.withdraw(id(1), at(8)), Merged::Outdated);
        assert_eq!(stored(&shared, 1), Some((at(9), false)));
        // Of two fetches in one millisecond, the mark counts.
        assert_eq!(shared.withdraw(id(1), at(9)), Merged::Changed);
        assert_eq!(shared.put(id(1), &p256(), at(9)), Merged::Outdated);
    }

    #[test]
    fn shares_only_the_last_fetched() {
        let mut shared = SharedKeys::default();
        for number in 0..100 {
            shared.put(id(number), &p256(), at(number as u64));
            shared.put(id(number), &p256(), at(number as u64));
        }
        assert_eq!(shared.0.len(), SharedKeys::MAX);
        assert!(shared.get(id(99)).is_some() && shared.get(id(67)).is_none());
    }

    #[test]
    fn skips_malformed_records() {
        let mut shared = SharedKeys::default();
        shared.put(id(1), &p256(), at(0));
        let bytes = shared.to_bytes();
        assert_eq!(SharedKeys::from_bytes(&bytes[..bytes.len() - 1]).0.len(), 0);
        let mut off_curve = bytes.clone();
        off_curve[KeyId::UUID_LENGTH + SPKI_LENGTH - 1] ^= 1;
        assert!(SharedKeys::from_bytes(&off_curve).get(id(1)).is_none());
        assert!(SharedKeys::from_bytes(b"x").0.is_empty());
    }
}
