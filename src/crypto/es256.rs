//! ES256: P-256 public keys, and verification in this process by the `p256` crate. Parses no token,
//! fetches no key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::CryptoProvider;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};

use super::der;
use super::provider::{VerifySignature, provider};

/// The length of a P-256 SubjectPublicKeyInfo in DER with an uncompressed point (RFC 5480), in
/// bytes.
pub const SPKI_LENGTH: usize = 91;

/// The DER prefix of an uncompressed point of 65 bytes: algorithm id-ecPublicKey, curve secp256r1.
/// Keys with another algorithm, curve or point form are rejected.
const SPKI_PREFIX: [u8; 26] =
    *b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

/// A public key that is a point on P-256.
#[derive(Clone)]
pub struct P256Key {
    spki: [u8; SPKI_LENGTH],
    decoding_key: DecodingKey,
}

impl P256Key {
    /// Parses the key server's answer: one PEM block `PUBLIC KEY` (RFC 7468, section 13),
    /// optionally with white space around it. `None` for anything else, or a point that is not on
    /// P-256.
    pub fn from_pem(answer: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(answer).ok()?.trim_ascii();
        let body = text
            .strip_prefix("-----BEGIN PUBLIC KEY-----")?
            .strip_suffix("-----END PUBLIC KEY-----")?;
        // This rejects a second block or text between the lines: neither is base64.
        let base64: String = body.lines().map(str::trim_ascii).collect();
        Self::from_spki(&STANDARD.decode(base64).ok()?)
    }

    /// Parses a SubjectPublicKeyInfo in DER. `None` if it is not an uncompressed point on P-256.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        let spki = der.try_into().ok()?;
        point(spki)?;
        Some(Self {
            spki: *spki,
            decoding_key: DecodingKey::from_ec_der(spki),
        })
    }

    /// The key for `jsonwebtoken`.
    pub(crate) fn decoding_key(&self) -> &DecodingKey {
        &self.decoding_key
    }

    /// SubjectPublicKeyInfo in DER.
    pub fn spki(&self) -> &[u8; SPKI_LENGTH] {
        &self.spki
    }
}

/// The point of a P-256 SubjectPublicKeyInfo, if it is on the curve.
fn point(spki: &[u8; SPKI_LENGTH]) -> Option<VerifyingKey> {
    VerifyingKey::from_sec1_bytes(spki.strip_prefix(&SPKI_PREFIX)?).ok()
}

/// ES256 by the `p256` crate, in this process. It does not support RS256.
pub struct P256;

impl VerifySignature for P256 {
    fn verify_es256(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let key = spki.try_into().ok().and_then(point);
        let (Some(key), Ok(signature)) = (key, Signature::from_slice(signature)) else {
            return false;
        };
        key.verify(message, &signature).is_ok()
    }

    fn verify_rs256(_: &[u8], _: &[u8], _: &[u8]) -> Option<bool> {
        None
    }
}

/// A public key, message and signature for the known-answer test of a verifier: RFC 6979, appendix
/// A.2.5, SHA-256, "sample".
pub mod known_answer {
    /// SubjectPublicKeyInfo in DER.
    pub const SPKI: [u8; super::SPKI_LENGTH] = *b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04\
        \x60\xfe\xd4\xba\x25\x5a\x9d\x31\xc9\x61\xeb\x74\xc6\x35\x6d\x68\xc0\x49\xb8\x92\x3b\x61\xfa\x6c\xe6\x69\x62\x2e\x60\xf2\x9f\xb6\
        \x79\x03\xfe\x10\x08\xb8\xbc\x99\xa4\x1a\xe9\xe9\x56\x28\xbc\x64\xf2\xf1\xb2\x0c\x2d\x7e\x9f\x51\x77\xa3\xc2\x94\xd4\x46\x22\x99";
    /// The signed message.
    pub const MESSAGE: &[u8] = b"sample";
    /// r‖s.
    pub const SIGNATURE: [u8; 64] = *b"\xef\xd4\x8b\x2a\xac\xb6\xa8\xfd\x11\x40\xdd\x9c\xd4\x5e\x81\xd6\x9d\x2c\x87\x7b\x56\xaa\xf9\x91\xc3\x4d\x0e\xa8\x4e\xaf\x37\x16\
        \xf7\xcb\x1c\x94\x2d\x65\x7c\x41\xd4\x36\xc7\xa1\xb6\xe2\x9f\x65\xf3\xe9\x00\xdb\xb9\xaf\xf4\x06\x4d\xc4\xab\x2f\x84\x3a\xcd\xa8";
}

/// r‖s in the ASN.1 DER form of OpenSSL and BoringSSL (RFC 3279, section 2.2.3): a sequence of two
/// integers. `None` unless both are in 1…n-1.
pub(crate) fn to_der(signature: &[u8]) -> Option<Vec<u8>> {
    Signature::from_slice(signature).ok()?;
    let (r, s) = signature.split_at_checked(32)?;
    Some(der::element(
        der::SEQUENCE,
        &[der::integer(r), der::integer(s)].concat(),
    ))
}

/// The `p256` provider.
pub static P256_PROVIDER: CryptoProvider = provider::<P256>();

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, EncodingKey};
    use serde_json::Value;

    fn vectors(name: &str) -> Value {
        let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn known_answer_verifies() {
        let verify =
            |message| P256::verify_es256(&known_answer::SPKI, message, &known_answer::SIGNATURE);
        assert!(verify(known_answer::MESSAGE));
        assert!(!verify(b"another message"));
    }

    #[test]
    fn agrees_with_wycheproof_vectors() {
        let _ = P256_PROVIDER.install_default();
        let vectors = vectors("ecdsa_secp256r1_sha256_p1363_test.json");
        let mut count = [0, 0];
        for group in vectors["testGroups"].as_array().unwrap() {
            let key = P256Key::from_spki(&hex(group["publicKeyDer"].as_str().unwrap())).unwrap();
            for test in group["tests"].as_array().unwrap() {
                let (message, signature) = (
                    hex(test["msg"].as_str().unwrap()),
                    hex(test["sig"].as_str().unwrap()),
                );
                let encoded = URL_SAFE_NO_PAD.encode(&signature);
                let found = jsonwebtoken::crypto::verify(
                    &encoded,
                    &message,
                    &key.decoding_key,
                    Algorithm::ES256,
                )
                .unwrap();
                let expected = test["result"] == "valid";
                assert_eq!(found, expected, "{} {}", test["tcId"], test["comment"]);
                count[usize::from(expected)] += 1;
            }
        }
        assert_eq!(count, [89, 173]);
    }

    #[test]
    fn der_signature_equals_ecdsa_crate() {
        let mut signatures = vec![known_answer::SIGNATURE];
        for zeros in 1..32 {
            for first in [1, 0x7f, 0x80, 0xff] {
                let mut signature = [0x11; 64];
                signature[..zeros].fill(0);
                signature[zeros] = first;
                signature[32..32 + zeros].fill(0);
                signature[32 + zeros] = first;
                signatures.push(signature);
            }
        }
        for signature in signatures {
            let expected = Signature::from_slice(&signature).unwrap().to_der();
            assert_eq!(to_der(&signature).unwrap(), expected.as_bytes());
        }
        for out_of_range in [[0; 64], [0xff; 64]] {
            assert_eq!(to_der(&out_of_range), None);
        }
    }

    #[test]
    fn provider_only_verifies_es256() {
        let _ = P256_PROVIDER.install_default();
        let key = P256Key::from_spki(&known_answer::SPKI)
            .unwrap()
            .decoding_key;
        for algorithm in [
            Algorithm::HS256,
            Algorithm::RS256,
            Algorithm::PS256,
            Algorithm::RS512,
            Algorithm::ES384,
            Algorithm::EdDSA,
        ] {
            let signature = URL_SAFE_NO_PAD.encode(known_answer::SIGNATURE);
            assert!(
                jsonwebtoken::crypto::verify(&signature, known_answer::MESSAGE, &key, algorithm)
                    .is_err()
            );
        }
        assert!(
            jsonwebtoken::crypto::sign(b"x", &EncodingKey::from_secret(b"x"), Algorithm::HS256)
                .is_err()
        );
    }

    fn pem(spki: &[u8]) -> String {
        let lines: Vec<_> = STANDARD
            .encode(spki)
            .into_bytes()
            .chunks(64)
            .map(|line| String::from_utf8(line.to_vec()).unwrap())
            .collect();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        )
    }

    #[test]
    fn accepts_one_pem_block_with_white_space() {
        let good = pem(&known_answer::SPKI);
        for text in [
            good.clone(),
            good.trim().to_owned(),
            good.replace('\n', "\r\n"),
            format!("\n  {good}\n\n"),
        ] {
            let key = P256Key::from_pem(text.as_bytes()).unwrap_or_else(|| panic!("{text:?}"));
            assert_eq!(*key.spki(), known_answer::SPKI);
        }
        for text in [
            String::new(),
            "garbage".to_owned(),
            format!("{good}{good}"),
            format!("x{good}"),
            format!("{good}x"),
            format!("comment\n{good}"),
            good.replace("PUBLIC", "PRIVATE"),
            good.replace("PUBLIC KEY", "CERTIFICATE"),
            good.replace("END PUBLIC", "END EC"),
            good.replace("MFkw", "MFk*"),
            good[..good.len() / 2].to_owned(),
        ] {
            assert!(P256Key::from_pem(text.as_bytes()).is_none(), "{text:?}");
        }
    }

    #[test]
    fn accepts_only_points_on_p256() {
        let mut off_curve = known_answer::SPKI;
        off_curve[SPKI_LENGTH - 1] ^= 1;
        let mut other_curve = known_answer::SPKI;
        other_curve[22] ^= 1;
        let mut compressed = known_answer::SPKI;
        compressed[26] = 2;
        let mut longer = known_answer::SPKI.to_vec();
        longer.push(0);
        for spki in [
            &off_curve[..],
            &other_curve,
            &longer,
            &known_answer::SPKI[..90],
            &compressed,
            &[],
        ] {
            assert!(P256Key::from_spki(spki).is_none());
            assert!(P256Key::from_pem(pem(spki).as_bytes()).is_none());
        }
    }
}
