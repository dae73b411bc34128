//! Cookies, parsed by the `cookie` crate.

use cookie::Cookie;

/// Every cookie of a header: name and value.
pub fn split(header: &str) -> Vec<(String, String)> {
    Cookie::split_parse(header.to_owned())
        .filter_map(Result::ok)
        .map(|cookie| (cookie.name().to_owned(), cookie.value().to_owned()))
        .collect()
}

/// Whether the name is a shard of the session: the stem, a hyphen and a number.
pub fn is_session(name: &str, stem: &str) -> bool {
    let number = name
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_prefix('-'));
    name == stem
        || number.is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
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
