//! RSA keys in an identity provider's JSON Web Key Set (RFC 7517). Fetches nothing, verifies
//! nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::source::{FetchResult, KeyId};
use crate::crypto::PublicKey;
use crate::crypto::rs256::RsaKey;
use crate::json;

/// The largest key set, in bytes. Cognito's has two keys and 1 KB; others, with certificates, 20
/// KB.
pub const MAX_SET_BYTES: usize = 64 * 1024;

/// The nesting of a set: an object with an array of objects with an array of certificates.
const MAX_SET_DEPTH: usize = 8;

/// Finds the key `id` in the key set `text`. Invalid: the set is malformed, has several keys with
/// that id, or its key cannot verify RS256.
pub fn find_in_key_set(text: &[u8], id: KeyId) -> FetchResult {
    let Ok(Value::Object(set)) = json::parse(text, MAX_SET_DEPTH) else {
        return FetchResult::Invalid;
    };
    let Some(Value::Array(keys)) = set.get("keys") else {
        return FetchResult::Invalid;
    };
    let named = |key: &&Map<String, Value>| {
        member(key, "kid").is_some_and(|kid| kid.as_bytes() == id.as_bytes())
    };
    let mut found = keys.iter().filter_map(Value::as_object).filter(named);
    match (found.next(), found.next()) {
        (None, _) => FetchResult::NotFound,
        (Some(key), None) => rsa_key(key).map_or(FetchResult::Invalid, |key| {
            FetchResult::Key(PublicKey::Rsa(key))
        }),
        (Some(_), Some(_)) => FetchResult::Invalid,
    }
}

fn rsa_key(key: &Map<String, Value>) -> Option<RsaKey> {
    let is_for_signatures = key.get("use").is_none_or(|found| found == "sig");
    let is_for_rs256 =
        member(key, "kty") == Some("RSA") && key.get("alg").is_none_or(|found| found == "RS256");
    let number = |name| URL_SAFE_NO_PAD.decode(member(key, name)?).ok();
    if is_for_signatures && is_for_rs256 {
        RsaKey::from_components(&number("n")?, &number("e")?)
    } else {
        None
    }
}

fn member<'k>(key: &'k Map<String, Value>, name: &str) -> Option<&'k str> {
    key.get(name).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(set: &Value, id: &str) -> &'static str {
        match find_in_key_set(
            set.to_string().as_bytes(),
            KeyId::of_key_set(id.as_bytes()).unwrap(),
        ) {
            FetchResult::Key(_) => "a key",
            FetchResult::NotFound => "not found",
            FetchResult::Invalid | FetchResult::Failed => "invalid",
        }
    }

    #[test]
    fn finds_one_key_by_its_id() {
        let modulus = URL_SAFE_NO_PAD.encode([0xc1; 256]);
        let key = |kid: &str| json!({"kty": "RSA", "kid": kid, "n": modulus, "e": "AQAB", "x5c": ["MII="]});
        let set = json!({"keys": [{"kty": "EC", "kid": "a"}, key("b"), key("c"), key("c"), {"kid": 7}, "d"], "more": 1});
        for (id, expected) in [
            ("a", "invalid"),
            ("b", "a key"),
            ("c", "invalid"),
            ("7", "not found"),
            ("d", "not found"),
        ] {
            assert_eq!(found(&set, id), expected, "{id}");
        }
    }
}
