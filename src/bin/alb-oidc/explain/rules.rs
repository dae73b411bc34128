//! Names the rules that decide about a request, and near misses in an allow list. For display only:
//! decides nothing.

use alb_oidc_filter::{Access, AccessRules, Allow, Identity, Requirement};

/// The values that rules compare.
pub(super) struct User {
    id: String,
    domain: Option<String>,
    groups: Vec<String>,
}

impl From<&Identity> for User {
    fn from(identity: &Identity) -> Self {
        Self {
            id: identity.user_id.clone(),
            domain: identity.email_domain.clone(),
            groups: identity.groups.clone(),
        }
    }
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "user {:?}", self.id)?;
        if let Some(domain) = &self.domain {
            write!(f, ", email domain {domain:?}")?;
        }
        write!(f, ", groups {:?}", self.groups)
    }
}

/// The rules of the config, and where they are in its file.
#[derive(Clone, Copy)]
pub(super) struct RulesAt<'a> {
    pub(super) rules: &'a AccessRules,
    /// The line of each rule.
    pub(super) lines: &'a [u64],
}

impl RulesAt<'_> {
    /// The rules that decide for a user of `issuer`, by position and line. Several where the path
    /// has several normalized forms.
    pub(super) fn deciding(&self, requirement: &Requirement<'_>, issuer: Option<&str>) -> String {
        let rules = self.named(requirement, issuer).into_iter().flatten();
        let names: Vec<_> = rules.map(|(name, _)| name).collect();
        if names.is_empty() {
            "no rule matches".to_owned()
        } else {
            names.join(" and ")
        }
    }

    fn name(&self, position: usize) -> String {
        match self.lines.get(position) {
            Some(line) => format!("rules[{position}] (line {line})"),
            None => format!("rules[{position}]"),
        }
    }

    /// Name and access of each rule that decides for a user of `issuer`; `None`: no rule matches.
    fn named(
        &self,
        requirement: &Requirement<'_>,
        issuer: Option<&str>,
    ) -> Vec<Option<(String, &Access)>> {
        let positions = requirement.deciding(self.rules, issuer);
        let named = positions.into_iter().map(|position| {
            let position = position?;
            let rule = self.rules.rules.get(position)?;
            Some((self.name(position), &rule.access))
        });
        named.collect()
    }

    /// What decides that the user may pass.
    pub(super) fn admission(
        &self,
        requirement: &Requirement<'_>,
        issuer: Option<&str>,
        user: &User,
    ) -> String {
        let by = self.named(requirement, issuer).into_iter().map(|rule| {
            let Some((name, access)) = rule else {
                return "no rule matches, so any user may pass".to_owned();
            };
            match access {
                Access::Allow(allow) if allow.users.contains(&user.id) => {
                    format!("{name} allows the user {:?}", user.id)
                }
                Access::Allow(allow) => {
                    match user
                        .groups
                        .iter()
                        .find(|group| allow.groups.contains(group))
                    {
                        Some(group) => format!("{name} allows the group {group:?}"),
                        None => format!(
                            "{name} allows the email domain {:?}",
                            user.domain.as_deref().unwrap_or_default()
                        ),
                    }
                }
                _ => format!("{name} allows any user"),
            }
        });
        by.collect::<Vec<_>>().join(" and ")
    }

    /// What each rule that decides expects of a user whom one of them denies.
    pub(super) fn expectation(
        &self,
        requirement: &Requirement<'_>,
        issuer: Option<&str>,
        user: &User,
    ) -> String {
        let rules = self.named(requirement, issuer).into_iter().flatten();
        let lists = rules.filter_map(|(name, access)| {
            let Access::Allow(allow) = access else {
                return None;
            };
            Some(match nearest_miss(allow, user) {
                Some(miss) => format!("an entry of the `allow` of {name}; nearest: {miss}"),
                None => format!("an entry of the `allow` of {name}"),
            })
        });
        lists.collect::<Vec<_>>().join(", and ")
    }
}

/// The entry of `allow` that almost names the user, and the difference.
fn nearest_miss(allow: &Allow, user: &User) -> Option<String> {
    let id = std::slice::from_ref(&user.id);
    let lists = [
        ("users", &allow.users, id, "the user id"),
        ("groups", &allow.groups, user.groups.as_slice(), "the group"),
    ];
    let pairs = lists.iter().flat_map(|(field, list, names, what)| {
        list.iter().enumerate().flat_map(move |(position, entry)| {
            let told = format!("{field}[{position}] {entry:?}");
            names
                .iter()
                .map(move |name| (told.clone(), entry, name, *what))
        })
    });
    let pairs: Vec<_> = pairs.collect();
    let by_case = pairs.iter().find_map(|(told, entry, name, what)| {
        let is_alike = entry.eq_ignore_ascii_case(name);
        is_alike.then(|| format!("{told} differs from {what} {name:?} in case only"))
    });
    let by_prefix = || {
        pairs.iter().find_map(|(told, entry, name, what)| {
            let lacks = prefix_of(name, entry)
                .map(|prefix| format!("{told} lacks the prefix {prefix:?} of {what} {name:?}"));
            lacks.or_else(|| {
                prefix_of(entry, name).map(|prefix| {
                    format!("{told} has the prefix {prefix:?}, which {what} {name:?} lacks")
                })
            })
        })
    };
    let by_list = || {
        let group = user.groups.iter().find(|group| allow.users.contains(group));
        let group = group.map(|group| format!("{group:?} is a group, but stands in `users`"));
        group.or_else(|| {
            let is_among = allow.groups.contains(&user.id);
            is_among.then(|| format!("{:?} is the user id, but stands in `groups`", user.id))
        })
    };
    by_case.or_else(by_prefix).or_else(by_list)
}

/// What stands before `rest` in `name`, if it is a prefix as configs have it: it ends with a sign.
fn prefix_of<'n>(name: &'n str, rest: &str) -> Option<&'n str> {
    let is_sign = |last: char| !last.is_alphanumeric();
    name.strip_suffix(rest)
        .filter(|prefix| !rest.is_empty() && prefix.ends_with(is_sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_miss() {
        let user = User {
            id: "oidc:ann@example.com".to_owned(),
            domain: None,
            groups: vec!["ML".to_owned(), "g-ops".to_owned()],
        };
        let nearest = |users: &[&str], groups: &[&str]| {
            let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            let allow = Allow {
                users: texts(users),
                domains: Vec::new(),
                groups: texts(groups),
            };
            nearest_miss(&allow, &user)
        };
        for (users, groups, expected) in [
            (
                &["bob", "OIDC:Ann@example.com"][..],
                &[][..],
                r#"users[1] "OIDC:Ann@example.com" differs from the user id "oidc:ann@example.com" in case only"#,
            ),
            (
                &[],
                &["ml"],
                r#"groups[0] "ml" differs from the group "ML" in case only"#,
            ),
            (
                &["ann@example.com"],
                &[],
                r#"users[0] "ann@example.com" lacks the prefix "oidc:" of the user id "oidc:ann@example.com""#,
            ),
            (
                &[],
                &["g-ML"],
                r#"groups[0] "g-ML" has the prefix "g-", which the group "ML" lacks"#,
            ),
            (
                &[],
                &["ops"],
                r#"groups[0] "ops" lacks the prefix "g-" of the group "g-ops""#,
            ),
            (&["ML"], &[], r#""ML" is a group, but stands in `users`"#),
            (
                &[],
                &["oidc:ann@example.com"],
                r#""oidc:ann@example.com" is the user id, but stands in `groups`"#,
            ),
        ] {
            assert_eq!(nearest(users, groups).as_deref(), Some(expected));
        }
        assert_eq!(nearest(&["nn@example.com", "bob"], &["L", "admins"]), None);
    }
}
