//! A request to the gate as text, which a fuzzer can change anywhere and a person can read. Judges nothing.
//!
//! ```text
//! NUMBER of the scenarios' configuration
//! METHOD HOST PATH
//! name: value            {token}: the token below, signed; {access_token}: the other
//!
//! JOSE header
//! payload
//! payload of the access token, where there is one
//! ```

use std::sync::LazyLock;

use alb_oidc_filter::config::Config;
use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use serde_json::{Map, Value, json};

use super::{judge, worker};
use crate::judge::jws::has_minus_zero;
use crate::judge::verdict::Headers;
use crate::mint::{ARNS, CLIENTS, ISSUERS, KIDS, NOW};
use crate::{seeds, toy};

/// What a request begins with that is written so.
pub(super) const MARK: u8 = b'@';

/// Those that can be judged: the others are of another time, or of signatures.
static CONFIGS: LazyLock<Vec<(String, Value)>> = LazyLock::new(|| {
    let can_be = |config: &Value| Config::parse(config.to_string().as_bytes()).is_ok();
    seeds::configs().into_iter().filter(|(_, config)| can_be(config)).collect()
});

/// Plays it twice, the second time with what is remembered; `None` where it is no request.
pub(super) fn play(text: &str) -> Option<()> {
    let (request, tokens) = text.split_once("\n\n")?;
    let mut lines = request.lines();
    let number: usize = lines.next()?.parse().ok()?;
    let config = &CONFIGS[number % CONFIGS.len()].1;
    let mut target = lines.next()?.splitn(3, ' ');
    let (method, host, path) = (target.next()?, target.next()?, target.next()?);
    let mut parts = tokens.splitn(3, '\n');
    let (header, payload) = (parts.next()?, parts.next()?);
    let access = parts.next().unwrap_or_default();
    if [header, payload, access].iter().any(|text| has_minus_zero(text.as_bytes())) {
        return None;
    }
    let token = alb_token(header, payload);
    let access_token = access_token(access);
    let mut head: Headers = [(":method", method), (":authority", host), (":path", path)]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !name.is_empty() && name.bytes().all(is_name) {
            let value = value.replace("{token}", &token).replace("{access_token}", &access_token);
            head.push((name.to_ascii_lowercase(), value.into_bytes()));
        }
    }
    let (mut gate, mut ring) = worker(Config::parse(config.to_string().as_bytes()).expect("a config"));
    let mut steady = 5000;
    for _ in 0..2 {
        judge(config, &mut gate, &mut ring, &head, NOW * 1000, &mut steady);
    }
    Some(())
}

fn alb_token(header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", BASE64URL.encode(header.as_bytes()), BASE64URL.encode(payload.as_bytes()));
    format!("{signed}.{}", BASE64URL.encode(&toy::sign_es256(0, signed.as_bytes())))
}

fn access_token(payload: &str) -> String {
    let header = r#"{"alg":"RS256","kid":"pool"}"#;
    let encoded = [header, payload].map(|text| BASE64URL_NOPAD.encode(text.as_bytes()));
    let signed = encoded.join(".");
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&toy::sign_rs256(0, signed.as_bytes())))
}

/// The requests of a row, as far as they can be written so.
pub(super) fn seeds(row: &toml::Table) -> Vec<Vec<u8>> {
    let name = row.get("config").and_then(toml::Value::as_str).unwrap_or("default");
    let Some(config) = CONFIGS.iter().position(|(known, _)| known == name) else { return Vec::new() };
    let steps = row.get("requests").and_then(toml::Value::as_array);
    let steps: Vec<toml::Table> = match steps {
        Some(steps) => steps.iter().filter_map(|step| step.as_table().cloned()).collect(),
        None => vec![toml::Table::new()],
    };
    let written = |step: &toml::Table| {
        let field = |name: &str| step.get(name).or_else(|| row.get(name));
        let text = |name: &str, default: &'static str| field(name).and_then(toml::Value::as_str).unwrap_or(default);
        let texts = |name: &str| -> Option<Vec<&str>> {
            Some(field(name)?.as_array()?.iter().filter_map(toml::Value::as_str).collect())
        };
        let mut lines = vec![
            config.to_string(),
            [text("method", "GET"), text("host", "gateway.test"), text("path", "/")].join(" "),
        ];
        lines.extend(
            texts("oidc_data").unwrap_or(vec!["{token}"]).iter().map(|value| format!("x-amzn-oidc-data: {value}")),
        );
        lines.extend(texts("headers").unwrap_or_default().into_iter().map(str::to_owned));
        let access = row.get("access_token").and_then(|token| token.get("payload"));
        if row.contains_key("access_token") {
            lines.push("x-amzn-oidc-accesstoken: {access_token}".to_owned());
        }
        let token = row.get("token");
        let part = |name: &str| token.and_then(|token| token.get(name));
        let header = json!({
            "typ": "JWT", "alg": "ES256", "kid": KIDS[0], "signer": ARNS[0], "iss": ISSUERS[0], "client": CLIENTS[0],
            "exp": NOW + 60,
        });
        let payload = json!({"sub": SUBJECT, "email": "ann@example.com", "exp": NOW + 60, "iss": ISSUERS[0]});
        let claims = json!({
            "sub": SUBJECT, "token_use": "access", "client_id": CLIENTS[0], "exp": NOW + 60, "iss": ISSUERS[0],
            "username": "ann",
        });
        lines.push(String::new());
        lines.extend([over(header, part("header")), over(payload, part("payload")), over(claims, access)]);
        [vec![MARK], lines.join("\n").into_bytes()].concat()
    };
    steps.iter().map(written).collect()
}

const SUBJECT: &str = "7f3c1c1e";

/// `genuine`, with what a row has in its place.
fn over(genuine: Value, changed: Option<&toml::Value>) -> String {
    let changed: Map<String, Value> =
        changed.and_then(|changed| serde_json::to_value(changed).ok()?.as_object().cloned()).unwrap_or_default();
    let mut object = genuine;
    object.as_object_mut().expect("an object").extend(changed);
    object.to_string()
}
