//! Cookie headers: removed session cookies, and the cookies that a sign-out expires.

use std::sync::LazyLock;

use alb_oidc_filter::{Config, Decision, Gate, HeaderEdit, KeyCache, Now, RequestHead, Timestamp};
use serde_json::json;

use crate::judge::cookies;
use crate::mint::ARNS;
use crate::{seeds, toy};

/// The second is the first one's shard, too.
const STEMS: [&str; 3] = ["AWSELBAuthSessionCookie", "AWSELBAuthSessionCookie-1", "kf"];

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let config = json!({
        "loadBalancers": [{"arn": ARNS[0], "issuer": null, "clientId": null}],
        "rules": [{"match": {"methods": ["GET"]}, "require": "none"}],
        "logout": {"path": "/logout", "redirectTo": "https://idp.example.com/logout", "sessionCookie": STEMS},
    });
    Config::parse(config.to_string().as_bytes()).expect("a config")
});

/// The cookie headers of the scenarios.
pub fn seeds() -> Vec<Vec<u8>> {
    let headers = seeds::scenarios(&["headers", "cookie"]);
    let values = headers
        .iter()
        .map(|header| header.strip_prefix("cookie: ").unwrap_or(header));
    let mut seeds: Vec<Vec<u8>> = values.map(|value| value.as_bytes().to_vec()).collect();
    let stem = STEMS[0];
    seeds.push(format!("a=1\n{stem}-0=x; {stem}-1-2=\"y;z\"\n\nkf=1;;b").into_bytes());
    seeds
}

/// Each line is a cookie header.
pub fn run(data: &[u8]) {
    let headers: Vec<&[u8]> = data.split(|byte| *byte == b'\n').take(4).collect();
    let upstream = match decide(&headers, b"/") {
        Decision::Skip(edits) => edits.into_iter().fold(
            headers.iter().map(|header| header.to_vec()).collect(),
            applied,
        ),
        other => panic!("not skipped but {other:?}"),
    };
    // The other library trims any Unicode white space, but names in RFC 6265 and the load
    // balancer's have none.
    let is_odd = |character: char| character.is_whitespace() && !character.is_ascii_whitespace();
    let is_comparable = !String::from_utf8_lossy(data).contains(is_odd);
    let expected: Vec<_> = headers.iter().flat_map(|header| kept(header)).collect();
    let found: Vec<_> = upstream
        .iter()
        .flat_map(|header| cookies::split(&String::from_utf8_lossy(header)))
        .collect();
    assert!(
        found == expected || !is_comparable,
        "{found:?}, another library: {expected:?}"
    );
    // Byte for byte, also for parsers that accept names without values.
    let pairs = |headers: &[Vec<u8>]| -> Vec<Vec<u8>> {
        let all = headers
            .iter()
            .flat_map(|header| header.split(|byte| *byte == b';'));
        all.map(|pair| pair.trim_ascii().to_vec())
            .filter(|pair| !pair.is_empty())
            .collect()
    };
    let before: Vec<Vec<u8>> = headers.iter().map(|header| header.to_vec()).collect();
    let is_session = |pair: &Vec<u8>| {
        cookies::names(pair)
            .iter()
            .any(|name| cookies::is_session(name, &STEMS))
    };
    let expected: Vec<_> = pairs(&before)
        .into_iter()
        .filter(|pair| !is_session(pair))
        .collect();
    assert_eq!(pairs(&upstream), expected);

    let Decision::SignOut(expired) = decide(&headers, b"/logout") else {
        panic!("no sign-out")
    };
    assert_eq!(expired, cookies::expired(&headers, &STEMS));
    let is_plain = |name: &String| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    assert!(expired.iter().all(is_plain), "{expired:?}");
}

fn kept(header: &[u8]) -> Vec<(String, String)> {
    let mut cookies = cookies::split(&String::from_utf8_lossy(header));
    cookies.retain(|(name, _)| !cookies::is_session(name, &STEMS));
    cookies
}

fn decide(headers: &[&[u8]], path: &[u8]) -> Decision {
    let mut head = vec![
        (&b":method"[..], &b"GET"[..]),
        (b":authority", b"a"),
        (b":path", path),
    ];
    head.extend(headers.iter().map(|header| (&b"cookie"[..], *header)));
    let mut gate = Gate::new(CONFIG.clone(), toy::verifier());
    let mut ring = KeyCache::new(
        CONFIG.key_ttl,
        CONFIG.key_sources.iter().map(|source| source.timeout),
        0,
    );
    let now = Timestamp::from_seconds(0);
    gate.decide(
        &RequestHead::new(head),
        &mut ring,
        &Now {
            wall: now,
            steady: now,
        },
    )
    .0
}

fn applied(headers: Vec<Vec<u8>>, edit: HeaderEdit) -> Vec<Vec<u8>> {
    match edit {
        HeaderEdit::Remove(name) if name == "cookie" => Vec::new(),
        HeaderEdit::Set(name, value) if name == "cookie" => vec![value],
        _ => headers,
    }
}
