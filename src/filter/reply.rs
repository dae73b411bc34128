//! Local replies: a denial (a page for browsers, JSON for other clients) or a sign-out. A denial
//! contains the reason, the sanitized request id and, on the page, the id of a verified user. A
//! sign-out contains the names of the client's session cookies. A reply contains no token, no other
//! claim and no other text from the client.

use crate::config::{Config, Pages};
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

/// A denial, and what its page may say.
#[derive(Clone, Copy)]
pub(super) struct Denial<'a> {
    pub(super) reason: Reason,
    /// The verified user whom the rules do not allow.
    pub(super) user_id: Option<&'a str>,
    /// `None` only where there is no config.
    pub(super) config: Option<&'a Config>,
}

impl Reply {
    /// The answer to the denied request `head`.
    pub(super) fn denial(head: &RequestHead<'_>, denial: Denial<'_>) -> Self {
        let reason = denial.reason;
        let is_navigation = is_navigation(head);
        let (content_type, body) = if is_navigation {
            ("text/html; charset=utf-8", page(denial, request_id(head)))
        } else {
            (
                "application/json",
                format!(
                    r#"{{"error":{},"reason":{},"requestId":{}}}"#,
                    quoted(reason.message()),
                    quoted(reason.name()),
                    quoted(request_id(head))
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

    /// The answer to the sign-out request `head`: expires these session cookies. Redirects a
    /// browser to the identity provider. Gives the URL to a script that posts.
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
        // The ALB's attributes. With SameSite=None, a browser also accepts them in a frame of
        // another site.
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

/// Whether a browser shows the answer to a person. False for calls of scripts, even if they accept
/// HTML, and for gRPC.
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

/// The request id, for the log and the page. A client may have chosen it, so it is `-` unless it is
/// 1 to 64 letters, digits, `-`, `_` and `.`.
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

/// `text` as HTML text or as an attribute's value in double quotes.
fn escaped(text: &str) -> String {
    let mut html = String::new();
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

/// Heading and advice. Nothing in them needs escaping.
fn texts(reason: Reason, can_sign_out: bool) -> (&'static str, &'static str) {
    match (reason.status(), can_sign_out) {
        (401, true) => (
            "Please sign in",
            "Try again. If that does not help, sign out and sign in anew.",
        ),
        (401, false) => (
            "Please sign in",
            "Try again. If that does not help, close the browser and sign in anew.",
        ),
        (403, _) if reason == Reason::UpgradeNotAllowed => (
            "No access",
            "Ask the administrator of the gateway to allow it.",
        ),
        (403, _) if reason == Reason::UserIdMissing => (
            "No access",
            "Usually the load balancer's listener rule lacks a scope, such as email. A session keeps the scope that it began with: after a change, sign out and sign in again.",
        ),
        (403, true) => (
            "No access",
            "Ask for access, or sign out and sign in as somebody else.",
        ),
        (403, false) => ("No access", "Ask for access, or sign in as somebody else."),
        _ => (
            "Please try again",
            "It should pass by itself within a minute.",
        ),
    }
}

/// Reason, texts, [`request_id`] and the sign-out path are plain words. The rest is escaped.
fn page(denial: Denial<'_>, request_id: &str) -> String {
    let reason = denial.reason;
    // A client that is not signed in has nothing to sign out of.
    let sign_out = denial
        .config
        .and_then(|config| config.sign_out.as_ref())
        .filter(|_| reason.is_signed_in());
    let (heading, advice) = texts(reason, sign_out.is_some());
    let leave = sign_out
        .map(|to| format!("<a href=\"{}\" target=\"_top\">Sign out</a>", to.path))
        .unwrap_or_default();
    let user = denial
        .user_id
        .map(|id| format!("<p>You are signed in as <b>{}</b>.</p>", escaped(id)))
        .unwrap_or_default();
    let no_pages = Pages::default();
    let pages = denial.config.map_or(&no_pages, |config| &config.pages);
    let site = pages.title.as_deref().map(escaped);
    let (title, site) = match site {
        Some(site) => (
            format!("{heading} - {site}"),
            format!("<p class=\"s\">{site}</p>"),
        ),
        None => (heading.to_owned(), String::new()),
    };
    let contact = pages
        .contact
        .as_deref()
        .map_or_else(|| "your administrator".to_owned(), link);
    // An empty link targets the page's own address.
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title><style>{STYLE}</style></head><body><main>{site}<h1>{heading}</h1>\
         <p>The gateway in front of this application refused the request: {message}.</p>{user}<p>{advice}</p>\
         <p><a href=\"\">Try again</a>{leave}</p><hr><p class=\"s\">If the problem persists, contact {contact} and include:</p>\
         <dl><dt>Reason</dt><dd>{reason}</dd><dt>Request id</dt><dd>{request_id}</dd></dl></main></body></html>\n",
        message = reason.message(),
    )
}

/// A link to the email address or https URL `contact`.
fn link(contact: &str) -> String {
    let scheme = if contact.starts_with("https://") {
        ""
    } else {
        "mailto:"
    };
    let text = escaped(contact);
    format!("<a href=\"{scheme}{text}\" target=\"_top\">{text}</a>")
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;margin:0;padding:12vh 1.25rem 2rem}\
main{max-width:36rem;margin:auto;overflow-wrap:anywhere}\
h1{font-size:1.75rem;line-height:1.2;margin:0 0 1rem}\
a{display:inline-block;margin:.25rem .75rem .25rem 0;padding:.4rem 1rem;border:1px solid;border-radius:.4rem;color:LinkText;text-decoration:none}\
hr{border:0;border-top:1px solid #8886;margin:2rem 0 1rem}\
.s a{margin:0;padding:0;border:0;text-decoration:underline}\
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
        let denial = Denial {
            reason: Reason::TokenExpired,
            user_id: None,
            config: None,
        };
        Reply::denial(&RequestHead::new(headers), denial)
    }

    fn page_of(reason: Reason, user_id: Option<&str>, pages: serde_json::Value) -> String {
        let arn = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/a/50dc6c495c0c9188";
        let config = Config::from_value(&serde_json::json!({
            "loadBalancers": [{"arn": arn, "issuer": null, "clientId": null}],
            "logout": {"path": "/logout", "redirectTo": "https://id.example.com/"},
            "pages": pages,
        }))
        .unwrap();
        let denial = Denial {
            reason,
            user_id,
            config: Some(&config),
        };
        page(denial, "-")
    }

    #[test]
    fn only_a_signed_in_client_is_offered_to_sign_out() {
        for reason in Reason::ALL {
            let page = page_of(reason, None, serde_json::json!({}));
            let offers = page.to_lowercase().contains("sign out</a>");
            assert_eq!(offers, reason.is_signed_in(), "{reason}");
        }
    }

    #[test]
    fn user_title_and_contact_are_escaped() {
        let pages = serde_json::json!({"title": "R&D <b>\"'", "contact": "https://help.example.com/?a=1&b='2'"});
        let page = page_of(Reason::UserNotAllowed, Some("<i>&\"'@example.com"), pages);
        for text in [
            "as <b>&lt;i&gt;&amp;&quot;&#39;@example.com</b>.",
            "<title>No access - R&amp;D &lt;b&gt;&quot;&#39;</title>",
            "<p class=\"s\">R&amp;D &lt;b&gt;&quot;&#39;</p>",
            "contact <a href=\"https://help.example.com/?a=1&amp;b=&#39;2&#39;\" target=\"_top\">https://help.example.com/?a=1&amp;b=&#39;2&#39;</a> and",
        ] {
            assert!(page.contains(text), "{text} in {page}");
        }
    }

    #[test]
    fn a_script_gets_json_and_a_browser_a_page() {
        let json = denial(&[("accept", "*/*")]);
        assert_eq!(
            json.body,
            r#"{"error":"the sign-in token has expired","reason":"token-expired","requestId":"-"}"#
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
    fn replaces_request_ids_that_are_no_plain_words() {
        for id in ["<script>", "a b", "a\nb", ""] {
            let page = denial(&[("accept", "text/html"), ("x-request-id", id)]);
            assert!(page.body.contains("<dt>Request id</dt><dd>-</dd>"), "{id}");
        }
    }
}
