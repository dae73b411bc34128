//! Mints keys and tokens in the ALB's format, for tests and for `simulate`. Verifies nothing: the
//! library does.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::Generate as _;
use p256::pkcs8::{
    self, DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding, spki,
};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

/// A load balancer's private key, on P-256.
#[derive(Clone)]
pub(crate) struct AlbKey(SigningKey);

impl AlbKey {
    /// A new random key.
    pub(crate) fn generate() -> Self {
        Self(SigningKey::generate())
    }

    /// Reads one PEM `PRIVATE KEY` (PKCS#8).
    pub(crate) fn from_pem(text: &str) -> Result<Self, pkcs8::Error> {
        SigningKey::from_pkcs8_pem(text.trim_ascii()).map(Self)
    }

    /// One PEM `PRIVATE KEY`.
    pub(crate) fn private_pem(&self) -> Result<String, pkcs8::Error> {
        Ok(self.0.to_pkcs8_pem(LineEnding::LF)?.to_string())
    }

    /// One PEM `PUBLIC KEY`, as the key server publishes it.
    pub(crate) fn public_pem(&self) -> Result<String, spki::Error> {
        self.0.verifying_key().to_public_key_pem(LineEnding::LF)
    }

    /// The key id. It depends on the key only.
    pub(crate) fn id(&self) -> Uuid {
        Uuid::new_v5(
            &Uuid::NAMESPACE_OID,
            self.0.verifying_key().to_sec1_point(false).as_bytes(),
        )
    }
}

/// The contents of a token.
pub(crate) struct AlbToken {
    /// The id of the signing key.
    pub(crate) kid: String,
    /// The load balancer's ARN.
    pub(crate) signer: String,
    pub(crate) issuer: String,
    pub(crate) client: String,
    /// Seconds since 1970.
    pub(crate) expires: u64,
    /// The userinfo claims. `exp` and `iss` are added if they are absent.
    pub(crate) claims: Map<String, Value>,
    /// Whether the base64 is padded. The ALB always pads.
    pub(crate) padded: bool,
}

/// The JOSE header, its members in the order in which the ALB writes them.
#[derive(Serialize)]
struct JoseHeader<'a> {
    typ: &'static str,
    kid: &'a str,
    alg: &'static str,
    iss: &'a str,
    client: &'a str,
    signer: &'a str,
    exp: u64,
}

impl AlbToken {
    /// The value of `x-amzn-oidc-data`. The signature covers the text as sent, including the
    /// padding.
    pub(crate) fn mint(&self, key: &AlbKey) -> Result<String, serde_json::Error> {
        let Self {
            kid,
            signer,
            issuer,
            client,
            expires,
            claims,
            padded,
        } = self;
        let header = JoseHeader {
            typ: "JWT",
            kid,
            alg: "ES256",
            iss: issuer,
            client,
            signer,
            exp: *expires,
        };
        let mut payload = Map::from_iter([
            ("exp".to_owned(), (*expires).into()),
            ("iss".to_owned(), issuer.as_str().into()),
        ]);
        payload.extend(claims.clone());
        let engine = if *padded { URL_SAFE } else { URL_SAFE_NO_PAD };
        let (header, payload) = (serde_json::to_vec(&header)?, serde_json::to_vec(&payload)?);
        let signing_input = format!("{}.{}", engine.encode(header), engine.encode(payload));
        let signature: Signature = key.0.sign(signing_input.as_bytes());
        Ok(format!(
            "{signing_input}.{}",
            engine.encode(signature.to_bytes())
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alb_oidc_filter::{
        Claims, Config, P256_PROVIDER, P256Key, Reason, Timestamp, UntrustedToken, Verifier,
    };
    use serde_json::json;

    const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";

    fn token(key: &AlbKey) -> AlbToken {
        AlbToken {
            kid: key.id().to_string(),
            signer: ARN.to_owned(),
            issuer: "issuer".to_owned(),
            client: "client".to_owned(),
            expires: 1_000,
            claims: Map::from_iter([("email".to_owned(), json!("ann@example.com"))]),
            padded: true,
        }
    }

    fn claims(text: &str, key: &AlbKey) -> Result<Claims, Reason> {
        let config =
            json!({"loadBalancers": [{"arn": ARN, "issuer": "issuer", "clientId": "client"}]});
        let config = Config::from_value(&config).unwrap();
        let key = P256Key::from_pem(key.public_pem().unwrap().as_bytes()).unwrap();
        let (now, skew) = (Timestamp::from_seconds(999), std::time::Duration::ZERO);
        let token =
            UntrustedToken::parse(text.as_bytes())?.screen(&config.load_balancers, now, skew)?;
        Ok(Verifier::install(&P256_PROVIDER)
            .verify(&token, &key)?
            .claims(now, skew)?)
    }

    #[test]
    fn filter_accepts_minted_token_with_and_without_padding() {
        let key = AlbKey::generate();
        for padded in [true, false] {
            let text = AlbToken {
                padded,
                ..token(&key)
            }
            .mint(&key)
            .unwrap();
            assert_eq!(text.ends_with('='), padded);
            assert_eq!(
                claims(&text, &key).map(|claims| claims.by_name()["email"].clone()),
                Ok(json!("ann@example.com"))
            );
            assert_eq!(
                claims(&text, &AlbKey::generate()).err(),
                Some(Reason::SignatureInvalid)
            );
        }
    }

    #[test]
    fn given_claims_replace_added_ones() {
        let key = AlbKey::generate();
        let reason = |name: &str, value| {
            let mut token = token(&key);
            token.claims.insert(name.to_owned(), value);
            claims(&token.mint(&key).unwrap(), &key).err()
        };
        assert_eq!(reason("exp", json!(998)), Some(Reason::TokenExpired));
        assert_eq!(
            reason("iss", json!("another")),
            Some(Reason::IssuerMismatch)
        );
    }

    #[test]
    fn pem_round_trip_keeps_key_and_id() {
        let key = AlbKey::generate();
        let read = AlbKey::from_pem(&format!("\n{}\n", key.private_pem().unwrap())).unwrap();
        assert_eq!((read.id(), read.public_pem()), (key.id(), key.public_pem()));
        assert_ne!(read.id(), AlbKey::generate().id());
        assert!(AlbKey::from_pem(&key.public_pem().unwrap()).is_err());
    }
}
