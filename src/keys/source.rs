//! Which key of which key server. No I/O.

use crate::config::KeySourceId;
use crate::token::KeyId;

/// A key's full name: key ids are unique only within their key server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    /// Which key server.
    pub source: KeySourceId,
    /// Which of its keys.
    pub id: KeyId,
}

impl KeyName {
    /// Whether a request that has waited for `before` may wait for this key too: once for each source, in their order. First
    /// comes the load balancer's key, then the access token's; so no request waits without end.
    pub fn may_be_waited_for_after(self, before: Option<Self>) -> bool {
        before.is_none_or(|before| before.source < self.source)
    }
}
