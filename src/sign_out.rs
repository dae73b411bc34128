//! Sign-out at the gateway: detects requests to sign out, and expires the session cookies. The
//! redirect target is never taken from the request.

use crate::headers::RequestHead;

/// `logout`: the path that signs out, and the redirect target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignOut {
    /// The exact path without query. Only letters, digits, `-`, `.`, `_`, `~` and `/`, so it is
    /// safe in HTML.
    pub path: String,
    /// The redirect target: an absolute URL in visible ASCII.
    pub redirect_to: String,
}

impl SignOut {
    /// Whether `head` is a request to sign out.
    pub(crate) fn is_asked(&self, head: &RequestHead<'_>) -> bool {
        let path = head.first(":path").unwrap_or_default();
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let method = head.first(":method").unwrap_or_default();
        path == self.path.as_bytes()
            && [&b"GET"[..], b"HEAD", b"POST"].contains(&method)
            && !is_from_elsewhere(head)
    }
}

/// Whether another site's page or the browser itself sent the request: a cross-site image, script,
/// frame or `fetch`, a prefetch, or a WebSocket. Browsers without `sec-fetch-*` headers count as
/// the user.
fn is_from_elsewhere(head: &RequestHead<'_>) -> bool {
    let says = |name, value: &[u8]| head.first(name) == Some(value);
    let is_there = |name| head.first(name).is_some();
    let goes_there = says("sec-fetch-mode", b"navigate") && says("sec-fetch-dest", b"document");
    let is_prefetch = is_there("sec-purpose") || is_there("purpose");
    // Browsers send no `sec-fetch-site` for a WebSocket.
    says("sec-fetch-site", b"cross-site") && !goes_there || is_prefetch || is_there("upgrade")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_out_by_path_method_and_site() {
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
