//! Public keys and signature algorithms. No tokens, no key sources.

mod der;
pub(crate) mod es256;
pub(crate) mod provider;
pub(crate) mod rs256;

/// A public key of either kind.
#[derive(Clone)]
pub enum PublicKey {
    /// An ALB's key, for ES256.
    P256(es256::P256Key),
    /// An identity provider's key, for RS256.
    Rsa(rs256::RsaKey),
}
