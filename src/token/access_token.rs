//! `x-amzn-oidc-accesstoken`, the access token of the identity provider: a JWS (RFC 7515) with
//! RS256. Parses it, and checks its claims after [`super::verify`] has verified the signature. An
//! access token gives no identity. It only adds claims to those of the load balancer's token.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::claims::MAX_CLAIMS_DEPTH;
use super::jws::{
    AccessTokenFault, FORBIDDEN_PARAMETERS, MAX_HEADER_DEPTH, MAX_TOKEN_BYTES, Round, TokenError,
    numeric_date, string,
};
use crate::json;
use crate::keys::source::{KeyId, KeySourceId};
use crate::time::Timestamp;

/// The issuer and keys of trusted access tokens: `accessToken` of the plugin config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTokenRules {
    /// The `iss` of its access tokens.
    pub issuer: String,
    /// The claim of its access tokens that must equal the `sub` of the load balancer's token.
    pub subject: String,
    /// Where its keys are published.
    pub key_source: KeySourceId,
}

/// A well-formed access token that is not verified.
pub struct UntrustedAccessToken<'t> {
    signing_input: &'t str,
    payload: &'t str,
    signature: &'t str,
    key_id: KeyId,
}

impl<'t> UntrustedAccessToken<'t> {
    /// Parses the header value `text`.
    ///
    /// # Errors
    /// [`AccessTokenFault`]: none at all, over [`MAX_TOKEN_BYTES`], no JWS, an `alg` that is not
    /// RS256, an invalid `kid`.
    pub fn parse(text: &'t [u8]) -> Result<Self, TokenError> {
        if text.is_empty() {
            return Err(AccessTokenFault::Missing.into());
        }
        let (parts, header) = Self::split(text).ok_or(AccessTokenFault::Form)?;
        if header.get("alg").and_then(Value::as_str) != Some("RS256") {
            return Err(AccessTokenFault::Algorithm.into());
        }
        let key_id = header
            .get("kid")
            .and_then(|kid| KeyId::of_key_set(kid.as_str()?.as_bytes()))
            .ok_or(AccessTokenFault::KeyId)?;
        let [signing_input, payload, signature] = parts;
        Ok(Self {
            signing_input,
            payload,
            signature,
            key_id,
        })
    }

    /// Signing input, payload and signature, and the JOSE header.
    fn split(text: &'t [u8]) -> Option<([&'t str; 3], Map<String, Value>)> {
        let text = std::str::from_utf8(text)
            .ok()
            .filter(|text| text.len() <= MAX_TOKEN_BYTES)?;
        let (signing_input, signature) = text.rsplit_once('.')?;
        let (header, payload) = signing_input.split_once('.')?;
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        let Value::Object(header) = json::parse(&header, MAX_HEADER_DEPTH).ok()? else {
            return None;
        };
        // A malformed token causes no fetch.
        let is_base64 = |part: &str| {
            part.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let is_sound = is_base64(payload)
            && is_base64(signature)
            && !FORBIDDEN_PARAMETERS
                .iter()
                .any(|name| header.contains_key(*name));
        is_sound.then_some(([signing_input, payload, signature], header))
    }

    /// The id of its key, from the JOSE header.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The bytes that the signature covers.
    pub(crate) fn signing_input(&self) -> &'t [u8] {
        self.signing_input.as_bytes()
    }

    /// In base64.
    pub(crate) fn signature(&self) -> &'t str {
        self.signature
    }

    /// In base64. Must not be decoded before the signature is verified.
    pub(crate) fn payload(&self) -> &'t str {
        self.payload
    }
}

/// The expected claims of an access token from the same sign-in as the load balancer's token.
pub(crate) struct Expected<'a> {
    pub(crate) rules: &'a AccessTokenRules,
    /// `sub` of the load balancer's token.
    pub(crate) subject: Option<&'a str>,
    /// `client` of the load balancer's token.
    pub(crate) client: Option<&'a str>,
}

/// The claims in the `payload` of a verified access token, and when they expire.
///
/// # Errors
/// The first check that failed: the claims are not as `expected`, or do not hold `now`.
pub(crate) fn claims(
    payload: &str,
    expected: &Expected<'_>,
    now: Timestamp,
    skew: Duration,
) -> Result<(Map<String, Value>, Timestamp), AccessTokenFault> {
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    let Ok(Value::Object(claims)) = json::parse(&payload, MAX_CLAIMS_DEPTH) else {
        return Err(AccessTokenFault::Claims);
    };
    let Ok(Some(expires)) = numeric_date(&claims, "exp", Round::Down) else {
        return Err(AccessTokenFault::Expiry);
    };
    let not_before = numeric_date(&claims, "nbf", Round::Up);
    let text = |name| string(&claims, name);
    let AccessTokenRules {
        issuer,
        subject: subject_claim,
        key_source: _,
    } = expected.rules;
    let subject = expected.subject.filter(|subject| !subject.is_empty());
    let client = expected.client;
    let checks = [
        (AccessTokenFault::Expiry, now < expires.plus(skew)),
        (
            AccessTokenFault::NotBefore,
            not_before.is_ok_and(|start| start.is_none_or(|start| start <= now.plus(skew))),
        ),
        (
            AccessTokenFault::Issuer,
            text("iss").is_ok_and(|found| found == Some(issuer.as_str())),
        ),
        (
            AccessTokenFault::Subject,
            subject.is_some() && text(subject_claim).is_ok_and(|found| found == subject),
        ),
        // Cognito's ID token has the same issuer, keys and `sub`.
        (
            AccessTokenFault::TokenUse,
            text("token_use").is_ok_and(|found| found.is_none_or(|found| found == "access")),
        ),
        // RFC 9068, section 2.2. Another app of the same user pool may have wider scopes.
        (
            AccessTokenFault::Client,
            text("client_id").is_ok_and(|found| {
                found.is_none_or(|found| client.is_none_or(|client| client == found))
            }),
        ),
    ];
    match checks.iter().find(|(_, holds)| !holds) {
        Some((fault, _)) => Err(*fault),
        None => Ok((claims, expires)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_700_000_000;

    fn checked(subject_claim: &str, alb: Option<&str>, change: Value) -> Option<AccessTokenFault> {
        let mut payload =
            json!({"iss": "i", "sub": "1", "uid": "u1", "client_id": "c", "exp": NOW + 60});
        for (name, value) in change.as_object().unwrap() {
            payload[name] = value.clone();
        }
        let rules = AccessTokenRules {
            issuer: "i".to_owned(),
            subject: subject_claim.to_owned(),
            key_source: KeySourceId(0),
        };
        let expected = Expected {
            rules: &rules,
            subject: alb,
            client: Some("c"),
        };
        let payload = URL_SAFE_NO_PAD.encode(payload.to_string());
        claims(
            &payload,
            &expected,
            Timestamp::from_seconds(NOW),
            Duration::from_secs(30),
        )
        .err()
    }

    #[test]
    fn names_the_check_that_failed() {
        use AccessTokenFault as Fault;
        for (change, fault) in [
            (json!({}), None),
            (json!({"exp": NOW as f64 - 29.5}), Some(Fault::Expiry)),
            (json!({"exp": NOW - 30}), Some(Fault::Expiry)),
            (json!({"exp": "x"}), Some(Fault::Expiry)),
            (json!({"nbf": NOW + 30}), None),
            (json!({"nbf": NOW as f64 + 30.5}), Some(Fault::NotBefore)),
            (json!({"iss": "j"}), Some(Fault::Issuer)),
            (json!({"sub": "2"}), Some(Fault::Subject)),
            (json!({"token_use": "id"}), Some(Fault::TokenUse)),
            (json!({"client_id": "d"}), Some(Fault::Client)),
        ] {
            assert_eq!(checked("sub", Some("1"), change.clone()), fault, "{change}");
        }
    }

    #[test]
    fn compares_the_configured_subject_byte_for_byte() {
        let fault = Some(AccessTokenFault::Subject);
        assert_eq!(checked("uid", Some("u1"), json!({})), None);
        for (alb, change) in [
            (Some("1"), json!({})),
            (Some("U1"), json!({})),
            (Some("u1"), json!({"uid": "u1 "})),
            (Some("u1"), json!({"uid": null})),
            (Some("u1"), json!({"uid": ["u1"]})),
            (Some(""), json!({"uid": ""})),
            (None, json!({})),
        ] {
            assert_eq!(
                checked("uid", alb, change.clone()),
                fault,
                "{alb:?} {change}"
            );
        }
        assert_eq!(checked("oid", Some("u1"), json!({})), fault);
    }
}
