//! Cache of verified tokens, keyed by the exact token bytes. Only verified tokens enter it.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::rc::Rc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::identity::Identity;
use crate::time::Timestamp;

/// The most bytes of all entries: 10,000 users with 1.2 KB each, in a module that takes 16 MiB in
/// total.
const MAX_BYTES: usize = 14 * 1024 * 1024 + 832 * 1024;

/// The number of bytes hashed at a token's end: its signature in base64, padded or not, which is
/// close to random.
const HASHED: usize = 88;

/// The token cache of one plugin in one worker. Eviction is second-chance: the oldest entry that
/// was not used since its last turn goes first.
#[derive(Default)]
pub(crate) struct TokenCache {
    /// Boxed: the table doubles as it grows, and should then copy a few pages instead of megabytes.
    entries: HashTable<Box<Entry>>,
    /// The hash of each entry in eviction order.
    order: VecDeque<u64>,
    bytes: usize,
    hasher: DefaultHashBuilder,
}

struct Entry {
    hash: u64,
    token: Box<[u8]>,
    /// The access token that was verified together with it.
    access_token: Option<Box<[u8]>>,
    identity: Rc<Identity>,
    expires: Timestamp,
    is_used: bool,
}

impl Entry {
    /// The memory of an entry without its texts.
    const OVERHEAD: usize = 208;
    /// The memory of a group or of a header's name or value without its letters: its slot in a list
    /// that may be half full, and the allocator's overhead.
    const OVERHEAD_OF_TEXT: usize = 40;

    fn cost(&self) -> usize {
        let Identity {
            user_id,
            email_domain,
            groups,
            subject,
            headers,
            dropped: _,
            load_balancer: _,
        } = &*self.identity;
        let single = [user_id]
            .into_iter()
            .chain(email_domain)
            .chain(subject)
            .map(String::len);
        let listed = groups
            .iter()
            .chain(headers.iter().flat_map(|(name, value)| [name, value]));
        let listed = listed.map(|text| text.len().saturating_add(Self::OVERHEAD_OF_TEXT));
        let tokens = [
            self.token.len(),
            self.access_token.as_ref().map_or(0, |token| token.len()),
        ];
        single
            .chain(listed)
            .chain(tokens)
            .fold(Self::OVERHEAD, usize::saturating_add)
    }
}

impl TokenCache {
    /// The identity of `token`, if it was verified with exactly these access tokens and has not
    /// expired.
    pub(crate) fn get<'a>(
        &mut self,
        token: &[u8],
        access_tokens: impl Iterator<Item = &'a [u8]>,
        now: Timestamp,
    ) -> Option<Rc<Identity>> {
        let hash = hash(&self.hasher, token);
        // Only a token with the same signature is compared, so timing reveals nothing to a guesser.
        let entry = self.entries.find_mut(hash, |entry| {
            entry.hash == hash && is_same(&entry.token, token)
        })?;
        if now >= entry.expires || !access_tokens.eq(entry.access_token.as_deref()) {
            return None;
        }
        entry.is_used = true;
        Some(Rc::clone(&entry.identity))
    }

    /// Adds `identity` for `token`, verified with this access token, until it `expires`.
    pub(crate) fn put(
        &mut self,
        token: &[u8],
        access_token: Option<&[u8]>,
        identity: &Rc<Identity>,
        expires: Timestamp,
    ) {
        let hash = hash(&self.hasher, token);
        let (token, access_token) = (token.into(), access_token.map(Box::from));
        let entry = Entry {
            hash,
            token,
            access_token,
            identity: Rc::clone(identity),
            expires,
            is_used: false,
        };
        let cost = entry.cost();
        while self.bytes.saturating_add(cost) > MAX_BYTES && self.evict_one() {}
        self.bytes = self.bytes.saturating_add(cost);
        if let Some(known) = self
            .entries
            .find_mut(hash, |known| is_same(&known.token, &entry.token))
        {
            let before = std::mem::replace(&mut **known, entry);
            self.bytes = self.bytes.saturating_sub(before.cost());
        } else {
            self.order.push_back(hash);
            self.entries
                .insert_unique(hash, Box::new(entry), |entry| entry.hash);
        }
    }

    /// Evicts one entry; `false` if the cache is empty.
    fn evict_one(&mut self) -> bool {
        while let Some(hash) = self.order.pop_front() {
            // Two entries with one hash may swap order.
            let Ok(mut found) = self.entries.find_entry(hash, |entry| entry.hash == hash) else {
                continue;
            };
            if std::mem::take(&mut found.get_mut().is_used) {
                self.order.push_back(hash);
                continue;
            }
            self.bytes = self.bytes.saturating_sub(found.remove().0.cost());
            return true;
        }
        false
    }
}

fn hash(hasher: &DefaultHashBuilder, token: &[u8]) -> u64 {
    hasher.hash_one(token.get(token.len().saturating_sub(HASHED)..))
}

/// Whether both are equal. WebAssembly has no instruction for it, and its C library compares single
/// bytes.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let ((one, rest), (other, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let mut pairs = one.iter().zip(other);
    one.len() == other.len()
        && rest == other_rest
        && pairs.all(|(one, other)| u64::from_ne_bytes(*one) == u64::from_ne_bytes(*other))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1);
    const LATER: Timestamp = Timestamp::from_seconds(2);

    fn identity(user_id: &str) -> Rc<Identity> {
        Rc::new(Identity {
            load_balancer: 0,
            user_id: user_id.to_owned(),
            email_domain: None,
            groups: Vec::new(),
            subject: None,
            headers: Vec::new(),
            dropped: 0,
        })
    }

    impl TokenCache {
        fn user(&mut self, token: &[u8], access_tokens: &[&[u8]]) -> Option<String> {
            self.get(token, access_tokens.iter().copied(), NOW)
                .map(|identity| identity.user_id.clone())
        }
    }

    #[test]
    fn distinguishes_tokens_that_differ_in_one_bit() {
        let mut tokens = TokenCache::default();
        let token: Vec<u8> = (0..203).map(|byte| byte as u8).collect();
        tokens.put(&token, None, &identity("ann"), LATER);
        assert_eq!(tokens.user(&token, &[]).as_deref(), Some("ann"));
        for place in 0..token.len() {
            let mut other = token.clone();
            other[place] ^= 1;
            assert!(tokens.user(&other, &[]).is_none(), "{place}");
            assert!(!is_same(&token, &other), "{place}");
        }
        for length in 0..token.len() {
            assert!(
                !is_same(&token, &token[..length]) && !is_same(&token[..length], &token),
                "{length}"
            );
            assert!(
                is_same(&token[..length], &token.clone()[..length]),
                "{length}"
            );
            assert!(tokens.user(&token[..length], &[]).is_none(), "{length}");
            assert!(tokens.user(&token[length + 1..], &[]).is_none(), "{length}");
        }
    }

    #[test]
    fn hits_only_with_the_same_access_token() {
        let mut tokens = TokenCache::default();
        tokens.put(b"token", Some(b"access"), &identity("ann"), LATER);
        let (access, another) = (&b"access"[..], &b"another"[..]);
        for others in [
            &[][..],
            &[another],
            &[access, access],
            &[access, another],
            &[another, access],
        ] {
            assert_eq!(tokens.user(b"token", others), None);
        }
        assert_eq!(tokens.user(b"token", &[b"access"]).as_deref(), Some("ann"));
        tokens.put(b"token", Some(b"another"), &identity("bob"), LATER);
        assert_eq!(tokens.user(b"token", &[b"another"]).as_deref(), Some("bob"));
        assert_eq!(tokens.user(b"token", &[b"access"]), None);
        assert_eq!(
            tokens.bytes,
            "token".len() + "another".len() + "bob".len() + Entry::OVERHEAD
        );
    }

    #[test]
    fn expired_entry_is_a_miss() {
        let mut tokens = TokenCache::default();
        tokens.put(b"token", None, &identity("ann"), LATER);
        assert!(tokens.get(b"token", std::iter::empty(), LATER).is_none());
        assert!(tokens.get(b"token", std::iter::empty(), NOW).is_some());
    }

    #[test]
    fn stays_within_bytes_and_keeps_used_entries() {
        let mut tokens = TokenCache::default();
        let token = |number: usize| format!("{number:01200}").into_bytes();
        for number in 0..40_000 {
            tokens.put(&token(number), None, &identity("ann"), LATER);
            assert!(
                tokens.user(&token(0), &[]).is_some(),
                "evicted after {number}"
            );
            assert!(tokens.bytes <= MAX_BYTES);
        }
        assert!(tokens.user(&token(1), &[]).is_none());
        let cached = (0..40_000)
            .filter(|number| tokens.user(&token(*number), &[]).is_some())
            .count();
        assert!(cached >= 10_000, "{cached}");
        assert_eq!(tokens.order.len(), tokens.entries.len());
        assert_eq!(
            tokens.bytes,
            tokens
                .entries
                .iter()
                .map(|entry| entry.cost())
                .sum::<usize>()
        );
    }
}
