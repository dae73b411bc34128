//! What a client reads in upstream's place: a refusal (a page for a person at a browser, JSON for
//! everything else), or the way out for who signs out. Says the reason and no more: no token, no
//! claim, nothing that the client sent but its sanitised request id and the names of its session
//! cookies.

use crate::headers::RequestHead;
use crate::reason::Reason;
use crate::sign_out::SignOut;

/// Nothing but the page's own style; no other site may frame it.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// An answer in place of upstream's.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Reply {
    /// The answer to the request `head`, denied for `reason`.
    pub(super) fn denial(
        head: &RequestHead<'_>,
        reason: Reason,
        sign_out: Option<&SignOut>,
    ) -> Self {
        let is_navigation = is_navigation(head);
        let (content_type, body) = if is_navigation {
            (
                "text/html; charset=utf-8",
                page(reason, sign_out, request_id(head)),
            )
        } else {
            (
                "application/json",
                format!(
                    r#"{{"error":{},"reason":{}}}"#,
                    quoted(reason.message()),
                    quoted(reason.name())
                ),
            )
        };
        let mut reply = Self::new(reason.status(), content_type, body);
        match reason.status() {
            // RFC 9110, section 15.5.2 asks for a challenge; no registered scheme is the ALB's.
            401 => reply
                .headers
                .push(("www-authenticate", format!("AlbOidc reason=\"{reason}\""))),
            503 => reply.headers.push(("retry-after", "1".to_owned())),
            _ => {}
        }
        if is_navigation {
            reply
                .headers
                .push(("content-security-policy", PAGE_POLICY.to_owned()));
        }
        reply
    }

    /// The answer to the request `head`, which signs out: these session cookies expire. A browser
    /// goes on to the identity provider; a script that posts is told where that is.
    pub(super) fn signed_out(
        head: &RequestHead<'_>,
        sign_out: &SignOut,
        cookies: &[String],
    ) -> Self {
        let is_post = head.first(":method") == Some(b"POST");
        let mut reply = if is_post && !is_navigation(head) {
            Self::new(
                201,
                "application/json",
                format!(r#"{{"afterLogoutURL":{}}}"#, quoted(&sign_out.redirect_to)),
            )
        } else {
            // 303 makes a GET of the POST.
            let mut redirect =
                Self::new(if is_post { 303 } else { 302 }, "text/plain", String::new());
            redirect
                .headers
                .push(("location", sign_out.redirect_to.clone()));
            redirect
        };
        // As the ALB sets them, and so that a browser takes it from a page inside another site's
        // frame too.
        let expired = "=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=None";
        reply.headers.extend(
            cookies
                .iter()
                .map(|name| ("set-cookie", format!("{name}{expired}"))),
        );
        reply
    }

    fn new(status: u16, content_type: &str, body: String) -> Self {
        let headers = vec![
            ("content-type", content_type.to_owned()),
            ("cache-control", "no-store".to_owned()),
            ("x-content-type-options", "nosniff".to_owned()),
        ];
        Self {
            status,
            headers,
            body,
        }
    }
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Whether a browser shows the answer to a person. A script's call is none, even if it accepts
/// HTML, and neither is gRPC.
fn is_navigation(head: &RequestHead<'_>) -> bool {
    let first = |name| head.first(name).unwrap_or_default();
    let is_script = first("sec-fetch-dest") == b"empty"
        || first("x-requested-with").eq_ignore_ascii_case(b"XMLHttpRequest")
        || first("content-type").starts_with(b"application/grpc");
    let accepts_page = |accept: &[u8]| {
        accept
            .windows(9)
            .any(|part| part.eq_ignore_ascii_case(b"text/html"))
    };
    !is_script && head.values("accept").any(accepts_page)
}

/// The request id, for the log and the page: a client may have chosen it, so nothing but a plain
/// word passes.
pub(super) fn request_id<'a>(head: &RequestHead<'a>) -> &'a str {
    let is_plain = |id: &&str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    head.first("x-request-id")
        .and_then(|id| std::str::from_utf8(id).ok())
        .filter(is_plain)
        .unwrap_or("-")
}

/// Nothing in here needs escaping: reason and texts are constants, [`request_id`] and the sign-out
/// path plain words.
fn page(reason: Reason, sign_out: Option<&SignOut>, request_id: &str) -> String {
    let (title, advice) = match (reason.status(), sign_out) {
        (401, Some(_)) => (
            "Please sign in",
            "Try again. If that does not help, sign out and sign in anew.",
        ),
        (401, None) => (
            "Please sign in",
            "Try again. If that does not help, close the browser and sign in anew.",
        ),
        (403, _) if reason == Reason::UpgradeNotAllowed => (
            "No access",
            "Ask the administrator of the gateway to allow it.",
        ),
        (403, Some(_)) => (
            "No access",
            "You are signed in. Ask for access, or sign out and sign in as somebody else.",
        ),
        (403, None) => (
            "No access",
            "You are signed in. Ask for access, or sign in as somebody else.",
        ),
        _ => (
            "Please try again",
            "It should pass by itself within a minute.",
        ),
    };
    // Who only has to wait keeps their session.
    let way_out = sign_out.filter(|_| reason.status() != 503);
    let leave = way_out
        .map(|to| format!("<a href=\"{}\" target=\"_top\">Sign out</a>", to.path))
        .unwrap_or_default();
    // An empty link leads to the page's own address.
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>\
         <p>The gateway in front of this application refused the request: {message}.</p><p>{advice}</p>\
         <p><a href=\"\">Try again</a>{leave}</p><hr><p class=\"s\">If the problem persists, contact your administrator and include:</p>\
         <dl><dt>Reason</dt><dd>{reason}</dd><dt>Request id</dt><dd>{request_id}</dd></dl></main></body></html>\n",
        message = reason.message(),
    )
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;margin:0;padding:12vh 1.25rem 2rem}\
main{max-width:36rem;margin:auto;overflow-wrap:anywhere}\
h1{font-size:1.75rem;line-height:1.2;margin:0 0 1rem}\
a{display:inline-block;margin:.25rem .75rem .25rem 0;padding:.4rem 1rem;border:1px solid;border-radius:.4rem;color:LinkText;text-decoration:none}\
hr{border:0;border-top:1px solid #8886;margin:2rem 0 1rem}\
.s,dl{font-size:.875rem;margin:.25rem 0}\
dl{display:grid;grid-template-columns:auto 1fr;gap:.25rem 1rem}\
dd{margin:0;font-family:ui-monospace,monospace}";

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(headers: &[(&'static str, &'static str)]) -> Reply {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        Reply::denial(&RequestHead::new(headers), Reason::TokenExpired, None)
    }

    #[test]
    fn a_script_gets_json_and_a_browser_a_page() {
        let json = denial(&[("accept", "*/*")]);
        assert_eq!(
            json.body,
            r#"{"error":"the sign-in token has expired","reason":"token-expired"}"#
        );
        let page = denial(&[
            ("accept", "text/html,application/xhtml+xml"),
            ("x-request-id", "abc-1"),
        ]);
        assert!(
            page.body.contains("<dd>token-expired</dd>") && page.body.contains("<dd>abc-1</dd>")
        );
    }

    #[test]
    fn a_request_id_that_is_no_plain_word_is_not_repeated() {
        for id in ["<script>", "a b", "a\nb", ""] {
            let page = denial(&[("accept", "text/html"), ("x-request-id", id)]);
            assert!(page.body.contains("<dt>Request id</dt><dd>-</dd>"), "{id}");
        }
    }
}
