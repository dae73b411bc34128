//! The load balancer's session: sealed, so that nobody but this process can read or make one, and spread over as many
//! cookies as it needs. Nothing here knows who may sign in.

use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use cookie::time::{Duration, OffsetDateTime};
use cookie::{Cookie, CookieBuilder};
use serde::{Deserialize, Serialize};

use super::request::cookie;
use super::state::{Simulator, now};
use super::users::User;

/// The ALB's limit on the session: this many cookies, each of at most so many bytes in name and value.
const MAX_SHARDS: usize = 4;
const SHARD_BYTES: usize = 4096;

/// How long browsers keep the cookies: the ALB's longest session, whatever this one's end.
const COOKIES_LAST: Duration = Duration::days(7);

/// A user who is signed in at the load balancer.
#[derive(Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) user: User,
    expires: u64,
}

/// The session that a request's cookies hold, if it goes on.
pub(super) fn read(simulator: &Simulator, headers: &HeaderMap) -> Option<Session> {
    let stem = &simulator.options.session_cookie;
    let sealed: String = (0..MAX_SHARDS).map_while(|shard| cookie(headers, &format!("{stem}-{shard}"))).collect();
    let session: Session = simulator.seal.open("session", &sealed)?;
    (now() < session.expires).then_some(session)
}

/// The cookies of a new session for `user`, in place of those that the request has; `None` if they would be too many.
pub(super) fn cookies(simulator: &Simulator, user: User, headers: &HeaderMap) -> Option<Vec<HeaderValue>> {
    let stem = &simulator.options.session_cookie;
    let expires = now().saturating_add(simulator.options.session_lifetime);
    let sealed = simulator.seal.close("session", &Session { user, expires })?;
    let size = SHARD_BYTES.saturating_sub(stem.len()).saturating_sub("-0".len()).max(1);
    let shards: Vec<&str> = sealed.as_bytes().chunks(size).map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
    if shards.len() > MAX_SHARDS {
        return None;
    }
    let expires = OffsetDateTime::now_utc().saturating_add(COOKIES_LAST);
    let name = |shard| format!("{stem}-{shard}");
    let set = shards.iter().enumerate().map(|(at, shard)| Cookie::build((name(at), *shard)).expires(expires));
    let stale = (shards.len()..MAX_SHARDS).map(name).filter(|name| cookie(headers, name).is_some());
    let unset = stale.map(|name| Cookie::build((name, "")).removal());
    set.chain(unset).map(|cookie| alb_cookie(simulator, cookie)).collect()
}

/// A cookie with the attributes that the ALB gives its own.
pub(super) fn alb_cookie(simulator: &Simulator, cookie: CookieBuilder<'_>) -> Option<HeaderValue> {
    let cookie = cookie.path("/").secure(!simulator.options.insecure_cookies).http_only(true);
    HeaderValue::from_str(&cookie.to_string()).ok()
}

/// Adds the cookies to an answer.
pub(super) fn set(answer: &mut HeaderMap, cookies: impl IntoIterator<Item = HeaderValue>) {
    for cookie in cookies {
        answer.append(SET_COOKIE, cookie);
    }
}
