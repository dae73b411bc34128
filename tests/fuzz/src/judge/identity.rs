//! Maps claims to user id, groups and claim headers (`docs/configuration.md`), with the `regex`
//! crate.

use super::{jws, regex};
use serde_json::{Map, Number, Value, json};

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

fn array(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn strings(value: Option<&Value>) -> Vec<String> {
    array(value)
        .iter()
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
    for claim in array(config.get("claimHeaders")) {
        names.push(text(claim, "/header", "").to_owned());
    }
    names
}

/// The prefix of member headers.
pub fn member_prefix(config: &Value) -> Option<&str> {
    Some(text(config, "/groups/memberHeaderPrefix", "")).filter(|prefix| !prefix.is_empty())
}

/// The identity, or the reason why there is none. `config`: with the overrides of the user's entry.
pub fn identity(config: &Value, claims: &Claims<'_>) -> Result<Identity, &'static str> {
    let user_id = user_id(config, claims)?;
    let groups = groups(config, claims);
    let mut headers = vec![(
        user_id_header(config).to_owned(),
        user_id.clone().into_bytes(),
    )];
    let joined: Vec<&str> = groups
        .iter()
        .map(String::as_str)
        .filter(|group| !group.contains(','))
        .collect();
    if !joined.is_empty() {
        headers.push((
            text(config, "/groups/header", "kubeflow-groups").to_owned(),
            joined.join(",").into_bytes(),
        ));
    }
    if let Some(prefix) = member_prefix(config) {
        headers.extend(groups.iter().take(64).map(|group| {
            (
                format!("{prefix}{}", escaped(group)),
                group.clone().into_bytes(),
            )
        }));
    }
    for entry in array(config.get("claimHeaders")) {
        let is_encoded = text(entry, "/encoding", "") == "percent";
        let value = claims
            .find(text(entry, "/claim", ""))
            .and_then(|claim| header_value(claim, is_encoded));
        headers
            .extend(value.map(|value| (text(entry, "/header", "").to_owned(), value.into_bytes())));
    }
    Ok(Identity {
        user_id,
        domain: domain(claims.alb),
        groups,
        subject: claims
            .alb
            .get("sub")
            .and_then(Value::as_str)
            .map(str::to_owned),
        headers,
    })
}

fn user_id(config: &Value, claims: &Claims<'_>) -> Result<String, &'static str> {
    let provider = config.pointer("/userId/provider").and_then(Value::as_str);
    if provider.is_some_and(|provider| !signed_in_through(provider, claims.alb)) {
        return Err("provider-mismatch");
    }
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
    let id = transformed(config.pointer("/userId/transformers"), id);
    let whole = format!("{}{id}", text(config, "/userId/prefix", ""));
    if !is_legible(&id) || whole.len() > 320 || whole.starts_with("system:") {
        return Err("user-id-invalid");
    }
    Ok(whole)
}

fn transformed(rules: Option<&Value>, name: String) -> String {
    let matches = |rule: &&Value| regex(text(rule, "/matches", "")).is_match(&name);
    let Some(rule) = array(rules).iter().find(matches) else {
        return name;
    };
    regex(text(rule, "/matches", ""))
        .replace_all(&name, text(rule, "/replaces", ""))
        .into_owned()
}

/// `docs/configuration.md`, `userId.provider`. Cognito sends `identities` as text.
fn signed_in_through(provider: &str, claims: &Object) -> bool {
    let listed = match claims.get("identities") {
        Some(Value::String(listed)) => jws::json(listed.as_bytes(), jws::CLAIMS_DEPTH),
        listed => listed.cloned(),
    };
    let named: Vec<_> = array(listed.as_ref())
        .iter()
        .map(|entry| entry.pointer("/providerName"))
        .collect();
    let of_username = claims
        .get("username")
        .and_then(Value::as_str)
        .and_then(|name| regex("(?s)^([^_]*)_").captures(name)?.get(1))
        .map(|part| part.as_str().to_owned());
    of_username.as_deref() == Some(provider)
        && !named.is_empty()
        && named
            .iter()
            .all(|name| *name == Some(&Value::from(provider)))
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

/// Each group, with prefix.
fn groups(config: &Value, claims: &Claims<'_>) -> Vec<String> {
    let Some(rules) = config.get("groups") else {
        return Vec::new();
    };
    let mut paths = strings(rules.get("claims"));
    if paths.is_empty() {
        paths.push("custom:groups".to_owned());
    }
    let keep = Some(text(rules, "/keep", "")).filter(|keep| !keep.is_empty());
    let keep = keep.map(regex);
    let mut found: Vec<String> = Vec::new();
    for path in &paths {
        let decode = match path.starts_with("access:") {
            true => "",
            false => text(rules, "/decode", ""),
        };
        let mut names = claims.find(path).map_or(Vec::new(), |claim| {
            listed(rules, decode == "json", claim).unwrap_or_default()
        });
        if decode == "form" {
            let decoded = names.iter().filter_map(|name| form_decoded(name));
            names = decoded.filter(|name| !name.contains(',')).collect();
        }
        // A regex may take long for a longer name.
        names.retain(|name| name.len() <= 1024);
        for name in names {
            let name = transformed(rules.get("transformers"), name);
            let kept = keep.as_ref().is_none_or(|keep| keep.is_match(&name));
            let whole = format!("{}{name}", text(rules, "/prefix", ""));
            let sound = is_legible(&name) && whole.len() <= 256 && !whole.starts_with("system:");
            if sound && kept && found.len() < 512 && !found.contains(&whole) {
                found.push(whole);
            }
        }
    }
    found
}

/// The names in a claim: `docs/configuration.md`, Forms of a groups claim. `None`: it has none of
/// these forms.
fn listed(rules: &Value, is_nested: bool, claim: &Value) -> Option<Vec<String>> {
    let members = text(rules, "/members", "");
    match claim {
        Value::Array(items) => {
            if is_nested
                && let [Value::String(only)] = &items[..]
                && let Some(array) = json_array(only)
            {
                return array;
            }
            let name = |item: &Value| match item {
                Value::Object(_) if members == "name" => Some(item["name"].as_str()?.to_owned()),
                item => item.as_str().map(str::to_owned),
            };
            Some(items.iter().filter_map(name).collect())
        }
        Value::Object(entries) if members == "keys" => {
            let nothing = [json!(null), json!(false), json!(""), json!([]), json!({})];
            let is_member = |(_, value): &(&String, &Value)| !nothing.contains(value);
            let names = entries.iter().filter(is_member);
            Some(names.map(|(name, _)| name.clone()).collect())
        }
        Value::String(list) => match json_array(list) {
            Some(array) => array,
            None => split(list.trim(), text(rules, "/separator", ",")),
        },
        _ => None,
    }
}

/// The texts of a JSON array, if it can only be one: it is empty or has a quote.
fn json_array(list: &str) -> Option<Option<Vec<String>>> {
    let array = regex(r#"(?s)^\s*(\[(?:\s*|.*".*)\])\s*$"#).captures(list)?;
    let parsed = jws::json(array[1].as_bytes(), jws::CLAIMS_DEPTH);
    Some(parsed.map(|items| strings(Some(&items))))
}

/// Cuts the list at each separator, and joins the parts of quoted and escaped names again. `None`:
/// it is ambiguous.
fn split(list: &str, separator: &str) -> Option<Vec<String>> {
    let is_comma = separator == ",";
    let bare = list
        .strip_prefix('[')
        .and_then(|list| list.strip_suffix(']'));
    let list = bare.filter(|_| is_comma).unwrap_or(list);
    let is_quoted = |name: &str| name.trim_start().starts_with('"');
    let is_cut = |name: &str| {
        if is_quoted(name) {
            name.matches('"').count() == 1
        } else {
            is_comma && name.ends_with('\\')
        }
    };
    let mut names: Vec<String> = Vec::new();
    for part in list.split(separator) {
        match names.last_mut().filter(|name| is_cut(name)) {
            Some(name) => *name = format!("{name}{separator}{part}"),
            None => names.push(part.to_owned()),
        }
    }
    // Space between a quote and a space is no name.
    let space = if separator == " " { "" } else { r"\s*" };
    let quoted = regex(&format!(r#"(?s)^\s*"([^"\\]*)"{space}$"#));
    let mut read = Vec::new();
    for name in names {
        read.push(if is_quoted(&name) {
            quoted.captures(&name)?[1].to_owned()
        } else if is_comma && name.contains(r"\\,") {
            return None;
        } else if is_comma {
            name.replace(r"\,", ",").trim().to_owned()
        } else {
            name.trim().to_owned()
        });
    }
    read.retain(|name| !name.is_empty());
    Some(read)
}

/// `application/x-www-form-urlencoded`. `None`: it is not, or not UTF-8.
fn form_decoded(name: &str) -> Option<String> {
    if regex("%(?:[0-9A-Fa-f]{2})?")
        .find_iter(name)
        .any(|escape| escape.len() == 1)
    {
        return None;
    }
    let mut parts = name.split('%');
    let mut bytes = parts.next()?.replace('+', " ").into_bytes();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two digits"));
        bytes.extend(part[2..].replace('+', " ").bytes());
    }
    String::from_utf8(bytes).ok()
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

/// `docs/configuration.md`, Claim headers.
fn header_value(claim: &Value, is_encoded: bool) -> Option<String> {
    let scalar = |value: &Value| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if is_whole(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            _ => return None,
        };
        let encode = |text: &str| {
            let plain = regex("[A-Za-z0-9._~-]");
            let sign = |sign: char| match sign.to_string() {
                sign if plain.is_match(&sign) => sign,
                sign => sign.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            };
            text.chars().map(sign).collect::<String>()
        };
        is_legible_text(&text).then(|| if is_encoded { encode(&text) } else { text })
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
    Some(value).filter(|value| !value.is_empty() && value.len() <= 4096)
}

/// Whether the number has all digits of its JSON text before the point: integers have at most 64
/// bits, and of doubles the first 15 digits.
fn is_whole(number: &Number) -> bool {
    match number.as_i128() {
        Some(_) => true,
        None => number.as_f64().is_some_and(|double| {
            let limit = 10_u64.pow(15) as f64;
            -limit < double && double < limit
        }),
    }
}

/// As [`is_legible`], and with the two joiners inside.
fn is_legible_text(text: &str) -> bool {
    let joined = regex(r"(?s)^[\x{200c}\x{200d}]|[\x{200c}\x{200d}]$");
    !joined.is_match(text) && is_legible(&text.replace(['\u{200c}', '\u{200d}'], "x"))
}
