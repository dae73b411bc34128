//! **Trust is established here.** [`Verifier::verify`] takes a screened token and its key, and
//! returns a [`VerifiedToken`]. [`VerifiedToken::claims`] returns the [`Claims`]. No other module
//! makes either type. Claims are read only after the signature has been verified. No I/O. No clock.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::crypto::CryptoProvider;
use serde_json::Value;

use super::access_token::{self, AccessTokenRules, UntrustedAccessToken};
use super::alb::ScreenedToken;
use super::claims::{Claims, MAX_CLAIMS_DEPTH};
use super::jws::{
    AccessTokenFault, Malformed, Round, TokenError, decode_base64, numeric_date, string,
};
use crate::crypto::es256::P256Key;
use crate::crypto::rs256::RsaKey;
use crate::json;
use crate::reason::Reason;
use crate::time::Timestamp;

/// Proof that `jsonwebtoken` has a provider of this crate. Without a provider, it panics.
#[derive(Clone, Copy)]
pub struct Verifier(());

impl Verifier {
    /// Sets the `provider` with which `jsonwebtoken` verifies in this process. A second call has no
    /// effect.
    pub fn install(provider: &'static CryptoProvider) -> Self {
        // An error means that the process has a provider already. The known-answer test that chose
        // it would choose the same again.
        let _ = provider.install_default();
        Self(())
    }

    /// Verifies the token's signature with `key`. **This function establishes trust**: it is the
    /// only way to a [`VerifiedToken`], and it accepts only a screened token.
    ///
    /// `jsonwebtoken` calls the provider of [`Verifier::install`], which calls
    /// [`crate::VerifySignature::verify_es256`]. Two types implement that trait: [`crate::P256`],
    /// and `Host` in `filter/host_signature.rs` for Envoy's BoringSSL.
    ///
    /// # Errors
    /// [`Reason::SignatureInvalid`].
    pub fn verify(self, token: &ScreenedToken<'_>, key: &P256Key) -> Result<VerifiedToken, Reason> {
        let signature = URL_SAFE_NO_PAD.encode(token.signature());
        match jsonwebtoken::crypto::verify(
            &signature,
            token.signing_input(),
            key.decoding_key(),
            Algorithm::ES256,
        ) {
            // Trust is established here, and nowhere else.
            Ok(true) => Ok(VerifiedToken {
                load_balancer: token.load_balancer(),
                payload: token.payload().to_owned(),
                issuer: token.issuer().map(str::to_owned),
                client: token.client().map(str::to_owned),
                expires: token.expires(),
            }),
            Ok(false) | Err(_) => Err(Reason::SignatureInvalid),
        }
    }

    /// Verifies the access token's signature with `key`, and adds its claims to the `claims` of the
    /// load balancer's token. Both tokens must name the same user. If both name a client, the
    /// clients must be equal. An access token alone gives no identity.
    ///
    /// # Errors
    /// [`AccessTokenFault`].
    pub fn verify_access_token(
        self,
        token: &UntrustedAccessToken<'_>,
        key: &RsaKey,
        claims: Claims,
        rules: &AccessTokenRules,
        now: Timestamp,
        skew: Duration,
    ) -> Result<Claims, TokenError> {
        let verdict = jsonwebtoken::crypto::verify(
            token.signature(),
            token.signing_input(),
            key.decoding_key(),
            Algorithm::RS256,
        );
        if !verdict.unwrap_or(false) {
            return Err(AccessTokenFault::Signature.into());
        }
        let expected = access_token::Expected {
            rules,
            subject: claims.by_name.get("sub").and_then(Value::as_str),
            client: claims.client.as_deref(),
        };
        let (access, expires) = access_token::claims(token.payload(), &expected, now, skew)?;
        Ok(Claims {
            access: Some(access),
            expires: claims.expires.min(expires),
            ..claims
        })
    }
}

/// A token that a configured load balancer signed. Its payload has not been read yet.
pub struct VerifiedToken {
    payload: String,
    issuer: Option<String>,
    client: Option<String>,
    expires: Timestamp,
    load_balancer: usize,
}

impl VerifiedToken {
    /// Parses the claims, and checks `exp` and `iss` if they are present.
    ///
    /// # Errors
    /// [`Reason::TokenMalformed`], [`Reason::TokenExpired`], [`Reason::IssuerMismatch`].
    pub fn claims(self, now: Timestamp, skew: Duration) -> Result<Claims, TokenError> {
        let payload = decode_base64(&self.payload).ok_or(Malformed::Payload)?;
        let Ok(Value::Object(claims)) = json::parse(&payload, MAX_CLAIMS_DEPTH) else {
            return Err(Malformed::Claims.into());
        };
        let expires = numeric_date(&claims, "exp", Round::Down)
            .map_err(|_| Malformed::Expiry)?
            .map_or(self.expires, |payload| payload.min(self.expires));
        if expires.plus(skew) <= now {
            return Err(Reason::TokenExpired.into());
        }
        let issuer = string(&claims, "iss").map_err(|_| Malformed::Issuer)?;
        if let (Some(payload), Some(header)) = (issuer, self.issuer.as_deref())
            && payload != header
        {
            return Err(Reason::IssuerMismatch.into());
        }
        Ok(Claims {
            by_name: claims,
            access: None,
            client: self.client,
            expires,
            load_balancer: self.load_balancer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::alb::{LoadBalancer, UntrustedToken};
    use super::*;
    use crate::crypto::es256::P256_PROVIDER;
    use crate::keys::source::KeySourceId;
    use base64::engine::general_purpose::STANDARD;

    fn vectors(name: &str) -> Value {
        let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// The real token of 2019, verified `seconds` after the epoch as that of a load balancer with
    /// its signer.
    fn real_token(seconds: u64, spoil: impl Fn(&str) -> String) -> Result<Claims, Reason> {
        let vector = vectors("alb-token-2019-oidc.json");
        let text = spoil(vector["token"].as_str().unwrap());
        let key = P256Key::from_spki(
            &STANDARD
                .decode(vector["spki_b64"].as_str().unwrap())
                .unwrap(),
        )
        .unwrap();
        let trusted = [LoadBalancer {
            arn: "arn:aws:elasticloadbalancing:us-east-1:263498402841:loadbalancer/app/ALBOI-LoadB-1ESOKE9EXDFW4/46d1d78395db76af"
                .to_owned(),
            issuer: Some("https://alpha.x509oidc.kinesis-tap.corp.a2z.com/".to_owned()),
            client_id: Some("alboidc".to_owned()),
            key_source: KeySourceId(0),
        }];
        let (now, skew) = (Timestamp::from_seconds(seconds), Duration::from_secs(30));
        let token = UntrustedToken::parse(text.as_bytes())?.screen(&trusted, now, skew)?;
        Ok(Verifier::install(&P256_PROVIDER)
            .verify(&token, &key)?
            .claims(now, skew)?)
    }

    #[test]
    fn verifies_a_real_token_of_2019_on_its_day_only() {
        let claims =
            real_token(1_559_667_900, str::to_owned).unwrap_or_else(|reason| panic!("{reason}"));
        assert_eq!(claims.by_name()["sub"], "yancej@amazon.com");
        assert_eq!(claims.expires(), Timestamp::from_seconds(1_559_667_908));
        assert_eq!(
            real_token(1_559_667_938, str::to_owned).err(),
            Some(Reason::TokenExpired)
        );
    }

    #[test]
    fn denies_a_real_token_with_any_byte_changed() {
        assert!(real_token(1_559_667_900, str::to_owned).is_ok());
        let vector = vectors("alb-token-2019-oidc.json");
        for position in 0..vector["token"].as_str().unwrap().len() {
            let spoilt = |text: &str| {
                let mut bytes = text.as_bytes().to_vec();
                bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
                String::from_utf8(bytes).unwrap()
            };
            assert!(real_token(1_559_667_900, spoilt).is_err(), "at {position}");
        }
    }
}
