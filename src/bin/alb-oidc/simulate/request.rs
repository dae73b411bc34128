//! The host and the cookies of a request. No state.

use axum::http::HeaderMap;
use axum::http::header::{COOKIE, HOST};
use axum::http::uri::Authority;
use cookie::Cookie;

/// The host and port that the browser asked; `None` if it named none that is one.
pub(super) fn host(headers: &HeaderMap) -> Option<Authority> {
    let authority: Authority = headers.get(HOST)?.to_str().ok()?.parse().ok()?;
    (!authority.as_str().contains('@')).then_some(authority)
}

/// The value of the request's first cookie of this name.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(Cookie::split_parse)
        .flatten()
        .find(|cookie| cookie.name() == name)
        .map(|cookie| cookie.value().to_owned())
}
