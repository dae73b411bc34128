//! Where public keys are published, what a key is called there, and what a fetch can result in.
//! Types only: no I/O, no cache.

use std::time::Duration;

use crate::crypto::PublicKey;

/// The id of a signing key, kept as the token spells it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId {
    /// Visible ASCII, filled up with NUL.
    bytes: [u8; Self::MAX],
    length: u8,
}

impl KeyId {
    /// The length of a UUID's text form, in bytes.
    pub const UUID_LENGTH: usize = 36;
    /// The longest key id of a JSON Web Key that is trusted, in bytes. RFC 7517, section 4.5 sets
    /// no bound.
    pub const MAX: usize = 128;

    /// Takes an ALB's key id if it is a UUID (RFC 9562, section 4): it becomes a path segment of
    /// the key request, so nothing else may pass.
    pub fn uuid(text: &[u8]) -> Option<Self> {
        let is_uuid = text.len() == Self::UUID_LENGTH
            && text
                .iter()
                .enumerate()
                .all(|(position, byte)| match position {
                    8 | 13 | 18 | 23 => *byte == b'-',
                    _ => byte.is_ascii_hexdigit(),
                });
        if is_uuid {
            Self::of_key_set(text)
        } else {
            None
        }
    }

    /// Takes the key id of a key in a JSON Web Key Set if it is of 1 to [`KeyId::MAX`] visible
    /// ASCII characters.
    pub fn of_key_set(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        let is_visible = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
        is_visible.then_some(Self {
            bytes,
            length: u8::try_from(text.len()).ok()?,
        })
    }

    /// Its text.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // ASCII by construction.
        f.write_str(std::str::from_utf8(self.as_bytes()).unwrap_or_default())
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The position of a [`KeySource`] in [`crate::Config::key_sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeySourceId(pub(crate) usize);

/// In what form a source publishes its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// Each P-256 key as one PEM, under its key id: an ALB's.
    Pem,
    /// All RSA keys in one JSON Web Key Set: an identity provider's.
    KeySet,
}

/// Where public keys are published, and how Envoy reaches them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// The Envoy cluster.
    pub cluster: String,
    /// The host, with its port unless that is the scheme's own: `:authority` of the key request.
    pub authority: String,
    /// `:path` of the key request. For [`KeyFormat::Pem`] it ends in `/`, and the key id comes
    /// behind it.
    pub path: String,
    /// What is published there.
    pub format: KeyFormat,
    /// How long one fetch may take.
    pub timeout: Duration,
}

/// A key's full name: key ids are unique only within their key server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    /// Which key server.
    pub source: KeySourceId,
    /// Which of its keys.
    pub id: KeyId,
}

impl KeyName {
    /// Whether a request that has waited for `before` may wait for this key too: once for each
    /// source, in their order. First comes the load balancer's key, then the access token's; so no
    /// request waits without end.
    pub fn may_be_waited_for_after(self, before: Option<Self>) -> bool {
        before.is_none_or(|before| before.source < self.source)
    }
}

/// What came of a fetch.
pub enum FetchResult {
    /// One public key of the source's kind.
    Key(PublicKey),
    /// The key server has no such key.
    NotFound,
    /// The key server answered with something else than one public key of the source's kind.
    Invalid,
    /// No usable answer: time-out, reset, a server error.
    Failed,
}
