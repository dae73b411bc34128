//! Maps claims to user id, groups and claim headers (README, Configuration), with the `regex`
//! crate.

use super::{jws, regex};
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// The user as sent to upstream.
pub struct Identity {
    pub user_id: String,
    pub domain: Option<String>,
    pub groups: Vec<String>,
    pub subject: Option<String>,
    /// All identity headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// The claims of both tokens.
pub struct Claims<'a> {
    pub alb: &'a Object,
    pub access: Option<&'a Object>,
}

impl<'a> Claims<'a> {
    fn find(&self, name: &str) -> Option<&'a Value> {
        match name.strip_prefix("access:") {
            Some(name) => descend(self.access?, name),
            None => descend(self.alb, name),
        }
    }
}

/// A claim with the whole name wins. Otherwise the part before a dot names an object with the rest,
/// longer names first.
fn descend<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    let parts: Vec<&str> = name.split('.').collect();
    object.get(name).or_else(|| {
        (1..parts.len()).rev().find_map(|count| {
            let inner = object.get(&parts[..count].join("."))?.as_object()?;
            descend(inner, &parts[count..].join("."))
        })
    })
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn text<'c>(config: &'c Value, pointer: &str, default: &'c str) -> &'c str {
    config
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or(default)
}

fn flag(config: &Value, pointer: &str) -> bool {
    config.pointer(pointer) == Some(&Value::Bool(true))
}

/// The user id's header.
pub fn user_id_header(config: &Value) -> &str {
    text(config, "/userId/header", "kubeflow-userid")
}

/// Every header in the configuration.
pub fn named_headers(config: &Value) -> Vec<String> {
    let mut names = vec![user_id_header(config).to_owned()];
    if config.get("groups").is_some() {
        names.push(text(config, "/groups/header", "kubeflow-groups").to_owned());
    }
    for claim in config
        .get("claimHeaders")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        names.push(text(claim, "/header", "").to_owned());
    }
    names
}

/// The prefix of member headers.
pub fn member_prefix(config: &Value) -> Option<&str> {
    Some(text(config, "/groups/memberHeaderPrefix", "")).filter(|prefix| !prefix.is_empty())
}

/// The identity, or the reason why there is none.
pub fn identity(config: &Value, claims: &Claims<'_>) -> Result<Identity, &'static str> {
    let user_id = user_id(config, claims)?;
    let groups = groups(config, claims);
    let mut headers = vec![(
        user_id_header(config).to_owned(),
        user_id.clone().into_bytes(),
    )];
    if !groups.is_empty() {
        let joined = groups
            .iter()
            .map(|(_, name)| name.as_str())
            .collect::<Vec<_>>()
            .join(",");
        headers.push((
            text(config, "/groups/header", "kubeflow-groups").to_owned(),
            joined.into_bytes(),
        ));
    }
    if let Some(prefix) = member_prefix(config) {
        headers.extend(groups.iter().take(64).map(|(_, name)| {
            (
                format!("{prefix}{}", escaped(name)),
                name.clone().into_bytes(),
            )
        }));
    }
    for entry in config
        .get("claimHeaders")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let value = claims
            .find(text(entry, "/claim", ""))
            .and_then(header_value);
        headers
            .extend(value.map(|value| (text(entry, "/header", "").to_owned(), value.into_bytes())));
    }
    Ok(Identity {
        user_id,
        domain: domain(claims.alb),
        groups: groups.into_iter().map(|(_, name)| name).collect(),
        subject: claims
            .alb
            .get("sub")
            .and_then(Value::as_str)
            .map(str::to_owned),
        headers,
    })
}

fn user_id(config: &Value, claims: &Claims<'_>) -> Result<String, &'static str> {
    let mut names = strings(config.pointer("/userId/claims"));
    if names.is_empty() {
        names.push("email".to_owned());
    }
    let claim = names
        .iter()
        .find_map(|name| {
            claims
                .find(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        })
        .ok_or("user-id-missing")?;
    let verified = claims.alb.get("email_verified");
    if flag(config, "/userId/requireVerifiedEmail") && !verified.is_some_and(is_true) {
        return Err("email-unverified");
    }
    if claim.len() > 1024 {
        return Err("user-id-invalid");
    }
    let mut id = claim.to_owned();
    if flag(config, "/userId/lowercase") {
        id = id.to_ascii_lowercase();
    }
    for rule in config
        .pointer("/userId/transformers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let matches = regex(text(rule, "/matches", ""));
        if matches.is_match(&id) {
            id = matches
                .replace_all(&id, text(rule, "/replaces", ""))
                .into_owned();
            break;
        }
    }
    let whole = format!("{}{id}", text(config, "/userId/prefix", ""));
    if !is_legible(&id) || whole.len() > 320 || whole.starts_with("system:") {
        return Err("user-id-invalid");
    }
    Ok(whole)
}

fn is_true(value: &Value) -> bool {
    *value == Value::Bool(true) || *value == "true"
}

/// Not empty, no outer spaces, and no invisible character: control and format characters,
/// default-ignorable code points, line and paragraph separators, private use, noncharacters, and
/// two blank characters.
pub fn is_legible(text: &str) -> bool {
    let unseen = regex(
        r"[\p{Cc}\p{Cf}\p{Co}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}\p{Zl}\p{Zp}\x{2800}\x{1D159}]",
    );
    !text.is_empty() && text.trim() == text && !unseen.is_match(text)
}

fn domain(claims: &Object) -> Option<String> {
    if claims
        .get("email_verified")
        .is_some_and(|verified| !is_true(verified))
    {
        return None;
    }
    let (_, domain) = claims.get("email")?.as_str()?.rsplit_once('@')?;
    Some(domain.to_ascii_lowercase())
}

/// Each group, without and with prefix.
fn groups(config: &Value, claims: &Claims<'_>) -> Vec<(String, String)> {
    let Some(rules) = config.get("groups") else {
        return Vec::new();
    };
    let mut names = strings(rules.get("claims"));
    if names.is_empty() {
        names.push("custom:groups".to_owned());
    }
    let keep = Some(text(rules, "/keep", "")).filter(|keep| !keep.is_empty());
    let keep = keep.map(regex);
    let mut found: Vec<(String, String)> = Vec::new();
    for claim in names.iter().filter_map(|name| claims.find(name)) {
        let members: Vec<String> = match claim {
            Value::Array(_) => strings(Some(claim)),
            Value::String(list) => {
                let inner = list
                    .trim()
                    .strip_prefix('[')
                    .and_then(|rest| rest.strip_suffix(']'));
                match inner {
                    Some(quoted) if quoted.contains('"') => {
                        strings(jws::json(list.as_bytes(), jws::CLAIMS_DEPTH).as_ref())
                    }
                    // A comma after a backslash separates nothing. No header can carry it, so
                    // another character may represent it here.
                    _ => {
                        let list = inner.unwrap_or(list).replace(r"\,", "\u{1}");
                        list.split(',').map(|name| name.trim().to_owned()).collect()
                    }
                }
            }
            _ => Vec::new(),
        };
        for name in members {
            let kept = keep.as_ref().is_none_or(|keep| keep.is_match(&name));
            let whole = format!("{}{name}", text(rules, "/prefix", ""));
            let sound = is_legible(&name)
                && whole.len() <= 256
                && !name.contains(',')
                && !whole.starts_with("system:");
            if sound && kept && found.len() < 512 && !found.iter().any(|(_, known)| *known == whole)
            {
                found.push((name, whole));
            }
        }
    }
    found
}

/// Lower-case letters, digits, `-` and `.` stay, every other byte becomes `%` and two digits.
fn escaped(name: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    name.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02x}")
            }
        })
        .collect()
}

/// Text, numbers, booleans, and lists of these joined by commas.
fn header_value(claim: &Value) -> Option<String> {
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    };
    let value = match claim {
        Value::Array(items) => {
            let item = |item| scalar(item).filter(|text| !text.contains(','));
            items
                .iter()
                .map(item)
                .collect::<Option<Vec<_>>>()?
                .join(",")
        }
        other => scalar(other)?,
    };
    Some(value).filter(|value| is_legible(value) && value.len() <= 4096)
}
