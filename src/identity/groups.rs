//! Claims into groups, and groups into headers. Nothing here may let a group's name say more than
//! its name: no comma into the joined header, no other header's name into a member header.

use regex_lite::Regex;
use serde_json::Value;

use super::value::{KUBERNETES_PREFIX, is_safe_value};
use crate::json;
use crate::token::claims::{MAX_CLAIMS_DEPTH, Sources};

/// The most groups that are read of one user.
pub const MAX_GROUPS: usize = 512;
/// The most member headers that are set: a sidecar behind the gateway takes 100 headers in all,
/// unless told otherwise.
pub const MAX_MEMBER_HEADERS: usize = 64;
/// The longest group name, in bytes, its prefix included.
pub const MAX_GROUP_BYTES: usize = 256;

/// How claims become groups: `groups` of the plugin config.
#[derive(Clone, Debug)]
pub struct GroupRules {
    /// The groups of all these claims together.
    pub claims: Vec<String>,
    /// The header that carries them, joined by commas.
    pub header: String,
    /// Put before each.
    pub prefix: String,
    /// Only groups that match it; `None`: all.
    pub keep: Option<Regex>,
    /// What the name of each group's own header begins with; `None`: there are none.
    pub member_header_prefix: Option<String>,
}

/// The groups of one user.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    /// In the order of the claims, each once, with their prefix.
    pub(crate) names: Vec<String>,
    /// How many could not be named in a header.
    pub(crate) dropped: usize,
}

/// Why upstream is not told of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It is none of those to keep.
    NotKept,
    /// It cannot be named in a header.
    Unfit,
}

impl GroupRules {
    /// The group of which a claim's `name` makes a user a member: with its prefix, as it stands in
    /// headers.
    ///
    /// # Errors
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

    /// The name of the header that members of `group` have, and others do not; `None`: groups have
    /// no such headers.
    pub fn member_header(&self, group: &str) -> Option<String> {
        self.member_header_prefix
            .as_ref()
            .map(|prefix| [prefix.as_str(), &encoded(group)].concat())
    }

    /// The groups that `claims` give, those of all configured claims together.
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

    /// The headers that tell upstream of `groups`: the joined one, and one for each group. Counts
    /// what finds no place.
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

/// The names in a groups claim: a JSON array, also one that is written into a string, or a string
/// `a,b` or `[a, b]`, which is what Cognito makes of a SAML list. A name with a comma in it can
/// only come from an array.
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
                    // Nobody can tell where a name ends: it counts as one that fits no header.
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
/// after a backslash separates nothing, even where that backslash may be escaped itself: a name
/// that could be read in two ways grants no group.
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

/// A group's name as the end of a header's name. Lower-case letters, digits, `-` and `.` stand for
/// themselves; every other byte is `%` and two hexadecimal digits: two groups never share a header,
/// though header names know no case and some upstreams take `_` for `-`. Those that take `.` or `%`
/// for it must go by the header's value, which is the group.
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
    fn an_array_a_list_and_a_list_in_brackets_are_the_same_groups() {
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
    fn an_array_in_a_string_is_read_as_the_array_and_quotes_elsewhere_are_part_of_a_name() {
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
    fn an_escaped_comma_is_part_of_a_name() {
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
    fn a_name_that_would_be_misread_is_left_out_and_counted() {
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
    fn the_groups_of_all_claims_are_joined_each_once() {
        let groups = groups(
            &rules(),
            json!({"custom:groups": "b,a", "realm": {"groups": ["a", "c"]}}),
        );
        assert_eq!(groups.names, ["b", "a", "c"]);
    }

    #[test]
    fn keep_looks_at_the_name_without_its_prefix() {
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
    fn two_groups_never_share_a_member_header() {
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
    fn more_groups_than_there_is_room_for_are_counted() {
        let mut rules = rules();
        rules.member_header_prefix = Some("x-".to_owned());
        let many: Vec<_> = (0..600).map(|number| format!("g{number}")).collect();
        let mut groups = groups(&rules, json!({"custom:groups": many}));
        assert_eq!((groups.names.len(), groups.dropped), (MAX_GROUPS, 88));
        assert_eq!(rules.headers(&mut groups).len(), 1 + MAX_MEMBER_HEADERS);
        assert_eq!(groups.dropped, 88 + MAX_GROUPS - MAX_MEMBER_HEADERS);
    }
}
