//! Tests of the parser: defaults, and the mistake that each bad value gives.

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
fn load_balancers_are_enough() {
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
    assert_eq!(config.users.identity.user_id_header, "kubeflow-userid");
    assert_eq!(config.users.identity.user_id.claims, ["email"]);
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
fn derives_key_server_from_region_and_partition() {
    let config = with(|config| {
        config["loadBalancers"] = json!([
            {"arn": ARN, "issuer": null, "clientId": null},
            {"arn": ARN.replace("us-west-2", "eu-central-1"), "issuer": null, "clientId": null},
            {"arn": ARN.replace("arn:aws:", "arn:aws-us-gov:").replace("us-west-2", "us-gov-east-1"), "issuer": null, "clientId": null},
            {"arn": ARN.replace("kubeflow", "second"), "issuer": null, "clientId": null},
        ]);
        config["sharedNames"] = json!(true);
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
fn endpoint_replaces_the_derived_one() {
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
fn derives_jwks_uri_from_issuer() {
    let source = |access_token: Value| {
        let config =
            Config::from_value(&with(|config| config["accessToken"] = access_token)).unwrap();
        let source = config.key_sources[config.users.access_token.unwrap().key_source.0].clone();
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
        let source = source(json!({"issuer": "any text", "jwksUri": uri, "jwksCluster": "idp"}));
        assert_eq!(source, expected("idp", "idp.test", path), "{uri}");
    }
}

#[test]
fn access_token_requires_one_issuer() {
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
            "2 issuers",
        ),
        (json!("https://idp.test"), Value::Null, "`issuer: null`"),
        (Value::Null, Value::Null, "`issuer: null`"),
    ] {
        assert_eq!(
            of_issuers([first, second]),
            [format!(
                "accessToken requires all `loadBalancers` to have the same issuer (found {found}), or an `accessToken` of their own"
            )]
        );
    }
}

#[test]
fn verified_email_excludes_access_token_claims() {
    let config = with(|config| {
        config["accessToken"] = json!({"issuer": "https://issuer.example"});
        config["userId"] =
            json!({"claims": ["email", "access:email"], "requireVerifiedEmail": true});
    });
    assert_eq!(
        mistakes(&config),
        [
            "userId.requireVerifiedEmail cannot be combined with the claim \"access:email\": `email_verified` covers only the load balancer's token"
        ]
    );
}

#[test]
fn reports_field_found_and_expected_value_once() {
    for (pointer, value, expected) in [
        (
            "/userId",
            json!({"headr": "x"}),
            "userId.headr: found an unknown field, expected one of: claims, header, prefix, lowercase, requireVerifiedEmail, provider, transformers",
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
            "groups.claims[0] requires `accessToken`: \"access:cognito:groups\" is a claim of the access token",
        ),
        (
            "/claimHeaders",
            json!([{"claim": "access:", "header": "x-a"}]),
            "claimHeaders[0].claim: found \"access:\", expected a claim name of 1 to 128 bytes",
        ),
        (
            "/loadBalancer",
            json!([]),
            "loadBalancer: found an unknown field, expected one of: loadBalancers, sharedNames, publicKeys, clockSkewSeconds, userId, groups, claimHeaders, accessToken, rules, logout, pages, upgrades, reservedHeaders, forward, accessLog, mode",
        ),
        (
            "/upgrades",
            json!(["websocket", "a, b"]),
            "upgrades[1]: found \"a, b\", expected a protocol of at most 64 bytes, such as \"websocket\" or \"SPDY/3.1\", or \"connect\"",
        ),
        (
            "/claimHeaders",
            json!([{"claim": "custom:x", "header": "X-Original_URL"}]),
            "claimHeaders[0].header: found \"X-Original_URL\", expected a header that no application takes as a path",
        ),
        (
            "/reservedHeaders",
            json!(["x-machine-client", "Cookie", "X-Forwarded-Prefix"]),
            "reservedHeaders[1]: found \"Cookie\", expected a header that HTTP, Envoy and the ALB do not use",
        ),
        (
            "/userId",
            json!({"prefix": "system:serviceaccount:"}),
            "userId.prefix: found \"system:serviceaccount:\", expected a prefix that does not start with \"system:\"",
        ),
        (
            "/groups",
            json!({"prefix": "system:"}),
            "groups.prefix: found \"system:\", expected a prefix that does not start with \"system:\"",
        ),
        (
            "/rules",
            json!([{"allow": {"users": ["ann", "system:admin"]}}]),
            "rules[0].allow.users[1]: found \"system:admin\", expected a name without the prefix \"system:\"",
        ),
        (
            "/loadBalancers",
            json!([]),
            "loadBalancers: found an array of 0 elements, expected an array of 1 to 64 objects",
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
            "loadBalancers[0].arn requires `publicKeys.endpoint`: AWS documents no key server for the partition \"aws-cn\"",
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
            "userId.claims: found an array of 0 elements, expected an array of 1 to 16 strings",
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
            "userId.header: found \"Host\", expected a header that HTTP, Envoy",
        ),
        (
            "/userId",
            json!({"header": "x-amzn-oidc-data"}),
            "userId.header: found \"x-amzn-oidc-data\", expected a header that HTTP, Envoy",
        ),
        (
            "/userId",
            json!({"header": "x_amzn_oidc_data"}),
            "userId.header: found \"x_amzn_oidc_data\", expected a header that HTTP, Envoy",
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
            "userId.transformers[0].matches: found \"(\", expected a regex (",
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
            "rules[0].match.paths[0].prefix: found \"a\", expected a decoded path that begins with `/`",
        ),
        (
            "/rules",
            json!([{"match": {"paths": [{}]}}]),
            "rules[0].match.paths[0]: found 0 patterns, expected exactly one of: exact, prefix, suffix, regex",
        ),
        (
            "/rules",
            json!([{"match": {"paths": [{"regex": "^/a$"}, {"regex": "[^/]{1,1000}xN"}]}}]),
            " in total), expected at most 4096 compiled bytes in total for the regexes of `rules`",
        ),
        (
            "/rules",
            json!([{"match": {"paths": [{"regex": "("}]}}]),
            "rules[0].match.paths[0].regex: found \"(\", expected a regex (",
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
            "rules[0].require: found \"nothing\", expected \"none\" or \"optional\" or \"token\"",
        ),
        (
            "/rules",
            json!([{"allow": {}}]),
            "rules[0].allow: found no entries, expected at least one user, domain or group",
        ),
        (
            "/rules",
            json!([{"allow": {"groups": ["a"]}}]),
            "rules[0].allow.groups requires the top-level field `groups`",
        ),
        (
            "/rules",
            json!([{"require": "none", "allow": {"users": ["a"]}}]),
            "rules[0].allow cannot be combined with `require: none`: ",
        ),
        (
            "/groups",
            json!({"header": "kubeflow_userid"}),
            "groups.header cannot be combined with userId.header: both set \"kubeflow-userid\"",
        ),
        (
            "/groups",
            json!({"header": "kubeflow.userid"}),
            "groups.header cannot be combined with userId.header: both set \"kubeflow-userid\"",
        ),
        (
            "/claimHeaders",
            json!([{"claim": "a", "header": "x-a"}, {"claim": "b", "header": "x_a"}]),
            "claimHeaders[1].header cannot be combined with claimHeaders[0].header: both set \"x-a\"",
        ),
        (
            "/groups",
            json!({"header": "x-team-all", "memberHeaderPrefix": "x-team-"}),
            "groups.memberHeaderPrefix cannot be combined with groups.header: that header would start with \"x-team-\"",
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
            "claimHeaders[0].header: found \"x-request-id\", expected a header that HTTP, Envoy",
        ),
        (
            "/logout",
            json!({"path": "/logout"}),
            "logout.path requires `logout.redirectTo`: sign-out needs both",
        ),
        (
            "/logout",
            json!({"redirectTo": "https://id.example.com/"}),
            "logout.redirectTo requires `logout.path`: sign-out needs both",
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
            "/logout",
            json!({"sessionCookie": ["a", "b=c"]}),
            "logout.sessionCookie[1]: found \"b=c\", expected a cookie name",
        ),
        (
            "/logout",
            json!({"sessionCookie": ["a", ""]}),
            "logout.sessionCookie[1]: found \"\", expected a string of 1 to 64 bytes",
        ),
        (
            "/logout",
            json!({"sessionCookie": []}),
            "logout.sessionCookie: found an array of 0 elements, expected a string of 1 to 64 bytes, or an array of 1 to 8 of them",
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
            found.len() == 1 && found[0].contains(expected),
            "{expected}\n  found: {found:#?}"
        );
    }
}

#[test]
fn reserves_only_unused_forwarded_headers() {
    let reserve = |name: &str| mistakes(&with(|config| config["reservedHeaders"] = json!([name])));
    assert_eq!(reserve("X-Forwarded-Prefix"), [""; 0]);
    for name in [
        "x-forwarded-for",
        "X-Forwarded-Proto",
        "x-forwarded-client-cert",
        "authorization",
        "x forwarded-user",
        "x-forwarded-user:",
    ] {
        assert_eq!(reserve(name).len(), 1, "{name}");
    }
}

#[test]
fn allows_client_certificate_headers_to_be_stripped_only() {
    let reserve = |name: &str| mistakes(&with(|config| config["reservedHeaders"] = json!([name])));
    assert_eq!(reserve("X-Amzn-Mtls-Clientcert-Subject"), [""; 0]);
    assert_eq!(reserve("x-amzn-mtls").len(), 1);
    assert_eq!(reserve("x-amzn-trace-id").len(), 1);
    assert_eq!(reserve("x-amzn-mtls-a b").len(), 1);
    let user = |config: &mut Value| config["userId"] = json!({"header": "x-amzn-mtls-user"});
    assert_eq!(mistakes(&with(user)).len(), 1);
}

#[test]
fn identities_may_use_forwarded_headers_that_applications_read() {
    let carried = |name: &str| {
        let user = mistakes(&with(|config| config["userId"] = json!({"header": name})));
        let claim = mistakes(&with(|config| {
            config["claimHeaders"] = json!([{"claim": "name", "header": name}]);
        }));
        assert_eq!(user.len(), claim.len(), "{user:?} {claim:?}");
        user
    };
    for name in ["user", "email", "groups", "preferred-username", "Name"] {
        assert_eq!(carried(&format!("X-Forwarded-{name}")), [""; 0], "{name}");
    }
    for name in [
        "for",
        "proto",
        "host",
        "port",
        "client-cert",
        "prefix",
        "uri",
        "user:",
    ] {
        assert_eq!(carried(&format!("x-forwarded-{name}")).len(), 1, "{name}");
        assert_eq!(carried(&format!("x_forwarded_{name}")).len(), 1, "{name}");
    }
}

fn of_two(first: &Value, second: &Value) -> Value {
    let entry = |issuer: &str, client: &str, change: &Value| {
        let mut entry = json!({"arn": ARN, "issuer": issuer, "clientId": client});
        for (name, value) in change.as_object().unwrap() {
            entry[name] = value.clone();
        }
        entry
    };
    json!({"loadBalancers": [
        entry("https://one.example", "client", first),
        entry("https://two.example", "client", second),
    ]})
}

#[test]
fn users_of_two_issuers_have_distinct_names_unless_shared() {
    let prefix = |prefix: &str| json!({"userId": {"prefix": prefix}});
    for (one, two) in [
        ("", ""),
        ("", "b:"),
        ("a:", "a:"),
        ("a:", "a:b"),
        ("a:b", "a:"),
    ] {
        let mut config = of_two(&prefix(one), &prefix(two));
        let found = mistakes(&config);
        assert!(
            found.len() == 1 && found[0].starts_with("loadBalancers[1].userId.prefix: found"),
            "{one:?}, {two:?}: {found:?}"
        );
        config["sharedNames"] = json!(true);
        assert_eq!(mistakes(&config), [""; 0]);
    }
    let mut config = of_two(&prefix("a:"), &prefix("b:"));
    assert_eq!(mistakes(&config), [""; 0]);
    // Groups of the two must not have one name, either.
    config["groups"] = json!({});
    assert_eq!(mistakes(&config).len(), 1);
    config["loadBalancers"][0]["groups"] = json!({"prefix": "a:"});
    config["loadBalancers"][1]["groups"] = json!({"prefix": "b:"});
    assert_eq!(mistakes(&config), [""; 0]);
    // Email domains have no prefix.
    config["rules"] = json!([{"allow": {"domains": ["example.com"]}}]);
    let found = mistakes(&config);
    assert!(
        found.len() == 1 && found[0].starts_with("rules[0].allow.domains requires `match.issuers`"),
        "{found:?}"
    );
    config["rules"][0]["match"] = json!({"issuers": ["https://one.example"]});
    assert_eq!(mistakes(&config), [""; 0]);
    config["loadBalancers"][1]["issuer"] = json!(null);
    let found = mistakes(&config);
    assert!(
        found.len() == 1 && found[0].starts_with("rules[0].match.issuers cannot be combined with"),
        "{found:?}"
    );
    // `null` is any issuer: two of them are not one.
    config = of_two(
        &json!({"issuer": null, "clientId": "one"}),
        &json!({"issuer": null, "clientId": "two"}),
    );
    let found = mistakes(&config);
    assert!(
        found.len() == 1 && found[0].starts_with("loadBalancers[1].userId.prefix: found"),
        "{found:?}"
    );
    config["loadBalancers"][0]["userId"] = json!({"prefix": "a:"});
    config["loadBalancers"][1]["userId"] = json!({"prefix": "b:"});
    config["rules"] = json!([{"allow": {"domains": ["example.com"]}}]);
    let found = mistakes(&config);
    assert!(
        found.len() == 1 && found[0].starts_with("rules[0].allow.domains requires `match.issuers`"),
        "{found:?}"
    );
    // Two entries of one issuer have the same users.
    config = of_two(
        &json!({}),
        &json!({"issuer": "https://one.example", "clientId": "other"}),
    );
    assert_eq!(mistakes(&config), [""; 0]);
}

#[test]
fn overrides_replace_the_fields_that_they_have() {
    let mut config = of_two(
        &json!({"userId": {"prefix": "a:"}, "groups": {"prefix": "a:", "keep": "^x"}}),
        &json!({"userId": {"prefix": "b:", "claims": ["sub"]}, "accessToken": {"issuer": "https://two.example"}}),
    );
    config["userId"] = json!({"lowercase": true, "header": "x-user"});
    let config = Config::from_value(&config).unwrap();
    let (one, two) = (config.users_of(0), config.users_of(1));
    let user_id = |users: &UserRules| {
        let rules = &users.identity.user_id;
        (rules.claims.clone(), rules.prefix.clone(), rules.lowercase)
    };
    let owned = |claim: &str, prefix: &str| (vec![claim.to_owned()], prefix.to_owned(), true);
    assert_eq!(user_id(one), owned("email", "a:"));
    assert_eq!(user_id(two), owned("sub", "b:"));
    assert_eq!(two.identity.user_id_header, "x-user");
    let groups = one.identity.groups.as_ref().unwrap();
    assert_eq!(
        (groups.header.as_str(), groups.prefix.as_str()),
        ("kubeflow-groups", "a:")
    );
    assert!(two.identity.groups.is_none());
    assert!(one.access_token.is_none() && two.access_token.is_some());
    assert_eq!(
        two.access_token.as_ref().unwrap().key_source,
        KeySourceId(1)
    );
}

#[test]
fn overrides_cannot_change_headers_or_use_absent_access_tokens() {
    for (change, expected) in [
        (
            json!({"userId": {"prefix": "b:", "header": "x-b"}}),
            "loadBalancers[1].userId.header: found an unknown field",
        ),
        (
            json!({"userId": {"prefix": "b:"}, "groups": {"memberHeaderPrefix": "x-"}}),
            "loadBalancers[1].groups.memberHeaderPrefix: found an unknown field",
        ),
        (
            json!({"userId": {"prefix": "b:", "claims": ["access:sub"]}}),
            "loadBalancers[1].userId.claims[0] requires `accessToken`",
        ),
        (
            json!({"userId": {"prefix": "system:"}}),
            "loadBalancers[1].userId.prefix: found",
        ),
        (
            json!({"issuer": null, "userId": {"prefix": "b:"}, "accessToken": {"issuer": "https://two.example"}}),
            "loadBalancers[1].accessToken requires all",
        ),
    ] {
        let found = mistakes(&of_two(&json!({"userId": {"prefix": "a:"}}), &change));
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{expected}\n  found: {found:?}"
        );
    }
}

#[test]
fn overlapping_entries_are_ordered_by_what_they_match() {
    let entries = |entries: &[(Option<&str>, Option<&str>)]| {
        let entries: Vec<_> = entries
            .iter()
            .map(|(issuer, client)| json!({"arn": ARN, "issuer": issuer, "clientId": client}))
            .collect();
        Config::from_value(&json!({"loadBalancers": entries, "sharedNames": true}))
    };
    let config = entries(&[(None, None), (Some("i"), None), (Some("i"), Some("c"))]).unwrap();
    let order: Vec<_> = config
        .load_balancers
        .iter()
        .map(|entry| (entry.issuer.is_some(), entry.client_id.is_some()))
        .collect();
    assert_eq!(order, [(true, true), (true, false), (false, false)]);
    let ambiguous = entries(&[(Some("i"), None), (None, Some("c"))]).unwrap_err();
    assert!(
        ambiguous.len() == 1 && ambiguous[0].path() == "loadBalancers[1]",
        "{ambiguous:?}"
    );
    assert!(entries(&[(Some("i"), Some("c")), (Some("i"), Some("d"))]).is_ok());
}

#[test]
fn rules_name_only_configured_issuers() {
    let rule = |rule: Value| mistakes(&with(|config| config["rules"] = json!([rule])));
    let issuers = json!({"issuers": ["https://issuer.example"]});
    assert_eq!(rule(json!({"match": issuers})), [""; 0]);
    for (wrong, expected) in [
        (
            json!({"match": {"issuers": ["https://issuer.example/"]}}),
            "rules[0].match.issuers[0]: found",
        ),
        (
            json!({"match": {"issuers": ["https://issuer.example"], "paths": [{"prefix": "/"}]}, "require": "optional"}),
            "rules[0].match.issuers cannot be combined with `require: optional`",
        ),
        (
            json!({"require": "optional"}),
            "rules[0].match requires hosts, paths or methods with `require: optional`",
        ),
        (
            json!({"match": {"paths": [{"prefix": "/"}]}, "require": "optional", "allow": {"users": ["a"]}}),
            "rules[0].allow cannot be combined with `require: optional`",
        ),
    ] {
        let found = rule(wrong);
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{found:?}"
        );
    }
}

#[test]
fn stops_compiling_when_regexes_are_too_large() {
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
    // Regexes over 256 KiB each do not all get compiled.
    let found = rules(&["(?:a{100}){200}"; 60]);
    assert!(found.len() < 12, "{} mistakes", found.len());
    assert_eq!(
        rules(&["^/v[0-9]+/ready$", "^/(health|ready)z?$", r"\.(css|js)$"]),
        [""; 0]
    );
}

#[test]
fn reports_missing_required_fields() {
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
fn reports_all_mistakes() {
    let config = with(|config| {
        config["clockSkewSeconds"] = json!("x");
        config["userId"] = json!({"lowercase": 1, "header": ""});
    });
    assert_eq!(mistakes(&config).len(), 3);
}

/// An object with an unknown field, and with `leaf` in every field that is not an object or array
/// of objects.
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
fn reports_each_mistake_once() {
    for leaf in [json!({}), json!(true), json!(7), json!("("), json!(["("])] {
        let config = filled("", &leaf);
        let found = mistakes(&config);
        let once: std::collections::BTreeSet<_> = found.iter().collect();
        assert_eq!(found.len(), once.len(), "{leaf}: {found:#?}");
        let unknown = found
            .iter()
            .filter(|mistake| mistake.contains("unknown: found an unknown field"));
        let objects = config.to_string().matches("\"unknown\":").count();
        assert_eq!(unknown.count(), objects, "{leaf}: {found:#?}");
    }
}

/// A config with every field.
fn full() -> Value {
    json!({
        "loadBalancers": [{
            "arn": ARN,
            "issuer": "https://idp.test",
            "clientId": "client",
            "userId": {"prefix": "a:"},
            "groups": {"prefix": "g:"},
            "accessToken": {"issuer": "https://idp.test"},
        }],
        "sharedNames": true,
        "publicKeys": {
            "endpoint": "https://keys.test",
            "cluster": "keys",
            "timeoutMs": 1000,
            "cacheTtlSeconds": 60,
        },
        "clockSkewSeconds": 30,
        "userId": {
            "claims": ["email"],
            "header": "x-user",
            "prefix": "",
            "lowercase": true,
            "requireVerifiedEmail": true,
            "provider": "Okta",
            "transformers": [{"matches": "a", "replaces": ""}],
        },
        "groups": {
            "claims": ["access:groups", "groups"],
            "separator": ";",
            "members": "keys",
            "decode": "form",
            "transformers": [{"matches": "b", "replaces": ""}],
            "header": "x-groups",
            "prefix": "",
            "keep": "a",
            "memberHeaderPrefix": "x-group-",
        },
        "claimHeaders": [{"claim": "name", "header": "x-name", "encoding": "percent"}],
        "accessToken": {
            "issuer": "https://idp.test",
            "subject": "uid",
            "jwksUri": "https://idp.test/keys",
            "jwksCluster": "idp",
        },
        "rules": [
            {"match": {"hosts": ["a.test"]}, "require": "none"},
            {"match": {"paths": [{"exact": "/a"}]}, "require": "none"},
            {"match": {"paths": [{"prefix": "/a"}]}, "require": "none"},
            {"match": {"paths": [{"suffix": "a"}]}, "require": "none"},
            {"match": {"paths": [{"regex": "a"}]}, "require": "none"},
            {"match": {"methods": ["GET"]}, "require": "none"},
            {"match": {"methods": ["HEAD"]}, "require": "optional"},
            {"match": {"issuers": ["https://idp.test"]}},
            {"allow": {"users": ["ann"]}},
            {"allow": {"domains": ["a.test"]}},
            {"allow": {"groups": ["g:a"]}},
        ],
        "logout": {
            "path": "/logout",
            "redirectTo": "https://idp.test/logout",
            "sessionCookie": "session",
        },
        "pages": {"title": "ML", "contact": "ml@idp.test"},
        "upgrades": [],
        "reservedHeaders": ["x-reserved"],
        "forward": {
            "oidcData": true,
            "accessToken": true,
            "sessionCookies": true,
            "pathOverrides": true,
        },
        "accessLog": {"user": true},
        "mode": "report",
        "accessLog": {"user": true},
    })
}

/// The JSON pointers of every member below `value`.
fn members(value: &Value, pointer: &str) -> Vec<String> {
    let below: Vec<_> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), value))
            .collect(),
        Value::Array(elements) => (0..).map(|n: usize| n.to_string()).zip(elements).collect(),
        _ => Vec::new(),
    };
    let below = below.into_iter().flat_map(|(name, value)| {
        let pointer = format!("{pointer}/{name}");
        [vec![pointer.clone()], members(value, &pointer)].concat()
    });
    below.collect()
}

#[test]
fn reports_each_wrong_value_once() {
    assert_eq!(mistakes(&full()), [""; 0]);
    let pointers = members(&full(), "");
    let is_covered = |field: &crate::Field| {
        let wanted = format!("/{}", field.path.replace('.', "/"));
        pointers.iter().any(|pointer| {
            let names = pointer
                .split('/')
                .filter(|name| name.parse::<u8>().is_err());
            names.collect::<Vec<_>>().join("/") == wanted
        })
    };
    for field in FIELDS {
        assert!(is_covered(field), "{} is missing in `full`", field.path);
    }
    for pointer in &pointers {
        for wrong in [json!(-1), json!(""), json!([{}]), json!([""]), json!({})] {
            let mut config = full();
            *config.pointer_mut(pointer).unwrap() = wrong.clone();
            let found = mistakes(&config);
            let fields: std::collections::BTreeSet<_> = found
                .iter()
                .map(|mistake| mistake.split([' ', ':']).next().unwrap())
                .collect();
            assert!(
                fields.len() == found.len(),
                "{pointer}: {wrong}: {found:#?}"
            );
            if wrong == json!(-1) {
                assert_eq!(found.len(), 1, "{pointer}: {found:#?}");
            }
        }
    }
}

#[test]
fn rejects_a_provider_that_no_username_begins_with() {
    let config = |provider: &str| with(|config| config["userId"] = json!({"provider": provider}));
    assert_eq!(mistakes(&config("Okta-1")), [""; 0]);
    assert_eq!(
        mistakes(&config("my_Okta")),
        [
            "userId.provider: found \"my_Okta\", expected a name without `_`, as `username` is compared up to its first `_` and could never equal this one"
        ]
    );
}

#[test]
fn says_to_quote_numbers_and_booleans() {
    let found = mistakes(&with(|config| {
        config["loadBalancers"][0]["clientId"] = json!(1234567890);
        config["userId"] = json!({"prefix": false, "claims": [7, null]});
        config["mode"] = json!(1);
    }));
    let expected = [
        "loadBalancers[0].clientId: found 1234567890, expected a string of 1 to 512 bytes, or null for any: put the value in quotes",
        "userId.claims[0]: found 7, expected a string: put the value in quotes",
        "userId.claims[1]: found null, expected a string",
        "userId.prefix: found false, expected a string of 0 to 64 bytes: put the value in quotes",
        "mode: found 1, expected \"enforce\" or \"report\"",
    ];
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(found), sorted(expected.map(str::to_owned).to_vec()));
}

#[test]
fn a_message_is_one_line() {
    for spoil in ["a\r\nb", "a\u{85}b", "a\u{7f}b", "\u{1b}[2J"] {
        let config = with(|config| {
            config[spoil] = json!(1);
            config["userId"] = json!({"header": spoil, "claims": [spoil]});
        });
        let duplicate = format!("{{{0}:1,{0}:1}}", Value::from(spoil));
        let found = [mistakes(&config), mistakes_in(&duplicate)].concat();
        assert!(found.len() > 2, "{found:?}");
        for line in found {
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}

#[test]
fn rejects_invalid_json() {
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

#[test]
fn groups_of_one_load_balancer_need_a_header_of_their_own() {
    for (field, value, expected) in [
        (
            "userId",
            json!({"header": "kubeflow_groups"}),
            "groups.header cannot be combined with userId.header: both set \"kubeflow-groups\"",
        ),
        (
            "claimHeaders",
            json!([{"claim": "nickname", "header": "Kubeflow-Groups"}]),
            "claimHeaders[0].header cannot be combined with groups.header: both set \"kubeflow-groups\"",
        ),
    ] {
        let config = with(|config| {
            config[field] = value;
            config["loadBalancers"][0]["groups"] = json!({"claims": ["groups"]});
        });
        assert_eq!(mistakes(&config), [expected]);
    }
}
