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
/// SubjectPublicKeyInfo, the time of the fetch in milliseconds of the steady clock, little-endian,
/// and 1 if the key server has withdrawn the key, otherwise 0. The workers of a process have one
/// steady clock.
#[derive(Default)]
pub(crate) struct SharedKeys(Vec<SharedKey>);

struct SharedKey {
    id: KeyId,
    spki: [u8; SPKI_LENGTH],
    fetched: Timestamp,
    withdrawn: bool,
}

/// A key that some worker fetched.
pub(crate) struct FoundKey {
    pub(crate) key: P256Key,
    /// By the steady clock.
    pub(crate) fetched: Timestamp,
    /// Whether the key server no longer has it.
    pub(crate) withdrawn: bool,
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
            && let Some((withdrawn, after)) = after_fetched.split_first()
        {
            if let Some(id) = KeyId::uuid(id) {
                let fetched = Timestamp::from_millis(u64::from_le_bytes(*fetched));
                records.push(SharedKey {
                    id,
                    spki: *spki,
                    fetched,
                    withdrawn: *withdrawn != 0,
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
            let withdrawn = [u8::from(key.withdrawn)];
            [key.id.as_bytes(), &key.spki, &fetched, &withdrawn].concat()
        };
        self.0.iter().flat_map(record).collect()
    }

    /// The key `id`. [`super::cache::KeyCache::adopt`] checks its age.
    pub(crate) fn get(&self, id: KeyId) -> Option<FoundKey> {
        let shared = self.0.iter().find(|shared| shared.id == id)?;
        Some(FoundKey {
            key: P256Key::from_spki(&shared.spki)?,
            fetched: shared.fetched,
            withdrawn: shared.withdrawn,
        })
    }

    /// Adds a key that was just fetched. Replaces the one with the same id, or else the oldest.
    pub(crate) fn put(&mut self, id: KeyId, key: &P256Key, fetched: Timestamp) {
        self.0.retain(|shared| shared.id != id);
        self.0.push(SharedKey {
            id,
            spki: *key.spki(),
            fetched,
            withdrawn: false,
        });
        if self.0.len() > Self::MAX {
            let oldest = self.0.first().map(|shared| shared.id);
            self.0.retain(|shared| Some(shared.id) != oldest);
        }
    }

    /// Marks the key `id` as withdrawn. Returns whether that changed it.
    pub(crate) fn withdraw(&mut self, id: KeyId) -> bool {
        let shared = self.0.iter_mut().find(|shared| shared.id == id);
        shared.is_some_and(|shared| !std::mem::replace(&mut shared.withdrawn, true))
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
        shared.put(id(1), &p256(), at(5));
        shared.put(id(2), &p256(), at(6));
        assert_eq!(stored(&shared, 1), Some((at(5), false)));
        assert!(shared.withdraw(id(1)) && !shared.withdraw(id(1)) && !shared.withdraw(id(3)));
        assert_eq!(stored(&shared, 1), Some((at(5), true)));
        assert_eq!(stored(&shared, 2), Some((at(6), false)));
        assert_eq!(stored(&shared, 3), None);
        shared.put(id(1), &p256(), at(7));
        assert_eq!(stored(&shared, 1), Some((at(7), false)));
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
