//! ES256 and RS256 by the host: Envoy's foreign function `verify_signature`, which uses BoringSSL.
//! Each VM uses it only after it passed a known-answer test with a valid and an invalid signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::CryptoProvider;

use super::host;
use crate::crypto::es256::{P256, P256_PROVIDER, known_answer, to_der};
use crate::crypto::provider::{VerifySignature, provider};
use crate::crypto::rs256;

/// ES256 and RS256 by the host. If the host call fails, [`P256`] verifies ES256,
/// and RS256 counts as invalid.
struct Host;

static HOST_PROVIDER: CryptoProvider = provider::<Host>();

/// The environment variable that can exclude the host.
const VERIFIER_VARIABLE: &str = "ALB_OIDC_VERIFIER";

/// The code that verifies signatures in this VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Envoy.
    Host,
    /// The module.
    Module,
}

impl Backend {
    /// The host, unless it lacks the function, fails the known-answer test, or
    /// `ALB_OIDC_VERIFIER=module` rules it out.
    pub fn choose() -> Self {
        let ruled_out = std::env::var(VERIFIER_VARIABLE).is_ok_and(|choice| choice == "module");
        if !ruled_out && passes_known_answer_test() {
            Self::Host
        } else {
            Self::Module
        }
    }

    /// Its name in the log and in counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Module => "module",
        }
    }

    /// Whether it verifies RS256 in this VM, by a known-answer test. The module has no RSA of its
    /// own.
    pub(super) fn verifies_rsa(self) -> bool {
        self == Self::Host && passes_rsa_known_answer_test() == Some(true)
    }

    pub(super) fn provider(self) -> &'static CryptoProvider {
        match self {
            Self::Host => &HOST_PROVIDER,
            Self::Module => &P256_PROVIDER,
        }
    }
}

impl VerifySignature for Host {
    fn verify_es256(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
        host_verdict(spki, message, signature)
            .unwrap_or_else(|| P256::verify_es256(spki, message, signature))
    }

    fn verify_rs256(spki: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
        verify_signature(spki, message, signature)
    }
}

fn passes_known_answer_test() -> bool {
    let verdict = |message| host_verdict(&known_answer::SPKI, message, &known_answer::SIGNATURE);
    verdict(known_answer::MESSAGE) == Some(true) && verdict(b"another message") == Some(false)
}

fn passes_rsa_known_answer_test() -> Option<bool> {
    let key = rs256::known_answer::key()?;
    let spki = key.decoding_key().try_get_as_bytes().ok()?;
    let signature = URL_SAFE_NO_PAD
        .decode(rs256::known_answer::SIGNATURE)
        .ok()?;
    let verdict = |message| verify_signature(spki, message, &signature);
    Some(verdict(rs256::known_answer::MESSAGE)? && !verdict(b"another message")?)
}

/// Whether the host finds an ES256 signature (r‖s) valid. `None` if the host call fails.
pub fn host_verdict(spki: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
    let Some(signature) = to_der(signature) else {
        return Some(false);
    };
    verify_signature(spki, message, &signature)
}

fn verify_signature(spki: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
    let answer =
        host::call_foreign_function("verify_signature", &arguments(spki, message, signature))
            .ok()?;
    // Field 1, varint, true. An invalid signature is answered with status Ok too, without this
    // field.
    Some(answer == [0x08, 0x01])
}

/// Envoy's `VerifySignatureArguments`, a protobuf message: hash function, public key, signature,
/// text.
fn arguments(spki: &[u8], message: &[u8], signature: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: u8 = 2;
    let fields = [&b"sha256"[..], spki, signature, message];
    let mut bytes = Vec::with_capacity(message.len().saturating_add(256));
    for (number, field) in (1u8..).zip(fields) {
        bytes.push(number << 3 | LENGTH_DELIMITED);
        let mut length = field.len();
        while length > 0x7f {
            bytes.push(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(field);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_the_protobuf_message_that_envoy_reads() {
        let message = [b'm'; 300];
        let bytes = arguments(b"key", &message, b"signature");
        let mut expected = b"\x0a\x06sha256\x12\x03key\x1a\x09signature\x22\xac\x02".to_vec();
        expected.extend_from_slice(&message);
        assert_eq!(bytes, expected);
    }
}
