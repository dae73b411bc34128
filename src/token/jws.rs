//! JWS compact serialization (RFC 7515, section 7.1) for both tokens: size limits, base64, typed
//! header parameters, errors. Requires no header parameters or claims.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::claims::MAX_CLAIMS_DEPTH;
use crate::json;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The longest accepted token, in bytes. An ALB answers 500 if claims and access token exceed 11 KB
/// together.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The latest accepted `exp`, in seconds since the epoch: the end of the year 9999.
const MAX_NUMERIC_DATE: u64 = 253_402_300_799;

/// How deep the JOSE header may nest: it is a flat object.
pub(crate) const MAX_HEADER_DEPTH: usize = 2;

/// Header parameters that carry a key of the sender or change what is signed. No ALB sends them.
pub(crate) const FORBIDDEN_PARAMETERS: [&str; 7] =
    ["crit", "b64", "jwk", "jku", "x5c", "x5u", "zip"];

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

/// Why a token is denied: the reason, and a detail for logs and `alb-oidc explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// [`Reason::TokenMalformed`], and what is malformed.
    Malformed(Malformed),
    /// [`Reason::AccessTokenInvalid`], and the check that failed.
    AccessToken(AccessTokenFault),
    /// Any other reason.
    Other(Reason),
}

impl TokenError {
    /// The reason of the denial.
    pub fn reason(self) -> Reason {
        match self {
            Self::Malformed(_) => Reason::TokenMalformed,
            Self::AccessToken(_) => Reason::AccessTokenInvalid,
            Self::Other(reason) => reason,
        }
    }
}

impl From<TokenError> for Reason {
    fn from(error: TokenError) -> Self {
        error.reason()
    }
}

impl From<Reason> for TokenError {
    fn from(reason: Reason) -> Self {
        Self::Other(reason)
    }
}

impl From<Malformed> for TokenError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<AccessTokenFault> for TokenError {
    fn from(fault: AccessTokenFault) -> Self {
        Self::AccessToken(fault)
    }
}

/// The check of the access token that failed. The client is not told.
/// [`Display`](std::fmt::Display) gives its name in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessTokenFault {
    /// The request has none, or an empty one.
    Missing,
    /// The request has more than one.
    Duplicate,
    /// It is too long, or not a JWS in compact form with a JOSE header of strict JSON.
    Form,
    /// `alg` is not `RS256`.
    Algorithm,
    /// `kid` is absent or not a key id.
    KeyId,
    /// The signature does not verify.
    Signature,
    /// The payload is not one JSON object in base64, or names a claim twice.
    Claims,
    /// `exp` is absent, not a NumericDate, or has passed.
    Expiry,
    /// `nbf` is not a NumericDate, or is still to come.
    NotBefore,
    /// `iss` is not the configured issuer.
    Issuer,
    /// The claim of `accessToken.subject` does not equal the `sub` of the load balancer's token, or
    /// one of them is absent or empty.
    Subject,
    /// `token_use` is not `access`.
    TokenUse,
    /// `client_id` is not the `client` of the load balancer's token.
    Client,
}

impl std::fmt::Display for AccessTokenFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Duplicate => "duplicate",
            Self::Form => "form",
            Self::Algorithm => "algorithm",
            Self::KeyId => "key-id",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Expiry => "expiry",
            Self::NotBefore => "not-before",
            Self::Issuer => "issuer",
            Self::Subject => "subject",
            Self::TokenUse => "token-use",
            Self::Client => "client",
        })
    }
}

/// What is malformed in a token. [`Display`](std::fmt::Display) says what is expected instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is not UTF-8.
    Utf8,
    /// It has fewer than three parts, separated by dots.
    Parts,
    /// The JOSE header is not one JSON object in base64, or names a parameter twice.
    Header,
    /// The JOSE header has a parameter that carries a key or changes what is signed, such as `jwk`.
    Parameter,
    /// `typ` of the JOSE header is not `JWT`.
    Type,
    /// `exp` is not a NumericDate, or the JOSE header lacks it.
    Expiry,
    /// `signer` is not a string.
    Signer,
    /// `iss` is not a string.
    Issuer,
    /// `client` is not a string.
    Client,
    /// The signature is not 64 bytes in base64.
    Signature,
    /// The payload is not base64.
    Payload,
    /// The payload is not one JSON object, or names a claim twice.
    Claims,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Utf8 => "UTF-8",
            Self::Parts => "two: header.claims.signature",
            Self::Header => "the JOSE header: a JSON object in base64, no parameter twice",
            Self::Parameter => return write!(f, "none of {}", FORBIDDEN_PARAMETERS.join(", ")),
            Self::Type => "JWT",
            Self::Expiry => "seconds since 1970",
            Self::Signer | Self::Issuer | Self::Client => "text",
            Self::Signature => "64 bytes in base64",
            Self::Payload => "claims in base64",
            Self::Claims => "one JSON object, no claim twice",
        })
    }
}

/// Half of a surrogate pair, for which `serde_json` has two names.
const LONE_SURROGATE: &str = "a lone surrogate in an escape";

/// What is wrong with the JSON of a JOSE header, with line and column; `None`: it is one strict
/// object. For a person to read.
pub fn header_fault(text: &[u8]) -> Option<String> {
    fault(text, MAX_HEADER_DEPTH)
}

/// As [`header_fault`], for claims.
pub fn claims_fault(text: &[u8]) -> Option<String> {
    fault(text, MAX_CLAIMS_DEPTH)
}

fn fault(text: &[u8], max_depth: usize) -> Option<String> {
    match json::parse(text, max_depth) {
        Ok(Value::Object(_)) => None,
        Ok(_) => Some("a JSON value that is no object".to_owned()),
        Err(error) => {
            let said = error
                .to_string()
                .replace("unexpected end of hex escape", LONE_SURROGATE)
                .replace("lone leading surrogate in hex escape", LONE_SURROGATE);
            let is_too_deep = said.starts_with(json::TOO_DEEP);
            Some(if is_too_deep {
                format!("{said} (more than {max_depth} levels)")
            } else {
                said
            })
        }
    }
}

/// A member of a JSON object has another type than expected.
pub(crate) struct WrongType;

/// The string `name` of `object`; `None` if it is absent.
///
/// # Errors
/// [`WrongType`] if it is something else.
pub(crate) fn string<'v>(
    object: &'v Map<String, Value>,
    name: &str,
) -> Result<Option<&'v str>, WrongType> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value)),
        Some(_) => Err(WrongType),
    }
}

/// As [`string`], but moves the string out of `object`: a copy takes 1,100 instructions.
pub(super) fn take_string(
    object: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<String>, WrongType> {
    match object.get_mut(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(std::mem::take(value))),
        Some(_) => Err(WrongType),
    }
}

/// How a NumericDate between two seconds is rounded: against the caller.
#[derive(Clone, Copy)]
pub(crate) enum Round {
    /// For the end of a validity.
    Down,
    /// For its beginning.
    Up,
}

/// The NumericDate `name` of `object` (RFC 7519, section 2), rounded to whole seconds; `None` if it
/// is absent.
///
/// # Errors
/// [`WrongType`] if it is something else, negative or after the year 9999.
pub(crate) fn numeric_date(
    object: &Map<String, Value>,
    name: &str,
    round: Round,
) -> Result<Option<Timestamp>, WrongType> {
    let Some(value) = object.get(name) else {
        return Ok(None);
    };
    let seconds = value
        .as_u64()
        .or_else(|| whole_seconds(value.as_f64()?, round));
    match seconds {
        Some(seconds) if seconds <= MAX_NUMERIC_DATE => Ok(Some(Timestamp::from_seconds(seconds))),
        _ => Err(WrongType),
    }
}

/// `None` if it is negative, -0 included.
fn whole_seconds(seconds: f64, round: Round) -> Option<u64> {
    let rounded = match round {
        Round::Down => seconds.floor(),
        Round::Up => seconds.ceil(),
    };
    // The cast saturates, and makes 0 of NaN, which no JSON has.
    seconds.is_sign_positive().then_some(rounded as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_not_strict_json() {
        let deep = "[".repeat(16);
        for (claims, expected) in [
            (r#"{"a":1}"#.to_owned(), None),
            ("[]".to_owned(), Some("a JSON value that is no object")),
            (
                format!(r#"{{"a":{deep}"#),
                Some("nested too deeply at line 1 column 21 (more than 16 levels)"),
            ),
            (
                r#"{"a":1e400}"#.to_owned(),
                Some("number out of range at line 1 column 10"),
            ),
            (
                r#"{"a":"\ud800"}"#.to_owned(),
                Some("a lone surrogate in an escape at line 1 column 13"),
            ),
            (
                r#"{"a":"\ud800\ud800"}"#.to_owned(),
                Some("a lone surrogate in an escape at line 1 column 18"),
            ),
            (
                r#"{"a":"\udc00"}"#.to_owned(),
                Some("a lone surrogate in an escape at line 1 column 12"),
            ),
            (
                r#"{"a":1,"a":1}"#.to_owned(),
                Some("a key stands twice in one object at line 1 column 10"),
            ),
        ] {
            let found = claims_fault(claims.as_bytes());
            assert_eq!(found.as_deref(), expected, "{claims}");
        }
    }

    fn seconds(number: &str, round: Round) -> Option<u64> {
        let text = format!(r#"{{"exp":{number}}}"#);
        let claims = json::parse(text.as_bytes(), 2).unwrap();
        let date = numeric_date(claims.as_object().unwrap(), "exp", round).ok()?;
        Some(date.unwrap().millis() / 1000)
    }

    #[test]
    fn rounds_fractions_against_the_caller() {
        for (number, down, up) in [
            ("1700000000", Some(1_700_000_000), Some(1_700_000_000)),
            ("1700000000.0", Some(1_700_000_000), Some(1_700_000_000)),
            ("1.7e9", Some(1_700_000_000), Some(1_700_000_000)),
            ("1700000000.001", Some(1_700_000_000), Some(1_700_000_001)),
            ("1700000000.999", Some(1_700_000_000), Some(1_700_000_001)),
            ("0", Some(0), Some(0)),
            ("0.1", Some(0), Some(1)),
            ("1e-300", Some(0), Some(1)),
            (
                "253402300799",
                Some(MAX_NUMERIC_DATE),
                Some(MAX_NUMERIC_DATE),
            ),
            ("253402300799.5", Some(MAX_NUMERIC_DATE), None),
        ] {
            let found = (seconds(number, Round::Down), seconds(number, Round::Up));
            assert_eq!(found, (down, up), "{number}");
        }
    }

    #[test]
    fn rejects_what_is_no_date() {
        for text in [
            "-1",
            "-0",
            "-0.5",
            "-1e300",
            "253402300800",
            "253402300800.0",
            "18446744073709551615",
            "18446744073709551616",
            "1e300",
            "true",
            "null",
            "\"1700000000\"",
            "[1700000000]",
        ] {
            assert_eq!(seconds(text, Round::Down), None, "{text}");
            assert_eq!(seconds(text, Round::Up), None, "{text}");
        }
    }
}
