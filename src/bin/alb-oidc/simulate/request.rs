//! Reads the host and the cookies of a request.

use axum::http::HeaderMap;
use axum::http::header::{COOKIE, HOST};
use axum::http::uri::Authority;
use cookie::Cookie;

/// The host and port in the `host` header; `None` if it is absent or invalid.
pub(super) fn host(headers: &HeaderMap) -> Option<Authority> {
    let authority: Authority = headers.get(HOST)?.to_str().ok()?.parse().ok()?;
    (!authority.as_str().contains('@')).then_some(authority)
}

/// The value of the first cookie with this name.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    all.flat_map(Cookie::split_parse)
        .flatten()
        .find(|cookie| cookie.name() == name)
        .map(|cookie| cookie.value().to_owned())
}
