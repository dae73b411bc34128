//! Finds the ALB's session cookies in `cookie` headers by name, and removes them. Keeps every other
//! byte. Reads no cookie's value.

/// The most session cookies of one name that one answer expires. An ALB sets at most four.
const MOST_EXPIRED: usize = 16;

/// The cookie that the ALB sets during a sign-in.
const NONCE: &str = "AWSALBAuthNonce";

/// The names of the ALB's cookies: `AWSALBAuthNonce`, and for each configured name, that name alone
/// or with `-` and digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookies(Vec<String>);

impl SessionCookies {
    /// The cookies with these names in the listener rules.
    pub fn new<'a>(configured: impl Iterator<Item = &'a str>) -> Self {
        Self(configured.map(str::to_owned).collect())
    }

    /// The configured names.
    pub fn configured(&self) -> &[String] {
        &self.0
    }

    /// `header` without these cookies; `None` if it has none of them.
    ///
    /// `header` is a `cookie` header's value (RFC 6265, section 4.2.1). The remaining cookies keep
    /// their bytes, order and separators. An empty result means that no other cookie was present.
    pub(crate) fn remove_from(&self, header: &[u8]) -> Option<Vec<u8>> {
        let mut kept = Vec::with_capacity(header.len());
        let mut found = false;
        for (position, pair) in header.split(|byte| *byte == b';').enumerate() {
            if self.contain(name(pair)) {
                found = true;
            } else if kept.is_empty() && position > 0 {
                kept.extend_from_slice(pair.trim_ascii_start());
            } else {
                if position > 0 {
                    kept.push(b';');
                }
                kept.extend_from_slice(pair);
            }
        }
        found.then_some(kept)
    }

    /// The distinct names of these cookies in the headers, shortest first. At most [`MOST_EXPIRED`]
    /// for each configured name, so that many cookies of one name do not displace those of another.
    /// An ALB counts from 0, so the lowest numbers are kept.
    pub(crate) fn names_in<'a>(&self, headers: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
        let pairs = headers.flat_map(|header| header.split(|byte| *byte == b';'));
        let mut names: Vec<_> = pairs.map(name).filter(|name| self.contain(name)).collect();
        names.sort_unstable_by_key(|name| (name.len(), *name));
        names.dedup();
        let lowest = |stem: &String| {
            let of_stem = names.iter().filter(|name| is_session(name, stem));
            of_stem.take(MOST_EXPIRED).copied().collect::<Vec<_>>()
        };
        let expired: Vec<_> = self.0.iter().map(lowest).collect();
        names
            .iter()
            .filter(|name| is_nonce(name) || expired.iter().any(|some| some.contains(*name)))
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    fn contain(&self, name: &[u8]) -> bool {
        is_nonce(name) || self.0.iter().any(|stem| is_session(name, stem))
    }
}

fn name(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=')
        .next()
        .unwrap_or_default()
        .trim_ascii()
}

fn is_nonce(name: &[u8]) -> bool {
    name == NONCE.as_bytes()
}

fn is_session(name: &[u8], stem: &str) -> bool {
    match name.strip_prefix(stem.as_bytes()) {
        Some([]) => true,
        Some([b'-', shard @ ..]) => !shard.is_empty() && shard.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEM: &str = "AWSELBAuthSessionCookie";

    fn of(stems: &[&str]) -> SessionCookies {
        SessionCookies::new(stems.iter().copied())
    }

    fn stripped(header: &str) -> Option<String> {
        let kept = of(&[STEM]).remove_from(header.as_bytes());
        kept.map(|kept| String::from_utf8(kept).unwrap())
    }

    #[test]
    fn removes_every_shard_and_keeps_other_bytes() {
        for (header, expected) in [
            ("AWSELBAuthSessionCookie-0=x", Some("")),
            (
                "AWSELBAuthSessionCookie-0=x; AWSELBAuthSessionCookie-1=y",
                Some(""),
            ),
            ("a=1; AWSELBAuthSessionCookie-0=x; b=2", Some("a=1; b=2")),
            (
                "AWSELBAuthSessionCookie-0=x; b=2;c=3 ;  d",
                Some("b=2;c=3 ;  d"),
            ),
            (
                "a=\"1 2\"; AWSELBAuthSessionCookie-3=x==",
                Some("a=\"1 2\""),
            ),
            ("AWSELBAuthSessionCookie=x;b=2", Some("b=2")),
            ("a=1; b=AWSELBAuthSessionCookie-0=x", None),
            (
                "xAWSELBAuthSessionCookie-0=x; AWSELBAuthSessionCookie-x=1; AWSELBAuthSessionCookieX=2",
                None,
            ),
            ("AWSALBAuthNonce=x; a=1", Some("a=1")),
            (
                "AWSALBAuthNonce2=x; AWSALBAuthNonce-0=y; xAWSALBAuthNonce=z",
                None,
            ),
            ("", None),
        ] {
            assert_eq!(stripped(header).as_deref(), expected, "{header}");
        }
    }
    #[test]
    fn lists_each_shard_once_lowest_first() {
        let names =
            |headers: &[&str]| of(&["S"]).names_in(headers.iter().map(|header| header.as_bytes()));
        assert_eq!(
            names(&["a=1; S-1=x; S-0=y", "S-1=z;S=w; b"]),
            ["S", "S-0", "S-1"]
        );
        assert!(
            names(&[
                "S-0evil=x; S-=x; S-0\r\nset-cookie: a=1; \"S-0\"=x; s-0=x; S-é=1; S-0 1=x",
                ""
            ])
            .is_empty()
        );
        let many: String = (0..1000)
            .rev()
            .map(|shard| format!("S-{shard}=x; "))
            .collect();
        assert_eq!(
            names(&[&many]),
            (0..16)
                .map(|shard| format!("S-{shard}"))
                .collect::<Vec<_>>()
        );
    }
    #[test]
    fn removes_and_lists_cookies_of_each_name() {
        let cookies = of(&["kf", "kf-1", "api.session"]);
        let header = b"kf=1; kf-1-0=2; a=3; api.session-10=4; AWSALBAuthNonce=5; api-session=6";
        assert_eq!(
            cookies.remove_from(header),
            Some(b"a=3; api-session=6".to_vec())
        );
        assert_eq!(
            cookies.names_in([&header[..]].into_iter()),
            ["kf", "kf-1-0", "api.session-10", "AWSALBAuthNonce"]
        );
        let many: String = (0..100).map(|shard| format!("kf-{shard}=x; ")).collect();
        let names = cookies.names_in([many.as_bytes(), b"api.session-0=x"].into_iter());
        assert_eq!(names.len(), 17);
        assert_eq!(names.last().map(String::as_str), Some("api.session-0"));
    }
}
