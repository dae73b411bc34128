//! Encrypts and authenticates values that pass through browsers. No I/O. No clock.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A random AES-256-GCM key. It lives as long as the process.
pub(super) struct Sealer(RandomizedNonceKey);

impl Sealer {
    pub(super) fn new() -> Result<Self, String> {
        let mut key = [0; 32];
        rand::fill(&mut key)
            .and_then(|()| RandomizedNonceKey::new(&AES_256_GCM, &key))
            .map(Self)
            .map_err(|error| format!("cannot make a key for sessions: {error}"))
    }

    /// Encrypts `value`. Only [`Self::open`] with the same `kind` decrypts it.
    pub(super) fn seal(&self, kind: &str, value: &impl Serialize) -> Option<String> {
        let mut sealed = serde_json::to_vec(value).ok()?;
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(kind), &mut sealed)
            .ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_ref().as_slice(), &sealed].concat()))
    }

    /// Decrypts the value of this kind; `None` if this key did not seal it.
    pub(super) fn open<T: DeserializeOwned>(&self, kind: &str, text: &str) -> Option<T> {
        let mut sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        serde_json::from_slice(self.0.open_in_place(nonce, Aad::from(kind), sealed).ok()?).ok()
    }
}
