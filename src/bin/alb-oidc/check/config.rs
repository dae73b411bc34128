//! Warnings of valid settings in a plugin config that are risky or useless.

use alb_oidc_filter::Config;
use serde_json::{Map, Value};

use super::rules::{self, reaches_the_end};
use super::warnings::Warnings;
use crate::finding::Code;
use crate::input::PluginConfig;

/// Claims that users may write at many providers, in their profile or at sign-up.
const WRITABLE: [&str; 15] = [
    "address",
    "birthdate",
    "family_name",
    "gender",
    "given_name",
    "locale",
    "middle_name",
    "name",
    "nickname",
    "phone_number",
    "picture",
    "preferred_username",
    "profile",
    "website",
    "zoneinfo",
];

/// Adds the warnings of `config`.
pub(super) fn warn(plugin: &PluginConfig, config: &Config, warnings: &mut Warnings<'_>) {
    for (position, load_balancer) in config.load_balancers.iter().enumerate() {
        if load_balancer.issuer.is_none() {
            warnings.add(
                Code::IssuerNull,
                &format!("loadBalancers[{position}].issuer"),
                "found null: tokens of any issuer are trusted",
            );
        }
        if load_balancer.client_id.is_none() {
            warnings.add(
                Code::ClientNull,
                &format!("loadBalancers[{position}].clientId"),
                "found null: tokens for every application of the issuer are trusted",
            );
        }
    }
    if config.report_only {
        warnings.add(
            Code::ModeReport,
            "mode",
            "found \"report\": no request is denied, and those without a valid token pass without a user id",
        );
    }
    for (position, name) in config.upgrades.allowed.iter().enumerate() {
        if *name != "websocket" {
            warnings.add(
                Code::UpgradeType,
                &format!("upgrades[{position}]"),
                &format!("found {name}, expected websocket"),
            );
        }
    }
    if config.forward.session_cookies {
        warnings.add(
            Code::SessionCookiesForwarded,
            "forward.sessionCookies",
            "found true: upstream receives cookies with which it can impersonate the user",
        );
    }
    let places = places(plugin);
    for (prefix, members) in &places {
        let place = Place {
            prefix,
            members,
            config,
        };
        place.warn(warnings);
    }
    key_server(
        warnings,
        &plugin.members,
        "publicKeys",
        "endpoint",
        "cluster",
    );
    rules::warn(config, warnings);
}

/// The objects with `userId`, `groups` and `accessToken`: the config, and each load balancer.
fn places(plugin: &PluginConfig) -> Vec<(String, &Map<String, Value>)> {
    let mut places = vec![(String::new(), &plugin.members)];
    let load_balancers = plugin
        .members
        .get("loadBalancers")
        .and_then(Value::as_array);
    for (position, entry) in load_balancers.into_iter().flatten().enumerate() {
        if let Some(members) = entry.as_object() {
            places.push((format!("loadBalancers[{position}]."), members));
        }
    }
    places
}

/// One object with settings for users.
struct Place<'p> {
    prefix: &'p str,
    members: &'p Map<String, Value>,
    config: &'p Config,
}

impl Place<'_> {
    fn at(&self, object: &str, field: &str) -> Option<&Value> {
        self.members.get(object)?.get(field)
    }

    fn list(&self, object: &str, field: &str) -> &[Value] {
        let list = self.at(object, field).and_then(Value::as_array);
        list.map_or(&[], Vec::as_slice)
    }

    fn warn(&self, warnings: &mut Warnings<'_>) {
        for object in ["userId", "groups"] {
            self.warn_of_transformers(object, warnings);
            self.warn_of_cognito_groups(object, warnings);
        }
        let headers = self.members.get("claimHeaders").and_then(Value::as_array);
        for (position, header) in headers.into_iter().flatten().enumerate() {
            if header.get("claim").is_some_and(is_cognito_groups) {
                let field = format!("{}claimHeaders[{position}].claim", self.prefix);
                no_cognito_groups(&field, warnings);
            }
        }
        self.warn_of_fallbacks(warnings);
        self.warn_of_subject(warnings);
        let issuers = [
            ("issuer", self.members.get("issuer")),
            ("accessToken.issuer", self.at("accessToken", "issuer")),
        ];
        for (field, issuer) in issuers {
            let issuer = issuer.and_then(Value::as_str).unwrap_or_default();
            if issuer.starts_with("https://cognito-idp.") && issuer.ends_with('/') {
                warnings.add(
                    Code::CognitoIssuerSlash,
                    &format!("{}{field}", self.prefix),
                    &format!("found {issuer}, expected no slash at its end"),
                );
            }
        }
        let field = if self.at("accessToken", "jwksUri").is_some() {
            "jwksUri"
        } else {
            "issuer"
        };
        if let Some(access_token) = self.members.get("accessToken").and_then(Value::as_object) {
            let object = format!("{}accessToken", self.prefix);
            plain_http(warnings, access_token, &object, field, "jwksCluster");
        }
    }

    fn warn_of_transformers(&self, object: &str, warnings: &mut Warnings<'_>) {
        for (position, transformer) in self.list(object, "transformers").iter().enumerate() {
            let regex = transformer.get("matches").and_then(Value::as_str);
            if let Some(regex) = regex.filter(|regex| !reaches_the_end(regex)) {
                warnings.add(
                    Code::TransformerUnanchored,
                    &format!("{}{object}.transformers[{position}].matches", self.prefix),
                    &format!("found {regex}, expected $ at its end"),
                );
            }
        }
    }

    fn warn_of_cognito_groups(&self, object: &str, warnings: &mut Warnings<'_>) {
        for (position, claim) in self.list(object, "claims").iter().enumerate() {
            if is_cognito_groups(claim) {
                let field = format!("{}{object}.claims[{position}]", self.prefix);
                no_cognito_groups(&field, warnings);
            }
        }
    }

    /// The claim of the access token that names the user.
    fn warn_of_subject(&self, warnings: &mut Warnings<'_>) {
        let subject = self.at("accessToken", "subject").and_then(Value::as_str);
        let is_writable = |claim: &&str| {
            claim.starts_with("custom:") || *claim == "email" || WRITABLE.contains(claim)
        };
        if let Some(subject) = subject.filter(is_writable) {
            warnings.add(
                Code::SubjectWritable,
                &format!("{}accessToken.subject", self.prefix),
                &format!("found {subject}, expected an id that the provider assigns"),
            );
        }
    }

    fn warn_of_fallbacks(&self, warnings: &mut Warnings<'_>) {
        let own = self.at("userId", "requireVerifiedEmail");
        let verified = own
            .and_then(Value::as_bool)
            .unwrap_or(self.config.users.identity.user_id.require_verified_email);
        for (position, claim) in self.list("userId", "claims").iter().enumerate().skip(1) {
            let claim = claim.as_str().unwrap_or_default();
            let is_email = claim == "email" && !verified;
            if is_email || WRITABLE.contains(&claim) {
                warnings.add(
                    Code::ClaimWritable,
                    &format!("{}userId.claims[{position}]", self.prefix),
                    &format!("found {claim} as a fallback: a user may write the name of another"),
                );
            }
        }
    }
}

fn is_cognito_groups(claim: &Value) -> bool {
    claim == "cognito:groups"
}

fn no_cognito_groups(field: &str, warnings: &mut Warnings<'_>) {
    let message = "found cognito:groups, expected access:cognito:groups";
    warnings.add(Code::CognitoGroups, field, message);
}

fn key_server(
    warnings: &mut Warnings<'_>,
    members: &Map<String, Value>,
    object: &str,
    field: &str,
    cluster: &str,
) {
    if let Some(members) = members.get(object).and_then(Value::as_object) {
        plain_http(warnings, members, object, field, cluster);
    }
}

/// Warns of a key server without TLS on another machine. A configured cluster decides about TLS
/// itself.
fn plain_http(
    warnings: &mut Warnings<'_>,
    members: &Map<String, Value>,
    object: &str,
    field: &str,
    cluster: &str,
) {
    let url = members
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some(rest) = url.strip_prefix("http://") else {
        return;
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let is_loopback = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    if !is_loopback && !members.contains_key(cluster) {
        let message = format!("found {url}, expected https");
        warnings.add(Code::KeyServerHttp, &format!("{object}.{field}"), &message);
    }
}
