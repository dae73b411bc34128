//! Mints access tokens like Cognito's, forgeries of them, and their JSON Web Key Set. By default, a
//! token is a genuine one of the same sign-in as the default token of [`super::token`].

use super::token::{CLIENT, ISSUER, Key, SUBJECT, now};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::Signer;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// The pool's two keys: Cognito signs ID tokens with one, and access tokens with the other.
static KEYS: LazyLock<[RsaKeyPair; 2]> = LazyLock::new(|| [generate(), generate()]);

fn generate() -> RsaKeyPair {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("an RSA key");
    let der: Pkcs8V1Der = pair.as_der().expect("its PKCS#8");
    RsaKeyPair::from_pkcs8(der.as_ref()).expect("the key read again")
}

/// The token to mint.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessTokenSpec {
    /// Members of the JOSE header that replace the genuine ones.
    pub header: Map<String, Value>,
    /// Genuine members of the header to omit.
    pub header_without: Vec<String>,
    /// Claims that replace the genuine ones.
    pub payload: Map<String, Value>,
    /// Genuine claims to omit.
    pub payload_without: Vec<String>,
    /// JSON text after the last claim, for a duplicate claim.
    pub payload_append: String,
    /// Seconds from now to `exp`.
    pub exp: i64,
    /// Seconds from now to `nbf`, which a genuine token does not have.
    pub nbf: Option<i64>,
    /// `=` at the end of each part.
    pub padding: bool,
    pub signature: Signature,
    /// `{header}`, `{payload}` and `{signature}` are filled in.
    pub text: String,
}

impl Default for AccessTokenSpec {
    fn default() -> Self {
        AccessTokenSpec {
            header: Map::new(),
            header_without: Vec::new(),
            payload: Map::new(),
            payload_without: Vec::new(),
            payload_append: String::new(),
            exp: 3600,
            nbf: None,
            padding: false,
            signature: Signature::Genuine,
            text: "{header}.{payload}.{signature}".into(),
        }
    }
}

/// The signature. All but `Genuine` are forgeries.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Signature {
    /// RS256 by the pool's second key.
    Genuine,
    /// By the pool's key for ID tokens.
    FirstKey,
    /// By a key in no set.
    OtherKey,
    /// The genuine signature of another payload.
    OtherPayload,
    /// Genuine with one bit flipped.
    FlippedBit,
    /// RSASSA-PSS by the right key.
    Pss,
    /// PKCS #1 v1.5 over SHA-384 by the right key.
    Sha384,
    /// HMAC-SHA256 with the modulus as the secret.
    Hs256,
    /// ES256 by the ALB's key.
    Es256,
    /// One to the power of e.
    One,
    /// As long as a signature, all bits set: larger than the modulus.
    AllOnes,
    /// No bytes.
    Empty,
}

impl AccessTokenSpec {
    /// Mints it with the key that the set lists as `kid`. `alb` is the key that signs the ALB's
    /// token.
    pub fn mint(&self, kid: &str, alb: &Key) -> String {
        let mut header = json!({"kid": kid, "alg": "RS256"});
        let mut payload = json!({
            "sub": SUBJECT,
            "iss": ISSUER,
            "client_id": CLIENT,
            "token_use": "access",
            "scope": "openid email",
            "username": "kubeflow_ann",
            "exp": now() + self.exp,
        });
        if let Some(nbf) = self.nbf {
            payload["nbf"] = (now() + nbf).into();
        }
        change(&mut header, &self.header, &self.header_without);
        change(&mut payload, &self.payload, &self.payload_without);
        let mut payload = payload.to_string();
        if !self.payload_append.is_empty() {
            payload = format!(
                "{},{}}}",
                payload.trim_end_matches('}'),
                self.payload_append
            );
        }
        let (header, payload) = (
            self.encode(header.to_string().as_bytes()),
            self.encode(payload.as_bytes()),
        );
        let signature = self.encode(&self.signature.bytes(&format!("{header}.{payload}"), alb));
        self.text
            .replace("{header}", &header)
            .replace("{payload}", &payload)
            .replace("{signature}", &signature)
    }

    fn encode(&self, bytes: &[u8]) -> String {
        let text = URL_SAFE_NO_PAD.encode(bytes);
        let missing = if self.padding {
            (4 - text.len() % 4) % 4
        } else {
            0
        };
        text + &"=".repeat(missing)
    }
}

fn change(object: &mut Value, over: &Map<String, Value>, without: &[String]) {
    let members = object.as_object_mut().expect("an object");
    for name in without {
        members
            .remove(name)
            .unwrap_or_else(|| panic!("a genuine access token has no {name}"));
    }
    members.extend(over.clone());
}

impl Signature {
    fn bytes(self, text: &str, alb: &Key) -> Vec<u8> {
        let by = |key: &RsaKeyPair, encoding: &'static dyn RsaEncoding, text: &str| {
            let mut bytes = vec![0; key.public_modulus_len()];
            key.sign(encoding, &SystemRandom::new(), text.as_bytes(), &mut bytes)
                .expect("a signature");
            bytes
        };
        let [first, key] = &*KEYS;
        let size = key.public_modulus_len();
        match self {
            Signature::Genuine => by(key, &RSA_PKCS1_SHA256, text),
            Signature::FirstKey => by(first, &RSA_PKCS1_SHA256, text),
            Signature::OtherKey => by(&generate(), &RSA_PKCS1_SHA256, text),
            Signature::OtherPayload => by(key, &RSA_PKCS1_SHA256, &format!("{text}x")),
            Signature::FlippedBit => {
                let mut bytes = by(key, &RSA_PKCS1_SHA256, text);
                bytes[size - 1] ^= 1;
                bytes
            }
            Signature::Pss => by(key, &RSA_PSS_SHA256, text),
            Signature::Sha384 => by(key, &RSA_PKCS1_SHA384, text),
            Signature::Hs256 => {
                let modulus = key
                    .public_key()
                    .modulus()
                    .big_endian_without_leading_zero()
                    .to_vec();
                let mut mac =
                    Hmac::<sha2::Sha256>::new_from_slice(&modulus).expect("any key length");
                mac.update(text.as_bytes());
                mac.finalize().into_bytes().to_vec()
            }
            Signature::Es256 => {
                let signature: p256::ecdsa::Signature = alb.signing_key().sign(text.as_bytes());
                signature.to_bytes().to_vec()
            }
            Signature::One => [vec![0; size - 1], vec![1]].concat(),
            Signature::AllOnes => vec![0xff; size],
            Signature::Empty => Vec::new(),
        }
    }
}

/// Fills in a key set's template: `{first}` is the JSON Web Key for ID tokens, `{key}` the one that
/// signs, as `kid`, and `{n}` its modulus.
pub fn fill_in_keys(template: &str, kid: &str) -> String {
    let [first, key] = KEYS.each_ref().map(|key| {
        let number = |number: aws_lc_rs::rsa::PublicKeyComponents<Vec<u8>>| number;
        number(key.public_key().into())
    });
    let jwk = |key: &aws_lc_rs::rsa::PublicKeyComponents<Vec<u8>>, kid: &str| {
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": URL_SAFE_NO_PAD.encode(&key.n), "e": URL_SAFE_NO_PAD.encode(&key.e)})
            .to_string()
    };
    template
        .replace("{first}", &jwk(&first, "for-id-tokens"))
        .replace("{key}", &jwk(&key, kid))
        .replace("{n}", &URL_SAFE_NO_PAD.encode(&key.n))
        .replace("{jwks_kid}", kid)
}
