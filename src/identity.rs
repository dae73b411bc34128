//! Maps claims to an identity: user id, groups, claim headers. Sees only verified claims, and no
//! request.

mod claim_header;
mod group_claim;
mod groups;
mod provider;
mod transformer;
pub(crate) mod value;

use std::borrow::Cow;

use serde_json::Value;

use crate::reason::Reason;
use crate::token::claims::{Claims, Sources};
pub use claim_header::{ClaimHeader, MAX_CLAIM_HEADER_BYTES};
pub use group_claim::{Decode, GroupClaimRules, Members};
use groups::Groups;
pub use groups::{Dropped, GroupRules, MAX_GROUP_BYTES, MAX_GROUPS, MAX_MEMBER_HEADERS};
pub use transformer::Transformer;
use transformer::{transformed, transformer_for};
use value::{KUBERNETES_PREFIX, is_safe_value};

/// The longest user id, in bytes: an email address of up to 254 and a prefix.
pub const MAX_USER_ID_BYTES: usize = 320;

/// The longest claim for a user id, in bytes. A regex may take time quadratic in this length.
pub const MAX_USER_ID_CLAIM_BYTES: usize = 1024;

/// How claims map to an identity and its headers. Header names are in lower case.
#[derive(Clone, Debug)]
pub struct IdentityRules {
    /// The header that carries the user id.
    pub user_id_header: String,
    /// How claims map to the user id.
    pub user_id: UserIdRules,
    /// How claims map to groups; `None`: no groups.
    pub groups: Option<GroupRules>,
    /// Claims with a header of their own.
    pub claim_headers: Vec<ClaimHeader>,
}

/// The user's identity, and its headers.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// The position of the load balancer that signed the token, in the config.
    pub load_balancer: usize,
    /// The user id.
    pub user_id: String,
    /// The part of the `email` claim after the last `@`, in lower case. `None` if `email_verified`
    /// is present and not true.
    pub email_domain: Option<String>,
    /// The groups, with their prefix.
    pub groups: Vec<String>,
    /// The `sub` claim.
    pub subject: Option<String>,
    /// Names and values of the identity headers, without the user id's.
    pub headers: Vec<(String, String)>,
    /// The number of groups and claims that were dropped because no header can carry them.
    pub dropped: usize,
}

impl IdentityRules {
    /// The identity of the user with these `claims`.
    ///
    /// # Errors
    /// [`Reason::ProviderMismatch`], [`Reason::UserIdMissing`], [`Reason::EmailUnverified`] or
    /// [`Reason::UserIdInvalid`]. Everything but the user id is optional.
    pub fn identity(&self, claims: &Claims) -> Result<Identity, Reason> {
        self.read(Sources::of(claims), claims.load_balancer())
    }

    /// The identity headers with fixed names: user id, groups, claims, in this order.
    pub(crate) fn header_names(&self) -> impl Iterator<Item = &str> {
        let Self {
            user_id_header,
            user_id: _,
            groups,
            claim_headers,
        } = self;
        let groups = groups.iter().map(|groups| groups.header.as_str());
        let claims = claim_headers.iter().map(|claim| claim.header.as_str());
        std::iter::once(user_id_header.as_str())
            .chain(groups)
            .chain(claims)
    }

    fn read(&self, claims: Sources<'_>, load_balancer: usize) -> Result<Identity, Reason> {
        let user_id = self.user_id.user_id(claims)?;
        let mut headers = Vec::new();
        let mut groups = Groups::default();
        if let Some(rules) = &self.groups {
            groups = rules.groups(claims);
            headers.extend(rules.headers(&mut groups));
        }
        let mut dropped = groups.dropped;
        for entry in &self.claim_headers {
            let Some(claim) = claims.find(&entry.claim) else {
                continue;
            };
            match entry.value(claim) {
                Some(value) => headers.push((entry.header.clone(), value)),
                None => dropped = dropped.saturating_add(1),
            }
        }
        let subject = claims
            .token
            .get("sub")
            .and_then(Value::as_str)
            .map(str::to_owned);
        // A user may enter any address that is not verified.
        let may_hold = claims
            .token
            .get("email_verified")
            .is_none_or(|verified| is_true(Some(verified)));
        let email = claims.token.get("email").filter(|_| may_hold);
        let email_domain = email
            .and_then(Value::as_str)
            .and_then(|email| email.rsplit_once('@'));
        let email_domain = email_domain.map(|(_, domain)| domain.to_ascii_lowercase());
        Ok(Identity {
            load_balancer,
            user_id,
            email_domain,
            groups: groups.names,
            subject,
            headers,
            dropped,
        })
    }
}

/// How claims map to the user id: `userId` of the plugin config.
#[derive(Clone, Debug)]
pub struct UserIdRules {
    /// The first non-empty string of these is the user id.
    pub claims: Vec<String>,
    /// Prepended last.
    pub prefix: String,
    /// Whether ASCII letters are lower-cased first.
    pub lowercase: bool,
    /// Whether `email_verified` must be true.
    pub require_verified_email: bool,
    /// The identity provider behind the Cognito user pool; `None`: any.
    pub provider: Option<String>,
    /// Only the first match is applied.
    pub transformers: Vec<Transformer>,
}

impl UserIdRules {
    /// The user id of the user with these `claims`: the first claim that is a non-empty string,
    /// lower-cased if configured, then transformed, then prefixed.
    ///
    /// # Errors
    /// [`Reason::ProviderMismatch`], [`Reason::UserIdMissing`], [`Reason::EmailUnverified`] or
    /// [`Reason::UserIdInvalid`].
    fn user_id(&self, claims: Sources<'_>) -> Result<String, Reason> {
        if let Some(provider) = &self.provider
            && !provider::is_from(provider, claims.token)
        {
            return Err(Reason::ProviderMismatch);
        }
        let (_, claim) = self.first(claims).ok_or(Reason::UserIdMissing)?;
        if self.require_verified_email && !is_true(claims.token.get("email_verified")) {
            return Err(Reason::EmailUnverified);
        }
        self.made_of(claim)
    }

    /// The name, as configured, and the value of the claim for the user id.
    pub fn claim<'a>(&'a self, claims: &'a Claims) -> Option<(&'a str, &'a str)> {
        self.first(Sources::of(claims))
    }

    fn first<'a>(&'a self, claims: Sources<'a>) -> Option<(&'a str, &'a str)> {
        self.claims
            .iter()
            .find_map(|path| Some((path.as_str(), non_empty_string(claims.find(path)?)?)))
    }

    /// The user id for the claim value `claim`.
    ///
    /// # Errors
    /// [`Reason::UserIdInvalid`].
    pub fn made_of(&self, claim: &str) -> Result<String, Reason> {
        if claim.len() > MAX_USER_ID_CLAIM_BYTES {
            return Err(Reason::UserIdInvalid);
        }
        let id = self.cased(claim);
        let id = transformed(&self.transformers, &id);
        if !is_safe_value(&id) {
            return Err(Reason::UserIdInvalid);
        }
        let id = format!("{}{id}", self.prefix);
        if id.len() > MAX_USER_ID_BYTES || id.starts_with(KUBERNETES_PREFIX) {
            return Err(Reason::UserIdInvalid);
        }
        Ok(id)
    }

    /// The transformer that applies to `id`, and its position. As in AuthService's
    /// `USERID_TRANSFORMERS`, the first regex that matches anywhere replaces all its matches, and
    /// later ones are not tried.
    pub fn transformer(&self, id: &str) -> Option<(usize, &Transformer)> {
        transformer_for(&self.transformers, id)
    }

    /// `claim` in lower case, if configured. ASCII only: Unicode's lower case merges distinct
    /// letters, such as k and the Kelvin sign.
    pub fn cased<'c>(&self, claim: &'c str) -> Cow<'c, str> {
        if self.lowercase {
            claim.to_ascii_lowercase().into()
        } else {
            claim.into()
        }
    }
}

fn non_empty_string(claim: &Value) -> Option<&str> {
    claim.as_str().filter(|text| !text.is_empty())
}

/// Cognito sends `email_verified` as a string, OpenID Connect Core (section 5.1) as a boolean.
fn is_true(claim: Option<&Value>) -> bool {
    matches!(claim, Some(Value::Bool(true))) || claim.and_then(Value::as_str) == Some("true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex_lite::Regex;
    use serde_json::json;

    fn rules(claims: &[&str]) -> UserIdRules {
        UserIdRules {
            claims: claims.iter().map(|claim| (*claim).to_owned()).collect(),
            prefix: String::new(),
            lowercase: false,
            require_verified_email: false,
            provider: None,
            transformers: Vec::new(),
        }
    }

    fn transformers(rules: &[(&str, &str)]) -> Vec<Transformer> {
        let rule = |(matches, replaces): &(&str, &str)| Transformer {
            matches: Regex::new(matches).unwrap(),
            replaces: (*replaces).to_owned(),
        };
        rules.iter().map(rule).collect()
    }

    pub(super) fn of_token(claims: &Value) -> Sources<'_> {
        Sources {
            token: claims.as_object().unwrap(),
            access: None,
        }
    }

    #[test]
    fn separates_claims_of_both_tokens() {
        let (token, access) = (
            json!({"a": 1, "b": 2, "access:c": 3}),
            json!({"a": 4, "c": {"d": 5}}),
        );
        let both = Sources {
            access: access.as_object(),
            ..of_token(&token)
        };
        let found = |path| both.find(path).and_then(Value::as_u64);
        assert_eq!(
            ["a", "access:a", "access:b", "access:c", "access:c.d", "c.d"].map(found),
            [Some(1), Some(4), None, None, Some(5), None]
        );
        assert_eq!(of_token(&token).find("access:a"), None);
        assert_eq!(of_token(&token).find("access:c"), None);
    }

    fn id(rules: &UserIdRules, claims: Value) -> Result<String, Reason> {
        rules.user_id(of_token(&claims))
    }

    #[test]
    fn takes_first_non_empty_string_claim() {
        let rules = rules(&["email", "username", "sub"]);
        assert_eq!(
            id(&rules, json!({"email": "ann@x", "sub": "1"})),
            Ok("ann@x".to_owned())
        );
        assert_eq!(
            id(&rules, json!({"email": "", "username": 7, "sub": "1"})),
            Ok("1".to_owned())
        );
        assert_eq!(
            id(&rules, json!({"email": ["ann@x"]})),
            Err(Reason::UserIdMissing)
        );
    }

    #[test]
    fn dots_descend_unless_a_claim_has_that_name() {
        let claims = json!({"a": {"b": {"c": "deep"}}, "a.b": {"c": "middle"}});
        assert_eq!(
            id(&rules(&["a.b.c"]), claims.clone()),
            Ok("middle".to_owned())
        );
        assert_eq!(
            id(&rules(&["a.b.c"]), json!({"a": {"b": {"c": "deep"}}})),
            Ok("deep".to_owned())
        );
        assert_eq!(
            id(
                &rules(&["a.b.c"]),
                json!({"a.b.c": "whole", "a": {"b": {"c": "deep"}}})
            ),
            Ok("whole".to_owned())
        );
        assert_eq!(id(&rules(&["a..b"]), claims), Err(Reason::UserIdMissing));
    }

    #[test]
    fn applies_first_matching_transformer() {
        for (table, before, after) in [
            (&[(r"@example\.com$", "")][..], "ann@example.com", "ann"),
            (&[("n", "N"), ("a", "A")], "ann", "aNN"),
            (&[("z", "Z"), ("a", "A")], "ann", "Ann"),
            (&[("z", "Z")], "ann", "ann"),
            (
                &[(r"(\w+)@(\w+)", "$2-${1}x$$")],
                "ann@example",
                "example-annx$",
            ),
            (&[(r"(\w+)@", "$1x")], "ann@example", "example"),
        ] {
            let rules = UserIdRules {
                transformers: transformers(table),
                ..rules(&["email"])
            };
            assert_eq!(rules.made_of(before), Ok(after.to_owned()));
        }
    }

    #[test]
    fn lower_cases_first_and_prefixes_last() {
        let mut rules = rules(&["email"]);
        rules.lowercase = true;
        rules.prefix = "OIDC:".to_owned();
        rules.transformers = transformers(&[("@example.com$", "-Team")]);
        assert_eq!(
            id(&rules, json!({"email": "Ann@Example.COM"})),
            Ok("OIDC:ann-Team".to_owned())
        );
        // The Kelvin sign is not a k.
        assert_eq!(
            id(&rules, json!({"email": "\u{212a}IM"})),
            Ok("OIDC:\u{212a}im".to_owned())
        );
    }

    #[test]
    fn accepts_true_and_the_string_true() {
        let mut rules = rules(&["email"]);
        rules.require_verified_email = true;
        for (verified, expected) in [
            (json!(true), Ok("a".to_owned())),
            (json!("true"), Ok("a".to_owned())),
            (json!("TRUE"), Err(Reason::EmailUnverified)),
            (json!(1), Err(Reason::EmailUnverified)),
            (json!(false), Err(Reason::EmailUnverified)),
        ] {
            assert_eq!(
                id(&rules, json!({"email": "a", "email_verified": verified})),
                expected
            );
        }
        assert_eq!(
            id(&rules, json!({"email": "a"})),
            Err(Reason::EmailUnverified)
        );
    }

    #[test]
    fn drops_and_counts_unsafe_values() {
        let claim_header = |claim: &str| ClaimHeader {
            claim: claim.to_owned(),
            header: format!("x-{claim}"),
            is_percent_encoded: false,
        };
        let rules = IdentityRules {
            user_id_header: "user".to_owned(),
            user_id: rules(&["email"]),
            groups: None,
            claim_headers: vec![
                claim_header("name"),
                claim_header("bad"),
                claim_header("absent"),
            ],
        };
        let claims = json!({"email": "ann", "sub": "1", "name": "Ann", "bad": "a\nb"});
        let identity = rules.read(of_token(&claims), 0).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            (identity.user_id.as_str(), identity.headers),
            ("ann", vec![pair("x-name", "Ann")])
        );
        assert_eq!(
            (identity.dropped, identity.subject.as_deref()),
            (1, Some("1"))
        );
    }

    #[test]
    fn rejects_ambiguous_user_ids() {
        let unseen = [
            "a\u{200b}",
            "\u{202e}a",
            "a\u{34f}b",
            "a\u{17b5}",
            "a\u{1bca0}b",
            "a\u{1d173}b",
            "a\u{85}",
            "\u{feff}",
        ];
        for value in ["a\r\nb", "a\0", "a\tb", " a", "a ", &"a".repeat(321)]
            .into_iter()
            .chain(unseen)
        {
            assert_eq!(
                id(&rules(&["email"]), json!({"email": value})),
                Err(Reason::UserIdInvalid),
                "{value:?}"
            );
        }
        let invisible = "\u{2800}\u{600}\u{605}\u{6dd}\u{70f}\u{891}\u{8e2}\u{110bd}\u{13430}\u{e000}\u{f8ff}\u{f0000}\u{10fffd}\
                         \u{fdd0}\u{fdef}\u{fffe}\u{ffff}\u{1fffe}\u{5ffff}\u{10ffff}";
        for c in invisible.chars() {
            let value = format!("ann{c}");
            assert_eq!(
                id(&rules(&["email"]), json!({"email": value})),
                Err(Reason::UserIdInvalid),
                "{value:?}"
            );
        }
        assert_eq!(
            id(&rules(&["email"]), json!({"email": "josé o'neil"})),
            Ok("josé o'neil".to_owned())
        );
    }

    #[test]
    fn rejects_names_that_kubernetes_reserves() {
        let mut rules = rules(&["email"]);
        rules.transformers = transformers(&[("^admin:", "system:")]);
        for value in [
            "system:masters",
            "system:serviceaccount:kubeflow:default",
            "system:",
            "admin:masters",
        ] {
            assert_eq!(
                id(&rules, json!({"email": value})),
                Err(Reason::UserIdInvalid),
                "{value}"
            );
        }
        assert_eq!(
            id(&rules, json!({"email": "systems"})),
            Ok("systems".to_owned())
        );
        assert_eq!(
            id(&rules, json!({"email": "SYSTEM:masters"})),
            Ok("SYSTEM:masters".to_owned())
        );
        rules.lowercase = true;
        assert_eq!(
            id(&rules, json!({"email": "SYSTEM:masters"})),
            Err(Reason::UserIdInvalid)
        );
        rules.prefix = "oidc:".to_owned();
        assert_eq!(
            id(&rules, json!({"email": "system:masters"})),
            Ok("oidc:system:masters".to_owned())
        );
        rules.prefix = "sys".to_owned();
        assert_eq!(
            id(&rules, json!({"email": "tem:masters"})),
            Err(Reason::UserIdInvalid)
        );
    }

    #[test]
    fn prefix_alone_is_no_user_id() {
        let mut rules = rules(&["email"]);
        rules.prefix = "team:".to_owned();
        rules.transformers = transformers(&[(".*", "")]);
        assert_eq!(
            id(&rules, json!({"email": "ann"})),
            Err(Reason::UserIdInvalid)
        );
    }
}
