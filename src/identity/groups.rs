//! Maps claims to groups, and groups to headers. A group cannot inject another: the joined header
//! has no commas in names, and member headers have encoded names.

use regex_lite::Regex;
use serde_json::Value;

use super::value::{KUBERNETES_PREFIX, is_safe_value};
use crate::json;
use crate::token::claims::{MAX_CLAIMS_DEPTH, Sources};

/// The most groups of one user.
pub const MAX_GROUPS: usize = 512;
/// The most member headers: a sidecar behind the gateway accepts 100 headers in total by default.
pub const MAX_MEMBER_HEADERS: usize = 64;
/// The longest group name, in bytes, prefix included.
pub const MAX_GROUP_BYTES: usize = 256;

/// How claims map to groups: `groups` of the plugin config.
#[derive(Clone, Debug)]
pub struct GroupRules {
    /// The claims; their groups are merged.
    pub claims: Vec<String>,
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
    /// No header can carry it.
    Unfit,
}

impl GroupRules {
    /// The group for a `name` in a claim: with its prefix, as in headers.
    ///
    /// # Errors
    /// [`Dropped`].
    /// [`Dropped`].
    pub fn made_of(&self, name: &str) -> Result<String, Dropped> {
        let fits = is_safe_value(name) && !name.contains(',') && name.len() <= MAX_GROUP_BYTES;
        if fits && self.keep.as_ref().is_some_and(|keep| !keep.is_match(name)) {
            return Err(Dropped::NotKept);
        }
        let group = [self.prefix.as_str(), name].concat();
        let fits = fits && group.len() <= MAX_GROUP_BYTES && !group.starts_with(KUBERNETES_PREFIX);
        if fits { Ok(group) } else { Err(Dropped::Unfit) }
    }

    /// The name of the header that only members of `group` have. `None`: no member headers.
    pub fn member_header(&self, group: &str) -> Option<String> {
        self.member_header_prefix
            .as_ref()
            .map(|prefix| [prefix.as_str(), &encoded(group)].concat())
    }

    /// The groups of the user with these `claims`, from all configured claims.
    pub(super) fn groups(&self, claims: Sources<'_>) -> Groups {
        let mut groups = Groups::default();
        for claim in self.claims.iter().filter_map(|path| claims.find(path)) {
            for name in names(claim) {
                match self.made_of(&name) {
                    Ok(group) if groups.names.contains(&group) => {}
                    Ok(group) if groups.names.len() < MAX_GROUPS => groups.names.push(group),
                    Ok(_) | Err(Dropped::Unfit) => {
                        groups.dropped = groups.dropped.saturating_add(1)
                    }
                    Err(Dropped::NotKept) => {}
                }
            }
        }
        groups
    }

    /// The headers for `groups`: the joined one, and the member headers. Counts dropped groups.
    pub(crate) fn headers(&self, groups: &mut Groups) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        if !groups.names.is_empty() {
            headers.push((self.header.clone(), groups.names.join(",")));
        }
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

/// The names in a groups claim: a JSON array, a string with a JSON array, or a string `a,b` or `[a,
/// b]`, Cognito's form of a SAML list. Only a JSON array can contain a name with a comma.
fn names(claim: &Value) -> Vec<String> {
    let in_array = |elements: &[Value]| {
        elements
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    match claim {
        Value::Array(elements) => in_array(elements),
        Value::String(text) => {
            let inner = text
                .trim()
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'));
            if inner.is_some_and(|inner| inner.contains('"')) {
                return match json::parse(text.as_bytes(), MAX_CLAIMS_DEPTH) {
                    Ok(Value::Array(elements)) => in_array(&elements),
                    // The ends of the names are ambiguous: count one dropped group.
                    _ => vec![String::new()],
                };
            }
            let list = split_unescaped(inner.unwrap_or(text));
            list.iter()
                .map(|name| name.trim())
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The names in a comma-separated list. Cognito writes a comma inside a name as `\\,`, so a comma
/// after a backslash never separates, even if that backslash may be escaped itself: an ambiguous
/// name grants no group.
fn split_unescaped(list: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut is_escaped = false;
    for part in list.split(',') {
        match names.last_mut().filter(|_| is_escaped) {
            Some(name) => {
                name.pop();
                name.push(',');
                name.push_str(part);
            }
            None => names.push(part.to_owned()),
        }
        is_escaped = part.ends_with('\\');
    }
    names
}

/// A group's name, encoded as the end of a header name. Lower-case letters, digits, `-` and `.`
/// stay; other bytes become `%` and two hexadecimal digits. Two groups never share a header,
/// although header names ignore case and some upstreams map `_` to `-`. Upstreams that also map `.`
/// or `%` must compare the header's value, the group.
fn encoded(name: &str) -> String {
    let mut header = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.') {
            header.push(char::from(byte));
        } else {
            header.push_str(&format!("%{byte:02x}"));
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules() -> GroupRules {
        GroupRules {
            claims: vec!["custom:groups".to_owned(), "realm.groups".to_owned()],
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
    fn accepts_arrays_lists_and_bracketed_lists() {
        for claim in [
            json!(["a", "b c"]),
            json!("a,b c"),
            json!("[a, b c]"),
            json!(" [ a ,b c ] "),
            json!(r#"["a", "b c"]"#),
        ] {
            assert_eq!(
                of(claim.clone()),
                (vec!["a".to_owned(), "b c".to_owned()], 0),
                "{claim}"
            );
        }
        for claim in [
            json!([]),
            json!(""),
            json!("[]"),
            json!(null),
            json!(7),
            json!({"a": "b"}),
            json!([1, null]),
        ] {
            assert_eq!(of(claim.clone()), (vec![], 0), "{claim}");
        }
    }

    #[test]
    fn parses_a_json_array_in_a_string() {
        assert_eq!(
            of(json!(r#" ["x,admins,y", "b\u002ca", "c"] "#)),
            (vec!["c".to_owned()], 2)
        );
        assert_eq!(of(json!(r#"["a", 1, ["b"]]"#)), (vec!["a".to_owned()], 0));
        assert_eq!(
            of(json!(r#""a",b"#)),
            (vec![r#""a""#.to_owned(), "b".to_owned()], 0)
        );
        for unreadable in [
            r#"["a", b]"#,
            r#"["x,admins,y\ud800"]"#,
            r#"["x,admins", {"a": 1, "a": 2}]"#,
        ] {
            assert_eq!(of(json!(unreadable)), (vec![], 1), "{unreadable}");
        }
        assert_eq!(
            of(json!("[1001, true]")),
            (vec!["1001".to_owned(), "true".to_owned()], 0)
        );
    }

    #[test]
    fn escaped_comma_is_part_of_a_name() {
        for (claim, names, dropped) in [
            (r"[sales\,admins, users]", &["users"][..], 1),
            (r"sales\,admins,users", &["users"], 1),
            (r"sales\\,admins,users", &["users"], 1),
            (r"[a\, b\, admins]", &[], 1),
            (r"users\,", &[], 1),
            (r"[users, CORP\admins]", &["users", r"CORP\admins"], 0),
            (r"users,admins\", &["users", r"admins\"], 0),
        ] {
            assert_eq!(
                of(json!(claim)),
                (
                    names.iter().map(|name| (*name).to_owned()).collect(),
                    dropped
                ),
                "{claim}"
            );
        }
        assert_eq!(
            split_unescaped(r"sales\,admins, users"),
            ["sales,admins", " users"]
        );
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
                "a,admins",
                "b\r\nx: y",
                "",
                " c",
                "d\u{200b}",
                "ok",
                "x".repeat(257)
            ])),
            (vec!["ok".to_owned()], 6)
        );
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
