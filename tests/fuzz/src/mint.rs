//! Near-valid configurations, tokens and requests from a fuzzer's bytes: genuine ones with a few
//! changes.

use arbitrary::{Result, Unstructured};
use data_encoding::{BASE64, BASE64URL, BASE64URL_NOPAD, Encoding};
use serde_json::{Map, Value, json};

use crate::judge::jws;
use crate::judge::verdict::Headers;
use crate::toy;

pub(crate) const ARNS: [&str; 3] = [
    "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188",
    "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/other/0011223344556677",
    "arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:123456789012:loadbalancer/app/gov/8899aabbccddeeff",
];
pub(crate) const ISSUERS: [&str; 2] = [
    "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE",
    "https://login.example.com",
];
pub(crate) const CLIENTS: [&str; 2] = ["1example23456789", "another"];
/// Indexed by position.
pub(crate) const KIDS: [&str; 6] = [
    "31c93e63-dd77-5b60-bdd0-68378b356ad2",
    "31C93E63-DD77-5B60-BDD0-68378B356AD2",
    "00000000-0000-0000-0000-000000000002",
    "00000000-0000-0000-0000-000000000003",
    "00000000-0000-0000-0000-000000000004",
    "00000000-0000-0000-0000-00000000000",
];
pub(crate) const NOW: u64 = 1_800_000_000;

/// Picks one.
pub(crate) fn pick<'p, T>(u: &mut Unstructured<'_>, from: &'p [T]) -> Result<&'p T> {
    u.choose(from)
}

/// True once in `odds` times.
pub(crate) fn rarely(u: &mut Unstructured<'_>, odds: u8) -> Result<bool> {
    Ok(u.int_in_range(0..=odds - 1)? == odds - 1)
}

/// One of these, or a text from the fuzzer's bytes.
fn text(u: &mut Unstructured<'_>, from: &[&str]) -> Result<String> {
    if rarely(u, 8)? {
        Ok(u.arbitrary::<&str>()?.chars().take(40).collect())
    } else {
        Ok((*pick(u, from)?).to_owned())
    }
}

const CLAIM_NAMES: [&str; 12] = [
    "email",
    "sub",
    "email_verified",
    "custom:groups",
    "name",
    "a.b",
    "a.b.c",
    "a",
    "roles",
    "username",
    "client_id",
    "identities",
];
const CLAIM_PATHS: [&str; 12] = [
    "email",
    "sub",
    "custom:groups",
    "name",
    "a.b",
    "a.b.c",
    "a",
    "access:username",
    "access:cognito:groups",
    "access:a.b",
    "roles",
    "missing",
];
const HEADER_NAMES: [&str; 6] = [
    "kubeflow-userid",
    "x-user",
    "x_user-name",
    "kubeflow-groups",
    "x-user-groups",
    "x-team",
];

/// A `pluginConfig`, mostly valid.
pub(crate) fn config(u: &mut Unstructured<'_>) -> Result<Value> {
    let mut config = Map::new();
    let mut balancers = Vec::new();
    for _ in 0..u.int_in_range(1..=3)? {
        let or_null = |u: &mut Unstructured<'_>, from: &[&str]| -> Result<Value> {
            Ok(if rarely(u, 4)? {
                Value::Null
            } else {
                json!(*pick(u, from)?)
            })
        };
        balancers.push(json!({
            "arn": *pick(u, &ARNS)?,
            "issuer": or_null(u, &ISSUERS)?,
            "clientId": or_null(u, &CLIENTS)?,
        }));
    }
    if rarely(u, 8)? {
        config.insert(
            "publicKeys".into(),
            json!({"endpoint": "https://keys.example.com/alb"}),
        );
    }
    if rarely(u, 4)? {
        config.insert("clockSkewSeconds".into(), json!(*pick(u, &[0, 1, 300])?));
    }
    let mut user_id = user_id(u)?;
    if rarely(u, 4)? {
        user_id.insert("header".into(), json!(*pick(u, &HEADER_NAMES[..4])?));
    }
    if !user_id.is_empty() {
        config.insert("userId".into(), Value::Object(user_id));
    }
    if rarely(u, 2)? {
        let mut groups = groups(u)?;
        if rarely(u, 3)? {
            groups.insert("header".into(), json!(*pick(u, &HEADER_NAMES[3..5])?));
        }
        if rarely(u, 2)? {
            groups.insert(
                "memberHeaderPrefix".into(),
                json!(*pick(u, &["x-group-", "x_member-"])?),
            );
        }
        config.insert("groups".into(), Value::Object(groups));
    }
    if rarely(u, 4)? {
        let mut entry = json!({"claim": *pick(u, &CLAIM_PATHS)?, "header": *pick(u, &[HEADER_NAMES[3], HEADER_NAMES[5]])?});
        if rarely(u, 2)? {
            entry["encoding"] = json!("percent");
        }
        config.insert("claimHeaders".into(), json!([entry]));
    }
    if rarely(u, 3)? {
        if !rarely(u, 3)? {
            // It requires a single issuer.
            for entry in &mut balancers {
                entry["issuer"] = json!(ISSUERS[0]);
            }
        }
        config.insert("accessToken".into(), access_token_rules(u, ISSUERS[0])?);
    }
    let distinct = rarely(u, 2)?;
    for entry in &mut balancers {
        overrides(u, entry, distinct)?;
    }
    if !rarely(u, 3)? {
        config.insert("sharedNames".into(), json!(true));
    }
    let has_groups = config.contains_key("groups")
        || balancers.iter().any(|entry| entry.get("groups").is_some());
    let issuers: Vec<_> = balancers
        .iter()
        .filter_map(|entry| entry["issuer"].as_str())
        .collect();
    if rarely(u, 2)? {
        config.insert("rules".into(), rules(u, has_groups, &issuers)?);
    }
    config.insert("loadBalancers".into(), Value::Array(balancers));
    if rarely(u, 4)? {
        let mut logout = json!({"path": *pick(u, &["/logout", "/oauth2/sign_out"])?, "redirectTo": "https://idp.example.com/logout"});
        if rarely(u, 2)? {
            let names = [
                json!("Session"),
                json!([
                    "AWSELBAuthSessionCookie-12",
                    "Session",
                    "AWSELBAuthSessionCookie"
                ]),
            ];
            logout["sessionCookie"] = pick(u, &names)?.clone();
        }
        config.insert("logout".into(), logout);
    }
    if rarely(u, 3)? {
        let forward = json!({"oidcData": u.arbitrary::<bool>()?, "accessToken": u.arbitrary::<bool>()?, "sessionCookies": u.arbitrary::<bool>()?, "pathOverrides": u.arbitrary::<bool>()?});
        config.insert("forward".into(), forward);
    }
    if rarely(u, 4)? {
        config.insert(
            "reservedHeaders".into(),
            json!([*pick(u, &["x-machine-client", "X_Machine.Client", "x-a"])?]),
        );
    }
    if rarely(u, 6)? {
        config.insert("mode".into(), json!("report"));
    }
    let mut config = Value::Object(config);
    without_contradictions(&mut config);
    Ok(config)
}

/// The fields of `userId` that an entry of `loadBalancers` overrides, too.
fn user_id(u: &mut Unstructured<'_>) -> Result<Map<String, Value>> {
    let mut user_id = Map::new();
    if rarely(u, 3)? {
        user_id.insert("claims".into(), claim_paths(u)?);
    }
    if rarely(u, 4)? {
        user_id.insert(
            "prefix".into(),
            json!(*pick(u, &["user:", "https://idp#", "a b/", ""])?),
        );
    }
    for flag in ["lowercase", "requireVerifiedEmail"] {
        if rarely(u, 4)? {
            user_id.insert(flag.into(), json!(!rarely(u, 4)?));
        }
    }
    if rarely(u, 8)? {
        user_id.insert("provider".into(), json!("Okta"));
    }
    if rarely(u, 3)? {
        user_id.insert("transformers".into(), transformers(u)?);
    }
    Ok(user_id)
}

/// The fields of `groups` that an entry of `loadBalancers` overrides, too.
fn groups(u: &mut Unstructured<'_>) -> Result<Map<String, Value>> {
    let mut groups = Map::new();
    if rarely(u, 2)? {
        groups.insert("claims".into(), claim_paths(u)?);
    }
    if rarely(u, 3)? {
        groups.insert("prefix".into(), json!(*pick(u, &["oidc:", "g-", ""])?));
    }
    if rarely(u, 3)? {
        groups.insert(
            "keep".into(),
            json!(*pick(u, &["^a", "min", "^(ops|ml)$", "[0-9]", ""])?),
        );
    }
    if rarely(u, 4)? {
        groups.insert("separator".into(), json!(*pick(u, &[";", "|", " ", ","])?));
    }
    if rarely(u, 3)? {
        groups.insert("members".into(), json!(*pick(u, &["keys", "name"])?));
    }
    if rarely(u, 4)? {
        groups.insert("decode".into(), json!("form"));
    }
    if rarely(u, 4)? {
        groups.insert("transformers".into(), transformers(u)?);
    }
    Ok(groups)
}

fn access_token_rules(u: &mut Unstructured<'_>, issuer: &str) -> Result<Value> {
    let mut rules = json!({"issuer": issuer});
    if rarely(u, 3)? {
        rules["jwksUri"] = json!("https://keys.example.com/jwks");
    }
    if rarely(u, 3)? {
        rules["subject"] = json!("username");
    }
    Ok(rules)
}

/// Fields of an entry of `loadBalancers`. `distinct`: its users have a prefix of their own.
fn overrides(u: &mut Unstructured<'_>, entry: &mut Value, distinct: bool) -> Result<()> {
    let prefixes = ["one:", "two:", "any:"];
    let issuer = ISSUERS.iter().position(|issuer| entry["issuer"] == *issuer);
    let prefix = prefixes[issuer.unwrap_or(2)];
    for (name, fields) in [("userId", user_id as fn(&mut _) -> _), ("groups", groups)] {
        let mut own = if rarely(u, 3)? {
            fields(u)?
        } else {
            Map::new()
        };
        if distinct {
            own.insert("prefix".into(), json!(prefix));
        }
        if !own.is_empty() {
            entry[name] = Value::Object(own);
        }
    }
    if rarely(u, 6)? && issuer.is_some() {
        let issuer = entry["issuer"].as_str().unwrap_or_default().to_owned();
        entry["accessToken"] = access_token_rules(u, &issuer)?;
    }
    Ok(())
}

/// Removes contradictions that make the config invalid.
fn without_contradictions(config: &mut Value) {
    let for_all = config.get("accessToken").is_some();
    let mut for_any = for_all;
    if let Some(entries) = config["loadBalancers"].as_array_mut() {
        let mut seen = Vec::new();
        entries.retain(|entry| {
            let key = ["arn", "issuer", "clientId"].map(|name| entry[name].clone());
            let is_new = !seen.contains(&key);
            seen.push(key);
            is_new
        });
        for entry in entries {
            let own = entry.get("accessToken").is_some();
            for_any |= own;
            without_conflicts(entry, for_all || own);
        }
    }
    without_conflicts(config, for_any);
    if config
        .pointer("/claimHeaders/0/claim")
        .is_some_and(|claim| is_of_access_token(claim) && !for_any)
    {
        config["claimHeaders"] = json!([]);
    }
}

fn is_of_access_token(claim: &Value) -> bool {
    claim
        .as_str()
        .is_some_and(|claim| claim.starts_with("access:"))
}

/// The same for `userId` and `groups` of this object.
fn without_conflicts(object: &mut Value, has_access_token: bool) {
    for pointer in ["/userId/claims", "/groups/claims"] {
        if let Some(claims) = object.pointer_mut(pointer).and_then(Value::as_array_mut) {
            claims.retain(|claim| has_access_token || !is_of_access_token(claim));
            without_twins(claims);
            if claims.is_empty() {
                claims.push(json!("email"));
            }
        }
    }
    let claims = object.pointer("/userId/claims").and_then(Value::as_array);
    if claims.is_some_and(|claims| claims.iter().any(is_of_access_token)) {
        // `email_verified` belongs to one token only.
        object["userId"]["requireVerifiedEmail"] = json!(false);
    }
    let claims = object.pointer_mut("/groups/claims");
    if let Some(claims) = claims.and_then(Value::as_array_mut)
        && claims.iter().all(is_of_access_token)
    {
        // These are never form-encoded, so `decode` needs another.
        claims.push(json!("custom:groups"));
    }
}

fn without_twins(values: &mut Vec<Value>) {
    let mut seen = Vec::new();
    values.retain(|value| {
        let is_new = !seen.contains(value);
        seen.push(value.clone());
        is_new
    });
}

fn claim_paths(u: &mut Unstructured<'_>) -> Result<Value> {
    let mut paths = Vec::new();
    for _ in 0..u.int_in_range(1..=3)? {
        paths.push(json!(*pick(u, &CLAIM_PATHS)?));
    }
    Ok(Value::Array(paths))
}

/// Regexes that mean the same with and without Unicode classes.
pub(crate) const TRANSFORMERS: [(&str, &str); 9] = [
    (r"@example\.com$", ""),
    (r"^([^@]+)@(.*)$", "$2/$1"),
    ("a", "${0}b"),
    (".*", ""),
    ("n+", "$$"),
    ("^(?<who>[a-z]+)", "${who}x$whox"),
    ("x*", "-"),
    ("(?i)ANN", "Ann"),
    ("(", "never"),
];

fn transformers(u: &mut Unstructured<'_>) -> Result<Value> {
    let mut rules = Vec::new();
    for _ in 0..u.int_in_range(1..=3)? {
        let (matches, replaces) = *pick(u, &TRANSFORMERS[..8])?;
        rules.push(json!({"matches": matches, "replaces": replaces}));
    }
    Ok(Value::Array(rules))
}

const PATTERNS: [(&str, &str); 14] = [
    ("exact", "/"),
    ("exact", "/admin"),
    ("exact", "/healthz"),
    ("exact", "/public"),
    ("prefix", "/public/"),
    ("prefix", "/api/"),
    ("prefix", "/admin"),
    ("prefix", "/api/admin/"),
    ("prefix", "/"),
    ("suffix", ".css"),
    ("suffix", "/open"),
    ("regex", "^/api/v[0-9]+/"),
    ("regex", "admin"),
    ("regex", "^/public$"),
];
const HOSTS: [&str; 4] = [
    "argocd.example.com",
    "*.example.com",
    "kubeflow.example.org",
    "*.example.org",
];
const METHODS: [&str; 4] = ["GET", "POST", "OPTIONS", "DELETE"];

/// `rules`, for users of these issuers.
pub(crate) fn rules(u: &mut Unstructured<'_>, has_groups: bool, issuers: &[&str]) -> Result<Value> {
    let mut rules = Vec::new();
    for _ in 0..u.int_in_range(1..=5)? {
        let mut matching = Map::new();
        if rarely(u, 4)? {
            matching.insert("hosts".into(), json!([*pick(u, &HOSTS)?]));
        }
        if !rarely(u, 5)? {
            let mut paths = Vec::new();
            for _ in 0..u.int_in_range(1..=2)? {
                let (kind, text) = *pick(u, &PATTERNS)?;
                paths.push(json!({kind: text}));
            }
            matching.insert("paths".into(), Value::Array(paths));
        }
        if rarely(u, 4)? {
            matching.insert("methods".into(), json!([*pick(u, &METHODS)?]));
        }
        if matching.is_empty() {
            // A rule that opens everything is rejected.
            matching.insert("methods".into(), json!(METHODS));
        }
        let mut rule = json!({"match": matching});
        let demand = u.int_in_range(0..=4)?;
        if demand > 2 && !issuers.is_empty() && rarely(u, 3)? {
            rule["match"]["issuers"] = json!([*pick(u, issuers)?]);
        }
        match demand {
            0 | 1 => rule["require"] = json!("none"),
            2 => rule["require"] = json!("optional"),
            3 => {
                let mut allow =
                    json!({"users": [*pick(u, &["ann@example.com", "user:ann", "bob"])?]});
                if rarely(u, 2)? {
                    allow["domains"] = json!([*pick(
                        u,
                        &["example.com", "*.example.com", "ops.example.org"]
                    )?]);
                }
                if has_groups && rarely(u, 2)? {
                    let groups = ["admins", "oidc:admins", "g-ml", "a,b", "one:admins"];
                    allow["groups"] = json!([*pick(u, &groups)?]);
                }
                rule["allow"] = allow;
            }
            _ => {}
        }
        rules.push(rule);
    }
    Ok(Value::Array(rules))
}

/// Any JSON for a claim.
fn value(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=15)? {
        0 => Value::Null,
        1 => json!(u.arbitrary::<bool>()?),
        2 => json!(*pick(
            u,
            &[
                0u64,
                1,
                NOW - 31,
                NOW - 30,
                NOW - 29,
                NOW,
                NOW + 60,
                253_402_300_799,
                u64::MAX
            ]
        )?),
        3 => json!(*pick(u, &[-1.0, 0.5, 1e300, 9_007_199_254_740_992.0])?),
        4 => json!(*pick(u, &["true", "false", "TRUE", ""])?),
        5 => json!([
            *pick(u, &["admins", "a,b", "ml", " ops", "", "system:masters"])?,
            *pick(u, &["ops", "admins", "x\ny"])?
        ]),
        6 => json!(*pick(
            u,
            &[
                "admins",
                "[admins, ops]",
                "admins,ml",
                "[]",
                "\"ml\" , ops",
                "[a",
                "[ops\\,admins, ml]",
                "ml\\\\,admins",
                "ml\\",
                "[\"ml\", \"a,b\"]",
                "\"ml\" \"a b\"",
                "\"ml\"x,ops",
                "ml;ops|admins;\"a;b\"",
                "ML+ops,ad%6Dins,a%2Cb,%",
                "[\"admins\"",
                "[{\"providerName\": \"Okta\"}]"
            ]
        )?),
        7 => json!({"b": text(u, &["inner", ""])?, "b.c": 1, "c": true}),
        8 => json!({"b": {"c": text(u, &["deep"])?}}),
        9 => json!([1, true, *pick(u, &["x", "na\u{200c}me", "100%"])?]),
        10 => json!([{"name": text(u, &["admins", "a,b"])?}, {"name": 1}, {"id": "ml"}]),
        11 => {
            let mut members = json!({"admins": {"a": 1}, "former": null, "ops": ""});
            members[text(u, &["ml", "a,b"])?] = json!(*pick(u, &[0, 1])?);
            members
        }
        12 => json!([*pick(
            u,
            &[
                "[\"admins\", \"a,b\"]",
                "[]",
                "[ml]",
                "[\"ml\"",
                "a%2Cb",
                "ML+ops"
            ]
        )?]),
        13 => json!([{"providerName": "Okta"}, {"providerName": *pick(u, &["Okta", "Google"])?}]),
        14 => json!(*pick(
            u,
            &[
                "ann@example.com",
                "Okta_ann",
                "na\u{200d}me",
                "Ann@Example.COM",
                "bob",
                "ann",
                "a@ops.example.org",
                "x@y@sub.example.com"
            ]
        )?),
        _ => json!(text(
            u,
            &["ann\u{200b}", " ann", "ann\r\nx-admin: 1", "\u{e9}", "*"]
        )?),
    })
}

fn changed(
    u: &mut Unstructured<'_>,
    genuine: &mut Map<String, Value>,
    names: &[&str],
) -> Result<()> {
    while rarely(u, 2)? {
        let name = *pick(u, names)?;
        if rarely(u, 4)? {
            genuine.remove(name);
        } else {
            genuine.insert(name.to_owned(), value(u)?);
        }
    }
    Ok(())
}

/// Its text, rarely with a change that makes it lenient JSON.
fn written(u: &mut Unstructured<'_>, object: &Map<String, Value>) -> Result<Vec<u8>> {
    let mut text = serde_json::to_string(object).expect("JSON");
    if rarely(u, 32)? {
        let inserted = *pick(
            u,
            &[
                r#","email":"eve@example.com"}"#,
                r#","a":[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}"#,
                r#","a":[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}"#,
                r#","n":1e999}"#,
                r#","n":123456789012345678901234567890}"#,
                r#","n":"\ud800"}"#,
                r#","n":01}"#,
                r#","kid":"x"}"#,
                ",}",
                "} ",
                "}{",
                "",
            ],
        )?;
        text.pop();
        text.push_str(inserted);
    }
    let mut bytes = text.into_bytes();
    if rarely(u, 32)? && !bytes.is_empty() {
        let at = u.choose_index(bytes.len())?;
        let genuine = std::mem::replace(&mut bytes[at], u.arbitrary()?);
        if jws::has_minus_zero(&bytes) {
            bytes[at] = genuine;
        }
    }
    Ok(bytes)
}

fn encoding(u: &mut Unstructured<'_>) -> Result<Encoding> {
    Ok(match u.int_in_range(0..=7)? {
        0 => BASE64,
        1 => BASE64URL_NOPAD,
        _ => BASE64URL,
    })
}

fn spoiled(u: &mut Unstructured<'_>, text: &mut Vec<u8>) -> Result<()> {
    if rarely(u, 32)? && !text.is_empty() {
        let at = u.choose_index(text.len())?;
        match u.int_in_range(0..=3)? {
            0 => text[at] = u.arbitrary()?,
            1 => drop(text.remove(at)),
            2 => text.insert(at, *pick(u, b"=.-_+/A \xff")?),
            _ => text.truncate(at),
        }
    }
    Ok(())
}

/// A token of one of the config's load balancers, or a similar one.
pub(crate) fn alb_token(u: &mut Unstructured<'_>, config: &Value) -> Result<Vec<u8>> {
    let entries = config["loadBalancers"].as_array().expect("load balancers");
    let entry = u.choose(entries)?;
    let genuine = |u: &mut Unstructured<'_>, name: &str, others: &[&str]| -> Result<Value> {
        Ok(if entry[name].is_null() || rarely(u, 16)? {
            json!(*pick(u, others)?)
        } else {
            entry[name].clone()
        })
    };
    let mut header = Map::from_iter([
        ("typ".to_owned(), json!("JWT")),
        ("alg".to_owned(), json!("ES256")),
        (
            "kid".to_owned(),
            json!(KIDS[usize::from(u.int_in_range(0..=23u8)?).saturating_sub(18)]),
        ),
        ("signer".to_owned(), genuine(u, "arn", &ARNS)?),
        ("iss".to_owned(), genuine(u, "issuer", &ISSUERS)?),
        ("client".to_owned(), genuine(u, "clientId", &CLIENTS)?),
        ("exp".to_owned(), json!(expiry(u)?)),
    ]);
    let names = [
        "alg", "kid", "signer", "iss", "client", "exp", "typ", "crit", "jwk", "x", "b64",
    ];
    if rarely(u, 12)? {
        changed(u, &mut header, &names)?;
    }
    let mut payload = Map::from_iter([
        ("sub".to_owned(), json!("7f3c1c1e")),
        ("email".to_owned(), json!("ann@example.com")),
        ("email_verified".to_owned(), json!("true")),
        ("exp".to_owned(), json!(expiry(u)?)),
        (
            "iss".to_owned(),
            header.get("iss").cloned().unwrap_or_default(),
        ),
    ]);
    if rarely(u, 4)? {
        payload.insert("username".to_owned(), json!("Okta_ann"));
        payload.insert(
            "identities".to_owned(),
            json!(r#"[{"providerName":"Okta"}]"#),
        );
    }
    changed(u, &mut payload, &CLAIM_NAMES)?;
    if rarely(u, 12)? {
        changed(u, &mut payload, &["exp", "iss"])?;
    }
    let encoding = encoding(u)?;
    let mut text = encoding.encode(&written(u, &header)?).into_bytes();
    text.push(b'.');
    text.extend_from_slice(encoding.encode(&written(u, &payload)?).as_bytes());
    spoiled(u, &mut text)?;
    let mut signature = toy::sign_es256(u8::from(rarely(u, 16)?), &text);
    if rarely(u, 24)? {
        let at = u.choose_index(signature.len())?;
        signature[at] ^= 1;
        signature.truncate(u.int_in_range(62..=64)?);
    }
    text.push(b'.');
    text.extend_from_slice(encoding.encode(&signature).as_bytes());
    spoiled(u, &mut text)?;
    if rarely(u, 64)? {
        text.resize(*pick(u, &[16_384, 16_385])?, b'A');
    }
    Ok(text)
}

fn expiry(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(if rarely(u, 8)? {
        NOW + u.int_in_range(0..=700)? - 350
    } else {
        NOW + 120
    })
}

/// A provider's access token.
pub(crate) fn access_token(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut header = Map::from_iter([
        ("alg".to_owned(), json!("RS256")),
        (
            "kid".to_owned(),
            json!(
                [
                    "pool", "pool", "pool", "second", "unknown", "broken", "silent"
                ][u.int_in_range(0..=6)?]
            ),
        ),
    ]);
    if rarely(u, 6)? {
        changed(u, &mut header, &["alg", "kid", "crit", "jwk", "typ"])?;
    }
    let mut payload = Map::from_iter([
        ("sub".to_owned(), json!("7f3c1c1e")),
        ("iss".to_owned(), json!(ISSUERS[0])),
        ("client_id".to_owned(), json!(CLIENTS[0])),
        ("token_use".to_owned(), json!("access")),
        ("username".to_owned(), json!("ann")),
        (
            "cognito:groups".to_owned(),
            json!(["admins", "ml", "ml+ops"]),
        ),
        ("exp".to_owned(), json!(expiry(u)?)),
    ]);
    if rarely(u, 2)? {
        changed(
            u,
            &mut payload,
            &[
                "sub",
                "iss",
                "client_id",
                "token_use",
                "username",
                "cognito:groups",
                "exp",
                "nbf",
            ],
        )?;
    }
    let encoding = if rarely(u, 12)? {
        encoding(u)?
    } else {
        BASE64URL_NOPAD
    };
    let mut text = encoding.encode(&written(u, &header)?).into_bytes();
    text.push(b'.');
    text.extend_from_slice(encoding.encode(&written(u, &payload)?).as_bytes());
    spoiled(u, &mut text)?;
    let signature = toy::sign_rs256(u8::from(rarely(u, 12)?), &text);
    text.push(b'.');
    text.extend_from_slice(encoding.encode(&signature).as_bytes());
    spoiled(u, &mut text)?;
    Ok(text)
}

const PIECES: [&str; 40] = [
    "/",
    "/",
    "/",
    "public",
    "public/",
    "admin",
    "api",
    "healthz",
    "v1",
    "open",
    "logout",
    "oauth2/sign_out",
    "..",
    ".",
    "/../",
    "/./",
    "//",
    "%2e",
    "%2E%2e",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    ";x=1",
    ";",
    "%3b",
    "?q=/admin",
    "%3f",
    "#f",
    "%23",
    "%25",
    "%252e",
    "%61",
    "%41",
    "ADMIN",
    "Public",
    ".css",
    "%00",
    "\u{e9}",
    "%c3%28",
];

/// A `:path`.
pub(crate) fn path(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut path = if rarely(u, 32)? {
        Vec::new()
    } else {
        b"/".to_vec()
    };
    let pieces = if rarely(u, 3)? { 7 } else { 2 };
    for _ in 0..u.int_in_range(0..=pieces)? {
        path.extend_from_slice(pick(u, &PIECES)?.as_bytes());
    }
    if rarely(u, 16)? {
        path.push(u.arbitrary()?);
    }
    Ok(path)
}

/// `:method` and `:authority`.
pub(crate) fn target(u: &mut Unstructured<'_>) -> Result<(String, String)> {
    let method = if rarely(u, 12)? {
        text(u, &["get", "Delete", "HEAD", ""])?
    } else {
        (*pick(u, &METHODS)?).to_owned()
    };
    let authority = if rarely(u, 6)? {
        text(
            u,
            &[
                "x@argocd.example.com",
                "a..",
                "",
                "[::1]:80",
                "argocd.example.com:443:80",
                "[]",
                "a_b:",
                "argocd,x",
                ".",
            ],
        )?
    } else {
        let host = *pick(
            u,
            &[
                "argocd.example.com",
                "ARGOCD.example.com.",
                "kubeflow.example.org",
                "gateway",
            ],
        )?;
        format!("{host}{}", pick(u, &["", ":443", "."])?)
    };
    Ok((method, authority))
}

const EXTRA: [&str; 36] = [
    "x-machine-client",
    "x_machine.client",
    "script_name",
    "x-original_url",
    "x-http-method-override",
    "x-forwarded-script-name",
    "kubeflow-userid",
    "kubeflow_userid",
    "kubeflow.userid",
    "kubeflow~userid",
    "kubeflow|groups",
    "x.user",
    "x-group!admins",
    "x-amzn.oidc+data",
    "kubeflow-groups",
    "kubeflow_groups",
    "x-user",
    "x_user",
    "x-user-name",
    "x_user_name",
    "x-user-groups",
    "x_user-groups",
    "x-team",
    "x_team",
    "x-group-admins",
    "x_group-admins",
    "x-group-",
    "x_member-a",
    "x-member_a",
    "x_amzn_oidc_data",
    "x-amzn_oidc-data",
    "x_amzn_oidc_identity",
    "x-amzn-trace-id",
    "accept",
    "x-amzn-oidc-dat",
    "x-userx",
];
const COOKIES: [&str; 12] = [
    "a=1",
    "AWSELBAuthSessionCookie-0=x",
    " AWSELBAuthSessionCookie-12=y",
    "AWSELBAuthSessionCookie=z",
    "AWSELBAuthSessionCookie-12-3=s",
    "AWSALBAuthNonce=n",
    "Session-1=s",
    "AWSELBAuthSessionCookie-=n",
    "AWSELBAuthSessionCookie-0",
    "",
    "b=\"q;q\"",
    "awselbauthsessioncookie-0=l",
];

/// Other headers that a client may send.
pub(crate) fn further(u: &mut Unstructured<'_>, head: &mut Headers) -> Result<()> {
    while rarely(u, 2)? {
        head.push(((*pick(u, &EXTRA)?).to_owned(), b"evil".to_vec()));
    }
    if rarely(u, 3)? {
        for _ in 0..u.int_in_range(1..=2)? {
            let mut pairs = Vec::new();
            for _ in 0..u.int_in_range(1..=4)? {
                pairs.push(*pick(u, &COOKIES)?);
            }
            head.push((
                "cookie".to_owned(),
                pairs.join(pick(u, &["; ", ";", " ; "])?).into_bytes(),
            ));
        }
    }
    if rarely(u, 3)? {
        for _ in 0..u.int_in_range(1..=2)? {
            let identity = *pick(u, &["7f3c1c1e", "someone else"])?;
            head.push((
                "x-amzn-oidc-identity".to_owned(),
                identity.as_bytes().to_vec(),
            ));
        }
    }
    if rarely(u, 8)? {
        let (name, value) = *pick(
            u,
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
                ("sec-purpose", "prefetch"),
                ("upgrade", "websocket"),
                ("upgrade", "WebSocket, spdy/3.1"),
                ("upgrade", "SPDY/3.1"),
                (":protocol", "bytestream"),
                ("sec-fetch-site", "same-origin"),
            ],
        )?;
        head.push((name.to_owned(), value.as_bytes().to_vec()));
    }
    Ok(())
}
