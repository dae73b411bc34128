//! Parses `x-amzn-oidc-data`, and compares its JOSE header with the configured load balancers.
//! Reads no claims and verifies no signature: [`super::verify`] does.
//!
//! The format is JWS compact serialization (RFC 7515, section 7.1) with two header parameters of
//! the ALB, `signer` and `client`. Its base64 is padded. Old tokens use the standard alphabet.

use std::time::Duration;

use serde_json::Value;

use super::jws::{
    FORBIDDEN_PARAMETERS, MAX_HEADER_DEPTH, MAX_TOKEN_BYTES, Malformed, Round, TokenError,
    decode_base64, is_base64, numeric_date, string, take_string,
};
use crate::json;
use crate::keys::source::{KeyId, KeySourceId};
use crate::reason::Reason;
use crate::time::Timestamp;

/// A load balancer whose tokens are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// The `signer` of its tokens.
    pub arn: String,
    /// The `iss` of its tokens; `None`: any.
    pub issuer: Option<String>,
    /// The `client` of its tokens; `None`: any.
    pub client_id: Option<String>,
    /// Where its keys are published.
    pub key_source: KeySourceId,
}

/// A well-formed token that is not verified.
pub struct UntrustedToken<'t> {
    signing_input: &'t str,
    payload: &'t str,
    signature: [u8; 64],
    key_id: KeyId,
    signer: Option<String>,
    issuer: Option<String>,
    client: Option<String>,
    expires: Timestamp,
}

impl<'t> UntrustedToken<'t> {
    /// Parses the header value `text`.
    ///
    /// # Errors
    /// In this order: [`Reason::TokenMissing`], [`Reason::TokenTooLarge`],
    /// [`Reason::TokenMalformed`] for the form of the JWS and its header,
    /// [`Reason::AlgorithmNotEs256`], [`Reason::KeyIdInvalid`], then [`Reason::TokenMalformed`]
    /// again for `exp`, `signer`, `iss`, `client` of a wrong type and for a signature that is not
    /// 64 bytes.
    pub fn parse(text: &'t [u8]) -> Result<Self, TokenError> {
        if text.is_empty() {
            return Err(Reason::TokenMissing.into());
        }
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Reason::TokenTooLarge.into());
        }
        let text = std::str::from_utf8(text).map_err(|_| Malformed::Utf8)?;
        let (signing_input, signature) = text.rsplit_once('.').ok_or(Malformed::Parts)?;
        let (header, payload) = signing_input.split_once('.').ok_or(Malformed::Parts)?;
        let header = decode_base64(header).ok_or(Malformed::Header)?;
        let Ok(Value::Object(mut header)) = json::parse(&header, MAX_HEADER_DEPTH) else {
            return Err(Malformed::Header.into());
        };

        if FORBIDDEN_PARAMETERS
            .iter()
            .any(|name| header.contains_key(*name))
        {
            return Err(Malformed::Parameter.into());
        }
        if let Some(typ) = string(&header, "typ").map_err(|_| Malformed::Type)?
            && !typ.eq_ignore_ascii_case("JWT")
        {
            return Err(Malformed::Type.into());
        }
        if header.get("alg").and_then(Value::as_str) != Some("ES256") {
            return Err(Reason::AlgorithmNotEs256.into());
        }
        let key_id = header.get("kid").and_then(Value::as_str);
        let key_id = key_id
            .and_then(|kid| KeyId::uuid(kid.as_bytes()))
            .ok_or(Reason::KeyIdInvalid)?;
        let expires = numeric_date(&header, "exp", Round::Down)
            .ok()
            .flatten()
            .ok_or(Malformed::Expiry)?;
        let signature = decode_base64(signature)
            .ok_or(Malformed::Signature)?
            .try_into()
            .map_err(|_| Malformed::Signature)?;
        // The payload is decoded after verification. A payload that is not base64, such as one with
        // a `.`, must not cause a fetch.
        if payload.is_empty() || !payload.bytes().all(is_base64) {
            return Err(Malformed::Payload.into());
        }
        Ok(Self {
            signing_input,
            payload,
            signature,
            key_id,
            signer: take_string(&mut header, "signer").map_err(|_| Malformed::Signer)?,
            issuer: take_string(&mut header, "iss").map_err(|_| Malformed::Issuer)?,
            client: take_string(&mut header, "client").map_err(|_| Malformed::Client)?,
            expires,
        })
    }

    /// Compares signer, issuer and client with the load balancers whose tokens are trusted, and
    /// the header's `exp` with `now` less `skew`. Needs no key, so a forgery that fails here costs
    /// no fetch.
    ///
    /// The signer is the only field that tells this gateway's load balancer from an attacker's: all
    /// ALBs of a region share one key server.
    ///
    /// # Errors
    /// [`Reason::SignerUnknown`], [`Reason::IssuerMismatch`], [`Reason::ClientMismatch`],
    /// [`Reason::TokenExpired`].
    pub fn screen(
        self,
        trusted: &[LoadBalancer],
        now: Timestamp,
        skew: Duration,
    ) -> Result<ScreenedToken<'t>, ScreenError> {
        let mut reason = Reason::SignerUnknown;
        for (position, load_balancer) in trusted.iter().enumerate() {
            let LoadBalancer {
                arn,
                issuer,
                client_id,
                key_source,
            } = load_balancer;
            if self.signer.as_deref() != Some(arn.as_str()) {
                continue;
            }
            if !accepts(issuer.as_deref(), self.issuer.as_deref()) {
                if reason == Reason::SignerUnknown {
                    reason = Reason::IssuerMismatch;
                }
                continue;
            }
            if !accepts(client_id.as_deref(), self.client.as_deref()) {
                reason = Reason::ClientMismatch;
                continue;
            }
            if self.expires.plus(skew) <= now {
                return Err(ScreenError {
                    reason: Reason::TokenExpired,
                    found: None,
                });
            }
            return Ok(ScreenedToken {
                key_source: *key_source,
                load_balancer: position,
                token: self,
            });
        }
        let (name, value) = match reason {
            Reason::ClientMismatch => ("client", self.client),
            Reason::IssuerMismatch => ("iss", self.issuer),
            _ => ("signer", self.signer),
        };
        Err(ScreenError {
            reason,
            found: Some(HeaderParameter { name, value }),
        })
    }
}

/// The token is not from a configured load balancer, or has expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScreenError {
    /// The reason of the denial.
    pub reason: Reason,
    /// The parameter of the JOSE header that differs from the config; `None`: the token expired.
    pub found: Option<HeaderParameter>,
}

impl From<ScreenError> for Reason {
    fn from(error: ScreenError) -> Self {
        error.reason
    }
}

/// An unverified parameter of a JOSE header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderParameter {
    /// Its name.
    pub name: &'static str,
    /// Its value; `None` if it is absent.
    pub value: Option<String>,
}

fn accepts(expected: Option<&str>, found: Option<&str>) -> bool {
    expected.is_none() || expected == found
}

/// A token that claims to be from a configured load balancer and has not expired. Its signature is
/// still unchecked.
pub struct ScreenedToken<'t> {
    token: UntrustedToken<'t>,
    key_source: KeySourceId,
    load_balancer: usize,
}

impl<'t> ScreenedToken<'t> {
    /// The id of its key, from the JOSE header.
    pub fn key_id(&self) -> KeyId {
        self.token.key_id
    }

    /// Where that key is published.
    pub fn key_source(&self) -> KeySourceId {
        self.key_source
    }

    /// The position of the load balancer that it claims to be from, in the config.
    pub fn load_balancer(&self) -> usize {
        self.load_balancer
    }

    /// The bytes that the signature covers: header and payload as received, padding included.
    pub(crate) fn signing_input(&self) -> &'t [u8] {
        self.token.signing_input.as_bytes()
    }

    /// r‖s (RFC 7518, section 3.4).
    pub(crate) fn signature(&self) -> &[u8; 64] {
        &self.token.signature
    }

    /// The payload in base64. Must not be decoded before the signature is verified.
    pub(crate) fn payload(&self) -> &'t str {
        self.token.payload
    }

    pub(crate) fn issuer(&self) -> Option<&str> {
        self.token.issuer.as_deref()
    }

    pub(crate) fn client(&self) -> Option<&str> {
        self.token.client.as_deref()
    }

    pub(crate) fn expires(&self) -> Timestamp {
        self.token.expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE as PADDED;

    const HEADER: &str = r#"{"typ":"JWT","alg":"ES256","kid":"31d3e334-9a02-440a-867b-356248ecfb7d","signer":"arn","iss":"i","client":"c","exp":100}"#;

    fn token(header: &str) -> String {
        format!(
            "{}.{}.{}",
            PADDED.encode(header),
            PADDED.encode("{}"),
            PADDED.encode([7; 64])
        )
    }

    fn denial(text: &str) -> Option<Reason> {
        UntrustedToken::parse(text.as_bytes())
            .err()
            .map(TokenError::reason)
    }

    fn load_balancer(issuer: Option<&str>, client_id: Option<&str>) -> LoadBalancer {
        LoadBalancer {
            arn: "arn".to_owned(),
            issuer: issuer.map(str::to_owned),
            client_id: client_id.map(str::to_owned),
            key_source: KeySourceId(0),
        }
    }

    fn screened(trusted: &[LoadBalancer], now: u64) -> Option<Reason> {
        let text = token(HEADER);
        let token = UntrustedToken::parse(text.as_bytes()).ok().unwrap();
        token
            .screen(
                trusted,
                Timestamp::from_seconds(now),
                Duration::from_secs(30),
            )
            .err()
            .map(Reason::from)
    }

    #[test]
    fn parses_both_alphabets_padded_or_not() {
        let padded = token(HEADER);
        assert!(padded.contains('='));
        for text in [
            padded.clone(),
            padded.replace('=', ""),
            padded.replace('-', "+").replace('_', "/"),
        ] {
            assert_eq!(denial(&text), None, "{text}");
        }
    }

    #[test]
    fn signature_covers_the_text_as_received() {
        let text = token(HEADER);
        let token = UntrustedToken::parse(text.as_bytes()).ok().unwrap();
        assert_eq!(
            format!("{}.{}", token.signing_input, PADDED.encode([7; 64])),
            text
        );
    }

    #[test]
    fn denies_malformed_tokens() {
        assert_eq!(denial(""), Some(Reason::TokenMissing));
        assert_eq!(
            denial(&"a".repeat(MAX_TOKEN_BYTES + 1)),
            Some(Reason::TokenTooLarge)
        );
        let good = token(HEADER);
        for text in [
            "a",
            "a.b",
            "..",
            "....",
            "e30.e30.e30",
            &good.replacen('.', ".e30.", 1),
            &format!("{good}."),
            &format!("{good}A"),
            &format!(".{good}"),
        ] {
            assert_ne!(denial(text), None, "{text}");
        }
    }

    #[test]
    fn names_header_parameters_of_wrong_type() {
        for (from, to, reason) in [
            (
                r#""alg":"ES256""#,
                r#""alg":"none""#,
                Reason::AlgorithmNotEs256,
            ),
            (r#""alg":"ES256","#, "", Reason::AlgorithmNotEs256),
            (r#""exp":100"#, r#""exp":"100""#, Reason::TokenMalformed),
            (r#""exp":100"#, r#""exp":-1.5"#, Reason::TokenMalformed),
            (r#""exp":100"#, r#""exp":-1"#, Reason::TokenMalformed),
            (
                r#""exp":100"#,
                r#""exp":253402300800"#,
                Reason::TokenMalformed,
            ),
            (r#","exp":100"#, "", Reason::TokenMalformed),
            (
                r#""exp":100"#,
                r#""exp":100,"crit":[]"#,
                Reason::TokenMalformed,
            ),
            (
                r#""exp":100"#,
                r#""exp":100,"jwk":{}"#,
                Reason::TokenMalformed,
            ),
            (
                r#""exp":100"#,
                r#""exp":100,"exp":100"#,
                Reason::TokenMalformed,
            ),
            (r#""typ":"JWT""#, r#""typ":"JWE""#, Reason::TokenMalformed),
            (
                r#""signer":"arn""#,
                r#""signer":["arn"]"#,
                Reason::TokenMalformed,
            ),
            ("31d3e334-", "31d3e334/", Reason::KeyIdInvalid),
            ("31d3e334-", "../../x-", Reason::KeyIdInvalid),
        ] {
            let header = HEADER.replace(from, to);
            assert_ne!(header, HEADER);
            assert_eq!(denial(&token(&header)), Some(reason), "{header}");
        }
    }

    #[test]
    fn an_error_names_what_is_malformed() {
        let of_header =
            |from, to| UntrustedToken::parse(token(&HEADER.replace(from, to)).as_bytes()).err();
        for (from, to, malformed) in [
            ("{", "[", Malformed::Header),
            (r#""exp":100"#, r#""exp":1,"exp":1"#, Malformed::Header),
            (
                r#""exp":100"#,
                r#""exp":1,"zip":"DEF""#,
                Malformed::Parameter,
            ),
            (r#""JWT""#, r#""JWE""#, Malformed::Type),
            (r#""JWT""#, "1", Malformed::Type),
            (r#""i""#, "{}", Malformed::Issuer),
            (r#","exp":100"#, "", Malformed::Expiry),
        ] {
            assert_eq!(of_header(from, to), Some(malformed.into()), "{from}, {to}");
        }
        let good = token(HEADER);
        let (signed, _) = good.rsplit_once('.').unwrap();
        for (text, malformed) in [
            ("a.b".to_owned(), Malformed::Parts),
            (format!("{signed}.!"), Malformed::Signature),
            (format!("{signed}.AAAA"), Malformed::Signature),
            (good.replacen('.', ".e30.", 1), Malformed::Payload),
        ] {
            let error = UntrustedToken::parse(text.as_bytes()).err();
            assert_eq!(error, Some(malformed.into()), "{text}");
        }
        let error = UntrustedToken::parse(b"\xff").err();
        assert_eq!(error, Some(Malformed::Utf8.into()));
    }

    #[test]
    fn matches_signer_issuer_and_client_of_one_load_balancer() {
        let (i, c) = (Some("i"), Some("c"));
        assert_eq!(screened(&[load_balancer(i, c)], 0), None);
        assert_eq!(screened(&[load_balancer(None, None)], 0), None);
        assert_eq!(screened(&[], 0), Some(Reason::SignerUnknown));
        assert_eq!(
            screened(&[load_balancer(Some("x"), c)], 0),
            Some(Reason::IssuerMismatch)
        );
        assert_eq!(
            screened(&[load_balancer(i, Some("x"))], 0),
            Some(Reason::ClientMismatch)
        );
        // Neither of two triples fits, though each field is in one of them.
        let crossed = [load_balancer(i, Some("x")), load_balancer(Some("x"), c)];
        assert_eq!(screened(&crossed, 0), Some(Reason::ClientMismatch));
        assert_eq!(
            screened(&[load_balancer(Some("x"), c), load_balancer(i, c)], 0),
            None
        );
    }

    #[test]
    fn a_token_expires_when_the_skew_is_used_up() {
        let trusted = [load_balancer(None, None)];
        assert_eq!(screened(&trusted, 129), None);
        assert_eq!(screened(&trusted, 130), Some(Reason::TokenExpired));
    }
}
