//! The outcome of a request: `docs/architecture.md`, A request, step by step.

use serde_json::{Map, Value};

use super::access;
use super::cookies;
use super::identity::{self, Claims, Identity};
use super::jws;

const OIDC_DATA: &str = "x-amzn-oidc-data";
const ACCESS_TOKEN: &str = "x-amzn-oidc-accesstoken";
const OIDC_IDENTITY: &str = "x-amzn-oidc-identity";

/// Header names, in lower case, and values.
pub type Headers = Vec<(String, Vec<u8>)>;

/// A key server's content.
#[derive(Clone, Copy, PartialEq)]
pub enum Key {
    /// The key with this number.
    Known(u8),
    NotFound,
    Invalid,
    /// Unavailable.
    Unavailable,
}

/// Whether this is a signature by the key with this number: number, message, signature.
pub type IsSigned<'w> = &'w dyn Fn(u8, &[u8], &[u8]) -> bool;

/// The surroundings of the request.
pub struct World<'w> {
    pub config: &'w Value,
    /// The content at this host and path, for a key id.
    pub key: &'w dyn Fn(&str, &str) -> Key,
    pub is_signed: IsSigned<'w>,
    /// The compiled size of each rule's regexes.
    pub regex_sizes: &'w [usize],
    /// Unix time in milliseconds.
    pub now: u64,
}

/// The expected outcome of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It reaches upstream with these headers, apart from cookies.
    Admitted(Headers),
    /// As `Admitted`, but without a token.
    Skipped(Headers),
    /// Report mode: as `Admitted` without identity, for one of these reasons.
    Reported(Vec<&'static str>, Headers),
    /// It is denied with one of these reasons.
    Denied(Vec<&'static str>),
    /// A sign-out that expires these cookies.
    SignedOut(Vec<String>),
}

/// The documented outcome of this request.
pub fn verdict(world: &World<'_>, head: &Headers) -> Verdict {
    if !upgrades_are_allowed(world.config, head) {
        return Verdict::Denied(vec!["upgrade-not-allowed"]);
    }
    if let Some(cookies) = sign_out(world, head) {
        return Verdict::SignedOut(cookies);
    }
    let requirement = access::requirement(
        world.config,
        world.regex_sizes,
        &lossy(first(head, ":method")),
        &lossy(first(head, ":authority")),
        first(head, ":path").unwrap_or_default(),
    );
    // An empty token is an invalid one.
    let is_anonymous = values(head, OIDC_DATA).is_empty();
    if requirement.is_open() || (requirement.is_optional() && is_anonymous) {
        return Verdict::Skipped(upstream(world, head, None));
    }
    let identity = identify(world, head).and_then(|(identity, issuer)| {
        if requirement.admits(&identity, issuer.as_deref()) {
            Ok(identity)
        } else {
            Err(vec!["user-not-allowed"])
        }
    });
    match identity {
        Ok(identity) => Verdict::Admitted(upstream(world, head, Some(&identity))),
        Err(reasons) if world.config.get("mode") == Some(&Value::from("report")) => {
            Verdict::Reported(reasons, upstream(world, head, None))
        }
        Err(reasons) => Verdict::Denied(reasons),
    }
}

/// `docs/configuration.md`, Upgrades.
fn upgrades_are_allowed(config: &Value, head: &Headers) -> bool {
    let default = [Value::from("websocket")];
    let listed = config
        .get("upgrades")
        .and_then(Value::as_array)
        .map_or(&default[..], Vec::as_slice);
    let listed: Vec<String> = listed
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_ascii_lowercase)
        .collect();
    let mut asked = Vec::new();
    for value in [values(head, "upgrade"), values(head, ":protocol")].concat() {
        asked.extend(
            lossy(Some(value))
                .to_ascii_lowercase()
                .split(',')
                .map(|one| one.trim_ascii().to_owned()),
        );
    }
    asked.extend(
        lossy(first(head, ":method"))
            .eq_ignore_ascii_case("connect")
            .then(|| "connect".to_owned()),
    );
    asked.iter().all(|one| listed.contains(one))
}

fn values<'h>(head: &'h Headers, name: &str) -> Vec<&'h [u8]> {
    head.iter()
        .filter(|(found, _)| found == name)
        .map(|(_, value)| value.as_slice())
        .collect()
}

fn first<'h>(head: &'h Headers, name: &str) -> Option<&'h [u8]> {
    values(head, name).first().copied()
}

fn lossy(value: Option<&[u8]>) -> String {
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

/// The configured names of the session's cookies.
pub fn stems(config: &Value) -> Vec<&str> {
    match config.pointer("/logout/sessionCookie") {
        Some(Value::Array(stems)) => stems.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(stem)) => vec![stem],
        _ => vec!["AWSELBAuthSessionCookie"],
    }
}

fn sign_out(world: &World<'_>, head: &Headers) -> Option<Vec<String>> {
    let path = world.config.pointer("/logout/path")?.as_str()?;
    let asked = lossy(first(head, ":path"));
    let method = lossy(first(head, ":method"));
    let is = |name, value: &str| first(head, name) == Some(value.as_bytes());
    let cross_site = is("sec-fetch-site", "cross-site");
    let goes_there = is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document");
    let not_by_a_person = ["sec-purpose", "purpose", "upgrade"]
        .iter()
        .any(|name| first(head, name).is_some());
    if asked.split('?').next() != Some(path)
        || !["GET", "HEAD", "POST"].contains(&method.as_str())
        || (cross_site && !goes_there)
        || not_by_a_person
    {
        return None;
    }
    Some(cookies::expired(
        &values(head, "cookie"),
        &stems(world.config),
    ))
}

/// The identity, from the tokens alone, and the issuer of its entry of `loadBalancers`.
fn identify(
    world: &World<'_>,
    head: &Headers,
) -> Result<(Identity, Option<String>), Vec<&'static str>> {
    let only = |reason: &'static str| vec![reason];
    let text = match values(head, OIDC_DATA)[..] {
        [] | [b""] => return Err(only("token-missing")),
        [text] => text,
        _ => return Err(only("token-duplicate")),
    };
    let token = jws::alb_token(text).map_err(only)?;
    let entry = entry(world.config, &token).map_err(only)?;
    let settings = settings(world.config, entry);
    let skew = world
        .config
        .get("clockSkewSeconds")
        .and_then(Value::as_u64)
        .unwrap_or(30);
    let is_over = |expires: u64| world.now >= (expires + skew) * 1000;
    if is_over(token.expires) {
        return Err(only("token-expired"));
    }
    let key = known((world.key)(
        &key_server(world.config, &token.signer),
        &token.kid,
    ))
    .map_err(only)?;
    if !(world.is_signed)(key, &token.signed, &token.signature) {
        return Err(only("signature-invalid"));
    }
    let claims = claims(&token, is_over)?;
    let mut access = None;
    if let Some(rules) = settings.get("accessToken") {
        access = Some(access_claims(world, rules, head, &token, &claims, skew).map_err(only)?);
    }
    let claims = Claims {
        alb: &claims,
        access: access.as_ref(),
    };
    let identity = identity::identity(&settings, &claims).map_err(only)?;
    Ok((identity, entry["issuer"].as_str().map(str::to_owned)))
}

/// The entry that matches signer, issuer and client. Of several, the one with fewer `null` fields.
fn entry<'c>(config: &'c Value, token: &jws::AlbToken) -> Result<&'c Value, &'static str> {
    let accepts = |entry: &Value, name: &str, found: &Option<String>| {
        entry[name].is_null() || entry[name].as_str() == found.as_deref()
    };
    let mut entries: Vec<&Value> = entries(config).collect();
    entries.retain(|entry| entry["arn"] == token.signer.as_str());
    if entries.is_empty() {
        return Err("signer-unknown");
    }
    entries.retain(|entry| accepts(entry, "issuer", &token.issuer));
    if entries.is_empty() {
        return Err("issuer-mismatch");
    }
    entries.retain(|entry| accepts(entry, "clientId", &token.client));
    let nulls = |entry: &Value| {
        let fields = ["issuer", "clientId"];
        fields.iter().filter(|name| entry[**name].is_null()).count()
    };
    let fewest = entries.iter().map(|entry| nulls(entry)).min();
    entries.retain(|entry| Some(nulls(entry)) == fewest);
    assert!(entries.len() <= 1, "two entries for one token: {entries:?}");
    entries.first().copied().ok_or("client-mismatch")
}

fn entries(config: &Value) -> impl Iterator<Item = &Value> {
    config["loadBalancers"].as_array().into_iter().flatten()
}

/// The config for the users of this entry.
pub fn settings(config: &Value, entry: &Value) -> Value {
    let mut settings = config.clone();
    let members = settings.as_object_mut().expect("an object");
    for name in ["userId", "groups"] {
        let Some(own) = entry.get(name).and_then(Value::as_object) else {
            continue;
        };
        let whole = members.entry(name).or_insert(Value::Object(Map::new()));
        let whole = whole.as_object_mut().expect("an object");
        whole.extend(own.clone());
    }
    if let Some(own) = entry.get("accessToken") {
        members.insert("accessToken".to_owned(), own.clone());
    }
    settings
}

/// Whether no two issuers' users, and no two issuers' groups, can have the same name.
pub fn names_are_distinct(config: &Value) -> bool {
    let all: Vec<(&Value, Value)> = entries(config)
        .map(|entry| (&entry["issuer"], settings(config, entry)))
        .collect();
    let prefix = |settings: &Value, name: &str| -> Option<String> {
        if name == "groups" && settings.get(name).is_none() {
            return None;
        }
        let prefix = settings.pointer(&format!("/{name}/prefix"));
        Some(
            prefix
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        )
    };
    all.iter().enumerate().all(|(position, (issuer, one))| {
        // Two entries with `null` may have users of different issuers.
        let others = all.iter().enumerate().filter(|(other, (known, _))| {
            *other != position && (issuer.is_null() || known != issuer)
        });
        others.into_iter().all(|(_, (_, two))| {
            ["userId", "groups"].iter().all(|name| {
                let pair = prefix(one, name).zip(prefix(two, name));
                pair.is_none_or(|(one, two)| !one.starts_with(&two))
            })
        })
    })
}

/// The host and path of a load balancer's keys.
fn key_server(config: &Value, arn: &str) -> String {
    if let Some(endpoint) = config
        .pointer("/publicKeys/endpoint")
        .and_then(Value::as_str)
    {
        let (_, place) = endpoint.split_once("://").expect("a URL");
        return format!("{}/", place.trim_end_matches('/'));
    }
    let region = arn.split(':').nth(3).unwrap_or_default();
    if arn.starts_with("arn:aws-us-gov:") {
        format!("s3-{region}.amazonaws.com/aws-elb-public-keys-prod-{region}/")
    } else {
        format!("public-keys.auth.elb.{region}.amazonaws.com/")
    }
}

fn known(key: Key) -> Result<u8, &'static str> {
    match key {
        Key::Known(number) => Ok(number),
        Key::NotFound => Err("key-not-found"),
        Key::Invalid => Err("key-invalid"),
        Key::Unavailable => Err("key-unavailable"),
    }
}

fn claims(
    token: &jws::AlbToken,
    is_over: impl Fn(u64) -> bool,
) -> Result<Map<String, Value>, Vec<&'static str>> {
    let malformed = || vec!["token-malformed"];
    let claims = jws::base64(&token.payload).and_then(|bytes| jws::json(&bytes, jws::CLAIMS_DEPTH));
    let claims = claims
        .as_ref()
        .and_then(Value::as_object)
        .ok_or_else(malformed)?;
    let expires = jws::date(claims, "exp", false).map_err(|_| malformed())?;
    let mut reasons = Vec::new();
    if expires.is_some_and(is_over) {
        reasons.push("token-expired");
    }
    match (claims.get("iss"), &token.issuer) {
        (Some(Value::String(found)), Some(issuer)) if found != issuer => {
            reasons.push("issuer-mismatch")
        }
        (None | Some(Value::String(_)), _) => {}
        // The documentation allows both.
        (Some(_), _) => reasons.push("token-malformed"),
    }
    if reasons.first() == Some(&"token-expired") && reasons.get(1) == Some(&"issuer-mismatch") {
        // Expiry is checked first.
        reasons.truncate(1);
    }
    if reasons.is_empty() {
        Ok(claims.clone())
    } else {
        Err(reasons)
    }
}

/// `docs/configuration.md`, Access token.
fn access_claims(
    world: &World<'_>,
    rules: &Value,
    head: &Headers,
    alb: &jws::AlbToken,
    alb_claims: &Map<String, Value>,
    skew: u64,
) -> Result<Map<String, Value>, &'static str> {
    const INVALID: &str = "access-token-invalid";
    let [text] = values(head, ACCESS_TOKEN)[..] else {
        return Err(INVALID);
    };
    let token = jws::access_token(text).ok_or(INVALID)?;
    let issuer = rules["issuer"].as_str().unwrap_or_default();
    let place = match rules.get("jwksUri").and_then(Value::as_str) {
        Some(uri) => uri.to_owned(),
        None => format!("{issuer}/.well-known/jwks.json"),
    };
    let (_, place) = place.split_once("://").expect("a URL");
    let key = known((world.key)(place, &token.kid))?;
    let claims = token.claims.ok_or(INVALID)?;
    let has = |name: &str, value: &Value| claims.get(name) == Some(value);
    let has_or_lacks = |name: &str, value: &Value| !claims.contains_key(name) || has(name, value);
    let seconds = |name, up| jws::date(&claims, name, up).map_err(|_| INVALID);
    let subject = alb_claims
        .get("sub")
        .filter(|subject| subject.as_str().is_some_and(|text| !text.is_empty()));
    let subject_claim = rules
        .get("subject")
        .and_then(Value::as_str)
        .unwrap_or("sub");
    let is_of_the_client = match &alb.client {
        Some(client) => has_or_lacks("client_id", &Value::from(client.as_str())),
        None => claims.get("client_id").is_none_or(Value::is_string),
    };
    let expires = seconds("exp", false)?.ok_or(INVALID)?;
    let not_before = seconds("nbf", true)?.unwrap_or(0);
    let holds = token
        .signature
        .is_some_and(|signature| (world.is_signed)(key, &token.signed, &signature))
        && has("iss", &Value::from(issuer))
        && subject.is_some_and(|subject| has(subject_claim, subject))
        && has_or_lacks("token_use", &Value::from("access"))
        && is_of_the_client
        && world.now < (expires + skew) * 1000
        && not_before * 1000 <= world.now + skew * 1000;
    if holds { Ok(claims) } else { Err(INVALID) }
}

/// Upstream's headers, apart from cookies.
fn upstream(world: &World<'_>, head: &Headers, user: Option<&Identity>) -> Headers {
    let config = world.config;
    let forwards =
        |name: &str| config.pointer(&format!("/forward/{name}")) == Some(&Value::Bool(true));
    let subject = user
        .and_then(|user| user.subject.as_deref())
        .map(str::as_bytes);
    let of_alb_passes = |name: &str| match name {
        OIDC_DATA => user.is_some() && forwards("oidcData"),
        ACCESS_TOKEN => user.is_some() && forwards("accessToken"),
        // If it is present several times, each value must be the user's.
        _ => {
            forwards("oidcData")
                && values(head, OIDC_IDENTITY)
                    .iter()
                    .all(|value| Some(*value) == subject)
        }
    };
    let mut seen: Headers = Vec::new();
    for (name, value) in head {
        let passes = match name.as_str() {
            OIDC_DATA | ACCESS_TOKEN | OIDC_IDENTITY => of_alb_passes(name),
            "cookie" => false,
            _ => !is_owned(config, name),
        };
        if passes {
            seen.push((name.clone(), value.clone()));
        }
    }
    seen.extend(user.into_iter().flat_map(|user| user.headers.clone()));
    seen
}

/// Whether clients must not send it.
pub fn is_owned(config: &Value, name: &str) -> bool {
    // An upstream may confuse any punctuation with a hyphen. Clients cannot send a name with the
    // colon of `:path`.
    let hyphen = |sign: char| {
        if sign.is_ascii_alphanumeric() || sign == ':' {
            sign
        } else {
            '-'
        }
    };
    let hyphens = |name: &str| {
        name.to_ascii_lowercase()
            .chars()
            .map(hyphen)
            .collect::<String>()
    };
    let mut owned = identity::named_headers(config);
    owned.extend(
        [
            OIDC_DATA,
            ACCESS_TOKEN,
            OIDC_IDENTITY,
            "kubeflow-userid",
            "kubeflow-groups",
        ]
        .map(str::to_owned),
    );
    let reserved = config
        .get("reservedHeaders")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    owned.extend(reserved.filter_map(Value::as_str).map(str::to_owned));
    let has_rules = config
        .get("rules")
        .and_then(Value::as_array)
        .is_some_and(|rules| !rules.is_empty());
    if has_rules && config.pointer("/forward/pathOverrides") != Some(&Value::Bool(true)) {
        // `docs/configuration.md`, Path overrides.
        let paths = [
            "script-name",
            "path-info",
            "x-script-name",
            "x-forwarded-script-name",
            "x-traversal-path",
            "x-original-url",
            "x-rewrite-url",
        ];
        let methods = [
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
        ];
        owned.extend(paths.into_iter().chain(methods).map(str::to_owned));
    }
    owned.iter().any(|owned| hyphens(owned) == hyphens(name))
        || identity::member_prefix(config)
            .is_some_and(|prefix| hyphens(name).starts_with(&hyphens(prefix)))
}
