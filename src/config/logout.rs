//! Reads `logout` of the plugin config: the names of the session cookies and [`SignOut`].

use super::endpoint::scheme_and_host;
use super::headers::is_token_byte;
use super::reader::{Object, quoted};
use crate::access::path::has_one_form;
use crate::cookies::SessionCookies;
use crate::sign_out::SignOut;

/// The session cookies, and sign-out if it is configured.
pub(super) fn read(logout: &Object<'_>) -> (SessionCookies, Option<SignOut>) {
    let cookies = logout.string_or_strings("sessionCookie");
    for (field, cookie) in &cookies {
        if !cookie.bytes().all(is_token_byte) {
            let expected = "a cookie name (RFC 6265, section 4.1.1)";
            logout.mistake(field, &quoted(cookie), expected);
        }
    }
    let cookies = SessionCookies::new(cookies.into_iter().map(|(_, cookie)| cookie));
    let before = logout.mistake_count();
    let path = logout.optional_string("path").map(|path| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        if !has_one_form(path) || !path.bytes().all(is_plain) {
            let expected =
                "a path that begins with `/`, of letters, digits, `-`, `.`, `_`, `~` and `/`, without `//` and `/.`";
            logout.mistake("path", &quoted(path), expected);
        }
        path.to_owned()
    });
    let redirect_to = logout.optional_string("redirectTo").map(|url| {
        if !is_redirect(url) {
            let expected =
                "an absolute https URL in visible ASCII, or http to localhost or 127.0.0.1";
            logout.mistake("redirectTo", &quoted(url), expected);
        }
        url.to_owned()
    });
    let sign_out = match (path, redirect_to) {
        (Some(path), Some(redirect_to)) => Some(SignOut { path, redirect_to }),
        (None, None) => None,
        (given, _) => {
            let (field, missing) = if given.is_some() {
                ("path", "redirectTo")
            } else {
                ("redirectTo", "path")
            };
            if before == logout.mistake_count() {
                logout.requirement(field, &format!("`logout.{missing}`: sign-out needs both"));
            }
            None
        }
    };
    (cookies, sign_out)
}

fn is_redirect(url: &str) -> bool {
    match scheme_and_host(url) {
        Some(("https", _)) => true,
        Some((_, host)) => ["localhost", "127.0.0.1"].contains(&host),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_to_https_or_localhost_only() {
        for (url, expected) in [
            (
                "https://id.example.com/logout?client_id=1&logout_uri=https%3A%2F%2Fapp.example.com%2F",
                true,
            ),
            ("https://id.example.com:8443?x#y", true),
            ("http://localhost:8080/", true),
            ("http://127.0.0.1", true),
            ("http://id.example.com/", false),
            ("http://localhost.evil.test/", false),
            ("http://localhost@evil.test/", false),
            ("https://user@evil.test/", false),
            ("https://id.example.com\\@evil.test/", false),
            ("https:///evil.test/", false),
            ("//evil.test/", false),
            ("/logout", false),
            ("javascript://id.example.com/%0aalert(1)", false),
            ("https://id.example.com/\r\nset-cookie: a=1", false),
            ("https://id.example.com/ä", false),
            ("https://id.example.com/a b", false),
        ] {
            assert_eq!(is_redirect(url), expected, "{url}");
        }
    }
}
