//! Sign-out at the gateway: which requests ask for it, and which cookies go. Nothing of a request decides where the browser
//! goes next: that is the operator's URL alone.

use crate::cookies;
use crate::gate::RequestHead;

/// `logout`: the path that signs out, and where that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignOut {
    /// The request's path without query, exactly. Letters, digits, `-`, `.`, `_`, `~` and `/`, so that it may stand in HTML.
    pub path: String,
    /// An absolute URL, in visible ASCII.
    pub redirect_to: String,
}

impl SignOut {
    /// Whether `head` asks to sign out.
    pub(crate) fn is_asked(&self, head: &RequestHead<'_>) -> bool {
        let path = head.first(":path").unwrap_or_default();
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let method = head.first(":method").unwrap_or_default();
        path == self.path.as_bytes() && [&b"GET"[..], b"HEAD", b"POST"].contains(&method) && !is_from_elsewhere(head)
    }
}

/// Whether another site's page makes the request without the person going there: its image, script, frame or `fetch`. A
/// browser that does not say so is believed.
fn is_from_elsewhere(head: &RequestHead<'_>) -> bool {
    let says = |name, value: &[u8]| head.first(name) == Some(value);
    let goes_there = says("sec-fetch-mode", b"navigate") && says("sec-fetch-dest", b"document");
    says("sec-fetch-site", b"cross-site") && !goes_there
}

/// The session cookies that `head` carries.
pub(crate) fn session_cookies(head: &RequestHead<'_>, stem: &str) -> Vec<String> {
    cookies::session_names(head.values("cookie"), stem)
}
