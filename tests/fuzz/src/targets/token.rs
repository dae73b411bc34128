//! The form of both tokens: base64, key ids, JOSE headers.

use alb_oidc_filter::{KeyId, UntrustedAccessToken, UntrustedToken, decode_base64};
use data_encoding::BASE64URL_NOPAD;

use crate::judge::jws;
use crate::seeds;

const GENUINE: &str = r#"{"typ":"JWT","kid":"31c93e63-dd77-5b60-bdd0-68378b356ad2","alg":"ES256","iss":"https://login.example.com","client":"c","signer":"arn:aws:x","exp":1800000000}"#;
const OF_PROVIDER: &str = r#"{"kid":"pool","alg":"RS256"}"#;

/// A real token, the forms that the scenarios break, and headers.
pub fn seeds() -> Vec<Vec<u8>> {
    let real = seeds::json_vector("alb-token-2019-oidc.json");
    let mut seeds: Vec<Vec<u8>> = real
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, value)| value.as_str())
        .map(|text| [b"\x00", text.as_bytes()].concat())
        .collect();
    let values = seeds::scenarios(&[
        "oidc_data",
        "text",
        "payload_base64",
        "header_base64",
        "kid",
    ]);
    seeds.extend(
        values
            .iter()
            .map(|text| [b"\x00", text.as_bytes()].concat()),
    );
    for header in [GENUINE, OF_PROVIDER] {
        seeds.push([b"\x01", header.as_bytes()].concat());
        seeds.push(
            format!(
                "\0{}.e30.{}",
                BASE64URL_NOPAD.encode(header.as_bytes()),
                "A".repeat(86)
            )
            .into_bytes(),
        );
    }
    let genuine = serde_json::from_str(GENUINE).expect("JSON");
    seeds.extend(
        seeds::scenario_tables("header", &genuine)
            .iter()
            .map(|header| format!("\x01{header}").into_bytes()),
    );
    // Members that the scenarios add to the header, in place of the genuine ones or beside them.
    seeds.extend(
        seeds::scenarios(&["header_text"])
            .iter()
            .map(|text| [b"\x01", text.as_bytes()].concat()),
    );
    seeds.extend(
        seeds::scenarios(&["header_append"])
            .iter()
            .map(|member| format!("\x01{},{member}}}", GENUINE.trim_end_matches('}')).into_bytes()),
    );
    seeds
}

/// The first byte says whether the rest is a token, or the JSON of a header.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    if kind % 2 == 0 {
        token(rest);
        if let Ok(text) = std::str::from_utf8(rest) {
            text.split('.').for_each(base64);
            key_id(text);
        }
    } else {
        let header = BASE64URL_NOPAD.encode(rest);
        token(format!("{header}.e30.{}", "A".repeat(86)).as_bytes());
    }
}

fn base64(text: &str) {
    assert_eq!(decode_base64(text), jws::base64(text), "{text:?}");
}

fn key_id(text: &str) {
    let found = KeyId::uuid(text.as_bytes());
    assert_eq!(found.is_some(), jws::is_uuid(text), "{text:?}");
    let of_set = KeyId::of_key_set(text.as_bytes());
    assert_eq!(of_set.is_some(), jws::is_key_id(text), "{text:?}");
    for id in [found, of_set].into_iter().flatten() {
        assert_eq!(
            (id.as_bytes(), id.to_string().as_str()),
            (text.as_bytes(), text)
        );
    }
}

fn token(text: &[u8]) {
    let header = text
        .split(|byte| *byte == b'.')
        .next()
        .and_then(|part| std::str::from_utf8(part).ok());
    if header
        .and_then(jws::base64)
        .is_some_and(|header| jws::has_minus_zero(&header))
    {
        return;
    }
    let found = UntrustedToken::parse(text)
        .map(|_| ())
        .map_err(|error| error.reason().name());
    let expected = if text.is_empty() {
        Err("token-missing")
    } else {
        jws::alb_token(text).map(|_| ())
    };
    assert_eq!(found, expected, "{}", String::from_utf8_lossy(text));
    let found = UntrustedAccessToken::parse(text)
        .ok()
        .map(|token| token.key_id().to_string());
    let expected = jws::access_token(text).map(|token| token.kid);
    assert_eq!(found, expected, "{}", String::from_utf8_lossy(text));
}
