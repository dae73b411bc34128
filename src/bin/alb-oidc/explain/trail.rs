//! The filter's checks of one token, one after the other, each noted with what it looked at. Every
//! verdict is the library's: each stage below is one of its calls, and the last one is the gate
//! itself.

use std::time::Duration;

use alb_oidc_filter::{
    ACCESS_TOKEN, AccessTokenRules, Claims, ClientAddress, Config, Decision, FetchResult, Gate,
    Identity, KeyCache, KeyId, KeyName, LoadBalancer, MAX_USER_ID_BYTES, Now, OIDC_DATA, P256Key,
    PublicKey, Reason, RequestHead, Requirement, ScreenedToken, Timestamp, TokenError,
    UntrustedAccessToken, UntrustedToken, VerifiedToken, Verifier, find_in_key_set,
};
use serde::Serialize;
use serde_json::Value;

use super::unverified::{Unverified, ago, form, found_in, malformation};
use crate::input::Trouble;
use crate::native::verifier;
use crate::output::{BAD, FAINT, GOOD, printable, styled};

pub(super) const SIGNATURE: &str = "signature";

/// Every check, in order.
const CHECKS: [&str; 17] = [
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
    "access token",
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
        let line = if self.outcome == Outcome::NotReached {
            styled(style, &line)
        } else {
            line
        };
        format!("  {} {}", styled(style, mark), line.trim_end())
    }
}

/// What there is to judge, and to judge it by.
pub(super) struct Tokens<'a> {
    pub(super) text: &'a str,
    pub(super) decoded: &'a Unverified,
    /// The access token beside it; empty: none.
    pub(super) access: &'a str,
    /// What the identity provider publishes; `None`: not known.
    pub(super) key_set: Option<&'a str>,
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
    Key(P256Key),
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
    pub(super) key: Option<P256Key>,
}

/// Has the library judge the tokens, stage by stage, and then its gate, as of the same request.
pub(super) fn judge(
    config: &Config,
    tokens: &Tokens<'_>,
    request: Option<&Request<'_>>,
    find: &dyn Fn(KeyId) -> Result<KnownKey, Trouble>,
    now: Timestamp,
) -> Result<Verdict, Trouble> {
    let mut fields = vec![(OIDC_DATA, tokens.text)];
    if !tokens.access.is_empty() {
        fields.push((ACCESS_TOKEN, tokens.access));
    }
    if let Some(Request { path, host, method }) = request {
        fields.extend([
            (":path", *path),
            (":authority", *host),
            (":method", *method),
        ]);
    }
    let head = RequestHead::new(
        fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect(),
    );
    let verifier = verifier();
    let mut keys = KeyCache::new(
        config.key_ttl,
        config.key_sources.iter().map(|source| source.timeout),
        0,
    );
    let mut trail = Trail {
        steps: Vec::new(),
        config,
        tokens,
        now,
        key: None,
    };
    let mut gate = Gate::new(config.clone(), verifier);
    let now = Now {
        wall: now,
        steady: STEADY,
    };
    // Sign-out needs no token, and an upgrade is denied before the token: neither looks at one.
    let is_decided = matches!(
        gate.decide(&head, &mut keys, now).0,
        Decision::SignOut(_) | Decision::Deny(Reason::UpgradeNotAllowed)
    );
    if !is_decided {
        trail.follow(&head, verifier, find, &mut keys)?;
    }
    let Trail { mut steps, key, .. } = trail;
    let rest = CHECKS.iter().skip(steps.len());
    steps.extend(rest.map(|check| Step {
        check,
        outcome: Outcome::NotReached,
        detail: "not reached".to_owned(),
    }));
    let (decision, _) = gate.decide(&head, &mut keys, now);
    Ok(Verdict {
        steps,
        decision,
        key,
    })
}

/// The key cache's clock stands still.
const STEADY: Timestamp = Timestamp::from_millis(0);

struct Trail<'a> {
    steps: Vec<Step>,
    config: &'a Config,
    tokens: &'a Tokens<'a>,
    now: Timestamp,
    key: Option<P256Key>,
}

/// A check that a call into the library makes: the reasons for which it fails, what it looked at,
/// and what that had to be.
struct Check<'r>(&'r [Reason], String, String);

impl<'a> Trail<'a> {
    /// Notes the checks of a call that made them in this order until one failed.
    fn note<T, const N: usize>(
        &mut self,
        checks: [Check<'_>; N],
        outcome: Result<T, Reason>,
    ) -> Option<T> {
        let failed = outcome.as_ref().err();
        for Check(reasons, found, expected) in checks {
            if failed.is_some_and(|reason| reasons.contains(reason)) {
                self.push(
                    Outcome::Failed,
                    format!("found {found}, expected {expected}"),
                );
                break;
            }
            self.push(Outcome::Passed, found);
        }
        outcome.ok()
    }

    fn push(&mut self, outcome: Outcome, detail: String) {
        let check = CHECKS.get(self.steps.len()).copied().unwrap_or_default();
        self.steps.push(Step {
            check,
            outcome,
            detail,
        });
    }

    /// Goes from call to call, as the gate does, until one fails or the key is missing.
    fn follow(
        &mut self,
        head: &RequestHead<'_>,
        verifier: Verifier,
        find: &dyn Fn(KeyId) -> Result<KnownKey, Trouble>,
        keys: &mut KeyCache,
    ) -> Result<(), Trouble> {
        let requirement = self.config.access.requirement(head);
        if requirement.is_open() {
            return Ok(());
        }
        let Some(token) = self.parse() else {
            return Ok(());
        };
        let Some(token) = self.screen(token) else {
            return Ok(());
        };
        let Some(key) = self.find_key(&token, find, keys)? else {
            return Ok(());
        };
        let Some(token) = self.verify(&token, key, verifier) else {
            return Ok(());
        };
        let Some(claims) = self.claims(token) else {
            return Ok(());
        };
        let Some(claims) = self.access_token(claims, verifier, keys) else {
            return Ok(());
        };
        let Some(identity) = self.identity(&claims) else {
            return Ok(());
        };
        self.rules(&requirement, &identity);
        Ok(())
    }

    fn parse(&mut self) -> Option<UntrustedToken<'a>> {
        let Tokens {
            text,
            decoded: token,
            ..
        } = *self.tokens;
        let parsed = UntrustedToken::parse(text.as_bytes());
        let of_form = [
            Reason::TokenMissing,
            Reason::TokenTooLarge,
            Reason::TokenMalformed,
        ];
        let (found, expected) = match &parsed {
            Err(error) if of_form.contains(&error.reason()) => {
                malformation(*error, text, &token.header)
            }
            _ => (form(text, &token.header), String::new()),
        };
        let checks = [
            Check(&of_form, found, expected),
            Check(
                &[Reason::AlgorithmNotEs256],
                found_in(&token.header, "alg"),
                "ES256".to_owned(),
            ),
            Check(
                &[Reason::KeyIdInvalid],
                found_in(&token.header, "kid"),
                "a UUID".to_owned(),
            ),
        ];
        self.note(checks, parsed.map_err(Reason::from))
    }

    /// Compares the token with the load balancers.
    fn screen(&mut self, parsed: UntrustedToken<'a>) -> Option<ScreenedToken<'a>> {
        let (config, token) = (self.config, self.tokens.decoded);
        let screened = parsed.screen(&config.load_balancers, self.now, config.clock_skew);
        let signer = token.text("signer");
        let known = |field: fn(&LoadBalancer) -> Option<&str>| -> String {
            let of_signer = config
                .load_balancers
                .iter()
                .filter(|known| Some(known.arn.as_str()) == signer);
            of_signer.filter_map(field).collect::<Vec<_>>().join(" or ")
        };
        let arns: Vec<_> = config
            .load_balancers
            .iter()
            .map(|known| known.arn.as_str())
            .collect();
        let checks = [
            Check(
                &[Reason::SignerUnknown],
                found_in(&token.header, "signer"),
                arns.join(" or "),
            ),
            Check(
                &[Reason::IssuerMismatch],
                found_in(&token.header, "iss"),
                known(|known| known.issuer.as_deref()),
            ),
            Check(
                &[Reason::ClientMismatch],
                found_in(&token.header, "client"),
                known(|known| known.client_id.as_deref()),
            ),
            self.expiry(&token.header),
        ];
        self.note(checks, screened)
    }

    /// Finds the key that the token names, and has the ring know it.
    fn find_key(
        &mut self,
        screened: &ScreenedToken<'_>,
        find: &dyn Fn(KeyId) -> Result<KnownKey, Trouble>,
        keys: &mut KeyCache,
    ) -> Result<Option<P256Key>, Trouble> {
        let name = KeyName {
            source: screened.key_source(),
            id: screened.key_id(),
        };
        let key = match find(name.id)? {
            KnownKey::NotGiven => {
                self.push(Outcome::NotReached, "no key was given".to_owned());
                return Ok(None);
            }
            KnownKey::Key(key) => {
                let _nobody =
                    keys.adopt(name, PublicKey::P256(key.clone()), Duration::ZERO, STEADY);
                Ok(key)
            }
            KnownKey::Absent => Err(refused(
                keys,
                name,
                FetchResult::NotFound,
                Reason::KeyNotFound,
            )),
            KnownKey::Invalid => Err(refused(
                keys,
                name,
                FetchResult::Invalid,
                Reason::KeyInvalid,
            )),
        };
        let found = match &key {
            Ok(_) => format!("one P-256 public key for {}", name.id),
            Err(Reason::KeyNotFound) => format!("no file {}", name.id),
            Err(_) => format!("something else in the file {}", name.id),
        };
        let expected = "one PEM `PUBLIC KEY` of the curve P-256".to_owned();
        let reasons = [
            Reason::KeyNotFound,
            Reason::KeyInvalid,
            Reason::KeyUnavailable,
        ];
        Ok(self.note([Check(&reasons, found, expected)], key))
    }

    fn verify(
        &mut self,
        screened: &ScreenedToken<'_>,
        key: P256Key,
        verifier: Verifier,
    ) -> Option<VerifiedToken> {
        let verified = verifier.verify(screened, &key);
        self.key = Some(key);
        let whose = if verified.is_ok() {
            "the key's"
        } else {
            "one that is not the key's"
        };
        let expected = "the key's own, over header and claims, byte for byte".to_owned();
        let check = Check(&[Reason::SignatureInvalid], whose.to_owned(), expected);
        self.note([check], verified)
    }

    fn claims(&mut self, verified: VerifiedToken) -> Option<Claims> {
        let token = self.tokens.decoded;
        let claims = verified.claims(self.now, self.config.clock_skew);
        let (found, expected) = match &claims {
            Err(error @ TokenError::Malformed(_)) => {
                malformation(*error, self.tokens.text, &token.claims)
            }
            _ => ("one JSON object".to_owned(), String::new()),
        };
        let checks = [
            Check(&[Reason::TokenMalformed], found, expected),
            self.expiry(&token.claims),
            Check(
                &[Reason::IssuerMismatch],
                found_in(&token.claims, "iss"),
                found_in(&token.header, "iss"),
            ),
        ];
        self.note(checks, claims.map_err(Reason::from))
    }

    /// Adds the claims of the access token, where the config reads it.
    fn access_token(
        &mut self,
        claims: Claims,
        verifier: Verifier,
        keys: &mut KeyCache,
    ) -> Option<Claims> {
        let Tokens {
            access, key_set, ..
        } = *self.tokens;
        let Some(AccessTokenRules { issuer, key_source }) = &self.config.access_token else {
            self.push(Outcome::Passed, "not asked for".to_owned());
            return Some(claims);
        };
        let parsed = UntrustedAccessToken::parse(access.as_bytes());
        if parsed.is_ok() && key_set.is_none() {
            self.push(Outcome::NotReached, "no key set was given".to_owned());
            return None;
        }
        let decoded = Unverified::decode(access);
        let member = |name| format!("{name} {}", found_in(&decoded.claims, name));
        let found = if access.is_empty() {
            "none".to_owned()
        } else {
            let claims = ["iss", "sub", "client_id", "token_use", "exp", "nbf"].map(member);
            format!(
                "one with alg {}, {}",
                found_in(&decoded.header, "alg"),
                claims.join(", ")
            )
        };
        let skew = self.config.clock_skew;
        let outcome = parsed.and_then(|token| {
            let name = KeyName {
                source: *key_source,
                id: token.key_id(),
            };
            let key = match find_in_key_set(key_set.unwrap_or_default().as_bytes(), name.id) {
                FetchResult::Key(PublicKey::Rsa(key)) => key,
                FetchResult::NotFound => {
                    return Err(refused(
                        keys,
                        name,
                        FetchResult::NotFound,
                        Reason::KeyNotFound,
                    ));
                }
                _ => {
                    return Err(refused(
                        keys,
                        name,
                        FetchResult::Invalid,
                        Reason::KeyInvalid,
                    ));
                }
            };
            let _nobody = keys.adopt(name, PublicKey::Rsa(key.clone()), Duration::ZERO, STEADY);
            verifier.verify_access_token(&token, &key, claims, issuer, self.now, skew)
        });
        let expected = format!(
            "an unexpired one of {issuer}, of the same `sub` and client, signed with RS256 by a key of its key set"
        );
        let reasons = [
            Reason::AccessTokenInvalid,
            Reason::KeyNotFound,
            Reason::KeyInvalid,
            Reason::KeyUnavailable,
        ];
        self.note([Check(&reasons, found, expected)], outcome)
    }

    fn identity(&mut self, claims: &Claims) -> Option<Identity> {
        let identity = self.config.identity.identity(claims);
        let checks = [
            self.user_id_claim(claims),
            self.verified_email(claims),
            self.user_id(claims),
        ];
        self.note(checks, identity)
    }

    fn rules(&mut self, requirement: &Requirement<'_>, identity: &Identity) {
        let admitted = if requirement.admits(identity) {
            Ok(())
        } else {
            Err(Reason::UserNotAllowed)
        };
        let found = match &admitted {
            _ if self.config.access.rules.is_empty() => "none, so any user may pass",
            Ok(_) => "a user who may pass",
            Err(_) => "another user",
        };
        let expected =
            "one whose user id, email domain or group is in the rule's `allow`".to_owned();
        self.note(
            [Check(&[Reason::UserNotAllowed], found.to_owned(), expected)],
            admitted,
        );
    }

    fn expiry(&self, part: &Option<Value>) -> Check<'static> {
        let exp = part
            .as_ref()
            .and_then(|part| part.get("exp"))
            .and_then(Value::as_i64);
        let found = exp.map_or_else(|| "nothing".to_owned(), |seconds| ago(seconds, self.now));
        let expected = format!("a time at most {} s ago", self.config.clock_skew.as_secs());
        Check(&[Reason::TokenExpired], found, expected)
    }

    fn user_id_claim(&self, claims: &Claims) -> Check<'static> {
        let rules = &self.config.identity.user_id;
        let found = match rules.claim(claims) {
            Some((name, text)) => format!("`{name}` is {text:?}"),
            None => format!(
                "only {}",
                claims
                    .by_name()
                    .keys()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        let expected = format!("text in {}", rules.claims.join(" or "));
        Check(&[Reason::UserIdMissing], found, expected)
    }

    fn verified_email(&self, claims: &Claims) -> Check<'static> {
        let is_asked_for = self.config.identity.user_id.require_verified_email;
        let found = claims
            .by_name()
            .get("email_verified")
            .map_or_else(|| "nothing".to_owned(), Value::to_string);
        let found = if is_asked_for {
            found
        } else {
            "not asked for".to_owned()
        };
        Check(
            &[Reason::EmailUnverified],
            found,
            "`email_verified` to be true".to_owned(),
        )
    }

    fn user_id(&self, claims: &Claims) -> Check<'static> {
        let rules = &self.config.identity.user_id;
        let claim = rules
            .claim(claims)
            .map(|(_, claim)| claim)
            .unwrap_or_default();
        let by = match rules.transformer(&rules.cased(claim)) {
            Some((position, transformer)) => {
                format!(" by transformers[{position}], `{}`", transformer.matches)
            }
            None if rules.transformers.is_empty() => String::new(),
            None => ", which no transformer matches".to_owned(),
        };
        let found = match rules.made_of(claim) {
            Ok(id) => format!("{claim:?} became {id:?}{by}"),
            Err(_) => format!("what became of {claim:?}{by}"),
        };
        let expected = format!(
            "an id of 1 to {MAX_USER_ID_BYTES} bytes, without `system:` at its start, space at its ends, control or invisible characters"
        );
        Check(&[Reason::UserIdInvalid], found, expected)
    }
}

/// Has the ring take the key server's `answer`, as if a request had waited for it.
fn refused(keys: &mut KeyCache, name: KeyName, answer: FetchResult, reason: Reason) -> Reason {
    let waits = keys.wait(name, 1, || ClientAddress::Unknown, STEADY);
    keys.tick(STEADY);
    keys.answered(name, answer, STEADY);
    waits.err().unwrap_or(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::{AlbKey, AlbToken};
    use alb_oidc_filter::HeaderEdit;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE;
    use serde_json::{Map, json};

    const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
    const NOW: u64 = 1_000_000;

    fn config() -> Config {
        let config = json!({
            "loadBalancers": [{"arn": ARN, "issuer": "issuer", "clientId": "client"}],
            "userId": {"requireVerifiedEmail": true, "transformers": [{"matches": "^nobody$", "replaces": ""}]},
            "rules": [
                {"match": {"paths": [{"exact": "/healthz"}]}, "require": "none"},
                {"match": {"paths": [{"prefix": "/admin"}]}, "allow": {"users": ["root"]}},
            ],
        });
        Config::from_value(&config).unwrap()
    }

    fn token() -> AlbToken {
        AlbToken {
            kid: "31d3e334-9a02-440a-867b-356248ecfb7d".to_owned(),
            signer: ARN.to_owned(),
            issuer: "issuer".to_owned(),
            client: "client".to_owned(),
            expires: NOW + 100,
            claims: Map::from_iter([
                ("email".to_owned(), json!("ann")),
                ("email_verified".to_owned(), json!(true)),
            ]),
            padded: true,
        }
    }

    fn with(name: &str, value: Value) -> AlbToken {
        let mut token = token();
        token.claims.insert(name.to_owned(), value);
        token
    }

    fn public(key: &AlbKey) -> KnownKey {
        KnownKey::Key(P256Key::from_pem(key.public_pem().unwrap().as_bytes()).unwrap())
    }

    fn judged(text: &str, known: &dyn Fn() -> KnownKey, path: &str) -> Verdict {
        let request = Request {
            path,
            host: "a.example",
            method: "GET",
        };
        let now = Timestamp::from_seconds(NOW);
        let tokens = Tokens {
            text,
            decoded: &Unverified::decode(text),
            access: "",
            key_set: None,
        };
        judge(&config(), &tokens, Some(&request), &|_| Ok(known()), now).unwrap()
    }

    /// The check that failed, of a trail whose checks stand in order: passed, at most one failed,
    /// not reached.
    fn failed(verdict: &Verdict) -> Option<&'static str> {
        assert_eq!(
            verdict
                .steps
                .iter()
                .map(|step| step.check)
                .collect::<Vec<_>>(),
            CHECKS
        );
        let mut rest = verdict
            .steps
            .iter()
            .skip_while(|step| step.outcome == Outcome::Passed)
            .peekable();
        let failed = rest
            .next_if(|step| step.outcome == Outcome::Failed)
            .map(|step| step.check);
        assert!(
            rest.all(|step| step.outcome == Outcome::NotReached),
            "{:?}",
            verdict.steps
        );
        failed
    }

    #[test]
    fn the_gate_refuses_every_token_for_the_check_that_failed() {
        let key = AlbKey::generate();
        let mint = |token: AlbToken| token.mint(&key).unwrap();
        let header = |text: &str| format!("{}.e30=.{}==", URL_SAFE.encode(text), "A".repeat(86));
        for (text, check, reason) in [
            (String::new(), "form", Reason::TokenMissing),
            ("x".repeat(20_000), "form", Reason::TokenTooLarge),
            ("a.b".to_owned(), "form", Reason::TokenMalformed),
            (
                header(r#"{"alg":"ES256","kid":"31d3e334-9a02-440a-867b-356248ecfb7d"}"#),
                "form",
                Reason::TokenMalformed,
            ),
            (
                header(r#"{"alg":"RS256"}"#),
                "algorithm",
                Reason::AlgorithmNotEs256,
            ),
            (
                mint(AlbToken {
                    kid: "x".to_owned(),
                    ..token()
                }),
                "key id",
                Reason::KeyIdInvalid,
            ),
            (
                mint(AlbToken {
                    signer: "x".to_owned(),
                    ..token()
                }),
                "signer",
                Reason::SignerUnknown,
            ),
            (
                mint(AlbToken {
                    issuer: "x".to_owned(),
                    ..token()
                }),
                "issuer",
                Reason::IssuerMismatch,
            ),
            (
                mint(AlbToken {
                    client: "x".to_owned(),
                    ..token()
                }),
                "client",
                Reason::ClientMismatch,
            ),
            (
                mint(AlbToken {
                    expires: NOW - 31,
                    ..token()
                }),
                "expiry",
                Reason::TokenExpired,
            ),
            (
                token().mint(&AlbKey::generate()).unwrap(),
                "signature",
                Reason::SignatureInvalid,
            ),
            (
                mint(with("exp", json!("x"))),
                "claims",
                Reason::TokenMalformed,
            ),
            (
                mint(with("exp", json!(NOW - 31))),
                "claims' expiry",
                Reason::TokenExpired,
            ),
            (
                mint(with("iss", json!("x"))),
                "claims' issuer",
                Reason::IssuerMismatch,
            ),
            (
                mint(with("email", json!(7))),
                "user id",
                Reason::UserIdMissing,
            ),
            (
                mint(with("email_verified", json!("no"))),
                "verified email",
                Reason::EmailUnverified,
            ),
            (
                mint(with("email", json!("nobody"))),
                "user id's form",
                Reason::UserIdInvalid,
            ),
            (
                mint(with("email", json!("system:masters"))),
                "user id's form",
                Reason::UserIdInvalid,
            ),
            (mint(token()), "rules", Reason::UserNotAllowed),
        ] {
            let verdict = judged(&text, &|| public(&key), "/admin");
            assert_eq!(
                (failed(&verdict), verdict.decision),
                (Some(check), Decision::Deny(reason)),
                "{text}"
            );
        }
        let absent: fn() -> KnownKey = || KnownKey::Absent;
        for (known, reason) in [
            (absent, Reason::KeyNotFound),
            (|| KnownKey::Invalid, Reason::KeyInvalid),
        ] {
            let verdict = judged(&mint(token()), &known, "/admin");
            assert_eq!(
                (failed(&verdict), verdict.decision),
                (Some("key"), Decision::Deny(reason))
            );
        }
    }

    #[test]
    fn the_gate_admits_where_every_check_passed_and_waits_where_the_key_is_missing() {
        let key = AlbKey::generate();
        let text = token().mint(&key).unwrap();
        let verdict = judged(&text, &|| public(&key), "/");
        assert!(
            verdict
                .steps
                .iter()
                .all(|step| step.outcome == Outcome::Passed),
            "{:?}",
            verdict.steps
        );
        assert!(
            matches!(verdict.decision, Decision::Admit(_)),
            "{:?}",
            verdict.decision
        );
        let verdict = judged(&text, &|| KnownKey::NotGiven, "/");
        assert!(failed(&verdict).is_none() && matches!(verdict.decision, Decision::NeedKey(_)));
        let verdict = judged("", &|| public(&key), "/healthz");
        assert!(failed(&verdict).is_none() && matches!(verdict.decision, Decision::Skip(_)));
    }

    #[test]
    fn who_signs_out_has_no_token_checked() {
        let mut config = json!({"loadBalancers": [{"arn": ARN, "issuer": null, "clientId": null}]});
        config["logout"] = json!({"path": "/logout", "redirectTo": "https://idp.example/"});
        let tokens = Tokens {
            text: "x",
            decoded: &Unverified::decode("x"),
            access: "",
            key_set: None,
        };
        let request = Request {
            path: "/logout",
            host: "a.example",
            method: "GET",
        };
        let now = Timestamp::from_seconds(NOW);
        let find = |_| Ok(KnownKey::NotGiven);
        let verdict = judge(
            &Config::from_value(&config).unwrap(),
            &tokens,
            Some(&request),
            &find,
            now,
        )
        .unwrap();
        assert!(
            verdict
                .steps
                .iter()
                .all(|step| step.outcome == Outcome::NotReached),
            "{:?}",
            verdict.steps
        );
        assert!(matches!(verdict.decision, Decision::SignOut(_)));
    }

    #[test]
    fn an_access_token_is_checked_where_the_config_reads_it_as_the_gate_checks_it() {
        use aws_lc_rs::rsa::KeySize;
        use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;

        let config = Config::from_value(&json!({
            "loadBalancers": [{"arn": ARN, "issuer": "issuer", "clientId": "client"}],
            "accessToken": {"issuer": "https://idp.example"},
            "groups": {"claims": ["access:groups"]},
        }))
        .unwrap();
        let (alb, idp) = (
            AlbKey::generate(),
            RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        );
        let modulus =
            URL_SAFE_NO_PAD.encode(idp.public_key().modulus().big_endian_without_leading_zero());
        let set = |kid: &str| {
            json!({"keys": [{"kty": "RSA", "kid": kid, "n": modulus, "e": "AQAB"}]}).to_string()
        };
        let access = |subject: &str| {
            let encode = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
            let header = encode(json!({"alg": "RS256", "kid": "k"}));
            let claims = json!({"iss": "https://idp.example", "sub": subject, "exp": NOW + 100, "groups": ["ml"]});
            let text = format!("{header}.{}", encode(claims));
            let mut signature = vec![0; idp.public_modulus_len()];
            idp.sign(
                &RSA_PKCS1_SHA256,
                &aws_lc_rs::rand::SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .unwrap();
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        let text = with("sub", json!("ann")).mint(&alb).unwrap();
        let judged = |access: &str, key_set: Option<&str>| {
            let tokens = Tokens {
                text: &text,
                decoded: &Unverified::decode(&text),
                access,
                key_set,
            };
            judge(
                &config,
                &tokens,
                None,
                &|_| Ok(public(&alb)),
                Timestamp::from_seconds(NOW),
            )
            .unwrap()
        };

        let verdict = judged(&access("ann"), Some(&set("k")));
        assert_eq!(failed(&verdict), None);
        let groups = HeaderEdit::Set("kubeflow-groups".to_owned(), b"ml".to_vec());
        assert!(
            matches!(&verdict.decision, Decision::Admit(edits) if edits.contains(&groups)),
            "{:?}",
            verdict.decision
        );
        for (token, key_set, reason) in [
            (String::new(), set("k"), Reason::AccessTokenInvalid),
            (access("eve"), set("k"), Reason::AccessTokenInvalid),
            (access("ann"), set("other"), Reason::KeyNotFound),
            (access("ann"), "{}".to_owned(), Reason::KeyInvalid),
        ] {
            let verdict = judged(&token, Some(&key_set));
            assert_eq!(
                (failed(&verdict), verdict.decision),
                (Some("access token"), Decision::Deny(reason)),
                "{token}"
            );
        }
        let verdict = judged(&access("ann"), None);
        assert!(failed(&verdict).is_none() && matches!(verdict.decision, Decision::NeedKey(_)));
    }
}
