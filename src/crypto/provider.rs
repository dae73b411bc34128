//! The `CryptoProvider` for `jsonwebtoken`: ES256 and RS256 by any [`VerifySignature`], and no other
//! algorithm. Signs nothing.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as JwtResult};
use jsonwebtoken::signature::{Error as SignatureError, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};

/// An implementation of signature verification. Keys are SubjectPublicKeyInfo in DER.
pub trait VerifySignature {
    /// Whether `signature` (r‖s) is a valid signature by `spki` of the SHA-256 of `message`. `spki`
    /// comes from [`super::es256::P256Key::spki`].
    fn verify_es256(spki: &[u8], message: &[u8], signature: &[u8]) -> bool;

    /// Whether `signature` (RSASSA-PKCS1-v1_5) is a valid signature by `spki` of the SHA-256 of
    /// `message`. `None` if the implementation does not support RS256.
    fn verify_rs256(spki: &[u8], message: &[u8], signature: &[u8]) -> Option<bool>;
}

/// A `jsonwebtoken` provider that only verifies ES256 and RS256 with `V`: no signing, no other
/// algorithm.
pub const fn provider<V: VerifySignature + Send + Sync + 'static>() -> CryptoProvider {
    CryptoProvider {
        signer_factory: refuse_to_sign,
        verifier_factory: verifier::<V>,
        key_utils: KeyUtils {
            rsa_pub_components_from_private_key: |_| Err(ErrorKind::InvalidKeyFormat.into()),
            rsa_pub_components_from_public_key: |_| Err(ErrorKind::InvalidKeyFormat.into()),
            ec_pub_components_from_private_key: |_, _| Err(ErrorKind::InvalidKeyFormat.into()),
            ed_pub_components_from_private_key: |_, _| Err(ErrorKind::InvalidKeyFormat.into()),
            compute_digest: |_, _| Err(ErrorKind::InvalidKeyFormat.into()),
        },
    }
}

fn refuse_to_sign(_: &Algorithm, _: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    Err(ErrorKind::InvalidAlgorithm.into())
}

fn verifier<V: VerifySignature + Send + Sync + 'static>(
    algorithm: &Algorithm,
    key: &DecodingKey,
) -> JwtResult<Box<dyn JwtVerifier>> {
    // A key must not verify with the other kind's algorithm.
    if !matches!(
        (algorithm, key.family()),
        (Algorithm::ES256, AlgorithmFamily::Ec) | (Algorithm::RS256, AlgorithmFamily::Rsa)
    ) {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let (algorithm, spki) = (*algorithm, key.try_get_as_bytes()?.to_vec());
    Ok(Box::new(WithKey::<V> {
        algorithm,
        spki,
        backend: std::marker::PhantomData,
    }))
}

struct WithKey<V> {
    algorithm: Algorithm,
    spki: Vec<u8>,
    backend: std::marker::PhantomData<V>,
}

impl<V: VerifySignature> Verifier<Vec<u8>> for WithKey<V> {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let holds = match self.algorithm {
            Algorithm::ES256 => V::verify_es256(&self.spki, message, signature),
            Algorithm::RS256 => V::verify_rs256(&self.spki, message, signature) == Some(true),
            _ => false,
        };
        if holds {
            Ok(())
        } else {
            Err(SignatureError::new())
        }
    }
}

impl<V: VerifySignature> JwtVerifier for WithKey<V> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
