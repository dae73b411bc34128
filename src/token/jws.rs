//! What both tokens share as JWS compact serialization (RFC 7515, section 7.1): size limits,
//! base64, typed header parameters. Nothing here says what a token must hold.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use crate::reason::Reason;
use crate::time::Timestamp;

/// The longest token that is looked at, in bytes. An ALB answers 500 where claims and access token
/// exceed 11 K.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The latest `exp` that is believed, in seconds since the epoch: the end of the year 9999.
const MAX_NUMERIC_DATE: u64 = 253_402_300_799;

/// How deep the JOSE header may nest: it is a flat object.
pub(crate) const MAX_HEADER_DEPTH: usize = 2;

/// Header parameters that bring a key of the sender's own or change what is signed. No ALB sends
/// them.
pub(crate) const REFUSED_PARAMETERS: [&str; 7] = ["crit", "b64", "jwk", "jku", "x5c", "x5u", "zip"];

const LENIENT_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT_PADDING);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT_PADDING);

/// Decodes base64 of either alphabet, padded or not; `None` if it is neither.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    URL_SAFE
        .decode(text)
        .or_else(|_| STANDARD.decode(text))
        .ok()
}

/// Whether `byte` is of either alphabet, or padding.
pub(super) fn is_base64(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'+' | b'/' | b'=')
}

/// The string `name` of `object`; `None` if it is absent, [`Reason::TokenMalformed`] if it is
/// something else.
pub(crate) fn string<'v>(
    object: &'v Map<String, Value>,
    name: &str,
) -> Result<Option<&'v str>, Reason> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value)),
        Some(_) => Err(Reason::TokenMalformed),
    }
}

/// The NumericDate `name` of `object` in whole seconds; `None` if it is absent,
/// [`Reason::TokenMalformed`] if it is something else, negative, fractional or after the year 9999.
pub(crate) fn numeric_date(
    object: &Map<String, Value>,
    name: &str,
) -> Result<Option<Timestamp>, Reason> {
    match object.get(name) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(seconds) if seconds <= MAX_NUMERIC_DATE => {
                Ok(Some(Timestamp::from_seconds(seconds)))
            }
            _ => Err(Reason::TokenMalformed),
        },
    }
}
