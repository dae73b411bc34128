//! Cheap signatures that a fuzzer can pass: a hash of key and text. The filter verifies them like
//! real ones, through its own `VerifySignature`. The target `keys` covers real ones.

use std::cell::RefCell;
use std::sync::LazyLock;

use alb_oidc_filter::{P256Key, RsaKey, Verifier, VerifySignature, known_answer, provider};
use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::crypto::CryptoProvider;

struct Toy;

impl VerifySignature for Toy {
    fn verify_es256(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
        signature == sign(spki, message)
    }

    fn verify_rs256(spki: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
        LAST.set(spki.to_vec());
        Some(signature == sign(&spki[spki.len() - 100..spki.len() - 99], message))
    }
}

thread_local! {
    static LAST: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The SubjectPublicKeyInfo of the last RSA key.
pub(crate) fn last_rsa_key() -> Vec<u8> {
    LAST.take()
}

static PROVIDER: CryptoProvider = provider::<Toy>();

/// Makes the filter verify toy signatures.
pub(crate) fn verifier() -> Verifier {
    Verifier::install(&PROVIDER)
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    let hash = digest(&SHA256, &[key, message].concat());
    [hash.as_ref(), hash.as_ref()].concat()
}

/// The load balancers' keys: a real point on P-256, and its mirror image.
pub(crate) fn p256(number: u8) -> &'static P256Key {
    static KEYS: LazyLock<[P256Key; 2]> = LazyLock::new(|| {
        let mut mirrored = known_answer::SPKI;
        mirrored[59..].copy_from_slice(&negated(&known_answer::SPKI[59..]));
        [known_answer::SPKI, mirrored].map(|spki| P256Key::from_spki(&spki).expect("a point"))
    });
    &KEYS[usize::from(number % 2)]
}

/// p - y
fn negated(y: &[u8]) -> [u8; 32] {
    let p: [u8; 32] = *b"\xff\xff\xff\xff\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    let (mut out, mut borrow) = ([0; 32], 0);
    for at in (0..32).rev() {
        let (difference, lower) = p[at].overflowing_sub(y[at]);
        let (difference, lowest) = difference.overflowing_sub(borrow);
        borrow = u8::from(lower || lowest);
        out[at] = difference;
    }
    out
}

/// The provider's keys.
pub(crate) fn rsa(number: u8) -> RsaKey {
    RsaKey::from_components(&[0x81 + 2 * (number % 2); 256], &[1, 0, 1])
        .expect("a modulus and an exponent")
}

/// The signature of a load balancer's key.
pub(crate) fn sign_es256(number: u8, message: &[u8]) -> Vec<u8> {
    sign(p256(number).spki(), message)
}

/// The signature of a provider's key.
pub(crate) fn sign_rs256(number: u8, message: &[u8]) -> Vec<u8> {
    sign(&[0x81 + 2 * (number % 2)], message)
}
