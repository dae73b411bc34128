//! Key servers' answers and signatures: PEM, DER, key sets, and both ways to verify ES256, each
//! compared with `aws-lc-rs`.

use alb_oidc_filter::{
    Config, FetchResult, KeyId, P256, P256Key, PublicKey, RsaKey, Timestamp, UntrustedAccessToken,
    VerifySignature, find_in_key_set, host_verdict,
};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};
use std::time::Duration;

use crate::judge::keys as judge;
use crate::{mint, seeds, targets::claims, toy};

/// The id to find in key sets.
const ID: &str = "pool";

/// Real keys, bad keys, every vector, key sets.
pub fn seeds() -> Vec<Vec<u8>> {
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let spki = toy::p256(0).spki().to_vec();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n",
        &BASE64.encode(&spki)[..64],
        &BASE64.encode(&spki)[64..]
    );
    let mut seeds = vec![
        of(0, pem.as_bytes()),
        of(0, pem.replace('\n', "\r\n").as_bytes()),
        of(1, &spki),
        of(3, b"\0\0message"),
        of(3, b"\x05\x07m"),
    ];
    for odd in [
        format!("{pem}{pem}"),
        format!("{pem}more"),
        format!("before\n{pem}"),
        pem.replace("-\nM", "-\nA: b\n\nM"),
    ] {
        seeds.push(of(0, odd.as_bytes()));
    }
    seeds.extend(seeds::vectors("bad-keys").iter().map(|pem| of(0, pem)));
    let wycheproof = seeds::json_vector("ecdsa_secp256r1_sha256_p1363_test.json");
    for group in wycheproof["testGroups"].as_array().into_iter().flatten() {
        let spki = hex(&group["publicKeyDer"]);
        // One in eight: the others differ in numbers that mean nothing to a fuzzer.
        for test in group["tests"].as_array().into_iter().flatten().step_by(8) {
            seeds.push(of(
                2,
                &[spki.clone(), hex(&test["sig"]), hex(&test["msg"])].concat(),
            ));
        }
    }
    let (modulus, exponent) = (BASE64URL_NOPAD.encode(&[0x81; 256]), "AQAB");
    let key = json!({"kty": "RSA", "kid": ID, "n": modulus, "e": exponent});
    let mut full = key.clone();
    (full["use"], full["alg"]) = (json!("sig"), json!("RS256"));
    let ec = json!({"kty": "EC", "crv": "P-256", "kid": ID, "x": "AA", "y": "AA"});
    for keys in [
        json!([key]),
        json!([full]),
        json!([]),
        json!([key, full]),
        json!([ec, key]),
        json!([ec, 1, {"kid": "other"}]),
    ] {
        seeds.push(of(4, json!({"keys": keys}).to_string().as_bytes()));
    }
    seeds.push(of(5, &[&[3, 1, 0, 1][..], &[0x81; 256]].concat()));
    // Invalid exponents and moduli.
    for (exponent, modulus) in [
        (1, 0x81),
        (0, 0x81),
        (2, 0x81),
        (3, 0x81),
        (3, 0x80),
        (3, 0x7f),
    ] {
        seeds.push(of(5, &[&[1, exponent][..], &[modulus; 256]].concat()));
    }
    seeds.push(of(5, &[&[4, 0, 1, 0, 1, 0][..], &[0xff; 1024]].concat()));
    seeds
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER
        .decode(value.as_str().expect("text").as_bytes())
        .expect("hex")
}

/// The first byte selects the kind of input.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 6 {
        0 => pem(rest),
        1 => der(rest),
        2 => {
            if let Some((spki, rest)) = rest.split_at_checked(91)
                && let Some((signature, message)) = rest.split_at_checked(64)
            {
                der(spki);
                verdicts(spki, message, signature);
            }
        }
        3 => spoiled(rest),
        4 => key_set(rest),
        _ => components(rest),
    }
}

fn pem(text: &[u8]) {
    let found = P256Key::from_pem(text);
    let blocks = pem::parse_many(text).unwrap_or_default();
    let of_other = match &blocks[..] {
        [block] if block.tag() == "PUBLIC KEY" => Some(block.contents().to_vec()),
        _ => None,
    };
    let told = || String::from_utf8_lossy(text).into_owned();
    match (found, of_other) {
        (Some(found), other) => {
            assert!(
                judge::is_nothing_but(text, found.spki()) && judge::is_p256(found.spki()),
                "{}",
                told()
            );
            assert!(
                other.is_none_or(|other| other == found.spki()),
                "{}",
                told()
            );
        }
        // RFC 7468 parsers ignore text outside the block, and older PEM has headers. An answer must
        // be one key and nothing else.
        (None, Some(other)) => {
            assert!(
                !judge::is_p256(&other) || !judge::is_plain_pem(text),
                "only another library reads {}",
                told()
            );
        }
        (None, None) => {}
    }
}

fn der(spki: &[u8]) {
    assert_eq!(
        P256Key::from_spki(spki).is_some(),
        judge::is_p256(spki),
        "{}",
        HEXLOWER.encode(spki)
    );
    // The filter accepts the same uncompressed points of this length as another library, but no
    // hybrid ones (X9.62).
    let is_uncompressed = spki.get(26) == Some(&4);
    let rejected = P256Key::from_spki(spki).is_none();
    assert!(
        !(rejected && is_uncompressed && judge::is_any_p256(spki)),
        "{}",
        HEXLOWER.encode(spki)
    );
}

/// All verifiers of ES256 agree.
fn verdicts(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
    if P256Key::from_spki(spki).is_none() {
        return false;
    }
    let expected = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, spki)
        .verify(message, signature)
        .is_ok();
    let told = || format!("{} {}", HEXLOWER.encode(spki), HEXLOWER.encode(signature));
    assert_eq!(
        P256::verify_es256(spki, message, signature),
        expected,
        "{}",
        told()
    );
    // Through DER and the host's function, simulated in `host.rs`.
    assert_eq!(
        host_verdict(spki, message, signature),
        Some(expected),
        "{}",
        told()
    );
    expected
}

/// A genuine signature, changed by the first two bytes.
fn spoiled(data: &[u8]) {
    let [how, place, message @ ..] = data else {
        return;
    };
    let key = SigningKey::from_slice(&[7; 32]).expect("a scalar");
    let genuine: Signature = key.sign(message);
    let mut signature = genuine.to_bytes().to_vec();
    let at = usize::from(*place) % 64;
    let (r, s) = (signature[..32].to_vec(), signature[32..].to_vec());
    match how % 9 {
        0 => {}
        1 => signature[at] ^= 1 << (how >> 5),
        2 => signature.truncate(at),
        3 => signature.push(*place),
        4 => signature = [s, r].concat(),
        5 => {
            signature = Signature::from_scalars(genuine.r(), -genuine.s())
                .expect("n - s")
                .to_bytes()
                .to_vec()
        }
        6 => signature[..32].fill(*place),
        7 => signature[32..].fill(*place),
        _ => signature = genuine.to_der().as_bytes().to_vec(),
    }
    let point = key.verifying_key().to_sec1_point(false);
    let spki = [&toy::p256(0).spki()[..26], point.as_bytes()].concat();
    let holds = verdicts(&spki, message, &signature);
    assert_eq!(holds, [0, 5].contains(&(how % 9)), "{how} {place}");
}

fn key_set(text: &[u8]) {
    let id = KeyId::of_key_set(ID.as_bytes()).expect("an id");
    let found = match find_in_key_set(text, id) {
        FetchResult::Key(PublicKey::Rsa(key)) => Some(judge::Found::Key(spki(&key))),
        FetchResult::NotFound => Some(judge::Found::Nothing),
        _ => Some(judge::Found::Invalid),
    };
    let expected = judge::in_key_set(text, ID);
    assert!(
        expected.is_none() || found == expected,
        "{found:?}, expected {expected:?}: {}",
        String::from_utf8_lossy(text)
    );
    if let Some(judge::Found::Key(spki)) = found {
        assert!(judge::rsa(&spki).is_some(), "not a key to another library");
    }
}

/// The exponent's length, the exponent, the modulus.
fn components(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else {
        return;
    };
    let Some((exponent, modulus)) = rest.split_at_checked(usize::from(length % 8)) else {
        return;
    };
    let found = RsaKey::from_components(modulus, exponent);
    assert_eq!(
        found.is_some(),
        judge::is_sound_rsa(modulus, exponent),
        "{} {}",
        HEXLOWER.encode(modulus),
        HEXLOWER.encode(exponent)
    );
    if let Some(key) = found {
        let (n, e) = judge::rsa(&spki(&key)).expect("a key to another library too");
        assert_eq!((n, e), (judge::trimmed(modulus), judge::trimmed(exponent)));
    }
}

/// The filter's SubjectPublicKeyInfo of this key.
fn spki(key: &RsaKey) -> Vec<u8> {
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"RS256","kid":"pool"}"#);
    let text = format!("{header}.e30.AAAA");
    let token = UntrustedAccessToken::parse(text.as_bytes()).unwrap_or_else(|_| panic!("a token"));
    let (now, skew) = (Timestamp::from_seconds(0), Duration::ZERO);
    let config = json!({
        "loadBalancers": [{"arn": mint::ARNS[0], "issuer": "i", "clientId": null}],
        "accessToken": {"issuer": "i", "jwksUri": "https://i.example/keys"},
    });
    let config = Config::from_value(&config).expect("a config");
    let rules = config.users.access_token.expect("the rules");
    let verdict =
        toy::verifier().verify_access_token(&token, key, claims::empty(), &rules, now, skew);
    assert!(verdict.is_err(), "a signature of three bytes");
    toy::last_rsa_key()
}
