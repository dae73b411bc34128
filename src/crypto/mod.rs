//! Public keys and signature algorithms. Nothing here knows what a token says or where a key came
//! from.

mod der;
pub(crate) mod es256;
pub(crate) mod provider;
pub(crate) mod rs256;

/// A public key of either kind.
#[derive(Clone)]
pub enum PublicKey {
    /// An ALB's, for ES256.
    P256(es256::P256Key),
    /// An identity provider's, for RS256.
    Rsa(rs256::RsaKey),
}
