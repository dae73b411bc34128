//! Takes the load balancer's session cookies out of a `cookie` header, and leaves every other byte as it was.

/// The name's stem that an ALB listener rule uses unless it is told another.
pub(crate) const DEFAULT_SESSION_COOKIE: &str = "AWSELBAuthSessionCookie";

/// `header` without the cookies named `stem` or `stem-N`; `None` if it has no such cookie.
///
/// `header` is a `cookie` header's value (RFC 6265, section 4.2.1). What is left keeps its bytes, its order and its
/// separators; an empty result means that no other cookie was there.
pub(crate) fn without_session(header: &[u8], stem: &str) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(header.len());
    let mut found = false;
    for (position, pair) in header.split(|byte| *byte == b';').enumerate() {
        if is_session(pair, stem) {
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

fn is_session(pair: &[u8], stem: &str) -> bool {
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
    match name.strip_prefix(stem.as_bytes()) {
        Some([]) => true,
        Some([b'-', shard @ ..]) => !shard.is_empty() && shard.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(header: &str) -> Option<String> {
        without_session(header.as_bytes(), DEFAULT_SESSION_COOKIE).map(|kept| String::from_utf8(kept).unwrap())
    }

    #[test]
    fn each_shard_goes_and_the_rest_stays_byte_for_byte() {
        for (header, expected) in [
            ("AWSELBAuthSessionCookie-0=x", Some("")),
            ("AWSELBAuthSessionCookie-0=x; AWSELBAuthSessionCookie-1=y", Some("")),
            ("a=1; AWSELBAuthSessionCookie-0=x; b=2", Some("a=1; b=2")),
            ("AWSELBAuthSessionCookie-0=x; b=2;c=3 ;  d", Some("b=2;c=3 ;  d")),
            ("a=\"1 2\"; AWSELBAuthSessionCookie-3=x==", Some("a=\"1 2\"")),
            ("AWSELBAuthSessionCookie=x;b=2", Some("b=2")),
            ("a=1; b=AWSELBAuthSessionCookie-0=x", None),
            ("xAWSELBAuthSessionCookie-0=x; AWSELBAuthSessionCookie-x=1; AWSELBAuthSessionCookieX=2", None),
            ("", None),
        ] {
            assert_eq!(stripped(header).as_deref(), expected, "{header}");
        }
    }
}
