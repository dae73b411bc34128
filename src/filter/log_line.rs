//! The text of log lines about denials and failed fetches. Of a token, a line shows at most one
//! parameter of the JOSE header. Of a key, it shows only the id.

use super::metrics::FetchOutcome;
use crate::gate::Detail;
use crate::keys::source::KeyId;
use crate::reason::Reason;
use crate::token::alb::HeaderParameter;

/// The most bytes of a header parameter that are shown, once escaped.
const MAX_SHOWN_BYTES: usize = 256;

/// Why a request is denied. Fields are separated by spaces, and none has a space in it.
pub(super) fn denial(
    what: &str,
    reason: Reason,
    request_id: &str,
    detail: Option<&Detail>,
) -> String {
    let mut line = format!("alb-oidc: {what} reason={reason} request-id={request_id}");
    match detail {
        Some(Detail::AccessToken(fault)) => line.push_str(&format!(" check={fault}")),
        Some(Detail::Header(HeaderParameter { name, value })) => {
            let value = value.as_deref().map_or_else(|| "none".to_owned(), shown);
            line.push_str(&format!(" {name}={value}"));
        }
        // The access log may name users; this log does not.
        Some(Detail::User(_)) | None => {}
    }
    line
}

/// `value` in quotes, with everything but visible ASCII escaped. `...` marks a cut value.
fn shown(value: &str) -> String {
    let mut text = String::with_capacity(MAX_SHOWN_BYTES.min(value.len()));
    for c in value.chars() {
        let size = match c {
            '"' | '\\' => 2,
            c if c.is_ascii_graphic() => 1,
            c => c.escape_unicode().len(),
        };
        if text.len().saturating_add(size) > MAX_SHOWN_BYTES {
            return format!("\"{text}\"...");
        }
        match size {
            1 => text.push(c),
            2 => text.extend(['\\', c]),
            _ => text.extend(c.escape_unicode()),
        }
    }
    format!("\"{text}\"")
}

/// A fetch that returned no key. `url` has no scheme.
pub(super) fn failed_fetch(
    outcome: FetchOutcome,
    status: Option<u16>,
    timed_out: bool,
    url: &str,
    key: KeyId,
) -> String {
    let status = match status {
        _ if timed_out => "timeout".to_owned(),
        Some(status) => format!("{status}"),
        None => "none".to_owned(),
    };
    format!(
        "alb-oidc: key fetch {} status={status} url={url} kid={key}",
        outcome.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_value_in_one_word_of_visible_ascii() {
        for (value, expected) in [
            ("arn:aws:x/y", r#""arn:aws:x/y""#),
            ("", r#""""#),
            ("it's", r#""it's""#),
            ("a b", r#""a\u{20}b""#),
            ("\r\n\u{1b}[31m", r#""\u{d}\u{a}\u{1b}[31m""#),
            (r#"" reason="x\"#, r#""\"\u{20}reason=\"x\\""#),
            ("é\u{202e}", r#""\u{e9}\u{202e}""#),
        ] {
            assert_eq!(shown(value), expected, "{value:?}");
        }
    }

    #[test]
    fn cuts_a_long_value_at_256_bytes() {
        let long = "a".repeat(256);
        assert_eq!(shown(&long), format!("\"{long}\""));
        assert_eq!(shown(&format!("{long}b")), format!("\"{long}\"..."));
        let escapes = shown(&"\n".repeat(100));
        assert_eq!(escapes.len(), "\"\"...".len() + 255);
        assert!(escapes.ends_with("\\u{a}\"..."), "{escapes}");
    }
}
