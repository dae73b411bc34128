//! Access rules: which requests need a token and which users may pass. Sees no token.
//!
//! Rules are evaluated twice. [`AccessRules::requirement`] finds the rules that match the request,
//! before the token is verified. [`Requirement::admits`] applies them to the verified user, and
//! evaluates conditions on the user, such as [`Rule::issuers`]. If a rule with such a condition may
//! decide, the request needs a token.
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
    /// The issuers of the users that the rule applies to. Empty: every issuer, as in each rule that
    /// [`Access::opens`].
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
            // A route that rewrites it could make any path.
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
    /// `issuer`; `None`: no rule, so any user may pass. For display only.
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

    /// Whether both have the same rules, by their place in the config.
    fn is(&self, other: &Self) -> bool {
        let Self {
            by_issuer,
            otherwise,
        } = self;
        let same = |(one, two): (&&Rule, &&Rule)| std::ptr::eq(*one, *two);
        std::ptr::eq(*otherwise, other.otherwise)
            && by_issuer.len() == other.by_issuer.len()
            && by_issuer.iter().zip(&other.by_issuer).all(same)
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
        let Self {
            users,
            domains,
            groups,
        } = self;
        let domain = identity.email_domain.as_deref();
        users.contains(&identity.user_id)
            || domain.is_some_and(|domain| domains.iter().any(|pattern| is_within(domain, pattern)))
            || groups.iter().any(|group| identity.groups.contains(group))
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
mod tests;
