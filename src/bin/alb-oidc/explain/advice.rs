//! Advice for operators about a denied token. Decides nothing.

use std::path::Path;

use alb_oidc_filter::{Config, P256Key, Reason, Timestamp, UntrustedToken};
use serde_json::Value;

use super::judge::Verdict;
use super::unverified::{Unverified, lacks_padding, malformation};
use crate::native::verifier;

/// The `loadBalancers` that would accept the signer, issuer and client of this token.
pub(super) fn config_for(text: &str, token: &Unverified) -> Vec<String> {
    if token.header.is_none()
        && let Err(error) = UntrustedToken::parse(text.as_bytes())
    {
        let (found, expected) = malformation(error, text, &None);
        return vec![format!(
            "this is no token: found {found}, expected {expected}"
        )];
    }
    let quoted = |name| {
        token
            .text(name)
            .map_or_else(|| "null".to_owned(), |text| Value::from(text).to_string())
    };
    match token.text("signer") {
        None => vec!["the header names no `signer`: a load balancer's token does".to_owned()],
        Some(_) => vec![
            "a config that believes tokens with this header, if they are your load balancer's:"
                .to_owned(),
            "loadBalancers:".to_owned(),
            format!("- arn: {}", quoted("signer")),
            format!("  issuer: {}", quoted("iss")),
            format!("  clientId: {}", quoted("client")),
        ],
    }
}

fn padded(token: &str) -> String {
    let padded = |part: &str| format!("{part}{}", "=".repeat(part.len().wrapping_neg() % 4));
    token.split('.').map(padded).collect::<Vec<_>>().join(".")
}

/// Other known forms of text that is not a load balancer's token.
pub(super) fn mistaken(token: &Unverified, argument: Option<&str>) -> Vec<String> {
    let is_file = argument.is_some_and(|argument| Path::new(argument).is_file());
    let is_rsa = token
        .text("alg")
        .is_some_and(|algorithm| algorithm.starts_with("RS"));
    let file = "there is a file of that name: was --file meant?";
    let rsa = "an RS algorithm: this is the identity provider's access or ID token; the load balancer's own is in x-amzn-oidc-data";
    [(is_file, file), (is_rsa, rsa)]
        .into_iter()
        .filter(|(is_so, _)| *is_so)
        .map(|(_, what)| what.to_owned())
        .collect()
}

/// The advice for a denial.
pub(super) fn advice(
    reason: Reason,
    config: &Config,
    verdict: &Verdict,
    token: &str,
) -> Vec<String> {
    let mut advice = Vec::new();
    if reason == Reason::SignatureInvalid && lacks_padding(token) {
        let holds = verdict
            .key
            .as_ref()
            .is_some_and(|key| holds(&padded(token), config, key));
        advice.push(if holds {
            "with `=` put back at the end of each part the signature holds: something on the way took it off".to_owned()
        } else {
            "the `=` at the end of each part is missing, and putting it back does not help".to_owned()
        });
    }
    advice.push(general(reason).to_owned());
    advice
}

/// Whether `key` signed `token`, expired or not.
fn holds(token: &str, config: &Config, key: &P256Key) -> bool {
    let epoch = Timestamp::from_seconds(0);
    let screened = UntrustedToken::parse(token.as_bytes())
        .map_err(Reason::from)
        .and_then(|token| {
            let screened = token.screen(&config.load_balancers, epoch, config.clock_skew);
            screened.map_err(Reason::from)
        });
    screened
        .and_then(|screened| verifier().verify(&screened, key))
        .is_ok()
}

fn general(reason: Reason) -> &'static str {
    match reason {
        Reason::UpgradeNotAllowed => {
            "if clients need this upgrade, first update Envoy (CVE-2026-73548), then add its type to upgrades"
        }
        Reason::TokenDuplicate => {
            "send one x-amzn-oidc-data: a client or a proxy adds its own to the load balancer's"
        }
        Reason::TokenMissing => {
            "turn authentication on for the listener rule, and let only the load balancer reach the gateway"
        }
        Reason::TokenTooLarge => "ask the identity provider for fewer claims",
        Reason::TokenMalformed => {
            "take the header's value as it reached the gateway: logs and decoders change it"
        }
        Reason::AlgorithmNotEs256 => {
            "a load balancer signs with ES256 only: this token is from elsewhere"
        }
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
        Reason::ProviderMismatch => {
            "compare userId.provider with `identities[].providerName` and the start of `username`"
        }
        Reason::UserIdMissing => {
            "usually the listener rule's `scope` is openid alone, its default, and lacks the scope of the claim, such as email; a session keeps the scope of its sign-in, so sign out after the change. Otherwise set userId.claims to a claim that the token has, or have the identity provider send the claim in userinfo"
        }
        Reason::EmailUnverified => {
            "have the user verify the address, or the identity provider say so in email_verified"
        }
        Reason::UserIdInvalid => {
            "try userId.transformers with: alb-oidc transform --config CONFIG USER"
        }
        Reason::UserNotAllowed => "name the user, the domain or a group in the rule's allow",
        Reason::InternalError => "look into the gateway's log",
    }
}
