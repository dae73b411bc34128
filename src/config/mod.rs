//! `pluginConfig`: parses JSON into a valid [`Config`], or returns every mistake with its field.
//! Unknown fields, wrong types and values out of bounds are mistakes. No I/O. Applies nothing.

mod access_token;
mod descriptions;
mod endpoint;
mod headers;
mod identity;
pub(crate) mod json_schema;
mod load_balancer;
mod logout;
mod pages;
mod reader;
pub(crate) mod reference;
mod rules;
mod upgrades;

use std::time::Duration;

use serde_json::Value;

use crate::access::rules::{Access, AccessRules};
use crate::cookies::SessionCookies;
use crate::identity::{Identity, IdentityRules};
use crate::json;
use crate::keys::source::{KeySource, KeySourceId};
use crate::sign_out::SignOut;
use crate::token::access_token::AccessTokenRules;
use crate::token::alb::LoadBalancer;
use crate::upgrades::Upgrades;
pub use reader::ConfigError;
use reader::{Mistakes, Object, quoted};

/// The largest `pluginConfig`, in bytes.
pub const MAX_CONFIG_BYTES: usize = 256 * 1024;

/// How deep `pluginConfig` may nest.
const MAX_CONFIG_DEPTH: usize = 8;

/// A valid plugin config.
#[derive(Clone, Debug)]
pub struct Config {
    /// The load balancers whose tokens are trusted. At least one.
    pub load_balancers: Vec<LoadBalancer>,
    /// The key servers: those of the load balancers, then that of access tokens. A [`KeySourceId`]
    /// is a position in this list.
    pub key_sources: Vec<KeySource>,
    /// The TTL of a fetched key.
    pub key_ttl: Duration,
    /// The largest accepted difference between the clocks of gateway and load balancer.
    pub clock_skew: Duration,
    /// How users are identified.
    pub users: UserRules,
    /// The rules for the users of each load balancer, in the order of `load_balancers`; `None`:
    /// those of `users`.
    pub overrides: Vec<Option<UserRules>>,
    /// Decides which requests need a token and which users may pass.
    pub access: AccessRules,
    /// The allowed protocol upgrades.
    pub upgrades: Upgrades,
    /// Headers to strip from every request, with their aliases. Lower case.
    pub reserved_headers: Vec<String>,
    /// What upstream receives in addition to the identity headers.
    pub forward: Forward,
    /// The ALB's session cookies.
    pub session_cookies: SessionCookies,
    /// Sign-out at the gateway; `None`: off.
    pub sign_out: Option<SignOut>,
    /// The site's title and contact on the page of a denial.
    pub pages: Pages,
    /// Whether the access log can read the user id of an admitted request, as the filter state
    /// `wasm.alb_oidc_user`.
    pub log_user: bool,
    /// Whether requests to deny are forwarded without identity, and only counted and logged.
    pub report_only: bool,
}

/// How users are identified.
#[derive(Clone, Debug)]
pub struct UserRules {
    /// Maps claims to an identity and its headers.
    pub identity: IdentityRules,
    /// Verifies the identity provider's access token; `None`: not verified.
    pub access_token: Option<AccessTokenRules>,
}

/// `pages`: the site's title and contact on the page of a denial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// The site's name, any text without control characters.
    pub title: Option<String>,
    /// An email address, or an https URL: visible ASCII.
    pub contact: Option<String>,
}

/// `forward`: which headers and cookies upstream receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// `x-amzn-oidc-data`, and `x-amzn-oidc-identity` if it equals the verified `sub`.
    pub oidc_data: bool,
    /// `x-amzn-oidc-accesstoken`. Verified only if [`UserRules::access_token`] is set.
    pub access_token: bool,
    /// The ALB's session cookies.
    pub session_cookies: bool,
    /// Client headers that override the request's path or method in some applications.
    pub path_overrides: bool,
}

impl Config {
    /// Parses `pluginConfig` from JSON of at most [`MAX_CONFIG_BYTES`]. Empty text is a mistake.
    ///
    /// # Errors
    /// All mistakes, each once.
    pub fn parse(text: &[u8]) -> Result<Self, Vec<ConfigError>> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(vec![ConfigError::new(
                "",
                &format!("{} bytes", text.len()),
                &format!("at most {MAX_CONFIG_BYTES} bytes"),
            )]);
        }
        if text.trim_ascii().is_empty() {
            return Err(vec![ConfigError::new(
                "",
                "nothing",
                "a JSON object with at least `loadBalancers`",
            )]);
        }
        let value = json::parse(text, MAX_CONFIG_DEPTH).map_err(|error| {
            vec![ConfigError::new(
                "",
                &format!("invalid JSON ({error})"),
                "a JSON object",
            )]
        })?;
        Self::from_value(&value)
    }

    /// The key source at this position.
    pub fn key_source(&self, id: KeySourceId) -> Option<&KeySource> {
        self.key_sources.get(id.0)
    }

    /// The rules for the users of the load balancer at this position in `load_balancers`.
    pub fn users_of(&self, load_balancer: usize) -> &UserRules {
        let overridden = self.overrides.get(load_balancer);
        overridden.and_then(Option::as_ref).unwrap_or(&self.users)
    }

    /// The configured issuer of the user's load balancer; `None`: any.
    pub fn issuer_of(&self, identity: &Identity) -> Option<&str> {
        let load_balancer = self.load_balancers.get(identity.load_balancer)?;
        load_balancer.issuer.as_deref()
    }

    /// Whether any user's access token is read.
    pub fn reads_access_tokens(&self) -> bool {
        let overrides = self.overrides.iter().flatten();
        overrides
            .chain([&self.users])
            .any(|users| users.access_token.is_some())
    }

    /// Reads `pluginConfig` from a JSON value.
    ///
    /// # Errors
    /// All mistakes, each once.
    pub fn from_value(value: &Value) -> Result<Self, Vec<ConfigError>> {
        let mistakes = Mistakes::default();
        let config = Object::root(value, &mistakes).map(|root| read(&root));
        match (config, mistakes.into_inner()) {
            (Some(config), mistakes) if mistakes.is_empty() => Ok(config),
            (_, mistakes) => Err(mistakes),
        }
    }
}

fn read(root: &Object<'_>) -> Config {
    let public_keys = root.object("publicKeys");
    let timeout = Duration::from_millis(public_keys.number("timeoutMs"));
    let before = root.mistake_count();
    let (entries, mut key_sources) = load_balancer::read(root, &public_keys, timeout);
    let (load_balancers, entries): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
    let is_sound = before == root.mistake_count();
    let sound = if is_sound {
        load_balancers.as_slice()
    } else {
        &[]
    };

    let inherits = |entry: &Object<'_>| !entry.has("accessToken");
    let with_any_access_token = root.has("accessToken") || !entries.iter().all(inherits);
    let access_token = root.optional_object("accessToken").and_then(|object| {
        let inheriting = sound
            .iter()
            .zip(&entries)
            .filter(|(_, entry)| inherits(entry));
        let load_balancers = inheriting.map(|(load_balancer, _)| load_balancer);
        access_token::read(&object, load_balancers, &mut key_sources, timeout)
    });
    let users = UserRules {
        identity: identity::read(root, with_any_access_token),
        access_token,
    };
    let overrides: Vec<_> = load_balancers
        .iter()
        .zip(&entries)
        .map(|(load_balancer, entry)| {
            let own = entry.optional_object("accessToken").map(|object| {
                let of = is_sound.then_some(load_balancer).into_iter();
                access_token::read(&object, of, &mut key_sources, timeout)
            });
            let with_access_token = root.has("accessToken") || own.is_some();
            let identity = identity::read_override(root, entry, &users.identity, with_access_token);
            (own.is_some() || identity.is_some()).then(|| UserRules {
                identity: identity.unwrap_or_else(|| users.identity.clone()),
                access_token: own.unwrap_or_else(|| users.access_token.clone()),
            })
        })
        .collect();
    let identity_of = |position: usize| {
        let own: Option<&UserRules> = overrides.get(position).and_then(Option::as_ref);
        &own.unwrap_or(&users).identity
    };
    if !root.boolean("sharedNames") && before == root.mistake_count() {
        check_names_are_distinct(&load_balancers, &entries, identity_of);
    }
    let groups: Vec<_> = (0..load_balancers.len().max(1))
        .filter_map(|position| identity_of(position).groups.as_ref())
        .collect();
    let access = rules::read(root, &groups, sound);
    if !root.boolean("sharedNames") {
        check_domains_name_issuers(root, &access, sound);
    }

    let (session_cookies, sign_out) = logout::read(&root.object("logout"));
    let forward = root.object("forward");
    Config {
        load_balancers,
        key_sources,
        key_ttl: Duration::from_secs(public_keys.number("cacheTtlSeconds")),
        clock_skew: Duration::from_secs(root.number("clockSkewSeconds")),
        access,
        users,
        overrides,
        upgrades: upgrades::read(root),
        reserved_headers: headers::read_reserved_headers(root),
        forward: Forward {
            oidc_data: forward.boolean("oidcData"),
            access_token: forward.boolean("accessToken"),
            session_cookies: forward.boolean("sessionCookies"),
            path_overrides: forward.boolean("pathOverrides"),
        },
        session_cookies,
        sign_out,
        pages: pages::read(&root.object("pages")),
        log_user: root.object("accessLog").boolean("user"),
        report_only: root.string("mode") == "report",
    }
}

/// Whether the users of both have one issuer. `null` is any issuer.
fn have_one_issuer(one: &LoadBalancer, two: &LoadBalancer) -> bool {
    one.issuer.is_some() && one.issuer == two.issuer
}

/// Adds a mistake for each load balancer whose users or groups could have the names of users or
/// groups of another issuer.
fn check_names_are_distinct<'r>(
    load_balancers: &[LoadBalancer],
    entries: &[Object<'_>],
    identity_of: impl Fn(usize) -> &'r IdentityRules,
) {
    for (second, (load_balancer, entry)) in load_balancers.iter().zip(entries).enumerate() {
        for (first, earlier) in load_balancers.iter().take(second).enumerate() {
            let (one, two) = (identity_of(first), identity_of(second));
            let users = (&one.user_id.prefix, &two.user_id.prefix);
            let groups = one.groups.as_ref().zip(two.groups.as_ref());
            let groups = groups.map(|(one, two)| (&one.prefix, &two.prefix));
            let prefixes = [Some(("userId", users)), groups.map(|pair| ("groups", pair))];
            let clash = prefixes.into_iter().flatten().find(|(_, (one, two))| {
                one.starts_with(two.as_str()) || two.starts_with(one.as_str())
            });
            if let Some((field, (one, two))) =
                clash.filter(|_| !have_one_issuer(earlier, load_balancer))
            {
                let expected = format!(
                    "a prefix that neither begins with {} nor is its beginning, as users of another issuer have it; or `sharedNames: true`",
                    quoted(one)
                );
                entry.mistake(&format!("{field}.prefix"), &quoted(two), &expected);
                break;
            }
        }
    }
}

/// With load balancers of several issuers, adds a mistake for each rule that allows email domains
/// of any of them.
fn check_domains_name_issuers(
    root: &Object<'_>,
    access: &AccessRules,
    load_balancers: &[LoadBalancer],
) {
    let mut pairs = load_balancers.iter().skip(1).zip(load_balancers);
    if pairs.all(|(one, two)| have_one_issuer(one, two)) {
        return;
    }
    for (position, rule) in access.rules.iter().enumerate() {
        if let Access::Allow(allow) = &rule.access
            && !allow.domains.is_empty()
            && rule.issuers.is_empty()
        {
            root.requirement(
                &format!("rules[{position}].allow.domains"),
                "`match.issuers`, as each issuer writes email addresses of its own; or `sharedNames: true`",
            );
        }
    }
}

#[cfg(test)]
mod tests;
