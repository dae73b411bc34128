//! A request to the gate as text, which is easy to mutate and to read. Checks nothing.
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

use alb_oidc_filter::{Config, Decision};
use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use serde_json::{Value, json};

use super::{judge, worker};
use crate::judge::jws::has_minus_zero;
use crate::judge::verdict::Headers;
use crate::mint::{ARNS, CLIENTS, ISSUERS, KIDS, NOW};
use crate::{seeds, toy};

/// The first line of such a text.
pub(super) const MARK: u8 = b'@';

/// The scenarios' configurations, by number.
static CONFIGS: LazyLock<Vec<(String, Value)>> = LazyLock::new(seeds::configs);

/// Runs it twice, the second time with filled caches; `None` if it is no request.
pub(super) fn play(text: &str) -> Option<[Decision; 2]> {
    let (request, tokens) = text.split_once("\n\n")?;
    let mut lines = request.lines();
    let number: usize = lines.next()?.parse().ok()?;
    let config = &CONFIGS[number % CONFIGS.len()].1;
    let mut target = lines.next()?.splitn(3, ' ');
    let (method, host, path) = (target.next()?, target.next()?, target.next()?);
    let mut parts = tokens.splitn(3, '\n');
    let (header, payload) = (parts.next()?, parts.next()?);
    let access = parts.next().unwrap_or_default();
    if [header, payload, access]
        .iter()
        .any(|text| has_minus_zero(text.as_bytes()))
    {
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
            let value = value
                .replace("{token}", &token)
                .replace("{access_token}", &access_token);
            head.push((name.to_ascii_lowercase(), value.into_bytes()));
        }
    }
    let (mut gate, mut cache) =
        worker(Config::parse(config.to_string().as_bytes()).expect("a config"));
    let mut steady = 5000;
    Some([(); 2].map(|()| {
        judge(
            config,
            &mut gate,
            &mut cache,
            &head,
            NOW * 1000,
            &mut steady,
        )
    }))
}

fn alb_token(header: &str, payload: &str) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL.encode(header.as_bytes()),
        BASE64URL.encode(payload.as_bytes())
    );
    format!(
        "{signed}.{}",
        BASE64URL.encode(&toy::sign_es256(0, signed.as_bytes()))
    )
}

fn access_token(payload: &str) -> String {
    let header = r#"{"alg":"RS256","kid":"pool"}"#;
    let encoded = [header, payload].map(|text| BASE64URL_NOPAD.encode(text.as_bytes()));
    let signed = encoded.join(".");
    format!(
        "{signed}.{}",
        BASE64URL_NOPAD.encode(&toy::sign_rs256(0, signed.as_bytes()))
    )
}

/// The requests of a row, if they can be written in this format.
pub(super) fn seeds(row: &toml::Table) -> Vec<Vec<u8>> {
    let name = row
        .get("config")
        .and_then(toml::Value::as_str)
        .unwrap_or("default");
    let config = CONFIGS
        .iter()
        .position(|(known, _)| known == name)
        .expect("a configuration");
    let steps = row.get("requests").and_then(toml::Value::as_array);
    let steps: Vec<toml::Table> = match steps {
        Some(steps) => steps
            .iter()
            .filter_map(|step| step.as_table().cloned())
            .collect(),
        None => vec![toml::Table::new()],
    };
    let written = |step: &toml::Table| {
        let field = |name: &str| step.get(name).or_else(|| row.get(name));
        let text = |name: &str, default: &'static str| {
            field(name).and_then(toml::Value::as_str).unwrap_or(default)
        };
        let texts = |name: &str| -> Option<Vec<&str>> {
            Some(
                field(name)?
                    .as_array()?
                    .iter()
                    .filter_map(toml::Value::as_str)
                    .collect(),
            )
        };
        let mut lines = vec![
            config.to_string(),
            [
                text("method", "GET"),
                text("host", "gateway.test"),
                text("path", "/"),
            ]
            .join(" "),
        ];
        lines.extend(
            texts("oidc_data")
                .unwrap_or(vec!["{token}"])
                .iter()
                .map(|value| format!("x-amzn-oidc-data: {value}")),
        );
        lines.extend(
            texts("headers")
                .unwrap_or_default()
                .into_iter()
                .map(str::to_owned),
        );
        let access = if row.contains_key("access_token") {
            vec!["{access_token}"]
        } else {
            vec![]
        };
        let access = texts("access_tokens").unwrap_or(access);
        lines.extend(
            access
                .iter()
                .map(|value| format!("x-amzn-oidc-accesstoken: {value}")),
        );
        let header = json!({
            "typ": "JWT", "alg": "ES256", "kid": KIDS[0], "signer": ARNS[0], "iss": ISSUERS[0], "client": CLIENTS[0],
            "exp": NOW + 60,
        });
        let payload =
            json!({"sub": SUBJECT, "email": "ann@example.com", "exp": NOW + 60, "iss": ISSUERS[0]});
        let claims = json!({
            "sub": SUBJECT, "token_use": "access", "client_id": CLIENTS[0], "exp": NOW + 60, "iss": ISSUERS[0],
            "username": "ann",
        });
        lines.push(String::new());
        let (token, access) = (row.get("token"), row.get("access_token"));
        lines.extend([
            over(header, token, "header"),
            over(payload, token, "payload"),
            over(claims, access, "payload"),
        ]);
        [vec![MARK], lines.join("\n").into_bytes()].concat()
    };
    steps.iter().map(written).collect()
}

const SUBJECT: &str = "7f3c1c1e";

/// `genuine`, with a row's changes to this part of a token.
fn over(genuine: Value, token: Option<&toml::Value>, part: &str) -> String {
    let changed = |name: &str| {
        token
            .and_then(|token| serde_json::to_value(token.get(name)?).ok())
            .unwrap_or_default()
    };
    let mut object = genuine;
    let members = object.as_object_mut().expect("an object");
    members.extend(changed(part).as_object().cloned().unwrap_or_default());
    for name in changed(&format!("{part}_without"))
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        members.remove(name);
    }
    object.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_the_scenarios() {
        let rows = seeds::rows();
        let seed = &seeds(&rows[0])[0];
        let text = std::str::from_utf8(&seed[1..]).unwrap();
        assert_eq!(
            play(text)
                .map(|decisions| decisions.map(|decision| matches!(decision, Decision::Admit(_)))),
            Some([true; 2])
        );
        let played = rows
            .iter()
            .flat_map(seeds)
            .filter(|seed| play(std::str::from_utf8(&seed[1..]).unwrap()).is_some());
        assert!(played.count() > rows.len());
    }
}
