//! Sign-out at the gateway: which requests ask for it, and which cookies go. Nothing of a request
//! decides where the browser goes next: that is the operator's URL alone.

use crate::cookies;
use crate::headers::RequestHead;

/// `logout`: the path that signs out, and where that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignOut {
    /// The request's path without query, exactly. Letters, digits, `-`, `.`, `_`, `~` and `/`, so
    /// that it may stand in HTML.
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
        path == self.path.as_bytes()
            && [&b"GET"[..], b"HEAD", b"POST"].contains(&method)
            && !is_from_elsewhere(head)
    }
}

/// Whether nobody goes there: another site's image, script, frame or `fetch`, or anybody's prefetch
/// or WebSocket. A browser that does not say so is believed.
fn is_from_elsewhere(head: &RequestHead<'_>) -> bool {
    let says = |name, value: &[u8]| head.first(name) == Some(value);
    let is_there = |name| head.first(name).is_some();
    let goes_there = says("sec-fetch-mode", b"navigate") && says("sec-fetch-dest", b"document");
    let is_prefetch = is_there("sec-purpose") || is_there("purpose");
    // Browsers do not say of a WebSocket whose it is.
    says("sec-fetch-site", b"cross-site") && !goes_there || is_prefetch || is_there("upgrade")
}

/// The session cookies that `head` carries.
pub(crate) fn session_cookies(head: &RequestHead<'_>, stem: &str) -> Vec<String> {
    cookies::session_names(head.values("cookie"), stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_path_and_these_methods_ask_to_sign_out_and_another_site_does_not() {
        let sign_out = SignOut {
            path: "/logout".to_owned(),
            redirect_to: "https://id.example.com/".to_owned(),
        };
        let asks = |method: &str, path: &str, more: &[(&str, &str)]| {
            let headers = [&[(":method", method), (":path", path)], more].concat();
            let headers = headers
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                .collect();
            sign_out.is_asked(&RequestHead::new(headers))
        };
        assert!(
            asks("GET", "/logout", &[])
                && asks("POST", "/logout?x=/", &[])
                && asks("HEAD", "/logout?", &[])
        );
        for path in [
            "",
            "/",
            "/logout/",
            "//logout",
            "/LOGOUT",
            "/%6cogout",
            "/logout;x",
            "/?/logout",
            "/logout#x",
        ] {
            assert!(!asks("GET", path, &[]), "{path}");
        }
        for method in ["", "get", "PUT", "DELETE", "OPTIONS", "CONNECT"] {
            assert!(!asks(method, "/logout", &[]), "{method}");
        }
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(asks("GET", "/logout", &link));
        assert!(!asks("GET", "/logout", &link[..2]) && !asks("GET", "/logout", &link[..1]));
        assert!(!asks(
            "GET",
            "/logout",
            &[&link[..], &[("purpose", "prefetch")]].concat()
        ));
        assert!(!asks("GET", "/logout", &[("upgrade", "websocket")]));
    }
}
