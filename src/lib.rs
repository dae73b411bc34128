//! Verifies the token that an AWS Application Load Balancer signs, and only then names the user.
//!
//! What happens to a request, told once:
//!
//! 1. [`gate::Gate::strip`] names the identity headers that the client has no right to send. They are removed before
//!    anything else, on every path.
//! 2. A request for a protocol upgrade that the config does not allow is denied ([`upgrades`]), also where no token is needed.
//!    Whoever asks to sign out ([`logout`]) is answered here, whoever they are. [`access::AccessRules`] say whether the request needs a token at all. [`gate::Gate::decide`] then reads
//!    `x-amzn-oidc-data`: [`token::UntrustedToken`] takes it apart, and [`token::UntrustedToken::screen`] compares signer,
//!    issuer, client and expiry with the configured load balancers. A forged token ends here, before anything is fetched.
//! 3. [`keys::KeyRing`] has the key, or the request waits while the root context fetches it.
//! 4. **Trust is earned in [`signature::Jose::verify`]**, the only place that makes a [`signature::VerifiedToken`].
//!    Where the config asks for it, [`access_token`] is verified there too, and only adds claims to those of the first.
//! 5. [`identity`] turns its claims into user id and groups, the rules say whether that user may pass, and the gate which
//!    headers upstream sees.
//!
//! Nothing here but `filter` (the proxy-wasm side) may reach a host call, a clock or a random source: the time, the keys,
//! the client's address and a random seed are arguments, so that every rule is tested natively. `filter` in turn decides nothing.

// Tests may panic; the same code is linted without them too.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::string_slice))]

pub mod access;
pub mod access_token;
pub mod config;
pub mod gate;
pub mod identity;
pub mod jwks;
pub mod keys;
pub mod reason;
pub mod signature;
pub mod time;
pub mod token;

mod cookies;
mod der;
pub mod filter;
mod json;
pub mod logout;
mod remembered;
mod shared_keys;
pub mod upgrades;
