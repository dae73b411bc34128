//! RS256: RSA public keys. The host verifies; the `p256` crate cannot. Parses no token, fetches no
//! key.

use jsonwebtoken::DecodingKey;

use super::der;

/// The bounds of a modulus, in bits: RFC 7518, section 3.3 requires 2048; larger keys than 8192 are
/// not in use.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The longest public exponent, in bytes. Practically all keys use 65537.
const MAX_EXPONENT_BYTES: usize = 4;

/// The algorithm identifier rsaEncryption (RFC 8017, appendix A.1), with its NULL parameters.
const RSA_ENCRYPTION: [u8; 15] = *b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// A public key for RS256.
#[derive(Clone)]
pub struct RsaKey {
    decoding_key: DecodingKey,
}

impl RsaKey {
    /// The key with this modulus and exponent, big-endian. `None` if one is even or out of bounds.
    pub fn from_components(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        Some(Self {
            decoding_key: DecodingKey::from_rsa_der(&spki(modulus, exponent)?),
        })
    }

    pub(crate) fn decoding_key(&self) -> &DecodingKey {
        &self.decoding_key
    }
}

/// The SubjectPublicKeyInfo of an RSA key (RFC 3279, section 2.3.1) in DER.
fn spki(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    let (modulus, exponent) = (
        der::without_leading_zeros(modulus),
        der::without_leading_zeros(exponent),
    );
    let unused = modulus
        .first()
        .map_or(0, |first| first.leading_zeros() as usize);
    let sound = MODULUS_BITS.contains(&modulus.len().saturating_mul(8).saturating_sub(unused))
        && is_odd(modulus)
        && exponent.len() <= MAX_EXPONENT_BYTES
        && is_odd(exponent)
        && exponent != [1];
    let key = der::element(
        der::SEQUENCE,
        &[der::integer(modulus), der::integer(exponent)].concat(),
    );
    let bits = der::element(der::BIT_STRING, &[&[0], key.as_slice()].concat());
    sound.then(|| der::element(der::SEQUENCE, &[&RSA_ENCRYPTION, bits.as_slice()].concat()))
}

/// An RSA key, message and RS256 signature for the known-answer test of a verifier: RFC 7515,
/// appendix A.2.
pub(crate) mod known_answer {
    /// The key's `n`; `e` is 65537.
    const MODULUS: &str = concat!(
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2j",
        "Z47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK",
        "-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    );
    /// The signed message: JOSE header and payload in base64.
    pub(crate) const MESSAGE: &[u8] =
        b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    /// In base64.
    pub(crate) const SIGNATURE: &str = concat!(
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--",
        "f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUi",
        "pUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    );

    /// The key.
    pub(crate) fn key() -> Option<super::RsaKey> {
        use base64::Engine as _;
        let modulus = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(MODULUS)
            .ok()?;
        super::RsaKey::from_components(&modulus, &[1, 0, 1])
    }
}

#[cfg(test)]
mod tests {
    use super::super::es256::P256_PROVIDER;
    use super::*;

    #[test]
    fn accepts_moduli_of_2048_to_8192_bits() {
        let is_key = |first: u8, bytes: usize| {
            let modulus = [vec![0, 0, first], vec![0xff; bytes - 1]].concat();
            RsaKey::from_components(&modulus, &[1, 0, 1]).is_some()
        };
        for (first, bytes, expected) in [
            (0x7f, 256, false),
            (0x80, 256, true),
            (0xff, 1024, true),
            (0x01, 1025, false),
            (0xff, 128, false),
        ] {
            assert_eq!(
                is_key(first, bytes),
                expected,
                "{first:#x} and {bytes} bytes"
            );
        }
    }

    #[test]
    fn spki_equals_another_library() {
        use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let public = aws_lc_rs::signature::KeyPair::public_key(&pair);
        let expected: PublicKeyX509Der<'_> = public.as_der().unwrap();
        let key = RsaKey::from_components(
            public.modulus().big_endian_without_leading_zero(),
            public.exponent().big_endian_without_leading_zero(),
        );
        assert_eq!(
            key.unwrap().decoding_key().try_get_as_bytes().unwrap(),
            expected.as_ref()
        );
    }

    #[test]
    fn p256_verifies_no_rsa_signature() {
        let _ = P256_PROVIDER.install_default();
        let key = known_answer::key().unwrap();
        let verdict = jsonwebtoken::crypto::verify(
            known_answer::SIGNATURE,
            known_answer::MESSAGE,
            key.decoding_key(),
            jsonwebtoken::Algorithm::RS256,
        );
        assert!(!verdict.unwrap());
    }
}
