//! Mints tokens like the ALB's, and forgeries of them: every member, the base64 text, the signature
//! and the whole can be set separately. By default, a token is genuine.

use super::client::to_bytes;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature as EcdsaSignature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{EncodePublicKey, LineEnding};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// The load balancer that the tests' configurations trust.
pub const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
/// Its identity provider.
pub const ISSUER: &str = "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE";
/// Its client id at the provider.
pub const CLIENT: &str = "1example23456789";

/// The user's id there.
pub const SUBJECT: &str = "7f3c1c1e-5d0a-4a0e-9a53-0a3f1f7f2b11";

/// The order of the P-256 group.
const N: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// A signing key of an ALB.
#[derive(Clone)]
pub struct Key(SigningKey);

impl Key {
    /// A new key.
    pub fn generate() -> Key {
        Key(SigningKey::generate())
    }

    /// The same key in each run, one for each number.
    pub fn numbered(number: u8) -> Key {
        let mut secret = [0x5a; 32];
        secret[31] = number;
        Key(SigningKey::from_slice(&secret).expect("a scalar below the order"))
    }

    /// The key server's content: one PEM `PUBLIC KEY`.
    pub fn pem(&self) -> String {
        self.0
            .verifying_key()
            .to_public_key_pem(LineEnding::LF)
            .expect("a PEM")
    }

    /// The public key's DER in base64, without PEM.
    pub fn der_base64(&self) -> String {
        STANDARD.encode(self.spki())
    }

    /// A PEM with a point that is not on the curve.
    pub fn off_curve_pem(&self) -> String {
        let mut der = self.spki();
        *der.last_mut().expect("a key") ^= 1;
        to_pem(&der)
    }

    /// A PEM with the point at infinity.
    pub fn infinity_pem() -> String {
        let algorithm = [
            0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
            0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
        ];
        to_pem(&[&[0x30, 0x19][..], &algorithm, &[0x03, 0x02, 0x00, 0x00]].concat())
    }

    /// The private key.
    pub fn signing_key(&self) -> &SigningKey {
        &self.0
    }

    fn spki(&self) -> Vec<u8> {
        self.0
            .verifying_key()
            .to_public_key_der()
            .expect("a DER")
            .into_vec()
    }
}

fn to_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64"))
        .collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    )
}

/// The token to mint.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenSpec {
    /// Members of the JOSE header that replace the genuine ones.
    pub header: Map<String, Value>,
    /// Genuine members of the header to omit.
    pub header_without: Vec<String>,
    /// JSON text after the header's last member: `"alg": "none"` makes a duplicate.
    pub header_append: String,
    /// The header's whole JSON text.
    pub header_text: Option<String>,
    /// An array nested this deep as one more member of the header.
    pub header_depth: usize,
    /// The header's base64 as sent and signed; `{}` is the original text.
    pub header_base64: String,
    /// Members of the payload that replace the genuine ones.
    pub payload: Map<String, Value>,
    /// Genuine members of the payload to omit.
    pub payload_without: Vec<String>,
    /// JSON text after the payload's last member.
    pub payload_append: String,
    /// The payload's whole JSON text.
    pub payload_text: Option<String>,
    /// An array nested this deep as one more member of the payload.
    pub payload_depth: usize,
    /// The payload's base64 as sent and signed; `{}` is the original text.
    pub payload_base64: String,
    /// Seconds from now to the header's `exp`.
    pub exp: i64,
    /// Seconds from now to the payload's `exp`.
    pub payload_exp: i64,
    /// Writes the JSON texts one byte per character, not as UTF-8.
    pub latin1: bool,
    /// `=` at the end of each part, as the ALB sends it.
    pub padding: bool,
    /// The base64 alphabet.
    pub alphabet: Alphabet,
    /// Pads the payload until the whole token has this many bytes. With base64 padding, not every
    /// length is possible.
    pub length: Option<usize>,
    /// The signature.
    pub signature: Signature,
    /// The composition of the parts: `{header}`, `{payload}` and `{signature}` are filled in.
    /// `{unpadded}` is the genuine whole without padding.
    pub text: String,
}

impl Default for TokenSpec {
    fn default() -> Self {
        TokenSpec {
            header: Map::new(),
            header_without: Vec::new(),
            header_append: String::new(),
            header_text: None,
            header_depth: 0,
            header_base64: "{}".into(),
            payload: Map::new(),
            payload_without: Vec::new(),
            payload_append: String::new(),
            payload_text: None,
            payload_depth: 0,
            payload_base64: "{}".into(),
            exp: 120,
            payload_exp: 120,
            latin1: false,
            padding: true,
            alphabet: Alphabet::Url,
            length: None,
            signature: Signature::Genuine,
            text: "{header}.{payload}.{signature}".into(),
        }
    }
}

/// The two base64 alphabets.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Alphabet {
    /// `-` and `_`
    Url,
    /// `+` and `/`
    Standard,
}

/// The signature. All but `Genuine` and `Malleable` are forgeries.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Signature {
    /// By the row's key.
    Genuine,
    /// (r, n − s): also valid ECDSA.
    Malleable,
    /// By another key.
    OtherKey,
    /// The genuine signature of another payload.
    OtherPayload,
    /// Genuine with one bit of s flipped.
    FlippedBit,
    /// r = s = 0
    Zero,
    /// r = 0
    ZeroR,
    /// s = 0
    ZeroS,
    /// r = s = 1
    One,
    /// r = s = n
    Order,
    /// All bits set.
    AllOnes,
    /// s, r
    Swapped,
    /// 63 bytes
    Truncated,
    /// 65 bytes
    Extended,
    /// Genuine, in ASN.1 DER as in other protocols.
    Der,
    /// Genuine, twice.
    Doubled,
    /// Genuine, with the unused bits of the last base64 letter set.
    StrayBits,
    /// The genuine signature of header and payload without padding.
    OverUnpadded,
    /// HMAC-SHA256 with the public PEM as the secret.
    Hs256,
    /// HMAC-SHA512 with the public PEM as the secret: 64 bytes, like ES256.
    Hs512,
}

/// A minted token.
#[derive(Clone, Debug)]
pub struct Token {
    pub header: String,
    pub payload: String,
    pub signature: String,
    /// The whole, as sent.
    pub text: String,
}

impl TokenSpec {
    /// A genuine token for this user.
    pub fn of(email: &str) -> TokenSpec {
        TokenSpec {
            payload: Map::from_iter([("email".to_owned(), json!(email))]),
            ..TokenSpec::default()
        }
    }

    /// Mints it with the key that the key server publishes as `kid`.
    pub fn mint(&self, kid: &str, key: &Key) -> Token {
        let Some(length) = self.length else {
            return self.mint_filled(kid, key, 0, 0);
        };
        // Base64 does not have every length: one to three more bytes in the header reach the
        // lengths that the payload cannot.
        for header_fill in 1..4 {
            let mut fill = 1;
            loop {
                let token = self.mint_filled(kid, key, header_fill, fill);
                match token.text.len() {
                    found if found == length => return token,
                    found if found > length => break,
                    found => fill += ((length - found) * 3 / 4).saturating_sub(2).max(1),
                }
            }
        }
        panic!("no token of {length} bytes");
    }

    fn mint_filled(&self, kid: &str, key: &Key, header_fill: usize, payload_fill: usize) -> Token {
        let header = self.json(
            self.header_text.as_deref(),
            self.genuine_header(kid),
            &self.header,
            &self.header_without,
        );
        let header = self.appended(header, &self.header_append, self.header_depth, header_fill);
        let header = self.header_base64.replace("{}", &self.base64(&header));
        let payload = self.json(
            self.payload_text.as_deref(),
            self.genuine_payload(),
            &self.payload,
            &self.payload_without,
        );
        let payload = self.appended(
            payload,
            &self.payload_append,
            self.payload_depth,
            payload_fill,
        );
        let payload = self.payload_base64.replace("{}", &self.base64(&payload));
        let signed = format!("{header}.{payload}");
        let mut signature = self.encode(&self.signature.bytes(&signed, key));
        if self.signature == Signature::StrayBits {
            let last = signature.trim_end_matches('=').len() - 1;
            // A, Q, g or w: the next letter of the alphabet differs in the lowest bit.
            let next = char::from(signature.as_bytes()[last] + 1);
            signature.replace_range(last..=last, next.encode_utf8(&mut [0; 4]));
        }
        let text = self
            .text
            .replace("{header}", &header)
            .replace("{payload}", &payload)
            .replace("{signature}", &signature);
        let text = if text == "{unpadded}" {
            format!("{}.{signature}", unpadded(&signed))
        } else {
            text
        };
        Token {
            header,
            payload,
            signature,
            text,
        }
    }

    fn genuine_header(&self, kid: &str) -> Value {
        json!({"typ": "JWT", "kid": kid, "alg": "ES256", "iss": ISSUER, "client": CLIENT, "signer": ARN, "exp": now() + self.exp})
    }

    fn genuine_payload(&self) -> Value {
        json!({
            "sub": SUBJECT,
            "email_verified": "true",
            "email": "ann@example.com",
            "username": "kubeflow_ann",
            "exp": now() + self.payload_exp,
            "iss": ISSUER,
        })
    }

    fn json(
        &self,
        text: Option<&str>,
        mut genuine: Value,
        over: &Map<String, Value>,
        without: &[String],
    ) -> String {
        if let Some(text) = text {
            return text.to_owned();
        }
        let members = genuine.as_object_mut().expect("an object");
        for name in without {
            members
                .remove(name)
                .unwrap_or_else(|| panic!("a genuine token has no {name}"));
        }
        members.extend(over.clone());
        genuine.to_string()
    }

    fn appended(&self, json: String, append: &str, depth: usize, fill: usize) -> String {
        let mut more = String::new();
        if !append.is_empty() {
            more += &format!(",{append}");
        }
        if depth > 0 {
            more += &format!(",\"deep\":{}{}", "[".repeat(depth), "]".repeat(depth));
        }
        if fill > 0 {
            more += &format!(",\"fill\":\"{}\"", "x".repeat(fill));
        }
        match json.strip_suffix('}') {
            Some(start) if !more.is_empty() => format!("{start}{more}}}"),
            _ => json,
        }
    }

    fn base64(&self, text: &str) -> String {
        if self.latin1 {
            self.encode(&to_bytes(text))
        } else {
            self.encode(text.as_bytes())
        }
    }

    fn encode(&self, bytes: &[u8]) -> String {
        let text = match self.alphabet {
            Alphabet::Url => URL_SAFE.encode(bytes),
            Alphabet::Standard => STANDARD.encode(bytes),
        };
        if self.padding {
            text
        } else {
            text.trim_end_matches('=').to_owned()
        }
    }
}

impl Signature {
    fn bytes(self, text: &str, key: &Key) -> Vec<u8> {
        let genuine: EcdsaSignature = key.0.sign(text.as_bytes());
        let bytes = genuine.to_bytes().to_vec();
        let (r, s) = bytes.split_at(32);
        let (zero, one) = ([0; 32], [&[0; 31][..], &[1]].concat());
        match self {
            Signature::Genuine | Signature::StrayBits => bytes,
            Signature::Malleable => EcdsaSignature::from_scalars(genuine.r(), -genuine.s())
                .expect("n - s")
                .to_bytes()
                .to_vec(),
            Signature::OtherKey => Signature::Genuine.bytes(text, &Key::generate()),
            Signature::OtherPayload => Signature::Genuine.bytes(&format!("{text}x"), key),
            Signature::FlippedBit => {
                let mut bytes = bytes;
                bytes[63] ^= 1;
                bytes
            }
            Signature::Zero => [zero, zero].concat(),
            Signature::ZeroR => [&zero, s].concat(),
            Signature::ZeroS => [r, &zero].concat(),
            Signature::One => [&one[..], &one].concat(),
            Signature::Order => [N, N].concat(),
            Signature::AllOnes => vec![0xff; 64],
            Signature::Swapped => [s, r].concat(),
            Signature::Truncated => bytes[..63].to_vec(),
            Signature::Extended => [&bytes[..], &[0]].concat(),
            Signature::Der => genuine.to_der().as_bytes().to_vec(),
            Signature::Doubled => [&bytes[..], &bytes].concat(),
            Signature::OverUnpadded => Signature::Genuine.bytes(&unpadded(text), key),
            Signature::Hs256 => {
                let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.pem().as_bytes())
                    .expect("any key length");
                mac.update(text.as_bytes());
                mac.finalize().into_bytes().to_vec()
            }
            Signature::Hs512 => {
                let mut mac = Hmac::<sha2::Sha512>::new_from_slice(key.pem().as_bytes())
                    .expect("any key length");
                mac.update(text.as_bytes());
                mac.finalize().into_bytes().to_vec()
            }
        }
    }
}

/// A different text: tests of padding need one.
fn unpadded(text: &str) -> String {
    assert!(text.contains('='), "a token that has no padding anyway");
    text.replace('=', "")
}

/// Seconds since the epoch.
pub fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time after 1970");
    i64::try_from(since.as_secs()).expect("a time before the end of time")
}
