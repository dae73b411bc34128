//! Envoy's signature verification, with `aws-lc-rs` in place of BoringSSL.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use std::collections::BTreeMap;

/// Envoy's foreign function: takes a protobuf message and returns one.
pub(super) fn verify_signature(arguments: &[u8]) -> Vec<u8> {
    const P256_SPKI_LENGTH: usize = 91;
    let mut fields = BTreeMap::new();
    let mut rest = arguments;
    while let [tag, after @ ..] = rest {
        let (mut length, mut shift, mut after) = (0, 0, after);
        while let [byte, behind @ ..] = after {
            length |= usize::from(byte & 0x7f) << shift;
            (shift, after) = (shift + 7, behind);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (field, behind) = after.split_at(length);
        fields.insert(tag >> 3, field);
        rest = behind;
    }
    let field = |number: u8| fields.get(&number).copied().unwrap_or_default();
    let (spki, signature, text) = (field(2), field(3), field(4));
    let algorithm: &dyn VerificationAlgorithm = if spki.len() == P256_SPKI_LENGTH {
        &ECDSA_P256_SHA256_ASN1
    } else {
        &RSA_PKCS1_2048_8192_SHA256
    };
    let is_valid = field(1) == b"sha256"
        && UnparsedPublicKey::new(algorithm, spki)
            .verify(text, signature)
            .is_ok();
    if is_valid {
        vec![0x08, 0x01]
    } else {
        [&b"\x12\x1c"[..], b"Failed to verify signature. "].concat()
    }
}
