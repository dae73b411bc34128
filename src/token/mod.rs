//! The ALB's token and the identity provider's access token, from text to verified claims.
//! [`verify`] establishes trust.

pub(crate) mod access_token;
pub(crate) mod alb;
pub(crate) mod claims;
pub(crate) mod jws;
pub(crate) mod verify;
