//! Maps claims to an identity, with several configurations: strict JSON, user id, transformers,
//! groups, claim headers.

use std::sync::LazyLock;
use std::time::Duration;

use alb_oidc_filter::{Claims, Config, Timestamp, UntrustedToken};
use data_encoding::BASE64URL;
use serde_json::{Value, json};

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
    let parsed = configs.into_iter().map(|mut config| {
        config["loadBalancers"] = json!([{"arn": ARNS[0], "issuer": null, "clientId": null}]);
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
    texts
        .iter()
        .enumerate()
        .map(|(number, text)| [&[number as u8], text.as_bytes()].concat())
        .collect()
}

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
            let reasons = expected.as_ref().map_or(vec!["token-malformed"], refusals);
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
    assert!(refusals(&expected).is_empty(), "{expected}");
    let found = Value::Object(claims.by_name().clone());
    assert!(is_same(&found, &expected), "{found}, expected {expected}");
    let object = claims.by_name();

    let judged = identity::identity(
        value,
        &identity::Claims {
            alb: object,
            access: None,
        },
    );
    let found = config.users_of(claims.load_balancer()).identity.identity(&claims);
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
fn refusals(claims: &Value) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    match claims
        .get("exp")
        .map(|found| found.as_u64().filter(|date| *date < 253_402_300_800))
    {
        None => {}
        Some(None) => return vec!["token-malformed"],
        Some(Some(date)) if date + 30 <= NOW => reasons.push("token-expired"),
        Some(Some(_)) => {}
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
