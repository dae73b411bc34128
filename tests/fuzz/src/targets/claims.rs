//! Maps claims to an identity, with several configurations: strict JSON, user id, transformers,
//! groups, claim headers.

use std::sync::LazyLock;
use std::time::Duration;

use alb_oidc_filter::{Claims, Config, Timestamp, UntrustedToken};
use data_encoding::BASE64URL;
use serde_json::{Value, json};

use crate::judge::verdict::settings;
use crate::judge::{identity, jws};
use crate::mint::{ARNS, CLIENTS, ISSUERS, KIDS, NOW, TRANSFORMERS};
use crate::{seeds, toy};

static CONFIGS: LazyLock<Vec<(Value, Config)>> = LazyLock::new(|| {
    let mut configs = vec![
        json!({}),
        json!({"userId": {"claims": ["custom:id", "a.b.c", "sub"], "prefix": "user:", "requireVerifiedEmail": true}}),
        json!({"userId": {"lowercase": true, "header": "x-user"}, "groups": {"claims": ["custom:groups", "roles", "a.b"], "memberHeaderPrefix": "x-group-"}}),
        json!({"groups": {"prefix": "oidc:", "keep": "^[a-m]", "header": "x-groups"}, "claimHeaders": [{"claim": "name", "header": "x-name"}, {"claim": "a.b", "header": "x-ab"}]}),
    ];
    for (matches, replaces) in &TRANSFORMERS[..8] {
        configs.push(json!({"userId": {"transformers": [{"matches": matches, "replaces": replaces}, {"matches": "^b", "replaces": "c"}]}}));
    }
    let table = json!([{"matches": "^CN=([^,]+),.*$", "replaces": "$1"}, {"matches": "^d", "replaces": "x,"}]);
    configs.extend([
        json!({"groups": {"separator": ";", "members": "keys", "transformers": table, "memberHeaderPrefix": "x-group-"}}),
        json!({"groups": {"separator": " ", "members": "name", "claims": ["custom:groups", "roles"]}}),
        json!({"groups": {"separator": "|", "decode": "form", "prefix": "oidc:"}}),
        json!({"groups": {"decode": "form", "transformers": table, "memberHeaderPrefix": "x-group-"}}),
        json!({"userId": {"provider": "Okta"}, "claimHeaders": [{"claim": "name", "header": "x-name", "encoding": "percent"}]}),
    ]);
    let entry = json!({"arn": ARNS[0], "issuer": null, "clientId": null});
    let top = |mut config: Value| {
        config["loadBalancers"] = json!([entry]);
        config
    };
    // Each field of the entry takes the place of one at the top level.
    let mut overriding = json!({
        "userId": {"claims": ["sub"], "prefix": "a:", "lowercase": true, "transformers": [{"matches": "a", "replaces": "b"}]},
        "groups": {"separator": ";", "keep": "^a", "prefix": "g:", "memberHeaderPrefix": "x-group-"},
        "loadBalancers": [entry],
    });
    overriding["loadBalancers"][0]["userId"] = json!({"claims": ["email"], "prefix": ""});
    overriding["loadBalancers"][0]["groups"] = json!({"members": "name", "keep": "", "transformers": [{"matches": "^a", "replaces": "b"}]});
    let mut adding = json!({"loadBalancers": [entry]});
    adding["loadBalancers"][0]["groups"] = json!({"prefix": "g:"});
    let configs = configs.into_iter().map(top).chain([overriding, adding]);
    let parsed = configs.map(|config| {
        let parsed = Config::parse(config.to_string().as_bytes()).expect("a config");
        (config, parsed)
    });
    parsed.collect()
});

/// Payloads of the scenarios, and a real one.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut texts = seeds::scenarios(&["payload_text"]);
    texts.extend(
        seeds::scenarios(&["payload_append"])
            .iter()
            .map(|member| format!(r#"{{"email":"a@b.example",{member}}}"#)),
    );
    let genuine = json!({"email": "ann@example.com", "sub": "7f3c1c1e"});
    texts.extend(
        seeds::scenario_tables("payload", &genuine)
            .iter()
            .map(Value::to_string),
    );
    let real = seeds::json_vector("alb-token-2019-oidc.json");
    let payloads = real
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, value)| value.as_str()?.split('.').nth(1));
    texts.extend(payloads.filter_map(|payload| String::from_utf8(jws::base64(payload)?).ok()));
    let mut seeds: Vec<Vec<u8>> = texts
        .iter()
        .enumerate()
        .map(|(number, text)| [&[number as u8], text.as_bytes()].concat())
        .collect();
    let valued = VALUES.iter().map(|value| {
        let claims = json!({"email": "ann@example.com", "username": "Okta_ann"});
        let mut claims = claims.to_string();
        claims.pop();
        let names = ["custom:groups", "roles", "name", "identities"];
        for name in names {
            claims.push_str(&format!(",{}:{value}", json!(name)));
        }
        claims + "}"
    });
    for text in valued {
        let choices = 0..CONFIGS.len();
        seeds.extend(choices.map(|number| [&[number as u8], text.as_bytes()].concat()));
    }
    seeds
}

/// Claims, as JSON, that `docs/configuration.md` has a rule for.
const VALUES: [&str; 40] = [
    r#"["ml", "data ops", "a,b", ""]"#,
    r#""ml,data ops""#,
    r#""[ml, data ops]""#,
    r#""[sales\\,eu, users]""#,
    r#""[sales\\\\,eu, users]""#,
    r#""a\\,b\\,c\\""#,
    r#""[\"ml\", \"data, ops\", 7]""#,
    r#""[\"ml\", \"data ops\"""#,
    r#"["[\"ml\", \"data ops\"]"]"#,
    r#"["[\"ml\"]", "ops"]"#,
    r#"["[ ]"]"#,
    r#""\"ml\", \"data, ops\"""#,
    r#""\"ml\"x, ops""#,
    r#""\"ml, ops""#,
    r#""\"ml\\\", ops""#,
    r#""ml \"a\",ops""#,
    r#""\"a b\"\t \"c\" d""#,
    r#""ml;data ops;\"a;b\" ;[c]""#,
    r#""ml|data+ops|ad%6Dins|a%2Cb|%""#,
    r#"["ML+ops", "a%2cb", "%c3%28", "a%0a", "a,b"]"#,
    r#"{"admin": {"a": 1}, "former": null, "b": false, "c": "", "d": [], "e": {}, "f": 0}"#,
    r#"[{"name": "admins"}, {"name": 1}, {"id": "x"}, "ml", null]"#,
    r#"["CN=Admins,OU=Groups,DC=example", "dcomma", "CN=system:masters,", "CN= a,"]"#,
    r#"[{"providerName": "Okta", "userId": "7"}]"#,
    r#""[{\"providerName\":\"Okta\"}]""#,
    r#"[{"providerName": "Okta"}, {"providerName": "Google"}]"#,
    r#"[]"#,
    r#"18446744073709551615"#,
    r#"18446744073709551616"#,
    r#"-9223372036854775809"#,
    r#"9007199254740993.0"#,
    r#"9007199254740991.5"#,
    r#"[1, true, 0.5, "a"]"#,
    r#"[1, 1e16]"#,
    r#"["a ", "b"]"#,
    r#""na\u200cme""#,
    r#"["na\u200dme", "\u200d"]"#,
    r#""\u200cname""#,
    r#""100% Zo\u00eb, B-1._~""#,
    r#"["a", ["b"]]"#,
];

/// The first byte selects the configuration; the rest is the payload.
pub fn run(data: &[u8]) {
    let Some((choice, payload)) = data.split_first() else {
        return;
    };
    if jws::has_minus_zero(payload) {
        return;
    }
    let (value, config) = &CONFIGS[usize::from(*choice) % CONFIGS.len()];
    let expected = jws::json(payload, jws::CLAIMS_DEPTH).filter(Value::is_object);
    let claims = match claims(config, payload) {
        None => return,
        Some(Err(reason)) => {
            let reasons = expected.as_ref().map_or(vec!["token-malformed"], denials);
            return assert!(
                reasons.contains(&reason),
                "{reason}, expected {reasons:?}: {}",
                String::from_utf8_lossy(payload)
            );
        }
        Some(Ok(claims)) => claims,
    };
    let expected =
        expected.unwrap_or_else(|| panic!("not strict: {}", String::from_utf8_lossy(payload)));
    assert!(denials(&expected).is_empty(), "{expected}");
    let found = Value::Object(claims.by_name().clone());
    assert!(is_same(&found, &expected), "{found}, expected {expected}");
    let object = claims.by_name();

    let judged = identity::identity(
        &settings(value, &value["loadBalancers"][0]),
        &identity::Claims {
            alb: object,
            access: None,
        },
    );
    let found = config
        .users_of(claims.load_balancer())
        .identity
        .identity(&claims);
    match (found, judged) {
        (Ok(found), Ok(judged)) => {
            // The gate adds the user id's header.
            let user_id = (
                config.users.identity.user_id_header.clone(),
                found.user_id.clone(),
            );
            let headers = std::iter::once(user_id).chain(found.headers);
            let headers: Vec<_> = headers
                .map(|(name, value)| (name, value.into_bytes()))
                .collect();
            assert_eq!(headers, judged.headers, "{expected}");
            assert_eq!(
                (
                    found.user_id,
                    found.email_domain,
                    found.groups,
                    found.subject
                ),
                (judged.user_id, judged.domain, judged.groups, judged.subject),
                "{expected}"
            );
        }
        (found, judged) => {
            let (found, judged) = (
                found.map(|_| ()).map_err(|reason| reason.name()),
                judged.map(|_| ()),
            );
            assert_eq!(found, judged, "{expected}\n{value}");
        }
    }
}

/// Equal, apart from the last bit of a double: `serde_json` rounds fast, not exactly.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (
                a.as_f64().unwrap_or_default(),
                b.as_f64().unwrap_or_default(),
            );
            (a - b).abs() <= a.abs() * 2.0 * f64::EPSILON + f64::from_bits(1)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| is_same(a, b)))
        }
        (one, other) => one == other,
    }
}

/// The reason why these claims are invalid.
fn denials(claims: &Value) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    let date = claims
        .as_object()
        .map(|claims| jws::date(claims, "exp", false));
    match date {
        None | Some(Ok(None)) => {}
        Some(Err(_)) => return vec!["token-malformed"],
        Some(Ok(Some(date))) if date + 30 <= NOW => reasons.push("token-expired"),
        Some(Ok(Some(_))) => {}
    }
    match claims.get("iss") {
        Some(Value::String(issuer)) if issuer != ISSUERS[0] => reasons.push("issuer-mismatch"),
        None | Some(Value::String(_)) => {}
        Some(_) => reasons.push("token-malformed"),
    }
    reasons
}

/// The claims of an otherwise genuine token. `None`: too long for one.
fn claims(config: &Config, payload: &[u8]) -> Option<Result<Claims, &'static str>> {
    let header = json!({"alg": "ES256", "kid": KIDS[0], "signer": ARNS[0], "iss": ISSUERS[0], "client": CLIENTS[0], "exp": NOW});
    let signed = format!(
        "{}.{}",
        BASE64URL.encode(header.to_string().as_bytes()),
        BASE64URL.encode(payload)
    );
    let token = format!(
        "{signed}.{}",
        BASE64URL.encode(&toy::sign_es256(0, signed.as_bytes()))
    );
    let (now, skew) = (Timestamp::from_seconds(NOW), Duration::from_secs(30));
    let screened = UntrustedToken::parse(token.as_bytes())
        .ok()?
        .screen(&config.load_balancers, now, skew)
        .ok()?;
    let verified = toy::verifier()
        .verify(&screened, toy::p256(0))
        .expect("a genuine signature");
    Some(
        verified
            .claims(now, skew)
            .map_err(|error| error.reason().name()),
    )
}

/// The claims of an empty token.
pub(crate) fn empty() -> Claims {
    claims(&CONFIGS[0].1, b"{}")
        .expect("a short token")
        .unwrap_or_else(|reason| panic!("{reason}"))
}
