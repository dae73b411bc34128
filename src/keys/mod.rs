//! Public keys: sources, cache and rate limits. No I/O: the caller fetches, and passes results and
//! the time as arguments.

pub(crate) mod cache;
pub(crate) mod client_address;
pub(crate) mod jwks;
mod queue;
mod random;
mod rate_limit;
pub(crate) mod shared;
pub(crate) mod source;
pub(crate) mod waiters;
