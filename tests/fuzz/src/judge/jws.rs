//! Base64, JSON and the forms of both tokens, with libraries other than the filter's:
//! `data-encoding` and `jiter`.

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use jiter::JsonValue;
use serde_json::{Map, Number, Value};

/// The longest `x-amzn-oidc-data`.
const MAX_TOKEN: usize = 16_384;
/// Members of a JOSE header that would change the algorithm or the key.
const FORBIDDEN: [&str; 7] = ["crit", "b64", "zip", "jwk", "jku", "x5c", "x5u"];
/// The maximum depth of a JOSE header and of claims.
const HEADER_DEPTH: usize = 2;
/// See [`HEADER_DEPTH`].
pub const CLAIMS_DEPTH: usize = 16;

/// The ALB's base64: either alphabet, padded or not, and canonical. Incomplete padding is accepted
/// too: it carries no information.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    let full = (4 - bare.len() % 4) % 4;
    if text.len() - bare.len() > full {
        return None;
    }
    [BASE64URL_NOPAD, BASE64_NOPAD]
        .iter()
        .find_map(|encoding| encoding.decode(bare.as_bytes()).ok())
}

/// RFC 7515's base64: URL-safe, no padding.
pub fn base64url(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

/// Strict JSON: RFC 8259 in UTF-8, without duplicate members, numbers out of a double's range, or
/// nesting deeper than `depth`.
pub fn json(text: &[u8], depth: usize) -> Option<Value> {
    std::str::from_utf8(text).ok()?;
    strict(&JsonValue::parse(text, false).ok()?, depth)
}

/// Whether the text may contain the number -0, which both libraries parse differently: an integer
/// here, a double in the filter.
pub fn has_minus_zero(text: &[u8]) -> bool {
    text.windows(3)
        .any(|part| part.starts_with(b"-0") && b",]} \t\r\n".contains(&part[2]))
        || text.ends_with(b"-0")
}

fn strict(value: &JsonValue<'_>, depth: usize) -> Option<Value> {
    Some(match value {
        JsonValue::Null => Value::Null,
        JsonValue::Bool(truth) => Value::Bool(*truth),
        JsonValue::Int(number) => Value::from(*number),
        // Numbers that fit no integer type are doubles, as in most languages.
        JsonValue::BigInt(number) => match u64::try_from(number.clone()) {
            Ok(number) => Value::from(number),
            Err(_) => Value::Number(Number::from_f64(number.to_string().parse().ok()?)?),
        },
        JsonValue::Float(number) => Value::Number(Number::from_f64(*number)?),
        JsonValue::Str(text) => Value::from(text.as_ref()),
        JsonValue::Array(items) => {
            let inner = depth.checked_sub(1)?;
            Value::Array(
                items
                    .iter()
                    .map(|item| strict(item, inner))
                    .collect::<Option<_>>()?,
            )
        }
        JsonValue::Object(members) => {
            let inner = depth.checked_sub(1)?;
            let mut object = Map::new();
            for (name, member) in members.iter() {
                if object
                    .insert(name.as_ref().to_owned(), strict(member, inner)?)
                    .is_some()
                {
                    return None;
                }
            }
            Value::Object(object)
        }
    })
}

/// Five groups of hexadecimal digits.
pub fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A provider chooses its key ids: 1 to 128 visible characters.
pub fn is_key_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| (0x21..0x7f).contains(&byte))
}

/// The parsed token of the ALB.
pub struct AlbToken {
    /// The signed text, as sent.
    pub signed: Vec<u8>,
    /// r‖s
    pub signature: Vec<u8>,
    /// The JOSE header.
    pub kid: String,
    pub signer: String,
    pub issuer: Option<String>,
    pub client: Option<String>,
    pub expires: u64,
    /// Base64, not decoded yet.
    pub payload: String,
}

/// All checks on the token alone.
pub fn alb_token(text: &[u8]) -> Result<AlbToken, &'static str> {
    const MALFORMED: &str = "token-malformed";
    if text.len() > MAX_TOKEN {
        return Err("token-too-large");
    }
    let text = std::str::from_utf8(text).map_err(|_| MALFORMED)?;
    // More than two dots are no JWS. Which mistake is reported first is only a matter of order.
    let (header, rest) = text.split_once('.').ok_or(MALFORMED)?;
    let (payload, signature) = rest.rsplit_once('.').ok_or(MALFORMED)?;
    let object = base64(header)
        .and_then(|bytes| json(&bytes, HEADER_DEPTH))
        .ok_or(MALFORMED)?;
    let object = object.as_object().ok_or(MALFORMED)?;
    if FORBIDDEN.iter().any(|name| object.contains_key(*name)) {
        return Err(MALFORMED);
    }
    if object.get("typ").is_some_and(|typ| {
        !typ.as_str()
            .is_some_and(|typ| typ.eq_ignore_ascii_case("JWT"))
    }) {
        return Err(MALFORMED);
    }
    if object.get("alg").and_then(Value::as_str) != Some("ES256") {
        return Err("algorithm-not-es256");
    }
    let kid = object
        .get("kid")
        .and_then(Value::as_str)
        .filter(|kid| is_uuid(kid))
        .ok_or("key-id-invalid")?;
    let signature = base64(signature)
        .filter(|bytes| bytes.len() == 64)
        .ok_or(MALFORMED)?;
    // Decoding happens after verification, but invalid characters are rejected before.
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+/=".contains(&byte);
    if payload.is_empty() || !payload.bytes().all(is_base64) {
        return Err(MALFORMED);
    }
    let text_member = |name| match object.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(MALFORMED),
    };
    Ok(AlbToken {
        signed: format!("{header}.{payload}").into_bytes(),
        signature,
        kid: kid.to_owned(),
        signer: text_member("signer")?.unwrap_or_default(),
        issuer: text_member("iss")?,
        client: text_member("client")?,
        expires: date(object, "exp", false)?.ok_or(MALFORMED)?,
        payload: payload.to_owned(),
    })
}

/// A NumericDate up to the year 9999. The second below, or if `up` the second above.
pub fn date(
    object: &Map<String, Value>,
    name: &str,
    up: bool,
) -> Result<Option<u64>, &'static str> {
    let Some(found) = object.get(name) else {
        return Ok(None);
    };
    let number = found.as_f64().ok_or("token-malformed")?;
    // Doubles have each second of these years.
    let below = number.trunc() as u64;
    let date = below + u64::from(up && number.fract() > 0.0);
    let is_date = number.signum() == 1.0 && number < 1e12 && date < 253_402_300_800;
    is_date.then_some(Some(date)).ok_or("token-malformed")
}

/// The parsed access token of the provider.
pub struct AccessToken {
    /// The signed text.
    pub signed: Vec<u8>,
    /// `None`: invalid base64.
    pub signature: Option<Vec<u8>>,
    /// The id of the key that signed it.
    pub kid: String,
    /// `None`: not an object.
    pub claims: Option<Map<String, Value>>,
}

/// A JWS according to RFC 7515, with RS256. `None`: not one.
pub fn access_token(text: &[u8]) -> Option<AccessToken> {
    let text = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.len() <= MAX_TOKEN)?;
    let [header, payload, signature] = text.split('.').collect::<Vec<_>>()[..] else {
        return None;
    };
    let object = json(&base64url(header)?, HEADER_DEPTH)?;
    let object = object.as_object()?;
    let kid = object.get("kid")?.as_str()?;
    let kid_is_sound = is_key_id(kid);
    let is_base64 = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let is_sound = kid_is_sound && is_base64(payload) && is_base64(signature);
    if object.get("alg")? != "RS256"
        || FORBIDDEN.iter().any(|name| object.contains_key(*name))
        || !is_sound
    {
        return None;
    }
    Some(AccessToken {
        signed: format!("{header}.{payload}").into_bytes(),
        signature: base64url(signature),
        kid: kid.to_owned(),
        claims: base64url(payload)
            .and_then(|bytes| json(&bytes, CLAIMS_DEPTH))
            .and_then(|claims| claims.as_object().cloned()),
    })
}
