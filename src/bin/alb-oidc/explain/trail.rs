//! The filter's checks of one token, one after the other, each noted with what it looked at. Every verdict is the library's:
//! each stage below is one of its calls, and the last one is the gate itself.

use std::time::Duration;

use alb_oidc_filter::config::{Config, LoadBalancer};
use alb_oidc_filter::gate::{Decision, Gate, OIDC_DATA, RequestHead};
use alb_oidc_filter::identity::Identity;
use alb_oidc_filter::keys::{Answer, KeyName, KeyRing};
use alb_oidc_filter::reason::Reason;
use alb_oidc_filter::signature::{Claims, Jose, P256_PROVIDER, VerificationKey};
use alb_oidc_filter::time::{Now, Timestamp};
use alb_oidc_filter::token::{KeyId, UntrustedToken};
use serde::Serialize;
use serde_json::Value;

use super::advice::{Unverified, ago, form};
use crate::input::Trouble;
use crate::output::{BAD, FAINT, GOOD, printable, styled};

pub(super) const SIGNATURE: &str = "signature";

/// Every check, in order.
const CHECKS: [&str; 16] = [
    "form",
    "algorithm",
    "key id",
    "signer",
    "issuer",
    "client",
    "expiry",
    "key",
    SIGNATURE,
    "claims",
    "claims' expiry",
    "claims' issuer",
    "user id",
    "verified email",
    "user id's form",
    "rules",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    Passed,
    Failed,
    NotReached,
}

/// One check, and what it looked at.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) check: &'static str,
    pub(super) outcome: Outcome,
    pub(super) detail: String,
}

impl Step {
    pub(super) fn text(&self) -> String {
        let (mark, style) = match self.outcome {
            Outcome::Passed => ("ok  ", GOOD),
            Outcome::Failed => ("FAIL", BAD),
            Outcome::NotReached => ("-   ", FAINT),
        };
        let line = format!("{:<15} {}", self.check, printable(&self.detail));
        let line = if self.outcome == Outcome::NotReached { styled(style, &line) } else { line };
        format!("  {} {}", styled(style, mark), line.trim_end())
    }
}

/// The request that carries the token.
pub(super) struct Request<'a> {
    pub(super) path: &'a str,
    pub(super) host: &'a str,
    pub(super) method: &'a str,
}

/// What is known of the key that the token names.
pub(super) enum KnownKey {
    NotGiven,
    Key(VerificationKey),
    /// The key server has none of that id.
    Absent,
    /// The key server has something else.
    Invalid,
}

/// The checks, and what the gate decides.
pub(super) struct Verdict {
    pub(super) steps: Vec<Step>,
    pub(super) decision: Decision,
    /// The key that the signature was checked with.
    pub(super) key: Option<VerificationKey>,
}

/// Has the library judge the token `text`, stage by stage, and then its gate, as of the same request.
pub(super) fn judge(
    config: &Config,
    text: &str,
    token: &Unverified,
    request: Option<&Request<'_>>,
    find: &dyn Fn(KeyId) -> Result<KnownKey, Trouble>,
    now: Timestamp,
) -> Result<Verdict, Trouble> {
    let mut fields = vec![(OIDC_DATA, text)];
    if let Some(Request { path, host, method }) = request {
        fields.extend([(":path", *path), (":authority", *host), (":method", *method)]);
    }
    let head = RequestHead::new(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect());
    let jose = Jose::install(&P256_PROVIDER);
    let mut keys = KeyRing::new(config.key_ttl, config.key_sources.iter().map(|source| source.timeout));
    let mut trail = Trail { steps: Vec::new(), config, token, now, key: None };
    // A stage that fails, or lacks its key, has said so in the trail.
    let _ = trail.follow(text, &head, jose, find, &mut keys)?;
    let Trail { mut steps, key, .. } = trail;
    let rest = CHECKS.iter().skip(steps.len());
    steps.extend(rest.map(|check| Step { check, outcome: Outcome::NotReached, detail: String::new() }));
    let (decision, _) = Gate::new(config.clone(), jose).decide(&head, &mut keys, Now { wall: now, steady: STEADY });
    Ok(Verdict { steps, decision, key })
}

/// The key ring's clock stands still.
const STEADY: Timestamp = Timestamp::from_unix_millis(0);

struct Trail<'a> {
    steps: Vec<Step>,
    config: &'a Config,
    token: &'a Unverified,
    now: Timestamp,
    key: Option<VerificationKey>,
}

/// Checks that one call makes, in their order: what each looked at, and the reason for which it fails.
type Stage<'s> = &'s [(&'s [Reason], String)];

impl Trail<'_> {
    /// Notes the checks of a call that made them in this order until one failed.
    fn note<T>(&mut self, stage: Stage<'_>, outcome: Result<T, Reason>) -> Option<T> {
        let failed = outcome.as_ref().err();
        for (reasons, detail) in stage {
            let fails = failed.is_some_and(|reason| reasons.contains(reason));
            let check = CHECKS.get(self.steps.len()).copied().unwrap_or_default();
            let outcome = if fails { Outcome::Failed } else { Outcome::Passed };
            self.steps.push(Step { check, outcome, detail: detail.clone() });
            if fails {
                break;
            }
        }
        outcome.ok()
    }

    fn follow(
        &mut self,
        text: &str,
        head: &RequestHead<'_>,
        jose: Jose,
        find: &dyn Fn(KeyId) -> Result<KnownKey, Trouble>,
        keys: &mut KeyRing,
    ) -> Result<Option<Identity>, Trouble> {
        let (config, token, now) = (self.config, self.token, self.now);
        let requirement = config.access.requirement(head);
        if requirement.is_open() {
            return Ok(None);
        }
        let parsed = UntrustedToken::parse(text.as_bytes());
        let stage: Stage<'_> = &[
            (&[Reason::TokenMissing, Reason::TokenTooLarge, Reason::TokenMalformed], form(text, token)),
            (&[Reason::AlgorithmNotEs256], token.found("alg", &["ES256"])),
            (&[Reason::KeyIdInvalid], token.found("kid", &["a UUID"])),
        ];
        let Some(parsed) = self.note(stage, parsed) else { return Ok(None) };

        let screened = parsed.screen(&config.load_balancers, now, config.clock_skew);
        let signer = token.text("signer");
        let of_signer = || config.load_balancers.iter().filter(|known| Some(known.arn.as_str()) == signer);
        let of = |field: fn(&LoadBalancer) -> Option<&str>| -> Vec<&str> {
            of_signer().map(|known| field(known).unwrap_or("any")).collect()
        };
        let arns: Vec<_> = config.load_balancers.iter().map(|known| known.arn.as_str()).collect();
        let stage: Stage<'_> = &[
            (&[Reason::SignerUnknown], token.found("signer", &arns)),
            (&[Reason::IssuerMismatch], token.found("iss", &of(|known| known.issuer.as_deref()))),
            (&[Reason::ClientMismatch], token.found("client", &of(|known| known.client_id.as_deref()))),
            (&[Reason::TokenExpired], self.expiry(token.header.as_ref())),
        ];
        let Some(screened) = self.note(stage, screened) else { return Ok(None) };

        let name = KeyName { source: screened.key_source(), id: screened.key_id() };
        let key = match find(name.id)? {
            KnownKey::NotGiven => return Ok(None),
            KnownKey::Key(key) => {
                keys.adopt(name, key.clone(), Duration::ZERO, STEADY);
                Ok(key)
            }
            KnownKey::Absent => Err(refused(keys, name, Answer::NotFound, Reason::KeyNotFound)),
            KnownKey::Invalid => Err(refused(keys, name, Answer::Invalid, Reason::KeyInvalid)),
        };
        let detail = match &key {
            Ok(_) => format!("one P-256 public key for {}", name.id),
            Err(Reason::KeyNotFound) => format!("found no file {}, expected one PEM `PUBLIC KEY`", name.id),
            Err(_) => format!(
                "found something else in the file {}, expected one PEM `PUBLIC KEY` of the curve P-256",
                name.id
            ),
        };
        let Some(key) = self.note(&[(&[Reason::KeyNotFound, Reason::KeyInvalid], detail)], key) else {
            return Ok(None);
        };

        self.key = Some(key.clone());
        let verified = jose.verify(&screened, &key);
        let detail = if verified.is_ok() {
            "the key signed this header and these claims"
        } else {
            "the key did not sign this header and these claims, byte for byte"
        };
        let Some(verified) = self.note(&[(&[Reason::SignatureInvalid], detail.to_owned())], verified) else {
            return Ok(None);
        };

        let claims = verified.claims(now, config.clock_skew);
        let issuer = token.text("iss").into_iter().collect::<Vec<_>>();
        let stage: Stage<'_> = &[
            (
                &[Reason::TokenMalformed],
                if claims.as_ref().err() == Some(&Reason::TokenMalformed) {
                    "found something else, expected one JSON object, no key twice, `exp` in whole seconds, `iss` a string".to_owned()
                } else {
                    "one JSON object".to_owned()
                },
            ),
            (&[Reason::TokenExpired], self.expiry(token.claims.as_ref())),
            (&[Reason::IssuerMismatch], Unverified::found_in(token.claims.as_ref(), "iss", &issuer)),
        ];
        let Some(claims) = self.note(stage, claims) else { return Ok(None) };

        let identity = config.identity.identity(&claims);
        let stage: Stage<'_> = &[
            (&[Reason::UserIdMissing], self.user_id_claim(&claims)),
            (&[Reason::EmailUnverified], self.verified_email(&claims)),
            (&[Reason::UserIdInvalid], self.user_id(&claims)),
        ];
        let Some(identity) = self.note(stage, identity) else { return Ok(None) };

        let admitted = if requirement.admits(&identity) { Ok(identity) } else { Err(Reason::UserNotAllowed) };
        let detail = match &admitted {
            _ if config.access.rules.is_empty() => "none: any user may pass",
            Ok(_) => "this user may pass",
            Err(_) => "this user may not pass: no entry of `allow` names the user id, the email's domain or a group",
        };
        Ok(self.note(&[(&[Reason::UserNotAllowed], detail.to_owned())], admitted))
    }

    fn expiry(&self, part: Option<&Value>) -> String {
        match part.and_then(|part| part.get("exp")) {
            None => "no `exp`".to_owned(),
            Some(exp) => match exp.as_u64().and_then(|seconds| i64::try_from(seconds).ok()) {
                Some(seconds) => {
                    format!("{}; believed for {} s more", ago(seconds, self.now), self.config.clock_skew.as_secs())
                }
                None => format!("found {exp}, expected whole seconds"),
            },
        }
    }

    fn user_id_claim(&self, claims: &Claims) -> String {
        let rules = &self.config.identity.user_id;
        match rules.claim(claims.by_name()) {
            Some((name, text)) => format!("`{name}` is {text:?}"),
            None => format!(
                "found none of {}, expected one of them as text that is not empty; the token has: {}",
                rules.claims.join(", "),
                claims.by_name().keys().map(String::as_str).collect::<Vec<_>>().join(", ")
            ),
        }
    }

    fn verified_email(&self, claims: &Claims) -> String {
        let found = claims.by_name().get("email_verified").map_or_else(|| "nothing".to_owned(), Value::to_string);
        if self.config.identity.user_id.require_verified_email {
            format!("`email_verified`: found {found}, expected true")
        } else {
            "not asked for".to_owned()
        }
    }

    fn user_id(&self, claims: &Claims) -> String {
        let rules = &self.config.identity.user_id;
        let Some((_, claim)) = rules.claim(claims.by_name()) else { return String::new() };
        let by = match rules.transformer(&rules.cased(claim)) {
            Some((position, transformer)) => format!(" by transformers[{position}], `{}`", transformer.matches),
            None if rules.transformers.is_empty() => String::new(),
            None => ", which no transformer matches".to_owned(),
        };
        match rules.made_of(claim) {
            Ok(id) => format!("{claim:?} became {id:?}{by}"),
            Err(_) => format!(
                "{claim:?}{by}: expected at most 320 bytes, not empty, without space at its ends, control or invisible characters"
            ),
        }
    }
}

/// Has the ring take the key server's `answer`, as if a request had waited for it.
fn refused(keys: &mut KeyRing, name: KeyName, answer: Answer, reason: Reason) -> Reason {
    let waits = keys.wait(name, 1, STEADY);
    keys.tick(STEADY);
    keys.answered(name, answer, STEADY);
    waits.err().unwrap_or(reason)
}
