//! Reads `accessToken` of the plugin config into [`AccessTokenRules`] and a key source.

use std::time::Duration;

use super::endpoint::Endpoint;
use super::load_balancer::key_source;
use super::reader::{Object, quoted};
use crate::keys::source::{KeyFormat, KeySource};
use crate::token::access_token::AccessTokenRules;
use crate::token::alb::LoadBalancer;
use crate::token::claims::ACCESS_TOKEN_CLAIM;

/// Reads `accessToken` and adds its key set to `key_sources`. `None` only after a mistake.
/// `load_balancers`: those whose users have these access tokens; empty if they have mistakes.
pub(super) fn read<'l>(
    entry: &Object<'_>,
    load_balancers: impl Iterator<Item = &'l LoadBalancer>,
    key_sources: &mut Vec<KeySource>,
    timeout: Duration,
) -> Option<AccessTokenRules> {
    // A `sub` identifies a user only within its issuer.
    let mut issuers: Vec<Option<&str>> = Vec::new();
    for load_balancer in load_balancers {
        let issuer = load_balancer.issuer.as_deref();
        if !issuers.contains(&issuer) {
            issuers.push(issuer);
        }
    }
    let is_any = issuers.contains(&None);
    if is_any || issuers.len() > 1 {
        let found = if is_any {
            "`issuer: null`".to_owned()
        } else {
            format!("{} issuers", issuers.len())
        };
        let required = format!(
            "all `loadBalancers` to have the same issuer (found {found}), or an `accessToken` of their own"
        );
        entry.requirement("", &required);
    }
    let issuer = entry.string("issuer");
    let subject = entry.string("subject");
    if subject.starts_with(ACCESS_TOKEN_CLAIM) {
        let expected = format!("the claim's name without `{ACCESS_TOKEN_CLAIM}`");
        entry.mistake("subject", &quoted(subject), &expected);
    }
    let source = read_key_set(entry, issuer, timeout)?;
    Some(AccessTokenRules {
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        key_source: key_source(key_sources, source),
    })
}

fn read_key_set(entry: &Object<'_>, issuer: &str, timeout: Duration) -> Option<KeySource> {
    let endpoint =
        |field, text: &str, expected| entry.check(field, text, Endpoint::parse(text), expected);
    let (endpoint, path) = match entry.optional_string("jwksUri") {
        Some(uri) => {
            let endpoint = endpoint("jwksUri", uri, Endpoint::EXPECTED)?;
            // `Endpoint` appends `/` to every path, but this path is requested as written.
            let is_folder = uri.ends_with('/') || endpoint.path == "/";
            let path = if is_folder {
                endpoint.path.as_str()
            } else {
                endpoint.path.trim_end_matches('/')
            }
            .to_owned();
            (endpoint, path)
        }
        None => {
            let expected = format!("{}, or set `jwksUri`", Endpoint::EXPECTED);
            let endpoint = endpoint("issuer", issuer, &expected)?;
            let path = format!("{}.well-known/jwks.json", endpoint.path);
            (endpoint, path)
        }
    };
    let cluster = entry
        .optional_string("jwksCluster")
        .map_or_else(|| endpoint.cluster(), str::to_owned);
    Some(KeySource {
        cluster,
        authority: endpoint.authority(),
        path,
        format: KeyFormat::KeySet,
        timeout,
    })
}
