//! Access rules and path normalization (`docs/configuration.md`, Rules). By brute force: tries the
//! changes that an upstream may make to a path in every order.

use serde_json::Value;
use std::collections::BTreeMap;

use super::identity::Identity;
use super::regex;

/// The most percent-decodings of a path.
const DECODINGS: usize = 3;
/// The judge stops after this many forms.
const ENOUGH: usize = 400;
/// A path with more forms, or more bytes in all of them, is unreadable.
const MOST: usize = 48;
const MOST_BYTES: usize = 2048;
/// So is one with more than this product of compiled regex bytes and form bytes, 16 added for each
/// form.
const MOST_WORK: usize = 786_432;

/// What a rule requires.
#[derive(Clone, Copy, PartialEq)]
enum Demand<'c> {
    Nothing,
    /// Nothing of a request without a token.
    Optional,
    AnyUser,
    /// `allow` of a rule.
    Allowed(&'c Value),
}

impl Demand<'_> {
    fn opens(self) -> bool {
        self == Demand::Nothing || self == Demand::Optional
    }

    fn is_met_by(&self, user: &Identity) -> bool {
        let Demand::Allowed(allow) = self else {
            return true;
        };
        let list = |name| {
            allow
                .get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
        };
        list("users").any(|id| id == user.user_id)
            || list("groups").any(|group| user.groups.iter().any(|of_user| of_user == group))
            || user.domain.as_deref().is_some_and(|domain| {
                list("domains").any(|pattern| is_host(domain, &pattern.to_ascii_lowercase()))
            })
    }
}

/// For each form of a path, all rules that match it, in order. Each form must be satisfied.
pub struct Requirement<'c>(Vec<Vec<&'c Value>>);

impl Requirement<'_> {
    /// Whether no token is needed and none is looked at.
    pub fn is_open(&self) -> bool {
        let mut forms = self.0.iter();
        forms.all(|rules| of_nobody(rules) == Demand::Nothing)
    }

    /// Whether a request without a token passes.
    pub fn is_optional(&self) -> bool {
        self.0.iter().all(|rules| of_nobody(rules).opens())
    }

    /// Whether this user may pass. `issuer`: as the entry of `loadBalancers` has it.
    pub fn admits(&self, user: &Identity, issuer: Option<&str>) -> bool {
        self.0.iter().all(|rules| {
            let mut for_user = rules.iter().filter(|rule| is_for_issuer(rule, issuer));
            for_user
                .next()
                .is_none_or(|rule| demand(rule).is_met_by(user))
        })
    }
}

/// What these rules require of a request without a user. A rule for some issuers never opens.
fn of_nobody<'c>(rules: &[&'c Value]) -> Demand<'c> {
    rules.first().map_or(Demand::AnyUser, |rule| demand(rule))
}

/// A user of an entry with `issuer: null` is of no listed issuer.
fn is_for_issuer(rule: &Value, issuer: Option<&str>) -> bool {
    matching(rule, "issuers")
        .is_none_or(|issuers| issuers.iter().any(|listed| listed.as_str() == issuer))
}

/// The requirement of this config's `rules` for a request: that of every form of its path, or, for
/// an unreadable path, of all rules for its method. `sizes` are the compiled sizes of each rule's
/// regexes, which no other library computes.
pub fn requirement<'c>(
    config: &'c Value,
    sizes: &[usize],
    method: &str,
    authority: &str,
    path: &[u8],
) -> Requirement<'c> {
    let rules: Vec<&'c Value> = config
        .get("rules")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(rules.len(), sizes.len());
    if rules.is_empty() {
        return Requirement(vec![Vec::new()]);
    }
    let for_method: Vec<_> = rules
        .into_iter()
        .zip(sizes)
        .filter(|(rule, _)| is_for_method(rule, method))
        .collect();
    let host = host(authority);
    let is_for_host = |rule: &Value| host.as_ref().is_some_and(|host| is_for_host(rule, host));
    let for_host: Vec<_> = for_method
        .iter()
        .filter(|(rule, _)| is_for_host(rule))
        .collect();
    let regexes: usize = for_host.iter().map(|(_, size)| **size).sum();
    let is_legible = |forms: &BTreeMap<String, usize>| {
        let bytes = forms.keys().map(String::len).sum::<usize>();
        forms.len() <= MOST
            && bytes <= MOST_BYTES
            && (bytes + 16 * forms.len()) * regexes <= MOST_WORK
    };
    // A rewrite that ends in `/` would turn it into `..`.
    let has_hidden_parent = |forms: &BTreeMap<String, usize>| {
        forms
            .keys()
            .any(|path| regex(r"[^/]\.\.(/|$)").is_match(path))
    };
    let forms = forms(path)
        .filter(is_legible)
        .filter(|forms| !has_hidden_parent(forms));
    let (Some(_), Some(forms)) = (&host, forms) else {
        let closing = for_method.iter().filter(|(rule, _)| !demand(rule).opens());
        let all = closing.map(|(rule, _)| vec![*rule]);
        return Requirement(all.chain([Vec::new()]).collect());
    };
    let mut each = Vec::new();
    for form in forms.keys() {
        for ignoring_case in [false, true] {
            let rules = for_host.iter().map(|(rule, _)| *rule);
            each.push(
                rules
                    .filter(|rule| is_for_path(rule, form, ignoring_case))
                    .collect(),
            );
        }
    }
    Requirement(each)
}

fn demand(rule: &Value) -> Demand<'_> {
    match (
        rule.get("require").and_then(Value::as_str),
        rule.get("allow"),
    ) {
        (Some("none"), _) => Demand::Nothing,
        (Some("optional"), _) => Demand::Optional,
        (_, Some(allow)) => Demand::Allowed(allow),
        (_, None) => Demand::AnyUser,
    }
}

fn matching<'r>(rule: &'r Value, name: &str) -> Option<&'r Vec<Value>> {
    rule.get("match")?.get(name)?.as_array()
}

/// Some upstreams ignore the case of methods, so only a rule that opens compares it.
fn is_for_method(rule: &Value, method: &str) -> bool {
    let opens = demand(rule).opens();
    matching(rule, "methods").is_none_or(|methods| {
        let mut names = methods.iter().filter_map(Value::as_str);
        names.any(|name| {
            if opens {
                name == method
            } else {
                name == method.to_ascii_uppercase()
            }
        })
    })
}

fn is_for_host(rule: &Value, host: &str) -> bool {
    let mut patterns = matching(rule, "hosts")
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    matching(rule, "hosts").is_none()
        || patterns.any(|pattern| is_host(host, &pattern.to_ascii_lowercase()))
}

/// `*.example.com` matches any subdomain.
fn is_host(host: &str, pattern: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => host
            .strip_suffix(parent)
            .is_some_and(|below| below.ends_with('.') && below.len() > 1),
        None => host == pattern,
    }
}

fn is_for_path(rule: &Value, path: &str, ignoring_case: bool) -> bool {
    let Some(patterns) = matching(rule, "paths") else {
        return true;
    };
    let cased = |text: &str| {
        if ignoring_case {
            text.to_ascii_lowercase()
        } else {
            text.to_owned()
        }
    };
    let path_cased = cased(path);
    patterns.iter().any(|pattern| {
        let (kind, text) = pattern
            .as_object()
            .and_then(|object| object.iter().next())
            .expect("one kind");
        let text = text.as_str().expect("text");
        match kind.as_str() {
            "exact" => path_cased == cased(text),
            "prefix" if demand(rule).opens() && !text.ends_with('/') => {
                path_cased == cased(text) || path_cased.starts_with(&format!("{}/", cased(text)))
            }
            "prefix" => path_cased.starts_with(&cased(text)),
            "suffix" => path_cased.ends_with(&cased(text)),
            _ => regex(&format!(
                "{}{text}",
                if ignoring_case { "(?i)" } else { "" }
            ))
            .is_match(path),
        }
    })
}

/// The host in lower case, without port and trailing dot, if it is valid.
fn host(authority: &str) -> Option<String> {
    let port = regex(":[0-9]*$");
    let host = port.replace(authority, "").to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let form = regex(r"^([a-z0-9._-]*[a-z0-9_-]|\[[a-z0-9:.\[\]_-]*\])$");
    form.is_match(host).then(|| host.to_owned())
}

/// Each form, and the fewest decodings that lead to it. `None`: a form has no clear meaning.
pub fn forms(path: &[u8]) -> Option<BTreeMap<String, usize>> {
    let written = std::str::from_utf8(path.split(|byte| *byte == b'?').next()?).ok()?;
    if !written.starts_with('/') {
        return None;
    }
    let mut found = BTreeMap::new();
    // Forms with fewer decodings first, so that each is recorded with the fewest.
    let mut rounds: Vec<Vec<String>> = vec![vec![written.to_owned()]];
    for decodings in 0..=DECODINGS {
        rounds.push(Vec::new());
        while let Some(path) = rounds[decodings].pop() {
            // The last is the replacement for invalid UTF-8.
            if path
                .chars()
                .any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER)
            {
                return None;
            }
            if found.len() > ENOUGH || found.contains_key(&path) {
                continue;
            }
            rounds[decodings].extend([
                path.replace('\\', "/"),
                path.split(['?', '#']).next()?.to_owned(),
                without_parameters(&path),
                without_authority(&path),
                without_host(&path),
                without_dots(&path),
                without_empty_segments(&path),
                path.replace("%2e", ".").replace("%2E", "."),
            ]);
            let decoded = String::from_utf8(decoded(path.as_bytes())).ok()?;
            if decoded != path {
                if decodings == DECODINGS {
                    return None;
                }
                rounds[decodings + 1].push(decoded);
            }
            found.insert(path, decodings);
        }
    }
    Some(found)
}

/// One decoding. Invalid escapes stay.
fn decoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let digits = path
            .get(at + 1..at + 3)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match digits.and_then(|digits| std::str::from_utf8(digits).ok()) {
            Some(digits) if path[at] == b'%' => {
                out.push(u8::from_str_radix(digits, 16).expect("two digits"));
                at += 3;
            }
            _ => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    out
}

fn without_parameters(path: &str) -> String {
    regex(";[^/]*").replace_all(path, "").into_owned()
}

/// `//authority/path`
fn without_authority(path: &str) -> String {
    let path = regex("^//[^/]*").replace(path, "").into_owned();
    if path.is_empty() {
        "/".to_owned()
    } else {
        path
    }
}

/// `///host/path`, as the WHATWG's URL parser has it.
fn without_host(path: &str) -> String {
    let rest = regex("^//+[^/]*").replace(path, "").into_owned();
    if rest.is_empty() {
        "/".to_owned()
    } else {
        rest
    }
}

fn without_empty_segments(path: &str) -> String {
    regex("/{2,}").replace_all(path, "/").into_owned()
}

/// RFC 3986, section 5.2.4, literally.
fn without_dots(path: &str) -> String {
    let (mut input, mut output) = (path.to_owned(), String::new());
    while !input.is_empty() {
        if input.starts_with("/./") {
            input.replace_range(..3, "/");
        } else if input == "/." {
            input = "/".to_owned();
        } else if input.starts_with("/../") || input == "/.." {
            input.replace_range(..3, if input.len() == 3 { "/" } else { "" });
            output.truncate(output.rfind('/').unwrap_or(0));
        } else {
            let end = input[1..].find('/').map_or(input.len(), |slash| slash + 1);
            output.push_str(&input[..end]);
            input.replace_range(..end, "");
        }
    }
    output
}
