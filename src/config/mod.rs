//! `pluginConfig`: JSON in, a checked [`Config`] out, or every mistake in it by the path of its
//! field. Nothing here may guess: an unknown field, a wrong type and a value out of bounds are
//! errors.

mod access;
mod access_token;
mod endpoint;
mod headers;
mod identity;
pub(crate) mod json_schema;
mod load_balancer;
mod logout;
mod reader;
pub(crate) mod reference;
mod upgrades;

use std::time::Duration;

use serde_json::Value;

use crate::access::rules::AccessRules;
use crate::identity::IdentityRules;
use crate::json;
use crate::keys::source::{KeySource, KeySourceId};
use crate::sign_out::SignOut;
use crate::token::access::AccessTokenRules;
use crate::token::alb::LoadBalancer;
use crate::upgrades::Upgrades;
pub use reader::ConfigError;
use reader::{Mistakes, Object};

/// The largest `pluginConfig` that is read, in bytes.
pub const MAX_CONFIG_BYTES: usize = 256 * 1024;

const MAX_CONFIG_DEPTH: usize = 8;

/// A checked plugin config.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose tokens are trusted. At least one.
    pub load_balancers: Vec<LoadBalancer>,
    /// Where keys are published: those of the load balancers, then that of access tokens.
    /// [`KeySourceId`] is the position.
    pub key_sources: Vec<KeySource>,
    /// How long a fetched key is used before it must be fetched again.
    pub key_ttl: Duration,
    /// How far the clocks of gateway and load balancer may be apart.
    pub clock_skew: Duration,
    /// How claims become an identity, and the headers that carry it.
    pub identity: IdentityRules,
    /// Whose access tokens are read; `None`: none.
    pub access_token: Option<AccessTokenRules>,
    /// Which requests need a token, and who may pass.
    pub access: AccessRules,
    /// Which protocol upgrades requests may ask for.
    pub upgrades: Upgrades,
    /// Headers that no client may send, in lower case: they are removed from every request, with
    /// their aliases.
    pub reserved_headers: Vec<String>,
    /// What upstream may see beside the user id.
    pub forward: Forward,
    /// What the names of the ALB's session cookies begin with.
    pub session_cookie: String,
    /// Sign-out at the gateway.
    pub sign_out: Option<SignOut>,
    /// Whether a request that would be denied is let pass, without identity, and only counted and
    /// logged.
    pub report_only: bool,
}

/// `forward`: which of the ALB's own headers and cookies upstream may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// `x-amzn-oidc-data`, and `x-amzn-oidc-identity` where it is the verified `sub`.
    pub oidc_data: bool,
    /// `x-amzn-oidc-accesstoken`, which is verified only where [`Config::access_token`] says whose.
    pub access_token: bool,
    /// The cookies that hold the ALB's session.
    pub session_cookies: bool,
    /// A client's headers by which an application takes another path or method than those that the
    /// rules saw.
    pub path_overrides: bool,
}

impl Config {
    /// Reads `pluginConfig` as Envoy hands it over.
    ///
    /// # Errors
    /// Every mistake that was found, not only the first.
    pub fn parse(text: &[u8]) -> Result<Self, Vec<ConfigError>> {
        if text.len() > MAX_CONFIG_BYTES {
            let expected = format!("at most {MAX_CONFIG_BYTES} bytes");
            return Err(vec![ConfigError::new(
                "",
                format!("{} bytes", text.len()),
                expected,
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
                format!("text that is not strict JSON: {error}"),
                "a JSON object",
            )]
        })?;
        Self::from_value(&value)
    }

    /// Where the keys of this source are published.
    pub fn key_source(&self, id: KeySourceId) -> Option<&KeySource> {
        self.key_sources.get(id.0)
    }

    /// Reads `pluginConfig` that has been parsed already.
    ///
    /// # Errors
    /// Every mistake that was found, not only the first.
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
    let (load_balancers, mut key_sources) = load_balancer::read(root, &public_keys, timeout);
    let access_token = root
        .optional_object("accessToken")
        .and_then(|entry| access_token::read(&entry, &load_balancers, &mut key_sources, timeout));

    let (session_cookie, sign_out) = logout::read(&root.object("logout"));
    let forward = root.object("forward");
    Config {
        load_balancers,
        key_sources,
        key_ttl: Duration::from_secs(public_keys.number("cacheTtlSeconds")),
        clock_skew: Duration::from_secs(root.number("clockSkewSeconds")),
        access: access::read(root),
        identity: identity::read(root),
        access_token,
        upgrades: upgrades::read(root),
        reserved_headers: headers::read_reserved_headers(root),
        forward: Forward {
            oidc_data: forward.boolean("oidcData"),
            access_token: forward.boolean("accessToken"),
            session_cookies: forward.boolean("sessionCookies"),
            path_overrides: forward.boolean("pathOverrides"),
        },
        session_cookie,
        sign_out,
        report_only: root.string("mode") == "report",
    }
}

#[cfg(test)]
mod tests {
    use super::reference::{FIELDS, Kind, children};
    use super::*;
    use crate::keys::source::KeyFormat;
    use serde_json::json;

    const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/kubeflow/50dc6c495c0c9188";

    fn with(change: impl FnOnce(&mut Value)) -> Value {
        let mut config = json!({"loadBalancers": [{"arn": ARN, "issuer": "https://issuer.example", "clientId": "client"}]});
        change(&mut config);
        config
    }

    fn mistakes_in(text: &str) -> Vec<String> {
        Config::parse(text.as_bytes())
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn mistakes(config: &Value) -> Vec<String> {
        Config::from_value(config)
            .err()
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn load_balancers_alone_are_enough_and_the_rest_has_defaults() {
        let config = Config::from_value(&with(|_| {})).unwrap();
        assert_eq!(
            config.key_sources,
            [KeySource {
                cluster: "outbound|443||public-keys.auth.elb.us-west-2.amazonaws.com".to_owned(),
                authority: "public-keys.auth.elb.us-west-2.amazonaws.com".to_owned(),
                path: "/".to_owned(),
                format: KeyFormat::Pem,
                timeout: Duration::from_millis(1000),
            }]
        );
        assert_eq!(
            (config.key_ttl, config.clock_skew),
            (Duration::from_secs(86400), Duration::from_secs(30))
        );
        assert_eq!(config.identity.user_id_header, "kubeflow-userid");
        assert_eq!(config.identity.user_id.claims, ["email"]);
        assert_eq!(
            config.forward,
            Forward {
                oidc_data: false,
                access_token: false,
                session_cookies: false,
                path_overrides: false
            }
        );
    }

    #[test]
    fn each_region_has_its_key_server_and_govcloud_its_bucket() {
        let config = with(|config| {
            config["loadBalancers"] = json!([
                {"arn": ARN, "issuer": null, "clientId": null},
                {"arn": ARN.replace("us-west-2", "eu-central-1"), "issuer": null, "clientId": null},
                {"arn": ARN.replace("arn:aws:", "arn:aws-us-gov:").replace("us-west-2", "us-gov-east-1"), "issuer": null, "clientId": null},
                {"arn": ARN.replace("kubeflow", "second"), "issuer": null, "clientId": null},
            ]);
        });
        let config = Config::from_value(&config).unwrap();
        let sources: Vec<_> = config
            .key_sources
            .iter()
            .map(|source| format!("{} {}", source.authority, source.path))
            .collect();
        assert_eq!(
            sources,
            [
                "public-keys.auth.elb.us-west-2.amazonaws.com /",
                "public-keys.auth.elb.eu-central-1.amazonaws.com /",
                "s3-us-gov-east-1.amazonaws.com /aws-elb-public-keys-prod-us-gov-east-1/",
            ]
        );
        assert_eq!(config.load_balancers[3].key_source, KeySourceId(0));
    }

    #[test]
    fn an_endpoint_stands_in_for_the_derived_one_and_names_its_cluster() {
        let config = Config::from_value(&with(|config| {
            config["publicKeys"] = json!({"endpoint": "http://keys.test:8080/a/b/"})
        }))
        .unwrap();
        let source = &config.key_sources[0];
        assert_eq!(
            (
                source.cluster.as_str(),
                source.authority.as_str(),
                source.path.as_str()
            ),
            ("outbound|8080||keys.test", "keys.test:8080", "/a/b/")
        );
    }

    #[test]
    fn access_tokens_have_their_keys_where_cognito_has_them_unless_told_otherwise() {
        let source = |access_token: Value| {
            let config =
                Config::from_value(&with(|config| config["accessToken"] = access_token)).unwrap();
            let source = config.key_sources[config.access_token.unwrap().key_source.0].clone();
            (source.cluster, source.authority, source.path)
        };
        let expected = |cluster: &str, authority: &str, path: &str| {
            (cluster.to_owned(), authority.to_owned(), path.to_owned())
        };
        let issuer = "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE";
        assert_eq!(
            source(json!({"issuer": issuer})),
            expected(
                "outbound|443||cognito-idp.us-west-2.amazonaws.com",
                "cognito-idp.us-west-2.amazonaws.com",
                "/us-west-2_EXAMPLE/.well-known/jwks.json"
            )
        );
        assert_eq!(
            source(
                json!({"issuer": "any text", "jwksUri": "https://idp.test:8443/oauth2/v1/keys", "jwksCluster": "idp"})
            ),
            expected("idp", "idp.test:8443", "/oauth2/v1/keys")
        );
        for (uri, path) in [
            ("https://idp.test", "/"),
            ("https://idp.test/", "/"),
            ("https://idp.test/keys/", "/keys/"),
        ] {
            let source =
                source(json!({"issuer": "any text", "jwksUri": uri, "jwksCluster": "idp"}));
            assert_eq!(source, expected("idp", "idp.test", path), "{uri}");
        }
    }

    #[test]
    fn access_tokens_are_read_beside_load_balancers_of_one_issuer_only() {
        let of_issuers = |issuers: [Value; 2]| {
            mistakes(&with(|config| {
                let [first, second] = issuers;
                config["loadBalancers"] = json!([
                    {"arn": ARN, "issuer": first, "clientId": null},
                    {"arn": ARN.replace("us-west-2", "us-east-1"), "issuer": second, "clientId": null},
                ]);
                config["accessToken"] = json!({"issuer": "https://idp.test"});
            }))
        };
        assert_eq!(
            of_issuers([json!("https://idp.test"), json!("https://idp.test")]),
            [""; 0]
        );
        for (first, second, found) in [
            (
                json!("https://idp.test"),
                json!("https://partners.test"),
                "several issuers",
            ),
            (json!("https://idp.test"), Value::Null, "several issuers"),
            (Value::Null, Value::Null, "any issuer"),
        ] {
            assert_eq!(
                of_issuers([first, second]),
                [format!(
                    "accessToken: found `loadBalancers` of {found} beside it, expected one: a `sub` names the same user with one issuer only"
                )]
            );
        }
    }

    #[test]
    fn each_mistake_is_named_by_its_field_what_it_held_and_what_it_may_hold() {
        for (pointer, value, expected) in [
            (
                "/userId",
                json!({"headr": "x"}),
                "userId.headr: found an unknown field, expected one of: claims, header, prefix, lowercase, requireVerifiedEmail, transformers",
            ),
            (
                "/accessToken",
                json!({"issuer": "idp"}),
                "accessToken.issuer: found \"idp\", expected an http or https URL",
            ),
            (
                "/accessToken",
                json!({"issuer": "idp", "jwksUri": "idp/keys"}),
                "accessToken.jwksUri: found \"idp/keys\", expected an http or https URL",
            ),
            (
                "/groups",
                json!({"claims": ["access:cognito:groups"]}),
                "groups.claims[0]: found \"access:cognito:groups\", expected `accessToken` beside a claim of the access token",
            ),
            (
                "/userId",
                json!({"claims": ["email", "access:email"], "requireVerifiedEmail": true}),
                "userId.requireVerifiedEmail: found true beside a claim of the access token, expected `userId.claims` of the load",
            ),
            (
                "/claimHeaders",
                json!([{"claim": "access:", "header": "x-a"}]),
                "claimHeaders[0].claim: found \"access:\", expected a claim's name of 1 to 128 bytes",
            ),
            (
                "/loadBalancer",
                json!([]),
                "loadBalancer: found an unknown field, expected one of: loadBalancers, publicKeys, clockSkewSeconds, userId, groups, claimHeaders, accessToken, rules, logout, upgrades, reservedHeaders, forward, mode",
            ),
            (
                "/upgrades",
                json!(["websocket", "a, b"]),
                "upgrades[1]: found \"a, b\", expected a protocol of at most 64 bytes, such as \"websocket\" or \"SPDY/3.1\", or \"connect\"",
            ),
            (
                "/claimHeaders",
                json!([{"claim": "custom:x", "header": "X-Original_URL"}]),
                "claimHeaders[0].header: found \"x-original_url\", expected a header from which no application takes the path",
            ),
            (
                "/reservedHeaders",
                json!(["x-machine-client", "Cookie", "X-Forwarded-Prefix"]),
                "reservedHeaders[1]: found \"Cookie\", expected a header that neither HTTP, Envoy nor the ALB gives a meaning",
            ),
            (
                "/userId",
                json!({"prefix": "system:serviceaccount:"}),
                "userId.prefix: found \"system:serviceaccount:\", expected a prefix without \"system:\" at its start",
            ),
            (
                "/groups",
                json!({"prefix": "system:"}),
                "groups.prefix: found \"system:\", expected a prefix without \"system:\" at its start",
            ),
            (
                "/rules",
                json!([{"allow": {"users": ["ann", "system:admin"]}}]),
                "rules[0].allow.users[1]: found \"system:admin\", expected a name without \"system:\" at its start",
            ),
            (
                "/loadBalancers",
                json!([]),
                "loadBalancers: found an array of 0, expected an array of 1 to 64 objects",
            ),
            (
                "/loadBalancers",
                json!({}),
                "loadBalancers: found an object, expected an array of 1 to 64 objects",
            ),
            (
                "/loadBalancers/0/arn",
                json!(
                    "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/net/x/50dc6c495c0c9188"
                ),
                "loadBalancers[0].arn: found \"arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/net/x/50dc6c495c0c9188\", expected an Application Load Balancer's ARN",
            ),
            (
                "/loadBalancers/0/arn",
                json!(ARN.replace("arn:aws:", "arn:aws-cn:")),
                "`publicKeys.endpoint`",
            ),
            (
                "/loadBalancers/0/issuer",
                json!(1),
                "loadBalancers[0].issuer: found 1, expected a string of 1 to 512 bytes, or null for any",
            ),
            (
                "/publicKeys",
                json!({"endpoint": "ftp://x"}),
                "publicKeys.endpoint: found \"ftp://x\", expected an http or https URL",
            ),
            (
                "/publicKeys",
                json!({"timeoutMs": 99}),
                "publicKeys.timeoutMs: found 99, expected a whole number from 100 to 10000",
            ),
            (
                "/publicKeys",
                json!({"timeoutMs": "1"}),
                "publicKeys.timeoutMs: found \"1\", expected a whole number from 100 to 10000",
            ),
            (
                "/clockSkewSeconds",
                json!(301),
                "clockSkewSeconds: found 301, expected a whole number from 0 to 300",
            ),
            (
                "/clockSkewSeconds",
                json!(-1),
                "clockSkewSeconds: found -1,",
            ),
            (
                "/clockSkewSeconds",
                json!(1.5),
                "clockSkewSeconds: found 1.5,",
            ),
            (
                "/userId",
                json!({"claims": []}),
                "userId.claims: found an array of 0, expected an array of 1 to 16 strings",
            ),
            (
                "/userId",
                json!({"claims": "email"}),
                "userId.claims: found \"email\", expected an array of 1 to 16 strings",
            ),
            (
                "/userId",
                json!({"claims": ["email", 2]}),
                "userId.claims[1]: found 2, expected a string",
            ),
            (
                "/userId",
                json!({"claims": ["a", "a"]}),
                "userId.claims[1]: found \"a\", expected each claim once",
            ),
            (
                "/userId",
                json!({"header": ":path"}),
                "userId.header: found \":path\", expected a header name",
            ),
            (
                "/userId",
                json!({"header": "Host"}),
                "userId.header: found \"Host\", expected a header that neither",
            ),
            (
                "/userId",
                json!({"header": "x-amzn-oidc-data"}),
                "userId.header: found \"x-amzn-oidc-data\", expected a header that neither",
            ),
            (
                "/userId",
                json!({"header": "x_amzn_oidc_data"}),
                "userId.header: found \"x_amzn_oidc_data\", expected a header that neither",
            ),
            (
                "/userId",
                json!({"lowercase": "yes"}),
                "userId.lowercase: found \"yes\", expected true or false",
            ),
            (
                "/userId",
                json!({"prefix": "a\nb"}),
                "userId.prefix: found \"a\\nb\", expected printable ASCII",
            ),
            (
                "/userId",
                json!({"transformers": [{"matches": "(", "replaces": ""}]}),
                "userId.transformers[0].matches: found \"(\", which is no regex: ",
            ),
            (
                "/userId",
                json!({"transformers": [{"matches": "a"}]}),
                "userId.transformers[0].replaces: found nothing, expected a string of 0 to 320 bytes",
            ),
            (
                "/userId",
                json!({"transformers": [{"matches": "a{1000}{1000}", "replaces": ""}]}),
                "userId.transformers[0].matches: found ",
            ),
            (
                "/rules",
                json!([{"match": {"paths": [{"prefix": "a"}]}}]),
                "rules[0].match.paths[0].prefix: found \"a\", expected a path that begins with `/`",
            ),
            (
                "/rules",
                json!([{"match": {"paths": [{}]}}]),
                "rules[0].match.paths[0]: found 0 of them, expected one of: exact, prefix, suffix, regex",
            ),
            (
                "/rules",
                json!([{"match": {"paths": [{"regex": "^/a$"}, {"regex": "[^/]{1,1000}xN"}]}}]),
                " with those before it, expected at most 4096 bytes for all regexes of `rules`",
            ),
            (
                "/rules",
                json!([{"match": {"paths": [{"regex": "("}]}}]),
                "rules[0].match.paths[0].regex: found \"(\", which is no regex",
            ),
            (
                "/rules",
                json!([{"match": {"path": "/"}}]),
                "rules[0].match.path: found an unknown field, expected one of: hosts, paths, methods",
            ),
            (
                "/rules",
                json!([{"match": {"hosts": ["*"]}}]),
                "rules[0].match.hosts[0]: found \"*\", expected a name",
            ),
            (
                "/rules",
                json!([{"match": {"methods": ["get"]}}]),
                "rules[0].match.methods[0]: found \"get\", expected a method in upper case",
            ),
            (
                "/rules",
                json!([{"require": "nothing"}]),
                "rules[0].require: found \"nothing\", expected \"none\" or \"token\"",
            ),
            (
                "/rules",
                json!([{"allow": {}}]),
                "rules[0].allow: found nobody, expected a user, domain or group",
            ),
            (
                "/rules",
                json!([{"allow": {"groups": ["a"]}}]),
                "rules[0].allow.groups: found groups, expected none, or `groups`",
            ),
            (
                "/rules",
                json!([{"require": "none", "allow": {"users": ["a"]}}]),
                "rules[0].allow: found an object, expected no `allow`",
            ),
            (
                "/groups",
                json!({"header": "kubeflow_userid"}),
                "the header \"kubeflow-userid\" twice",
            ),
            (
                "/groups",
                json!({"header": "kubeflow.userid"}),
                "the header \"kubeflow-userid\" twice",
            ),
            (
                "/groups",
                json!({"memberHeaderPrefix": "x_group_"}),
                "groups.memberHeaderPrefix: found \"x_group_\", expected a prefix",
            ),
            (
                "/groups",
                json!({"memberHeaderPrefix": "x-group."}),
                "groups.memberHeaderPrefix: found \"x-group.\", expected a prefix",
            ),
            (
                "/groups",
                json!({"memberHeaderPrefix": "kubeflow-"}),
                "groups.memberHeaderPrefix: found \"kubeflow-\", expected a prefix",
            ),
            (
                "/claimHeaders",
                json!([{"claim": "name", "header": "x-request-id"}]),
                "claimHeaders[0].header: found \"x-request-id\", expected a header that neither",
            ),
            (
                "/logout",
                json!({"path": "/logout"}),
                "logout.redirectTo: found nothing, expected `redirectTo` beside `path`",
            ),
            (
                "/logout",
                json!({"redirectTo": "https://id.example.com/"}),
                "logout.path: found nothing, expected `path` beside `redirectTo`",
            ),
            (
                "/logout",
                json!({"path": "/a\"><script>", "redirectTo": "https://id.example.com/"}),
                "logout.path: found \"/a\\\"><script>\", expected a path that begins with `/`, of letters",
            ),
            (
                "/logout",
                json!({"path": "/", "redirectTo": "https://id.example.com/"}),
                "logout.path: found \"/\",",
            ),
            (
                "/logout",
                json!({"path": "/a?b", "redirectTo": "https://id.example.com/"}),
                "logout.path: found \"/a?b\",",
            ),
            (
                "/logout",
                json!({"path": "/logout", "redirectTo": "http://id.example.com/"}),
                "logout.redirectTo: found \"http://id.example.com/\", expected an absolute https URL",
            ),
            (
                "/logout",
                json!({"sessionCookie": "a b"}),
                "logout.sessionCookie: found \"a b\", expected a cookie name",
            ),
            (
                "/mode",
                json!("warn"),
                "mode: found \"warn\", expected \"enforce\" or \"report\"",
            ),
            (
                "/forward",
                json!(true),
                "forward: found true, expected an object",
            ),
            (
                "/forward",
                json!({"oidcdata": true}),
                "forward.oidcdata: found an unknown field, expected one of: oidcData, accessToken, sessionCookies",
            ),
        ] {
            let config = with(|config| match config.pointer_mut(pointer) {
                Some(place) => *place = value.clone(),
                None => config[pointer.trim_start_matches('/')] = value.clone(),
            });
            let found = mistakes(&config);
            assert!(
                found.iter().any(|mistake| mistake.contains(expected)),
                "{expected}\n  found: {found:#?}"
            );
        }
    }

    #[test]
    fn reserves_forwarded_headers_that_no_proxy_reads() {
        let reserve =
            |name: &str| mistakes(&with(|config| config["reservedHeaders"] = json!([name])));
        assert_eq!(reserve("X-Forwarded-Prefix"), [""; 0]);
        for name in [
            "x-forwarded-for",
            "X-Forwarded-Proto",
            "x-forwarded-client-cert",
            "authorization",
        ] {
            assert_eq!(reserve(name).len(), 1, "{name}");
        }
    }

    #[test]
    fn compiles_no_further_regex_once_they_are_too_large() {
        let rules = |regexes: &[&str]| {
            let paths: Vec<_> = regexes
                .iter()
                .map(|regex| json!({"regex": regex}))
                .collect();
            mistakes(&with(|config| {
                config["rules"] = json!([{"match": {"paths": paths}, "require": "none"}])
            }))
        };
        let found = rules(&["^/a$", "[a-z]{500}", "("]);
        assert!(
            found.len() == 1 && found[0].starts_with("rules[0].match.paths[1].regex: found"),
            "{found:?}"
        );
        // Not one that is cut short after 256 KiB each, hundreds of times.
        let found = rules(&["(?:a{100}){200}"; 60]);
        assert!(found.len() < 12, "{} mistakes", found.len());
        assert_eq!(
            rules(&["^/v[0-9]+/ready$", "^/(health|ready)z?$", r"\.(css|js)$"]),
            [""; 0]
        );
    }

    #[test]
    fn required_fields_are_named_when_they_are_missing() {
        assert!(mistakes(&json!({})).contains(
            &"loadBalancers: found nothing, expected an array of 1 to 64 objects".to_owned()
        ));
        let found = mistakes(&json!({"loadBalancers": [{}]}));
        for field in ["arn", "issuer", "clientId"] {
            assert!(
                found.iter().any(|mistake| mistake.starts_with(&format!(
                    "loadBalancers[0].{field}: found nothing, expected "
                ))),
                "{found:?}"
            );
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let config = with(|config| {
            config["clockSkewSeconds"] = json!("x");
            config["userId"] = json!({"lowercase": 1, "header": ""});
        });
        assert_eq!(mistakes(&config).len(), 3);
    }

    /// An object with an unknown field, and with `leaf` in every field that holds neither an object
    /// nor objects.
    fn filled(parent: &str, leaf: &Value) -> Value {
        let fields = children(parent).map(|field| {
            let value = match field.kind {
                Kind::Object => filled(field.path, leaf),
                Kind::Objects { .. } => json!([filled(field.path, leaf)]),
                _ => leaf.clone(),
            };
            (field.name().to_owned(), value)
        });
        fields.chain([("unknown".to_owned(), json!(1))]).collect()
    }

    #[test]
    fn each_mistake_is_told_once() {
        for leaf in [json!({}), json!(true), json!(7), json!("("), json!(["("])] {
            let found = mistakes(&filled("", &leaf));
            let once: std::collections::BTreeSet<_> = found.iter().collect();
            assert_eq!(found.len(), once.len(), "{leaf}: {found:#?}");
            let unknown = found
                .iter()
                .filter(|mistake| mistake.contains("unknown: found an unknown field"));
            let objects = FIELDS
                .iter()
                .filter(|field| matches!(field.kind, Kind::Object | Kind::Objects { .. }));
            assert_eq!(unknown.count(), objects.count() + 1, "{leaf}: {found:#?}");
        }
    }

    #[test]
    fn a_mistake_is_told_in_one_line_whatever_the_config_holds() {
        for spoil in ["a\r\nb", "a\u{85}b", "a\u{7f}b", "\u{1b}[2J"] {
            let config = with(|config| {
                config[spoil] = json!(1);
                config["userId"] = json!({"header": spoil, "claims": [spoil]});
            });
            let duplicate = format!("{{{0}:1,{0}:1}}", Value::from(spoil));
            let told = [mistakes(&config), mistakes_in(&duplicate)].concat();
            assert!(told.len() > 2, "{told:?}");
            for line in told {
                assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }

    #[test]
    fn text_that_is_no_strict_json_is_refused() {
        for text in [
            "",
            "  ",
            "{",
            "[]",
            "null",
            r#"{"loadBalancers":[],"loadBalancers":[]}"#,
        ] {
            assert!(Config::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Config::parse(&vec![b' '; MAX_CONFIG_BYTES + 1]).is_err());
    }
}
