//! Maps claims to groups, and groups to headers. A group cannot inject another: the joined header
//! has no commas in names, and member headers have encoded names.

use regex_lite::Regex;

use super::group_claim::{GroupClaimRules, Names};
use super::transformer::{Transformer, transformed};
use super::value::{KUBERNETES_PREFIX, is_safe_value, percent_encoded};
use crate::token::claims::{ACCESS_TOKEN_CLAIM, Claims, Sources};

/// The most groups of one user.
pub const MAX_GROUPS: usize = 512;
/// The most member headers: a sidecar behind the gateway accepts 100 headers in total by default.
pub const MAX_MEMBER_HEADERS: usize = 64;
/// The longest group name, in bytes, prefix included.
pub const MAX_GROUP_BYTES: usize = 256;
/// The longest name that transformers are applied to, in bytes: the time that a regex takes may
/// grow with the square of it.
const MAX_NAME_BYTES: usize = 1024;

/// How claims map to groups: `groups` of the plugin config.
#[derive(Clone, Debug)]
pub struct GroupRules {
    /// The claims; their groups are merged.
    pub claims: Vec<String>,
    /// How a claim lists groups.
    pub form: GroupClaimRules,
    /// Applied to each name: the first whose regex matches.
    pub transformers: Vec<Transformer>,
    /// The header with all groups, joined by commas.
    pub header: String,
    /// Prepended to each group.
    pub prefix: String,
    /// The groups to keep; `None`: all.
    pub keep: Option<Regex>,
    /// The prefix of each group's member header; `None`: no member headers.
    pub member_header_prefix: Option<String>,
}

/// The groups of one user.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    /// Distinct, in the order of the claims, with prefix.
    pub(crate) names: Vec<String>,
    /// The number of groups that were dropped because no header can carry them.
    pub(crate) dropped: usize,
}

/// The reason why a group was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// `keep` does not match it.
    NotKept,
    /// A control character, a blank at an end, too long, or `system:` at its start.
    Unfit,
    /// The claim, or this part of it, has none of the forms that the rules allow.
    Unreadable,
    /// The user has [`MAX_GROUPS`] others.
    TooMany,
}

impl GroupRules {
    /// The group for a `name` in a claim: transformed, kept by `keep`, and with its prefix, in that
    /// order.
    ///
    /// # Errors
    /// [`Dropped::NotKept`] and [`Dropped::Unfit`].
    pub fn made_of(&self, name: &str) -> Result<String, Dropped> {
        if name.len() > MAX_NAME_BYTES {
            return Err(Dropped::Unfit);
        }
        let name = transformed(&self.transformers, name);
        if !is_safe_value(&name) {
            return Err(Dropped::Unfit);
        }
        if self.keep.as_ref().is_some_and(|keep| !keep.is_match(&name)) {
            return Err(Dropped::NotKept);
        }
        let group = [self.prefix.as_str(), &name].concat();
        let fits = group.len() <= MAX_GROUP_BYTES && !group.starts_with(KUBERNETES_PREFIX);
        if fits { Ok(group) } else { Err(Dropped::Unfit) }
    }

    /// Whether some name in a claim can become `group`.
    ///
    /// # Errors
    /// The expected form of the group.
    pub(crate) fn can_make(&self, group: &str) -> Result<(), &'static str> {
        let Some(name) = group.strip_prefix(&self.prefix) else {
            return Err("it begins with `groups.prefix`");
        };
        if !is_safe_value(name) || group.len() > MAX_GROUP_BYTES {
            return Err(
                "at most 256 bytes, without control or invisible characters, no space at an end",
            );
        }
        if self.keep.as_ref().is_some_and(|keep| !keep.is_match(name)) {
            return Err("`groups.keep` matches it without its prefix");
        }
        Ok(())
    }

    /// Whether the joined header can carry `group`: in it, a comma would begin another group.
    pub fn is_listed(group: &str) -> bool {
        !group.contains(',')
    }

    /// The name of the header that only members of `group` have. `None`: no member headers.
    pub fn member_header(&self, group: &str) -> Option<String> {
        self.member_header_prefix
            .as_ref()
            .map(|prefix| [prefix.as_str(), &encoded(group)].concat())
    }

    /// Each name in the configured claims, with its group or the reason why it has none, in the
    /// order of the claims. For display only.
    pub fn explained(&self, claims: &Claims) -> Vec<(String, Result<String, Dropped>)> {
        let mut seen = Vec::new();
        self.read(Sources::of(claims), &mut Vec::new(), |name, group| {
            seen.push((name.to_owned(), group.map(str::to_owned)));
        });
        seen
    }

    /// The groups of the user with these `claims`, from all configured claims.
    pub(super) fn groups(&self, claims: Sources<'_>) -> Groups {
        let Groups {
            mut names,
            mut dropped,
        } = Groups::default();
        self.read(claims, &mut names, |_, group| {
            if group.is_err_and(|reason| reason != Dropped::NotKept) {
                dropped = dropped.saturating_add(1);
            }
        });
        Groups { names, dropped }
    }

    /// Adds each group to `groups` once, and tells of each name what became of it.
    fn read(
        &self,
        claims: Sources<'_>,
        groups: &mut Vec<String>,
        mut tell: impl FnMut(&str, Result<&str, Dropped>),
    ) {
        for path in &self.claims {
            let Some(claim) = claims.find(path) else {
                continue;
            };
            let is_of_access_token = path.starts_with(ACCESS_TOKEN_CLAIM);
            let Names { names, unreadable } = self.form.names(claim, is_of_access_token);
            for name in &names {
                match self.made_of(name) {
                    Ok(group) if groups.contains(&group) => {}
                    Ok(_) if groups.len() >= MAX_GROUPS => tell(name, Err(Dropped::TooMany)),
                    Ok(group) => {
                        tell(name, Ok(&group));
                        groups.push(group);
                    }
                    Err(dropped) => tell(name, Err(dropped)),
                }
            }
            for part in &unreadable {
                tell(part, Err(Dropped::Unreadable));
            }
        }
    }

    /// The headers for `groups`: the joined one, and the member headers. Counts dropped groups.
    pub(crate) fn headers(&self, groups: &mut Groups) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        let listed: Vec<&str> = groups
            .names
            .iter()
            .map(String::as_str)
            .filter(|group| Self::is_listed(group))
            .collect();
        let unlisted = groups.names.len().saturating_sub(listed.len());
        if !listed.is_empty() {
            headers.push((self.header.clone(), listed.join(",")));
        }
        groups.dropped = groups.dropped.saturating_add(unlisted);
        if self.member_header_prefix.is_some() {
            let members = groups.names.iter().take(MAX_MEMBER_HEADERS);
            headers
                .extend(members.filter_map(|name| Some((self.member_header(name)?, name.clone()))));
            let without = groups.names.len().saturating_sub(MAX_MEMBER_HEADERS);
            groups.dropped = groups.dropped.saturating_add(without);
        }
        headers
    }
}

/// A group's name, encoded as the end of a header name. Lower-case letters, digits, `-` and `.`
/// stay; other bytes become `%` and two hexadecimal digits. Two groups never share a header,
/// although header names ignore case and some upstreams map `_` to `-`. Upstreams that also map `.`
/// or `%` must compare the header's value, the group.
fn encoded(name: &str) -> String {
    let mut encoded = percent_encoded(name, |byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
    });
    // Changes hexadecimal digits only: no letter in upper case is kept.
    encoded.make_ascii_lowercase();
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rules() -> GroupRules {
        GroupRules {
            claims: vec!["custom:groups".to_owned(), "realm.groups".to_owned()],
            form: GroupClaimRules {
                separator: ',',
                members: None,
                decode: None,
            },
            transformers: Vec::new(),
            header: "kubeflow-groups".to_owned(),
            prefix: String::new(),
            keep: None,
            member_header_prefix: None,
        }
    }

    fn groups(rules: &GroupRules, claims: Value) -> Groups {
        rules.groups(super::super::tests::of_token(&claims))
    }

    fn of(claim: Value) -> (Vec<String>, usize) {
        let groups = groups(&rules(), json!({"custom:groups": claim}));
        (groups.names, groups.dropped)
    }

    #[test]
    fn drops_names_that_kubernetes_reserves() {
        let claim = json!([
            "system:masters",
            "system:",
            "System:masters",
            "systems",
            "ok"
        ]);
        assert_eq!(
            of(claim.clone()),
            (
                ["System:masters", "systems", "ok"]
                    .map(str::to_owned)
                    .to_vec(),
                2
            )
        );
        let with_prefix = |prefix: &str| {
            let rules = GroupRules {
                prefix: prefix.to_owned(),
                ..rules()
            };
            groups(
                &rules,
                json!({"custom:groups": ["system:masters", "tem:masters"]}),
            )
            .names
        };
        assert_eq!(
            with_prefix("oidc:"),
            ["oidc:system:masters", "oidc:tem:masters"]
        );
        assert_eq!(with_prefix("sys"), ["syssystem:masters"]);
    }

    #[test]
    fn drops_and_counts_ambiguous_names() {
        assert_eq!(
            of(json!([
                "b\r\nx: y",
                "",
                " c",
                "d\u{200b}",
                "ok",
                "x".repeat(257)
            ])),
            (vec!["ok".to_owned()], 5)
        );
    }

    #[test]
    fn a_group_with_a_comma_has_a_member_header_only() {
        let mut rules = rules();
        rules.member_header_prefix = Some("x-".to_owned());
        let mut groups = groups(&rules, json!({"custom:groups": ["a,b", "c"]}));
        assert_eq!((groups.names.len(), groups.dropped), (2, 0));
        let headers = rules.headers(&mut groups);
        let expected = [("kubeflow-groups", "c"), ("x-a%2cb", "a,b"), ("x-c", "c")];
        assert_eq!(
            headers,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(groups.dropped, 1);
    }

    #[test]
    fn transforms_before_keep_and_prefix() {
        let transformer = |matches: &str, replaces: &str| Transformer {
            matches: Regex::new(matches).unwrap(),
            replaces: replaces.to_owned(),
        };
        let rules = GroupRules {
            prefix: "oidc:".to_owned(),
            keep: Some(Regex::new("^[A-Z]").unwrap()),
            transformers: vec![
                transformer("^CN=([^,]+),OU=Groups,DC=example,DC=com$", "$1"),
                transformer("^evil$", "system:masters"),
                transformer("^gone$", ""),
            ],
            ..rules()
        };
        let claim = json!([
            "CN=Admins,OU=Groups,DC=example,DC=com",
            "CN=Admins,OU=Others,DC=example,DC=com",
            "lower",
            "evil",
            "gone",
        ]);
        let found = groups(&rules, json!({"custom:groups": claim}));
        let expected = ["oidc:Admins", "oidc:CN=Admins,OU=Others,DC=example,DC=com"];
        assert_eq!(found.names, expected);
        assert_eq!(found.dropped, 1);
    }

    #[test]
    fn says_which_groups_no_user_can_have() {
        let rules = GroupRules {
            prefix: "oidc:".to_owned(),
            keep: Some(Regex::new("^team-").unwrap()),
            ..rules()
        };
        assert_eq!(rules.can_make("oidc:team-a,b"), Ok(()));
        for (group, why) in [
            ("team-a", "begins with `groups.prefix`"),
            ("OIDC:team-a", "begins with `groups.prefix`"),
            ("oidc:Team-a", "`groups.keep` matches"),
            ("oidc:team-a ", "no space at an end"),
            ("oidc:", "at most 256 bytes"),
        ] {
            let found = rules.can_make(group).unwrap_err();
            assert!(found.contains(why), "{group}: {found}");
        }
    }

    #[test]
    fn merges_groups_of_all_claims() {
        let groups = groups(
            &rules(),
            json!({"custom:groups": "b,a", "realm": {"groups": ["a", "c"]}}),
        );
        assert_eq!(groups.names, ["b", "a", "c"]);
    }

    #[test]
    fn keep_matches_the_name_without_prefix() {
        let mut rules = rules();
        rules.prefix = "oidc:".to_owned();
        rules.keep = Some(Regex::new("^team-").unwrap());
        let groups = groups(&rules, json!({"custom:groups": "team-a,other,oidc:team-b"}));
        assert_eq!(
            (groups.names, groups.dropped),
            (vec!["oidc:team-a".to_owned()], 0)
        );
    }

    #[test]
    fn groups_never_share_a_member_header() {
        let mut rules = rules();
        rules.member_header_prefix = Some("x-group-".to_owned());
        let mut groups = groups(
            &rules,
            json!({"custom:groups": ["ml-ops.eu", "ML-ops", "ml_ops", "ml%5fops", "é b"]}),
        );
        let names: Vec<_> = rules
            .headers(&mut groups)
            .into_iter()
            .skip(1)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            names,
            [
                "x-group-ml-ops.eu",
                "x-group-%4d%4c-ops",
                "x-group-ml%5fops",
                "x-group-ml%255fops",
                "x-group-%c3%a9%20b"
            ]
        );
    }

    #[test]
    fn counts_groups_over_the_limits() {
        let mut rules = rules();
        rules.member_header_prefix = Some("x-".to_owned());
        let many: Vec<_> = (0..600).map(|number| format!("g{number}")).collect();
        let mut groups = groups(&rules, json!({"custom:groups": many}));
        assert_eq!((groups.names.len(), groups.dropped), (MAX_GROUPS, 88));
        assert_eq!(rules.headers(&mut groups).len(), 1 + MAX_MEMBER_HEADERS);
        assert_eq!(groups.dropped, 88 + MAX_GROUPS - MAX_MEMBER_HEADERS);
    }
}
