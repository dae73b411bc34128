//! What a token seems to be before anybody has verified it, and what an operator may do about a refusal. For people to read:
//! nothing here decides.

use std::path::Path;

use alb_oidc_filter::{Config, MAX_TOKEN_BYTES, P256Key, Reason, Timestamp, UntrustedToken, decode_base64};
use serde::Serialize;
use serde_json::Value;

use super::trail::Verdict;
use crate::native::jose;

/// A token as somebody pasted it.
pub(super) struct Pasted {
    pub(super) token: String,
    /// What was taken away from around it.
    pub(super) notes: Vec<String>,
}

impl Pasted {
    pub(super) fn new(text: &str) -> Self {
        let mut notes = Vec::new();
        let mut token = text.trim();
        let named =
            token.split_once(':').map(|(name, value)| (name.trim_start_matches(['<', '>', ' ']).trim_end(), value));
        if let Some((name, value)) = named.filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-amzn-oidc-")) {
            notes.push(if name.eq_ignore_ascii_case("x-amzn-oidc-data") {
                format!("took `{name}:` away from before the token")
            } else {
                format!("took `{name}:` away from before the token; the filter reads x-amzn-oidc-data only")
            });
            token = value.trim();
        }
        let bare = token.trim_matches(['"', '\'']);
        if bare != token {
            notes.push("took the quotes from around the token".to_owned());
        }
        let token: String = bare.split_whitespace().collect();
        if token != bare {
            notes.push("took white space out of the token, where a header has none: was it wrapped?".to_owned());
        }
        if lacks_padding(&token) {
            notes.push(
                "the token lacks the `=` at the end of its parts, which the load balancer writes and signs".to_owned(),
            );
        }
        Self { token, notes }
    }
}

/// The parts of a token, decoded by nobody's leave.
#[derive(Serialize)]
pub(super) struct Unverified {
    pub(super) header: Option<Value>,
    pub(super) claims: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<String>,
}

impl Unverified {
    pub(super) fn decode(text: &str) -> Self {
        let object = |part: Option<&str>| -> Option<Value> {
            let value: Value = serde_json::from_slice(&decode_base64(part?)?).ok()?;
            value.is_object().then_some(value)
        };
        let mut parts = text.split('.');
        let (header, claims) = (object(parts.next()), object(parts.next()));
        Self { header, claims, signature: parts.next().map(str::to_owned) }
    }

    /// The text `name` of the header.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.header.as_ref()?.get(name)?.as_str()
    }
}

/// What the member `name` of header or claims holds.
pub(super) fn found_in(part: &Option<Value>, name: &str) -> String {
    match part.as_ref().and_then(|part| part.get(name)) {
        None => "nothing".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The form of the token `text`.
pub(super) fn form(text: &str, token: &Unverified) -> String {
    let names = token.header.as_ref().and_then(Value::as_object).into_iter().flat_map(|header| header.keys());
    format!("{} bytes, header with {}", text.len(), names.map(String::as_str).collect::<Vec<_>>().join(", "))
}

/// What is found in the form of the token `text`, which the library refuses, and what is expected.
pub(super) fn malformation(text: &str, token: &Unverified) -> (String, String) {
    let (dots, length) = (text.matches('.').count(), text.len());
    let signature = text.rsplit('.').next().and_then(decode_base64).map(|signature| signature.len());
    let is_text = |name: &&str| token.header.as_ref().and_then(|header| header.get(*name)).is_none_or(Value::is_string);
    let most = format!("at most {MAX_TOKEN_BYTES}");
    let (found, expected) = match signature {
        _ if text.is_empty() => ("nothing".to_owned(), "a token"),
        _ if length > MAX_TOKEN_BYTES => (format!("{length} bytes"), most.as_str()),
        _ if dots != 2 => (format!("{dots} dot(s)"), "two: header.claims.signature"),
        _ if token.header.is_none() => {
            ("something else before the first dot".to_owned(), "the JOSE header: a JSON object in base64")
        }
        None => ("a signature that is no base64".to_owned(), "64 bytes in base64"),
        Some(bytes) if bytes != 64 => (format!("a signature of {bytes} bytes"), "64"),
        Some(_) if token.header.as_ref().and_then(|header| header.get("exp")?.as_u64()).is_none() => {
            (format!("`exp`: {}", found_in(&token.header, "exp")), "whole seconds")
        }
        Some(_) => match ["signer", "iss", "client", "typ"].iter().find(|name| !is_text(name)) {
            Some(name) => (format!("`{name}`: {}", found_in(&token.header, name)), "text"),
            None => (form(text, token), "each member once, no crit, b64, zip, jwk, jku, x5c or x5u, claims in base64"),
        },
    };
    (found, expected.to_owned())
}

/// A time, and how long it is from `now`.
pub(super) fn ago(seconds: i64, now: Timestamp) -> String {
    let now = i64::try_from(now.millis() / 1000).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string());
    let apart = now.abs_diff(seconds);
    let span = match (apart / 86_400, apart / 3_600 % 24, apart / 60 % 60, apart % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} days {hours} h"),
    };
    if now >= seconds { format!("{time}, {span} ago") } else { format!("{time}, in {span}") }
}

/// The `loadBalancers` that would believe a token that says this of itself.
pub(super) fn config_for(text: &str, token: &Unverified) -> Vec<String> {
    if token.header.is_none() {
        let (found, expected) = malformation(text, token);
        return vec![format!("this is no token: found {found}, expected {expected}")];
    }
    let quoted = |name| token.text(name).map_or_else(|| "null".to_owned(), |text| Value::from(text).to_string());
    match token.text("signer") {
        None => vec!["the header names no `signer`: a load balancer's token does".to_owned()],
        Some(_) => vec![
            "a config that believes tokens with this header, if they are your load balancer's:".to_owned(),
            "loadBalancers:".to_owned(),
            format!("- arn: {}", quoted("signer")),
            format!("  issuer: {}", quoted("iss")),
            format!("  clientId: {}", quoted("client")),
        ],
    }
}

fn lacks_padding(token: &str) -> bool {
    let parts: Vec<_> = token.split('.').collect();
    parts.len() == 3 && parts.iter().any(|part| part.len() % 4 != 0)
}

fn padded(token: &str) -> String {
    let padded = |part: &str| format!("{part}{}", "=".repeat(part.len().wrapping_neg() % 4));
    token.split('.').map(padded).collect::<Vec<_>>().join(".")
}

/// What the text shows at once to be, if not a load balancer's token.
pub(super) fn mistaken(token: &Unverified, argument: Option<&str>) -> Vec<String> {
    let is_file = argument.is_some_and(|argument| Path::new(argument).is_file());
    let is_rsa = token.text("alg").is_some_and(|algorithm| algorithm.starts_with("RS"));
    let file = "there is a file of that name: was --file meant?";
    let rsa = "an RS algorithm: this is the identity provider's access or ID token; the load balancer's own is in x-amzn-oidc-data";
    [(is_file, file), (is_rsa, rsa)].into_iter().filter(|(is_so, _)| *is_so).map(|(_, what)| what.to_owned()).collect()
}

/// What to do about a refusal.
pub(super) fn advice(reason: Reason, config: &Config, verdict: &Verdict, token: &str) -> Vec<String> {
    let mut advice = Vec::new();
    if reason == Reason::SignatureInvalid && lacks_padding(token) {
        let holds = verdict.key.as_ref().is_some_and(|key| holds(&padded(token), config, key));
        advice.push(if holds {
            "with `=` put back at the end of each part the signature holds: something on the way took it off".to_owned()
        } else {
            "the `=` at the end of each part is missing, and putting it back does not help".to_owned()
        });
    }
    advice.push(general(reason).to_owned());
    advice
}

/// Whether `key` signed `token`, whenever that was.
fn holds(token: &str, config: &Config, key: &P256Key) -> bool {
    let epoch = Timestamp::from_seconds(0);
    let screened = UntrustedToken::parse(token.as_bytes())
        .and_then(|token| token.screen(&config.load_balancers, epoch, config.clock_skew));
    screened.and_then(|screened| jose().verify(&screened, key)).is_ok()
}

fn general(reason: Reason) -> &'static str {
    match reason {
        Reason::UpgradeNotAllowed => {
            "if clients need this upgrade, first update Envoy (CVE-2026-73548), then add its type to upgrades"
        }
        Reason::TokenDuplicate => "send one x-amzn-oidc-data: a client or a proxy adds its own to the load balancer's",
        Reason::TokenMissing => {
            "turn authentication on for the listener rule, and let nobody reach the gateway but the load balancer"
        }
        Reason::TokenTooLarge => "ask the identity provider for fewer claims",
        Reason::TokenMalformed => "take the header's value as it reached the gateway: logs and decoders change it",
        Reason::AlgorithmNotEs256 => "a load balancer signs with ES256 only: this token is from elsewhere",
        Reason::KeyIdInvalid => "a load balancer's key ids are UUIDs: this token is from elsewhere",
        Reason::SignerUnknown => {
            "if the signer is a load balancer of yours, add its ARN to loadBalancers; if not, somebody forged this"
        }
        Reason::IssuerMismatch => {
            "if the listener's authentication uses that issuer, set it as the load balancer's issuer"
        }
        Reason::ClientMismatch => {
            "if the listener's authentication uses that client, set it as the load balancer's clientId"
        }
        Reason::TokenExpired => {
            "the load balancer writes a new token for each request: this one is old, or the gateway's clock is wrong; --at TIME looks at another time"
        }
        Reason::KeyNotFound => {
            "look whether the config's publicKeys.endpoint is the region's of the load balancer, and its accessToken.jwksUri the provider's"
        }
        Reason::KeyInvalid => "look what answers in the key server's place: a proxy, an error page",
        Reason::KeyUnavailable => {
            "look whether the gateway reaches the key server: ServiceEntry, DestinationRule, egress rules"
        }
        Reason::SignatureInvalid => {
            "the token was changed on its way, or is a forgery, or the key is not the one of its key id"
        }
        Reason::AccessTokenInvalid => {
            "it must be the x-amzn-oidc-accesstoken of the same request (--access-token), signed by a key of accessToken.jwksUri (--jwks)"
        }
        Reason::UserIdMissing => {
            "set userId.claims to a claim that the token has, or have the identity provider put the claim into its userinfo"
        }
        Reason::EmailUnverified => {
            "have the user verify the address, or the identity provider say so in email_verified"
        }
        Reason::UserIdInvalid => "try userId.transformers with: alb-oidc transform --config CONFIG USER",
        Reason::UserNotAllowed => "name the user, the domain or a group in the rule's allow",
        Reason::InternalError => "look into the gateway's log",
    }
}
