//! Public keys, parsed by libraries other than the filter's: `aws-lc-rs`, and `jsonwebtoken`'s JWK.

use aws_lc_rs::rsa::PublicKey;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use data_encoding::BASE64;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use serde_json::Value;

use super::jws;

/// A named-curve P-256 key, and the start of the bit string with its uncompressed point: RFC 5480,
/// section 2.
const SPKI_START: [u8; 27] =
    *b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";

/// Whether it is the only accepted form of a P-256 key, with a point on the curve.
pub fn is_p256(spki: &[u8]) -> bool {
    is_any_p256(spki) && spki.starts_with(&SPKI_START)
}

/// Whether the other library accepts it, at the length of the accepted form.
pub fn is_any_p256(spki: &[u8]) -> bool {
    spki.len() == 91 && ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, spki).is_ok()
}

/// Whether the text is one block and white space, with lines of base64 without spaces.
pub fn is_plain_pem(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let lines: Vec<&str> = text.trim_ascii().lines().map(str::trim_ascii).collect();
    let [first, body @ .., last] = &lines[..] else {
        return false;
    };
    let is_base64 = |line: &&str| {
        line.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
    };
    *first == "-----BEGIN PUBLIC KEY-----"
        && *last == "-----END PUBLIC KEY-----"
        && body.iter().all(is_base64)
}

/// Whether the text is this key between the two markers, in lines of any length. RFC 7468 (section
/// 3) requires the markers on lines of their own, but without that, too, the text can only mean
/// this key.
pub fn is_nothing_but(text: &[u8], spki: &[u8]) -> bool {
    let text: String = String::from_utf8_lossy(text)
        .replace("-----BEGIN PUBLIC KEY-----", "[")
        .replace("-----END PUBLIC KEY-----", "]");
    let text: String = text
        .chars()
        .filter(|character| !character.is_ascii_whitespace())
        .collect();
    text == format!("[{}]", BASE64.encode(spki))
}

/// The modulus and exponent of an RSA key in SubjectPublicKeyInfo.
pub fn rsa(spki: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let key = PublicKey::from_der(spki).ok()?;
    let bytes =
        |number: aws_lc_rs::io::Positive<'_>| number.big_endian_without_leading_zero().to_vec();
    Some((bytes(key.modulus()), bytes(key.exponent())))
}

/// A number without leading zeros.
pub fn trimmed(number: &[u8]) -> Vec<u8> {
    number
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect()
}

/// 2048 to 8192 bits, odd; an odd exponent of at most four bytes that is not one.
pub fn is_sound_rsa(modulus: &[u8], exponent: &[u8]) -> bool {
    let (n, e) = (trimmed(modulus), trimmed(exponent));
    let bits = n
        .first()
        .map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    (2048..=8192).contains(&bits) && is_odd(&n) && is_odd(&e) && e != [1] && e.len() <= 4
}

/// The result for an id in a key set.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// SubjectPublicKeyInfo.
    Key(Vec<u8>),
    Nothing,
    Invalid,
}

/// Finds an RSA key. `None`: the other library rejects the key because of members that the filter
/// ignores.
pub fn in_key_set(text: &[u8], id: &str) -> Option<Found> {
    let set = jws::json(text, 8);
    let Some(keys) = set
        .as_ref()
        .and_then(|set| set.as_object()?.get("keys")?.as_array())
    else {
        return Some(Found::Invalid);
    };
    let named: Vec<&Value> = keys
        .iter()
        .filter(|key| key.get("kid").is_some_and(|kid| kid == id))
        .collect();
    let [key] = named[..] else {
        return Some(if named.is_empty() {
            Found::Nothing
        } else {
            Found::Invalid
        });
    };
    let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
    let AlgorithmParameters::RSA(rsa) = jwk.algorithm else {
        return Some(Found::Invalid);
    };
    let is_for_rs256 = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) && matches!(jwk.common.key_algorithm, None | Some(KeyAlgorithm::RS256));
    let numbers = jws::base64url(&rsa.n).zip(jws::base64url(&rsa.e));
    let Some((n, e)) = numbers.filter(|(n, e)| is_for_rs256 && is_sound_rsa(n, e)) else {
        return Some(Found::Invalid);
    };
    Some(Found::Key(spki(&trimmed(&n), &trimmed(&e))))
}

/// RFC 3279, section 2.3.1.
fn spki(n: &[u8], e: &[u8]) -> Vec<u8> {
    let element = |tag: u8, content: &[u8]| {
        let length = content.len();
        let length = match length {
            0..128 => vec![length as u8],
            128..256 => vec![0x81, length as u8],
            _ => vec![0x82, (length >> 8) as u8, length as u8],
        };
        [&[tag][..], &length, content].concat()
    };
    let integer = |number: &[u8]| {
        element(
            2,
            &if number[0] > 127 {
                [&[0], number].concat()
            } else {
                number.to_vec()
            },
        )
    };
    let key = element(0x30, &[integer(n), integer(e)].concat());
    let bits = element(3, &[&[0], &key[..]].concat());
    element(
        0x30,
        &[
            &b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"[..],
            &bits,
        ]
        .concat(),
    )
}
