//! What a refused client reads: a page for a browser, JSON for everything else. Says the reason and no more: no token,
//! no claim, nothing that the client sent but its sanitised request id.

use crate::gate::RequestHead;
use crate::reason::Reason;

/// An answer in place of upstream's.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Reply {
    /// The answer to the request `head`, denied for `reason`.
    pub(super) fn denial(head: &RequestHead<'_>, reason: Reason) -> Self {
        let wants_page = head.values("accept").any(|accept| accept.windows(9).any(|part| part == b"text/html"));
        let (content_type, body) = if wants_page {
            ("text/html; charset=utf-8", page(reason, request_id(head)))
        } else {
            let json = serde_json::json!({"error": reason.message(), "reason": reason.name()});
            ("application/json", serde_json::to_string(&json).unwrap_or_default())
        };
        let mut headers = vec![
            ("content-type", content_type.to_owned()),
            ("cache-control", "no-store".to_owned()),
            ("x-content-type-options", "nosniff".to_owned()),
        ];
        match reason.status() {
            // RFC 9110, section 15.5.2 asks for a challenge; no registered scheme is the ALB's.
            401 => headers.push(("www-authenticate", format!("AlbOidc reason=\"{reason}\""))),
            503 => headers.push(("retry-after", "1".to_owned())),
            _ => {}
        }
        if wants_page {
            headers.push(("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'".to_owned()));
        }
        Self { status: reason.status(), headers, body }
    }
}

/// The request id, for the log and the page: a client may have chosen it, so nothing but a plain word passes.
pub(super) fn request_id<'a>(head: &RequestHead<'a>) -> &'a str {
    let is_plain = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    head.first("x-request-id").and_then(|id| std::str::from_utf8(id).ok()).filter(is_plain).unwrap_or("-")
}

fn page(reason: Reason, request_id: &str) -> String {
    let title = match reason.status() {
        401 => "Please sign in",
        403 => "You may not enter",
        _ => "Please try again",
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}}\
         code{{background:#8882;padding:.1em .3em}}</style></head><body><h1>{title}</h1><p>The gateway refused this request: {message}.</p>\
         <p><a href=\"/\">Try again</a></p><p>Reason: <code>{reason}</code><br>Request id: <code>{request_id}</code></p></body></html>\n",
        message = reason.message(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(headers: &[(&'static str, &'static str)]) -> Reply {
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        Reply::denial(&RequestHead::new(headers), Reason::TokenExpired)
    }

    #[test]
    fn a_script_gets_json_and_a_browser_a_page() {
        let json = denial(&[("accept", "*/*")]);
        assert_eq!(json.body, r#"{"error":"the sign-in token has expired","reason":"token-expired"}"#);
        let page = denial(&[("accept", "text/html,application/xhtml+xml"), ("x-request-id", "abc-1")]);
        assert!(page.body.contains("<code>token-expired</code>") && page.body.contains("<code>abc-1</code>"));
    }

    #[test]
    fn a_request_id_that_is_no_plain_word_is_not_repeated() {
        for id in ["<script>", "a b", "a\nb", ""] {
            let page = denial(&[("accept", "text/html"), ("x-request-id", id)]);
            assert!(page.body.contains("Request id: <code>-</code>"), "{id}");
        }
    }
}
