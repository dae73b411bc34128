//! Warnings of rules that are rarely intended.

use alb_oidc_filter::{Access, Config, MAX_REGEX_SIZE, PathPattern, RequestHead, Rule};

use super::warnings::Warnings;
use crate::finding::Code;

/// Adds the warnings of the rules of `config`.
pub(super) fn warn(config: &Config, warnings: &mut Warnings<'_>) {
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
        warnings.add(Code::RegexSize, "rules", &message);
    }
    for (field, other) in groups_that_differ_in_case(rules) {
        let message = format!("differs from {other} in case only: names are compared exactly");
        warnings.add(Code::GroupCase, &field, &message);
    }
    for (position, rule) in rules.iter().enumerate() {
        let field = format!("rules[{position}]");
        let earlier = rules
            .iter()
            .take(position)
            .position(|earlier| covers(earlier, rule));
        if let Some(earlier) = earlier {
            let message = format!("never applies: rules[{earlier}] matches all its requests first");
            warnings.add(Code::RuleNeverApplies, &field, &message);
        } else if opens_any_path(config, rule) && !warnings.is_guarded(rule) {
            let message =
                format!("opens every path, such as {PROBE_PATH}, to requests without a token");
            warnings.add(Code::RuleOpensAll, &field, &message);
        } else if rule.access.opens() {
            warn_of_open_paths(&field, rule, warnings);
        } else if matches!(rule.access, Access::Allow(_)) {
            warn_of_narrow_rule(&field, rule, warnings);
        }
    }
}

impl Warnings<'_> {
    /// Whether a policy demands a JWT on every host of the rule.
    fn is_guarded(&self, rule: &Rule) -> bool {
        let is_guarded = |host: &String| self.guarded_hosts.contains(&host.as_str());
        !rule.hosts.is_empty() && rule.hosts.iter().all(is_guarded)
    }
}

/// Patterns that open more paths than they show.
fn warn_of_open_paths(field: &str, rule: &Rule, warnings: &mut Warnings<'_>) {
    for (position, path) in rule.paths.iter().enumerate() {
        let field = format!("{field}.match.paths[{position}]");
        match path {
            PathPattern::Suffix(suffix) => warnings.add(
                Code::RuleOpensSuffix,
                &format!("{field}.suffix"),
                &format!("found {suffix}: opens every path that ends so"),
            ),
            PathPattern::Regex(regex) if !is_anchored(regex.exact().as_str()) => warnings.add(
                Code::RuleOpensRegex,
                &format!("{field}.regex"),
                &format!(
                    "found {}, expected ^ at its start and $ at its end: opens every path with a match in it",
                    regex.exact()
                ),
            ),
            _ => {}
        }
    }
}

/// A rule that lets only some users pass, and that another path or method evades.
fn warn_of_narrow_rule(field: &str, rule: &Rule, warnings: &mut Warnings<'_>) {
    for (position, path) in rule.paths.iter().enumerate() {
        if let PathPattern::Exact(path) = path {
            warnings.add(
                Code::AllowExact,
                &format!("{field}.match.paths[{position}].exact"),
                &format!("found {path}: any user may request {path}/ and paths below it"),
            );
        }
    }
    if !rule.methods.is_empty() {
        warnings.add(
            Code::AllowMethods,
            &format!("{field}.match.methods"),
            &format!(
                "found {}: any user may use other methods",
                rule.methods.join(", ")
            ),
        );
    }
}

/// Whether the regex matches whole paths only.
fn is_anchored(regex: &str) -> bool {
    let (mut depth, mut is_escaped, mut in_class) = (0_usize, false, false);
    for c in regex.chars() {
        match c {
            _ if is_escaped => {
                is_escaped = false;
                continue;
            }
            '\\' => is_escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            _ if in_class => {}
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return false,
            _ => {}
        }
    }
    regex.starts_with('^') && ends_with_anchor(regex)
}

/// Whether a match of the regex reaches the end of the text: it ends with an unescaped `$`, or with
/// `.*`.
pub(super) fn reaches_the_end(regex: &str) -> bool {
    ends_with_anchor(regex) || regex.ends_with(".*") && !regex.ends_with(r"\.*")
}

/// Whether the regex ends with an unescaped `$`.
fn ends_with_anchor(regex: &str) -> bool {
    regex.strip_suffix('$').is_some_and(|rest| {
        let escapes = rest.chars().rev().take_while(|c| *c == '\\').count();
        escapes % 2 == 0
    })
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
    // A new condition does not compile until it is compared here.
    let Rule {
        hosts,
        paths,
        methods,
        issuers,
        access,
    } = earlier;
    // An empty list matches everything.
    let names = |earlier: &[String], later: &[String]| {
        earlier.is_empty() || (!later.is_empty() && later.iter().all(|name| earlier.contains(name)))
    };
    let (earlier_opens, later_opens) = (access.opens(), later.access.opens());
    let is_covered = |covered: &PathPattern| {
        paths
            .iter()
            .any(|path| path_covers(path, earlier_opens, covered, later_opens))
    };
    let covers_paths =
        paths.is_empty() || (!later.paths.is_empty() && later.paths.iter().all(is_covered));
    // A rule with `require: none` compares the case of methods; any other matches `get` too.
    let covers_case = methods.is_empty() || !earlier_opens || later_opens;
    names(issuers, &later.issuers)
        && covers_case
        && covers_paths
        && names(hosts, &later.hosts)
        && names(methods, &later.methods)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchored_regexes_match_whole_paths() {
        for (regex, expected) in [
            ("^/healthz$", true),
            ("^/(a|b)$", true),
            ("^/[|]$", true),
            (r"^/a\|b$", true),
            ("^/a$|^/b$", false),
            ("/healthz$", false),
            ("^/healthz", false),
            (r"^/cost\$", false),
            (r"^/a\\$", true),
        ] {
            assert_eq!(is_anchored(regex), expected, "{regex}");
        }
    }
}
