//! Reads `rules` of the plugin config into [`AccessRules`].

use super::reader::{Object, quoted};
use crate::access::path::has_one_form;
use crate::access::regex::PathRegex;
use crate::access::rules::{
    Access, AccessRules, Allow, MAX_REGEX_SIZE, PathPattern, Rule, canonical_host,
};
use crate::identity::GroupRules;
use crate::identity::value::KUBERNETES_PREFIX;
use crate::token::alb::LoadBalancer;

const PATTERNS: [&str; 4] = ["exact", "prefix", "suffix", "regex"];

/// `groups`: the rules of the top-level field and of each load balancer. `load_balancers` is empty
/// if they have mistakes.
pub(super) fn read(
    root: &Object<'_>,
    groups: &[&GroupRules],
    load_balancers: &[LoadBalancer],
) -> AccessRules {
    let mut regexes = 0;
    AccessRules {
        rules: root
            .objects("rules")
            .iter()
            .map(|rule| read_rule(rule, groups, load_balancers, &mut regexes))
            .collect(),
    }
}

/// Adds the compiled size of the rule's regexes to `regexes`.
fn read_rule(
    rule: &Object<'_>,
    groups: &[&GroupRules],
    load_balancers: &[LoadBalancer],
    regexes: &mut usize,
) -> Rule {
    let require = rule.string("require");
    let before = rule.mistake_count();
    let access = match rule.optional_object("allow") {
        Some(allow) => {
            let read = read_allow(&allow, groups);
            let Allow {
                users,
                domains,
                groups,
            } = &read;
            let is_empty = users.is_empty() && domains.is_empty() && groups.is_empty();
            if is_empty && before == rule.mistake_count() {
                allow.mistake("", "no entries", "at least one user, domain or group");
            }
            if require != "token" {
                let reason = "without a token there is no user";
                rule.conflict("allow", &format!("`require: {require}`"), reason);
            }
            Access::Allow(read)
        }
        None => match require {
            "none" => Access::Open,
            "optional" => Access::Optional,
            _ => Access::AnyUser,
        },
    };
    let before = rule.mistake_count();
    let matches = rule.object("match");
    let paths = matches.objects("paths");
    let read = Rule {
        hosts: read_names(&matches, "hosts", true),
        paths: paths
            .iter()
            .filter_map(|entry| read_pattern(entry, regexes))
            .collect(),
        methods: read_methods(&matches),
        issuers: read_issuers(&matches, load_balancers),
        access,
    };
    let is_sound = before == rule.mistake_count();
    if is_sound
        && read.access.opens()
        && read.hosts.is_empty()
        && paths.is_empty()
        && read.methods.is_empty()
    {
        rule.requirement(
            "match",
            &format!(
                "hosts, paths or methods with `require: {require}`: otherwise no request needs a token"
            ),
        );
    }
    if read.access.opens() && !read.issuers.is_empty() {
        let reason = "without a token there is no issuer";
        matches.conflict("issuers", &format!("`require: {require}`"), reason);
    }
    read
}

fn read_allow(allow: &Object<'_>, groups: &[&GroupRules]) -> Allow {
    let texts = |field: &str| {
        let names = allow.strings(field);
        for (position, name) in names
            .iter()
            .enumerate()
            .filter(|(_, name)| name.starts_with(KUBERNETES_PREFIX))
        {
            let expected = "a name without the prefix \"system:\", which Kubernetes reserves";
            allow.mistake(&format!("{field}[{position}]"), &quoted(name), expected);
        }
        names.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let read = Allow {
        users: texts("users"),
        domains: read_names(allow, "domains", false),
        groups: texts("groups"),
    };
    if groups.is_empty() && !read.groups.is_empty() {
        allow.requirement(
            "groups",
            "the top-level field `groups`: without it, users have no groups",
        );
    }
    for (position, group) in read.groups.iter().enumerate() {
        // Reported already.
        if group.starts_with(KUBERNETES_PREFIX) {
            continue;
        }
        let verdicts: Vec<_> = groups.iter().map(|rules| rules.can_make(group)).collect();
        if let Some(Err(expected)) = verdicts.first()
            && verdicts.iter().all(Result::is_err)
        {
            let expected = ["a group that users can have: ", expected].concat();
            allow.mistake(&format!("groups[{position}]"), &quoted(group), &expected);
        }
    }
    read
}

fn read_issuers(matches: &Object<'_>, load_balancers: &[LoadBalancer]) -> Vec<String> {
    let issuers = matches.strings("issuers");
    for (position, issuer) in issuers.iter().enumerate() {
        if load_balancers
            .iter()
            .any(|balancer| balancer.issuer.is_none())
        {
            let reason = "its tokens may be of any issuer";
            matches.conflict("issuers", "`issuer: null` in `loadBalancers`", reason);
            break;
        }
        let is_known = |balancer: &LoadBalancer| balancer.issuer.as_deref() == Some(issuer);
        if !load_balancers.is_empty() && !load_balancers.iter().any(is_known) {
            let expected = "an issuer of `loadBalancers`, exactly as it is there";
            matches.mistake(&format!("issuers[{position}]"), &quoted(issuer), expected);
        }
    }
    issuers.into_iter().map(str::to_owned).collect()
}

/// Host or domain names in lower case, without port and trailing dot, with `*` only as the first
/// label. `literal`: an IPv6 address in brackets is allowed.
fn read_names(object: &Object<'_>, field: &str, literal: bool) -> Vec<String> {
    let mut names = Vec::new();
    for (position, name) in object.strings(field).into_iter().enumerate() {
        let lower = name.to_ascii_lowercase();
        let host = lower.strip_prefix("*.").unwrap_or(&lower);
        let is_name =
            canonical_host(host).as_deref() == Some(host) && (literal || !host.starts_with('['));
        if !is_name || name.len() > 253 || host.starts_with('.') {
            let expected = "a name without port or trailing dot, such as \"a.example.com\", or \"*.example.com\" for its subdomains";
            object.mistake(&format!("{field}[{position}]"), &quoted(name), expected);
        }
        names.push(lower);
    }
    names
}

fn read_methods(matches: &Object<'_>) -> Vec<String> {
    let mut methods = Vec::new();
    for (position, method) in matches.strings("methods").into_iter().enumerate() {
        if method.is_empty()
            || !method
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'-')
        {
            matches.mistake(
                &format!("methods[{position}]"),
                &quoted(method),
                "a method in upper case, such as \"GET\"",
            );
        }
        methods.push(method.to_owned());
    }
    methods
}

fn read_pattern(entry: &Object<'_>, regexes: &mut usize) -> Option<PathPattern> {
    let before = entry.mistake_count();
    let given: Vec<_> = PATTERNS
        .into_iter()
        .filter_map(|kind| Some((kind, entry.optional_string(kind)?)))
        .collect();
    let [(kind, text)] = given.as_slice() else {
        if before == entry.mistake_count() {
            entry.mistake(
                "",
                &format!("{} patterns", given.len()),
                "exactly one of: exact, prefix, suffix, regex",
            );
        }
        return None;
    };
    let rooted = |pattern: fn(String) -> PathPattern| {
        if !has_one_form(text) {
            entry.mistake(
                kind,
                &quoted(text),
                "a decoded path that begins with `/`, without query, `;`, `\\`, `//` and `/.`",
            );
        }
        pattern((*text).to_owned())
    };
    Some(match *kind {
        "exact" => rooted(PathPattern::Exact),
        "prefix" => rooted(PathPattern::Prefix),
        "suffix" => PathPattern::Suffix((*text).to_owned()),
        _ => PathPattern::Regex(read_regex(entry, text, regexes)?),
    })
}

/// `None` only after a mistake: a rule must not lose a path silently.
fn read_regex(entry: &Object<'_>, text: &str, regexes: &mut usize) -> Option<PathRegex> {
    // The config is rejected once the total is too large. Compiling the rest, up to 8,000 regexes,
    // would waste time.
    if *regexes > MAX_REGEX_SIZE {
        return None;
    }
    let regex = match PathRegex::new(text) {
        Ok(regex) => regex,
        Err(error) => {
            entry.mistake("regex", &quoted(text), &format!("a regex ({error})"));
            // Rejecting it may have taken as long as compiling the largest.
            *regexes = regexes.saturating_add(MAX_REGEX_SIZE / 8);
            return None;
        }
    };
    *regexes = regexes.saturating_add(regex.size());
    if *regexes > MAX_REGEX_SIZE {
        let found = format!(
            "{} ({} bytes compiled, {regexes} in total)",
            quoted(text),
            regex.size()
        );
        let expected = format!(
            "at most {MAX_REGEX_SIZE} compiled bytes in total for the regexes of `rules`: shorten them, avoid repetitions such as \
             `{{1,100}}`, or use `prefix`, `exact` and `suffix`"
        );
        entry.mistake("regex", &found, &expected);
    }
    Some(regex)
}
