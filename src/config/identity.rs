//! Reads `userId`, `groups` and `claimHeaders` of the plugin config into [`IdentityRules`].

use super::headers::{check_headers_are_distinct, is_header_text, read_header};
use super::reader::{Object, quoted, read_regex};
use crate::identity::value::KUBERNETES_PREFIX;
use crate::identity::{
    ClaimHeader, Decode, GroupClaimRules, GroupRules, IdentityRules, Members, Transformer,
    UserIdRules,
};
use crate::token::claims::ACCESS_TOKEN_CLAIM;

/// Reads the top-level fields. `with_access_token`: some load balancer's access token is read.
pub(super) fn read(root: &Object<'_>, with_access_token: bool) -> IdentityRules {
    let user_id = root.object("userId");
    let groups = root.optional_object("groups");
    let rules = IdentityRules {
        user_id_header: read_header(&user_id, "header"),
        user_id: read_user_id(&user_id, None, with_access_token),
        groups: groups.map(|groups| read_groups(&groups, None, with_access_token)),
        claim_headers: root
            .objects("claimHeaders")
            .iter()
            .map(|entry| ClaimHeader {
                claim: entry
                    .optional_string("claim")
                    .map_or_else(String::new, |claim| {
                        read_claim(entry, "claim", claim, with_access_token)
                    }),
                header: read_header(entry, "header"),
                is_percent_encoded: entry.optional_string("encoding") == Some("percent"),
            })
            .collect(),
    };
    check_headers_are_distinct(root, &rules);
    rules
}

/// The rules for the users of one load balancer; `None` if `entry` overrides none of `base`.
pub(super) fn read_override(
    root: &Object<'_>,
    entry: &Object<'_>,
    base: &IdentityRules,
    with_access_token: bool,
) -> Option<IdentityRules> {
    let before = root.mistake_count();
    let user_id = entry.optional_object("userId");
    let groups = entry.optional_object("groups");
    if user_id.is_none() && groups.is_none() {
        return None;
    }
    let mut rules = base.clone();
    if let Some(user_id) = user_id {
        rules.user_id = read_user_id(&user_id, Some(&base.user_id), with_access_token);
    }
    if let Some(groups) = groups {
        let base = base.groups.as_ref();
        rules.groups = Some(read_groups(&groups, base, with_access_token));
        // Without `groups` at the top level, their header is only known here.
        if base.is_none() && before == root.mistake_count() {
            check_headers_are_distinct(root, &rules);
        }
    }
    Some(rules)
}

/// The value of `field`: as `base` has it if the object overrides it and has no such field.
fn or_base<T: Clone>(
    object: &Object<'_>,
    field: &str,
    base: Option<&T>,
    read: impl FnOnce() -> T,
) -> T {
    match base {
        Some(base) if !object.has(field) => base.clone(),
        _ => read(),
    }
}

fn read_user_id(
    user_id: &Object<'_>,
    base: Option<&UserIdRules>,
    with_access_token: bool,
) -> UserIdRules {
    let flag = |field, base| or_base(user_id, field, base, || user_id.boolean(field));
    let rules = UserIdRules {
        claims: or_base(user_id, "claims", base.map(|base| &base.claims), || {
            read_claims(user_id, with_access_token)
        }),
        prefix: or_base(user_id, "prefix", base.map(|base| &base.prefix), || {
            read_prefix(user_id)
        }),
        lowercase: flag("lowercase", base.map(|base| &base.lowercase)),
        require_verified_email: flag(
            "requireVerifiedEmail",
            base.map(|base| &base.require_verified_email),
        ),
        provider: or_base(user_id, "provider", base.map(|base| &base.provider), || {
            user_id.optional_string("provider").map(|provider| {
                if provider.contains('_') {
                    let expected = "a name without `_`, as `username` is compared up to its first `_` and could never equal this one";
                    user_id.mistake("provider", &quoted(provider), expected);
                }
                provider.to_owned()
            })
        }),
        transformers: or_base(
            user_id,
            "transformers",
            base.map(|base| &base.transformers),
            || read_transformers(user_id),
        ),
    };
    let from_access_token = rules
        .claims
        .iter()
        .find(|claim| claim.starts_with(ACCESS_TOKEN_CLAIM));
    let is_own = base.is_none() || user_id.has("claims") || user_id.has("requireVerifiedEmail");
    if let Some(claim) = from_access_token.filter(|_| is_own && rules.require_verified_email) {
        user_id.conflict(
            "requireVerifiedEmail",
            &format!("the claim {}", quoted(claim)),
            "`email_verified` covers only the load balancer's token",
        );
    }
    rules
}

fn read_groups(
    groups: &Object<'_>,
    base: Option<&GroupRules>,
    with_access_token: bool,
) -> GroupRules {
    let before = groups.mistake_count();
    let claims = or_base(groups, "claims", base.map(|base| &base.claims), || {
        read_claims(groups, with_access_token)
    });
    let is_own = base.is_none() || groups.has("claims") || groups.has("decode");
    let is_sound = is_own && before == groups.mistake_count();
    let form = base.map(|base| &base.form);
    let decode = or_base(groups, "decode", form.map(|form| &form.decode), || {
        groups.optional_string("decode").map(|decode| match decode {
            "form" => Decode::Form,
            _ => Decode::Json,
        })
    });
    let is_of_access_token = |claim: &String| claim.starts_with(ACCESS_TOKEN_CLAIM);
    if is_sound && decode.is_some() && claims.iter().all(is_of_access_token) {
        let reason = "claims of the access token are never decoded";
        groups.conflict("decode", "`claims` of the access token only", reason);
    }
    GroupRules {
        claims,
        form: GroupClaimRules {
            separator: or_base(
                groups,
                "separator",
                form.map(|form| &form.separator),
                || groups.string("separator").chars().next().unwrap_or(','),
            ),
            members: or_base(groups, "members", form.map(|form| &form.members), || {
                groups
                    .optional_string("members")
                    .map(|members| match members {
                        "keys" => Members::Keys,
                        _ => Members::Name,
                    })
            }),
            decode,
        },
        transformers: or_base(
            groups,
            "transformers",
            base.map(|base| &base.transformers),
            || read_transformers(groups),
        ),
        header: or_base(groups, "header", base.map(|base| &base.header), || {
            read_header(groups, "header")
        }),
        prefix: or_base(groups, "prefix", base.map(|base| &base.prefix), || {
            read_group_prefix(groups)
        }),
        keep: or_base(groups, "keep", base.map(|base| &base.keep), || {
            groups
                .given_string("keep")
                .and_then(|_| read_regex(groups, "keep"))
        }),
        member_header_prefix: or_base(
            groups,
            "memberHeaderPrefix",
            base.map(|base| &base.member_header_prefix),
            || {
                groups
                    .given_string("memberHeaderPrefix")
                    .map(|_| read_header(groups, "memberHeaderPrefix"))
            },
        ),
    }
}

fn read_prefix(object: &Object<'_>) -> String {
    let prefix = object.string("prefix");
    if !is_header_text(prefix) {
        object.mistake(
            "prefix",
            &quoted(prefix),
            "printable ASCII without leading spaces",
        );
    }
    if prefix.starts_with(KUBERNETES_PREFIX) {
        object.mistake(
            "prefix",
            &quoted(prefix),
            "a prefix that does not start with \"system:\", which Kubernetes reserves",
        );
    }
    prefix.to_owned()
}

/// A comma in the prefix would split each group in the joined header.
fn read_group_prefix(groups: &Object<'_>) -> String {
    let prefix = read_prefix(groups);
    if prefix.contains(',') {
        groups.mistake("prefix", &quoted(&prefix), "a prefix without commas");
    }
    prefix
}

fn read_claims(object: &Object<'_>, with_access_token: bool) -> Vec<String> {
    let mut claims: Vec<String> = Vec::new();
    for (position, claim) in object.strings("claims").into_iter().enumerate() {
        let field = format!("claims[{position}]");
        let claim = if claims.iter().any(|earlier| earlier == claim) {
            object.mistake(&field, &quoted(claim), "each claim once");
            claim.to_owned()
        } else {
            read_claim(object, &field, claim, with_access_token)
        };
        claims.push(claim);
    }
    claims
}

fn read_claim(object: &Object<'_>, field: &str, claim: &str, with_access_token: bool) -> String {
    let name = claim.strip_prefix(ACCESS_TOKEN_CLAIM);
    if name.unwrap_or(claim).is_empty() || claim.len() > 128 || claim.chars().any(char::is_control)
    {
        object.mistake(field, &quoted(claim), "a claim name of 1 to 128 bytes");
    } else if name.is_some() && !with_access_token {
        let required = format!(
            "`accessToken`: {} is a claim of the access token",
            quoted(claim)
        );
        object.requirement(field, &required);
    }
    claim.to_owned()
}

fn read_transformers(object: &Object<'_>) -> Vec<Transformer> {
    let table = object.objects("transformers");
    table.iter().filter_map(read_transformer).collect()
}

fn read_transformer(rule: &Object<'_>) -> Option<Transformer> {
    let replaces = rule.string("replaces");
    if !(replaces.is_empty() || is_header_text(replaces)) {
        rule.mistake(
            "replaces",
            &quoted(replaces),
            "printable ASCII without leading spaces",
        );
    }
    Some(Transformer {
        matches: read_regex(rule, "matches")?,
        replaces: replaces.to_owned(),
    })
}
