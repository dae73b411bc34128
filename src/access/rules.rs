//! Which requests need a token, and who may pass: `rules` of the plugin config. Nothing here may
//! look at a token.
//!
//! The first rule that matches decides; where none does, a token is needed and any user may pass. A path that upstream may
//! normalize in another way ([`super::path`]) must satisfy the rules of **every** form. A request that cannot be read (a control
//! character in its path, an invalid host) must satisfy **all** rules for its method.

use std::borrow::Cow;

use super::path::{FORM_OVERHEAD, MAX_FORM_BYTES, has_hidden_parent, normal_forms};
use super::regex::PathRegex;
use crate::headers::RequestHead;
use crate::identity::Identity;

/// The most work for regexes that one request may cause before a token was verified: the compiled
/// size of all regexes of the rules for its host and method, multiplied by the bytes of its path's
/// normalized forms. One unit takes at most 0.9 ns: a state of a regex has 20 bytes, and takes 17
/// ns for each byte of the path. All of it takes at most 0.7 ms.
const MAX_REGEX_WORK: usize = 768 * 1024;
/// The most bytes that all regexes of the rules may have once compiled, so that any path of 176
/// bytes with one form is decided.
pub const MAX_REGEX_SIZE: usize = MAX_REGEX_WORK / 192;
/// The rules, in order.
#[derive(Clone, Debug, Default)]
pub struct AccessRules {
    /// The first that matches decides.
    pub rules: Vec<Rule>,
}

/// One entry of `rules`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Lower case; `*.suffix` is any host below. Empty: every host.
    pub hosts: Vec<String>,
    /// Empty: every path.
    pub paths: Vec<PathPattern>,
    /// Upper case. Empty: every method.
    pub methods: Vec<String>,
    /// What it asks for.
    pub access: Access,
}

/// A path, without query, that a rule is about.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// This path.
    Exact(String),
    /// Paths that begin so. In a rule that opens, only where a segment ends there: `/a` is `/a` and
    /// `/a/b`, not `/ab`.
    Prefix(String),
    /// Paths that end so.
    Suffix(String),
    /// Paths that the regex matches anywhere.
    Regex(PathRegex),
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
    pub users: Vec<String>,
    /// Domains of the `email` claim, lower case; `*.suffix` is any domain below.
    pub domains: Vec<String>,
    /// Groups, with their prefix.
    pub groups: Vec<String>,
}

/// What a request must satisfy: the access of each normalized form of its path.
#[derive(Debug, PartialEq, Eq)]
pub struct Requirement<'r>(Cow<'r, [&'r Access]>);

impl AccessRules {
    /// What the request `head` must satisfy.
    pub fn requirement(&self, head: &RequestHead<'_>) -> Requirement<'_> {
        if self.rules.is_empty() {
            return Requirement(Cow::Borrowed(&[&Access::AnyUser]));
        }
        let text = |name| {
            head.first(name)
                .map(String::from_utf8_lossy)
                .unwrap_or_default()
        };
        let method = text(":method");
        let for_method: Vec<&Rule> = self
            .rules
            .iter()
            .filter(|rule| rule.is_for_method(&method))
            .collect();
        let decided = canonical_host(&text(":authority")).and_then(|host| {
            let applicable: Vec<&Rule> = for_method
                .iter()
                .copied()
                .filter(|rule| rule.is_for_host(&host))
                .collect();
            let paths = normal_forms(&text(":path"), most_path_bytes(applicable.iter().copied()))?;
            // Where a route rewrites it, nobody knows which path upstream sees.
            if paths.iter().any(|path| has_hidden_parent(path)) {
                return None;
            }
            Some((applicable, paths))
        });
        let Some((applicable, paths)) = decided else {
            let all = for_method
                .into_iter()
                .map(|rule| &rule.access)
                .filter(|access| **access != Access::Open);
            return Requirement(all.chain([&Access::AnyUser]).collect());
        };
        let mut found: Vec<&Access> = Vec::new();
        for path in paths {
            for folded in [false, true] {
                let rule = applicable.iter().find(|rule| rule.matches(&path, folded));
                let access = rule.map_or(&Access::AnyUser, |rule| &rule.access);
                if !found.iter().any(|known| std::ptr::eq(*known, access)) {
                    found.push(access);
                }
            }
        }
        Requirement(found.into())
    }

    /// The longest path, in bytes, that is decided for every host and method, where it has one
    /// form.
    pub fn longest_path(&self) -> usize {
        most_path_bytes(self.rules.iter())
            .saturating_sub(FORM_OVERHEAD)
            .min(MAX_FORM_BYTES)
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

/// The most bytes of one path, with [`FORM_OVERHEAD`] for each of its normal_forms, that the
/// regexes of these rules are tried on.
fn most_path_bytes<'r>(rules: impl Iterator<Item = &'r Rule>) -> usize {
    let size = rules.fold(0, |size: usize, rule| {
        size.saturating_add(rule.regex_size())
    });
    MAX_REGEX_WORK.checked_div(size).unwrap_or(usize::MAX)
}

impl Rule {
    /// The bytes of this rule's compiled regexes.
    pub fn regex_size(&self) -> usize {
        let sizes = self.paths.iter().map(|path| {
            if let PathPattern::Regex(regex) = path {
                regex.size()
            } else {
                0
            }
        });
        sizes.fold(0, usize::saturating_add)
    }

    fn is_for_host(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| is_within(host, pattern))
    }

    /// Some upstreams know no case: a rule that lets pass wants the method as it is written, any
    /// other does not.
    fn is_for_method(&self, method: &str) -> bool {
        let same = |of: &String| {
            if self.access == Access::Open {
                of == method
            } else {
                of.eq_ignore_ascii_case(method)
            }
        };
        self.methods.is_empty() || self.methods.iter().any(same)
    }

    fn matches(&self, path: &str, folded: bool) -> bool {
        let by_segment = self.access == Access::Open;
        self.paths.is_empty()
            || self
                .paths
                .iter()
                .any(|pattern| pattern.matches(path, folded, by_segment))
    }
}

impl PathPattern {
    /// `folded`: without regard to case. `by_segment`: a prefix ends where a segment does.
    fn matches(&self, path: &str, folded: bool, by_segment: bool) -> bool {
        let same = |part: Option<&str>, text: &str| {
            part.is_some_and(|part| {
                if folded {
                    part.eq_ignore_ascii_case(text)
                } else {
                    part == text
                }
            })
        };
        match self {
            Self::Exact(text) => same(Some(path), text),
            Self::Prefix(text) => {
                let is_whole = || {
                    text.ends_with('/')
                        || matches!(path.as_bytes().get(text.len()), None | Some(b'/'))
                };
                same(path.get(..text.len()), text) && (!by_segment || is_whole())
            }
            Self::Suffix(text) => same(
                path.len()
                    .checked_sub(text.len())
                    .and_then(|from| path.get(from..)),
                text,
            ),
            Self::Regex(regex) => regex.is_match(path, folded),
        }
    }
}

impl Allow {
    fn admits(&self, identity: &Identity) -> bool {
        let domain = identity.email_domain.as_deref();
        self.users.contains(&identity.user_id)
            || domain.is_some_and(|domain| {
                self.domains
                    .iter()
                    .any(|pattern| is_within(domain, pattern))
            })
            || self
                .groups
                .iter()
                .any(|group| identity.groups.contains(group))
    }
}

/// Whether the lower-case `name` is `pattern`, or below it where that is `*.suffix`.
fn is_within(name: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => name == pattern,
    }
}

/// The host of `:authority`, without port and final dot, in lower case; `None` if that is no host.
pub(crate) fn canonical_host(authority: &str) -> Option<String> {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_literal = host.starts_with('[') && host.ends_with(']');
    let is_sound = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || b"-._".contains(&byte)
            || (is_literal && b"[:]".contains(&byte))
    };
    (!host.is_empty() && !host.ends_with('.') && host.bytes().all(is_sound))
        .then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(paths: &[PathPattern], access: Access) -> Rule {
        Rule {
            hosts: Vec::new(),
            paths: paths.to_vec(),
            methods: Vec::new(),
            access,
        }
    }

    fn prefix(text: &str) -> PathPattern {
        PathPattern::Prefix(text.to_owned())
    }

    fn admins() -> Access {
        Access::Allow(Allow {
            users: Vec::new(),
            domains: Vec::new(),
            groups: vec!["admins".to_owned()],
        })
    }

    fn head(path: &'static str) -> RequestHead<'static> {
        RequestHead::new(vec![
            (b":method", b"GET"),
            (b":authority", b"a.example:443"),
            (b":path", path.as_bytes()),
        ])
    }

    fn identity(user_id: &str, domain: Option<&str>, groups: &[&str]) -> Identity {
        Identity {
            user_id: user_id.to_owned(),
            email_domain: domain.map(str::to_owned),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            subject: None,
            headers: Vec::new(),
            dropped: 0,
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
        let rules = AccessRules {
            rules: vec![
                rule(&[prefix("/a/b")], Access::AnyUser),
                rule(&[prefix("/a")], admins()),
            ],
        };
        assert_eq!(*rules.requirement(&head("/a/b/c?/x")).0, [&Access::AnyUser]);
        assert_eq!(*rules.requirement(&head("/a/c?x=/a/b")).0, [&admins()]);
        assert_eq!(*rules.requirement(&head("/c")).0, [&Access::AnyUser]);
    }

    #[test]
    fn a_protected_path_is_not_reached_through_a_skipped_one() {
        let rules = AccessRules {
            rules: vec![rule(&[prefix("/public")], Access::Open)],
        };
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
            "/public/a%2fb/%2e%2e/%2e%2e/admin",
            "/public/;%2fx/%2e%2e/admin",
            "/public/;%252fx/%252e%252e/admin",
            "/public/#/../../admin",
            "/public/%2525252e%2525252e/admin",
            "/public/%c0%ae%c0%ae/admin",
            "/public/..%00/admin",
            "/public/.%09./admin",
            "/public/x%0a",
            "/",
            "",
            "*",
        ] {
            assert!(!rules.requirement(&head(path)).is_open(), "{path}");
        }
    }

    #[test]
    fn prefix_that_opens_ends_with_a_segment() {
        let open = |text| AccessRules {
            rules: vec![rule(&[prefix(text)], Access::Open)],
        };
        for (text, path, expected) in [
            ("/public", "/public", true),
            ("/public", "/public?x", true),
            ("/public", "/public/", true),
            ("/public", "/public/a/b.css", true),
            ("/public", "/public//a", true),
            ("/public", "/public/a;x/b", true),
            ("/public", "/publicity", false),
            ("/public", "/public.json", false),
            ("/public", "/public..", false),
            ("/public", "/public../admin", false),
            ("/public", "/public%2e%2e/admin", false),
            ("/public", "/public%252e./admin", false),
            ("/public", "/public..;x/admin", false),
            ("/public", "/public..\\admin", false),
            ("/public", "/public;x", false),
            ("/public", "/public%2fa", false),
            ("/public/", "/public/a", true),
            ("/public/", "/public/", true),
            ("/public/", "/public", false),
            ("/public/", "/public..", false),
            ("/", "/a", true),
            ("/", "/", true),
        ] {
            assert_eq!(
                open(text).requirement(&head(path)).is_open(),
                expected,
                "{text} {path}"
            );
        }
    }

    #[test]
    fn prefix_that_protects_ends_anywhere() {
        let rules = AccessRules {
            rules: vec![
                rule(&[prefix("/admin")], admins()),
                rule(&[prefix("/")], Access::Open),
            ],
        };
        for path in [
            "/admin",
            "/admin/",
            "/admin.json",
            "/administrator",
            "/admin..",
            "/admin;x",
            "/x/../admin.json",
        ] {
            assert!(
                !rules
                    .requirement(&head(path))
                    .admits(&identity("ann", None, &[])),
                "{path}"
            );
        }
    }

    /// A route may replace `/public/a` by `/app/`.
    #[test]
    fn no_rule_opens_a_path_with_dots_that_a_rewrite_sets_free() {
        let regex = PathPattern::Regex(PathRegex::new("^/public/").unwrap());
        let suffix = PathPattern::Suffix("/admin".to_owned());
        for pattern in [
            prefix("/public"),
            suffix,
            regex,
            PathPattern::Exact("/public/a../admin".to_owned()),
        ] {
            let rules = AccessRules {
                rules: vec![rule(&[pattern], Access::Open)],
            };
            for path in [
                "/public/a../admin",
                "/public/a%2e./admin",
                "/public/a..;x/admin",
                "/public/a..%5cadmin",
            ] {
                let requirement = rules.requirement(&head(path));
                assert!(
                    !requirement.is_open() && requirement.admits(&identity("ann", None, &[])),
                    "{path}"
                );
            }
        }
        let rules = [
            rule(&[prefix("/public")], Access::Open),
            rule(&[prefix("/admin")], admins()),
        ]
        .to_vec();
        let requirement = AccessRules { rules };
        let requirement = requirement.requirement(&head("/public/a../admin"));
        assert!(
            !requirement.admits(&identity("ann", None, &[]))
                && requirement.admits(&identity("ann", None, &["admins"]))
        );
        let rules = AccessRules {
            rules: vec![rule(&[prefix("/public")], Access::Open)],
        };
        assert!(
            rules
                .requirement(&head("/public/a..b/..c/...d/./x"))
                .is_open()
        );
    }

    #[test]
    fn a_rule_is_not_passed_by_by_spelling_its_path_differently() {
        let rules = AccessRules {
            rules: vec![rule(&[prefix("/admin")], admins())],
        };
        for path in [
            "//admin/../x",
            "/%2fadmin/%2e%2e/x",
            "//x/admin",
            "/\\x/admin",
            "/a%2fb/%2e%2e/admin",
            "/x;%2fy/%2e%2e/admin",
            "/a%2fb/../%61dmin",
            "/admin%00.css",
            "/admin%0a",
            "*",
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
            assert!(
                !rules
                    .requirement(&head(path))
                    .admits(&identity("ann", None, &["users"])),
                "{path}"
            );
            assert!(
                rules
                    .requirement(&head(path))
                    .admits(&identity("ann", None, &["admins"])),
                "{path}"
            );
        }
        assert!(
            rules
                .requirement(&head("/adm"))
                .admits(&identity("ann", None, &[]))
        );
    }

    #[test]
    fn empty_segments_are_read_as_kept_and_as_merged() {
        let rules = AccessRules {
            rules: vec![rule(&[prefix("/api/admin")], admins())],
        };
        for path in [
            "/api//../admin",
            "/api/x/..//admin",
            "//api/admin",
            "//host/api/admin",
        ] {
            assert!(
                !rules
                    .requirement(&head(path))
                    .admits(&identity("ann", None, &[])),
                "{path}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_must_satisfy_every_rule() {
        let mut of_a_host = rule(&[prefix("/x")], admins());
        of_a_host.hosts = vec!["argocd.example".to_owned()];
        let rules = AccessRules {
            rules: vec![rule(&[prefix("/public")], Access::Open), of_a_host],
        };
        let long = format!("/public/{}/%2e", "a".repeat(MAX_FORM_BYTES / 2));
        let many = "//h;a/%2e%2e/b%2f..;/c\\d//%252e%252e/e%253bf/./g%5c..%2f;h";
        assert!(normal_forms(many, usize::MAX).is_none());
        for (authority, path) in [
            ("x@argocd.example", "/public"),
            ("argocd.example:443:80", "/public"),
            ("argocd.example..", "/public"),
            ("argocd.example,b", "/public"),
            ("argocd.example b", "/public"),
            ("", "/public"),
            ("a.example", "/public/%00"),
            ("a.example", &long),
            ("a.example", many),
            ("a.example", "/public/%2525252e"),
        ] {
            let head: Vec<(&[u8], &[u8])> = vec![
                (b":authority", authority.as_bytes()),
                (b":path", path.as_bytes()),
            ];
            let head = RequestHead::new(head);
            let requirement = rules.requirement(&head);
            assert!(!requirement.is_open(), "{authority} {path}");
            assert!(
                !requirement.admits(&identity("ann", None, &["users"])),
                "{authority} {path}"
            );
            assert!(
                requirement.admits(&identity("ann", None, &["admins"])),
                "{authority} {path}"
            );
        }
    }

    #[test]
    fn tries_no_regex_on_a_path_that_would_take_too_long() {
        let regex = |text: &str| PathPattern::Regex(PathRegex::new(text).unwrap());
        let mut elsewhere = rule(&[regex("^/a[0-9]{1,20}$")], Access::Open);
        elsewhere.hosts = vec!["b.example".to_owned()];
        let open = rule(&[regex("^/[a-z]{1,12}[a-z]*$")], Access::Open);
        let rules = AccessRules {
            rules: vec![elsewhere, open, rule(&[prefix("/admin")], admins())],
        };
        let most = MAX_REGEX_WORK / rules.rules[1].regex_size() - FORM_OVERHEAD;
        assert!((256..2000).contains(&most), "{most} bytes");
        let of = |host: &str, bytes: usize| {
            let path = format!("/{}", "a".repeat(bytes - 1));
            let head = RequestHead::new(vec![
                (b":authority", host.as_bytes()),
                (b":path", path.as_bytes()),
            ]);
            (
                rules.requirement(&head).is_open(),
                rules.requirement(&head).admits(&identity("ann", None, &[])),
            )
        };
        // The rules of another host do not count.
        assert!(rules.longest_path() < most);
        assert_eq!(of("a.example", most), (true, true));
        assert_eq!(of("a.example", most + 1), (false, false));
        assert_eq!(of("b.example", most), (false, false));
        assert_eq!(of("b.example", rules.longest_path()), (true, true));
    }

    #[test]
    fn a_rule_that_protects_knows_no_case_of_methods_and_one_that_opens_does() {
        let of = |access| {
            let mut rule = rule(&[], access);
            rule.methods = vec!["DELETE".to_owned()];
            AccessRules { rules: vec![rule] }
        };
        let head = RequestHead::new(vec![
            (b":method", b"delete"),
            (b":authority", b"a"),
            (b":path", b"/"),
        ]);
        assert!(
            !of(admins())
                .requirement(&head)
                .admits(&identity("ann", None, &[]))
        );
        assert!(!of(Access::Open).requirement(&head).is_open());
    }

    #[test]
    fn a_path_is_exact_prefix_suffix_or_regex() {
        let regex = |text: &str| PathPattern::Regex(PathRegex::new(text).unwrap());
        for (pattern, open, closed) in [
            (PathPattern::Exact("/a".to_owned()), "/a?b", "/a/"),
            (prefix("/a"), "/a/b", "/b/a"),
            (
                PathPattern::Suffix(".css".to_owned()),
                "/a/b.css",
                "/a.css/b",
            ),
            (regex("^/v[0-9]+/health$"), "/v12/health", "/v12/health/x"),
        ] {
            let rules = AccessRules {
                rules: vec![rule(&[pattern], Access::Open)],
            };
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
            assert_eq!(canonical_host(authority).as_deref(), Some(expected));
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
        let rules = AccessRules {
            rules: vec![open.clone()],
        };
        assert!(rules.requirement(&head("/")).is_open());
        open.methods = vec!["OPTIONS".to_owned()];
        assert!(
            !AccessRules { rules: vec![open] }
                .requirement(&head("/"))
                .is_open()
        );
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
            assert_eq!(
                allow.admits(&identity(user, domain, groups)),
                admitted,
                "{user} {domain:?} {groups:?}"
            );
        }
    }
}
