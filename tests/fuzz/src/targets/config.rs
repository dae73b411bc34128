//! `pluginConfig`: no panic, every mistake on one line, and nothing accepted that the
//! documentation's table excludes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use alb_oidc_filter::Config;
use regex::Regex;
use serde_json::Value;

use crate::judge::jws;
use crate::{mint, seeds};

/// The configurations of the scenarios, and near-valid ones.
pub fn seeds() -> Vec<Vec<u8>> {
    let balancers = r#""loadBalancers":[{"arn":"arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188","issuer":null,"clientId":null}]"#;
    let mut texts = seeds::scenarios(&["plugin"]);
    texts.extend(seeds::scenarios(&["plugin"]).iter().filter_map(|text| {
        let members = text.trim().strip_prefix('{')?.strip_suffix('}')?;
        Some(format!("{{{balancers},{members}}}"))
    }));
    texts.extend(
        TABLE
            .0
            .iter()
            .flat_map(|(field, (holds, _))| {
                let of_entry = format!("loadBalancers.{field}");
                [at_the_edges(field, holds), at_the_edges(&of_entry, holds)].concat()
            })
            .map(|value| value.to_string()),
    );
    let mut seeds: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    for bytes in seeds::random(40, 400) {
        let config = mint::config(&mut arbitrary::Unstructured::new(&bytes)).expect("bytes enough");
        seeds.push(config.to_string().into_bytes());
    }
    seeds
}

/// A configuration with every field.
const FULL: &str = r#"{
    "loadBalancers": [{
        "arn": "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/a/50dc6c495c0c9188", "issuer": "https://i.example", "clientId": "c",
        "userId": {"claims": ["email"], "prefix": "b", "lowercase": true, "requireVerifiedEmail": true, "provider": "a", "transformers": [{"matches": "a", "replaces": "b"}]},
        "groups": {"claims": ["g"], "separator": ";", "members": "keys", "decode": "form", "transformers": [{"matches": "a", "replaces": "b"}], "prefix": "g", "keep": "a"},
        "accessToken": {"issuer": "https://i.example", "subject": "uid", "jwksUri": "https://i.example/keys", "jwksCluster": "jwks"}
    }],
    "sharedNames": true,
    "publicKeys": {"endpoint": "https://keys.example", "cluster": "keys", "timeoutMs": 1000, "cacheTtlSeconds": 60},
    "clockSkewSeconds": 30,
    "userId": {"claims": ["email"], "header": "x-user", "prefix": "a", "lowercase": true, "requireVerifiedEmail": true, "provider": "a", "transformers": [{"matches": "a", "replaces": "b"}]},
    "groups": {"claims": ["g"], "separator": ";", "members": "keys", "decode": "form", "transformers": [{"matches": "a", "replaces": "b"}], "header": "x-groups", "prefix": "a", "keep": "a", "memberHeaderPrefix": "x-group-"},
    "claimHeaders": [{"claim": "name", "header": "x-name", "encoding": "percent"}],
    "accessToken": {"issuer": "https://i.example", "subject": "uid", "jwksUri": "https://i.example/keys", "jwksCluster": "jwks"},
    "rules": [
        {"match": {"hosts": ["a.example"], "paths": [{"prefix": "/"}], "methods": ["GET"], "issuers": ["https://i.example"]}, "require": "token", "allow": {"users": ["a"], "domains": ["a.example"], "groups": ["ga"]}},
        {"match": {"methods": ["GET"]}, "require": "optional"}
    ],
    "logout": {"path": "/logout", "redirectTo": "https://i.example/logout", "sessionCookie": ["Session", "kf"]},
    "pages": {"title": "ML", "contact": "ml@i.example"},
    "upgrades": ["websocket"],
    "reservedHeaders": ["x-machine-client"],
    "forward": {"oidcData": true, "accessToken": true, "sessionCookies": true, "pathOverrides": true},
    "accessLog": {"user": true},
    "mode": "report"
}"#;

/// The full configuration with this field at its lower and upper bound, and one beyond.
fn at_the_edges(field: &str, holds: &str) -> Vec<Value> {
    let full: Value = serde_json::from_str(FULL).expect("JSON");
    let place = |value: &Value| {
        let mut pointer = String::new();
        for name in field.split('.') {
            pointer.push_str(if value.pointer(&pointer).is_some_and(Value::is_array) {
                "/0/"
            } else {
                "/"
            });
            pointer.push_str(name);
        }
        pointer
    };
    let Some(bounds) = BOUNDS.captures(holds) else {
        return vec![full];
    };
    let bound = |number: usize| bounds[number].parse::<u64>().expect("a number");
    let edges = [bound(1).saturating_sub(1), bound(1), bound(2), bound(2) + 1];
    let with = |edge: u64| {
        let mut value = full.clone();
        let pointer = place(&value);
        // The other kinds of path come from other seeds.
        let held = value.pointer_mut(&pointer)?;
        *held = match held {
            Value::Number(_) => Value::from(edge),
            Value::Array(items) => Value::from(vec![items[0].clone(); edge as usize]),
            Value::String(text) => {
                Value::from(text.chars().cycle().take(edge as usize).collect::<String>())
            }
            _ => return None,
        };
        Some(value)
    };
    edges.into_iter().filter_map(with).collect()
}

/// Parses `data` as the configuration.
pub fn run(data: &[u8]) {
    if jws::has_minus_zero(data) {
        return;
    }
    let strict = jws::json(data, DEPTH);
    let mistakes = match Config::parse(data) {
        Ok(config) => {
            let value = strict
                .unwrap_or_else(|| panic!("no strict JSON: {}", String::from_utf8_lossy(data)));
            let again = Config::from_value(&value).expect("the same config");
            assert_eq!(format!("{config:?}"), format!("{again:?}"));
            assert_eq!(TABLE.objection("", &value), None, "{value}");
            return;
        }
        Err(mistakes) => mistakes,
    };
    assert!(!mistakes.is_empty());
    for mistake in &mistakes {
        let line = mistake.to_string();
        assert!(!line.chars().any(char::is_control), "{line:?}");
        let is_value = line.contains(": found ") && line.contains(", expected ");
        let is_conflict = line.contains(" requires ") || line.contains(" cannot be combined with ");
        assert!(is_value || is_conflict, "{line}");
        // An unknown field is named in full, a value is truncated.
        assert!(
            line.len() < 2000 + 8 * data.len(),
            "{} bytes: {line}",
            line.len()
        );
    }
    // Both parsers agree on invalid JSON, which the filter reports as one mistake about the whole
    // config.
    let not_json = mistakes.len() == 1
        && mistakes[0]
            .to_string()
            .starts_with("pluginConfig: found invalid JSON");
    if data.len() <= 256 * 1024 && !data.trim_ascii().is_empty() {
        assert_eq!(
            not_json,
            strict.is_none(),
            "{}",
            String::from_utf8_lossy(data)
        );
    }
}

/// The maximum depth of a config.
const DEPTH: usize = 8;

/// The table of fields in `docs/configuration.md`: type of each path, and whether it is required.
struct Table(BTreeMap<String, (String, bool)>);

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, table) = page.split_once("<!-- config reference").expect("the table");
    let rows = table
        .lines()
        .skip(3)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            let path = cells[0].trim_matches(['|', ' ', '`']).to_owned();
            let holds = cells[1].replace(r"\|", "|");
            (path, (holds, cells[2] == "required"))
        });
    let table = Table(rows.collect());
    assert!(table.0.len() > 50, "the table has {} rows", table.0.len());
    table
});

impl Table {
    /// The table's objections to this object at `path`.
    fn objection(&self, path: &str, object: &Value) -> Option<String> {
        let Some(members) = object.as_object() else {
            return Some(format!("{path} is no object"));
        };
        let below = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        let listed = overridden(path).unwrap_or(path);
        let missing = self.0.iter().find(|(field, (_, required))| {
            let name = match listed {
                "" => Some(field.as_str()),
                listed => field
                    .strip_prefix(listed)
                    .and_then(|field| field.strip_prefix('.')),
            };
            let name = name.filter(|name| !name.contains('.'));
            *required && name.is_some_and(|name| !members.contains_key(name))
        });
        if let Some((field, _)) = missing {
            return Some(format!("{field} is missing"));
        }
        members.iter().find_map(|(name, value)| {
            let field = below(name);
            let Some((holds, _)) = self.0.get(overridden(&field).unwrap_or(&field)) else {
                return Some(format!("{field} is unknown"));
            };
            if !is(value, holds) {
                return Some(format!("{field} is {value}, not {holds}"));
            }
            match value {
                Value::Object(_) => self.objection(&field, value),
                Value::Array(items) => items
                    .iter()
                    .filter(|item| item.is_object())
                    .find_map(|item| self.objection(&field, item)),
                _ => None,
            }
        })
    }
}

/// The top-level field that this field of an entry of `loadBalancers` overrides.
fn overridden(field: &str) -> Option<&str> {
    const NEVER: [&str; 3] = [
        "userId.header",
        "groups.header",
        "groups.memberHeaderPrefix",
    ];
    let inner = field.strip_prefix("loadBalancers.")?;
    let top = inner.split('.').next()?;
    (["userId", "groups", "accessToken"].contains(&top) && !NEVER.contains(&inner)).then_some(inner)
}

static BOUNDS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("([0-9]+)–([0-9]+)").expect("a regex"));

/// Whether the value has the table's type.
fn is(value: &Value, holds: &str) -> bool {
    let within = |count: u64| {
        let bounds = BOUNDS.captures(holds).expect("bounds");
        let bound = |number: usize| bounds[number].parse::<u64>().expect("a number");
        (bound(1)..=bound(2)).contains(&count)
    };
    let null = holds.contains("or null");
    match (holds, value) {
        (_, Value::Null) => null,
        ("boolean", value) => value.is_boolean(),
        ("object", value) => value.is_object(),
        (holds, Value::String(text)) if holds.starts_with('"') => {
            let quoted = format!("\"{text}\"");
            holds.split(" or ").any(|choice| choice == quoted)
        }
        (holds, Value::String(text)) if holds.contains(" bytes") => within(text.len() as u64),
        (holds, Value::Array(items)) if holds.ends_with(" of them") => {
            let (one, several) = holds.split_once(", or ").expect("two kinds");
            let count = BOUNDS.captures(several).expect("bounds");
            let count = [1, 2].map(|number| count[number].parse::<usize>().expect("a number"));
            (count[0]..=count[1]).contains(&items.len())
                && items.iter().all(|item| item.is_string() && is(item, one))
        }
        (holds, Value::Number(number)) if !holds.contains(' ') => {
            number.as_u64().is_some_and(within)
        }
        (holds, Value::Array(items)) if holds.ends_with(" strings") => {
            within(items.len() as u64) && items.iter().all(Value::is_string)
        }
        (holds, Value::Array(items)) if holds.ends_with(" objects") => {
            within(items.len() as u64) && items.iter().all(Value::is_object)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_configuration_is_valid_and_complete() {
        let full: Value = serde_json::from_str(FULL).unwrap();
        Config::from_value(&full).unwrap();
        let text = FULL.replace(['\n', ' '], "");
        for field in TABLE.0.keys().filter_map(|field| field.rsplit('.').next()) {
            let is_there = text.contains(&format!("\"{field}\":"));
            assert!(
                is_there || ["exact", "suffix", "regex"].contains(&field),
                "{field}"
            );
        }
    }
}
