//! Reads `pages` of the plugin config: the site's title and contact on the page of a denial.

use super::Pages;
use super::endpoint::scheme_and_host;
use super::reader::{Object, quoted};

pub(super) fn read(pages: &Object<'_>) -> Pages {
    let title = pages.optional_string("title").map(|title| {
        if title.trim().is_empty() || title.chars().any(char::is_control) {
            pages.mistake("title", &quoted(title), "text without control characters");
        }
        title.to_owned()
    });
    let contact = pages.optional_string("contact").map(|contact| {
        if !is_email(contact) && !is_https(contact) {
            let expected = "an email address, or an https URL in visible ASCII";
            pages.mistake("contact", &quoted(contact), expected);
        }
        contact.to_owned()
    });
    Pages { title, contact }
}

/// An address that needs no encoding in a `mailto:` URL (RFC 6068) and cannot add a field to it.
fn is_email(text: &str) -> bool {
    let is_plain = |part: &str, signs: &[u8]| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || signs.contains(&byte))
    };
    text.split_once('@').is_some_and(|(local, domain)| {
        is_plain(local, b".-_+") && is_plain(domain, b".-") && !domain.starts_with('.')
    })
}

fn is_https(text: &str) -> bool {
    matches!(scheme_and_host(text), Some(("https", _)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contact_is_an_email_address_or_an_https_url() {
        for (text, expected) in [
            ("ml-platform+help@example.com", true),
            ("https://help.example.com/new?team=ml&kind=access#top", true),
            ("https://help.example.com:8443", true),
            ("ml-platform", false),
            ("@example.com", false),
            ("a@", false),
            ("a@b@c", false),
            ("a@b?cc=evil@example.com", false),
            ("a b@example.com", false),
            ("mailto:a@example.com", false),
            ("http://help.example.com/", false),
            ("https://", false),
            ("https://user@evil.test/", false),
            ("https://help.example.com/\"onclick=x", false),
            ("https://help.example.com/ä", false),
            ("javascript:alert(1)", false),
            ("data:text/html,x", false),
        ] {
            assert_eq!(is_email(text) || is_https(text), expected, "{text}");
        }
    }
}
