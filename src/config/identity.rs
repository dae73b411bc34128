//! Reads `userId`, `groups` and `claimHeaders` of the plugin config into [`IdentityRules`].

use super::headers::{check_headers_are_distinct, is_header_text, read_header};
use super::reader::{Object, quoted, read_regex};
use crate::identity::value::KUBERNETES_PREFIX;
use crate::identity::{
    ClaimHeader, GroupClaimRules, GroupRules, IdentityRules, Members, Transformer, UserIdRules,
};
use crate::token::claims::ACCESS_TOKEN_CLAIM;

pub(super) fn read(root: &Object<'_>) -> IdentityRules {
    let user_id = root.object("userId");
    let with_access_token = root.optional_object("accessToken").is_some();
    let from_access_token = user_id
        .strings("claims")
        .into_iter()
        .find(|claim| claim.starts_with(ACCESS_TOKEN_CLAIM));
    if let Some(claim) = from_access_token.filter(|_| user_id.boolean("requireVerifiedEmail")) {
        user_id.conflict(
            "requireVerifiedEmail",
            &format!("the claim {}", quoted(claim)),
            "`email_verified` covers only the load balancer's token",
        );
    }
    let rules = IdentityRules {
        user_id_header: read_header(&user_id, "header"),
        user_id: UserIdRules {
            claims: read_claims(&user_id, with_access_token),
            prefix: read_prefix(&user_id),
            lowercase: user_id.boolean("lowercase"),
            require_verified_email: user_id.boolean("requireVerifiedEmail"),
            transformers: read_transformers(&user_id),
        },
        groups: root
            .optional_object("groups")
            .map(|groups| read_groups(&groups, with_access_token)),
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
            })
            .collect(),
    };
    check_headers_are_distinct(root, &rules);
    rules
}

fn read_groups(groups: &Object<'_>, with_access_token: bool) -> GroupRules {
    let before = groups.mistake_count();
    let claims = read_claims(groups, with_access_token);
    let is_sound = before == groups.mistake_count();
    let is_form_encoded = groups.optional_string("decode") == Some("form");
    let is_of_access_token = |claim: &String| claim.starts_with(ACCESS_TOKEN_CLAIM);
    if is_sound && is_form_encoded && claims.iter().all(is_of_access_token) {
        let reason = "claims of the access token are never form-encoded";
        groups.conflict("decode", "`claims` of the access token only", reason);
    }
    GroupRules {
        claims,
        form: GroupClaimRules {
            separator: groups.string("separator").chars().next().unwrap_or(','),
            members: groups
                .optional_string("members")
                .map(|members| match members {
                    "keys" => Members::Keys,
                    _ => Members::Name,
                }),
            is_form_encoded,
        },
        transformers: read_transformers(groups),
        header: read_header(groups, "header"),
        prefix: read_group_prefix(groups),
        keep: groups
            .given_string("keep")
            .and_then(|_| read_regex(groups, "keep")),
        member_header_prefix: groups
            .given_string("memberHeaderPrefix")
            .map(|_| read_header(groups, "memberHeaderPrefix")),
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
