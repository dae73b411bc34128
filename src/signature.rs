//! ES256: where a token becomes a [`VerifiedToken`], and nowhere else. The public key in its checked form, the `p256`
//! verifier and the `CryptoProvider` that `jsonwebtoken` verifies with. Nothing here fetches a key or reads a claim
//! before the signature holds.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as JwtResult};
use jsonwebtoken::signature::{Error as SignatureError, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use serde_json::{Map, Value};

use crate::json;
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::token::{ScreenedToken, decode_base64, numeric_date, string};

/// How deep claims may nest.
const MAX_CLAIMS_DEPTH: usize = 16;

/// The length of a P-256 SubjectPublicKeyInfo in DER with an uncompressed point (RFC 5480), in bytes.
pub const SPKI_LENGTH: usize = 91;

/// A public key that is a point on P-256.
#[derive(Clone)]
pub struct VerificationKey {
    decoding_key: DecodingKey,
}

impl VerificationKey {
    /// Reads the key server's answer: one PEM block `PUBLIC KEY` (RFC 7468, section 13) and white space around it.
    /// `None` if it is anything else, or not a point on P-256.
    pub fn from_pem(answer: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(answer).ok()?.trim_ascii();
        if !text.starts_with("-----BEGIN ") || text.matches("-----BEGIN ").count() != 1 || !text.ends_with("-----") {
            return None;
        }
        Self::new(&p256::PublicKey::from_public_key_pem(text).ok()?)
    }

    /// Reads a SubjectPublicKeyInfo in DER. `None` if it is not a point on P-256.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        Self::new(&p256::PublicKey::from_public_key_der(der).ok()?)
    }

    fn new(key: &p256::PublicKey) -> Option<Self> {
        let spki = key.to_public_key_der().ok()?;
        // A host that takes any key type must be given this one only.
        (spki.as_bytes().len() == SPKI_LENGTH).then(|| Self {
            decoding_key: DecodingKey::from_ec_der(spki.as_bytes()),
        })
    }

    /// SubjectPublicKeyInfo in DER, [`SPKI_LENGTH`] bytes.
    pub fn spki(&self) -> &[u8] {
        self.decoding_key.try_get_as_bytes().unwrap_or_default()
    }
}

/// One implementation of ES256 verification.
pub trait VerifyEs256 {
    /// Whether `signature` (r‖s) is `key`'s over the SHA-256 of `message`. `spki` is a [`VerificationKey::spki`].
    fn verify_es256(spki: &[u8], message: &[u8], signature: &[u8]) -> bool;
}

/// ES256 by the `p256` crate, in this process.
pub struct P256;

impl VerifyEs256 for P256 {
    fn verify_es256(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let (Ok(key), Ok(signature)) = (
            VerifyingKey::from_public_key_der(spki),
            Signature::from_slice(signature),
        ) else {
            return false;
        };
        key.verify(message, &signature).is_ok()
    }
}

/// A public key, a message and its signature, to try a verifier on: RFC 6979, appendix A.2.5, SHA-256, "sample".
pub mod known_answer {
    /// SubjectPublicKeyInfo in DER.
    pub const SPKI: [u8; super::SPKI_LENGTH] = *b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04\
        \x60\xfe\xd4\xba\x25\x5a\x9d\x31\xc9\x61\xeb\x74\xc6\x35\x6d\x68\xc0\x49\xb8\x92\x3b\x61\xfa\x6c\xe6\x69\x62\x2e\x60\xf2\x9f\xb6\
        \x79\x03\xfe\x10\x08\xb8\xbc\x99\xa4\x1a\xe9\xe9\x56\x28\xbc\x64\xf2\xf1\xb2\x0c\x2d\x7e\x9f\x51\x77\xa3\xc2\x94\xd4\x46\x22\x99";
    /// What was signed.
    pub const MESSAGE: &[u8] = b"sample";
    /// r‖s.
    pub const SIGNATURE: [u8; 64] = *b"\xef\xd4\x8b\x2a\xac\xb6\xa8\xfd\x11\x40\xdd\x9c\xd4\x5e\x81\xd6\x9d\x2c\x87\x7b\x56\xaa\xf9\x91\xc3\x4d\x0e\xa8\x4e\xaf\x37\x16\
        \xf7\xcb\x1c\x94\x2d\x65\x7c\x41\xd4\x36\xc7\xa1\xb6\xe2\x9f\x65\xf3\xe9\x00\xdb\xb9\xaf\xf4\x06\x4d\xc4\xab\x2f\x84\x3a\xcd\xa8";
}

/// r‖s as the ASN.1 DER that OpenSSL's family of libraries takes; `None` unless both are in 1…n-1.
pub(crate) fn to_der(signature: &[u8]) -> Option<Vec<u8>> {
    Some(Signature::from_slice(signature).ok()?.to_der().as_bytes().to_vec())
}

/// A `jsonwebtoken` provider that verifies ES256 with `V` and can do nothing else: no signing, no other algorithm.
pub const fn provider<V: VerifyEs256 + Send + Sync + 'static>() -> CryptoProvider {
    CryptoProvider {
        signer_factory: refuse_to_sign,
        verifier_factory: verifier::<V>,
        key_utils: KeyUtils {
            rsa_pub_components_from_private_key: |_| Err(ErrorKind::InvalidKeyFormat.into()),
            rsa_pub_components_from_public_key: |_| Err(ErrorKind::InvalidKeyFormat.into()),
            ec_pub_components_from_private_key: |_, _| Err(ErrorKind::InvalidKeyFormat.into()),
            ed_pub_components_from_private_key: |_, _| Err(ErrorKind::InvalidKeyFormat.into()),
            compute_digest: |_, _| Err(ErrorKind::InvalidKeyFormat.into()),
        },
    }
}

fn refuse_to_sign(_: &Algorithm, _: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    Err(ErrorKind::InvalidAlgorithm.into())
}

fn verifier<V: VerifyEs256 + Send + Sync + 'static>(
    algorithm: &Algorithm,
    key: &DecodingKey,
) -> JwtResult<Box<dyn JwtVerifier>> {
    if *algorithm != Algorithm::ES256 {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Es256::<V> {
        spki: key.try_get_as_bytes()?.to_vec(),
        backend: std::marker::PhantomData,
    }))
}

struct Es256<V> {
    spki: Vec<u8>,
    backend: std::marker::PhantomData<V>,
}

impl<V: VerifyEs256> Verifier<Vec<u8>> for Es256<V> {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        if V::verify_es256(&self.spki, message, signature) {
            Ok(())
        } else {
            Err(SignatureError::new())
        }
    }
}

impl<V: VerifyEs256> JwtVerifier for Es256<V> {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

/// The `p256` provider.
pub static P256_PROVIDER: CryptoProvider = provider::<P256>();

/// Proof that `jsonwebtoken` has a provider of ours: without one it panics.
#[derive(Clone, Copy)]
pub struct Jose(());

impl Jose {
    /// Has `jsonwebtoken` verify with `provider` in this process. The first one installed stays.
    pub fn install(provider: &'static CryptoProvider) -> Self {
        // An error means that one is there already: the known-answer test that chose it gives the same choice again.
        let _ = provider.install_default();
        Self(())
    }

    /// Verifies the token's signature with `key`. **This is the line where trust is earned**: the only way to a
    /// [`VerifiedToken`], and it takes none but a screened token.
    ///
    /// # Errors
    /// [`Reason::SignatureInvalid`].
    pub fn verify(self, token: &ScreenedToken<'_>, key: &VerificationKey) -> Result<VerifiedToken, Reason> {
        let signature = URL_SAFE_NO_PAD.encode(token.signature());
        match jsonwebtoken::crypto::verify(&signature, token.signing_input(), &key.decoding_key, Algorithm::ES256) {
            Ok(true) => Ok(VerifiedToken {
                payload: token.payload().to_owned(),
                issuer: token.issuer().map(str::to_owned),
                expires: token.expires(),
            }),
            Ok(false) | Err(_) => Err(Reason::SignatureInvalid),
        }
    }
}

/// A token that a configured load balancer signed. Its payload has not been read yet.
pub struct VerifiedToken {
    payload: String,
    issuer: Option<String>,
    expires: Timestamp,
}

impl VerifiedToken {
    /// Reads the claims and checks the two that say whether they hold: `exp` and `iss`, where present.
    ///
    /// # Errors
    /// [`Reason::TokenMalformed`], [`Reason::TokenExpired`], [`Reason::IssuerMismatch`].
    pub fn claims(self, now: Timestamp, skew: Duration) -> Result<Claims, Reason> {
        let payload = decode_base64(&self.payload).ok_or(Reason::TokenMalformed)?;
        let Ok(Value::Object(claims)) = json::parse(&payload, MAX_CLAIMS_DEPTH) else {
            return Err(Reason::TokenMalformed);
        };
        let expires = numeric_date(&claims, "exp")?.map_or(self.expires, |payload| payload.min(self.expires));
        if expires.plus(skew) <= now {
            return Err(Reason::TokenExpired);
        }
        if let (Some(payload), Some(header)) = (string(&claims, "iss")?, self.issuer.as_deref())
            && payload != header
        {
            return Err(Reason::IssuerMismatch);
        }
        Ok(Claims { claims, expires })
    }
}

/// Claims that the load balancer vouches for.
pub struct Claims {
    claims: Map<String, Value>,
    expires: Timestamp,
}

impl Claims {
    /// The claims by name.
    pub fn by_name(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The earlier `exp` of JOSE header and payload; clock skew is not in it.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }
}
