//! Verifies the token that an AWS Application Load Balancer signs, and sets the identity headers
//! only if it is valid.
//!
//! The path of a request:
//!
//! 1. [`Gate::strip`] lists the identity headers and all their aliases. They are removed before any
//!    other decision, on every path.
//! 2. [`Gate::decide`] denies protocol upgrades that the config does not list ([`Upgrades`]) and
//!    answers a sign-out ([`SignOut`]). The rules ([`AccessRules`]) decide whether the request
//!    needs a token.
//! 3. [`UntrustedToken`] parses `x-amzn-oidc-data`. [`UntrustedToken::screen`] compares its signer,
//!    issuer, client and expiry with the configured load balancers. A forged token is denied here,
//!    without a fetch.
//! 4. [`KeyCache`] returns the key, or the request waits until the root context has fetched it.
//! 5. **[`Verifier::verify`] in `token/verify.rs` establishes trust**: it is the only function that
//!    makes a [`VerifiedToken`], and only a [`VerifiedToken`] yields [`Claims`]. If the config
//!    requires an access token, [`Verifier::verify_access_token`] verifies it and adds its claims.
//! 6. [`IdentityRules`] map claims to an [`Identity`]: user id and groups. The rules decide whether
//!    that user may pass.
//!
//! The modules form layers, and imports only point downward: `tests/layers.rs` enforces it. Only
//! `filter`, the proxy-wasm side, uses host calls, clocks and random sources, and it decides
//! nothing. Everything else takes time, keys and randomness as arguments.
//!
//! ```
//! # use alb_oidc_filter::*;
//! # use std::time::Duration;
//! // A token is parsed and screened without a key. Only a verified token yields claims.
//! fn user_id(
//!     token: &[u8],
//!     config: &Config,
//!     key: &P256Key,
//!     now: Timestamp,
//! ) -> Result<String, Reason> {
//!     let verifier = Verifier::install(&P256_PROVIDER);
//!     let skew = config.clock_skew;
//!     let token = UntrustedToken::parse(token)?.screen(&config.load_balancers, now, skew)?;
//!     let claims = verifier.verify(&token, key)?.claims(now, skew)?;
//!     Ok(config.users_of(claims.load_balancer()).identity.identity(&claims)?.user_id)
//! }
//!
//! let config = br#"{"loadBalancers": [{
//!     "arn": "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/a/50dc6c495c0c9188",
//!     "issuer": "https://issuer.example",
//!     "clientId": "client"
//! }]}"#;
//! let config = Config::parse(config).map_err(|errors| format!("{errors:?}"))?;
//! let key = P256Key::from_spki(&known_answer::SPKI).ok_or("no key")?;
//! let now = Timestamp::from_seconds(1_700_000_000);
//! assert_eq!(user_id(b"not.a.token", &config, &key, now), Err(Reason::TokenMalformed));
//! # Ok::<(), String>(())
//! ```

// A panic in the filter leaves its waiting requests without an answer, so code that can panic does
// not compile. Tests may panic.
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
pub use config::json_schema::config_schema;
pub use config::reference::{FIELDS, Field};
pub use config::{Config, ConfigError, Forward, MAX_CONFIG_BYTES, Pages, UserRules};
pub use cookies::SessionCookies;
pub use crypto::PublicKey;
pub use crypto::es256::{P256, P256_PROVIDER, P256Key, SPKI_LENGTH, known_answer};
pub use crypto::provider::{VerifySignature, provider};
pub use crypto::rs256::RsaKey;
pub use filter::{Backend, FetchOutcome, METRIC_PREFIX, host_verdict};
pub use gate::{Decision, Detail, Gate, Work};
pub use headers::{ACCESS_TOKEN, HeaderEdit, OIDC_DATA, OIDC_IDENTITY, RequestHead};
pub use identity::{
    ClaimHeader, Decode, Dropped, GroupClaimRules, GroupRules, Identity, IdentityRules,
    MAX_CLAIM_HEADER_BYTES, MAX_GROUP_BYTES, MAX_GROUPS, MAX_MEMBER_HEADERS, MAX_USER_ID_BYTES,
    MAX_USER_ID_CLAIM_BYTES, Members, Transformer, UserIdRules,
};
pub use keys::cache::{Actions, KeyCache, Lookup, Woken};
pub use keys::client_address::ClientAddress;
pub use keys::jwks::{MAX_SET_BYTES, find_in_key_set};
pub use keys::source::{FetchResult, KeyFormat, KeyId, KeyName, KeySource, KeySourceId};
pub use keys::waiters::Waiter;
pub use reason::Reason;
pub use sign_out::SignOut;
pub use time::{Clocks, Now, Timestamp};
pub use token::access_token::{AccessTokenRules, UntrustedAccessToken};
pub use token::alb::{HeaderParameter, LoadBalancer, ScreenError, ScreenedToken, UntrustedToken};
pub use token::claims::Claims;
pub use token::jws::{
    AccessTokenFault, MAX_TOKEN_BYTES, Malformed, TokenError, claims_fault, decode_base64,
    header_fault,
};
pub use token::verify::{VerifiedToken, Verifier};
pub use trace::{Stop, Trace};
pub use upgrades::Upgrades;
