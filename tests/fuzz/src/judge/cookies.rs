//! Cookies, parsed by the `cookie` crate.

use std::collections::{BTreeMap, BTreeSet};

use cookie::Cookie;

/// Every cookie of a header: name and value.
pub fn split(header: &str) -> Vec<(String, String)> {
    Cookie::split_parse(header.to_owned())
        .filter_map(Result::ok)
        .map(|cookie| (cookie.name().to_owned(), cookie.value().to_owned()))
        .collect()
}

/// Whether the name is a stem, or a shard of it: the stem, a hyphen and a number.
fn is_of(name: &str, stem: &str) -> bool {
    let number = name
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_prefix('-'));
    name == stem
        || number.is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// Whether the load balancer set the cookie, with session cookies of these stems.
pub fn is_session(name: &str, stems: &[&str]) -> bool {
    name == "AWSALBAuthNonce" || stems.iter().any(|stem| is_of(name, stem))
}

/// The names that a sign-out expires.
pub fn expired(headers: &[&[u8]], stems: &[&str]) -> Vec<String> {
    let ordered = |name: &String| (name.len(), name.clone());
    let mut expired = BTreeMap::new();
    let all: BTreeSet<String> = headers.iter().flat_map(|header| names(header)).collect();
    for stem in stems.iter().copied() {
        let mut of_stem: Vec<_> = all.iter().filter(|name| is_of(name, stem)).collect();
        of_stem.sort_by_key(|name| ordered(name));
        for name in of_stem.into_iter().take(16) {
            expired.insert(ordered(name), name.clone());
        }
    }
    for name in all.iter().filter(|name| *name == "AWSALBAuthNonce") {
        expired.insert(ordered(name), name.clone());
    }
    expired.into_values().collect()
}

/// The name of every cookie of a header, including those without a value. Invalid UTF-8 is no name.
pub fn names(header: &[u8]) -> Vec<String> {
    let header = String::from_utf8_lossy(header);
    header
        .split(';')
        .map(|pair| {
            pair.split('=')
                .next()
                .unwrap_or_default()
                .trim_ascii()
                .to_owned()
        })
        .collect()
}
