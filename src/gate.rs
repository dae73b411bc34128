//! Request head in, decision out. The one place that says in which order a request is judged. Touches no host: the
//! caller removes and sets the headers that are named here, fetches keys, and answers.

use std::collections::HashMap;
use std::rc::Rc;

use crate::config::Config;
use crate::cookies;
use crate::keys::{Found, KeyName, KeyRing};
use crate::reason::Reason;
use crate::signature::Jose;
use crate::time::Timestamp;
use crate::token::UntrustedToken;

/// The ALB's token.
pub const OIDC_DATA: &str = "x-amzn-oidc-data";
/// The IdP's own access token, passed on by the ALB.
pub const ACCESS_TOKEN: &str = "x-amzn-oidc-accesstoken";
/// The user's `sub` in plain text, signed by nobody.
pub const OIDC_IDENTITY: &str = "x-amzn-oidc-identity";

/// The groups header that Kubeflow reads. No group is known yet, so whatever a client sends in it is removed.
const GROUPS_HEADER: &str = "kubeflow-groups";

/// How many bytes of verified tokens are remembered, at most.
const MAX_REMEMBERED_BYTES: usize = 8 * 1024 * 1024;

/// The head of a request: its headers in order, names in lower case, duplicates and all.
pub struct RequestHead<'a> {
    headers: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> RequestHead<'a> {
    /// A head of these names and values.
    pub fn new(headers: Vec<(&'a [u8], &'a [u8])>) -> Self {
        Self { headers }
    }

    /// Every value of `name`, which is lower case.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |(found, _)| *found == name.as_bytes())
            .map(|(_, value)| *value)
    }

    /// The first value of `name`, which is lower case.
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }
}

/// A change to the request's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Remove each header of this name.
    Remove(String),
    /// Put this one header in place of all of its name.
    Set(String, Vec<u8>),
}

/// What is to become of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Apply these edits and let it pass.
    Admit(Vec<HeaderEdit>),
    /// Nothing can be said before this key is known.
    NeedKey(KeyName),
    /// Answer it here.
    Deny(Reason),
}

/// What the decision was made of, for the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// The token was remembered.
    pub token_cache_hit: bool,
    /// A signature was verified, whatever came of it.
    pub signature_checked: bool,
}

/// Judges requests by one plugin config.
pub struct Gate {
    config: Config,
    jose: Jose,
    /// The identity headers, which only this filter may set.
    owned: Vec<String>,
    remembered: TokenCache,
}

impl Gate {
    /// A gate for `config`.
    pub fn new(config: Config, jose: Jose) -> Self {
        let owned = vec![config.user_id_header.clone(), GROUPS_HEADER.to_owned()];
        Self {
            config,
            jose,
            owned,
            remembered: TokenCache::default(),
        }
    }

    /// The config that it judges by.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The headers to remove before anything else is decided: identity headers under any spelling that an upstream
    /// might read as one of ours, and the other spellings of the ALB's own headers.
    pub fn strip(&self, head: &RequestHead<'_>) -> Vec<HeaderEdit> {
        let is_ours = |name: &[u8]| {
            self.owned.iter().any(|owned| same_but_for_underscores(name, owned))
                || [OIDC_DATA, ACCESS_TOKEN, OIDC_IDENTITY]
                    .iter()
                    .any(|of_alb| name != of_alb.as_bytes() && same_but_for_underscores(name, of_alb))
        };
        removals(head.headers.iter().map(|(name, _)| *name).filter(|name| is_ours(name)))
    }

    /// Judges the request at the time `now`.
    pub fn decide(&mut self, head: &RequestHead<'_>, keys: &mut KeyRing, now: Timestamp) -> (Decision, Work) {
        let mut work = Work::default();
        let decision = match self.identify(head, keys, now, &mut work) {
            Ok(Ok(identity)) => Decision::Admit(self.admission(head, &identity)),
            Ok(Err(key)) => Decision::NeedKey(key),
            Err(reason) => Decision::Deny(reason),
        };
        (decision, work)
    }

    /// Who sent the request, or the key that it takes to say so.
    fn identify(
        &mut self,
        head: &RequestHead<'_>,
        keys: &mut KeyRing,
        now: Timestamp,
        work: &mut Work,
    ) -> Result<Result<Rc<Identity>, KeyName>, Reason> {
        let mut tokens = head.values(OIDC_DATA);
        let text = tokens.next().unwrap_or_default();
        if tokens.next().is_some() {
            return Err(Reason::TokenDuplicate);
        }
        if let Some(identity) = self.remembered.get(text, now) {
            work.token_cache_hit = true;
            return Ok(Ok(identity));
        }
        let skew = self.config.clock_skew;
        let token = UntrustedToken::parse(text)?.screen(&self.config.load_balancers, now, skew)?;
        let name = KeyName {
            source: token.key_source(),
            id: token.key_id(),
        };
        let key = match keys.find(name, now) {
            Found::Ready(key) => key,
            Found::Refused(reason) => return Err(reason),
            Found::Unknown => return Ok(Err(name)),
        };
        work.signature_checked = true;
        let claims = self.jose.verify(&token, &key)?.claims(now, skew)?;
        let identity = Rc::new(Identity {
            user_id: self.config.user_id.user_id(&claims)?,
            subject: claims
                .by_name()
                .get("sub")
                .and_then(|sub| sub.as_str())
                .map(str::to_owned),
        });
        self.remembered.put(text, &identity, claims.expires().plus(skew));
        Ok(Ok(identity))
    }

    fn admission(&self, head: &RequestHead<'_>, identity: &Identity) -> Vec<HeaderEdit> {
        let forward = self.config.forward;
        let subject = identity.subject.as_deref().map(str::as_bytes);
        // Nobody signed the plain-text header: it passes only where it says what the token says.
        let subject_holds = forward.oidc_data && head.values(OIDC_IDENTITY).all(|value| Some(value) == subject);
        let hidden = [
            (OIDC_DATA, forward.oidc_data),
            (ACCESS_TOKEN, forward.access_token),
            (OIDC_IDENTITY, subject_holds),
        ];
        let hidden = hidden
            .iter()
            .filter(|(name, shown)| !shown && head.first(name).is_some());
        let mut edits: Vec<_> = hidden.map(|(name, _)| HeaderEdit::Remove((*name).to_owned())).collect();
        if !forward.session_cookies {
            edits.extend(without_session_cookies(head));
        }
        edits.push(HeaderEdit::Set(
            self.config.user_id_header.clone(),
            identity.user_id.clone().into_bytes(),
        ));
        edits
    }
}

fn without_session_cookies(head: &RequestHead<'_>) -> Option<HeaderEdit> {
    let stem = cookies::DEFAULT_SESSION_COOKIE;
    if !head
        .values("cookie")
        .any(|cookie| cookies::without_session(cookie, stem).is_some())
    {
        return None;
    }
    // One header takes the place of several, joined as RFC 9113, section 8.2.3 joins them.
    let kept: Vec<_> = head
        .values("cookie")
        .map(|cookie| cookies::without_session(cookie, stem).unwrap_or_else(|| cookie.to_vec()))
        .filter(|cookie| !cookie.is_empty())
        .collect();
    let name = "cookie".to_owned();
    Some(if kept.is_empty() {
        HeaderEdit::Remove(name)
    } else {
        HeaderEdit::Set(name, kept.join(&b"; "[..]))
    })
}

/// CGI and its kin cannot tell `a-b` from `a_b`.
fn same_but_for_underscores(name: &[u8], owned: &str) -> bool {
    let folded = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == owned.len() && name.iter().map(folded).eq(owned.as_bytes().iter().map(folded))
}

fn removals<'a>(names: impl Iterator<Item = &'a [u8]>) -> Vec<HeaderEdit> {
    let mut edits = Vec::new();
    for name in names {
        let edit = HeaderEdit::Remove(String::from_utf8_lossy(name).into_owned());
        if !edits.contains(&edit) {
            edits.push(edit);
        }
    }
    edits
}

/// Who the user is.
struct Identity {
    user_id: String,
    subject: Option<String>,
}

/// Verified tokens and who they name, in two generations: what is not used while one generation fills up is forgotten.
#[derive(Default)]
struct TokenCache {
    young: HashMap<Box<[u8]>, Remembered>,
    old: HashMap<Box<[u8]>, Remembered>,
    young_bytes: usize,
}

struct Remembered {
    identity: Rc<Identity>,
    expires: Timestamp,
}

impl TokenCache {
    /// What an entry costs beyond its token: the map's slot, the identity.
    const OVERHEAD: usize = 256;

    /// Whom exactly this token names, if it has been verified and has not expired since.
    fn get(&mut self, token: &[u8], now: Timestamp) -> Option<Rc<Identity>> {
        if let Some(found) = self.young.get(token) {
            return (now < found.expires).then(|| Rc::clone(&found.identity));
        }
        let (token, found) = self.old.remove_entry(token)?;
        if now >= found.expires {
            return None;
        }
        let identity = Rc::clone(&found.identity);
        self.insert(token, found);
        Some(identity)
    }

    fn put(&mut self, token: &[u8], identity: &Rc<Identity>, expires: Timestamp) {
        self.insert(
            token.into(),
            Remembered {
                identity: Rc::clone(identity),
                expires,
            },
        );
    }

    fn insert(&mut self, token: Box<[u8]>, found: Remembered) {
        self.young_bytes = self
            .young_bytes
            .saturating_add(token.len())
            .saturating_add(Self::OVERHEAD);
        if self.young_bytes > MAX_REMEMBERED_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = token.len().saturating_add(Self::OVERHEAD);
        }
        self.young.insert(token, found);
    }
}
