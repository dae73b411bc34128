//! Key sources, key names and fetch results. Types only: no I/O, no cache.

use std::time::Duration;

use crate::crypto::PublicKey;

/// The id of a signing key, byte for byte as in the token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId {
    /// Visible ASCII, padded with NUL.
    bytes: [u8; Self::MAX],
    length: u8,
}

impl KeyId {
    /// The length of a UUID's text form, in bytes.
    pub const UUID_LENGTH: usize = 36;
    /// The longest accepted key id of a JSON Web Key, in bytes. RFC 7517, section 4.5 sets no
    /// limit.
    pub const MAX: usize = 128;

    /// An ALB's key id; `None` unless it is a UUID (RFC 9562, section 4). It becomes a path segment
    /// of the key request, so no other text is accepted.
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

    /// The key id of a JSON Web Key; `None` unless it has 1 to [`KeyId::MAX`] visible ASCII
    /// characters.
    pub fn of_key_set(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        let is_visible = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
        is_visible.then_some(Self {
            bytes,
            length: u8::try_from(text.len()).ok()?,
        })
    }

    /// The id as text.
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

/// The form in which a source publishes keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// An ALB's: each P-256 key as a PEM under its key id.
    Pem,
    /// An identity provider's: all RSA keys in one JSON Web Key Set.
    KeySet,
}

/// Where keys are published, and how Envoy connects to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// The Envoy cluster.
    pub cluster: String,
    /// `:authority` of the key request: the host, and the port if it is not the scheme's default.
    pub authority: String,
    /// `:path` of the key request. For [`KeyFormat::Pem`] it ends in `/`, and the key id is
    /// appended.
    pub path: String,
    /// The form of the keys.
    pub format: KeyFormat,
    /// The time-out of one fetch.
    pub timeout: Duration,
}

/// A key's full name. Key ids are unique only within their source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    /// The source.
    pub source: KeySourceId,
    /// The id within the source.
    pub id: KeyId,
}

impl KeyName {
    /// Whether a request that already waited for `before` may wait for this key too: once for each
    /// source in order. The load balancer's key comes first, then the access token's, so no request
    /// waits without end.
    pub fn may_be_waited_for_after(self, before: Option<Self>) -> bool {
        before.is_none_or(|before| before.source < self.source)
    }
}

/// The result of a fetch.
pub enum FetchResult {
    /// One public key of the source's kind.
    Key(PublicKey),
    /// The key server has no such key.
    NotFound,
    /// The answer is not a single public key of the source's kind.
    Invalid,
    /// No usable answer: time-out, reset or server error.
    Failed,
}
