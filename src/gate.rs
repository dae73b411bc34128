//! Request head in, decision out. [`Gate::decide`] defines the order of the checks. No host calls:
//! the caller removes and sets headers, fetches keys, and replies.

use std::rc::Rc;

use crate::config::Config;
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

    /// The config that it judges by.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The headers to remove before any other decision: identity headers, the reserved ones of the
    /// config and path overrides, under every alias that an upstream cannot tell from them, and the
    /// aliases of the ALB's own headers.
    pub fn strip(&self, head: &RequestHead<'_>) -> Vec<HeaderEdit> {
        self.removals(head, &ALB_HEADERS)
    }

    /// The trailers to remove: all of those names, the ALB's own included.
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
        // Most names differ in length from all of them. To compare that first saves some thousands
        // of instructions a request.
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
        // In report mode too: behind such an upgrade, requests of which the filter sees nothing
        // could reach upstream.
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
        // An empty token is a bad one, and not an absent one.
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
                    self.refusal(head, Reason::UserNotAllowed)
                }
            }
            Err(Stop::NeedKey(name)) => Decision::NeedKey(*name),
            Err(Stop::Refuse(reason)) => self.refusal(head, reason),
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
    pub fn refusal(&self, head: &RequestHead<'_>, reason: Reason) -> Decision {
        // Where the filter could not do its work, the client's own identity headers may still be
        // there.
        if self.config.report_only && reason != Reason::InternalError {
            Decision::Report(reason, self.admission(head, None))
        } else {
            Decision::Deny(reason)
        }
    }

    /// The edits of a request that passes. Without an identity, no token was verified, so the edits
    /// remove all headers of the ALB.
    fn admission(&self, head: &RequestHead<'_>, identity: Option<&Identity>) -> Vec<HeaderEdit> {
        let forward = self.config.forward;
        let subject = identity
            .and_then(|identity| identity.subject.as_deref())
            .map(str::as_bytes);
        let oidc_data = forward.oidc_data && identity.is_some();
        // The plain-text header is not signed: it passes only if it equals the token's `sub`.
        let subject_holds = oidc_data
            && head
                .values(OIDC_IDENTITY)
                .all(|value| Some(value) == subject);
        let access_token = forward.access_token && identity.is_some();
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
        if !forward.session_cookies {
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
        // Trust is earned here.
        let verified = self.verifier.verify(&token, &key);
        trace.verified(&verified);
        let claims = verified?.claims(now, skew);
        trace.claims(&claims);
        let mut claims = claims?;
        if let Some(rules) = &users.access_token {
            let mut refuse = |error: TokenError| {
                if let TokenError::AccessToken(fault) = error {
                    *detail = Some(Detail::AccessToken(fault));
                }
                error.reason()
            };
            let token = only(access_tokens())
                .ok_or(AccessTokenFault::Duplicate.into())
                .and_then(UntrustedAccessToken::parse);
            trace.access_token_parsed(&token);
            let token = token.map_err(&mut refuse)?;
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
            claims = both.map_err(refuse)?;
        }
        let identity = users.identity.identity(&claims);
        trace.identity(&claims, &identity);
        let identity = Rc::new(identity?);
        self.token_cache.put(
            text,
            access_tokens().next(),
            &identity,
            claims.expires().plus(skew),
        );
        Ok(identity)
    }
}

/// The one value, empty where there is none; `None` where there are several.
fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let value = values.next().unwrap_or_default();
    values.next().is_none().then_some(value)
}

/// The key `name`, if it is there.
fn find(keys: &mut KeyCache, name: KeyName, clocks: &impl Clocks) -> Result<PublicKey, Stop> {
    let now = clocks.steady().ok_or(Reason::InternalError)?;
    match keys.find(name, now) {
        Lookup::Ready(key) => Ok(key),
        Lookup::Refused(reason) => Err(Stop::Refuse(reason)),
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
    // One header takes the place of several, joined as RFC 9113, section 8.2.3 joins them.
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
mod tests {
    use super::*;
    use crate::crypto::es256::{P256_PROVIDER, P256Key};
    use crate::keys::client_address::ClientAddress;
    use crate::keys::source::FetchResult;
    use crate::time::{Now, Timestamp};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE;
    use p256::ecdsa::signature::Signer as _;
    use p256::ecdsa::{Signature, SigningKey};
    use p256::pkcs8::EncodePublicKey as _;
    use serde_json::{Value, json};

    const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";
    const KID: &str = "31d3e334-9a02-440a-867b-356248ecfb7d";
    const EXPIRES: u64 = 2_000_000_000;
    const STEADY: Timestamp = Timestamp::from_millis(1_000_000);

    struct Setting {
        gate: Gate,
        keys: KeyCache,
    }

    fn signing_key() -> SigningKey {
        SigningKey::from_slice(&[7; 32]).unwrap()
    }

    fn setting(change: impl FnOnce(&mut Value)) -> Setting {
        let mut config =
            json!({"loadBalancers": [{"arn": ARN, "issuer": "issuer", "clientId": "client"}]});
        change(&mut config);
        let config = Config::from_value(&config).unwrap();
        let keys = KeyCache::new(
            config.key_ttl,
            config.key_sources.iter().map(|source| source.timeout),
            0,
        );
        Setting {
            gate: Gate::new(config, Verifier::install(&P256_PROVIDER)),
            keys,
        }
    }

    fn with_key(mut setting: Setting) -> Setting {
        let Decision::NeedKey(name) = setting
            .decide(&[(OIDC_DATA, &token(json!({"email": "x"})))], 0)
            .0
        else {
            panic!()
        };
        setting
            .keys
            .wait(name, 1, || ClientAddress::Unknown, STEADY)
            .unwrap();
        setting.keys.tick(STEADY);
        let spki = signing_key().verifying_key().to_public_key_der().unwrap();
        setting.keys.answered(
            name,
            FetchResult::Key(PublicKey::P256(
                P256Key::from_spki(spki.as_bytes()).unwrap(),
            )),
            STEADY,
        );
        setting
    }

    fn now(seconds_before_expiry: u64) -> Timestamp {
        Timestamp::from_seconds(EXPIRES - seconds_before_expiry)
    }

    fn token(claims: Value) -> String {
        let header = json!({"alg": "ES256", "kid": KID, "signer": ARN, "iss": "issuer", "client": "client", "exp": EXPIRES});
        let signing_input = format!(
            "{}.{}",
            URL_SAFE.encode(header.to_string()),
            URL_SAFE.encode(claims.to_string())
        );
        let signature: Signature = signing_key().sign(signing_input.as_bytes());
        format!("{signing_input}.{}", URL_SAFE.encode(signature.to_bytes()))
    }

    fn head<'a>(headers: &[(&'a str, &'a str)]) -> RequestHead<'a> {
        RequestHead::new(
            headers
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                .collect(),
        )
    }

    impl Setting {
        fn decide(
            &mut self,
            headers: &[(&str, &str)],
            seconds_before_expiry: u64,
        ) -> (Decision, Work) {
            self.gate.decide(
                &head(headers),
                &mut self.keys,
                &Now {
                    wall: now(seconds_before_expiry),
                    steady: STEADY,
                },
            )
        }

        fn strip(&self, headers: &[(&str, &str)]) -> Vec<HeaderEdit> {
            self.gate.strip(&head(headers))
        }
    }

    fn remove(name: &str) -> HeaderEdit {
        HeaderEdit::Remove(name.to_owned())
    }

    fn set(name: &str, value: &str) -> HeaderEdit {
        HeaderEdit::Set(name.to_owned(), value.as_bytes().to_vec())
    }

    #[test]
    fn a_verified_token_sets_the_user_id_and_hides_itself() {
        let mut setting = with_key(setting(|_| {}));
        let token = token(json!({"email": "ann@example.com"}));
        let (decision, work) = setting.decide(
            &[
                (OIDC_DATA, &token),
                (ACCESS_TOKEN, "a"),
                (OIDC_IDENTITY, "s"),
            ],
            10,
        );
        let edits = vec![
            remove(OIDC_DATA),
            remove(ACCESS_TOKEN),
            remove(OIDC_IDENTITY),
            set("kubeflow-userid", "ann@example.com"),
        ];
        assert_eq!(decision, Decision::Admit(edits));
        assert_eq!(
            work,
            Work {
                token_cache_hit: false,
                signatures_checked: 1,
                dropped: 0
            }
        );
    }

    #[test]
    fn a_remembered_token_is_not_verified_again_and_expires_all_the_same() {
        let mut setting = with_key(setting(|_| {}));
        let token = token(json!({"email": "ann@example.com", "exp": EXPIRES - 5}));
        let headers = [(OIDC_DATA, token.as_str())];
        let first = setting.decide(&headers, 10).0;
        let (second, work) = setting.decide(&headers, 10);
        assert_eq!(first, second);
        assert_eq!(
            work,
            Work {
                token_cache_hit: true,
                signatures_checked: 0,
                dropped: 0
            }
        );
        // The payload's `exp` is the earlier one; the clock skew is 30 s.
        let at = |setting: &mut Setting, millis| {
            setting
                .gate
                .decide(
                    &head(&headers),
                    &mut setting.keys,
                    &Now {
                        wall: Timestamp::from_millis(millis),
                        steady: STEADY,
                    },
                )
                .0
        };
        assert!(matches!(
            at(&mut setting, (EXPIRES + 25) * 1000 - 1),
            Decision::Admit(_)
        ));
        assert_eq!(
            at(&mut setting, (EXPIRES + 25) * 1000),
            Decision::Deny(Reason::TokenExpired)
        );
    }

    #[test]
    fn a_remembered_token_that_is_changed_in_one_byte_is_another() {
        let mut setting = with_key(setting(|_| {}));
        let good = token(json!({"email": "ann@example.com"}));
        assert!(matches!(
            setting.decide(&[(OIDC_DATA, &good)], 10).0,
            Decision::Admit(_)
        ));
        let mut bad = good.into_bytes();
        bad[200] ^= 1;
        let bad = String::from_utf8(bad).unwrap();
        assert!(matches!(
            setting.decide(&[(OIDC_DATA, &bad)], 10).0,
            Decision::Deny(_)
        ));
    }

    #[test]
    fn nothing_is_fetched_for_a_token_that_is_refused_without_a_key() {
        let mut setting = setting(|_| {});
        let good = token(json!({}));
        let forged = good.replacen('.', "x.", 1);
        for (headers, reason) in [
            (vec![], Reason::TokenMissing),
            (vec![(OIDC_DATA, "")], Reason::TokenMissing),
            (
                vec![(OIDC_DATA, good.as_str()), (OIDC_DATA, good.as_str())],
                Reason::TokenDuplicate,
            ),
            (
                vec![(OIDC_DATA, ""), (OIDC_DATA, good.as_str())],
                Reason::TokenDuplicate,
            ),
            (vec![(OIDC_DATA, forged.as_str())], Reason::TokenMalformed),
        ] {
            assert_eq!(setting.decide(&headers, 10).0, Decision::Deny(reason));
        }
    }

    #[test]
    fn identity_headers_of_a_client_are_named_under_every_spelling() {
        let setting = setting(|config| config["userId"] = json!({"header": "x-user_id"}));
        let spoofed = [
            "x-user_id",
            "x-user-id",
            "x_user_id",
            "x_user-id",
            "x.user~id",
            "kubeflow-userid",
            "kubeflow_userid",
            "kubeflow.userid",
            "kubeflow-groups",
            "kubeflow_groups",
            "x_amzn_oidc_data",
            "x-amzn-oidc_identity",
            "x.amzn.oidc.data",
        ];
        let mut headers: Vec<_> = spoofed.iter().map(|name| (*name, "root")).collect();
        headers.extend([
            ("x-user-id", "again"),
            ("x-user-id2", "no"),
            (":path", "no"),
            (OIDC_DATA, "no"),
            ("cookie", "no"),
        ]);
        assert_eq!(setting.strip(&headers), spoofed.map(remove));
    }

    #[test]
    fn strips_reserved_headers_and_their_aliases() {
        let long = format!("x-{}", "a".repeat(62));
        let setting =
            setting(|config| config["reservedHeaders"] = json!(["X-Machine-Client", long]));
        let spoofed = [
            "x-machine-client",
            "x_machine_client",
            "x.machine.client",
            &long,
        ];
        let mut headers: Vec<_> = spoofed.iter().map(|name| (*name, "root")).collect();
        headers.push(("x-machine-clients", "no"));
        assert_eq!(setting.strip(&headers), spoofed.map(remove));
        assert_eq!(
            setting.gate.strip_trailers(&head(&headers)),
            spoofed.map(remove)
        );
    }

    #[test]
    fn strips_path_overrides_where_there_are_rules() {
        let rules = json!([{"match": {"paths": [{"prefix": "/public"}]}, "require": "none"}]);
        let headers = PATH_OVERRIDES.map(|name| (name, "/admin"));
        assert_eq!(setting(|_| {}).strip(&headers), []);
        let with_rules = |config: &mut Value| config["rules"] = rules.clone();
        assert_eq!(
            setting(with_rules).strip(&headers),
            PATH_OVERRIDES.map(remove)
        );
        assert_eq!(
            setting(with_rules)
                .strip(&[("script_name", "/a"), ("x.original_url", "/a")])
                .len(),
            2
        );
        let kept = setting(|config| {
            with_rules(config);
            config["forward"] = json!({"pathOverrides": true});
        });
        assert_eq!(kept.strip(&headers), []);
    }

    #[test]
    fn trailers_carry_none_of_these_names_and_not_the_albs_either() {
        let setting = setting(|_| {});
        let trailers = [
            ("kubeflow_userid", "root"),
            ("kubeflow-userid", "root"),
            (OIDC_DATA, "x"),
            ("grpc-status", "0"),
        ];
        let expected = ["kubeflow_userid", "kubeflow-userid", OIDC_DATA].map(remove);
        assert_eq!(setting.gate.strip_trailers(&head(&trailers)), expected);
    }

    #[test]
    fn what_is_forwarded_stays_and_the_plain_identity_only_where_it_is_the_verified_one() {
        let mut setting =
            with_key(setting(
                |config| {
                    config["forward"] =
                        json!({"oidcData": true, "accessToken": true, "sessionCookies": true})
                },
            ));
        let token = token(json!({"email": "ann", "sub": "1"}));
        let cookie = ("cookie", "AWSELBAuthSessionCookie-0=x");
        let headers = |identity| {
            [
                (OIDC_DATA, token.as_str()),
                (ACCESS_TOKEN, "a"),
                (OIDC_IDENTITY, identity),
                cookie,
            ]
        };
        assert_eq!(
            setting.decide(&headers("1"), 10).0,
            Decision::Admit(vec![set("kubeflow-userid", "ann")])
        );
        assert_eq!(
            setting.decide(&headers("2"), 10).0,
            Decision::Admit(vec![remove(OIDC_IDENTITY), set("kubeflow-userid", "ann")])
        );
    }

    #[test]
    fn in_report_mode_what_would_be_denied_passes_without_identity() {
        let mut setting = setting(|config| {
            config["mode"] = json!("report");
            config["forward"] = json!({"oidcData": true, "accessToken": true});
        });
        let headers = [
            (OIDC_DATA, "forged"),
            (ACCESS_TOKEN, "a"),
            (OIDC_IDENTITY, "root"),
            ("cookie", "b=2"),
        ];
        let edits = [OIDC_DATA, ACCESS_TOKEN, OIDC_IDENTITY]
            .map(remove)
            .to_vec();
        assert_eq!(
            setting.decide(&headers, 10).0,
            Decision::Report(Reason::TokenMalformed, edits)
        );
        let broken = setting.gate.refusal(&head(&headers), Reason::InternalError);
        assert_eq!(broken, Decision::Deny(Reason::InternalError));
    }

    #[test]
    fn session_cookies_go_from_every_cookie_header() {
        let mut setting = with_key(setting(|_| {}));
        let token = token(json!({"email": "ann"}));
        let mut cookies = |cookies: &[&'static str]| {
            let mut headers = vec![(OIDC_DATA, token.as_str())];
            headers.extend(cookies.iter().map(|cookie| ("cookie", *cookie)));
            let Decision::Admit(edits) = setting.decide(&headers, 10).0 else {
                panic!()
            };
            edits.into_iter().find(|edit| {
                *edit == remove("cookie")
                    || matches!(edit, HeaderEdit::Set(name, _) if name == "cookie")
            })
        };
        assert_eq!(cookies(&["a=1", "b=2"]), None);
        assert_eq!(
            cookies(&["AWSELBAuthSessionCookie-0=x"]),
            Some(remove("cookie"))
        );
        assert_eq!(
            cookies(&[
                "a=1; AWSELBAuthSessionCookie-0=x",
                "AWSELBAuthSessionCookie-1=y",
                "b=2"
            ]),
            Some(set("cookie", "a=1; b=2"))
        );
    }
}
