//! Request head in, decision out. [`Gate::decide`] defines the order of the checks. No host calls:
//! the caller removes and sets headers, fetches keys, and replies.

use std::rc::Rc;
use std::time::Duration;

use crate::config::{Config, Forward};
use crate::cookies::SessionCookies;
use crate::crypto::PublicKey;
use crate::headers::{
    ACCESS_TOKEN, ALB_HEADERS, HeaderEdit, KUBEFLOW_HEADERS, OIDC_DATA, OIDC_IDENTITY,
    PATH_OVERRIDES, RequestHead, same_but_for_signs,
};
use crate::identity::Identity;
use crate::keys::cache::{KeyCache, Lookup};
use crate::keys::source::KeyName;
use crate::reason::Reason;
use crate::time::Clocks;
use crate::token::access_token::UntrustedAccessToken;
use crate::token::alb::{HeaderParameter, UntrustedToken};
use crate::token::claims::Claims;
use crate::token::jws::{AccessTokenFault, TokenError};
use crate::token::verify::{VerifiedToken, Verifier};
use crate::token_cache::TokenCache;
use crate::trace::{Stop, Trace};

/// How long a token stays cached without a new verification. A withdrawn key thus stops working for
/// tokens of any `exp`.
const LONGEST_CACHED: Duration = Duration::from_secs(5 * 60);

/// The outcome for a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Apply these edits and let it pass.
    Admit(Vec<HeaderEdit>),
    /// Apply these edits and let it pass: no token is needed, and no identity is given.
    Skip(Vec<HeaderEdit>),
    /// The decision needs this key.
    NeedKey(KeyName),
    /// Answer it here.
    Deny(Reason),
    /// Answer it here: expire these session cookies and redirect the browser.
    SignOut(Vec<String>),
    /// Report mode: count and log this reason, apply these edits and let it pass, without identity.
    Report(Reason, Vec<HeaderEdit>),
}

/// The work behind a decision, for the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// The token cache had the token.
    pub token_cache_hit: bool,
    /// How many signatures were checked, valid or not.
    pub signatures_checked: usize,
    /// How many group names and claims of a newly verified token could not be put into a header.
    pub dropped: usize,
}

impl Trace for Work {
    fn cache_hit(&mut self) {
        self.token_cache_hit = true;
    }

    fn verified(&mut self, _: &Result<VerifiedToken, Reason>) {
        self.signatures_checked = 1;
    }

    fn access_token_verified(&mut self, _: &Result<Claims, TokenError>) {
        self.signatures_checked = 2;
    }

    fn identity(&mut self, _: &Claims, identity: &Result<Identity, Reason>) {
        if let Ok(identity) = identity {
            self.dropped = identity.dropped;
        }
    }
}

/// Details of a denial, for the log and the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The check of the access token that failed.
    AccessToken(AccessTokenFault),
    /// The parameter of the token's JOSE header that matches no configured load balancer.
    Header(HeaderParameter),
    /// The verified user whom the rules do not allow.
    User(Rc<Identity>),
}

/// Decides on requests by one plugin config.
pub struct Gate {
    config: Config,
    authenticator: Authenticator,
    /// The headers that no client may send, and the ALB's; no name twice.
    reserved: Vec<String>,
    /// One bit for each length of a name in `reserved`. Bit 63 is for all longer names.
    reserved_lengths: u64,
    /// The prefix of the member headers, which no client may send.
    reserved_prefix: Option<String>,
}

impl Gate {
    /// A gate for `config`.
    pub fn new(config: Config, verifier: Verifier) -> Self {
        let has_rules = !config.access.rules.is_empty();
        let overrides = PATH_OVERRIDES
            .iter()
            .copied()
            .filter(|_| has_rules && !config.forward.path_overrides);
        let configured = config
            .reserved_headers
            .iter()
            .map(String::as_str)
            .chain(config.users.identity.header_names());
        let names = KUBEFLOW_HEADERS
            .into_iter()
            .chain(ALB_HEADERS)
            .chain(overrides)
            .chain(configured);
        let mut reserved: Vec<_> = names.map(str::to_owned).collect();
        reserved.sort_unstable();
        reserved.dedup();
        let reserved_lengths = reserved
            .iter()
            .fold(0, |lengths, name| lengths | length_bit(name.as_bytes()));
        let reserved_prefix = config
            .users
            .identity
            .groups
            .as_ref()
            .and_then(|groups| groups.member_header_prefix.clone());
        let reads_access_token = config.reads_access_tokens();
        Self {
            config,
            authenticator: Authenticator {
                verifier,
                reads_access_token,
                token_cache: TokenCache::default(),
                detail: None,
            },
            reserved,
            reserved_lengths,
            reserved_prefix,
        }
    }

    /// The config of this gate.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The headers to remove before any other decision: identity headers, `reservedHeaders` of the
    /// config, path overrides, and every alias of these names. Of the ALB's own headers, only the
    /// aliases are removed.
    pub fn strip(&self, head: &RequestHead<'_>) -> Vec<HeaderEdit> {
        self.removals(head, &ALB_HEADERS)
    }

    /// The trailers to remove: the same names and aliases, and the ALB's own headers.
    pub fn strip_trailers(&self, trailers: &RequestHead<'_>) -> Vec<HeaderEdit> {
        self.removals(trailers, &[])
    }

    /// The removal of each reserved header of `head` but those named in `kept`.
    fn removals(&self, head: &RequestHead<'_>, kept: &[&str]) -> Vec<HeaderEdit> {
        let mut edits = Vec::new();
        let is_kept = |name: &[u8]| kept.iter().any(|kept| name == kept.as_bytes());
        for name in head.names() {
            if is_kept(name) || !self.is_reserved(name) {
                continue;
            }
            let edit = HeaderEdit::Remove(String::from_utf8_lossy(name).into_owned());
            if !edits.contains(&edit) {
                edits.push(edit);
            }
        }
        edits
    }

    fn is_reserved(&self, name: &[u8]) -> bool {
        let is_member = |prefix: &str| {
            name.get(..prefix.len())
                .is_some_and(|start| same_but_for_signs(start, prefix))
        };
        // Most names differ in length from every reserved name. Comparing lengths first saves some
        // thousands of instructions a request.
        let may_be_one = self.reserved_lengths & length_bit(name) != 0;
        let is =
            |reserved: &String| name.len() == reserved.len() && same_but_for_signs(name, reserved);
        (may_be_one && self.reserved.iter().any(is))
            || self.reserved_prefix.as_deref().is_some_and(is_member)
    }

    /// Decides on the request at the time of `clocks`. If a needed clock cannot be read, denies the
    /// request for [`Reason::InternalError`].
    pub fn decide(
        &mut self,
        head: &RequestHead<'_>,
        keys: &mut KeyCache,
        clocks: &impl Clocks,
    ) -> (Decision, Work) {
        let mut work = Work::default();
        let decision = self.decide_traced(head, keys, clocks, &mut work);
        (decision, work)
    }

    /// As [`Gate::decide`], and calls `trace` with the outcome of each step.
    pub fn decide_traced(
        &mut self,
        head: &RequestHead<'_>,
        keys: &mut KeyCache,
        clocks: &impl Clocks,
        trace: &mut impl Trace,
    ) -> Decision {
        self.authenticator.detail = None;
        // In report mode too: after an upgrade, upstream could receive requests that the filter
        // does not see.
        if !self.config.upgrades.admit(head) {
            return Decision::Deny(Reason::UpgradeNotAllowed);
        }
        if self
            .config
            .sign_out
            .as_ref()
            .is_some_and(|sign_out| sign_out.is_asked(head))
        {
            let cookies = &self.config.session_cookies;
            return Decision::SignOut(cookies.names_in(head.values("cookie")));
        }
        let requirement = self.config.access.requirement(head);
        // An empty token is invalid, not absent.
        let is_anonymous = || head.values(OIDC_DATA).next().is_none();
        if requirement.is_open() || (requirement.is_optional() && is_anonymous()) {
            return Decision::Skip(self.admission(head, None));
        }
        let identity = self
            .authenticator
            .identify(&self.config, head, keys, clocks, trace);
        match identity {
            Ok(identity) => {
                let issuer = self.config.issuer_of(&identity);
                let admit = requirement.admits(&identity, issuer);
                trace.rules(admit);
                if admit {
                    Decision::Admit(self.admission(head, Some(&identity)))
                } else {
                    self.authenticator.detail = Some(Detail::User(identity));
                    self.denial(head, Reason::UserNotAllowed)
                }
            }
            Err(Stop::NeedKey(name)) => Decision::NeedKey(*name),
            Err(Stop::Deny(reason)) => self.denial(head, reason),
        }
    }

    /// The details of the denial that [`Gate::decide`] has just returned. A second call returns
    /// `None`.
    pub fn take_detail(&mut self) -> Option<Detail> {
        self.authenticator.detail.take()
    }

    /// The user id that these edits of an admitted request set.
    pub fn user_id<'a>(&self, edits: &'a [HeaderEdit]) -> Option<&'a [u8]> {
        let header = &self.config.users.identity.user_id_header;
        edits.iter().find_map(|edit| match edit {
            HeaderEdit::Set(name, value) if name == header => Some(value.as_slice()),
            _ => None,
        })
    }

    /// The decision for the request `head` that is denied for `reason`.
    pub fn denial(&self, head: &RequestHead<'_>, reason: Reason) -> Decision {
        // After an internal error, the request may still have identity headers of the client.
        if self.config.report_only && reason != Reason::InternalError {
            Decision::Report(reason, self.admission(head, None))
        } else {
            Decision::Deny(reason)
        }
    }

    /// The edits of a request that passes. Without an identity, no token was verified, so the edits
    /// remove all headers of the ALB.
    fn admission(&self, head: &RequestHead<'_>, identity: Option<&Identity>) -> Vec<HeaderEdit> {
        let Forward {
            oidc_data,
            access_token,
            session_cookies,
            path_overrides: _, // Removed by `Gate::strip`.
        } = self.config.forward;
        let subject = identity
            .and_then(|identity| identity.subject.as_deref())
            .map(str::as_bytes);
        let oidc_data = oidc_data && identity.is_some();
        // The plain-text header is not signed: it passes only if it equals the token's `sub`.
        let subject_holds = oidc_data
            && head
                .values(OIDC_IDENTITY)
                .all(|value| Some(value) == subject);
        let access_token = access_token && identity.is_some();
        let hidden = [
            (OIDC_DATA, oidc_data),
            (ACCESS_TOKEN, access_token),
            (OIDC_IDENTITY, subject_holds),
        ];
        let hidden = hidden
            .iter()
            .filter(|(name, shown)| !shown && head.first(name).is_some());
        let mut edits: Vec<_> = hidden
            .map(|(name, _)| HeaderEdit::Remove((*name).to_owned()))
            .collect();
        if !session_cookies {
            edits.extend(without_session_cookies(head, &self.config.session_cookies));
        }
        if let Some(identity) = identity {
            let user_id = (
                &self.config.users.identity.user_id_header,
                &identity.user_id,
            );
            let carried = std::iter::once(user_id)
                .chain(identity.headers.iter().map(|(name, value)| (name, value)));
            edits
                .extend(carried.map(|(name, value)| {
                    HeaderEdit::Set(name.clone(), value.clone().into_bytes())
                }));
        }
        edits
    }
}

/// Establishes the identity of a request from its tokens.
struct Authenticator {
    verifier: Verifier,
    /// Whether the config reads any user's access token.
    reads_access_token: bool,
    token_cache: TokenCache,
    /// Of a denial, until it is taken. Not part of [`Work`], which each request copies.
    detail: Option<Detail>,
}

impl Authenticator {
    /// The identity of the user who sent the request `head`.
    fn identify(
        &mut self,
        config: &Config,
        head: &RequestHead<'_>,
        keys: &mut KeyCache,
        clocks: &impl Clocks,
        trace: &mut impl Trace,
    ) -> Result<Rc<Identity>, Stop> {
        let now = clocks.wall().ok_or(Reason::InternalError)?;
        let text = only(head.values(OIDC_DATA)).ok_or(Reason::TokenDuplicate)?;
        // Without `accessToken` in the config, a client's access token is not part of the token
        // cache's key either.
        let reads_access_token = self.reads_access_token;
        let access_tokens = || head.values(ACCESS_TOKEN).filter(|_| reads_access_token);
        if let Some(identity) = self.token_cache.get(text, access_tokens(), now) {
            trace.cache_hit();
            return Ok(identity);
        }
        self.verify(config, head, text, keys, clocks, trace)
    }

    /// The identity in the token `text`, which the cache does not have, and in the access token.
    // Apart from `identify`, to keep that short.
    #[inline(never)]
    fn verify(
        &mut self,
        config: &Config,
        head: &RequestHead<'_>,
        text: &[u8],
        keys: &mut KeyCache,
        clocks: &impl Clocks,
        trace: &mut impl Trace,
    ) -> Result<Rc<Identity>, Stop> {
        let reads_access_token = self.reads_access_token;
        let access_tokens = || head.values(ACCESS_TOKEN).filter(|_| reads_access_token);
        let detail = &mut self.detail;
        let now = clocks.wall().ok_or(Reason::InternalError)?;
        let skew = config.clock_skew;
        let token = UntrustedToken::parse(text);
        trace.parsed(&token);
        let token = token?.screen(&config.load_balancers, now, skew);
        trace.screened(&token);
        let token = token.map_err(|error| {
            *detail = error.found.map(Detail::Header);
            error.reason
        })?;
        let users = config.users_of(token.load_balancer());
        let name = KeyName {
            source: token.key_source(),
            id: token.key_id(),
        };
        let key = find(keys, name, clocks);
        trace.key(&name, &key);
        let PublicKey::P256(key) = key? else {
            return Err(Reason::KeyInvalid.into());
        };
        // Trust is established here.
        let verified = self.verifier.verify(&token, &key);
        trace.verified(&verified);
        let claims = verified?.claims(now, skew);
        trace.claims(&claims);
        let mut claims = claims?;
        if let Some(rules) = &users.access_token {
            let mut deny = |error: TokenError| {
                if let TokenError::AccessToken(fault) = error {
                    *detail = Some(Detail::AccessToken(fault));
                }
                error.reason()
            };
            let token = only(access_tokens())
                .ok_or(AccessTokenFault::Duplicate.into())
                .and_then(UntrustedAccessToken::parse);
            trace.access_token_parsed(&token);
            let token = token.map_err(&mut deny)?;
            let name = KeyName {
                source: rules.key_source,
                id: token.key_id(),
            };
            let key = find(keys, name, clocks);
            trace.access_token_key(&key);
            let PublicKey::Rsa(key) = key? else {
                return Err(Reason::KeyInvalid.into());
            };
            let both = self
                .verifier
                .verify_access_token(&token, &key, claims, rules, now, skew);
            trace.access_token_verified(&both);
            claims = both.map_err(deny)?;
        }
        let identity = users.identity.identity(&claims);
        trace.identity(&claims, &identity);
        let identity = Rc::new(identity?);
        self.token_cache.put(
            text,
            access_tokens().next(),
            &identity,
            claims.expires().plus(skew).min(now.plus(LONGEST_CACHED)),
        );
        Ok(identity)
    }
}

/// The only value, or an empty one if there is none. `None` if there are several.
fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let value = values.next().unwrap_or_default();
    values.next().is_none().then_some(value)
}

/// The key `name` of the cache.
fn find(keys: &mut KeyCache, name: KeyName, clocks: &impl Clocks) -> Result<PublicKey, Stop> {
    let now = clocks.steady().ok_or(Reason::InternalError)?;
    match keys.find(name, now) {
        Lookup::Ready(key) => Ok(key),
        Lookup::Refused(reason) => Err(Stop::Deny(reason)),
        Lookup::Unknown => Err(Stop::NeedKey(Box::new(name))),
    }
}

fn without_session_cookies(head: &RequestHead<'_>, session: &SessionCookies) -> Option<HeaderEdit> {
    if !head
        .values("cookie")
        .any(|cookie| session.remove_from(cookie).is_some())
    {
        return None;
    }
    // One header replaces several, joined as in RFC 9113, section 8.2.3.
    let kept: Vec<_> = head
        .values("cookie")
        .map(|cookie| {
            session
                .remove_from(cookie)
                .unwrap_or_else(|| cookie.to_vec())
        })
        .filter(|cookie| !cookie.is_empty())
        .collect();
    let name = "cookie".to_owned();
    Some(if kept.is_empty() {
        HeaderEdit::Remove(name)
    } else {
        HeaderEdit::Set(name, kept.join(&b"; "[..]))
    })
}

fn length_bit(name: &[u8]) -> u64 {
    1 << name.len().min(63)
}

#[cfg(test)]
mod tests;
