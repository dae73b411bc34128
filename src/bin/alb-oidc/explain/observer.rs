//! Records the checks of the gate: one step for each check, with the compared values. Decides
//! nothing.

use alb_oidc_filter::{
    AccessTokenFault, Claims, Config, Dropped, GroupRules, Identity, KeyName, LoadBalancer,
    MAX_GROUPS, MAX_USER_ID_BYTES, P256Key, PublicKey, Reason, Requirement, ScreenError,
    ScreenedToken, Stop, Timestamp, TokenError, Trace, UntrustedAccessToken, UntrustedToken,
    UserRules, VerifiedToken, claims_fault, header_fault,
};
use serde_json::Value;

use super::rules::{RulesAt, User};
use super::step::{CHECKS, Outcome, Step};
use super::unverified::{Unverified, ago, form, found_in, malformation, part_fault};

/// The tokens of a request, and the identity provider's keys.
pub(super) struct Tokens<'a> {
    pub(super) text: &'a str,
    pub(super) decoded: &'a Unverified,
    /// The access token of the same request; empty: none.
    pub(super) access: &'a str,
    /// The identity provider's JSON Web Key Set; `None`: not given.
    pub(super) key_set: Option<&'a str>,
}

/// The recorded steps of one decision.
pub(super) struct Observer<'a> {
    steps: Vec<Step>,
    /// The key that the signature was checked with.
    pub(super) key: Option<P256Key>,
    config: &'a Config,
    /// The position of the load balancer in the config, once the token was compared with it.
    load_balancer: usize,
    tokens: &'a Tokens<'a>,
    now: Timestamp,
    rules: RulesAt<'a>,
    requirement: &'a Requirement<'a>,
    /// The user, once there is an identity.
    user: Option<User>,
}

/// A check of one step: the reasons for which it fails, what it found, and what it expected.
struct Check<'r>(&'r [Reason], String, String);

impl<'a> Observer<'a> {
    pub(super) fn new(
        config: &'a Config,
        rules: RulesAt<'a>,
        requirement: &'a Requirement<'a>,
        tokens: &'a Tokens<'a>,
        now: Timestamp,
    ) -> Self {
        Self {
            steps: Vec::new(),
            key: None,
            config,
            load_balancer: 0,
            tokens,
            now,
            rules,
            requirement,
            user: None,
        }
    }

    fn users(&self) -> &'a UserRules {
        self.config.users_of(self.load_balancer)
    }

    /// Every check, those that were not reached included.
    pub(super) fn into_steps(mut self) -> Vec<Step> {
        while self.steps.len() < CHECKS.len() {
            self.push(Outcome::NotReached, "not reached".to_owned());
        }
        self.steps
    }

    /// Notes the checks that one step made in this order until one `failed`.
    fn note<const N: usize>(&mut self, checks: [Check<'_>; N], failed: Option<Reason>) {
        for Check(reasons, found, expected) in checks {
            if failed.is_some_and(|reason| reasons.contains(&reason)) {
                self.push(
                    Outcome::Failed,
                    format!("found {found}, expected {expected}"),
                );
                break;
            }
            self.push(Outcome::Passed, found);
        }
    }

    fn push(&mut self, outcome: Outcome, detail: String) {
        let check = CHECKS.get(self.steps.len()).copied().unwrap_or_default();
        self.steps.push(Step {
            check,
            outcome,
            detail,
        });
    }

    /// The one check of the access token, which fails for any of its reasons.
    fn note_access_token(&mut self, failed: Option<TokenError>) {
        let Some(rules) = &self.users().access_token else {
            return;
        };
        let decoded = Unverified::decode(self.tokens.access);
        let member = |name| format!("{name} {}", found_in(&decoded.claims, name));
        let found = if self.tokens.access.is_empty() {
            "none".to_owned()
        } else {
            let mut names = vec!["iss", "sub", "client_id", "token_use", "exp", "nbf"];
            if rules.subject != "sub" {
                names.push(&rules.subject);
            }
            let claims: Vec<_> = names.into_iter().map(member).collect();
            format!(
                "one with alg {}, {}",
                found_in(&decoded.header, "alg"),
                claims.join(", ")
            )
        };
        let check = match failed {
            Some(TokenError::AccessToken(fault)) => {
                let json = match fault {
                    AccessTokenFault::Form => part_fault(self.tokens.access, 0, header_fault),
                    AccessTokenFault::Claims => part_fault(self.tokens.access, 1, claims_fault),
                    _ => None,
                };
                let json = json.map_or_else(String::new, |json| format!(" ({json})"));
                format!("; failed check: {fault}{json}")
            }
            _ => String::new(),
        };
        let expected = format!(
            "an unexpired one of {}, whose `{}` is the `sub` of the load balancer's, of the same client, signed with RS256 by a key of its key set{check}",
            rules.issuer, rules.subject
        );
        let reasons = [
            Reason::AccessTokenInvalid,
            Reason::KeyNotFound,
            Reason::KeyInvalid,
            Reason::KeyUnavailable,
        ];
        let failed = failed.map(TokenError::reason);
        self.note([Check(&reasons, found, expected)], failed);
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

    fn provider(&self, claims: &Claims) -> Check<'static> {
        let member = |name: &str| {
            let value = claims.by_name().get(name);
            value.map_or_else(
                || format!("no `{name}`"),
                |value| format!("`{name}` {value}"),
            )
        };
        let (found, expected) = match &self.users().identity.user_id.provider {
            None => ("not asked for".to_owned(), String::new()),
            Some(provider) => (
                format!("{} and {}", member("identities"), member("username")),
                format!("only {provider:?} in both"),
            ),
        };
        Check(&[Reason::ProviderMismatch], found, expected)
    }

    /// The groups, and what was dropped and why. Never fails.
    fn groups(&self, claims: &Claims) -> String {
        let Some(rules) = &self.users().identity.groups else {
            return "not asked for".to_owned();
        };
        let seen = rules.explained(claims);
        if seen.is_empty() {
            let absent = rules.claims.join(" and ");
            return format!("none in {absent}");
        }
        let said = seen.into_iter().map(|(name, group)| match group {
            Ok(group) if !GroupRules::is_listed(&group) => {
                format!("{group:?} (not in the joined header: it has a comma)")
            }
            Ok(group) if group == name => format!("{group:?}"),
            Ok(group) => format!("{group:?} (from {name:?})"),
            Err(Dropped::NotKept) => format!("{name:?} dropped: `groups.keep` does not match it"),
            Err(Dropped::Unfit) => {
                format!("{name:?} dropped: too long, not visible, or begins with `system:`")
            }
            Err(Dropped::Unreadable) => {
                format!("{name} dropped: not a form that `groups` reads")
            }
            Err(Dropped::TooMany) => format!("{name:?} dropped: more than {MAX_GROUPS} groups"),
        });
        said.collect::<Vec<_>>().join(", ")
    }

    fn user_id_claim(&self, claims: &Claims) -> Check<'static> {
        let rules = &self.users().identity.user_id;
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
        let is_asked_for = self.users().identity.user_id.require_verified_email;
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

    fn user_id(&self, claims: &Claims, identity: Option<&Identity>) -> Check<'static> {
        let rules = &self.users().identity.user_id;
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
        let found = match identity {
            Some(identity) => format!("{claim:?} became {:?}{by}", identity.user_id),
            None => format!("what became of {claim:?}{by}"),
        };
        let expected = format!(
            "an id of 1 to {MAX_USER_ID_BYTES} bytes, without `system:` at its start, space at its ends, control or invisible characters"
        );
        Check(&[Reason::UserIdInvalid], found, expected)
    }
}

impl Trace for Observer<'_> {
    fn parsed(&mut self, parsed: &Result<UntrustedToken<'_>, TokenError>) {
        let Tokens {
            text,
            decoded: token,
            ..
        } = *self.tokens;
        let of_form = [
            Reason::TokenMissing,
            Reason::TokenTooLarge,
            Reason::TokenMalformed,
        ];
        let failed = parsed.as_ref().err();
        let (found, expected) = match failed {
            Some(error) if of_form.contains(&error.reason()) => {
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
        self.note(checks, failed.map(|error| error.reason()));
    }

    fn screened(&mut self, screened: &Result<ScreenedToken<'_>, ScreenError>) {
        if let Ok(token) = screened {
            self.load_balancer = token.load_balancer();
        }
        let (config, token) = (self.config, self.tokens.decoded);
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
        self.note(checks, screened.as_ref().err().map(|error| error.reason));
    }

    fn key(&mut self, name: &KeyName, key: &Result<PublicKey, Stop>) {
        let id = name.id;
        let (found, failed) = match key {
            Ok(key) => {
                if let PublicKey::P256(key) = key {
                    self.key = Some(key.clone());
                }
                (format!("one P-256 public key for {id}"), None)
            }
            Err(Stop::NeedKey(_)) => {
                return self.push(Outcome::NotReached, "no key was given".to_owned());
            }
            Err(Stop::Deny(Reason::KeyNotFound)) => {
                (format!("no file {id}"), Some(Reason::KeyNotFound))
            }
            Err(Stop::Deny(reason)) => (format!("something else in the file {id}"), Some(*reason)),
        };
        let expected = "one PEM `PUBLIC KEY` of the curve P-256".to_owned();
        let reasons = [
            Reason::KeyNotFound,
            Reason::KeyInvalid,
            Reason::KeyUnavailable,
        ];
        self.note([Check(&reasons, found, expected)], failed);
    }

    fn verified(&mut self, verified: &Result<VerifiedToken, Reason>) {
        let whose = if verified.is_ok() {
            "the key's"
        } else {
            "one that is not the key's"
        };
        let expected = "the key's own, over header and claims, byte for byte".to_owned();
        let check = Check(&[Reason::SignatureInvalid], whose.to_owned(), expected);
        self.note([check], verified.as_ref().err().copied());
    }

    fn claims(&mut self, claims: &Result<Claims, TokenError>) {
        let Tokens {
            text,
            decoded: token,
            ..
        } = *self.tokens;
        let (found, expected) = match claims {
            Err(error @ TokenError::Malformed(_)) => malformation(*error, text, &token.claims),
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
        self.note(checks, claims.as_ref().err().map(|error| error.reason()));
        if claims.is_ok() && self.users().access_token.is_none() {
            self.push(Outcome::Passed, "not asked for".to_owned());
        }
    }

    fn access_token_parsed(&mut self, token: &Result<UntrustedAccessToken<'_>, TokenError>) {
        if let Err(error) = token {
            self.note_access_token(Some(*error));
        }
    }

    fn access_token_key(&mut self, key: &Result<PublicKey, Stop>) {
        match key {
            Ok(_) => {}
            Err(Stop::NeedKey(_)) => {
                self.push(Outcome::NotReached, "no key set was given".to_owned());
            }
            Err(Stop::Deny(reason)) => self.note_access_token(Some((*reason).into())),
        }
    }

    fn access_token_verified(&mut self, claims: &Result<Claims, TokenError>) {
        self.note_access_token(claims.as_ref().err().copied());
    }

    fn identity(&mut self, claims: &Claims, identity: &Result<Identity, Reason>) {
        let checks = [
            self.provider(claims),
            self.user_id_claim(claims),
            self.verified_email(claims),
            self.user_id(claims, identity.as_ref().ok()),
        ];
        self.note(checks, identity.as_ref().err().copied());
        if let Ok(identity) = identity {
            self.user = Some(identity.into());
            self.push(Outcome::Passed, self.groups(claims));
        }
    }

    fn rules(&mut self, admitted: bool) {
        let issuer = self.config.load_balancers.get(self.load_balancer);
        let issuer = issuer.and_then(|known| known.issuer.as_deref());
        // An identity comes before the rules.
        let Some(user) = &self.user else { return };
        let (rules, requirement) = (self.rules, self.requirement);
        if admitted {
            let found = rules.admission(requirement, issuer, user);
            self.push(Outcome::Passed, found);
        } else {
            let expected = rules.expectation(requirement, issuer, user);
            let check = Check(&[Reason::UserNotAllowed], user.to_string(), expected);
            self.note([check], Some(Reason::UserNotAllowed));
        }
    }
}
