//! Access rules: which requests need a token and which users may pass. Sees no token.
//!
//! Rules are evaluated twice. [`AccessRules::requirement`] finds the rules that match the request,
//! before the token is verified. [`Requirement::admits`] applies them to the verified user. A
//! condition on the user, such as [`Rule::issuers`], is evaluated by the second. While
//! such a rule can decide, the request needs a token.
//!
//! The first matching rule decides. Without one, the request needs a token and any user may pass.
//! A path with several normalized forms ([`super::path`]) must satisfy the rules of **every** form.
//! An unreadable request (a control character in its path, an invalid host) must satisfy **all**
//! rules for its method.

use std::borrow::Cow;

use super::path::{FORM_OVERHEAD, MAX_FORM_BYTES, has_hidden_parent, normal_forms};
use super::regex::PathRegex;
use crate::headers::RequestHead;
use crate::identity::Identity;

/// The most regex work that an unauthenticated request may cause: the compiled size of all regexes
/// for its host and method, multiplied by the bytes of its path's normalized forms. One unit takes
/// at most 0.9 ns, as a state of 20 bytes takes 17 ns for each byte of the path. The limit takes at
/// most 0.7 ms.
const MAX_REGEX_WORK: usize = 768 * 1024;
/// The most compiled bytes of all regexes. At this size, paths of up to 176 bytes with one form are
/// still matched.
pub const MAX_REGEX_SIZE: usize = MAX_REGEX_WORK / 192;
/// The rules, in order.
#[derive(Clone, Debug, Default)]
pub struct AccessRules {
    /// The first matching rule decides.
    pub rules: Vec<Rule>,
}

/// One entry of `rules`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Lower case. `*.suffix` matches any subdomain. Empty: every host.
    pub hosts: Vec<String>,
    /// Empty: every path.
    pub paths: Vec<PathPattern>,
    /// Upper case. Empty: every method.
    pub methods: Vec<String>,
    /// The issuers of the users that the rule applies to. Empty: every issuer. Never with an access
    /// that [`Access::opens`].
    pub issuers: Vec<String>,
    /// The requirement of the rule.
    pub access: Access,
}

/// A pattern for a path without query.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// Exactly this path.
    Exact(String),
    /// Paths with this prefix. In a rule that opens, the prefix ends at a segment: `/a`
    /// matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
    /// Paths with this suffix.
    Suffix(String),
    /// Paths that the regex matches anywhere.
    Regex(PathRegex),
}

/// The requirement of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: the request passes without identity.
    Open,
    /// Nothing, but a token that the request has must be valid, and gives the identity.
    Optional,
    /// A token of any user.
    AnyUser,
    /// A token of one of these users.
    Allow(Allow),
}

/// The users that may pass. One of the three lists is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// User ids.
    pub users: Vec<String>,
    /// Domains of the `email` claim in lower case. `*.suffix` matches any subdomain.
    pub domains: Vec<String>,
    /// Groups, prefix included.
    pub groups: Vec<String>,
}

impl Access {
    /// Whether a request without a token passes.
    pub fn opens(&self) -> bool {
        matches!(self, Self::Open | Self::Optional)
    }
}

/// The rules of every normalized form of a request's path, all of which it must satisfy.
#[derive(Debug)]
pub struct Requirement<'r>(Cow<'r, [Demand<'r>]>);

/// The demand of one normalized form of the path.
#[derive(Clone, Debug)]
struct Demand<'r> {
    /// The matching rules with [`Rule::issuers`], up to the first one without. The first rule with
    /// the user's issuer decides.
    by_issuer: Vec<&'r Rule>,
    /// Decides for all other users.
    otherwise: &'r Access,
}

/// The requirement without rules.
static ANY_USER: [Demand<'static>; 1] = [Demand {
    by_issuer: Vec::new(),
    otherwise: &Access::AnyUser,
}];

impl AccessRules {
    /// The requirement of the request `head`.
    pub fn requirement(&self, head: &RequestHead<'_>) -> Requirement<'_> {
        if self.rules.is_empty() {
            return Requirement(Cow::Borrowed(&ANY_USER));
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
            // A route's rewrite could make any path of it.
            if paths.iter().any(|path| has_hidden_parent(path)) {
                return None;
            }
            Some((applicable, paths))
        });
        let Some((applicable, paths)) = decided else {
            let all = for_method.into_iter().filter(|rule| !rule.access.opens());
            let demands = all.map(|rule| Demand::first_of([rule].into_iter()));
            return Requirement(demands.chain([Demand::of(&Access::AnyUser)]).collect());
        };
        let mut found: Vec<Demand<'_>> = Vec::new();
        for path in paths {
            for folded in [false, true] {
                let matching = applicable.iter().copied();
                let demand = Demand::first_of(matching.filter(|rule| rule.matches(&path, folded)));
                if !found.iter().any(|known| known.is(&demand)) {
                    found.push(demand);
                }
            }
        }
        Requirement(found.into())
    }

    /// The longest path in bytes, with one form, that regexes are tried on for every host and
    /// method.
    pub fn longest_path(&self) -> usize {
        most_path_bytes(self.rules.iter())
            .saturating_sub(FORM_OVERHEAD)
            .min(MAX_FORM_BYTES)
    }
}

impl Requirement<'_> {
    /// Whether the request passes without identity, whether it has a token or not.
    pub fn is_open(&self) -> bool {
        self.0.iter().all(Demand::is_open)
    }

    /// Whether the request passes if it has no token.
    pub fn is_optional(&self) -> bool {
        self.0.iter().all(Demand::is_optional)
    }

    /// For each distinct demand, the position in `rules` of the rule that decides for a user of
    /// `issuer`; `None`: no rule, so any user may pass. For a person to read.
    pub fn deciding(&self, rules: &AccessRules, issuer: Option<&str>) -> Vec<Option<usize>> {
        let mut positions = Vec::new();
        for demand in self.0.iter() {
            let access = demand.access_for(issuer);
            let is_it = |rule: &Rule| std::ptr::eq(&raw const rule.access, access);
            let position = rules.rules.iter().position(is_it);
            if !positions.contains(&position) {
                positions.push(position);
            }
        }
        positions
    }

    /// Whether the verified user may pass. `issuer`: the configured issuer of the user's load
    /// balancer; `None`: any.
    pub fn admits(&self, identity: &Identity, issuer: Option<&str>) -> bool {
        self.0.iter().all(|demand| match demand.access_for(issuer) {
            Access::Open | Access::Optional | Access::AnyUser => true,
            Access::Allow(allow) => allow.admits(identity),
        })
    }
}

impl<'r> Demand<'r> {
    fn of(access: &'r Access) -> Self {
        Self {
            by_issuer: Vec::new(),
            otherwise: access,
        }
    }

    /// The demand of the first of these rules, in their order.
    fn first_of(mut matching: impl Iterator<Item = &'r Rule>) -> Self {
        let mut demand = Self::of(&Access::AnyUser);
        for rule in &mut matching {
            if rule.issuers.is_empty() {
                demand.otherwise = &rule.access;
                break;
            }
            demand.by_issuer.push(rule);
        }
        demand
    }

    fn is(&self, other: &Self) -> bool {
        let same = |(one, two): (&&Rule, &&Rule)| std::ptr::eq(*one, *two);
        std::ptr::eq(self.otherwise, other.otherwise)
            && self.by_issuer.len() == other.by_issuer.len()
            && self.by_issuer.iter().zip(&other.by_issuer).all(same)
    }

    /// A rule for some issuers needs a token that names one, even before a rule that opens.
    fn is_open(&self) -> bool {
        self.by_issuer.is_empty() && *self.otherwise == Access::Open
    }

    fn is_optional(&self) -> bool {
        self.by_issuer.is_empty() && self.otherwise.opens()
    }

    fn access_for(&self, issuer: Option<&str>) -> &'r Access {
        let is_for = |rule: &&&Rule| {
            issuer.is_some_and(|issuer| rule.issuers.iter().any(|known| known == issuer))
        };
        let rule = self.by_issuer.iter().find(is_for);
        rule.map_or(self.otherwise, |rule| &rule.access)
    }
}

/// The most bytes of one path, with [`FORM_OVERHEAD`] for each normalized form, that these rules'
/// regexes are tried on.
fn most_path_bytes<'r>(rules: impl Iterator<Item = &'r Rule>) -> usize {
    let size = rules.fold(0, |size: usize, rule| {
        size.saturating_add(rule.regex_size())
    });
    MAX_REGEX_WORK.checked_div(size).unwrap_or(usize::MAX)
}

impl Rule {
    /// The compiled size of this rule's regexes, in bytes.
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

    /// Some upstreams ignore the case of methods, so only a rule that opens compares it.
    fn is_for_method(&self, method: &str) -> bool {
        let same = |of: &String| {
            if self.access.opens() {
                of == method
            } else {
                of.eq_ignore_ascii_case(method)
            }
        };
        self.methods.is_empty() || self.methods.iter().any(same)
    }

    fn matches(&self, path: &str, folded: bool) -> bool {
        let by_segment = self.access.opens();
        self.paths.is_empty()
            || self
                .paths
                .iter()
                .any(|pattern| pattern.matches(path, folded, by_segment))
    }
}

impl PathPattern {
    /// `folded`: ignoring case. `by_segment`: a prefix must end at a segment.
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

/// Whether the lower-case `name` equals `pattern`, or is below it if it is `*.suffix`.
fn is_within(name: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => name == pattern,
    }
}

/// The host of `:authority` in lower case, without port and trailing dot. `None` if it is invalid.
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
            issuers: Vec::new(),
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

    /// The demand of each form of the path, for a user of any issuer.
    fn accesses(rules: &AccessRules, path: &'static str) -> Vec<Access> {
        let demands = rules.requirement(&head(path)).0;
        let accesses = demands.iter().map(|demand| demand.access_for(None));
        accesses.cloned().collect()
    }

    fn identity(user_id: &str, domain: Option<&str>, groups: &[&str]) -> Identity {
        Identity {
            load_balancer: 0,
            user_id: user_id.to_owned(),
            email_domain: domain.map(str::to_owned),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            subject: None,
            headers: Vec::new(),
            dropped: 0,
        }
    }

    #[test]
    fn without_rules_any_user_may_pass() {
        let rules = AccessRules::default();
        let requirement = rules.requirement(&head("/"));
        assert!(!requirement.is_open() && requirement.admits(&identity("ann", None, &[]), None));
    }

    #[test]
    fn first_matching_rule_decides() {
        let rules = AccessRules {
            rules: vec![
                rule(&[prefix("/a/b")], Access::AnyUser),
                rule(&[prefix("/a")], admins()),
            ],
        };
        assert_eq!(accesses(&rules, "/a/b/c?/x"), [Access::AnyUser]);
        assert_eq!(accesses(&rules, "/a/c?x=/a/b"), [admins()]);
        assert_eq!(accesses(&rules, "/c"), [Access::AnyUser]);
    }

    #[test]
    fn open_rule_opens_no_protected_path() {
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
    fn open_prefix_ends_at_a_segment() {
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
    fn protecting_prefix_ends_anywhere() {
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
                    .admits(&identity("ann", None, &[]), None),
                "{path}"
            );
        }
    }

    /// A route may replace `/public/a` with `/app/`.
    #[test]
    fn rules_open_no_path_with_hidden_parent() {
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
                    !requirement.is_open() && requirement.admits(&identity("ann", None, &[]), None),
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
            !requirement.admits(&identity("ann", None, &[]), None)
                && requirement.admits(&identity("ann", None, &["admins"]), None)
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
    fn spelling_does_not_bypass_a_rule() {
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
                    .admits(&identity("ann", None, &["users"]), None),
                "{path}"
            );
            assert!(
                rules
                    .requirement(&head(path))
                    .admits(&identity("ann", None, &["admins"]), None),
                "{path}"
            );
        }
        assert!(
            rules
                .requirement(&head("/adm"))
                .admits(&identity("ann", None, &[]), None)
        );
    }

    #[test]
    fn empty_segments_are_kept_and_merged() {
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
                    .admits(&identity("ann", None, &[]), None),
                "{path}"
            );
        }
    }

    #[test]
    fn unreadable_request_must_satisfy_every_rule() {
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
                !requirement.admits(&identity("ann", None, &["users"]), None),
                "{authority} {path}"
            );
            assert!(
                requirement.admits(&identity("ann", None, &["admins"]), None),
                "{authority} {path}"
            );
        }
    }

    #[test]
    fn skips_regexes_on_a_path_that_is_too_long() {
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
                rules
                    .requirement(&head)
                    .admits(&identity("ann", None, &[]), None),
            )
        };
        // Rules of another host do not count.
        assert!(rules.longest_path() < most);
        assert_eq!(of("a.example", most), (true, true));
        assert_eq!(of("a.example", most + 1), (false, false));
        assert_eq!(of("b.example", most), (false, false));
        assert_eq!(of("b.example", rules.longest_path()), (true, true));
    }

    #[test]
    fn only_open_rules_compare_the_case_of_methods() {
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
                .admits(&identity("ann", None, &[]), None)
        );
        assert!(!of(Access::Open).requirement(&head).is_open());
    }

    #[test]
    fn matches_exact_prefix_suffix_and_regex() {
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
    fn compares_hosts_without_case_port_and_dot() {
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
    fn selects_rules_by_host_and_method() {
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
    fn admits_by_user_domain_or_group() {
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

    #[test]
    fn passes_without_token_if_every_form_is_optional() {
        let rules = AccessRules {
            rules: vec![
                rule(&[prefix("/admin")], admins()),
                rule(&[prefix("/open")], Access::Open),
                rule(&[prefix("/maybe")], Access::Optional),
            ],
        };
        let of = |path: &'static str| {
            let head = head(path);
            let requirement = rules.requirement(&head);
            (requirement.is_open(), requirement.is_optional())
        };
        assert_eq!(of("/open/a"), (true, true));
        assert_eq!(of("/maybe"), (false, true));
        assert_eq!(of("/maybe/a"), (false, true));
        // A prefix that opens ends at a segment.
        assert_eq!(of("/maybes"), (false, false));
        // Every normalized form of the path must be open or optional.
        assert_eq!(of("/maybe/../open/a"), (false, true));
        assert_eq!(of("/maybe/..%2fadmin"), (false, false));
        assert_eq!(of("/other"), (false, false));
    }

    #[test]
    fn a_rule_for_an_issuer_applies_to_its_users_only() {
        let mut of_partner = rule(&[prefix("/admin")], Access::AnyUser);
        of_partner.issuers = vec!["https://partner.example".to_owned()];
        let rules = AccessRules {
            rules: vec![
                of_partner,
                rule(&[prefix("/admin")], admins()),
                rule(&[prefix("/")], Access::Open),
            ],
        };
        let admits = |path: &'static str, issuer: Option<&str>| {
            let head = head(path);
            let requirement = rules.requirement(&head);
            assert!(
                !requirement.is_open() && !requirement.is_optional(),
                "{path}"
            );
            requirement.admits(&identity("ann", None, &[]), issuer)
        };
        assert!(admits("/admin", Some("https://partner.example")));
        for issuer in [
            None,
            Some("https://other.example"),
            Some("https://partner.example/"),
        ] {
            assert!(!admits("/admin", issuer), "{issuer:?}");
        }
        // A request without a token names no issuer: the rule that opens does not apply to it.
        let mut restricted = rule(&[], Access::AnyUser);
        restricted.issuers = vec!["https://partner.example".to_owned()];
        let rules = AccessRules {
            rules: vec![restricted, rule(&[prefix("/")], Access::Open)],
        };
        let head = head("/a");
        assert!(!rules.requirement(&head).is_open());
    }
}
