//! The keys of the load balancer and of the user pool, and their published form. No I/O.

use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::mint::AlbKey;

/// The number of published keys of each kind. AWS never removes one.
const MAX_KEYS: usize = 64;

/// The current keys, last, and the earlier ones.
pub(super) struct Keys {
    alb: Vec<AlbKey>,
    pool: Vec<(String, RsaKeyPair)>,
}

impl Keys {
    pub(super) fn generate() -> Result<Self, String> {
        let mut keys = Self {
            alb: Vec::new(),
            pool: Vec::new(),
        };
        keys.rotate()?;
        Ok(keys)
    }

    /// Generates the new current keys. The old ones stay published.
    pub(super) fn rotate(&mut self) -> Result<(), String> {
        let pool = RsaKeyPair::generate(KeySize::Rsa2048)
            .map_err(|error| format!("cannot make an RSA key: {error}"))?;
        self.alb.push(AlbKey::generate());
        self.pool.push((Uuid::new_v4().to_string(), pool));
        self.alb.drain(..self.alb.len().saturating_sub(MAX_KEYS));
        self.pool.drain(..self.pool.len().saturating_sub(MAX_KEYS));
        Ok(())
    }

    /// The load balancer's current key.
    pub(super) fn alb(&self) -> Option<&AlbKey> {
        self.alb.last()
    }

    /// The user pool's current key and its id.
    pub(super) fn pool(&self) -> Option<&(String, RsaKeyPair)> {
        self.pool.last()
    }

    /// The ids of the load balancer's keys, the current one first.
    pub(super) fn ids(&self) -> impl Iterator<Item = String> {
        self.alb.iter().rev().map(|key| key.id().to_string())
    }

    /// The load balancer's public key of this id, as one PEM `PUBLIC KEY`.
    pub(super) fn pem(&self, kid: &str) -> Option<String> {
        self.alb
            .iter()
            .find(|key| key.id().to_string() == kid)
            .and_then(|key| key.public_pem().ok())
    }

    /// The user pool's public keys as a JWKS, the current one first.
    pub(super) fn jwks(&self) -> Value {
        let keys = self.pool.iter().rev().map(|(kid, key)| {
            let public = key.public_key();
            let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            json!({
                "kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig",
                "n": number(public.modulus().big_endian_without_leading_zero()),
                "e": number(public.exponent().big_endian_without_leading_zero()),
            })
        });
        json!({"keys": keys.collect::<Vec<_>>()})
    }
}
