//! Signature verification outside of Envoy: ES256 with the library's own code, RS256 with AWS-LC.

use alb_oidc_filter::{P256, Verifier, VerifySignature, provider};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use jsonwebtoken::crypto::CryptoProvider;

struct Native;

static PROVIDER: CryptoProvider = provider::<Native>();

impl VerifySignature for Native {
    fn verify_es256(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
        P256::verify_es256(spki, message, signature)
    }

    fn verify_rs256(spki: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
        Some(
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, spki)
                .verify(message, signature)
                .is_ok(),
        )
    }
}

/// The library's verifier with these two algorithms.
pub(crate) fn verifier() -> Verifier {
    Verifier::install(&PROVIDER)
}
