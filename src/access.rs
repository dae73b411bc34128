//! Which requests need a token, and who may pass: `rules` of the plugin config. Nothing here may look at a token.
//!
//! The first rule that matches decides; where none does, a token is needed and any user may pass. A path that upstream may
//! read in another way than it is written (`%2e`, `//`, `..`, `;`, `\`, another case) must satisfy the rules of **every**
//! reading: nobody gets to a protected path through a skipped one, or past a rule by spelling its path differently.

use regex_lite::Regex;

use crate::gate::RequestHead;
use crate::identity::Identity;

/// How often a path may have been percent-encoded for its readings to be told apart.
const DECODINGS: usize = 3;

/// The rules, in order.
#[derive(Clone, Debug, Default)]
pub struct AccessRules {
    pub(crate) rules: Vec<Rule>,
}

/// One entry of `rules`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Lower case; `*.suffix` is any host below. Empty: every host.
    pub(crate) hosts: Vec<String>,
    /// Empty: every path.
    pub(crate) paths: Vec<PathPattern>,
    /// Upper case. Empty: every method.
    pub(crate) methods: Vec<String>,
    pub(crate) access: Access,
}

/// A path, without query, that a rule is about.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// This path.
    Exact(String),
    /// Paths that begin so.
    Prefix(String),
    /// Paths that end so.
    Suffix(String),
    /// Paths that the regex matches anywhere, and the same regex without regard to case.
    Regex(Regex, Regex),
}

/// What a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: the request passes without identity.
    Open,
    /// A token of any user.
    AnyUser,
    /// A token of one of these.
    Allow(Allow),
}

/// Who may pass. One of the three is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// User ids.
    pub(crate) users: Vec<String>,
    /// Domains of the `email` claim, lower case; `*.suffix` is any domain below.
    pub(crate) domains: Vec<String>,
    /// Groups, with their prefix.
    pub(crate) groups: Vec<String>,
}

/// What a request must satisfy: the access of each reading of its path.
#[derive(Debug, PartialEq, Eq)]
pub struct Requirement<'r>(Vec<&'r Access>);

impl AccessRules {
    /// What the request `head` must satisfy.
    pub fn requirement(&self, head: &RequestHead<'_>) -> Requirement<'_> {
        if self.rules.is_empty() {
            return Requirement(vec![&Access::AnyUser]);
        }
        let text = |name| head.first(name).map(String::from_utf8_lossy).unwrap_or_default();
        let (host, method) = (canonical_host(&text(":authority")), text(":method"));
        let applicable: Vec<&Rule> = self.rules.iter().filter(|rule| rule.is_about(&host, &method)).collect();
        let mut found: Vec<&Access> = Vec::new();
        for path in readings(&text(":path")) {
            for folded in [false, true] {
                let rule = applicable.iter().find(|rule| rule.matches(&path, folded));
                let access = rule.map_or(&Access::AnyUser, |rule| &rule.access);
                if !found.contains(&access) {
                    found.push(access);
                }
            }
        }
        Requirement(found)
    }
}

impl Requirement<'_> {
    /// Whether the request passes without a token.
    pub fn is_open(&self) -> bool {
        self.0.iter().all(|access| **access == Access::Open)
    }

    /// Whether the user may pass, who has been verified.
    pub fn admits(&self, identity: &Identity) -> bool {
        self.0.iter().all(|access| match access {
            Access::Open | Access::AnyUser => true,
            Access::Allow(allow) => allow.admits(identity),
        })
    }
}

impl Rule {
    fn is_about(&self, host: &str, method: &str) -> bool {
        (self.hosts.is_empty() || self.hosts.iter().any(|pattern| is_within(host, pattern)))
            && (self.methods.is_empty() || self.methods.iter().any(|of| of == method))
    }

    fn matches(&self, path: &str, folded: bool) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path, folded))
    }
}

impl PathPattern {
    /// `folded`: without regard to case.
    fn matches(&self, path: &str, folded: bool) -> bool {
        let same = |part: Option<&str>, text: &str| {
            part.is_some_and(|part| if folded { part.eq_ignore_ascii_case(text) } else { part == text })
        };
        match self {
            Self::Exact(text) => same(Some(path), text),
            Self::Prefix(text) => same(path.get(..text.len()), text),
            Self::Suffix(text) => same(path.len().checked_sub(text.len()).and_then(|from| path.get(from..)), text),
            Self::Regex(exact, ignoring_case) => (if folded { ignoring_case } else { exact }).is_match(path),
        }
    }
}

impl Allow {
    fn admits(&self, identity: &Identity) -> bool {
        let domain = identity.email_domain.as_deref();
        self.users.contains(&identity.user_id)
            || domain.is_some_and(|domain| self.domains.iter().any(|pattern| is_within(domain, pattern)))
            || self.groups.iter().any(|group| identity.groups.contains(group))
    }
}

/// Whether the lower-case `name` is `pattern`, or below it where that is `*.suffix`.
fn is_within(name: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => name == pattern,
    }
}

/// The host of `:authority`, without port and final dot, in lower case.
fn canonical_host(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Every way in which an upstream may read `:path`: as it is written; decoded, up to [`DECODINGS`] times; with `\` for `/`;
/// without path parameters; with dots and empty segments resolved. One reading where nothing is open to interpretation.
fn readings(path: &str) -> Vec<String> {
    let written = path.split(['?', '#']).next().unwrap_or_default();
    let mut readings = vec![written.to_owned()];
    if !written.contains(['%', ';', '\\']) && !written.contains("//") && !written.contains("/.") {
        return readings;
    }
    let mut add = |reading: String| {
        if !readings.contains(&reading) {
            readings.push(reading);
        }
    };
    let mut decoded = written.to_owned();
    for _ in 0..=DECODINGS {
        for slashed in [decoded.clone(), decoded.replace('\\', "/")] {
            let undelimited = slashed.split(['?', '#']).next().unwrap_or_default().to_owned();
            for cut in [slashed.clone(), undelimited] {
                let bare = without_parameters(&cut);
                add(resolved(&bare));
                add(resolved(&cut));
                add(bare);
                add(cut);
            }
        }
        let next = percent_decoded(&decoded);
        if next == decoded {
            break;
        }
        decoded = next;
    }
    readings
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = match (byte, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The path without the `;parameters` of its segments.
fn without_parameters(path: &str) -> String {
    let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    segments.collect::<Vec<_>>().join("/")
}

/// The path with `.`, `..` and empty segments resolved.
fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let is_folder = path.ends_with(['/']) || path.ends_with("/.") || path.ends_with("/..");
    let end = if is_folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(paths: &[PathPattern], access: Access) -> Rule {
        Rule { hosts: Vec::new(), paths: paths.to_vec(), methods: Vec::new(), access }
    }

    fn prefix(text: &str) -> PathPattern {
        PathPattern::Prefix(text.to_owned())
    }

    fn admins() -> Access {
        Access::Allow(Allow { users: Vec::new(), domains: Vec::new(), groups: vec!["admins".to_owned()] })
    }

    fn head(path: &'static str) -> RequestHead<'static> {
        RequestHead::new(vec![(b":method", b"GET"), (b":authority", b"a.example:443"), (b":path", path.as_bytes())])
    }

    fn identity(user_id: &str, domain: Option<&str>, groups: &[&str]) -> Identity {
        Identity {
            user_id: user_id.to_owned(),
            email_domain: domain.map(str::to_owned),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            subject: None,
            headers: Vec::new(),
            left_out: 0,
        }
    }

    #[test]
    fn without_rules_every_request_needs_a_token_of_any_user() {
        let rules = AccessRules::default();
        let requirement = rules.requirement(&head("/"));
        assert!(!requirement.is_open() && requirement.admits(&identity("ann", None, &[])));
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules =
            AccessRules { rules: vec![rule(&[prefix("/a/b")], Access::AnyUser), rule(&[prefix("/a")], admins())] };
        assert_eq!(rules.requirement(&head("/a/b/c?/x")).0, [&Access::AnyUser]);
        assert_eq!(rules.requirement(&head("/a/c?x=/a/b")).0, [&admins()]);
        assert_eq!(rules.requirement(&head("/c")).0, [&Access::AnyUser]);
    }

    #[test]
    fn a_protected_path_is_not_reached_through_a_skipped_one() {
        let rules = AccessRules { rules: vec![rule(&[prefix("/public")], Access::Open)] };
        assert!(rules.requirement(&head("/public/x.css?y=..")).is_open());
        for path in [
            "/public/../admin",
            "/public/%2e%2e/admin",
            "/public/%2E%2e%2fadmin",
            "/public/%252e%252e/admin",
            "/public/..;/admin",
            "/public/..;x=1/admin",
            "/public;/../admin",
            "/public/..\\admin",
            "/public/..%5cadmin",
            "/public//../../admin",
            "/./admin",
            "/admin/..;/public",
            "/PUBLIC/x",
            "/public%2f..%2fadmin",
            "/public/%25252e%25252e/admin",
            "/public/%2e%2e%3b/admin",
            "/x/../public/y/../../admin",
            "/",
            "",
            "*",
        ] {
            assert!(!rules.requirement(&head(path)).is_open(), "{path}");
        }
    }

    #[test]
    fn a_rule_is_not_passed_by_by_spelling_its_path_differently() {
        let rules = AccessRules { rules: vec![rule(&[prefix("/admin")], admins())] };
        for path in [
            "/admin",
            "/Admin",
            "/ADMIN/x",
            "//admin",
            "/./admin",
            "/x/../admin",
            "/%61dmin",
            "/%2561dmin",
            "/x/..;/admin",
            "/;a=b/admin",
            "/x/%2e%2e/admin",
            "\\admin",
            "/x\\..\\admin",
            "/admin;x",
            "/%2fadmin",
            "/a/b/../../admin?x",
            "/admin#x",
            "/admin%3fx",
        ] {
            assert!(!rules.requirement(&head(path)).admits(&identity("ann", None, &["users"])), "{path}");
            assert!(rules.requirement(&head(path)).admits(&identity("ann", None, &["admins"])), "{path}");
        }
        assert!(rules.requirement(&head("/adm")).admits(&identity("ann", None, &[])));
    }

    #[test]
    fn a_path_is_exact_prefix_suffix_or_regex() {
        let regex = |text: &str| {
            let ignoring_case = regex_lite::RegexBuilder::new(text).case_insensitive(true).build().unwrap();
            PathPattern::Regex(Regex::new(text).unwrap(), ignoring_case)
        };
        for (pattern, open, closed) in [
            (PathPattern::Exact("/a".to_owned()), "/a?b", "/a/"),
            (prefix("/a"), "/ab", "/b/a"),
            (PathPattern::Suffix(".css".to_owned()), "/a/b.css", "/a.css/b"),
            (regex("^/v[0-9]+/health$"), "/v12/health", "/v12/health/x"),
        ] {
            let rules = AccessRules { rules: vec![rule(&[pattern], Access::Open)] };
            assert!(rules.requirement(&head(open)).is_open(), "{open}");
            assert!(!rules.requirement(&head(closed)).is_open(), "{closed}");
        }
    }

    #[test]
    fn a_host_is_compared_without_case_port_and_final_dot() {
        for (authority, expected) in [
            ("A.Example:443", "a.example"),
            ("a.example.", "a.example"),
            ("a.example.:80", "a.example"),
            ("[::1]:80", "[::1]"),
        ] {
            assert_eq!(canonical_host(authority), expected);
        }
        assert!(is_within("b.a.example", "*.a.example") && is_within("a.example", "a.example"));
        assert!(
            !is_within("a.example", "*.a.example")
                && !is_within("xa.example", "*.a.example")
                && !is_within("x.a.example.evil", "*.a.example")
        );
    }

    #[test]
    fn host_and_method_choose_the_rules() {
        let mut open = rule(&[], Access::Open);
        open.hosts = vec!["*.example".to_owned()];
        open.methods = vec!["GET".to_owned()];
        let rules = AccessRules { rules: vec![open.clone()] };
        assert!(rules.requirement(&head("/")).is_open());
        open.methods = vec!["OPTIONS".to_owned()];
        assert!(!AccessRules { rules: vec![open] }.requirement(&head("/")).is_open());
    }

    #[test]
    fn user_domain_or_group_lets_in() {
        let allow = Allow {
            users: vec!["ann".to_owned()],
            domains: vec!["example.com".to_owned(), "*.example.org".to_owned()],
            groups: vec!["admins".to_owned()],
        };
        for (user, domain, groups, admitted) in [
            ("ann", None, &[][..], true),
            ("Ann", None, &[], false),
            ("bob", Some("example.com"), &[], true),
            ("bob", Some("eu.example.org"), &[], true),
            ("bob", Some("example.org"), &[], false),
            ("bob", Some("evil-example.com"), &["users", "admins"], true),
            ("bob", Some("evil-example.com"), &["admins,x"], false),
        ] {
            assert_eq!(allow.admits(&identity(user, domain, groups)), admitted, "{user} {domain:?} {groups:?}");
        }
    }
}
