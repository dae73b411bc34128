//! Verifies the token that an AWS Application Load Balancer signs, and only then sets the identity
//! headers.
//!
//! The path of a request:
//!
//! 1. [`Gate::strip`] names the headers that only this filter may set, and every alias of their names. They are removed before any
//!    other decision, on every path.
//! 2. [`Gate::decide`] denies protocol upgrades that the config does not list ([`Upgrades`]), answers a sign-out ([`SignOut`]), and
//!    asks the rules ([`AccessRules`]) whether the request needs a token.
//! 3. [`UntrustedToken`] parses `x-amzn-oidc-data`. [`UntrustedToken::screen`] compares its signer, issuer, client and expiry with the
//!    configured load balancers. A forged token is denied here, without a fetch.
//! 4. [`KeyCache`] has the key, or the request waits until the root context has fetched it.
//! 5. **Trust is earned in [`Verifier::verify`]**, the only function that makes a [`VerifiedToken`]; only that yields [`Claims`].
//!    Where the config asks for an access token, it is verified there too. It only adds claims.
//! 6. [`IdentityRules`] turn claims into a user id and groups. The rules say whether that user may pass.
//!
//! The modules form layers; an import only points downward, and `tests/layers.rs` holds that. Only
//! `filter`, the proxy-wasm side, reaches a host call, a clock or a random source. Time, keys and
//! randomness are arguments of everything else, and `filter` decides nothing.
//!
//! ```
//! # use alb_oidc_filter::*;
//! # use std::time::Duration;
//! // A token is parsed and screened without a key; only a verified one yields claims and an identity.
//! fn user_id(token: &[u8], config: &Config, key: &P256Key, now: Timestamp) -> Result<String, Reason> {
//!     let verifier = Verifier::install(&P256_PROVIDER);
//!     let token = UntrustedToken::parse(token)?.screen(&config.load_balancers, now, config.clock_skew)?;
//!     let claims = verifier.verify(&token, key)?.claims(now, config.clock_skew)?;
//!     Ok(config.identity.identity(&claims)?.user_id)
//! }
//!
//! let config = Config::parse(br#"{"loadBalancers": [{
//!     "arn": "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188",
//!     "issuer": "https://issuer.example", "clientId": "client"}]}"#).map_err(|errors| format!("{errors:?}"))?;
//! let key = P256Key::from_spki(&known_answer::SPKI).ok_or("no key")?;
//! let now = Timestamp::from_seconds(1_700_000_000);
//! assert_eq!(user_id(b"not.a.token", &config, &key, now), Err(Reason::TokenMalformed));
//! # Ok::<(), String>(())
//! ```

// A panic in the filter leaves its waiting requests without an answer: no code that can panic
// compiles. Tests may panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod access;
mod config;
mod cookies;
mod crypto;
mod filter;
mod gate;
mod headers;
mod identity;
mod json;
mod keys;
mod reason;
mod sign_out;
mod time;
mod token;
mod token_cache;
mod trace;
mod upgrades;

pub use access::regex::PathRegex;
pub use access::rules::{
    Access, AccessRules, Allow, MAX_REGEX_SIZE, PathPattern, Requirement, Rule,
};
pub use config::reference::{FIELDS, Field};
pub use config::{Config, ConfigError, Forward, MAX_CONFIG_BYTES};
pub use crypto::PublicKey;
pub use crypto::es256::{P256, P256_PROVIDER, P256Key, SPKI_LENGTH, known_answer};
pub use crypto::provider::{VerifySignature, provider};
pub use crypto::rs256::RsaKey;
pub use filter::{Backend, FetchOutcome, METRIC_PREFIX, host_verdict};
pub use gate::{Decision, Gate, Work};
pub use headers::{ACCESS_TOKEN, HeaderEdit, OIDC_DATA, OIDC_IDENTITY, RequestHead};
pub use identity::{
    ClaimHeader, Dropped, GroupRules, Identity, IdentityRules, MAX_CLAIM_HEADER_BYTES,
    MAX_GROUP_BYTES, MAX_GROUPS, MAX_MEMBER_HEADERS, MAX_USER_ID_BYTES, MAX_USER_ID_CLAIM_BYTES,
    Transformer, UserIdRules,
};
pub use keys::cache::{Actions, KeyCache, Lookup, Woken};
pub use keys::client_address::ClientAddress;
pub use keys::jwks::{MAX_SET_BYTES, find_in_key_set};
pub use keys::source::{FetchResult, KeyFormat, KeyId, KeyName, KeySource, KeySourceId};
pub use keys::waiters::Waiter;
pub use reason::Reason;
pub use sign_out::SignOut;
pub use time::{Now, Timestamp};
pub use token::access::{AccessTokenRules, UntrustedAccessToken};
pub use token::alb::{LoadBalancer, ScreenedToken, UntrustedToken};
pub use token::claims::Claims;
pub use token::jws::{MAX_TOKEN_BYTES, Malformed, TokenError, decode_base64};
pub use token::verify::{VerifiedToken, Verifier};
pub use trace::{Stop, Trace};
pub use upgrades::Upgrades;
