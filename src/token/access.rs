//! `x-amzn-oidc-accesstoken`, the identity provider's own access token: a JWS (RFC 7515) that it
//! signs with RS256. It is taken apart here before it is trusted, and its claims are checked here
//! after [`super::verify`] verified it. Nothing here makes a user of it: it only adds claims to
//! those of the load balancer's token.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::claims::MAX_CLAIMS_DEPTH;
use super::jws::{
    MAX_HEADER_DEPTH, MAX_TOKEN_BYTES, REFUSED_PARAMETERS, Round, numeric_date, string,
};
use crate::json;
use crate::keys::source::{KeyId, KeySourceId};
use crate::reason::Reason;
use crate::time::Timestamp;

/// Whose access tokens are trusted: `accessToken` of the plugin config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTokenRules {
    /// The `iss` of its access tokens.
    pub issuer: String,
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
    /// Takes the header value `text` apart.
    ///
    /// # Errors
    /// [`Reason::AccessTokenInvalid`] for all: none at all, over [`MAX_TOKEN_BYTES`], no JWS, an
    /// `alg` that is not RS256, an invalid `kid`.
    pub fn parse(text: &'t [u8]) -> Result<Self, Reason> {
        Self::read(text).ok_or(Reason::AccessTokenInvalid)
    }

    fn read(text: &'t [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text)
            .ok()
            .filter(|text| text.len() <= MAX_TOKEN_BYTES)?;
        let (signing_input, signature) = text.rsplit_once('.')?;
        let (header, payload) = signing_input.split_once('.')?;
        let header = json::parse(&URL_SAFE_NO_PAD.decode(header).ok()?, MAX_HEADER_DEPTH).ok()?;
        let header = header.as_object()?;
        // A malformed token causes no fetch.
        let is_base64 = |part: &str| {
            part.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let is_sound = is_base64(payload)
            && is_base64(signature)
            && header.get("alg").is_some_and(|alg| alg == "RS256")
            && !REFUSED_PARAMETERS
                .iter()
                .any(|name| header.contains_key(*name));
        let key_id = KeyId::of_key_set(header.get("kid")?.as_str()?.as_bytes())?;
        is_sound.then_some(Self {
            signing_input,
            payload,
            signature,
            key_id,
        })
    }

    /// Which key would have signed it.
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

    /// In base64. Only to be decoded once the signature has been verified.
    pub(crate) fn payload(&self) -> &'t str {
        self.payload
    }
}

/// The values that bind an access token to the sign-in of the load balancer's token.
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    /// `sub` of the load balancer's token.
    pub(crate) subject: Option<&'a str>,
    /// `client` of the load balancer's token.
    pub(crate) client: Option<&'a str>,
}

/// The claims in the `payload` of a verified access token, and when they expire; `None` unless they
/// are as `expected` and hold `now`.
pub(crate) fn claims(
    payload: &str,
    expected: &Expected<'_>,
    now: Timestamp,
    skew: Duration,
) -> Option<(Map<String, Value>, Timestamp)> {
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let Ok(Value::Object(claims)) = json::parse(&payload, MAX_CLAIMS_DEPTH) else {
        return None;
    };
    let expires = numeric_date(&claims, "exp", Round::Down).ok()??;
    let not_before = numeric_date(&claims, "nbf", Round::Up).ok()?;
    let text = |name| string(&claims, name).ok();
    let is_of_this_sign_in = text("iss")? == Some(expected.issuer)
        && expected.subject.is_some_and(|subject| !subject.is_empty())
        && text("sub")? == expected.subject
        // Cognito's ID token has the same issuer, keys and `sub`.
        && text("token_use")?.is_none_or(|found| found == "access")
        // RFC 9068, section 2.2. Another app of the same user pool may have wider scopes.
        && text("client_id")?.is_none_or(|found| expected.client.is_none_or(|client| client == found));
    let holds = now < expires.plus(skew) && not_before.is_none_or(|start| start <= now.plus(skew));
    (is_of_this_sign_in && holds).then_some((claims, expires))
}
