//! `accessToken` of the plugin config, and where the identity provider's keys are published.

use std::time::Duration;

use super::endpoint::Endpoint;
use super::reader::Object;
use crate::keys::source::{KeyFormat, KeySource, KeySourceId};
use crate::token::access::AccessTokenRules;
use crate::token::alb::LoadBalancer;

/// Reads `accessToken`, and adds its key set to `key_sources`, after those of the load balancers.
/// `None` only after a mistake was reported.
pub(super) fn read(
    entry: &Object<'_>,
    load_balancers: &[LoadBalancer],
    key_sources: &mut Vec<KeySource>,
    timeout: Duration,
) -> Option<AccessTokenRules> {
    let mut issuers = load_balancers.iter().map(|entry| entry.issuer.as_deref());
    let first = issuers.next().flatten();
    let is_one = issuers.all(|issuer| issuer == first);
    if !load_balancers.is_empty() && (first.is_none() || !is_one) {
        let found = if is_one {
            "any issuer"
        } else {
            "several issuers"
        };
        let expected = "one: a `sub` names the same user with one issuer only";
        entry.mistake(
            "",
            format!("`loadBalancers` of {found} beside it"),
            expected,
        );
    }
    let issuer = entry.string("issuer");
    key_sources.push(read_key_set(entry, issuer, timeout)?);
    let key_source = KeySourceId(key_sources.len().saturating_sub(1));
    Some(AccessTokenRules {
        issuer: issuer.to_owned(),
        key_source,
    })
}

fn read_key_set(entry: &Object<'_>, issuer: &str, timeout: Duration) -> Option<KeySource> {
    let endpoint =
        |field, text: &str| entry.check(field, text, Endpoint::parse(text), Endpoint::EXPECTED);
    let (endpoint, path) = match entry.optional_string("jwksUri") {
        Some(uri) => {
            let endpoint = endpoint("jwksUri", uri)?;
            // `Endpoint` ends every path in `/`; this one is asked for as it is written.
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
            let endpoint = endpoint("issuer", issuer)?;
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
