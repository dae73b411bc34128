//! Warnings of valid settings that are rarely intended, in the config and in the Istio resource
//! around it.

use alb_oidc_filter::{Access, Config, MAX_REGEX_SIZE, PathPattern, RequestHead, Rule};
use serde::Serialize;
use serde_json::Value;

use crate::input::PluginConfig;

/// A mistake or a warning.
#[derive(Serialize)]
pub(super) struct Finding {
    pub(super) line: u64,
    pub(super) field: String,
    pub(super) message: String,
}

pub(super) fn warnings_of_config(plugin: &PluginConfig, config: &Config) -> Vec<Finding> {
    let mut warnings = Vec::new();
    let mut warn = |field: String, message: &str| {
        warnings.push(Finding {
            line: plugin.line(&field),
            message: format!("{field}: {message}"),
            field,
        });
    };
    for (position, load_balancer) in config.load_balancers.iter().enumerate() {
        if load_balancer.issuer.is_none() {
            warn(
                format!("loadBalancers[{position}].issuer"),
                "found null: tokens of any issuer are trusted",
            );
        }
        if load_balancer.client_id.is_none() {
            let message = "found null: tokens for every application of the issuer are trusted";
            warn(format!("loadBalancers[{position}].clientId"), message);
        }
    }
    for (field, subject) in access_token_subjects(plugin) {
        if subject.starts_with("custom:") || USER_ATTRIBUTES.contains(&subject) {
            let message = format!(
                "found {subject}: users may write this attribute at many providers, and could then add another user's access token claims to their own; expected an id that the provider assigns"
            );
            warn(field, &message);
        }
    }
    if config.report_only {
        warn(
            "mode".to_owned(),
            "found \"report\": no request is denied, and those without a valid token pass without a user id",
        );
    }
    for (position, name) in config
        .upgrades
        .allowed
        .iter()
        .enumerate()
        .filter(|(_, name)| *name != "websocket")
    {
        let message = format!(
            "found {name}: before Envoy 1.38.4 and 1.39.3, a client can hide a second request with a forged user id behind it"
        );
        warn(format!("upgrades[{position}]"), &message);
    }
    if config.forward.session_cookies {
        warn(
            "forward.sessionCookies".to_owned(),
            "found true: upstream receives cookies with which it can impersonate the user",
        );
    }
    let rules = &config.access.rules;
    let regexes = rules
        .iter()
        .map(Rule::regex_size)
        .fold(0, usize::saturating_add);
    if regexes > MAX_REGEX_SIZE / 4 * 3 {
        let message = format!(
            "found regexes of about {regexes} compiled bytes: the module may count a third more, and rejects the config above \
             {MAX_REGEX_SIZE} bytes; shorten them or use fewer"
        );
        warn("rules".to_owned(), &message);
    }
    for (field, other) in groups_that_differ_in_case(rules) {
        let message = format!("differs from {other} in case only: names are compared exactly");
        warn(field, &message);
    }
    for (position, rule) in rules.iter().enumerate() {
        let earlier = rules
            .iter()
            .take(position)
            .position(|earlier| covers(earlier, rule));
        if let Some(earlier) = earlier {
            warn(
                format!("rules[{position}]"),
                &format!("never applies: rules[{earlier}] matches all its requests first"),
            );
        } else if opens_any_path(config, rule) {
            warn(
                format!("rules[{position}]"),
                &format!("opens every path, such as {PROBE_PATH}, to requests without a token"),
            );
        }
    }
    warnings
}

/// Each group in `allow` that an earlier one equals but for case, with the path of that one.
fn groups_that_differ_in_case(rules: &[Rule]) -> Vec<(String, String)> {
    let mut seen: Vec<(&str, String)> = Vec::new();
    let mut found = Vec::new();
    for (rule, access) in rules.iter().map(|rule| &rule.access).enumerate() {
        let Access::Allow(allow) = access else {
            continue;
        };
        for (position, group) in allow.groups.iter().enumerate() {
            let field = format!("rules[{rule}].allow.groups[{position}]");
            let is_alike =
                |(other, _): &&(&str, String)| group.eq_ignore_ascii_case(other) && group != other;
            if let Some((_, other)) = seen.iter().find(is_alike) {
                found.push((field.clone(), other.clone()));
            }
            seen.push((group, field));
        }
    }
    found
}
/// Each `accessToken.subject` of the config, with the path of its field.
fn access_token_subjects(plugin: &PluginConfig) -> Vec<(String, &str)> {
    fn subject(rules: Option<&Value>) -> Option<&str> {
        rules?.get("subject")?.as_str()
    }
    let entries = plugin
        .members
        .get("loadBalancers")
        .and_then(Value::as_array);
    let of_entries = entries.into_iter().flatten().enumerate();
    let of_entries = of_entries.map(|(position, entry)| {
        let field = format!("loadBalancers[{position}].accessToken.subject");
        (field, subject(entry.get("accessToken")))
    });
    let of_all = subject(plugin.members.get("accessToken"));
    let subjects = of_entries.chain([("accessToken.subject".to_owned(), of_all)]);
    subjects
        .filter_map(|(field, subject)| Some((field, subject?)))
        .collect()
}

/// Claims that many providers let users write (OpenID Connect Core, section 5.1).
const USER_ATTRIBUTES: [&str; 16] = [
    "address",
    "birthdate",
    "email",
    "family_name",
    "gender",
    "given_name",
    "locale",
    "middle_name",
    "name",
    "nickname",
    "phone_number",
    "picture",
    "preferred_username",
    "profile",
    "website",
    "zoneinfo",
];

/// A path that no rule opens on purpose.
const PROBE_PATH: &str = "/alb-oidc-check";

fn opens_any_path(config: &Config, rule: &Rule) -> bool {
    let method = rule
        .methods
        .iter()
        .map(String::as_str)
        .find(|method| !["OPTIONS", "HEAD"].contains(method));
    let method = if rule.methods.is_empty() {
        "GET"
    } else {
        method.unwrap_or_default()
    };
    let host = rule.hosts.first().map_or_else(
        || "host.invalid".to_owned(),
        |host| host.replace('*', "any"),
    );
    let head = [
        (":method", method),
        (":authority", host.as_str()),
        (":path", PROBE_PATH),
    ];
    let head = RequestHead::new(
        head.map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .to_vec(),
    );
    rule.access.opens() && !method.is_empty() && config.access.requirement(&head).is_optional()
}

/// Whether `earlier` certainly matches every request that `later` matches.
fn covers(earlier: &Rule, later: &Rule) -> bool {
    let names = |earlier: &[String], later: &[String]| {
        earlier.is_empty() || (!later.is_empty() && later.iter().all(|name| earlier.contains(name)))
    };
    let by_segment = earlier.access.opens();
    let is_covered = |covered: &PathPattern| {
        let opens = later.access.opens();
        earlier
            .paths
            .iter()
            .any(|earlier| path_covers(earlier, by_segment, covered, opens))
    };
    let paths =
        earlier.paths.is_empty() || (!later.paths.is_empty() && later.paths.iter().all(is_covered));
    // A rule with `require: none` compares the case of methods; any other matches `get` too.
    let spelling = earlier.methods.is_empty() || !earlier.access.opens() || later.access.opens();
    // An empty list is every issuer.
    names(&earlier.issuers, &later.issuers)
        && spelling
        && paths
        && names(&earlier.hosts, &later.hosts)
        && names(&earlier.methods, &later.methods)
}

/// `earlier_opens`, `later_opens`: a prefix in a rule with `require: none` matches whole segments.
fn path_covers(
    earlier: &PathPattern,
    earlier_opens: bool,
    later: &PathPattern,
    later_opens: bool,
) -> bool {
    match (earlier, later) {
        (PathPattern::Prefix(prefix), PathPattern::Prefix(text))
            if earlier_opens && !prefix.ends_with('/') =>
        {
            text.strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.starts_with('/') || rest.is_empty() && later_opens)
        }
        (PathPattern::Prefix(prefix), PathPattern::Exact(text))
            if earlier_opens && !prefix.ends_with('/') =>
        {
            text.strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.starts_with('/') || rest.is_empty())
        }
        (PathPattern::Prefix(earlier), PathPattern::Prefix(later) | PathPattern::Exact(later)) => {
            later.starts_with(earlier)
        }
        (PathPattern::Suffix(earlier), PathPattern::Suffix(later) | PathPattern::Exact(later)) => {
            later.ends_with(earlier)
        }
        (PathPattern::Exact(earlier), PathPattern::Exact(later)) => earlier == later,
        (PathPattern::Regex(earlier), PathPattern::Regex(later)) => {
            earlier.exact().as_str() == later.exact().as_str()
        }
        (PathPattern::Regex(earlier), PathPattern::Exact(later)) => earlier.exact().is_match(later),
        _ => false,
    }
}

/// Warnings about the Istio resource that contains the config.
pub(super) fn warnings_of_resource(plugin: &PluginConfig) -> Vec<Finding> {
    let Some(resource) = &plugin.resource else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    let mut warn = |field: &str, message: &str| {
        warnings.push(Finding {
            line: plugin.spec_line(field),
            field: format!("spec.{field}"),
            message: format!("spec.{field}: {message}"),
        });
    };
    let spec = &plugin.spec;
    // A TrafficExtension nests the settings of the module.
    let fail_strategy = if resource.starts_with("WasmPlugin") {
        "failStrategy"
    } else {
        "wasm.failStrategy"
    };
    let strategy = spec
        .pointer(&format!("/{}", fail_strategy.replace('.', "/")))
        .and_then(Value::as_str);
    if strategy == Some("FAIL_OPEN") {
        warn(
            fail_strategy,
            "found FAIL_OPEN, expected FAIL_RELOAD or FAIL_CLOSE: otherwise every request passes when the filter fails",
        );
    }
    let phase = spec.get("phase").and_then(Value::as_str);
    if phase != Some("AUTHN") {
        let found = phase.unwrap_or("nothing");
        let message = format!(
            "found {found}, expected AUTHN: otherwise the filter may run after policies that read its headers"
        );
        warn("phase", &message);
    }
    let modes = spec
        .get("match")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let modes: Vec<_> = modes
        .map(|entry| entry.get("mode").and_then(Value::as_str))
        .collect();
    if !modes.is_empty() && modes.iter().all(|mode| *mode == Some("SERVER")) {
        warn(
            "match",
            "found SERVER, expected CLIENT: SERVER never matches on a gateway",
        );
    }
    if ["selector", "targetRefs", "targetRef"]
        .iter()
        .all(|field| spec.get(field).is_none())
    {
        warn(
            "selector",
            "found nothing, expected the gateway's labels or targetRefs: otherwise every proxy in the namespace runs the filter",
        );
    }
    warnings
}
