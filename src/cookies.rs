//! Finds the ALB's session cookies in `cookie` headers and removes them, keeping every other byte.

/// The most session cookies that one answer expires. An ALB sets at most four.
const MOST_EXPIRED: usize = 16;

/// `header` without the cookies named `stem` or `stem-N`; `None` if it has none of them.
///
/// `header` is a `cookie` header's value (RFC 6265, section 4.2.1). The remaining cookies keep
/// their bytes, order and separators. An empty result means that no other cookie was present.
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

/// The distinct names of the session cookies in these headers: `stem`, or `stem-` and digits. At
/// most [`MOST_EXPIRED`], the shortest and lowest first, as an ALB counts from 0.
pub(crate) fn session_names<'a>(
    headers: impl Iterator<Item = &'a [u8]>,
    stem: &str,
) -> Vec<String> {
    let pairs = headers.flat_map(|header| header.split(|byte| *byte == b';'));
    let mut names: Vec<_> = pairs
        .filter(|pair| is_session(pair, stem))
        .map(name)
        .collect();
    names.sort_unstable_by_key(|name| (name.len(), *name));
    names.dedup();
    names
        .into_iter()
        .take(MOST_EXPIRED)
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

fn name(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=')
        .next()
        .unwrap_or_default()
        .trim_ascii()
}

fn is_session(pair: &[u8], stem: &str) -> bool {
    match name(pair).strip_prefix(stem.as_bytes()) {
        Some([]) => true,
        Some([b'-', shard @ ..]) => !shard.is_empty() && shard.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEM: &str = "AWSELBAuthSessionCookie";

    fn stripped(header: &str) -> Option<String> {
        without_session(header.as_bytes(), STEM).map(|kept| String::from_utf8(kept).unwrap())
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
            ("", None),
        ] {
            assert_eq!(stripped(header).as_deref(), expected, "{header}");
        }
    }
    #[test]
    fn lists_each_shard_once_lowest_first() {
        let names =
            |headers: &[&str]| session_names(headers.iter().map(|header| header.as_bytes()), "S");
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
}
