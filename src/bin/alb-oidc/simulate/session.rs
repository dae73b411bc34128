//! The load balancer's session: encrypted, and split over as many cookies as it needs.
//! Does not authenticate users.

use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use cookie::time::{Duration, OffsetDateTime};
use cookie::{Cookie, CookieBuilder};
use serde::{Deserialize, Serialize};

use super::request::cookie;
use super::state::{Simulator, now};
use super::users::User;

/// The ALB's limits on the session: the number of cookies, and the bytes of name and value of each.
const MAX_SHARDS: usize = 4;
const SHARD_BYTES: usize = 4096;

/// The lifetime of the cookies: the ALB's longest session. The session itself may end earlier.
const COOKIES_LAST: Duration = Duration::days(7);

/// The session of a user at the load balancer.
#[derive(Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) user: User,
    expires: u64,
}

/// The session in a request's cookies; `None` if there is none or it has expired.
pub(super) fn read(simulator: &Simulator, headers: &HeaderMap) -> Option<Session> {
    let stem = &simulator.options.session_cookie;
    let sealed: String = (0..MAX_SHARDS)
        .map_while(|shard| cookie(headers, &format!("{stem}-{shard}")))
        .collect();
    let session: Session = simulator.sealer.open("session", &sealed)?;
    (now() < session.expires).then_some(session)
}

/// `set-cookie` values that start a session for `user` and delete the rest of an old one; `None` if
/// it needs too many cookies.
pub(super) fn cookies(
    simulator: &Simulator,
    user: User,
    headers: &HeaderMap,
) -> Option<Vec<HeaderValue>> {
    let stem = &simulator.options.session_cookie;
    let expires = now().saturating_add(simulator.options.session_lifetime);
    let sealed = simulator
        .sealer
        .seal("session", &Session { user, expires })?;
    let size = SHARD_BYTES
        .saturating_sub(stem.len())
        .saturating_sub("-0".len())
        .max(1);
    let shards: Vec<&str> = sealed
        .as_bytes()
        .chunks(size)
        .map(std::str::from_utf8)
        .collect::<Result<_, _>>()
        .ok()?;
    if shards.len() > MAX_SHARDS {
        return None;
    }
    let expires = OffsetDateTime::now_utc().saturating_add(COOKIES_LAST);
    let name = |shard| format!("{stem}-{shard}");
    let set = shards
        .iter()
        .enumerate()
        .map(|(at, shard)| Cookie::build((name(at), *shard)).expires(expires));
    let stale = (shards.len()..MAX_SHARDS)
        .map(name)
        .filter(|name| cookie(headers, name).is_some());
    let deleted = stale.map(|name| Cookie::build((name, "")).removal());
    set.chain(deleted)
        .map(|cookie| alb_cookie(simulator, cookie))
        .collect()
}

/// A `set-cookie` value with the attributes of the ALB's cookies.
pub(super) fn alb_cookie(simulator: &Simulator, cookie: CookieBuilder<'_>) -> Option<HeaderValue> {
    let cookie = cookie
        .path("/")
        .secure(!simulator.options.insecure_cookies)
        .http_only(true);
    HeaderValue::from_str(&cookie.to_string()).ok()
}

/// Adds the cookies to a response.
pub(super) fn set(response: &mut HeaderMap, cookies: impl IntoIterator<Item = HeaderValue>) {
    for cookie in cookies {
        response.append(SET_COOKIE, cookie);
    }
}
