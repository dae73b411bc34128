//! ALB keys that some worker of the Envoy fetched, as bytes of its shared data. A worker looks here
//! before it fetches an unknown key; refreshes and keys of a key set are not shared. No host calls.

use std::time::Duration;

use super::source::KeyId;
use crate::crypto::es256::{P256Key, SPKI_LENGTH};
use crate::time::Timestamp;

/// ALB keys that workers share as one value of Envoy's shared data: the last [`SharedKeys::MAX`]
/// fetched.
///
/// One value, because shared data never deletes a key. A record is the key id, the
/// SubjectPublicKeyInfo and the time of the fetch in milliseconds since the epoch, little-endian.
#[derive(Default)]
pub(crate) struct SharedKeys(Vec<SharedKey>);

struct SharedKey {
    id: KeyId,
    spki: [u8; SPKI_LENGTH],
    fetched: Timestamp,
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
            && let Some((fetched, after)) = after_spki.split_first_chunk::<8>()
        {
            if let Some(id) = KeyId::uuid(id) {
                let fetched = Timestamp::from_millis(u64::from_le_bytes(*fetched));
                records.push(SharedKey {
                    id,
                    spki: *spki,
                    fetched,
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
            [key.id.as_bytes(), &key.spki, &fetched].concat()
        };
        self.0.iter().flat_map(record).collect()
    }

    /// The key `id` and its age; `None` if that is negative or at least `ttl`. `now` is of the
    /// clock that all workers share, as in [`SharedKeys::put`].
    pub(crate) fn get(
        &self,
        id: KeyId,
        ttl: Duration,
        now: Timestamp,
    ) -> Option<(P256Key, Duration)> {
        let shared = self.0.iter().find(|shared| shared.id == id)?;
        let age = shared.fetched.until(now);
        let fresh = shared.fetched <= now && age < ttl;
        let key = if fresh {
            P256Key::from_spki(&shared.spki)
        } else {
            None
        };
        Some((key?, age))
    }

    /// Adds a key that was just fetched. Replaces the one with the same id, or else the oldest.
    pub(crate) fn put(&mut self, id: KeyId, key: &P256Key, fetched: Timestamp) {
        self.0.retain(|shared| shared.id != id);
        self.0.push(SharedKey {
            id,
            spki: *key.spki(),
            fetched,
        });
        if self.0.len() > Self::MAX {
            self.0.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::es256::known_answer;

    const TTL: Duration = Duration::from_secs(1000);

    fn id(number: usize) -> KeyId {
        KeyId::uuid(format!("{number:08}-0000-4000-8000-000000000000").as_bytes()).unwrap()
    }

    fn p256() -> P256Key {
        P256Key::from_spki(&known_answer::SPKI).unwrap()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000 + millis)
    }

    #[test]
    fn shares_keys_until_their_ttl() {
        let mut shared = SharedKeys::default();
        shared.put(id(1), &p256(), at(0));
        let shared = SharedKeys::from_bytes(&shared.to_bytes());
        let (found, age) = shared.get(id(1), TTL, at(5)).unwrap();
        assert_eq!(
            (found.spki(), age),
            (&known_answer::SPKI, Duration::from_millis(5))
        );
        assert!(shared.get(id(2), TTL, at(5)).is_none());
        assert!(shared.get(id(1), TTL, at(1_000_000)).is_none());
        assert!(
            shared
                .get(id(1), TTL, at(0).min(Timestamp::from_millis(1)))
                .is_none()
        );
    }

    #[test]
    fn shares_only_the_last_fetched() {
        let mut shared = SharedKeys::default();
        for number in 0..100 {
            shared.put(id(number), &p256(), at(number as u64));
            shared.put(id(number), &p256(), at(number as u64));
        }
        assert_eq!(shared.0.len(), SharedKeys::MAX);
        assert!(
            shared.get(id(99), TTL, at(100)).is_some()
                && shared.get(id(67), TTL, at(100)).is_none()
        );
    }

    #[test]
    fn skips_malformed_records() {
        let mut shared = SharedKeys::default();
        shared.put(id(1), &p256(), at(0));
        let bytes = shared.to_bytes();
        assert_eq!(SharedKeys::from_bytes(&bytes[..bytes.len() - 1]).0.len(), 0);
        let mut off_curve = bytes.clone();
        off_curve[KeyId::UUID_LENGTH + SPKI_LENGTH - 1] ^= 1;
        assert!(
            SharedKeys::from_bytes(&off_curve)
                .get(id(1), TTL, at(1))
                .is_none()
        );
        assert!(SharedKeys::from_bytes(b"x").0.is_empty());
    }
}
