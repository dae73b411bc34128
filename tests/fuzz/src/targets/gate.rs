//! The whole gate: one config and a few requests in order, each compared with the second
//! implementation. From the fuzzer's bytes, or in the text format of [`written`], as the scenarios
//! that are its seeds.

use std::collections::BTreeMap;

use alb_oidc_filter::{
    ACCESS_TOKEN, ClientAddress, Config, Decision, FetchResult, Gate, HeaderEdit, KeyCache,
    KeyFormat, KeyName, Now, OIDC_DATA, PublicKey, Reason, RequestHead, Rule, Timestamp,
};
use arbitrary::{Result, Unstructured};
use serde_json::Value;

use crate::judge::cookies;
use crate::judge::verdict::{
    Headers, Key, Verdict, World, is_owned, names_are_distinct, stems, verdict,
};
use crate::mint::{self, KIDS, NOW, rarely};
use crate::{seeds, toy};

mod written;

/// The scenarios, and random bytes, which always form a structure.
pub fn seeds() -> Vec<Vec<u8>> {
    let rows = seeds::rows();
    rows.iter()
        .flat_map(written::seeds)
        .chain(seeds::random(400, 1200))
        .collect()
}

/// Runs the case in `data`.
pub fn run(data: &[u8]) {
    // Too few bytes, or text that is no request, are no finding.
    match data.strip_prefix(&[written::MARK]) {
        Some(text) => drop(std::str::from_utf8(text).ok().and_then(written::play)),
        None => drop(play(&mut Unstructured::new(data))),
    }
}

/// The content of each key server, determined by the kid.
fn published(place: &str, kid: &str) -> Key {
    if place.ends_with("jwks.json") || place.ends_with("/jwks") {
        return match kid {
            "pool" => Key::Known(0),
            "second" => Key::Known(1),
            "broken" => Key::Invalid,
            "silent" => Key::Unavailable,
            _ => Key::NotFound,
        };
    }
    match KIDS.iter().position(|known| *known == kid) {
        Some(0) => Key::Known(0),
        // Other servers have another key with the same id.
        Some(1) => Key::Known(u8::from(place.starts_with("s3-"))),
        Some(2) => Key::Invalid,
        Some(3) => Key::Unavailable,
        _ => Key::NotFound,
    }
}

fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let config_value = mint::config(u)?;
    let config = match Config::parse(config_value.to_string().as_bytes()) {
        Ok(config) => config,
        Err(_) => return Ok(()),
    };
    assert!(
        config_value.get("sharedNames") == Some(&Value::Bool(true))
            || names_are_distinct(&config_value),
        "two issuers' users may have one name: {config_value}"
    );
    let (mut gate, mut cache) = worker(config);
    let (mut wall, mut steady) = (NOW * 1000, 5000);
    let (token, access_token) = (mint::alb_token(u, &config_value)?, mint::access_token(u)?);
    for number in 0..u.int_in_range(1..=3)? {
        let mut head = request(u, &config_value, &token, &access_token)?;
        if number > 0 && rarely(u, 3)? {
            // The caches of another request must not affect this one.
            head.retain(|(name, _)| name != OIDC_DATA);
            head.push((OIDC_DATA.to_owned(), mint::alb_token(u, &config_value)?));
        }
        if rarely(u, 4)? {
            wall += u.int_in_range(0..=200u64)? * 1000;
        }
        if rarely(u, 4)? {
            wall += u.int_in_range(0..=1999u64)?;
        }
        judge(
            &config_value,
            &mut gate,
            &mut cache,
            &head,
            wall,
            &mut steady,
        );
    }
    Ok(())
}

fn worker(config: Config) -> (Gate, KeyCache) {
    let cache = KeyCache::new(
        config.key_ttl,
        config.key_sources.iter().map(|source| source.timeout),
        0,
    );
    (Gate::new(config, toy::verifier()), cache)
}

fn request(
    u: &mut Unstructured<'_>,
    config: &Value,
    token: &[u8],
    access_token: &[u8],
) -> Result<Headers> {
    let (method, authority) = mint::target(u)?;
    let mut path = mint::path(u)?;
    if let Some(sign_out) = config.pointer("/logout/path").and_then(Value::as_str)
        && rarely(u, 3)?
    {
        path = [sign_out, *mint::pick(u, &["", "", "?x=/", "/"])?]
            .concat()
            .into_bytes();
    }
    let mut head = vec![
        (":method".to_owned(), method.into_bytes()),
        (":authority".to_owned(), authority.into_bytes()),
        (":path".to_owned(), path),
    ];
    for (name, value) in [(OIDC_DATA, token), (ACCESS_TOKEN, access_token)] {
        let copies = if rarely(u, 16)? {
            u.int_in_range(0..=2)?
        } else {
            1
        };
        head.extend((0..copies).map(|_| (name.to_owned(), value.to_vec())));
        if rarely(u, 48)? {
            head.push((name.to_owned(), Vec::new()));
        }
    }
    mint::further(u, &mut head)?;
    Ok(head)
}

fn judge(
    config: &Value,
    gate: &mut Gate,
    cache: &mut KeyCache,
    head: &Headers,
    wall: u64,
    steady: &mut u64,
) -> Decision {
    let (edits, decision) = decide(gate, cache, head, wall, steady);
    let regex_sizes: Vec<usize> = gate
        .config()
        .access
        .rules
        .iter()
        .map(Rule::regex_size)
        .collect();
    let world = World {
        config,
        regex_sizes: &regex_sizes,
        key: &published,
        is_signed: &|number, signed, signature| {
            signature == toy::sign_es256(number, signed)
                || signature == toy::sign_rs256(number, signed)
        },
        now: wall,
    };
    let verdict = verdict(&world, head);
    assert!(
        agrees(&verdict, &decision, &edits, head),
        "the gate says {decision:?}, strips {edits:?}; the rules say {verdict:?}\n{config}\n{}",
        shown(head)
    );
    let passes = match &decision {
        Decision::Admit(more) | Decision::Skip(more) | Decision::Report(_, more) => {
            Some(applied(head, &edits, more))
        }
        _ => None,
    };
    if let Some(upstream) = passes {
        cookies_are_kept(config, head, &upstream);
        if !matches!(decision, Decision::Admit(_)) {
            assert!(
                !upstream.iter().any(|(name, _)| is_owned(config, name)),
                "an identity without a verified one"
            );
        }
    }
    decision
}

/// The decision once all needed keys are there.
fn decide(
    gate: &mut Gate,
    cache: &mut KeyCache,
    head: &Headers,
    wall: u64,
    steady: &mut u64,
) -> (Vec<HeaderEdit>, Decision) {
    let raw = RequestHead::new(
        head.iter()
            .map(|(name, value)| (name.as_bytes(), value.as_slice()))
            .collect(),
    );
    let edits = gate.strip(&raw);
    let mut waited_for: Option<KeyName> = None;
    loop {
        let now = Now {
            wall: Timestamp::from_millis(wall),
            steady: Timestamp::from_millis(*steady),
        };
        let (decision, _) = gate.decide(&raw, cache, &now);
        let Decision::NeedKey(name) = decision else {
            return (edits, decision);
        };
        assert!(
            name.may_be_waited_for_after(waited_for),
            "{name:?} after {waited_for:?}"
        );
        waited_for = Some(name);
        if let Err(reason) = wait(gate, cache, name, steady) {
            return (edits, gate.denial(&raw, reason));
        }
    }
}

/// Answers fetches until this waiter is woken.
fn wait(
    gate: &Gate,
    cache: &mut KeyCache,
    name: KeyName,
    steady: &mut u64,
) -> std::result::Result<(), Reason> {
    const WAITER: u32 = 1;
    cache.wait(
        name,
        WAITER,
        || ClientAddress::Unknown,
        Timestamp::from_millis(*steady),
    )?;
    for _ in 0..100 {
        let now = Timestamp::from_millis(*steady);
        let due = cache.tick(now);
        let mut woken = vec![due.woken];
        for name in due.fetch {
            woken.push(cache.answered(name, answer(gate, name), now));
        }
        for woken in woken {
            if woken.ready.contains(&WAITER) {
                return Ok(());
            }
            if let Some((_, reason)) = woken.refused.iter().find(|(waiter, _)| *waiter == WAITER) {
                return Err(*reason);
            }
        }
        let next = cache.next_tick().expect("a request waits").millis();
        *steady = next.max(*steady + 1);
    }
    panic!("{name:?} is waited for without end");
}

fn answer(gate: &Gate, name: KeyName) -> FetchResult {
    let source = gate
        .config()
        .key_source(name.source)
        .expect("a source of this config");
    let (place, kid) = (
        format!("{}{}", source.authority, source.path),
        name.id.to_string(),
    );
    match (published(&place, &kid), source.format) {
        (Key::Known(number), KeyFormat::Pem) => {
            FetchResult::Key(PublicKey::P256(toy::p256(number).clone()))
        }
        (Key::Known(number), KeyFormat::KeySet) => {
            FetchResult::Key(PublicKey::Rsa(toy::rsa(number)))
        }
        (Key::NotFound, _) => FetchResult::NotFound,
        (Key::Invalid, _) => FetchResult::Invalid,
        (Key::Unavailable, _) => FetchResult::Failed,
    }
}

fn agrees(verdict: &Verdict, decision: &Decision, edits: &[HeaderEdit], head: &Headers) -> bool {
    let sees = |more: &[HeaderEdit], expected: &Headers| {
        let mut seen = applied(head, edits, more);
        seen.retain(|(name, _)| name != "cookie");
        counted(&seen) == counted(expected)
    };
    match (verdict, decision) {
        (Verdict::Admitted(expected), Decision::Admit(more))
        | (Verdict::Skipped(expected), Decision::Skip(more)) => sees(more, expected),
        (Verdict::Reported(reasons, expected), Decision::Report(reason, more)) => {
            reasons.contains(&reason.name()) && sees(more, expected)
        }
        (Verdict::Denied(reasons), Decision::Deny(reason)) => reasons.contains(&reason.name()),
        (Verdict::SignedOut(expected), Decision::SignOut(cookies)) => expected == cookies,
        _ => false,
    }
}

fn counted(headers: &Headers) -> BTreeMap<(String, Vec<u8>), usize> {
    let mut counts = BTreeMap::new();
    for header in headers {
        *counts.entry(header.clone()).or_insert(0) += 1;
    }
    counts
}

/// The request's headers after both rounds of edits, applied like Envoy does.
fn applied(head: &Headers, first: &[HeaderEdit], then: &[HeaderEdit]) -> Headers {
    let mut headers = head.clone();
    for edit in first.iter().chain(then) {
        let (HeaderEdit::Remove(name) | HeaderEdit::Set(name, _)) = edit;
        headers.retain(|(found, _)| found != name);
        if let HeaderEdit::Set(name, value) = edit {
            headers.push((name.clone(), value.clone()));
        }
    }
    headers
}

/// Upstream receives every cookie but the session's, unless that is forwarded.
fn cookies_are_kept(config: &Value, head: &Headers, upstream: &Headers) {
    let of = |headers: &Headers| -> Vec<(String, String)> {
        let values = headers.iter().filter(|(name, _)| name == "cookie");
        values
            .flat_map(|(_, value)| cookies::split(&String::from_utf8_lossy(value)))
            .collect()
    };
    let forwards = config.pointer("/forward/sessionCookies") == Some(&Value::Bool(true));
    let mut expected = of(head);
    expected.retain(|(name, _)| forwards || !cookies::is_session(name, &stems(config)));
    assert_eq!(of(upstream), expected);
}

fn shown(head: &Headers) -> String {
    head.iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value)))
        .collect()
}
