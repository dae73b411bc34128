//! Tells an observer of the gate the outcome of each step towards an identity. Decides nothing:
//! no method returns a value.

use crate::crypto::PublicKey;
use crate::identity::Identity;
use crate::keys::source::KeyName;
use crate::reason::Reason;
use crate::token::access_token::UntrustedAccessToken;
use crate::token::alb::{ScreenError, ScreenedToken, UntrustedToken};
use crate::token::claims::Claims;
use crate::token::jws::TokenError;
use crate::token::verify::VerifiedToken;

/// Why no identity could be established.
#[derive(Debug)]
pub enum Stop {
    /// The key cache lacks this key. Boxed: a key id takes 129 bytes, and few requests need one.
    NeedKey(Box<KeyName>),
    /// A check failed.
    Deny(Reason),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Deny(reason)
    }
}

impl From<TokenError> for Stop {
    fn from(error: TokenError) -> Self {
        Self::Deny(error.reason())
    }
}

/// An observer of [`crate::Gate`]. The gate calls the methods in this order, each after its step,
/// and none after a step that failed. The default methods do nothing and compile to nothing.
pub trait Trace {
    /// The token cache had the token. Only [`Trace::rules`] follows.
    #[inline]
    fn cache_hit(&mut self) {}

    /// The token was parsed.
    #[inline]
    fn parsed(&mut self, _token: &Result<UntrustedToken<'_>, TokenError>) {}

    /// The token was compared with the configured load balancers.
    #[inline]
    fn screened(&mut self, _token: &Result<ScreenedToken<'_>, ScreenError>) {}

    /// The key `name` of the load balancer was looked up.
    #[inline]
    fn key(&mut self, _name: &KeyName, _key: &Result<PublicKey, Stop>) {}

    /// The token's signature was verified.
    #[inline]
    fn verified(&mut self, _token: &Result<VerifiedToken, Reason>) {}

    /// The claims of the verified token were parsed and checked.
    #[inline]
    fn claims(&mut self, _claims: &Result<Claims, TokenError>) {}

    /// The access token was parsed, where the config asks for one.
    #[inline]
    fn access_token_parsed(&mut self, _token: &Result<UntrustedAccessToken<'_>, TokenError>) {}

    /// The key of the access token was looked up.
    #[inline]
    fn access_token_key(&mut self, _key: &Result<PublicKey, Stop>) {}

    /// The access token's signature was verified, and its claims were checked and added.
    #[inline]
    fn access_token_verified(&mut self, _claims: &Result<Claims, TokenError>) {}

    /// The claims were made an identity.
    #[inline]
    fn identity(&mut self, _claims: &Claims, _identity: &Result<Identity, Reason>) {}

    /// The rules admit the user, or do not.
    #[inline]
    fn rules(&mut self, _admit: bool) {}
}
