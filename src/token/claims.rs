//! The claims of one user, from one or two verified tokens, and their lookup by path. Only
//! [`super::verify`] makes [`Claims`].

use serde_json::{Map, Value};

use crate::time::Timestamp;

/// How deep claims may nest.
pub(crate) const MAX_CLAIMS_DEPTH: usize = 16;

/// The claims of the load balancer's token and, if the config requires it, of the access token.
pub struct Claims {
    pub(super) by_name: Map<String, Value>,
    pub(super) access: Option<Map<String, Value>>,
    /// `client` of the load balancer's token.
    pub(super) client: Option<String>,
    pub(super) expires: Timestamp,
    /// The position of the load balancer in the config.
    pub(super) load_balancer: usize,
}

impl Claims {
    /// The claims of the load balancer's token, by name.
    pub fn by_name(&self) -> &Map<String, Value> {
        &self.by_name
    }

    /// The claims of the access token, by name; `None` if the config requires none.
    pub fn of_access_token(&self) -> Option<&Map<String, Value>> {
        self.access.as_ref()
    }

    /// The position of the load balancer that signed the token, in the config.
    pub fn load_balancer(&self) -> usize {
        self.load_balancer
    }

    /// The earliest `exp` of JOSE header, payload and access token, without clock skew.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }
}

/// The prefix of the name of an access token's claim.
pub(crate) const ACCESS_TOKEN_CLAIM: &str = "access:";

/// The claims of one user, by the token that has them.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) token: &'a Map<String, Value>,
    pub(crate) access: Option<&'a Map<String, Value>>,
}

impl<'a> Sources<'a> {
    pub(crate) fn of(claims: &'a Claims) -> Self {
        Self {
            token: claims.by_name(),
            access: claims.of_access_token(),
        }
    }

    /// The claim at `path`, of the access token if `path` begins with [`ACCESS_TOKEN_CLAIM`].
    pub(crate) fn find(&self, path: &str) -> Option<&'a Value> {
        match path.strip_prefix(ACCESS_TOKEN_CLAIM) {
            Some(path) => lookup(self.access?, path),
            None => lookup(self.token, path),
        }
    }
}

/// The claim at `path`. Dots descend into objects; a claim whose own name has the dots wins.
fn lookup<'v>(claims: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    if let Some(claim) = claims.get(path) {
        return Some(claim);
    }
    path.rmatch_indices('.').find_map(|(dot, _)| {
        let (name, rest) = path.split_at_checked(dot)?;
        lookup(claims.get(name)?.as_object()?, rest.strip_prefix('.')?)
    })
}
